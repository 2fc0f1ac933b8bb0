"""A DICOM file's stored pixel values: length checks and decoders.

Part of `dicom`, where the rules stand.
"""

import itertools
import struct
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.pixels.decoders.base import get_decoder

from tumorbatch.preprocess.complaints import complaints
from tumorbatch.preprocess.dicom.header import JPEG_2000, NATIVE, DicomImage, broken, registered
from tumorbatch.preprocess.jpeg import is_extraneous
from tumorbatch.status import FileError, Status

_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
# Of a code stream: JPEG and JPEG-LS; JPEG 2000; JPEG 2000 in its own file.
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", _JP2)
_LOSSY_JPEG = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit}
_DAMAGE = ("corrupt jpeg", "premature end")  # what libjpeg prints where it makes pixels up
# Start of frame in all JPEG processes and JPEG-LS: ITU-T T.81 table B.1, T.87 C.1.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


class StoredValues:
    """The stored pixel values of a file, whose fragments are separated once for all frames."""

    def __init__(self, dataset: Dataset, syntax: uid.UID, image: DicomImage) -> None:
        """Check that the pixels have the length, or number of compressed frames, of the header.

        Raises:
            FileError: `truncated` or `decode_error` where they have not.
        """
        self._value = value = cast(bytes, dataset["PixelData"].value or b"")
        self._syntax, self._image = syntax, image
        self._options: dict[str, Any] = asdict(image) | {
            "pixel_keyword": "PixelData",
            "pixel_vr": dataset["PixelData"].VR,  # in big endian words 8-bit values are swapped
            "allow_excess_frames": False,
            "decoding_plugin": "",
        }
        samples = image.rows * image.columns * image.samples_per_pixel
        if syntax not in NATIVE:
            self._frames = _encoded_frames(value, syntax, image)
            return
        size = samples * image.number_of_frames * image.bits_allocated // 8
        if image.photometric_interpretation == "YBR_FULL_422":  # two pixels share a colour, C.7.6.3.1.2
            size = size * 2 // 3
        if len(value) not in (size, size + size % 2):
            status = Status.TRUNCATED if len(value) < size else Status.DECODE_ERROR
            raise FileError(status, f"{len(value):,} bytes of pixels; the header asks for {size:,}")

    def frame(self, index: int) -> tuple[NDArray[np.integer[Any]], bool]:
        """Decode one frame, the bits above BitsStored cleared or filled with the sign.

        Returns:
            [Rows, Columns], or RGB [Rows, Columns, 3]; and whether a JPEG had odd bytes before its end
            mark, see `tumorbatch.preprocess.jpeg`.

        Raises:
            FileError: `truncated`, `decode_error`; `unsupported` without a decoder for it.
        """
        image, syntax = self._image, self._syntax
        colour = image.samples_per_pixel == 3
        shape = (image.rows, image.columns, 3) if colour else (image.rows, image.columns)
        complaint = ""
        if syntax in NATIVE:
            decoder = get_decoder(syntax)
            array, properties = decoder.as_array(self._value, index=index, **self._options)
        else:
            stream = b"".join(self._frames[index])
            stream = _checked_stream(stream, syntax, image)
            array, properties, complaint = _decompressed(stream, syntax, self._options)
        if array.shape != shape or (colour and properties["photometric_interpretation"] != "RGB"):
            raise broken("its decoder gave something else than the header says")
        native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        return _within_stored_bits(native, image), bool(complaint)


def _decompressed(
    frame: bytes, syntax: uid.UID, options: dict[str, Any]
) -> tuple[NDArray[np.integer[Any]], dict[str, Any], str]:
    """Return one frame's pixels, their properties, and the decoder's harmless warnings."""
    decoder = get_decoder(syntax)
    plugin = "pydicom" if syntax == uid.RLELossless else "gdcm"
    if plugin not in decoder.available_plugins:
        raise FileError(
            Status.UNSUPPORTED, f"{registered(syntax)} needs a decoder: pip install python-gdcm"
        )
    # All codecs here give colour by pixel, whatever the header says of the planes.
    options = options | {"decoding_plugin": plugin, "number_of_frames": 1, "planar_configuration": 0}
    if syntax in _LOSSY_JPEG:
        options["bits_allocated"] = 8  # that is all that is coded, whatever is allocated
    with complaints() as printed:
        try:
            array, properties = decoder.as_array(encapsulate([frame]), index=0, **options)
        except (RuntimeError, ValueError):
            raise broken(f"its {registered(syntax)} pixels cannot be decoded") from None
    # libjpeg continues after damage, and reports only its first complaint.
    complaint = printed()
    if any(word in complaint for word in _DAMAGE) and not is_extraneous(complaint):
        raise broken("its JPEG is damaged: its decoder had to make up pixels")
    return array, properties, complaint if is_extraneous(complaint) else ""


def _encoded_frames(value: bytes, syntax: uid.UID, image: DicomImage) -> list[list[bytes]]:
    """The fragments of each frame (PS3.5 A.4): one of RLE; others begin with a code stream's start."""
    frames: list[list[bytes]] = []
    for fragment in itertools.islice(generate_fragments(value), 1, None):  # after the offset table
        if syntax == uid.RLELossless or fragment.startswith(_STARTS):
            frames.append([fragment])
        elif frames:
            frames[-1].append(fragment)
        else:
            raise broken("its compressed pixels do not begin with a code stream")
    if len(frames) != image.number_of_frames:
        raise broken(f"{len(frames)} compressed frames; the header asks for {image.number_of_frames}")
    return frames


def _checked_stream(stream: bytes, syntax: uid.UID, image: DicomImage) -> bytes:
    """A frame's code stream, its own header compared before a decoder believes it."""
    if syntax == uid.RLELossless:
        # PackBits makes two bytes of one at worst; a longer stream could unpack to any size.
        samples = image.rows * image.columns * image.samples_per_pixel
        if len(stream) > 80 + 2 * samples * image.bits_allocated // 8:
            raise broken("RLE that is longer than its pixels")
        return stream
    if stream.startswith(_JP2):
        stream = _code_stream(stream)
    if not stream.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise FileError(Status.TRUNCATED, "a frame ends before its end mark")
    bits, rows, columns, samples = (_siz if syntax in JPEG_2000 else _start_of_frame)(stream)
    if (rows, columns, samples) != (image.rows, image.columns, image.samples_per_pixel):
        raise broken(f"{columns} x {rows} compressed pixels; the header says something else")
    if syntax == uid.JPEGExtended12Bit and bits > 8:
        raise FileError(Status.UNSUPPORTED, "JPEG Extended of 12 bits is not read")
    # Of grey, more precision than BitsStored is common: 12 bits in a stream of 16.
    exact = samples == 3 or syntax in _LOSSY_JPEG
    if bits > image.bits_allocated or (exact and bits != image.bits_stored):
        raise broken(
            f"{bits} bits compressed, BitsStored {image.bits_stored} in "
            f"BitsAllocated {image.bits_allocated}"
        )
    return stream


def _start_of_frame(stream: bytes) -> tuple[int, int, int, int]:
    """Return bits, rows, columns and samples of JPEG or JPEG-LS; ITU-T T.81 B.2.2."""
    at = 2
    while stream[at] == 0xFF:
        if stream[at + 1] in _FRAME_MARKERS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", stream, at + 4)
            return bits, rows, columns, samples
        # 0xFF may be repeated before a marker; everything else here has a length.
        at += 1 if stream[at + 1] == 0xFF else 2 + struct.unpack_from(">H", stream, at + 2)[0]
    raise ValueError


def _siz(stream: bytes) -> tuple[int, int, int, int]:
    """Return bits, rows, columns and samples of JPEG 2000; ITU-T T.800 A.5.1."""
    right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
    samples, depth = struct.unpack_from(">HB", stream, 40)
    return (depth & 0x7F) + 1, bottom - top, right - left, samples


def _code_stream(container: bytes) -> bytes:
    """Return the code stream in a JP2 file, which DICOM forbids but some writers use (T.800 I.4)."""
    at = 0
    while at + 8 <= len(container):
        length, kind = struct.unpack_from(">I4s", container, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", container, start)
            start += 8
        end = at + length if length else len(container)
        if end < start:
            break
        if kind == b"jp2c":
            return container[start:end]
        at = end
    raise broken("a JP2 file without a code stream in place of its JPEG 2000 code stream")


def _within_stored_bits(
    values: NDArray[np.integer[Any]], image: DicomImage
) -> NDArray[np.integer[Any]]:
    """Clear the bits above BitsStored, or for signed values fill them with the sign (PS3.5 8.1.1).

    They may hold anything, and codecs hand them over as they are.
    """
    size = values.dtype.itemsize
    unused = 8 * size - image.bits_stored
    kind = "i" if image.pixel_representation else "u"
    shifted = values.view(f"u{size}") << unused
    return np.asarray(shifted.view(f"{kind}{size}") >> unused)
