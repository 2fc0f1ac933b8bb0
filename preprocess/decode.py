"""A file's bytes to a grey uint8 image: checks, decoder, one rule for each special case.

Each format is read by a decoder that raises at damage, or is checked separately if its decoder does
not: libjpeg, libpng and libtiff continue after damage, and OpenCV returns invented pixels. `cv2.imread`
is never used: a file name that is not UTF-8 kills the process.

DICOM and NIfTI have their own rules, in `dicom` and `nifti`. Rules for the others (each leaves a flag
on the row, but for colour):
    colour            luma, Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) of the stored colours; what a
                      file says of gamma and colour spaces is skipped
    alpha             dropped: what lies under a transparent pixel is shown
    rotated           the Exif or TIFF orientation is applied, as a viewer would show the image
    multi-page        the first page, or the first frame of an animated PNG or WebP, is used
    16-bit            more than 8 bits a sample: the values between the 0.5th and 99.5th percentile of
                      the image are stretched over 0..255, the rest is clipped. Dividing by the type's
                      maximum would leave 12-bit data in 16-bit files with 16 grey levels.
    stretched         the same, for 8 bits that have no black and white of their own: signed ones
    extraneous-bytes  a JPEG with bytes that its decoder skipped, between segments or before the end
"""

from collections.abc import Collection
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch import machine
from tumorbatch.checks import IMAGE_FORMATS, sorted_formats
from tumorbatch.files import is_dicom
from tumorbatch.preprocess.exif import upright
from tumorbatch.preprocess.headers import described, format_of, read_header
from tumorbatch.preprocess.image import MIN_SIDE, Decoded, Header, window
from tumorbatch.preprocess.jpeg import decode_jpeg
from tumorbatch.preprocess.nifti import NiftiFile
from tumorbatch.preprocess.png import decode_png
from tumorbatch.preprocess.tiff import header as tiff
from tumorbatch.preprocess.tiff.decode import decode_page
from tumorbatch.preprocess.tiff.directory import directories
from tumorbatch.status import FileError, Status

MAX_PIXELS = 64_000_000

# One thread a worker process: the processes already fill the cores.
cv2.setNumThreads(1)
# A bad file's reason is in its row; OpenCV's own words would only reach cron's mail.
if hasattr(cv2, "setLogLevel"):  # OpenCV 4
    cv2.setLogLevel(0)
else:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class OpenImage(Protocol):
    """A file whose header is read, once for all of its pages or frames.

    Attributes:
        frames: How many pages or frames it has that are images of their own.
    """

    frames: int

    def decode(self, frame: int | None = None) -> Decoded:
        """Decode a page or frame, from 0; by default the first page, or the middle frame of a
        DICOM file or slice of a NIfTI file.

        Raises:
            FileError: With the status and reason for its row.
        """


def open_image(
    data: bytes, max_pixels: int = MAX_PIXELS, formats: Collection[str] = IMAGE_FORMATS
) -> OpenImage:
    """Read what a file says of itself.

    Args:
        data: Content of a JPEG, PNG, TIFF, BMP, WebP, DICOM or NIfTI file.
        max_pixels: Larger images are refused by their header, before memory is spent on them.
        formats: Of `IMAGE_FORMATS`; a file in another one is refused before any code that reads that
            format sees it.

    Raises:
        FileError: With the status and reason for the file's row.
    """
    if not data:
        raise FileError(Status.EMPTY, "the file has no bytes")
    name = "dicom" if is_dicom(data) else format_of(data)
    if name is not None and name not in formats:
        allowed = ", ".join(sorted_formats(formats))
        raise FileError(Status.UNSUPPORTED, f"its format is {name}; --formats allows {allowed}")
    if name == "dicom":  # before the others: a DICOM file's preamble may be a TIFF header
        from tumorbatch.preprocess.dicom.decode import DicomFile  # pydicom only where it is needed

        return DicomFile(data, max_pixels)
    if name == "nifti":
        return NiftiFile(data, max_pixels)
    if name == "tiff":
        return _Tiff(data, max_pixels)
    return _Single(data, max_pixels)


def decode(
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
    formats: Collection[str] = IMAGE_FORMATS,
) -> Decoded:
    """Decode one page or frame of a whole file's bytes; see `open_image` and `OpenImage.decode`."""
    return open_image(data, max_pixels, formats).decode(frame)


class _Tiff:
    """A TIFF, whose directories are found once."""

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._data, self._max_pixels = data, max_pixels
        with described():
            self._directories = directories(data)
        self.frames = len(self._directories)

    def decode(self, frame: int | None = None) -> Decoded:
        with described():
            header, page = tiff.read_header(self._data, self._directories, frame or 0)
        _check_size(header, self._max_pixels)
        with machine.believed(_bytes_of(header)):
            pixels = decode_page(self._data, page)
        return _finish(pixels, header, inverted=page.white_is_zero)


class _Single:
    """A file of one image; of an animation the first picture is the image."""

    frames = 1

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._data, self._header = data, read_header(data)
        _check_size(self._header, max_pixels)

    def decode(self, frame: int | None = None) -> Decoded:
        if frame:
            raise FileError(Status.DECODE_ERROR, f"it has no frame {frame + 1} that can be read")
        data, header = self._data, self._header
        extraneous = False
        grey: NDArray[np.generic]
        with machine.believed(_bytes_of(header)):
            if header.format == "jpeg":
                grey, extraneous = decode_jpeg(data, header.channels)
            else:
                grey = decode_png(data, header) if header.format == "png" else _by_opencv(data, header)
        return _finish(grey, header, extraneous=extraneous)


def _finish(
    image: NDArray[np.generic], header: Header, inverted: bool = False, extraneous: bool = False
) -> Decoded:
    """Apply what holds for every format: 8 bits, upright, and a flag for each rule."""
    if image.shape != (header.height, header.width):
        raise FileError(
            Status.DECODE_ERROR,
            f"the header says {header.width} x {header.height} pixels, "
            f"the content is {image.shape[1]} x {image.shape[0]}",
        )
    grey = np.asarray(image, np.uint8) if image.dtype == np.uint8 else window(image)
    flags = {
        "16-bit": header.bit_depth > 8,
        "alpha": header.alpha,
        "extraneous-bytes": extraneous,
        "multi-page": header.pages > 1,
        "rotated": header.orientation != 1,
        "stretched": header.bit_depth <= 8 and image.dtype != np.uint8,
    }
    turned = upright(255 - grey if inverted else grey, header.orientation)
    return Decoded(
        np.ascontiguousarray(turned), header, tuple(name for name, applied in flags.items() if applied)
    )


def _bytes_of(header: Header) -> int:
    """Return about how much memory a decoder needs: the samples, twice."""
    samples = header.width * header.height * max(1, header.channels)
    return 2 * samples * max(1, header.bit_depth // 8)


def _check_size(header: Header, max_pixels: int) -> None:
    size = f"{header.width} x {header.height} pixels"
    if header.width * header.height > max_pixels:
        raise FileError(Status.TOO_LARGE, f"{size}; the limit is {max_pixels:,} pixels")
    if min(header.width, header.height) < MIN_SIDE:
        raise FileError(Status.TOO_SMALL, f"{size}; the least is {MIN_SIDE} a side")


def _by_opencv(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a BMP or WebP, whole or not at all; uint8 [height, width], not turned."""
    if header.format == "webp":  # libwebp would take data after its end for pixels
        data = data[: 8 + int.from_bytes(data[4:8], "little")]
    try:
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if machine.is_machines(error):
            raise
        raise FileError(Status.DECODE_ERROR, f"OpenCV cannot decode it: {error.err}") from error
    if image is None:
        raise FileError(Status.DECODE_ERROR, f"OpenCV cannot decode this {header.format.upper()} file")
    return np.asarray(image, np.uint8)
