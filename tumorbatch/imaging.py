"""The report's image utilities, as functions on NumPy arrays: to look at images, not to train on them.

For a whole folder, `tumorbatch equalize` writes equalised PNG files.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.errors import InputError
from tumorbatch.files import FoundFile, find_files, read_file
from tumorbatch.preprocess import pixels
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError

__all__ = [
    "dilate",
    "draw_orb_keypoints",
    "equalize",
    "random_image",
    "sample_images",
    "threshold",
    "to_grey",
]

THRESHOLD = 70  # Öztüner's report
DILATION = 6  # Öztüner's report: a 6 x 6 kernel
_ORB_EDGE = 31  # pixels along the border without keypoints: OpenCV's default, the size of its patch
_GREEN = (0, 255, 0)  # the same in RGB and BGR


def to_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert to grey (luma): Y = 0.299 R + 0.587 G + 0.114 B.

    Args:
        image: uint8 [height, width, 3], channels in the order R, G, B; or uint8 [height, width].

    Returns:
        uint8 [height, width], 0 (black) to 255; the input itself when it is grey.

    Raises:
        ValueError: The array has another dtype or shape, or no pixels.

    References:
        ITU-R Recommendation BT.601, section 2.5.1.
    """
    if image.ndim == 3:
        _check(image, "[height, width, 3]", image.shape[2] == 3)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    return _check_grey(image)


def equalize(grey: NDArray[np.uint8], clip: float = 2.0, grid: int = 16) -> NDArray[np.uint8]:
    """Equalise an image as `shard` does: contrast-limited adaptive histogram equalisation (CLAHE).

    Args:
        grey: uint8 [height, width].
        clip: Clip limit; 2.0 is the report's.
        grid: Tiles along each side; 16 is the report's.

    Returns:
        uint8 [height, width].

    Raises:
        ValueError: The array is not a grey image.
        ConfigError: `clip` or `grid` is out of range.

    References:
        K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994.
    """
    return pixels.equalize(_check_grey(grey), Preprocessing(clahe_clip=clip, clahe_grid=grid))


def threshold(grey: NDArray[np.uint8], level: int = THRESHOLD) -> NDArray[np.uint8]:
    """Set pixels brighter than a level to white, all others to black.

    Args:
        grey: uint8 [height, width].
        level: 0 to 255; a pixel of exactly this value becomes black.

    Returns:
        uint8 [height, width], 0 or 255.

    Raises:
        ValueError: The array is not a grey image, or `level` is out of range.
    """
    _check_grey(grey)
    if not 0 <= level <= 255:
        raise ValueError(f"level must be between 0 and 255. Received: {level}.")
    return np.asarray(cv2.threshold(grey, level, 255, cv2.THRESH_BINARY)[1], np.uint8)


def dilate(grey: NDArray[np.uint8], size: int = DILATION) -> NDArray[np.uint8]:
    """Replace each pixel by the brightest of the size x size pixels around it, once.

    Args:
        grey: uint8 [height, width], a binary image or any other.
        size: Side of the square, in pixels. It reaches size // 2 pixels up and left, and
            (size - 1) // 2 down and right; where it leaves the image, only the part inside counts.

    Returns:
        uint8 [height, width].

    Raises:
        ValueError: The array is not a grey image, or `size` is below 1.
    """
    _check_grey(grey)
    if size < 1:
        raise ValueError(f"size must be at least 1. Received: {size}.")
    return np.asarray(cv2.dilate(grey, np.ones((size, size), np.uint8)), np.uint8)


def draw_orb_keypoints(grey: NDArray[np.uint8], count: int = 500) -> NDArray[np.uint8]:
    """Draw the ORB keypoints (oriented FAST corners) of an image as green circles.

    Images of up to 62 pixels a side have none: ORB leaves out a border of 31 pixels.

    Args:
        grey: uint8 [height, width].
        count: At most so many keypoints: those of the strongest corners.

    Returns:
        uint8 [height, width, 3], R, G, B.

    Raises:
        ValueError: The array is not a grey image, or `count` is below 1.

    References:
        E. Rublee et al., "ORB: an efficient alternative to SIFT or SURF", ICCV 2011.
    """
    _check_grey(grey)
    if count < 1:
        raise ValueError(f"count must be at least 1. Received: {count}.")
    colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    if min(grey.shape) > 2 * _ORB_EDGE:  # on much smaller ones OpenCV raises
        keypoints = cv2.ORB.create(nfeatures=count, edgeThreshold=_ORB_EDGE).detect(grey)
        # Where several are equally strong, OpenCV gives all of them, however many were asked for.
        strongest = sorted(keypoints, key=lambda point: -point.response)[:count]
        colour = cv2.drawKeypoints(colour, strongest, np.empty_like(colour), color=_GREEN)
    return np.asarray(colour, np.uint8)


def random_image(folder: Path, seed: int | None = None) -> tuple[Path, NDArray[np.uint8]]:
    """Return a random readable image from anywhere below a folder, each equally likely.

    Args:
        folder: Files that cannot be read as images, and hidden ones, are skipped.
        seed: The same seed gives the same image of the same folder; None gives any.

    Returns:
        The file's path, and its pixels: uint8 [height, width], as `shard` decodes them, before
        equalisation.

    Raises:
        ValueError: There is no such folder, or no readable image in it.
    """
    try:
        files = find_files(folder)
    except InputError as error:
        raise ValueError(str(error)) from error
    for file, grey in sample_images(files, 1, seed):
        return Path(file.path), grey
    raise ValueError(
        f"{folder} has no image that can be read, among {len(files)} files. Give a folder with images."
    )


def sample_images(
    files: Sequence[FoundFile], count: int, seed: int | None = None
) -> list[tuple[FoundFile, NDArray[np.uint8]]]:
    """Return different random readable images among files, each equally likely.

    Args:
        files: Those that cannot be read as images are skipped.
        count: At most so many images.
        seed: The same seed gives the same images of the same files; None gives any.

    Returns:
        Up to `count` times a file and its pixels: uint8 [height, width], as `shard` decodes them,
        before equalisation.
    """
    images: list[tuple[FoundFile, NDArray[np.uint8]]] = []
    for index in np.random.default_rng(seed).permutation(len(files)):
        if len(images) >= count:
            break
        with contextlib.suppress(FileError):
            images.append((files[index], decode(read_file(files[index])[0]).grey))
    return images


def _check_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _check(image, "[height, width]", image.ndim == 2)


def _check(image: NDArray[np.uint8], expected: str, fits: bool) -> NDArray[np.uint8]:
    if not fits or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            f"The image must be uint8 {expected}, with pixels in it. "
            f"Received: {image.dtype} {list(image.shape)}."
        )
    return image
