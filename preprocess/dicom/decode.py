"""A DICOM file's bytes to a grey uint8 image, and to a keyed hash of its patient.

Read are Part 10 files (with `DICM` at byte 128) in these transfer syntaxes: uncompressed, deflated (up
to the limit on a file's bytes), RLE; by python-gdcm JPEG, JPEG-LS, JPEG 2000.
Each has one decoder, so that the pixels do not depend on what else is installed.

A file is an error, and never gives pixels, where
    - its last element does not end where the file ends (zero bytes after it are padding);
    - it holds no image by its SOP class (reports, DICOMDIR, segmentations, dose: `not_an_image`, which
      is not an error), or has no PixelData (float maps);
    - its pixel description contradicts itself, or is not one of these: 8 <= BitsStored <= 16, HighBit =
      BitsStored - 1, BitsAllocated 8 or 16; one sample (MONOCHROME1, MONOCHROME2) or three unsigned
      ones (RGB, YBR). PALETTE COLOR is refused: its colours are a drawing, not an intensity;
    - uncompressed pixels are not exactly as long as the header says, but for the byte that makes the
      length even; or compressed ones have another number of frames, another size, no end mark, or are
      corrupt by their codec's own words.

Order (PS3.4 N.2): stored values -> modality LUT, or slope and intercept (PS3.3 C.11.1) -> VOI LUT, or
the first window (C.11.2), or without either the percentiles of `decode`, in which padding has no part
(C.7.5.1.1.2; it is shown black) -> uint8 -> inverted for MONOCHROME1. An enhanced image has slope and
window in its functional groups. Colour becomes luma; no LUT applies to it. See `transforms` for what
pydicom computes of this.

Flags: 16-bit (BitsStored > 8), colour, extraneous-bytes (as in `decode`), inverted, multi-frame (the
middle one is used), stretched (8 bits between the percentiles), voi-window (the file's own window or
LUT).

Messages hold no value of the file but sizes, counts and names from closed lists. What pydicom warns and
logs, and what codecs print, may hold others, and is dropped.
"""

import contextlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch import machine
from tumorbatch.preprocess.dicom.header import (
    broken,
    check_content,
    description,
    quiet_pydicom,
    read_part10,
)
from tumorbatch.preprocess.dicom.identity import Identity, identity, keyed, patient_text
from tumorbatch.preprocess.dicom.stored_values import StoredValues
from tumorbatch.preprocess.dicom.transforms import (
    Transform,
    modality_transform,
    padding_mask,
    voi_transform,
)
from tumorbatch.preprocess.image import MIN_SIDE, Decoded, Header, window
from tumorbatch.status import FileError, Status

_ISSUER = 0x00100021  # the last element that `patient_key` needs


def decode_dicom(data: bytes, max_pixels: int, frame: int | None = None) -> Decoded:
    """Decode one frame of a DICOM file.

    Args:
        data: Content of a Part 10 file.
        max_pixels: Frames of more pixels are refused by their header.
        frame: Index of the frame, from 0; by default the middle one, n // 2 of n.

    Returns:
        Grey uint8 [Rows, Columns]; the header with format "dicom", BitsStored as depth,
        SamplesPerPixel as channels and NumberOfFrames as pages.

    Raises:
        FileError: `truncated`, `decode_error`, `too_large`, `too_small`, or `unsupported`, which a
            compressed file is where python-gdcm is missing.
        MemoryError: There is not enough memory to decode it.
    """
    return DicomFile(data, max_pixels).decode(frame)


class DicomFile:
    """A DICOM file whose header is read, once for all of its frames.

    Attributes:
        frames: NumberOfFrames.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        """Read the header; for arguments and what is raised see `decode_dicom`."""
        with quiet_pydicom():
            self._dataset, self._syntax, self._kind = read_part10(data)
            check_content(self._dataset, self._kind)
            self._image = image = description(self._dataset)
            size = f"{image.columns} x {image.rows} pixels"
            if image.rows * image.columns > max_pixels:
                raise FileError(Status.TOO_LARGE, f"{size}; the limit is {max_pixels:,} pixels")
            if min(image.rows, image.columns) < MIN_SIDE:
                raise FileError(Status.TOO_SMALL, f"{size}; the least is {MIN_SIDE} a side")
        self.frames = image.number_of_frames
        self._stored: StoredValues | None = None

    def decode(self, frame: int | None = None) -> Decoded:
        """Decode one frame; see `decode_dicom`."""
        index = self.frames // 2 if frame is None else frame
        if not 0 <= index < self.frames:
            raise broken(f"there is no frame {index}, counted from 0, in {self.frames}")
        return self._decode(index)

    def identity(self, frame: int, key: bytes | None) -> Identity:
        """Return whose image a frame is, and of what; see `identity.identity`."""
        with contextlib.suppress(FileError), quiet_pydicom():  # no reason to lose the image
            return identity(self._dataset, self._kind, frame, key)
        return Identity({}, ())

    def _decode(self, index: int) -> Decoded:
        dataset, image = self._dataset, self._image
        colour = image.samples_per_pixel == 3
        with quiet_pydicom():
            modality = None if colour else modality_transform(dataset, image, index)
            voi = None if colour else voi_transform(dataset, image, index)
            samples = image.rows * image.columns * image.samples_per_pixel
            with machine.believed(4 * samples * image.bits_allocated // 8), quiet_pydicom():
                if self._stored is None:
                    self._stored = StoredValues(dataset, self._syntax, image)
                stored, extraneous = self._stored.frame(index)
            padding = None if colour else padding_mask(dataset, image, stored)
        if colour:
            stored = np.asarray(cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY), stored.dtype)
        inverted = image.photometric_interpretation == "MONOCHROME1"
        as_it_is = colour and image.bits_stored == 8
        with np.errstate(over="ignore"):  # far outside a narrow window
            if as_it_is:
                grey = stored.astype(np.uint8)
            elif voi is not None:
                grey = _to_grey(stored, modality, voi)
            else:
                values = stored.astype(np.float64)
                grey = window(modality(values) if modality else values, padding)
        grey = 255 - grey if inverted else grey
        if padding is not None and voi is None:
            grey[padding] = 0
        flags = {
            "16-bit": image.bits_stored > 8,
            "colour": colour,
            "extraneous-bytes": extraneous,
            "inverted": inverted,
            "multi-frame": image.number_of_frames > 1,
            "stretched": image.bits_stored == 8 and voi is None and not as_it_is,
            "voi-window": voi is not None,
        }
        return Decoded(
            np.ascontiguousarray(grey),
            Header(
                "dicom",
                image.columns,
                image.rows,
                image.bits_stored,
                image.samples_per_pixel,
                pages=image.number_of_frames,
            ),
            tuple(name for name, applied in flags.items() if applied),
        )


def _to_grey(
    stored: NDArray[np.integer[Any]], modality: Transform | None, voi: Transform
) -> NDArray[np.uint8]:
    """Return the grey values [Rows, Columns] of stored values.

    Both transforms look at one value at a time. So they are computed once for each value between the
    least and the largest, which are mostly far fewer than the pixels.
    """
    least, largest = int(stored.min()), int(stored.max())
    few = largest - least < stored.size
    values = np.arange(least, largest + 1, dtype=np.float64) if few else stored.astype(np.float64)
    grey = np.rint(255 * voi(modality(values) if modality else values)).astype(np.uint8)
    return np.asarray(grey[stored.astype(np.intp) - least] if few else grey)


def patient_key(data: bytes, secret: bytes) -> str | None:
    """Return a keyed hash of PatientID (0010,0020) and IssuerOfPatientID (0010,0021), if given.

    Equal IDs give equal keys, whatever else is in the file, and only the holder of the secret can find
    the ID by trying all of them. An ID that an archive gave to all its patients makes them one.

    Args:
        data: Content of a Part 10 file; it is read up to these elements.
        secret: The site's key.

    Returns:
        HMAC-SHA256, 64 hexadecimal digits, or None without a PatientID.

    Raises:
        FileError: The header cannot be read.
        ValueError: `secret` is empty.
    """
    if not secret:
        raise ValueError("The secret must not be empty. Make one with secrets.token_bytes(32).")
    with quiet_pydicom():
        dataset, *_ = read_part10(data, stop_behind=_ISSUER)
        text = patient_text(dataset)
    return None if text is None else keyed(secret, text)
