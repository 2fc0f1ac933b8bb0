"""CCITT's codings against libtiff's (by Pillow), and damage that libtiff passes over."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.preprocess.conftest import Build
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.tiff import fax
from tumorbatch.preprocess.tiff.codecs import DamageError
from tumorbatch.status import FileError, Status

ROWS_PER_STRIP, T4_OPTIONS = 278, 292
CODINGS: list[tuple[str, dict[int, int]]] = [
    ("tiff_ccitt", {}),
    ("group3", {}),
    ("group3", {T4_OPTIONS: 1}),  # rows by the one above
    ("group3", {T4_OPTIONS: 5, ROWS_PER_STRIP: 7}),  # and filled up to whole bytes
    ("group4", {}),
    ("group4", {ROWS_PER_STRIP: 7}),
]


def _rows(height: int, width: int, seed: int) -> NDArray[np.bool_]:
    """Runs of every length; some rows are like the one above, moved by up to three pixels."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((height, width), bool)
    for y in range(height):
        if y and random.random() < 0.5:
            pixels[y] = np.roll(pixels[y - 1], random.integers(-3, 4))
            continue
        at, colour = 0, bool(random.integers(0, 2))
        while at < width:
            most = random.choice([4, 64, 6000], p=[0.5, 0.4, 0.1])
            run = int(random.integers(0, most))
            pixels[y, at : at + run] = colour
            at, colour = at + run, not colour
    return pixels


def _saved(pixels: NDArray[np.bool_], compression: str, tags: dict[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression=compression, tiffinfo=tags)
    return stream.getvalue()


@pytest.mark.parametrize("width", [16, 33, 500, 5300])
@pytest.mark.parametrize(("compression", "tags"), CODINGS)
def test_pixels_are_those_that_were_saved(compression: str, tags: dict[int, int], width: int) -> None:
    pixels = _rows(40, width, width)
    done = decode(_saved(pixels, compression, tags))
    np.testing.assert_array_equal(done.grey, pixels * np.uint8(255))


def test_no_code_begins_with_another() -> None:
    for table in (*fax._RUNS, fax._MODES):
        codes = sorted(table)
        assert not any(longer.startswith(code) for code, longer in itertools.pairwise(codes))
    assert [len(table) for table in fax._RUNS] == [64 + 27 + 13] * 2


def _strip(coding: int, bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    pixels = Build.smooth(16, 16)
    tags: dict[int, Any] = {
        258: (3, [1]), 259: (3, [coding]), 262: (3, [0]), 278: (4, [16]), 279: (4, [len(data)]),
    }  # fmt: skip
    whole = Build.tiff(pixels, tags=tags)
    return whole[: len(whole) - pixels.size] + data


END = "000000000001" * 2


def test_a_strip_built_by_hand() -> None:
    grey = decode(_strip(2, ("101010" + "00") * 16)).grey
    assert (grey == 255).all()
    # T.6: the first row by runs of 4 white and 12 black pixels, the others as the one above.
    bits = "001" + "1011" + "0000111" + "11" * 15 + END
    assert decode(_strip(4, bits)).grey.tolist() == [[255] * 4 + [0] * 12] * 16


@pytest.mark.parametrize(
    ("coding", "bits", "words"),
    [
        (2, "10101000" * 15, "does not exist, or ends too early"),
        (2, "10101000" * 17, "data behind its last row"),
        (2, "10101100" * 16, "longer than the image"),  # 17 white pixels
        (3, "000000000001" + "0000000000000001", "does not exist"),
        (4, "1" * 15 + END, "does not exist, or ends too early"),
        (4, "1" * 16 + END + "1", "data behind its last row"),
        (
            4,
            "001" + "1011" + "010" + "1" + "1" + "0000010",
            "has no length",
        ),  # a change left of the last
        (4, "1" * 16, None),  # without the mark of its end
    ],
)
def test_damage_is_an_error(coding: int, bits: str, words: str | None) -> None:
    if words is None:
        assert (decode(_strip(coding, bits)).grey == 255).all()
        return
    with pytest.raises(FileError, match=words) as caught:
        decode(_strip(coding, bits))
    assert caught.value.status == Status.DECODE_ERROR


@pytest.mark.parametrize(("compression", "tags"), CODINGS[1:5])
def test_few_changed_bytes_pass(compression: str, tags: dict[int, int]) -> None:
    """No checksum guards these codes; most damage is seen by where rows end. Nothing else is raised."""
    pixels = _rows(60, 400, 1)
    whole = _saved(pixels, compression, tags)
    start = 8
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        data[start + random.integers(len(data) // 2)] ^= 1 << random.integers(8)
        try:
            decode(bytes(data))
        except FileError as error:
            refused += error.status in (Status.DECODE_ERROR, Status.TRUNCATED)
    assert refused >= 45


def test_too_much_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fax, "_MOST_BYTES", 3)
    with pytest.raises(DamageError, match="larger than 3 bytes"):
        fax.unpack_fax(bytes(4), 4, False, 16, 16)


def test_only_black_and_white() -> None:
    with pytest.raises(FileError, match="other pixels than black and white") as caught:
        decode(Build.tiff(Build.smooth(16, 16), tags={259: (3, [4])}))
    assert caught.value.status == Status.UNSUPPORTED
