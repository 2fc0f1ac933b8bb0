"""A DICOM file's stored pixel values: length checks and decoders.

Part of `dicom`, where the rules stand.
"""

import io
import math
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments, get_frame
from pydicom.pixels.decoders.base import get_decoder

from tumorbatch.preprocess.dicom.header import JPEG_2000, NATIVE, DicomImage, broken, registered
from tumorbatch.status import FileError, Status

_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # of a code stream: JPEG and JPEG-LS; JPEG 2000
# Start of frame in all JPEG processes and JPEG-LS: ITU-T T.81 table B.1, T.87 C.1.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


def stored_values(
    dataset: Dataset, syntax: uid.UID, image: DicomImage, index: int
) -> NDArray[np.integer[Any]]:
    """One frame as stored, unused bits cleared: [Rows, Columns], or RGB [Rows, Columns, 3]."""
    value = cast(bytes, dataset["PixelData"].value or b"")
    options: dict[str, Any] = asdict(image) | {
        "pixel_keyword": "PixelData",
        "pixel_vr": dataset["PixelData"].VR,  # in big endian words 8-bit values are swapped
        "allow_excess_frames": False,
        "decoding_plugin": "",
    }
    colour = image.samples_per_pixel == 3
    shape = (image.rows, image.columns, 3) if colour else (image.rows, image.columns)
    decoder = get_decoder(syntax)
    damage = b""
    if syntax in NATIVE:
        needed = math.prod(shape) * image.number_of_frames * image.bits_allocated // 8
        if image.photometric_interpretation == "YBR_FULL_422":  # two pixels share a colour, C.7.6.3.1.2
            needed = needed * 2 // 3
        if len(value) not in (needed, needed + needed % 2):
            status = Status.TRUNCATED if len(value) < needed else Status.DECODE_ERROR
            raise FileError(status, f"{len(value):,} bytes of pixels; the header asks for {needed:,}")
        array, properties = decoder.as_array(value, index=index, **options)
    else:
        options["decoding_plugin"] = "pydicom" if syntax == uid.RLELossless else "gdcm"
        if options["decoding_plugin"] not in decoder.available_plugins:
            raise FileError(
                Status.UNSUPPORTED,
                f"{registered(syntax)} needs a decoder: pip install 'tumorbatch[dicom]'",
            )
        frame = _encoded_frame(value, syntax, image, index)
        # All codecs here give colour by pixel, whatever the header says of the planes.
        options |= {"number_of_frames": 1, "planar_configuration": 0}
        with _codec_words() as words:
            array, properties = decoder.as_array(encapsulate([frame]), index=0, **options)
        damage = words.getvalue().lower()
    if b"corrupt jpeg" in damage or b"premature end" in damage:
        raise broken("its JPEG is corrupt: its decoder had to make up pixels")
    if array.shape != shape or (colour and properties["photometric_interpretation"] != "RGB"):
        raise broken("its decoder gave something else than the header says")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _encoded_frame(value: bytes, syntax: uid.UID, image: DicomImage, index: int) -> bytes:
    """One frame's code stream (PS3.5 A.4), its own header compared before a decoder believes it."""
    rle = syntax == uid.RLELossless
    fragments = list(generate_fragments(value))[1:]
    frames = sum(rle or fragment.startswith(_STARTS) for fragment in fragments)
    if frames != image.number_of_frames:
        raise broken(f"{frames} compressed frames; the header asks for {image.number_of_frames}")
    stream = get_frame(value, index, number_of_frames=frames)
    if rle:
        # PackBits makes two bytes of one at worst; a longer stream could unpack to any size.
        samples = image.rows * image.columns * image.samples_per_pixel
        if len(stream) > 80 + 2 * samples * image.bits_allocated // 8:
            raise broken("RLE that is longer than its pixels")
        return stream
    if not stream.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise FileError(Status.TRUNCATED, "a frame ends before its end mark")
    bits, rows, columns, samples = (_siz if syntax in JPEG_2000 else _start_of_frame)(stream)
    if (rows, columns, samples) != (image.rows, image.columns, image.samples_per_pixel):
        raise broken(f"{columns} x {rows} compressed pixels; the header says something else")
    # Of grey, more precision than BitsStored is common: 12 bits in a stream of 16.
    if bits > image.bits_allocated or (samples == 3 and bits != image.bits_stored):
        raise broken(f"{bits} bits compressed, {image.bits_stored} in {image.bits_allocated} described")
    if syntax == uid.JPEGExtended12Bit and bits > 8:
        raise FileError(Status.UNSUPPORTED, "JPEG Extended of 12 bits is not read")
    return stream


def _start_of_frame(stream: bytes) -> tuple[int, int, int, int]:
    """Bits, rows, columns and samples of JPEG or JPEG-LS; ITU-T T.81 B.2.2."""
    at = 2
    while stream[at] == 0xFF:
        if stream[at + 1] in _FRAME_MARKERS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", stream, at + 4)
            return bits, rows, columns, samples
        # 0xFF may be repeated before a marker; everything else here has a length.
        at += 1 if stream[at + 1] == 0xFF else 2 + struct.unpack_from(">H", stream, at + 2)[0]
    raise ValueError


def _siz(stream: bytes) -> tuple[int, int, int, int]:
    """Bits, rows, columns and samples of JPEG 2000; ITU-T T.800 A.5.1."""
    right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
    samples, depth = struct.unpack_from(">HB", stream, 40)
    return (depth & 0x7F) + 1, bottom - top, right - left, samples


@contextmanager
def _codec_words() -> Iterator[io.BytesIO]:
    """Catch what the C libraries in gdcm print: only there does libjpeg say that it made up pixels.

    It takes the whole process' standard error for that time, so decode in a process of its own.
    """
    words = io.BytesIO()
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield words
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            words.write(file.read(1 << 16))
