"""The variant `normalised`: the head cut out of its background, and its grey values stretched.

All decisions are made in whole numbers, from counts of pixels, so that every machine makes the same.
For an image of uint8 [height, width]:

1. A pixel is foreground if it is brighter than half of the mean: grey > sum // (2 height width).
2. A row belongs to the head if at least 1/20 of its pixels are foreground; a column likewise. The box
   goes from the first such row to the last, and from the first such column to the last. Where it is
   empty, or one of its sides is shorter than 1/4 of the image's, the whole image is the box.
3. `low` is the smallest value such that at least 1/100 of the box's pixels are not brighter, `high` the
   smallest for 99/100. Each value v of the box becomes (255 (v - low) + (high - low) // 2) //
   (high - low), clipped to 0..255. Where low = high, the values stay.
4. The box is resized like any other image, without CLAHE; the aspect ratio is not kept.

So an image of one value stays what it is, and one without background is stretched only.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

_LINE_SHARE = 20  # 1 / share of a row or column that is foreground inside the head
_BOX_SHARE = 4  # 1 / smallest side of the box, as a share of the image's
_PERCENT = (1, 99)


def head_box(grey: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the rows and the columns of the head.

    Args:
        grey: uint8 [height, width], at least one pixel.
    """
    foreground = grey > int(grey.sum(dtype=np.int64)) // (2 * grey.size)
    rows, columns = (
        _extent(np.count_nonzero(foreground, axis=axis), grey.shape[axis]) for axis in (1, 0)
    )
    if rows is None or columns is None:
        return slice(0, grey.shape[0]), slice(0, grey.shape[1])
    return rows, columns


def _extent(counts: NDArray[np.intp], length: int) -> slice | None:
    """Return the lines from the first to the last that belong to the head; None if they are too few.

    Args:
        counts: Foreground pixels of each line.
        length: Pixels of a line.
    """
    lines = np.flatnonzero(counts * _LINE_SHARE >= length)
    if not len(lines) or (lines[-1] + 1 - lines[0]) * _BOX_SHARE < len(counts):
        return None
    return slice(int(lines[0]), int(lines[-1]) + 1)


def stretch_table(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the new value of each grey value, uint8 [256], see step 3 above.

    Args:
        grey: uint8 [height, width], at least one pixel.
    """
    cumulated = np.cumsum(np.bincount(grey.ravel(), minlength=256)) * 100
    low, high = (int(np.searchsorted(cumulated, percent * grey.size)) for percent in _PERCENT)
    values = np.arange(256)
    if low < high:
        values = np.clip((255 * (values - low) + (high - low) // 2) // (high - low), 0, 255)
    return values.astype(np.uint8)


def normalise(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut out the head and stretch its grey values, at native size.

    Args:
        grey: uint8 [height, width], at least one pixel.

    Returns:
        uint8 [rows of the box, columns of the box].
    """
    head = np.ascontiguousarray(grey[head_box(grey)])
    return np.asarray(cv2.LUT(head, stretch_table(head)), np.uint8)
