"""Alignment: what it finds on pictures moved by known maps, and the same bits on every machine."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pictures import head
from tumorbatch import copy_alignment
from tumorbatch.copies import pairs, signature, thumbnails
from tumorbatch.copy_candidates import CONTENT, WHOLE, Candidates, describe
from tumorbatch.copy_layers import blur, local_structure, sixteenths
from tumorbatch.native import Library
from tumorbatch.orientation import ORIENTATIONS, orient

Grey = NDArray[np.uint8]
HEADS = [head(seed) for seed in range(12)]


def _move(grey: Grey, matrix: list[list[float]]) -> Grey:
    """Return a picture moved by an affine map about its middle."""
    middle = np.full(2, (len(grey) - 1) / 2)
    linear = np.array(matrix)
    shift = middle - linear @ middle
    return np.asarray(
        cv2.warpAffine(grey, np.column_stack([linear, shift]), grey.shape[::-1]), np.uint8
    )


def _pictures() -> Grey:
    """Return 12 heads, and each again: turned, zoomed, sheared, in another orientation."""
    matrices = [[[0.99, 0.12], [-0.12, 0.99]], [[1.1, 0], [0, 1.1]], [[1, 0.1], [0, 0.9]]]
    moved = [orient(_move(one, matrices[index % 3]), index % 8) for index, one in enumerate(HEADS)]
    return thumbnails([signature(np.ascontiguousarray(one)) for one in [*HEADS, *moved]])


def _every_pair(count: int) -> Candidates:
    first, second, turn = (
        axis.ravel() for axis in np.meshgrid(np.arange(count), np.arange(count), np.arange(8))
    )
    return Candidates(
        first,
        second,
        turn.astype(np.int8),
        np.ones(len(turn), np.float32),
        np.zeros(len(turn), np.int8),
    )


def test_the_library_gives_the_bits_of_numpy(native_file: Path) -> None:
    """Every pair of 24 heads in every orientation, and of pictures that are noise, flat, or extreme."""
    random = np.random.default_rng(3)
    odd = [
        np.zeros((24, 24), np.uint8),
        np.full((24, 24), 255, np.uint8),
        random.integers(0, 256, (24, 24), np.uint8),
        255 * random.integers(0, 2, (24, 24), np.uint8),
        np.tile(np.arange(24, dtype=np.uint8) * 11, (24, 1)),
    ]
    layers = copy_alignment._layers(np.concatenate([_pictures(), np.stack(odd)]))
    every = _every_pair(len(layers))
    columns = every.first, every.second, every.orientation
    ours = Library(native_file).similarity(layers, *columns, copy_alignment.SAME)
    numpys = copy_alignment._similarity(layers, *columns, copy_alignment.SAME)
    assert np.isfinite(ours).all()
    np.testing.assert_array_equal(ours, numpys)


def test_moved_pictures_are_alike_and_others_are_not() -> None:
    pictures = _pictures()
    every = _every_pair(len(pictures))
    likeness = copy_alignment.similarity(pictures, every)
    best = likeness.reshape(len(pictures), len(pictures), 8).max(axis=2)
    same = np.arange(24)[:, None] % 12 == np.arange(24) % 12
    assert best[same].min() >= copy_alignment.SAME
    assert best[~same].max() < copy_alignment.SAME - 0.05


def test_an_index_beyond_the_pictures_is_refused(native_file: Path) -> None:
    layers = copy_alignment._layers(_pictures())
    with pytest.raises(ValueError, match="not one of a picture"):
        Library(native_file).similarity(layers, np.array([0]), np.array([24]), np.array([0]), 0.8)
    with pytest.raises(ValueError, match=r"int16 \[n, 3, 24, 24\]"):
        Library(native_file).similarity(layers[:, :2], np.array([0]), np.array([0]), np.array([0]), 0.8)


def test_layers_are_whole_numbers_that_float32_holds() -> None:
    extreme = np.zeros((2, 24, 24), np.uint8)
    extreme[0, ::2] = 255
    extreme[1, 12, 12] = 255
    for pictures in (_pictures(), extreme):
        grey = sixteenths(pictures)
        for layer in (blur(grey, 0.9), local_structure(grey, 1.2), local_structure(grey, 2.25)):
            assert layer.dtype == np.float32
            np.testing.assert_array_equal(layer, np.rint(layer))
            assert np.abs(layer).max() <= 4080
        assert np.abs(local_structure(grey, 1.2)).max() <= 2047


def test_local_structure_is_its_formula() -> None:
    """Beside a computation in float64 without roundings in between."""
    grey = _pictures().astype(np.float64)

    def smooth(layers: NDArray[np.float64]) -> NDArray[np.float64]:
        size, border = (9, 9), cv2.BORDER_REPLICATE
        return np.stack([cv2.GaussianBlur(one, size, 1.2, borderType=border) for one in layers])

    away = grey - smooth(grey)
    expected = away / np.sqrt(smooth(away * away) + 4)
    difference = local_structure(sixteenths(_pictures()), 1.2) / 256 - expected
    assert np.abs(difference).max() < 0.12  # weights in 1/64, values in 1/16
    assert np.abs(difference).mean() < 0.02


def _digest() -> str:
    """Return a sha256 of all that is computed of pictures and copies that NumPy alone makes."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (60, 6, 6)).repeat(5, axis=1).repeat(5, axis=2)
    smooth = sum(coarse[:, i : i + 27, j : j + 27] for i in range(4) for j in range(4)) // 16
    pictures = np.concatenate([smooth[:, 2:26, 1:25], smooth[:, 1:25, 3:27].swapaxes(1, 2) * 4 // 5])
    pictures = pictures.astype(np.uint8)
    digest = hashlib.sha256()
    for descriptor in (WHOLE, CONTENT):
        digest.update(describe(pictures, descriptor).astype("<f4").tobytes())
    digest.update(copy_alignment.structures(pictures).tobytes())
    found = pairs(pictures)
    assert len(found.first) >= 50  # copies that only an alignment finds
    for column in found:
        digest.update(np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


GOLDEN = "01ac9b3ca1f881e7f800c7ba9f179d24b6c373b25be95594b591f7ce50151479"


@pytest.mark.parametrize(
    "surroundings",
    [
        {},
        {"OPENBLAS_CORETYPE": "Nehalem", "TUMORBATCH_PIXELS": "opencv"},
        {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F"},
    ],
    ids=["as it is", "old processor, no library in C", "no AVX-512"],
)
def test_every_machine_finds_the_same_bits(surroundings: dict[str, str]) -> None:
    """A stored value: the same on any processor, with any linear algebra library."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tests.foundations.test_copy_alignment import _digest as d; print(d())",
        ],
        env=os.environ | surroundings,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == GOLDEN


def test_orientations_of_one_picture_are_alike_in_place() -> None:
    picture = _pictures()[0]
    turned = np.stack([orient(picture, turn) for turn in ORIENTATIONS])
    pair = Candidates(
        np.zeros(8, np.int64), np.arange(8), np.arange(8, dtype=np.int8), np.ones(8, np.float32),
        np.zeros(8, np.int8),
    )  # fmt: skip
    compact = copy_alignment.structures(turned)
    np.testing.assert_allclose(copy_alignment.similarity_in_place(compact, pair), 1, atol=0.01)
    np.testing.assert_allclose(copy_alignment.similarity(turned, pair), 1, atol=1e-6)
