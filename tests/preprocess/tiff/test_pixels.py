"""TIFF: every kind of number, compression and layout against what was put in; damage is an error."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.preprocess.conftest import Build
from tests.preprocess.tiff.files import (
    COMPRESS,
    DEFLATE,
    JPEG,
    LZW,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    Array,
    jpeg,
    strips_of,
    tiff,
)
from tumorbatch.preprocess.decode import decode
from tumorbatch.status import FileError, Status

HEIGHT, WIDTH = 37, 45
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rows": 8},
    "tiles": {"tile": (16, 32)},
}


def _pixels(kind: str, samples: int) -> Array:
    wide = np.dstack([Build.smooth(HEIGHT, WIDTH, seed) for seed in range(samples)]).astype(np.float64)
    if kind == "i1":
        wide = wide / 2 - 60
    elif kind != "u1":
        wide = wide * 7 - (900 if kind[0] != "u" else 0)
    return wide.astype(kind)


def _windowed(values: Array) -> Array:
    values = values.astype(np.float64)
    low, high = np.percentile(values, [0.5, 99.5])
    return np.clip((values - low) / (high - low), 0, 1) * 255


def _expected(pixels: Array) -> Array:
    grey = pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3].astype(np.float64) @ LUMA
    return grey if pixels.dtype == np.uint8 else _windowed(grey)


def _refused(data: bytes) -> FileError:
    with pytest.raises(FileError) as caught:
        decode(data)
    return caught.value


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_compressions_and_layouts(kind: str, compression: int, layout: str, order: str) -> None:
    for samples, planes in ((1, False), (3, False), (3, True)):
        pixels = _pixels(kind, samples)
        done = decode(tiff(pixels, compression, order, planes=planes, **LAYOUTS[layout]))
        assert np.abs(done.grey - _expected(pixels)).max() <= 1
        assert done.flags == (() if kind == "u1" else ("16-bit",))


@pytest.mark.parametrize("kind", ["i1", "i2", "u4", "i4", "f2", "f8"])
def test_kinds_of_numbers(kind: str) -> None:
    for order, compression in (("<", NONE), (">", LZW), (">", DEFLATE)):
        pixels = _pixels(kind, 1)
        done = decode(tiff(pixels, compression, order, rows=9))
        assert np.abs(done.grey - _expected(pixels)).max() <= 0.51
        assert done.flags == (("stretched",) if kind == "i1" else ("16-bit",))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [LZW, DEFLATE, OLD_DEFLATE])
@pytest.mark.parametrize(
    ("kind", "predictor"),
    [("u1", 2), ("u2", 2), ("i2", 2), ("u4", 2), ("f4", 2), ("f2", 3), ("f4", 3), ("f8", 3)],
)
def test_predictors(kind: str, predictor: int, compression: int, order: str) -> None:
    for samples, layout in ((1, "tiles"), (3, "strips")):
        pixels = _pixels(kind, samples)
        data = tiff(pixels, compression, order, predictor=predictor, **LAYOUTS[layout])
        assert np.abs(decode(data).grey - _expected(pixels)).max() <= 1


@pytest.mark.parametrize("method", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_another_writer(method: str) -> None:
    """libtiff's own compressors, by Pillow; long enough for LZW to begin its table anew."""
    pixels = np.random.default_rng(0).integers(0, 40, (200, 300), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression=method)
    np.testing.assert_array_equal(decode(stream.getvalue()).grey, pixels)


@pytest.mark.parametrize("content", ["zeros", "one string", "noise"])
def test_lzw_of_any_content(content: str) -> None:
    shape = (64, 300)
    pixels = {
        "zeros": np.zeros(shape, np.uint8),
        "one string": np.tile(np.array([1, 2, 1], np.uint8), (64, 100)),
        "noise": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
    }[content]
    np.testing.assert_array_equal(decode(tiff(pixels, LZW)).grey, pixels)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("compression", [NONE, LZW, PACKBITS])
@pytest.mark.parametrize("white", [0, 1])
def test_few_bits(bits: int, compression: int, white: int) -> None:
    pixels = Build.smooth(HEIGHT, WIDTH) >> (8 - bits)
    spread = np.unpackbits(pixels[..., None], axis=2)[..., 8 - bits :].reshape(HEIGHT, -1)
    lines = np.packbits(spread, axis=1)
    tags = {256: (4, [WIDTH]), 258: (3, [bits]), 262: (3, [1 - white]), 317: None}
    expected = pixels * (255 // (2**bits - 1))
    done = decode(tiff(lines, compression, tags=tags))
    np.testing.assert_array_equal(done.grey, 255 - expected if white else expected)
    reversed_bits = np.packbits(np.unpackbits(lines, bitorder="little")).reshape(lines.shape)
    turned = decode(tiff(reversed_bits, tags=tags | {266: (3, [2])}))
    np.testing.assert_array_equal(turned.grey, done.grey)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_zero_is_white(kind: str) -> None:
    pixels = _pixels(kind, 1)
    white, black = (decode(tiff(pixels, tags={262: (3, [meaning])})) for meaning in (0, 1))
    np.testing.assert_array_equal(white.grey, 255 - black.grey)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scale", [1, 257])
def test_a_palette(bits: int, scale: int) -> None:
    """Its colours are 16-bit values; some writers give 8-bit ones."""
    palette = np.random.default_rng(0).integers(0, 256, (3, 2**bits))
    pixels = Build.smooth(HEIGHT, WIDTH + 1) >> (8 - bits)
    lines = pixels if bits == 8 else pixels[:, ::2] << 4 | pixels[:, 1::2]
    tags = {256: (4, [WIDTH + 1]), 258: (3, [bits]), 262: (3, [3])}
    data = tiff(lines, LZW, tags=tags | {320: (3, (palette * scale).ravel().tolist())})
    assert np.abs(decode(data).grey - (LUMA @ palette)[pixels]).max() <= 0.51
    short = {320: (3, palette[:, 1:].ravel().tolist())}
    assert _refused(tiff(lines, LZW, tags=tags | short)).status is Status.DECODE_ERROR


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_what_lies_under_transparent_pixels_is_shown(kind: str) -> None:
    for samples in (2, 4):
        pixels = _pixels(kind, samples)
        pixels[..., -1] = 0  # all transparent
        done = decode(tiff(pixels, DEFLATE, tags={338: (3, [2])}))
        assert np.abs(done.grey - _expected(pixels)).max() <= 1
        assert "alpha" in done.flags


def test_inks() -> None:
    inks = _pixels("u1", 4)
    shown = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:].astype(float)) / 255
    done = decode(tiff(inks, tags={262: (3, [5])}))
    assert np.abs(done.grey - shown @ LUMA).max() <= 0.51


@pytest.mark.parametrize("extra", [None, (3, [0, 0])])
def test_colour_that_is_called_grey_is_ambiguous(extra: Any) -> None:
    error = _refused(tiff(_pixels("u1", 3), tags={262: (3, [1]), 338: extra}))
    assert error.status is Status.UNSUPPORTED
    assert "3 samples" in error.message
    assert _refused(tiff(_pixels("u2", 2))).status is Status.UNSUPPORTED


# --- JPEG in TIFF ---------------------------------------------------------------------------------


def _jpeg_strips(pixels: Array, rows: int, *options: int) -> list[bytes]:
    return [jpeg(pixels[top : top + rows], 95, *options) for top in range(0, len(pixels), rows)]


@pytest.mark.parametrize("apart", [False, True])
def test_jpeg(apart: bool) -> None:
    """Grey, and colour as YCbCr, each strip with its tables or with shared ones."""
    for pixels, meaning in ((Build.smooth(48, 64), 1), (Build.colour(48, 64), 6)):
        strips = _jpeg_strips(pixels, 16)
        expected = [cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_COLOR) for strip in strips]
        grey = cv2.cvtColor(np.concatenate(expected), cv2.COLOR_BGR2GRAY)
        tags: dict[int, Any] = {262: (3, [meaning])}
        if apart:
            frame = strips[0].index(b"\xff\xc0")
            start, tables = strips[0].index(b"\xff\xdb"), strips[0].index(b"\xff\xc4")
            scan = strips[0].index(b"\xff\xda")
            shared = strips[0][start:frame] + strips[0][tables:scan]
            strips = [s[:2] + s[frame:tables] + s[scan:] for s in strips]
            tags[347] = (7, list(b"\xff\xd8" + shared + b"\xff\xd9"))
        done = decode(tiff(pixels, JPEG, rows=16, strips=strips, tags=tags))
        np.testing.assert_array_equal(done.grey, grey)


def test_jpeg_of_rgb_is_not_taken_for_ycbcr() -> None:
    flat = Build.flat_jpeg([200, 100, 50])
    data = tiff(np.zeros((16, 16, 3), np.uint8), JPEG, strips=[flat])
    assert np.abs(decode(data).grey - np.array([200, 100, 50]) @ LUMA).max() <= 2


def test_damaged_jpeg_strips() -> None:
    pixels = Build.smooth(48, 64) ^ np.random.default_rng(0).integers(0, 8, (48, 64), np.uint8)
    strips = _jpeg_strips(pixels, 16)
    scan = strips[1].index(b"\xff\xda") + 12
    third = (len(strips[1]) - scan) // 3
    for damaged, status in (
        (strips[1][: scan + third] + strips[1][scan + 2 * third :], Status.DECODE_ERROR),
        (strips[1][:-20], Status.DECODE_ERROR),
        (jpeg(pixels[:16, :32]), Status.DECODE_ERROR),
        (jpeg(pixels[:8]), Status.DECODE_ERROR),
        (None, Status.TRUNCATED),
    ):
        data = tiff(pixels, JPEG, rows=16, strips=[strips[0], damaged, strips[2]])
        assert _refused(data).status is status


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_strips_and_tiles_that_are_not_whole(kind: str, compression: int, layout: str) -> None:
    pixels = _pixels(kind, 1)
    whole = strips_of(pixels, compression, **LAYOUTS[layout])
    for number in {0, len(whole) // 2, len(whole) - 1}:
        size = len(whole[number])
        for damaged in (None, b"", whole[number][: size // 2], whole[number][: size // 4]):
            strips: list[bytes | None] = [*whole]
            strips[number] = damaged
            error = _refused(tiff(pixels, compression, strips=strips, **LAYOUTS[layout]))
            assert error.status in (Status.TRUNCATED, Status.DECODE_ERROR)
    fewer = tiff(pixels, compression, strips=whole[:-1] or [None], **LAYOUTS[layout])
    assert _refused(fewer).status in (Status.TRUNCATED, Status.DECODE_ERROR)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_every_changed_byte_of_a_deflated_strip_is_seen(kind: str) -> None:
    pixels = _pixels(kind, 1)
    (strip,) = strips_of(pixels, DEFLATE)
    for at in range(2, len(strip), max(1, len(strip) // 60)):
        damaged = bytearray(strip)
        damaged[at] ^= 0x20
        assert _refused(tiff(pixels, DEFLATE, strips=[bytes(damaged)])).status is Status.DECODE_ERROR
    hole = strip[: len(strip) // 3] + bytes(len(strip) - len(strip) // 3)
    assert _refused(tiff(pixels, DEFLATE, strips=[hole])).status is Status.DECODE_ERROR


@pytest.mark.parametrize("compression", [LZW, PACKBITS])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_damage_that_changes_the_length_is_seen(kind: str, compression: int) -> None:
    pixels = _pixels(kind, 1)
    (strip,) = strips_of(pixels, compression)
    third = len(strip) // 3
    for damaged in (
        strip[:third] + bytes(len(strip) - third),
        strip[:third] + strip[2 * third :],
        strip[:third] + b"\xff" * third + strip[2 * third :],
    ):
        assert _refused(tiff(pixels, compression, strips=[damaged])).status is Status.DECODE_ERROR


def test_more_rows_than_strips_hold() -> None:
    for kind in ("u1", "u2"):
        pixels = _pixels(kind, 1)
        taller = {257: (4, [HEIGHT + 16])}
        assert _refused(tiff(pixels, rows=8, tags=taller)).status is Status.TRUNCATED
        assert (
            _refused(tiff(pixels, tags=taller | {278: (4, [HEIGHT + 16])})).status
            is Status.DECODE_ERROR
        )
        assert _refused(tiff(pixels, tags={256: (4, [WIDTH + 3])})).status is Status.DECODE_ERROR


def test_strips_upon_each_other() -> None:
    pixels = np.zeros((32, WIDTH), np.uint8)
    whole = tiff(pixels, rows=16)
    size = 16 * WIDTH
    overlapping = tiff(pixels, rows=16, tags={273: (4, [8, 8 + size // 2])})
    assert _refused(overlapping).status is Status.DECODE_ERROR
    assert _refused(tiff(pixels, rows=16, tags={273: (4, [4, 8 + size])})).status is Status.DECODE_ERROR
    shared = tiff(pixels, rows=16, tags={273: (4, [8, 8])})  # blank tiles may share their bytes
    np.testing.assert_array_equal(decode(shared).grey, decode(whole).grey)


def test_byte_counts_that_are_missing_or_padded() -> None:
    pixels = _pixels("u1", 1)
    for tags in ({279: None}, {279: (4, [HEIGHT * WIDTH + 9])}):
        np.testing.assert_array_equal(decode(tiff(pixels, tags=tags)).grey, pixels[..., 0])
    assert _refused(tiff(pixels, LZW, tags={279: None})).status is Status.TRUNCATED


def test_a_strip_that_would_inflate_to_any_size() -> None:
    import zlib

    bomb = zlib.compress(bytes(50_000_000))
    error = _refused(tiff(np.zeros((16, 16), np.uint8), DEFLATE, strips=[bomb]))
    assert error.status is Status.DECODE_ERROR


# ----------------------------------------------------------------------------- YCbCr that is not JPEG


def _ycbcr(luma: Array, across: int, down: int, compression: int = NONE, **tags: Any) -> bytes:
    """A TIFF of YCbCr: units of `down` x `across` Y, filled up at the edges, then Cb and Cr."""
    height, width = luma.shape
    padded = np.pad(luma, ((0, -height % down), (0, -width % across)), "edge")
    data = b""
    for top in range(0, height, down):
        for left in range(0, width, across):
            data += padded[top : top + down, left : left + across].tobytes() + bytes([90, 200])
    data = COMPRESS[compression](data)
    every: dict[int, Any] = {
        258: (3, [8, 8, 8]), 259: (3, [compression]), 262: (3, [6]), 277: (3, [3]),
        279: (4, [len(data)]), 339: (3, [1, 1, 1]), 530: (3, [across, down]),
    }  # fmt: skip
    whole = Build.tiff(luma, tags=every | {int(tag[1:]): value for tag, value in tags.items()})
    return whole[: len(whole) - luma.size] + data


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (4, 2), (4, 4)])
def test_luma_of_ycbcr_is_its_y(compression: int, across: int, down: int) -> None:
    luma = Build.smooth(41, 37)
    np.testing.assert_array_equal(decode(_ycbcr(luma, across, down, compression)).grey, luma)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"_284": (3, [2])}, "other than three samples of 8 bits"),
        ({"_530": (3, [3, 1])}, "other than three samples of 8 bits"),
        ({"_317": (3, [2]), "_259": (3, [5])}, "with a predictor"),
    ],
)
def test_other_ycbcr_is_refused(tags: dict[str, Any], words: str) -> None:
    with pytest.raises(FileError, match=words) as caught:
        decode(_ycbcr(Build.smooth(32, 32), 2, 2, **tags))
    assert caught.value.status == Status.UNSUPPORTED


def test_levels_of_ycbcr() -> None:
    """Fractions, as writers give them: the usual ones, and those of video."""
    luma = Build.smooth(40, 40)
    rgb = np.dstack([luma] * 3)
    stream = io.BytesIO()
    Image.fromarray(rgb).convert("YCbCr").save(stream, "TIFF", compression="raw")
    data = stream.getvalue()
    assert abs(decode(data).grey.astype(int) - luma).max() <= 1
    usual = np.array([0, 1, 255, 1, 128, 1], "<u4").tobytes()
    assert data.count(usual) == 1
    video = np.array([16, 1, 235, 1, 128, 1], "<u4").tobytes()
    with pytest.raises(FileError, match="levels of its own"):
        decode(data.replace(usual, video))


def test_a_short_strip_of_ycbcr_is_damage() -> None:
    whole = _ycbcr(Build.smooth(40, 40), 2, 2)
    short = whole.replace(np.array([40 * 40 * 3 // 2], "<u4").tobytes(), b"\x08\x09\0\0")
    with pytest.raises(FileError, match="bytes") as caught:
        decode(short)
    assert caught.value.status == Status.DECODE_ERROR
