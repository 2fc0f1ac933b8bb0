"""A decoded image, and how many bits become eight: what every decoder shares."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tumorbatch.preprocess.headers import Header
from tumorbatch.status import FileError, Status

MIN_SIDE = 16  # pixels
WINDOW_PERCENTILES = (0.5, 99.5)
_FLOAT32 = np.finfo(np.float32)


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


def window(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Stretch the values between `WINDOW_PERCENTILES` over 0..255, and clip the rest.

    Args:
        image: Any numbers [height, width].

    Raises:
        FileError: Some are infinite or not numbers.
    """
    values = image.astype(np.float64)
    least, most = values.min(), values.max()
    # Beyond float32's range lies no measurement, but overflow. Not a number compares as false.
    if not (-_FLOAT32.max <= least and most <= _FLOAT32.max):
        raise FileError(Status.DECODE_ERROR, "some pixel values are infinite or not numbers")
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    if high <= low:  # nearly constant: the extremes are all there is to show
        low, high = least, most
    if high - low < _FLOAT32.smallest_subnormal:
        return np.zeros(image.shape, np.uint8)
    scaled = (np.clip(values, low, high) - low) * (255.0 / (high - low))
    return np.asarray(np.rint(scaled), np.uint8)
