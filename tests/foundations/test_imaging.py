"""The report's image utilities, held against plain NumPy."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch.imaging import (
    dilate,
    draw_orb_keypoints,
    equalize,
    random_image,
    threshold,
    to_grey,
)
from tumorbatch.preprocess.decode import decode

Grey = NDArray[np.uint8]


@pytest.fixture
def noise() -> Grey:
    return np.random.default_rng(0).integers(0, 256, (90, 110), np.uint8)


@pytest.fixture
def squares() -> Grey:
    """Bright squares on black: clear corners, all equally strong."""
    image = np.zeros((160, 200), np.uint8)
    for top in (45, 95):
        for left in (50, 90, 130):
            image[top : top + 18, left : left + 18] = 255
    return image


def images(folder: Path, *names: str) -> None:
    """PNG files of 20 x 20 pixels; each has one value, its place in `names` times ten."""
    for place, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.full((20, 20), place * 10, np.uint8)
        path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())


def test_to_grey_is_bt601_luma() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    grey = to_grey(rgb)
    assert grey.dtype == np.uint8
    assert grey.shape == (40, 50)
    exact = rgb.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(grey - exact).max() <= 0.51  # rounded, with OpenCV's 15-bit weights


def test_to_grey_takes_red_first() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert to_grey(primaries).tolist() == [[76, 150, 29, 255]]


def test_to_grey_leaves_grey_alone(noise: Grey) -> None:
    assert to_grey(noise) is noise


def test_threshold_is_strict(noise: Grey) -> None:
    assert threshold(np.array([[69, 70, 71]], np.uint8)).tolist() == [[0, 0, 255]]
    for level in (0, 70, 128, 255):
        expected = np.where(noise > level, 255, 0)
        assert np.array_equal(threshold(noise, level), expected)
        assert threshold(noise, level).dtype == np.uint8


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_dilate_is_the_largest_value_around(noise: Grey, size: int) -> None:
    before, after = size // 2, (size - 1) // 2
    padded = np.pad(noise, ((before, after), (before, after)))  # 0 never wins
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    out = dilate(noise, size)
    assert np.array_equal(out, windows.max(axis=(2, 3)))
    assert out.dtype == np.uint8


def test_dilate_uses_the_reports_kernel_by_default() -> None:
    point = np.zeros((20, 20), np.uint8)
    point[10, 10] = 200
    assert np.array_equal(dilate(point), dilate(point, 6))
    assert np.count_nonzero(dilate(point)) == 36


def test_keypoints_are_drawn_in_green_and_nothing_else_changes(squares: Grey) -> None:
    before = squares.copy()
    drawn = draw_orb_keypoints(squares)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (*squares.shape, 3)
    assert np.array_equal(squares, before)
    changed = (drawn != squares[:, :, None]).any(axis=2)
    assert changed.any()
    red, green, blue = np.moveaxis(drawn[changed].astype(int), 1, 0)
    assert (red == blue).all()  # green, blended with grey at the circles' rims
    assert (green >= red).all()
    assert np.array_equal(drawn, draw_orb_keypoints(squares))


def test_no_more_keypoints_than_asked_for() -> None:
    # Equal corners everywhere: OpenCV, asked for 5, gives 24.
    board = np.kron(np.indices((10, 10)).sum(0) % 2, np.full((20, 20), 255)).astype(np.uint8)
    for count in (5, 20):
        marks = np.ptp(draw_orb_keypoints(board, count), axis=2) > 0
        circles = cv2.connectedComponents(marks.astype(np.uint8))[0] - 1
        assert 0 < circles <= count


@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (62, 62), (63, 63)])
def test_small_images_have_no_keypoints_and_no_error(shape: tuple[int, int]) -> None:
    grey = np.full(shape, 40, np.uint8)
    assert np.array_equal(draw_orb_keypoints(grey), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
    ids=lambda image: f"{image.dtype}{list(image.shape)}",
)
def test_other_arrays_are_refused(image: NDArray[np.uint8]) -> None:
    for function in (to_grey, threshold, dilate, draw_orb_keypoints):
        with pytest.raises(ValueError, match=r"must be uint8 \[height, width"):
            function(image)


def test_values_out_of_range_are_refused(noise: Grey) -> None:
    with pytest.raises(ValueError, match=r"level must be between 0 and 255\. Received: 256"):
        threshold(noise, 256)
    with pytest.raises(ValueError, match="size must be at least 1"):
        dilate(noise, 0)
    with pytest.raises(ValueError, match="count must be at least 1"):
        draw_orb_keypoints(noise, 0)


def test_random_image_gives_path_and_pixels(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "deep/b.png", "deep/er/c.png")
    seen = {}
    for seed in range(20):
        path, grey = random_image(tmp_path, seed)
        assert np.array_equal(grey, decode(path.read_bytes()).grey)
        assert grey.dtype == np.uint8
        seen[path] = int(grey[0, 0])
        assert random_image(tmp_path, seed)[0] == path
    assert sorted(seen.values()) == [0, 10, 20]
    assert random_image(tmp_path)[0] in seen


def test_random_image_passes_over_what_is_no_image(tmp_path: Path) -> None:
    images(tmp_path, "only.png", ".hidden.png")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes((tmp_path / "only.png").read_bytes()[:-20])
    (tmp_path / "loop").symlink_to(tmp_path)
    assert {random_image(tmp_path, seed)[0].name for seed in range(20)} == {"only.png"}


def test_random_image_without_images_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image that can be read, among 0 files"):
        random_image(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ValueError, match="no image that can be read, among 1 files"):
        random_image(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        random_image(tmp_path / "nowhere")


def test_equalize_is_opencvs_clahe_with_the_reports_settings() -> None:
    grey = np.random.default_rng(0).integers(90, 130, (96, 80)).astype(np.uint8)
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(16, 16))
    np.testing.assert_array_equal(equalize(grey), clahe.apply(grey))
    other = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8))
    np.testing.assert_array_equal(equalize(grey, clip=4.0, grid=8), other.apply(grey))
    with pytest.raises(ValueError, match=r"uint8 \[height, width\]"):
        equalize(grey.astype(float))
