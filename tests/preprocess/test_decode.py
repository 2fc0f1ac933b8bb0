"""From a file's bytes to grey pixels: never wrong ones, and a word for every file that gives none."""

import struct
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch.preprocess.decode import MAX_PIXELS, decode
from tumorbatch.preprocess.image import MIN_SIDE, Decoded
from tumorbatch.status import FileError, Status

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

HEIGHT, WIDTH = 40, 56
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
Array = NDArray[Any]

# Exif's own words for 1 to 8, as what must be done to the stored array to see it upright.
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}


def _error(data: bytes, **limits: int) -> FileError:
    with pytest.raises(FileError) as caught:
        decode(data, **limits)
    return caught.value


def _difference(decoded: Decoded, expected: Array) -> float:
    assert decoded.grey.dtype == np.uint8
    assert decoded.grey.shape == expected.shape
    return float(np.abs(decoded.grey.astype(float) - expected).max())


def _percentile(values: Array, percent: float) -> float:
    """Linear between the two nearest of the sorted values."""
    ordered = np.sort(values.astype(np.float64).ravel())
    at = percent / 100 * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (at - below) * (ordered[above] - ordered[below]))


def _windowed(values: Array) -> Array:
    """The 0.5th percentile becomes 0, the 99.5th 255, what lies between is linear."""
    low, high = _percentile(values, 0.5), _percentile(values, 99.5)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255


def _twelve_bits(build: "type[Build]") -> NDArray[np.uint16]:
    return np.rint(build.smooth(HEIGHT, WIDTH) * (4095 / 255)).astype(np.uint16)


# --- what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_grey_is_read_as_it_is(build: "type[Build]", suffix: str) -> None:
    pixels = build.smooth(HEIGHT, WIDTH)
    decoded = decode(build.encode(suffix, pixels))
    np.testing.assert_array_equal(decoded.grey, pixels)
    assert decoded.grey.flags.c_contiguous
    assert decoded.flags == ()


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_grey_jpeg(build: "type[Build]", progressive: int) -> None:
    pixels = build.smooth(HEIGHT, WIDTH)
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_QUALITY, 98)
    assert _difference(decode(build.encode(".jpg", pixels, *options)), pixels) <= 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_colour_becomes_luma(build: "type[Build]", suffix: str) -> None:
    pixels = build.colour(HEIGHT, WIDTH)
    options = (cv2.IMWRITE_JPEG_QUALITY, 100) if suffix == ".jpg" else ()
    decoded = decode(build.encode(suffix, pixels, *options))
    assert _difference(decoded, pixels @ LUMA) <= (3 if suffix == ".jpg" else 1)
    assert decoded.flags == ()


@pytest.mark.parametrize(
    ("values", "adobe", "expected"),
    [
        ([200], None, 200),
        ([30, 90, 200], None, 30),  # YCbCr: Y is the luma
        ([200, 100, 50], 0, float(np.array([200, 100, 50]) @ LUMA)),  # RGB
        ([255, 255, 255, 255], 0, 255),  # CMYK as Adobe stores it: 255 is no ink
        ([200, 100, 50, 180], 0, float(np.array([200, 100, 50]) @ LUMA) * 180 / 255),
        ([0, 0, 0, 255], 0, 0),
    ],
)
def test_colour_spaces_of_jpeg(
    build: "type[Build]", values: list[int], adobe: int | None, expected: float
) -> None:
    decoded = decode(build.flat_jpeg(values, adobe))
    assert _difference(decoded, np.full((16, 16), expected)) <= 2


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_span_black_to_white(build: "type[Build]", depth: int) -> None:
    pixels = build.smooth(HEIGHT, WIDTH) >> (8 - depth)
    decoded = decode(build.png(pixels, depth=depth))
    np.testing.assert_array_equal(decoded.grey, pixels * (255 // (2**depth - 1)))
    assert decoded.header.bit_depth == depth


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette(build: "type[Build]", transparent: bool) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    pixels = build.smooth(HEIGHT, WIDTH)
    before = build.chunk(b"PLTE", palette.tobytes())
    before += build.chunk(b"tRNS", bytes(256)) if transparent else b""
    decoded = decode(build.png(pixels, 3, before=before))
    assert _difference(decoded, palette[pixels] @ LUMA) <= 1
    assert decoded.flags == (("alpha",) if transparent else ())


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_what_lies_under_transparent_pixels_is_shown(build: "type[Build]", opacity: int) -> None:
    grey, colour = build.smooth(HEIGHT, WIDTH), build.colour(HEIGHT, WIDTH)
    alpha = np.full_like(grey, opacity)
    for data, expected in (
        (build.png(np.dstack([grey, alpha]), 4), grey),
        (build.png(np.dstack([colour, alpha]), 6), colour @ LUMA),
    ):
        decoded = decode(data)
        assert _difference(decoded, expected) <= 1.01
        assert decoded.flags == ("alpha",)


@pytest.mark.parametrize("order", ["<", ">"])
def test_one_bit_tiffs_black_or_white(build: "type[Build]", order: str) -> None:
    bits = build.smooth(HEIGHT, WIDTH) > 127
    for white, expected in ((1, bits), (0, ~bits)):
        tags = {
            256: (3, [WIDTH]),
            258: (3, [1]),
            262: (3, [white]),
            279: (4, [bits.size // 8]),
            339: None,
        }
        data = build.tiff(np.packbits(bits, axis=1), order, tags)
        np.testing.assert_array_equal(decode(data).grey, expected * np.uint8(255))


@pytest.mark.parametrize("order", ["<", ">"])
def test_eight_bit_tiff_in_which_zero_is_white(build: "type[Build]", order: str) -> None:
    pixels = build.smooth(HEIGHT, WIDTH)
    decoded = decode(build.tiff(pixels, order, {262: (3, [0])}))
    np.testing.assert_array_equal(decoded.grey, 255 - pixels)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])  # none, LZW, deflate, PackBits
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_compressions_of_tiff(build: "type[Build]", compression: int, kind: type) -> None:
    pixels = build.smooth(HEIGHT, WIDTH).astype(kind)
    decoded = decode(build.encode(".tif", pixels, cv2.IMWRITE_TIFF_COMPRESSION, compression))
    if kind is np.uint8:
        np.testing.assert_array_equal(decoded.grey, pixels)
    else:
        assert _difference(decoded, _windowed(pixels)) <= 0.51


@pytest.mark.parametrize("compression", [0, 6, 9, 34712, 52546, 65000, 65535])
def test_other_compressions_of_tiff_are_refused(build: "type[Build]", compression: int) -> None:
    """libtiff gives zeros for most of them, and no error."""
    data = build.tiff(build.smooth(HEIGHT, WIDTH), tags={259: (3, [compression])})
    assert _error(data).status is Status.UNSUPPORTED
    assert f"compression {compression}" in _error(data).message


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied(build: "type[Build]", orientation: int) -> None:
    pixels = build.smooth(HEIGHT, WIDTH)
    jpeg = build.encode(".jpg", pixels)
    exif = build.exif(orientation, ">")
    upright = UPRIGHT[orientation]
    for stored, data in (
        (decode(jpeg).grey, build.with_segments(jpeg, build.app1(exif))),
        (pixels, build.png(pixels, before=build.chunk(b"eXIf", exif))),
        (pixels, build.tiff(pixels, tags={274: (3, [orientation])})),
    ):
        decoded = decode(data)
        np.testing.assert_array_equal(decoded.grey, upright(stored))
        assert decoded.grey.flags.c_contiguous
        assert decoded.flags == (("rotated",) if orientation > 1 else ())


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_of_16_bits(build: "type[Build]", orientation: int) -> None:
    pixels = _twelve_bits(build)
    decoded = decode(build.tiff(pixels, tags={274: (3, [orientation])}))
    np.testing.assert_array_equal(decoded.grey, UPRIGHT[orientation](decode(build.tiff(pixels)).grey))


def test_the_first_page_is_used(build: "type[Build]") -> None:
    pages = [build.smooth(HEIGHT, WIDTH, seed) for seed in range(3)]
    decoded = decode(build.pages(pages))
    np.testing.assert_array_equal(decoded.grey, pages[0])
    assert decoded.flags == ("multi-page",)


def test_flags_are_sorted(build: "type[Build]") -> None:
    pixels = np.dstack([_twelve_bits(build)] * 4)
    exif = build.chunk(b"eXIf", build.exif(6))
    decoded = decode(build.png(pixels, 6, 16, before=exif))
    assert decoded.flags == ("16-bit", "alpha", "rotated")


# --- more than 8 bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_twelve_bits_in_sixteen_are_windowed(build: "type[Build]", suffix: str) -> None:
    pixels = _twelve_bits(build)
    decoded = decode(build.encode(suffix, pixels))
    assert _difference(decoded, _windowed(pixels)) <= 0.51
    assert len(np.unique(decoded.grey)) > 100  # divided by 65535 it would be 16
    assert decoded.flags == ("16-bit",)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4", "f8"])
def test_kinds_of_numbers_in_tiff(build: "type[Build]", kind: str, order: str) -> None:
    pixels = (build.smooth(HEIGHT, WIDTH).astype(np.int64) * 37).astype(kind)
    if kind[0] != "u":
        pixels = pixels - np.array(3000, kind)
    decoded = decode(build.tiff(pixels, order))
    assert _difference(decoded, _windowed(pixels)) <= 0.51


def test_sixteen_bit_colour_is_luma_then_window(build: "type[Build]") -> None:
    pixels = build.colour(HEIGHT, WIDTH).astype(np.uint16) * 16
    expected = _windowed(np.rint(pixels @ LUMA))
    for data in (build.png(pixels, 2, 16), build.tiff(pixels)):
        assert _difference(decode(data), expected) <= 1


def test_a_few_extreme_values_do_not_set_the_window(build: "type[Build]") -> None:
    pixels = _twelve_bits(build)
    pixels[0, :5] = 65535
    decoded = decode(build.encode(".png", pixels))
    assert _difference(decoded, _windowed(pixels)) <= 0.51
    assert np.median(decoded.grey) > 50


def test_a_nearly_constant_image_shows_its_extremes(build: "type[Build]") -> None:
    pixels = np.full((64, 64), 1000, np.uint16)
    pixels[3, 4], pixels[5, 6] = 500, 1500  # two of 4096: beyond both percentiles
    grey = decode(build.encode(".png", pixels)).grey
    assert (int(grey[3, 4]), int(grey[5, 6]), int(grey[0, 0])) == (0, 255, 128)


@pytest.mark.parametrize("value", [0, 700, 65535])
def test_a_constant_image_is_black(build: "type[Build]", value: int) -> None:
    pixels = np.full((HEIGHT, WIDTH), value, np.uint16)
    for data in (build.encode(".png", pixels), build.tiff(pixels.astype(np.float32))):
        assert not decode(data).grey.any()


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(build: "type[Build]", kind: str, value: float) -> None:
    pixels = build.smooth(HEIGHT, WIDTH).astype(kind)
    pixels[7, 9] = value
    error = _error(build.tiff(pixels))
    assert error.status is Status.DECODE_ERROR
    assert "not numbers" in error.message


def test_extreme_floats_do_not_overflow(build: "type[Build]") -> None:
    """Any warning of NumPy is an error here."""
    half = build.smooth(HEIGHT, WIDTH) > 127
    huge = np.where(half, 1.7e308, -1.7e308)
    assert _error(build.tiff(huge)).status is Status.DECODE_ERROR
    large = np.where(half, 3e38, -3e38).astype(np.float32)
    np.testing.assert_array_equal(decode(build.tiff(large)).grey, half * np.uint8(255))
    tiny = half * np.float64(5e-324)
    assert not decode(build.tiff(tiny)).grey.any()


def test_all_sixteen_bits_of_grey_with_alpha(build: "type[Build]") -> None:
    pixels = np.dstack([_twelve_bits(build)] * 2)
    decoded = decode(build.tiff(pixels, tags={338: (3, [2])}))
    assert _difference(decoded, _windowed(pixels[..., 0])) <= 0.51
    assert decoded.flags == ("16-bit", "alpha")


# --- limits -----------------------------------------------------------------------------------------


def _resized_header(build: "type[Build]", kind: str, width: int, height: int) -> bytes:
    """A whole, small file whose header claims another size."""
    if kind == "tiff":
        tags = {256: (4, [width]), 257: (4, [height])}
        return build.tiff(build.smooth(HEIGHT, WIDTH), tags=tags)
    data = bytearray(build.encode({"png": ".png", "jpeg": ".jpg"}[kind], build.smooth(HEIGHT, WIDTH)))
    if kind == "png":
        struct.pack_into(">II", data, 16, width, height)
    else:
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("size", [(40_000, 40_000), (65_535, 1000), (8_000, 8_001)])
def test_a_header_bomb_never_reaches_the_decoder(
    build: "type[Build]", monkeypatch: pytest.MonkeyPatch, kind: str, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the decoder saw the file"))
    error = _error(_resized_header(build, kind, *size))
    assert error.status is Status.TOO_LARGE
    assert f"{size[0]} x {size[1]}" in error.message
    assert f"{MAX_PIXELS:,}" in error.message


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sizes_beyond_any_type_are_too_large(build: "type[Build]", kind: str) -> None:
    assert _error(_resized_header(build, kind, 2**32 - 1, 2**32 - 1)).status is Status.TOO_LARGE


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_header_that_is_only_somewhat_wrong(build: "type[Build]", kind: str) -> None:
    """More rows than there are: an error, not a half-empty image."""
    error = _error(_resized_header(build, kind, WIDTH, 20 * HEIGHT))
    assert error.status in (Status.DECODE_ERROR, Status.TRUNCATED)


def test_the_pixel_limit_is_inclusive(build: "type[Build]") -> None:
    data = build.encode(".png", build.smooth(HEIGHT, WIDTH))
    assert decode(data, max_pixels=HEIGHT * WIDTH).grey.shape == (HEIGHT, WIDTH)
    assert _error(data, max_pixels=HEIGHT * WIDTH - 1).status is Status.TOO_LARGE


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_the_least_side(build: "type[Build]", suffix: str) -> None:
    for height, width in ((MIN_SIDE - 1, 50), (50, MIN_SIDE - 1), (1, 50)):
        error = _error(build.encode(suffix, build.smooth(height, width)))
        assert error.status is Status.TOO_SMALL
        assert f"{width} x {height}" in error.message
    assert decode(build.encode(suffix, build.smooth(MIN_SIDE, MIN_SIDE))).grey.size == MIN_SIDE**2


def test_no_bytes_and_no_image() -> None:
    assert _error(b"").status is Status.EMPTY
    assert _error(b"This is a text file, not an image.\n").status is Status.UNSUPPORTED


# --- damage -----------------------------------------------------------------------------------------

DAMAGED = {
    "jpeg": (".jpg", "grey", ()),
    "colour jpeg": (".jpg", "colour", ()),
    "progressive jpeg": (".jpg", "colour", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "jpeg with restarts": (".jpg", "colour", (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    "png": (".png", "grey", ()),
    "16-bit png": (".png", "deep", ()),
    "colour png": (".png", "colour", ()),
    "tiff": (".tif", "grey", ()),
    "plain tiff": (".tif", "grey", (cv2.IMWRITE_TIFF_COMPRESSION, 1)),
    "16-bit tiff": (".tif", "deep", ()),
    "colour tiff": (".tif", "colour", ()),
    "big-endian tiff": ("", "grey", ()),  # its directory in front of the pixels
    "bmp": (".bmp", "colour", ()),
    "grey bmp": (".bmp", "grey", ()),
    "webp": (".webp", "colour", (cv2.IMWRITE_WEBP_QUALITY, 80)),
    "lossless webp": (".webp", "colour", (cv2.IMWRITE_WEBP_QUALITY, 101)),
}


@cache
def _whole(build: "type[Build]", name: str) -> bytes:
    suffix, kind, options = DAMAGED[name]
    grey = build.smooth(24, 32)
    pixels = {"grey": grey, "colour": build.colour(24, 32), "deep": grey.astype(np.uint16) * 16}[kind]
    return build.encode(suffix, pixels, *options) if suffix else build.tiff(pixels, ">")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_cut_at_any_byte_gives_no_pixels(build: "type[Build]", name: str) -> None:
    data = _whole(build, name)
    decode(data)
    allowed = {Status.EMPTY, Status.TRUNCATED, Status.DECODE_ERROR, Status.UNSUPPORTED}
    statuses = [_error(data[:end]).status for end in range(len(data))]
    assert set(statuses) <= allowed
    assert statuses[0] is Status.EMPTY
    assert statuses.count(Status.TRUNCATED) > 0.9 * len(data)


@pytest.mark.parametrize("name", [name for name in DAMAGED if "jpeg" in name or "png" in name])
@pytest.mark.parametrize("extra", [0, 5000])
def test_a_tail_of_zeros_is_no_image(build: "type[Build]", name: str, extra: int) -> None:
    """What is left of a file whose blocks were reserved, but not all written."""
    data = _whole(build, name)
    whole = decode(data).grey
    for end in range(0, len(data), 3):
        padded = data[:end] + bytes(len(data) - end + extra)
        try:
            decoded = decode(padded)
        except FileError:
            continue
        # Only a checksum behind the last pixel may be missing.
        assert end > len(data) - 12
        np.testing.assert_array_equal(decoded.grey, whole)


@pytest.mark.parametrize("name", [name for name in DAMAGED if "jpeg" in name])
@pytest.mark.parametrize("tail", [bytes(1), bytes(4096), b"junk" * 500, b"\xff" * 9, b"\r\n"])
def test_what_lies_behind_the_end_mark_of_a_jpeg_is_ignored(
    build: "type[Build]", name: str, tail: bytes
) -> None:
    data = _whole(build, name)
    np.testing.assert_array_equal(decode(data + tail).grey, decode(data).grey)


def test_a_jpeg_without_its_end_mark_is_truncated(build: "type[Build]") -> None:
    data = _whole(build, "jpeg")
    assert data.endswith(b"\xff\xd9")
    for tail in (b"", bytes(100), b"junk" * 100):
        assert _error(data[:-2] + tail).status is Status.TRUNCATED


@pytest.mark.parametrize("cases", [100, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DAMAGED)
def test_flipped_bits_give_pixels_or_an_error(build: "type[Build]", name: str, cases: int) -> None:
    data = _whole(build, name)
    rng = np.random.default_rng(list(name.encode()))
    errors = 0
    for case in range(cases):
        damaged = bytearray(data)
        end = len(data) if case % 2 else 100  # every other time the header
        for at in rng.integers(0, end, rng.integers(1, 4)):
            damaged[at] ^= 1 << int(rng.integers(8))
        try:
            decoded = decode(bytes(damaged))
        except FileError:
            errors += 1
        else:
            assert decoded.grey.dtype == np.uint8
            size = sorted((decoded.header.height, decoded.header.width))
            assert sorted(decoded.grey.shape) == size
    assert errors > 0


@pytest.mark.parametrize("name", ["png", "16-bit png", "colour png"])
def test_a_flipped_bit_in_a_png_is_always_seen(build: "type[Build]", name: str) -> None:
    """Its pixels are under a checksum."""
    data = _whole(build, name)
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for at in np.linspace(start, end - 1, 50).astype(int):
        damaged = bytearray(data)
        damaged[at] ^= 16
        assert _error(bytes(damaged)).status is Status.DECODE_ERROR


def test_random_bytes_behind_each_magic() -> None:
    rng = np.random.default_rng(0)
    for magic in (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"",
    ):
        for _ in range(60):
            _error(magic + rng.bytes(int(rng.integers(0, 400))))
