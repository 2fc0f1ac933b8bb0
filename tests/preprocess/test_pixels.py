"""CLAHE, resampling and hashes against computations of our own, and the whole path pinned."""

import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch import native
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.pixels import equalize, pixel_hash, process, resize, turned_hash
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError, Status

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

Array = NDArray[Any]


@pytest.fixture(autouse=True, params=["opencv", "portable", "sse4", "avx2"])
def _by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds by OpenCV and by each variant of the library in C."""
    choice = native.Choice(None, "by OpenCV")
    if request.param != "opencv":
        file: Path = request.getfixturevalue("native_file")
        if request.param not in native.Library(file).variants:
            pytest.skip(f"this processor has no {request.param}")
        choice = native.Choice(native.Library(file, request.param), request.param)
    monkeypatch.setattr(native, "choose", lambda: choice)


# --- the computations -------------------------------------------------------------------------------


def _tile_table(tile: Array, clip: float) -> Array:
    """The grey value that each grey value of one tile becomes, as float32 [256]."""
    histogram = np.bincount(tile.ravel(), minlength=256)
    limit = max(1, int(clip * tile.size / 256))
    excess = int(np.maximum(histogram - limit, 0).sum())
    histogram = np.minimum(histogram, limit) + excess // 256
    rest = excess % 256
    if rest:
        step = max(256 // rest, 1)
        histogram[: rest * step : step] += 1
    scale = np.float32(255) / np.float32(tile.size)
    return np.clip(np.rint(histogram.cumsum().astype(np.float32) * scale), 0, 255)


def _neighbours(length: int, tile: int, grid: int) -> tuple[Array, Array, Array]:
    """For each pixel of one axis: the tiles before and behind it, and the weight of the second."""
    at = np.arange(length, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
    before = np.floor(at).astype(int)
    return np.maximum(before, 0), np.minimum(before + 1, grid - 1), at - before


def _clahe(grey: Array, clip: float, grid: int) -> Array:
    """Zuiderveld's method as in OpenCV's modules/imgproc/src/clahe.cpp, float [height, width]."""
    height, width = grey.shape
    padded = grey
    if height % grid or width % grid:  # if one axis does not divide, both are padded
        padded = np.pad(grey, ((0, grid - height % grid), (0, grid - width % grid)), "reflect")
    tall, wide = padded.shape[0] // grid, padded.shape[1] // grid
    tables = np.empty((grid, grid, 256), np.float32)
    for row, column in itertools.product(range(grid), repeat=2):
        tile = padded[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
        tables[row, column] = _tile_table(tile, clip)
    above, below, down = (x[:, None] for x in _neighbours(height, tall, grid))
    left, right, across = (x[None, :] for x in _neighbours(width, wide, grid))
    upper = tables[above, left, grey] * (1 - across) + tables[above, right, grey] * across
    lower = tables[below, left, grey] * (1 - across) + tables[below, right, grey] * across
    return upper * (1 - down) + lower * down


def _area_weights(source: int, target: int) -> Array:
    """float [target, source]: the share of each source pixel in the span of a target pixel."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    start = np.maximum(edges[:-1, None], pixels)
    stop = np.minimum(edges[1:, None], pixels + 1)
    return np.maximum(stop - start, 0) * target / source


def _enlarging_weights(source: int, target: int) -> Array:
    """float [target, source]: INTER_AREA where a side grows; linear, flat where pixels do not meet."""
    weights = np.zeros((target, source))
    for at in range(target):
        left = at * source // target
        share = (at + 1) - (left + 1) * target / source
        share = 0 if share <= 0 else share - np.floor(share)
        weights[at, left] += 1 - share
        weights[at, min(left + 1, source - 1)] += share
    return weights


def _shrink(grey: Array, height: int, width: int) -> Array:
    return _area_weights(grey.shape[0], height) @ grey @ _area_weights(grey.shape[1], width).T


# --- CLAHE ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (150, 150), (128, 120), (97, 131), (16, 16), (17, 300), (512, 40)]
)
@pytest.mark.parametrize(("clip", "grid"), [(2.0, 16), (4.0, 8), (0.5, 5), (40.0, 3), (2.0, 1)])
def test_clahe_is_the_published_method(
    build: "type[Build]", height: int, width: int, clip: float, grid: int
) -> None:
    rng = np.random.default_rng(0)
    noisy = build.smooth(height, width) * 0.7 + rng.normal(0, 6, (height, width))
    grey = np.clip(noisy, 0, 255).astype(np.uint8)
    out = equalize(grey, Preprocessing(clahe_clip=clip, clahe_grid=grid))
    assert out.dtype == np.uint8
    assert np.abs(out - _clahe(grey, clip, grid)).max() <= 1
    assert np.abs(out.astype(int) - grey).max() > 5  # it did something


def test_more_tiles_than_pixels(build: "type[Build]") -> None:
    grey = build.smooth(17, 19)
    out = equalize(grey, Preprocessing(clahe_grid=64))
    assert np.abs(out - _clahe(grey, 2.0, 64)).max() <= 1


def test_without_clahe_nothing_changes(build: "type[Build]") -> None:
    grey = build.smooth(50, 60)
    np.testing.assert_array_equal(equalize(grey, Preprocessing(clahe=False)), grey)


def test_clahe_keeps_no_memory_of_the_image_before(build: "type[Build]") -> None:
    first, second = build.smooth(80, 90, 1), build.smooth(64, 64, 2)
    alone = equalize(first, Preprocessing()).copy()
    equalize(second, Preprocessing())
    equalize(second, Preprocessing(clahe_clip=9.0))
    np.testing.assert_array_equal(equalize(first, Preprocessing()), alone)


# --- resampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 64, 32), (150, 150, 150), (512, 512, 150), (225, 300, 150), (97, 131, 32), (40, 333, 33)],
)
def test_shrinking_averages_areas(build: "type[Build]", height: int, width: int, size: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    out = resize(grey, Preprocessing(size=size))
    assert out.dtype == np.uint8
    assert out.shape == (size, size)
    assert np.abs(out - _shrink(grey, size, size)).max() <= 0.51


@pytest.mark.parametrize(
    ("height", "width", "size"), [(16, 16, 32), (100, 80, 150), (149, 150, 150), (40, 37, 64)]
)
def test_enlarging_is_linear(build: "type[Build]", height: int, width: int, size: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    expected = _enlarging_weights(height, size) @ grey @ _enlarging_weights(width, size).T
    assert np.abs(resize(grey, Preprocessing(size=size)) - expected).max() <= 1


# --- the whole path ---------------------------------------------------------------------------------


def test_clahe_comes_before_the_resize(build: "type[Build]") -> None:
    grey = build.smooth(200, 170)
    preprocessing = Preprocessing(size=64)
    out = process(build.png(grey), preprocessing).pixels.astype(float)
    expected = _shrink(np.rint(_clahe(grey, 2.0, 16)), 64, 64)
    assert np.abs(out - expected).max() <= 1
    other_way = _clahe(np.rint(_shrink(grey, 64, 64)).astype(np.uint8), 2.0, 16)
    assert np.abs(out - other_way).max() > 5


def test_the_path_without_clahe(build: "type[Build]") -> None:
    grey = build.smooth(200, 170)
    out = process(build.png(grey), Preprocessing(size=64, clahe=False)).pixels
    assert np.abs(out - _shrink(grey, 64, 64)).max() <= 0.51


def test_the_bytes_of_one_image_are_pinned(build: "type[Build]") -> None:
    """PNG, not JPEG: no decoder has a choice here. Another value needs a new DECODE_VERSION."""
    row, column = np.mgrid[:180, :210]
    grey = ((row * row + 3 * column) % 256 // 2 + (row * column) % 128).astype(np.uint8)
    assert hashlib.sha256(grey.tobytes()).hexdigest()[:16] == "f87f1f75735304cf"
    done = process(build.png(grey), Preprocessing())
    assert done.pixels.shape == (150, 150)
    assert (
        hashlib.sha256(done.pixels.tobytes()).hexdigest()
        == "61ede2c748152c096fff55099b1c6555dfe13b8b3d58d1104e7c6f8f1f2203e4"
    )
    assert (
        pixel_hash(done.decoded.grey)
        == "a464c6314f263e83677ca337a0858966be0b9bf2633c68817cabaaf603306c22"
    )


@pytest.mark.parametrize(
    ("height", "width", "size", "flags"),
    [
        (64, 64, 64, ()),
        (63, 90, 64, ("low-res",)),
        (90, 63, 64, ("low-res",)),
        (16, 16, 32, ("low-res",)),
    ],
)
def test_enlarged_images_are_flagged(
    build: "type[Build]", height: int, width: int, size: int, flags: tuple[str, ...]
) -> None:
    done = process(build.png(build.smooth(height, width)), Preprocessing(size=size))
    assert done.flags == flags
    assert done.pixels.shape == (size, size)


def test_all_flags_are_sorted(build: "type[Build]") -> None:
    pixels = np.dstack([build.smooth(40, 50).astype(np.uint16) * 16] * 4)
    data = build.png(pixels, 6, 16, before=build.chunk(b"eXIf", build.exif(3)))
    assert process(data, Preprocessing()).flags == ("16-bit", "alpha", "low-res", "rotated")


def test_limits_and_errors_pass_through(build: "type[Build]") -> None:
    data = build.png(build.smooth(40, 50))
    with pytest.raises(FileError) as caught:
        process(data, Preprocessing(), max_pixels=1999)
    assert caught.value.status is Status.TOO_LARGE
    with pytest.raises(FileError):
        process(data[:-1], Preprocessing())


# --- hashes -----------------------------------------------------------------------------------------


def test_one_image_in_three_files_has_one_pixel_hash(build: "type[Build]") -> None:
    grey = build.smooth(40, 50)
    files = [
        build.png(grey),
        build.encode(".png", grey, cv2.IMWRITE_PNG_COMPRESSION, 9),
        build.encode(".tif", grey),
        build.tiff(grey, ">"),
        build.encode(".png", np.dstack([grey] * 3)),
        build.tiff(np.rot90(grey), tags={274: (3, [6])}),
    ]
    assert len(set(files)) == len(files)
    assert len({pixel_hash(decode(data).grey) for data in files}) == 1


def test_pixel_hash_is_of_shape_and_pixels(build: "type[Build]") -> None:
    grey = build.smooth(40, 50)
    assert pixel_hash(grey) == hashlib.sha256(b"40x50:" + grey.tobytes()).hexdigest()
    flat = np.zeros((40, 50), np.uint8)
    assert pixel_hash(flat) != pixel_hash(flat.T)
    assert pixel_hash(grey.T) == pixel_hash(np.ascontiguousarray(grey.T))
    changed = grey.copy()
    changed[20, 20] ^= 1
    assert pixel_hash(changed) != pixel_hash(grey)


@pytest.mark.parametrize("shape", [(40, 50), (50, 40), (40, 40)])
def test_turned_hash_is_one_for_all_orientations(build: "type[Build]", shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    turned = [np.rot90(one, k) for one in (grey, grey[:, ::-1]) for k in range(4)]
    assert len({pixel_hash(one) for one in turned}) == 8
    assert len({turned_hash(one) for one in turned}) == 1
    changed = grey.copy()
    changed[20, 20] ^= 1
    assert turned_hash(changed) != turned_hash(grey)


def test_turned_hash_of_what_looks_alike_in_its_sums() -> None:
    """Rows and columns of these have equal sums, so several orientations must be hashed."""
    grey = np.full((40, 40), 7, np.uint8)
    grey[np.arange(40), np.arange(40)] = 9
    grey[3, 3], grey[3, 30], grey[30, 3], grey[30, 30] = 9, 7, 7, 9
    assert len({turned_hash(np.rot90(one, k)) for one in (grey, grey.T) for k in range(4)}) == 1
    other = np.full((40, 40), 7, np.uint8)
    other[np.arange(40), np.roll(np.arange(40), 1)] = 9
    assert turned_hash(other) != turned_hash(grey)
