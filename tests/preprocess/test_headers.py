"""What image files say of themselves, on files of every kind that is read."""

import struct
import tracemalloc
from dataclasses import asdict
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from tumorbatch.preprocess.headers import read_header
from tumorbatch.preprocess.image import Header
from tumorbatch.status import FileError, Status

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

HEIGHT, WIDTH = 40, 56


def _status(data: bytes) -> Status:
    with pytest.raises(FileError) as caught:
        read_header(data)
    return caught.value.status


# --- size, depth, channels ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "channels", "depth", "name"),
    [
        (".jpg", 1, 8, "jpeg"),
        (".jpg", 3, 8, "jpeg"),
        (".png", 1, 8, "png"),
        (".png", 3, 8, "png"),
        (".png", 4, 8, "png"),
        (".png", 1, 16, "png"),
        (".png", 3, 16, "png"),
        (".tif", 1, 8, "tiff"),
        (".tif", 3, 8, "tiff"),
        (".tif", 4, 8, "tiff"),
        (".tif", 1, 16, "tiff"),
        (".tif", 3, 16, "tiff"),
    ],
)
def test_what_opencv_writes(
    build: "type[Build]", suffix: str, channels: int, depth: int, name: str
) -> None:
    pixels = build.smooth(HEIGHT, WIDTH).astype(f"u{depth // 8}")
    if channels > 1:
        pixels = np.dstack([pixels] * channels)
    header = read_header(build.encode(suffix, pixels))
    assert header == Header(name, WIDTH, HEIGHT, depth, channels, alpha=channels == 4)


def test_a_float_tiff(build: "type[Build]") -> None:
    pixels = build.smooth(HEIGHT, WIDTH).astype(np.float32)
    assert read_header(build.encode(".tif", pixels)) == Header("tiff", WIDTH, HEIGHT, 32, 1)


def test_a_progressive_jpeg(build: "type[Build]") -> None:
    pixels = build.colour(HEIGHT, WIDTH)
    data = build.encode(".jpg", pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert b"\xff\xc2" in data
    assert read_header(data) == Header("jpeg", WIDTH, HEIGHT, 8, 3)


@pytest.mark.parametrize(
    ("colour", "depth", "channels", "alpha"),
    [
        (0, 1, 1, False),
        (0, 2, 1, False),
        (0, 4, 1, False),
        (4, 8, 2, True),
        (4, 16, 2, True),
        (6, 16, 4, True),
    ],
)
def test_kinds_of_png(
    build: "type[Build]", colour: int, depth: int, channels: int, alpha: bool
) -> None:
    pixels = np.zeros((HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels), np.uint16)
    header = read_header(build.png(pixels, colour, depth))
    assert header == Header("png", WIDTH, HEIGHT, depth, channels, alpha=alpha)


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("colour", [0, 2, 3])
def test_a_transparent_colour_is_alpha(build: "type[Build]", colour: int, transparent: bool) -> None:
    before = build.chunk(b"PLTE", bytes(768))
    if transparent:
        before += build.chunk(b"tRNS", {0: bytes(2), 2: bytes(6), 3: bytes(256)}[colour])
    pixels = np.zeros((HEIGHT, WIDTH, 3) if colour == 2 else (HEIGHT, WIDTH), np.uint8)
    header = read_header(build.png(pixels, colour, before=before))
    assert header.alpha is transparent
    assert header.channels == (3 if colour == 2 else 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4", "f8"])
def test_byte_orders_of_tiff(build: "type[Build]", order: str, kind: str) -> None:
    pixels = build.smooth(HEIGHT, WIDTH).astype(kind)
    expected = Header("tiff", WIDTH, HEIGHT, 8 * int(kind[1]), 1)
    assert read_header(build.tiff(pixels, order)) == expected


def test_a_tiff_that_says_only_the_least(build: "type[Build]") -> None:
    """One bit, one channel, upright are the defaults of TIFF 6.0."""
    absent = dict.fromkeys((258, 259, 262, 277, 278, 339))
    header = read_header(build.tiff(build.smooth(HEIGHT, WIDTH), tags=absent))
    assert header == Header("tiff", WIDTH, HEIGHT, 1, 1)


def test_the_first_of_two_equal_tiff_tags_counts(build: "type[Build]") -> None:
    """As libtiff has it, so header and decoder agree."""
    data = bytearray(build.tiff(build.smooth(HEIGHT, WIDTH)))
    data[10 + 12 * 3 : 12 + 12 * 3] = struct.pack("<H", 256)  # the fourth tag, compression, value 1
    assert read_header(bytes(data)).width == WIDTH


def test_a_cmyk_jpeg(build: "type[Build]") -> None:
    assert read_header(build.flat_jpeg([10, 20, 30, 40], adobe=0)) == Header("jpeg", 16, 16, 8, 4)


def test_fill_bytes_and_unknown_segments_of_a_jpeg(build: "type[Build]") -> None:
    jpeg = build.encode(".jpg", build.smooth(HEIGHT, WIDTH))
    comment = b"\xff\xff\xff\xfe" + struct.pack(">H", 7) + b"\xff\xd9\xff\xc0\0"
    assert read_header(build.with_segments(jpeg, comment)) == read_header(jpeg)


def test_a_thumbnail_is_not_the_image(build: "type[Build]") -> None:
    thumbnail = build.encode(".jpg", build.smooth(16, 24))
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    jpeg = build.with_segments(build.encode(".jpg", build.smooth(HEIGHT, WIDTH)), segment)
    assert read_header(jpeg) == Header("jpeg", WIDTH, HEIGHT, 8, 1)


# --- orientation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation(build: "type[Build]", orientation: int, order: str) -> None:
    pixels = build.smooth(HEIGHT, WIDTH)
    exif = build.exif(orientation, order)
    files = {
        "jpeg": build.with_segments(build.encode(".jpg", pixels), build.app1(exif)),
        "png": build.png(pixels, before=build.chunk(b"eXIf", exif)),
        "tiff": build.tiff(pixels, order, {274: (3, [orientation])}),
    }
    expected = orientation if 1 <= orientation <= 8 else 1
    for name, data in files.items():
        assert asdict(read_header(data)) == asdict(
            Header(name, WIDTH, HEIGHT, 8, 1, orientation=expected)
        )


def test_the_first_exif_block_with_an_orientation_counts(build: "type[Build]") -> None:
    """As OpenCV has it, so flag and pixels agree."""
    jpeg = build.encode(".jpg", build.smooth(HEIGHT, WIDTH))
    silent = build.app1(b"II*\0\x08\0\0\0" + build.directory({}, 8))
    upright, turned = build.app1(build.exif(1)), build.app1(build.exif(6))
    for segments, expected in (
        ((silent, turned, upright), 6),
        ((upright, turned), 1),
        ((turned, upright), 6),
    ):
        assert read_header(build.with_segments(jpeg, *segments)).orientation == expected


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        b"XX*\0\x08\0\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\x05\0",
    ],
)
def test_a_broken_exif_block_costs_nothing(build: "type[Build]", exif: bytes) -> None:
    jpeg = build.encode(".jpg", build.smooth(HEIGHT, WIDTH))
    assert read_header(build.with_segments(jpeg, build.app1(exif))) == read_header(jpeg)


def test_an_exif_block_with_a_broken_neighbour_tag(build: "type[Build]") -> None:
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHIHHI", 2, 270, 1, 500, 90_000, 274, 3, 1, 6, 0, 0)
    jpeg = build.encode(".jpg", build.smooth(HEIGHT, WIDTH))
    assert read_header(build.with_segments(jpeg, build.app1(exif))).orientation == 6


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [1, 2, 5])
def test_pages_of_a_tiff(build: "type[Build]", pages: int) -> None:
    images = [build.smooth(HEIGHT, WIDTH, seed) for seed in range(pages)]
    assert read_header(build.pages(images)) == Header("tiff", WIDTH, HEIGHT, 8, 1, pages=pages)


def _following(data: bytes | bytearray, at: int) -> int:
    """Where a directory at `at` says which directory comes next."""
    return at + 2 + 12 * int(struct.unpack_from("<H", data, at)[0])


def test_a_circle_of_pages_ends(build: "type[Build]") -> None:
    data = bytearray(build.tiff(build.smooth(HEIGHT, WIDTH)))
    struct.pack_into("<I", data, _following(data, 8), 8)
    assert read_header(bytes(data)).pages == 2


def test_a_broken_second_page_does_not_cost_the_first(build: "type[Build]") -> None:
    data = bytearray(build.tiff(build.smooth(HEIGHT, WIDTH)))
    struct.pack_into("<I", data, _following(data, 8), len(data) + 1000)
    assert read_header(bytes(data)) == Header("tiff", WIDTH, HEIGHT, 8, 1)


def test_frames_of_an_animated_png_are_pages(build: "type[Build]") -> None:
    animation = build.chunk(b"acTL", struct.pack(">II", 3, 0))
    assert read_header(build.png(build.smooth(HEIGHT, WIDTH), before=animation)).pages == 3


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"This is a text file, not an image.\n",
        b"GIF89a" + bytes(100),
        b"BMW is no image format" + bytes(100),
        b"%PDF-1.7",
        b"RIFF\0\0\0\0WAVE",
        b"II+\0\x08\0\0\0" + bytes(100),  # BigTIFF
        bytes(128) + b"DICM",
        bytes(1000),
    ],
)
def test_other_formats_are_unsupported(data: bytes) -> None:
    assert _status(data) is Status.UNSUPPORTED


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*"])
def test_a_file_cut_in_its_first_bytes_is_truncated(magic: bytes) -> None:
    for length in range(1, len(magic) + 1):
        assert _status(magic[:length]) is Status.TRUNCATED


def test_headers_that_contradict_themselves(build: "type[Build]") -> None:
    pixels = build.smooth(HEIGHT, WIDTH)
    png = build.png(pixels)
    for broken in (
        b"\xff\xd8\xff\xd9",  # no frame
        b"\xff\xd8\xff\xe0\0\1" + bytes(20) + b"\xff\xd9",  # a segment shorter than its own length
        png[:12] + b"IHDX" + png[16:],
        png[:25] + b"\x05" + png[26:],  # there is no colour type 5
        build.tiff(pixels, tags={256: None}),
        build.tiff(pixels, tags={257: None}),
        build.tiff(pixels, tags={256: (3, [0])}),
    ):
        assert _status(broken) is Status.DECODE_ERROR


def test_pixels_beyond_the_end_of_a_tiff(build: "type[Build]") -> None:
    pixels = build.smooth(HEIGHT, WIDTH)
    whole = build.tiff(pixels)
    for tags in (
        {273: (4, [len(whole) - pixels.size + 1])},
        {279: (4, [pixels.size + 1])},
        {273: None, 279: None, 324: (4, [10, len(whole)]), 325: (4, [10, 100])},  # tiles
    ):
        assert _status(build.tiff(pixels, tags=tags)) is Status.TRUNCATED


@pytest.mark.parametrize("order", ["<", ">"])
def test_kinds_of_tiff_that_are_refused(build: "type[Build]", order: str) -> None:
    """Colour spaces, and samples that differ, are refused by name."""
    grey = build.smooth(HEIGHT, WIDTH)
    for pixels, tags, word in (
        (grey, {262: (3, [8])}, "photometric"),  # CIELab
        (grey, {262: (3, [32803])}, "photometric"),  # colour filters of a camera
        (np.dstack([grey] * 3), {258: (3, [5, 6, 5])}, "alike"),
        (np.dstack([grey] * 3).astype(np.uint16), {262: (3, [6])}, "YCbCr"),
        (grey.astype(np.float32), {339: (3, [6])}, "32 bits"),  # complex numbers
    ):
        with pytest.raises(FileError) as caught:
            read_header(build.tiff(pixels, order, tags))
        assert caught.value.status is Status.UNSUPPORTED
        assert word in caught.value.message


# --- small files that claim to be large -----------------------------------------------------------


def _peak_of_reading(data: bytes) -> int:
    tracemalloc.start()
    try:
        read_header(data)
    except FileError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_a_tiff_of_tags_that_all_claim_the_whole_file(build: "type[Build]") -> None:
    """A quarter of a megabyte; reading each tag's values would take 32 GB."""
    count = 20_000
    entries = b"".join(struct.pack("<HHII", 1000 + tag, 1, 12 * count, 0) for tag in range(count))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)
    assert _peak_of_reading(data) < 1 << 20


def test_a_tiff_of_one_tag_over_and_over(build: "type[Build]") -> None:
    count = 20_000
    entries = struct.pack("<HHII", 273, 1, 12 * count, 0) * count
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)
    assert _peak_of_reading(data) < 16 << 20


def test_a_tiff_with_more_strips_than_any_image_has(build: "type[Build]") -> None:
    strips = (1 << 20) + 1
    data = build.tiff(build.smooth(HEIGHT, WIDTH), tags={273: (4, range(strips))})
    assert _status(data) is Status.DECODE_ERROR
    assert _peak_of_reading(data) < 1 << 20


def test_an_endless_chain_of_pages(build: "type[Build]") -> None:
    """Directories that overlap, each of which names the next one: counting stops."""
    data = bytearray(build.tiff(build.smooth(HEIGHT, WIDTH)))
    start = len(data)
    data += b"".join(struct.pack("<HI", 0, start + 6 * page) for page in range(1, 50_000))
    struct.pack_into("<I", data, _following(data, 8), start)
    assert read_header(bytes(data)).pages == 10_000
