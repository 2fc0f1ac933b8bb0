"""The library in C gives OpenCV's pixels, bit for bit, by every variant that this processor can run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch import native
from tumorbatch.native import Library

ROOT = Path(__file__).resolve().parents[2]
Grey = NDArray[np.uint8]


@pytest.fixture(scope="module")
def variants(native_file: Path) -> list[Library]:
    names = Library(native_file).variants
    assert names[0] == "portable"
    return [Library(native_file, name) for name in names]


@pytest.fixture(autouse=True)
def _choose_anew() -> Iterator[None]:
    native.choose.cache_clear()
    yield
    native.choose.cache_clear()


def _image(random: np.random.Generator, height: int, width: int) -> Grey:
    """Noise, one value, a smooth image, or one with few grey values."""
    kind = random.integers(4)
    if kind == 0:
        return random.integers(0, 256, (height, width), np.uint8)
    if kind == 1:
        return np.full((height, width), random.integers(256), np.uint8)
    coarse = random.integers(0, 256, (max(2, height // 9), max(2, width // 9)), np.uint8)
    smooth = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    if kind == 2:
        return smooth
    few = smooth.astype(np.int64) // random.integers(2, 60) + random.integers(200)
    return np.clip(few, 0, 255).astype(np.uint8)


def _area(grey: Grey, height: int, width: int) -> Grey:
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _compare(
    variants: list[Library], grey: Grey, clip: float, grid: int, height: int, width: int
) -> int:
    """Compare all functions with OpenCV; gives how many results were the library's."""
    equalized = np.asarray(cv2.createCLAHE(clip, (grid, grid)).apply(grey), np.uint8)
    expected = (
        equalized,
        _area(equalized, height, width),
        _area(grey, height, width),
        _area(grey, height, grey.shape[1]),
    )
    count = 0
    for library in variants:
        results = (
            library.equalize(grey, clip, grid),
            library.equalize_and_shrink(grey, clip, grid, height, width),
            library.equalize_and_shrink(grey, clip, 0, height, width),
            library.shrink_rows(grey, height),
        )
        for step, (ours, theirs) in enumerate(zip(results, expected, strict=True)):
            if ours is not None:
                assert np.array_equal(ours, theirs), (library.variant, step, grey.shape, clip, grid)
                count += 1
    return count


def _compare_random(variants: list[Library], seed: int, images: int, longest: int) -> None:
    """Sides are drawn so that small ones are as frequent as large ones."""
    random = np.random.default_rng(seed)
    count = 0
    for _ in range(images):
        height, width = (round(longest ** random.random()) for _ in range(2))
        clip = float(random.choice([0.01, 0.5, 1, 2, 3.7, 40, 100, 255]))
        out = (int(random.integers(1, side + 1)) for side in (height, width))
        grey = _image(random, height, width)
        count += _compare(variants, grey, clip, int(random.integers(1, 65)), *out)
    assert count > 2.5 * images * len(variants)  # the library did not leave it to OpenCV


@pytest.mark.parametrize("seed", range(4))
def test_random_images(variants: list[Library], seed: int) -> None:
    _compare_random(variants, seed, 100, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_random_images_of_all_sizes(variants: list[Library], seed: int) -> None:
    """20,000 in all."""
    _compare_random(variants, seed, 490, 700)
    _compare_random(variants, seed, 10, 4096)


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [(1, 1, 64), (1, 300, 16), (300, 1, 16), (16, 16, 16), (17, 16, 16), (7, 9, 8), (256, 256, 1)],
)
def test_sides_that_are_no_multiple_of_tiles_or_strips(
    variants: list[Library], height: int, width: int, grid: int
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    _compare(variants, grey, 2.0, grid, max(1, height * 2 // 3), max(1, width * 2 // 3))


def test_what_is_left_to_opencv(variants: list[Library]) -> None:
    grey = np.zeros((64, 64), np.uint8)
    for library in variants:
        assert library.equalize_and_shrink(grey, 2.0, 8, 65, 32) is None  # a side grows
        assert library.equalize_and_shrink(grey, 2.0, 8, 32, 16) is None  # whole ratios
        assert library.equalize_and_shrink(grey, 2.0, 8, 33, 16) is not None
        assert library.shrink_rows(grey, 32) is None
        assert library.equalize(grey[:0], 2.0, 8) is None


def test_an_image_that_does_not_lie_row_by_row(variants: list[Library]) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (90, 70), np.uint8)
    for view in (grey.T, grey[::2, ::-1]):
        _compare(variants, view, 2.0, 8, 31, 33)


def test_real_images(variants: list[Library]) -> None:
    folder = os.environ.get("TUMORBATCH_DATASET")
    if folder is None:
        pytest.skip("TUMORBATCH_DATASET names no folder")
    from tumorbatch.files import find_files, read_file
    from tumorbatch.preprocess.decode import decode

    files = find_files(Path(folder))
    for file in files:
        _compare(variants[-1:], decode(read_file(file)[0]).grey, 2.0, 16, 150, 150)
    assert files


# --- the choice -------------------------------------------------------------------------------------


def test_the_library_is_used_where_it_was_built(
    native_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(native.ENVIRONMENT, raising=False)
    monkeypatch.setattr(native, "find", lambda: native_file)
    choice = native.choose()
    assert choice.library is not None
    assert choice.reason == f"by the library in C ({choice.library.variants[-1]})"


def test_opencv_can_be_forced(native_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find", lambda: native_file)
    monkeypatch.setenv(native.ENVIRONMENT, "opencv")
    assert native.choose() == (None, f"by OpenCV {cv2.__version__} (forced)")


def test_without_the_library_opencv_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find", lambda: None)
    choice = native.choose()
    assert choice.library is None
    assert "was not built" in choice.reason


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_file_that_is_no_library(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "_native.abi3.so"
    path.write_bytes(content)
    monkeypatch.setattr(native, "find", lambda: path)
    choice = native.choose()
    assert choice.library is None
    assert "cannot be loaded" in choice.reason


def test_a_library_with_other_pixels_is_not_used(
    native_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Library):
        def shrink_rows(self, grey: Grey, height: int) -> Grey | None:
            rows = super().shrink_rows(grey, height)
            return None if rows is None else rows ^ (rows == rows.max())

    monkeypatch.setattr(native, "find", lambda: native_file)
    monkeypatch.setattr(native, "Library", Other)
    choice = native.choose()
    assert choice.library is None
    assert "other pixels" in choice.reason


def test_pixels_of_another_type_are_refused(native_file: Path) -> None:
    library = Library(native_file)
    with pytest.raises(ValueError, match=r"must be uint8. Received: float32"):
        library.equalize(np.zeros((64, 64), np.float32), 2.0, 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be uint8. Received: int8"):
        library.warp(np.zeros((1, 8, 8), np.int8), np.zeros((1, 2, 3), np.float32))  # type: ignore[arg-type]


def test_an_unknown_variant(native_file: Path) -> None:
    with pytest.raises(ValueError, match="variant must be one of portable"):
        Library(native_file, "avx1024")


def test_a_build_without_a_compiler_succeeds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path],
        cwd=ROOT,
        env=os.environ | {"CC": "/nonexistent/cc"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("_native*.so"))
