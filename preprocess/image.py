"""A decoded image, its header, and how colours and many bits become grey: what every decoder shares."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.status import FileError, Status

MIN_SIDE = 16  # pixels
WINDOW_PERCENTILES = (0.5, 99.5)
_FLOAT32 = np.finfo(np.float32)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R Recommendation BT.601, section 2.5.1


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of the (first) image in a file.

    Attributes:
        format: "jpeg", "png", "tiff", "bmp", "webp", "dicom" or "nifti".
        width: In pixels, as stored (before any Exif rotation).
        height: In pixels, as stored.
        bit_depth: Bits a sample.
        channels: Samples a pixel, an alpha channel included.
        alpha: Whether one of them is transparency.
        orientation: Exif orientation, 1 (upright) to 8.
        pages: Number of images in the file.
    """

    format: str
    width: int
    height: int
    bit_depth: int
    channels: int
    alpha: bool = False
    orientation: int = 1
    pages: int = 1


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image.

    Attributes:
        grey: uint8 [height, width], 0 (black) to 255, at the file's own resolution, upright.
        header: What the file says of itself.
        flags: Rules that were applied, sorted.
    """

    grey: NDArray[np.uint8]
    header: Header
    flags: tuple[str, ...]


def luma(rgb: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return Y = 0.299 R + 0.587 G + 0.114 B.

    Args:
        rgb: [height, width, 3] of any real type.

    Returns:
        [height, width]: of the same type for uint8 and uint16, rounded; else float64.
    """
    if rgb.dtype in (np.uint8, np.uint16):
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY))
    return np.asarray(rgb.astype(np.float64) @ _LUMA)


def window(image: NDArray[np.generic], padding: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Stretch the values between `WINDOW_PERCENTILES` over 0..255, and clip the rest.

    Args:
        image: Any numbers [height, width].
        padding: Where no image is [height, width]: these values have no part in the percentiles.

    Raises:
        FileError: Some are infinite or not numbers.
    """
    values = image.astype(np.float64)
    unpadded = values if padding is None else values[~padding]
    least, most = unpadded.min(), unpadded.max()
    # Beyond float32's range lies no measurement, but overflow. Not a number compares as false.
    if not (-_FLOAT32.max <= least and most <= _FLOAT32.max):
        raise FileError(Status.DECODE_ERROR, "some pixel values are infinite or not numbers")
    low, high = np.percentile(unpadded, WINDOW_PERCENTILES)
    if high <= low:  # nearly constant: the extremes are all there is to show
        low, high = least, most
    if high - low < _FLOAT32.smallest_subnormal:
        return np.zeros(image.shape, np.uint8)
    scaled = (np.clip(values, low, high) - low) * (255.0 / (high - low))
    return np.asarray(np.rint(scaled), np.uint8)
