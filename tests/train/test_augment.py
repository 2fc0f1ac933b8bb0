"""Turning, moving and shading, against what can be computed by hand; shear and zoom: test_feed.py."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch import native
from tumorbatch.errors import ConfigError
from tumorbatch.native import Library
from tumorbatch.train.augment import augment, warp_by_opencv
from tumorbatch.train.config import Augmentation

NONE = {"shear": 0.0, "zoom": 0.0, "flip": False}


def _augmented(images: NDArray[np.uint8], seed: int = 0, **how: float) -> NDArray[np.uint8]:
    settings = Augmentation(**{**NONE, **how})  # type: ignore[arg-type]
    result: NDArray[np.uint8] = augment(images, settings, [seed, 0]).numpy()
    return result


def _disc(x: float, y: float, count: int = 64) -> NDArray[np.uint8]:
    """A bright spot at (x, y) from the centre of a dark image of 65 x 65."""
    rows, columns = np.mgrid[-32:33, -32:33]
    spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    return np.repeat(spot.astype(np.uint8)[np.newaxis, ..., np.newaxis], count, 0)


def _centres(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Centre of brightness of each image, (x, y) from the middle."""
    rows, columns = np.mgrid[-32:33, -32:33]
    light = images[..., 0].astype(float)
    total = light.sum((1, 2))
    return np.stack([(light * columns).sum((1, 2)), (light * rows).sum((1, 2))], 1) / total[:, None]


def test_nothing_asked_for_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 33, 21, 1), np.uint8)
    np.testing.assert_array_equal(_augmented(images), images)


def test_a_turn_keeps_the_distance_and_its_angles_fill_the_range() -> None:
    centres = _centres(_augmented(_disc(15, 0), rotation=30.0))
    np.testing.assert_allclose(np.hypot(*centres.T), 15, atol=0.3)
    angles = np.degrees(np.arctan2(centres[:, 1], centres[:, 0]))
    assert -30.5 < angles.min() < -20
    assert 20 < angles.max() < 30.5
    assert len(np.unique(angles.round(1))) > 40


def test_a_move_goes_as_far_as_asked_along_each_axis() -> None:
    centres = _centres(_augmented(_disc(0, 0), shift=0.2))
    assert np.abs(centres).max() < 0.2 * 65 + 0.3
    assert (centres.min(0) < -8).all()
    assert (centres.max(0) > 8).all()
    assert abs(np.corrcoef(centres.T)[0, 1]) < 0.4  # the axes move independently


def test_contrast_keeps_the_middle_and_brightness_the_differences() -> None:
    ramp = np.resize(np.arange(256, dtype=np.uint8), (32, 16, 16, 1))
    contrasted = _augmented(ramp, contrast=0.3).astype(int)
    assert np.abs(contrasted[ramp == 127] - 127).max() <= 1
    gains = (contrasted[ramp == 160] - contrasted[ramp == 96]) / 64
    assert 0.7 - 0.02 <= gains.min() < 0.8
    assert 1.2 < gains.max() <= 1.3 + 0.02
    lifted = _augmented(ramp, brightness=0.1).astype(int)
    lifts = lifted[ramp == 128] - 128
    assert np.abs(lifts).max() <= 26
    assert lifts.min() < -15 < 15 < lifts.max()
    np.testing.assert_array_equal(lifted[ramp == 160] - lifted[ramp == 96], 64)
    assert (lifted[ramp == 255] <= 255).all()


# --- the warp ---------------------------------------------------------------------------------------


def _warped(image: NDArray[np.uint8], where: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bilinear in 1/32 of a pixel, pixel for pixel in whole numbers."""
    height, width = image.shape
    m = where.astype(float)
    out = np.empty_like(image)
    for y, x in np.ndindex(height, width):
        at = [
            (round((m[axis, 1] * y + m[axis, 2]) * 1024) + 16 + round(m[axis, 0] * x * 1024)) >> 5
            for axis in (0, 1)
        ]
        (left, fx), (top, fy) = (divmod(place, 32) for place in at)
        value = 512
        for row, part_y in ((top, 32 - fy), (top + 1, fy)):
            for column, part_x in ((left, 32 - fx), (left + 1, fx)):
                pixel = image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                value += int(pixel) * part_x * part_y
        out[y, x] = value >> 10
    return out


@pytest.mark.parametrize(("height", "width"), [(33, 47), (1, 9), (16, 1), (64, 64)])
def test_the_warp_by_every_way(native_file: Path, height: int, width: int) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, height, width), np.uint8)
    maps = random.normal(0, 0.3, (6, 2, 3)).astype(np.float32) + np.eye(2, 3, dtype=np.float32)
    maps[..., 2] *= [[1], [10], [40], [1e3], [1e6], [1e12]]
    expected = np.stack([_warped(*pair) for pair in zip(images[:4], maps[:4], strict=True)])
    by_opencv = warp_by_opencv(images, maps)
    np.testing.assert_array_equal(by_opencv[:4], expected)
    for variant in Library(native_file).variants:
        warp = Library(native_file, variant).warp
        np.testing.assert_array_equal(warp(images, maps), by_opencv)
        np.testing.assert_array_equal(warp(images[::-1], maps[::-1]), by_opencv[::-1])


def test_the_bits_are_the_same_with_and_without_the_library(
    native_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 150, 150, 1), np.uint8)
    how = {"shear": 0.2, "zoom": 0.2, "flip": True, "rotation": 10.0, "shift": 0.1}
    results = []
    for library in (None, Library(native_file)):
        monkeypatch.setattr(native, "choose", lambda library=library: native.Choice(library, ""))
        results.append(_augmented(images, 3, **how))
    np.testing.assert_array_equal(*results)
    assert (results[0] != images).mean() > 0.5


def test_each_image_has_its_own_change_and_the_seed_decides_it() -> None:
    images = _disc(10, 5, count=8)
    how = {"rotation": 20.0, "shift": 0.1, "contrast": 0.2, "brightness": 0.1}
    one, same, other = (_augmented(images, seed, **how) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert len({image.tobytes() for image in np.concatenate([one, other])}) == 16


@pytest.mark.parametrize(
    "wrong", [{"rotation": 181.0}, {"shift": -0.1}, {"contrast": 1.0}, {"brightness": 1.1}]
)
def test_impossible_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Augmentation(**wrong)  # type: ignore[arg-type]
