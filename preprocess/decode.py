"""A file's bytes to a grey uint8 image: checks, decoder, one rule for each awkward case.

`cv2.imread` is never used: a file name that is not UTF-8 kills the process, and a truncated JPEG
comes back half grey. `cv2.imdecode` returns None for both.

DICOM has its own module with its own rules, `dicom`. Rules for the others (each leaves a flag on the
row, but for colour):
    colour       luma, Y = 0.299 R + 0.587 G + 0.114 B (OpenCV's grey conversion; ITU-R BT.601)
    alpha        dropped: what lies under a transparent pixel is shown (but libtiff has blended an
                 8-bit colour TIFF with black)
    rotated      the Exif or TIFF orientation is applied, as a viewer would show the image
    multi-page   the first page, or the first frame of an animated PNG or WebP, is used
    (none)       BMP: 1, 4, 8, 24 and 32 bits a pixel without compression; others are refused
    16-bit       more than 8 bits a sample: the values between the 0.5th and 99.5th percentile of
                 the image are stretched over 0..255, the rest is clipped. Dividing by the type's
                 maximum would leave 12-bit data in 16-bit files with 16 grey levels.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.files import is_dicom
from tumorbatch.preprocess.headers import read_header, tiff_page
from tumorbatch.preprocess.image import MIN_SIDE, Decoded, window
from tumorbatch.status import FileError, Status

MAX_PIXELS = 64_000_000
_TIFF = (b"II*\0", b"MM\0*")

# One thread a worker process: the processes already fill the cores.
cv2.setNumThreads(1)
# A bad file's reason stands in its row; OpenCV's own words would only reach cron's mail.
if hasattr(cv2, "setLogLevel"):  # OpenCV 4
    cv2.setLogLevel(0)
else:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes, max_pixels: int = MAX_PIXELS, frame: int | None = None) -> Decoded:
    """Decode a whole file's bytes.

    Args:
        data: Content of a JPEG, PNG, TIFF, BMP, WebP or DICOM file.
        max_pixels: Larger images are refused by their header, before memory is spent on them.
        frame: Page of a TIFF or frame of a DICOM file, from 0; by default the first page, or the
            middle frame. Of other formats there is only 0.

    Raises:
        FileError: With the status and reason for the file's row.
    """
    if not data:
        raise FileError(Status.EMPTY, "the file has no bytes")
    if is_dicom(data):  # before the others: a DICOM file's preamble may be a TIFF header
        from tumorbatch.preprocess.dicom.decode import (
            decode_dicom,  # pydicom only where it is needed
        )

        return decode_dicom(data, max_pixels, frame)
    pages = None
    if frame and data[:4] in _TIFF:
        data, pages = tiff_page(data, frame)
    elif frame:
        raise FileError(Status.DECODE_ERROR, f"it has no frame {frame + 1} that can be read")
    header = read_header(data)
    header = header if pages is None else replace(header, pages=pages)
    if header.width * header.height > max_pixels:
        raise FileError(
            Status.TOO_LARGE,
            f"{header.width} x {header.height} pixels; the limit is {max_pixels:,} pixels",
        )
    if min(header.width, header.height) < MIN_SIDE:
        raise FileError(
            Status.TOO_SMALL,
            f"{header.width} x {header.height} pixels; the least is {MIN_SIDE} a side",
        )
    try:
        how = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_IGNORE_ORIENTATION if header.format == "webp" else 0)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise FileError(Status.DECODE_ERROR, f"OpenCV cannot decode it: {error.err}") from error
    if image is None:
        raise FileError(Status.DECODE_ERROR, f"OpenCV cannot decode this {header.format.upper()} file")
    if sorted(image.shape) != sorted((header.height, header.width)):
        raise FileError(
            Status.DECODE_ERROR,
            f"the header says {header.width} x {header.height} pixels, "
            f"the content is {image.shape[1]} x {image.shape[0]}",
        )
    flags = []
    if header.bit_depth > 8:
        if image.dtype == np.uint8:  # libtiff kept the high byte of each value
            raise FileError(
                Status.UNSUPPORTED,
                f"OpenCV reads only 8 of the {header.bit_depth} bits of this kind of "
                f"{header.format.upper()} file",
            )
        flags.append("16-bit")
    if header.alpha:
        flags.append("alpha")
    if header.pages > 1:
        flags.append("multi-page")
    if header.orientation != 1:
        flags.append("rotated")
    grey = image.astype(np.uint8, copy=False) if image.dtype == np.uint8 else window(image)
    if header.format == "webp":  # OpenCV 5 turns these, OpenCV 4 does not
        grey = _upright(grey, header.orientation)
    return Decoded(np.ascontiguousarray(grey), header, tuple(flags))


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an Exif orientation: 5 to 8 swap the axes, then each axis may be mirrored."""
    if orientation > 4:
        image = image.T
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return image[::down, ::right]
