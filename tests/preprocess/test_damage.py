"""JPEG and PNG: damage is an error, oddities that harm no pixel are not, colour is what was stored."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from tests.preprocess.conftest import Build
from tests.preprocess.test_decode import UPRIGHT
from tumorbatch.preprocess import complaints as complaints_module
from tumorbatch.preprocess.complaints import complaints
from tumorbatch.preprocess.decode import decode
from tumorbatch.status import FileError, Status

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
GAMMA = Build.chunk(b"gAMA", struct.pack(">I", 45455))
SRGB = Build.chunk(b"sRGB", b"\0")
CHROMA = Build.chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
PROFILE = Build.chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(128)))
SPACES = {
    "gAMA": GAMMA,
    "sRGB": SRGB,
    "sRGB and gAMA": SRGB + GAMMA,
    "cHRM": GAMMA + CHROMA,
    "iCCP": PROFILE,
}


def _error(data: bytes) -> FileError:
    with pytest.raises(FileError) as caught:
        decode(data)
    return caught.value


# --- PNG --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["colour", "alpha", "16 bits", "palette", "palette of 4 bits"])
def test_colour_spaces_of_a_png_change_no_grey(kind: str, space: str) -> None:
    """Luma of the stored values, whatever they are said to mean; one level for libpng's rounding."""
    colour, grey = Build.colour(40, 56), Build.smooth(40, 56)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    table = Build.chunk(b"PLTE", palette.tobytes())
    before = SPACES[space]
    deep = colour.astype(np.uint16) * 201
    data, plain, expected = {
        "colour": (Build.png(colour, 2, before=before), Build.png(colour, 2), colour @ LUMA),
        "alpha": (
            Build.png(np.dstack([colour, grey]), 6, before=before),
            Build.png(np.dstack([colour, grey]), 6),
            colour @ LUMA,
        ),
        "16 bits": (Build.png(deep, 2, 16, before), Build.png(deep, 2, 16), None),
        "palette": (
            Build.png(grey, 3, before=before + table),
            Build.png(grey, 3, before=table),
            (palette @ LUMA)[grey],
        ),
        "palette of 4 bits": (
            Build.png(grey >> 4, 3, 4, before + Build.chunk(b"PLTE", palette[:16].tobytes())),
            Build.png(grey >> 4, 3, 4, Build.chunk(b"PLTE", palette[:16].tobytes())),
            (palette @ LUMA)[grey >> 4],
        ),
    }[kind]
    if expected is None:
        values = deep @ LUMA
        low, high = np.percentile(values, [0.5, 99.5])
        expected = np.clip((values - low) / (high - low), 0, 1) * 255
    done = decode(data).grey
    np.testing.assert_array_equal(done, decode(plain).grey)
    assert np.abs(done - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "RGBA", "I;16"])
def test_interlaced_pngs(mode: str) -> None:
    """Adam7, by hand: each pass is its own image."""
    depth, colour = {
        "L": (8, 0),
        "RGB": (8, 2),
        "P": (8, 3),
        "1": (1, 0),
        "RGBA": (8, 6),
        "I;16": (16, 0),
    }[mode]
    rng = np.random.default_rng(0)
    channels = {2: 3, 6: 4}.get(colour, 1)
    pixels = rng.integers(0, 2**depth, (21, 19, channels)).astype(np.uint16)
    raw = b""
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):  # fmt: skip
        for row in pixels[top::down, left::across]:
            line = row.ravel()
            packed = (
                np.packbits(line.astype(np.uint8)) if depth == 1 else line.astype(f">u{depth // 8}")
            )
            raw += b"\0" + packed.tobytes()
    before = Build.chunk(b"PLTE", rng.bytes(768)) if colour == 3 else b""
    plain = Build.png(pixels[..., 0] if channels == 1 else pixels, colour, depth, before)
    start = struct.pack(">IIBBBBB", 19, 21, depth, colour, 0, 0, 1)
    data = (
        plain[:8]
        + Build.chunk(b"IHDR", start)
        + before
        + Build.chunk(b"IDAT", zlib.compress(raw))
        + Build.chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(decode(data).grey, decode(plain).grey)


def _with_pixels(png: bytes, content: bytes) -> bytes:
    """The PNG with other compressed pixels, its checksums right."""
    start = png.index(b"IDAT") - 4
    return png[:start] + Build.chunk(b"IDAT", content) + Build.chunk(b"IEND", b"")


@pytest.mark.parametrize("colour", [0, 2, 3])
def test_pngs_whose_pixels_are_not_whole(colour: int) -> None:
    pixels = Build.colour(40, 56) if colour == 2 else Build.smooth(40, 56)
    before = Build.chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    png = Build.png(pixels, colour, before=before)
    at = png.index(b"IDAT")
    size = struct.unpack_from(">I", png, at - 4)[0]
    content = png[at + 4 : at + 4 + size]
    raw = zlib.decompress(content)
    row = len(raw) // 40
    checksum = content[:-4] + bytes(byte ^ 1 for byte in content[-4:])
    for damaged in (
        checksum,
        content[:-4],
        content[: size // 2],
        b"",
        zlib.compress(raw[:-row]),
        zlib.compress(raw + raw[:row]),
        zlib.compress(b"\x09" + raw[1:]),  # there is no filter 9
    ):
        assert _error(_with_pixels(png, damaged)).status is Status.DECODE_ERROR
    np.testing.assert_array_equal(decode(_with_pixels(png, content)).grey, decode(png).grey)
    halves = Build.chunk(b"IDAT", content[:9]) + Build.chunk(b"IDAT", content[9:])
    split = png[: at - 4] + halves + Build.chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(split).grey, decode(png).grey)


def test_checksums_of_chunks() -> None:
    png = Build.png(Build.smooth(40, 56), 3, before=Build.chunk(b"PLTE", bytes(768)))
    for name in (b"IHDR", b"PLTE", b"IDAT"):
        damaged = bytearray(png)
        size = struct.unpack_from(">I", png, png.index(name) - 4)[0]
        damaged[png.index(name) + 4 + size] ^= 1
        assert _error(bytes(damaged)).status is Status.DECODE_ERROR
    comment = bytearray(Build.png(Build.smooth(40, 56), before=Build.chunk(b"eXIf", Build.exif(6))))
    comment[comment.index(b"eXIf") + 10] ^= 1  # no pixel needs it, and nothing in it can be believed
    assert decode(bytes(comment)).flags == ()


def test_colours_that_a_palette_has_not() -> None:
    pixels = Build.smooth(40, 56)  # up to 235
    for colours, fine in ((256, True), (236, True), (100, False), (0, False)):
        data = Build.png(pixels, 3, before=Build.chunk(b"PLTE", bytes(3 * colours)) if colours else b"")
        if fine:
            assert not decode(data).grey.any()
        else:
            assert _error(data).status is Status.DECODE_ERROR


def test_a_critical_chunk_that_is_not_known() -> None:
    assert (
        _error(Build.png(Build.smooth(40, 56), before=Build.chunk(b"NEWx", b""))).status
        is Status.UNSUPPORTED
    )


# --- JPEG -------------------------------------------------------------------------------------------

WAYS = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
}


def _noisy(colour: bool) -> NDArray[np.uint8]:
    clean = Build.colour(130, 150) if colour else Build.smooth(130, 150)
    noise = np.random.default_rng(0).integers(-15, 16, clean.shape)
    return np.clip(clean.astype(int) + noise, 0, 255).astype(np.uint8)


def _jpeg(way: str, colour: bool = False) -> bytes:
    return Build.encode(".jpg", _noisy(colour), *WAYS[way])


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_jpeg_with_a_part_of_its_scan_lost(way: str, colour: bool) -> None:
    good = _jpeg(way, colour)
    at = good.index(b"\xff\xda") + 14
    third = (len(good) - at) // 3
    zeros = good[: at + third] + bytes(third) + good[at + 2 * third :]
    for damaged in (good[: at + third] + good[at + 2 * third :], zeros):
        assert _error(damaged).status is Status.DECODE_ERROR


def _scan(blocks: list[str], width: int, height: int) -> bytes:
    """A grey JPEG of codes from the usual tables (T.81 Annex K), bits of one block after the other."""
    head = Build.encode(".jpg", np.zeros((height, width), np.uint8))
    head = head[: head.index(b"\xff\xda") + 10]
    bits = "".join(blocks)
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return head + scan + b"\xff\xd9"


@pytest.mark.parametrize("size", [(1024, 64), (2048, 2048)], ids=["strip", "65,536 blocks"])
def test_invalid_codes_where_the_rest_is_in_order(size: tuple[int, int]) -> None:
    """libjpeg-turbo's fast reader takes the code that no table has for the end of the block."""
    flat, invalid = "001010", "00" + "1" * 17
    blocks = [flat] * (size[0] * size[1] // 64)
    good = decode(_scan(blocks, *size))
    assert np.ptp(good.grey) == 0
    blocks[10] = invalid
    damaged = _scan(blocks, *size)
    simplejpeg.decode_jpeg(damaged, "GRAY")  # as if nothing were wrong
    if len(blocks) <= 65_535:
        assert "bad Huffman code" in _error(damaged).message
    else:  # no interval is long enough: docs/formats.md
        np.testing.assert_array_equal(decode(damaged).grey, good.grey)


def test_lost_and_swapped_restart_markers() -> None:
    good = _jpeg("restarts")
    second, third = good.index(b"\xff\xd1"), good.index(b"\xff\xd2")
    for damaged in (
        good[:second] + good[third:],
        good[:second] + good[second + 2 :],
        good[:second] + b"\xff\xd5" + good[second + 2 :],
        good[:second] + b"\x12\x34\x56" * 9 + good[second:],
    ):
        assert _error(damaged).status is Status.DECODE_ERROR


@pytest.mark.parametrize("way", WAYS)
def test_oddities_that_harm_no_pixel(way: str) -> None:
    good = _jpeg(way)
    expected = decode(good)
    assert expected.flags == ()
    odd = b"\x12\x34\x56"
    table = good.index(b"\xff\xdb")
    revision = good.index(b"JFIF\0") + 5
    unknown = good[:revision] + b"\x07" + good[revision + 1 :]
    for data, flags in (
        (good[:-2] + odd * 5 + good[-2:], ("extraneous-bytes",)),
        (good[:-2] + odd * 20 + good[-2:], ("extraneous-bytes",)),
        (good[:table] + odd + good[table:], ("extraneous-bytes",)),
        (unknown, ()),
        (unknown[:table] + odd + unknown[table:-2] + odd * 9 + good[-2:], ("extraneous-bytes",)),
        (good + odd, ()),
    ):
        done = decode(data)
        np.testing.assert_array_equal(done.grey, expected.grey)
        assert done.flags == flags


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4", b"\xff\xc0"])
def test_bytes_that_got_into_a_table_are_damage(marker: bytes) -> None:
    """They move its values, and the last ones come to lie behind it."""
    good = _jpeg("baseline")
    inside = good.index(marker) + 12
    assert _error(good[:inside] + b"\x12\x34\x56" + good[inside:]).status is Status.DECODE_ERROR


def test_an_oddity_does_not_hide_damage() -> None:
    """libjpeg tells its first complaint only."""
    good = _jpeg("baseline")
    at = good.index(b"\xff\xda") + 14
    third = (len(good) - at) // 3
    damaged = good[: at + third] + good[at + 2 * third :]
    revision, table = good.index(b"JFIF\0") + 5, good.index(b"\xff\xdb")
    odd = damaged[:revision] + b"\x07" + damaged[revision + 1 : table] + b"\x12\x34" + damaged[table:]
    assert _error(odd).status is Status.DECODE_ERROR


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD])
def test_lossless_and_hierarchical_jpegs_are_unsupported(marker: int) -> None:
    data = _jpeg("baseline").replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
    assert _error(data).status is Status.UNSUPPORTED


def test_12_bits_of_a_jpeg_are_unsupported() -> None:
    data = bytearray(_jpeg("baseline"))
    data[data.index(b"\xff\xc0") + 4] = 12
    assert _error(bytes(data)).status is Status.UNSUPPORTED


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_samplings_of_colour(sampling: str, progressive: bool) -> None:
    pixels = Build.colour(67, 83)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(
        stream, "JPEG", quality=98, subsampling=sampling, progressive=progressive
    )
    expected = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("YCbCr"))[..., 0]
    assert np.abs(decode(stream.getvalue()).grey.astype(int) - expected).max() <= 2


def test_inks_of_a_jpeg() -> None:
    inks = np.dstack([Build.smooth(64, 80, seed) for seed in range(4)])
    stream = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(stream, "JPEG", quality=100)
    shown = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:].astype(float)) / 255 @ LUMA
    assert np.abs(decode(stream.getvalue()).grey - shown).max() <= 5
    good = stream.getvalue()
    at = good.index(b"\xff\xda") + 400
    assert _error(good[:at] + good[at + 400 :]).status is Status.DECODE_ERROR


def test_a_sampling_that_few_decoders_know() -> None:
    """Chroma finer than luma: TurboJPEG refuses it, libjpeg does not."""
    data = bytearray(Build.flat_jpeg([200, 128, 128]))
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">H", data, frame + 5, 32)  # rows: the same 12 blocks, in two units of 16 x 16
    data[frame + 14] = 0x22  # samples of the first chroma component
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(bytes(data), "GRAY")
    done = decode(bytes(data))
    np.testing.assert_array_equal(done.grey, np.full((32, 16), 200))
    assert _error(bytes(data[:-3] + data[-2:])).status is Status.DECODE_ERROR


# --- Exif -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])  # BYTE, SHORT, LONG
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_of_any_type(orientation: int, kind: int, order: str) -> None:
    pixels = Build.smooth(40, 56)
    jpeg, exif = Build.encode(".jpg", pixels), Build.exif(orientation, order, kind)
    for stored, data in (
        (decode(jpeg).grey, Build.with_segments(jpeg, Build.app1(exif))),
        (pixels, Build.png(pixels, before=Build.chunk(b"eXIf", exif))),
        (pixels, Build.tiff(pixels, order, {274: (kind, [orientation])})),
    ):
        done = decode(data)
        np.testing.assert_array_equal(done.grey, UPRIGHT[orientation](stored))
        assert done.flags == (("rotated",) if orientation > 1 else ())


# --- what decoders print ----------------------------------------------------------------------------


def test_what_is_printed_is_heard_without_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with complaints() as printed:
        os.write(2, b"Corrupt DATA\n")
    assert printed() == "corrupt data\n"
    with complaints() as printed:
        for _ in range(100):  # more than a pipe holds: it must not wait
            try:
                os.write(2, b"word " * 1000)
            except BlockingIOError:
                break
    assert printed().startswith("word word")
    os.write(2, b"back again")
    assert capfd.readouterr().err == "back again"


def test_without_a_channel_there_are_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(complaints_module.os, "pipe", none)
    with pytest.raises(FileError) as caught, complaints():
        pass
    assert caught.value.status is Status.IO_ERROR
