"""What a DICOM file says of its pixels: Part 10 structure, transfer syntax, pixel description.

Part of `dicom`, where the rules stand.
"""

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from tumorbatch import machine
from tumorbatch.files import MAX_BYTES
from tumorbatch.status import FileError, Status

NATIVE = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
}
_JPEG = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1}
_JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
JPEG_2000 = {uid.JPEG2000Lossless, uid.JPEG2000}
_SYNTAXES = NATIVE | {uid.RLELossless} | _JPEG | _JPEG_LS | JPEG_2000
# SOP classes of objects that hold no image, by the roots of PS3.6 table A-1: DICOMDIR; hanging
# protocols, palettes, implants; and of the storage classes spectroscopy, waveforms, presentation
# states, raw data to segmentations (66.*), value mappings, surfaces, eye measurements, structured
# reports and selections, assessments, encapsulated documents, structured displays, protocols,
# inventories, and radiotherapy but for its images.
_NO_IMAGE = re.compile(
    r"1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.(38|39|43|44|45)\.1|5\.1\.4\.1\.1\.(4\.2|9\..+|11\..+|"
    r"66(\..+)?|67|68\..+|78\..+|79\..+|80\..+|88\..+|90\..+|91\..+|104\..+|131|200\..+|201\..+|"
    r"481\.(?!(1|23|24)$).+))"
)
_GREY = {"MONOCHROME1", "MONOCHROME2"}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}

# Bytes that any file may inflate to, and how many times its size a larger one may: images with much
# background reach 20, a deflate bomb 1,000.
_INFLATED, _MOST_INFLATION = 16 << 20, 100
_UNDEFINED = 0xFFFFFFFF  # length of an element that ends with a delimiter, PS3.5 7.1.1
LARGEST = 1e30  # what a slope or window may be: no product with a 16-bit value overflows float32

_QUIET: ContextVar[bool] = ContextVar("_QUIET", default=False)
for _name in ("pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base"):
    # A filter, not a level: a program that uses pydicom for itself keeps its log.
    logging.getLogger(_name).addFilter(lambda _: not _QUIET.get())


@dataclass(frozen=True, slots=True)
class DicomImage:
    """The pixel description (PS3.3 C.7.6.3), checked; field names as pydicom's decoders want them."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    number_of_frames: int
    photometric_interpretation: str
    planar_configuration: int


def broken(reason: str) -> FileError:
    """Return a `decode_error` with this reason."""
    return FileError(Status.DECODE_ERROR, reason)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings inside the block, and turn its exceptions into a reason."""
    token = _QUIET.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pixels beyond Rows x Columns: pydicom would cut them off.
            warnings.filterwarnings("error", "The decoded RLE segment contains")
            yield
    except FileError:
        raise
    except Exception as error:  # hostile bytes may raise anything; its text may hold values
        if machine.is_machines(error):
            raise
        raise broken(f"not valid DICOM ({type(error).__name__})") from None
    finally:
        _QUIET.reset(token)


def read_part10(data: bytes, stop_behind: int | None = None) -> tuple[Dataset, uid.UID, str]:
    """Read data set, transfer syntax and SOP class; check the end unless `stop_behind` a tag."""
    if data[128:132] != b"DICM":
        raise FileError(
            Status.UNSUPPORTED, "a DICOM data set without its preamble: no DICM at byte 128"
        )
    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if stream.tell() == len(data):
        raise FileError(Status.TRUNCATED, "the file ends inside its header")
    syntax = uid.UID(text_of(meta, "TransferSyntaxUID"))
    if syntax not in _SYNTAXES:
        raise FileError(Status.UNSUPPORTED, f"a transfer syntax that is not read: {registered(syntax)}")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data = _inflate(data[stream.tell() :])
        stream = io.BytesIO(data)
    dataset = read_dataset(
        stream,
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=lambda tag, vr, length: stop_behind is not None and tag > stop_behind,
    )
    if stop_behind is None:
        _check_end(dataset, data)
    elif stream.tell() == len(data):
        raise FileError(Status.TRUNCATED, "the file ends inside its header")
    return dataset, syntax, text_of(meta, "MediaStorageSOPClassUID")


def _inflate(deflated: bytes) -> bytes:
    """Undo PS3.5 A.5, within limits: the one on a file's bytes, and what images deflate to."""
    most = min(MAX_BYTES, max(_INFLATED, _MOST_INFLATION * len(deflated)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(deflated, most)
    if inflater.unconsumed_tail:
        raise FileError(Status.TOO_LARGE, f"more than {most:,} bytes when inflated")
    # Some writers leave gzip's trailer, RFC 1952.
    trailer = struct.pack("<II", zlib.crc32(data), len(data))
    if not inflater.eof or inflater.unused_data.removeprefix(trailer).strip(b"\0"):
        raise FileError(Status.TRUNCATED, "the deflated content does not end where the file does")
    return data


def _check_end(dataset: Dataset, data: bytes) -> None:
    """Refuse a file that ends elsewhere than its last element; pydicom takes any end for clean."""
    places = {
        element.value_tell if isinstance(element, RawDataElement) else element.file_tell or 0: element
        for element in dataset.values()
    }
    end = max(places, default=0)
    last = places.get(end)
    if isinstance(last, RawDataElement):
        undefined = last.length == _UNDEFINED
        end += len(last.value or b"") + 8 if undefined else last.length
    else:  # a sequence of undefined length, which pydicom has parsed already
        end = max(map(data.rfind, (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd"))) + 8
    if end > len(data) or data[end:].strip(b"\0"):
        raise FileError(Status.TRUNCATED, "the file does not end where its content does")


def check_content(dataset: Dataset, kind: str) -> None:
    """Refuse (`FileError`) what holds no image that is read here; `kind` is its SOP class."""
    if _NO_IMAGE.fullmatch(kind) or "DirectoryRecordSequence" in dataset:
        raise FileError(Status.NOT_AN_IMAGE, f"it holds no image by design: {registered(kind)}")
    floats = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
    if "PixelData" not in dataset and "Rows" in dataset and not floats:
        raise FileError(Status.TRUNCATED, "the file ends before its pixels")
    if "PixelData" not in dataset:
        raise FileError(Status.UNSUPPORTED, f"it holds no picture: {registered(kind)}")


def registered(value: str) -> str:
    """Return a UID's registered name; an unregistered UID may contain anything."""
    name = uid.UID(value).name
    return "unknown" if name == value else name


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return an element's value, None if it is missing; a `FileError` names a malformed one."""
    try:
        return dataset.get(keyword)
    except (FileError, MemoryError):
        raise
    except Exception:  # pydicom converts values when they are asked for; its words may hold them
        raise broken(f"{keyword} is malformed: its value is not of its type") from None


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return an element's value as text without padding, "" if it is missing."""
    value = value_of(dataset, keyword)
    return "" if value is None else str(value).strip("\0 ")


def number_of(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an element's value as a whole number; raise `FileError` without it and a default."""
    value = value_of(dataset, keyword)
    value = default if value is None else value
    if not isinstance(value, int):
        raise broken(f"{keyword} is missing or not one whole number")
    return int(value)


def description(dataset: Dataset) -> DicomImage:
    """Return the pixel description; raise `FileError` if it contradicts itself or is unsupported."""
    photometric = text_of(dataset, "PhotometricInterpretation")
    if photometric not in _GREY | _COLOUR:
        raise FileError(Status.UNSUPPORTED, "not a MONOCHROME, RGB or YBR image")
    colour = photometric in _COLOUR
    image = DicomImage(
        rows=number_of(dataset, "Rows"),
        columns=number_of(dataset, "Columns"),
        samples_per_pixel=number_of(dataset, "SamplesPerPixel"),
        bits_allocated=number_of(dataset, "BitsAllocated"),
        bits_stored=number_of(dataset, "BitsStored"),
        pixel_representation=number_of(dataset, "PixelRepresentation"),
        number_of_frames=number_of(dataset, "NumberOfFrames", default=1),
        photometric_interpretation=photometric,
        planar_configuration=number_of(dataset, "PlanarConfiguration") if colour else 0,
    )
    bits, high = image.bits_stored, number_of(dataset, "HighBit")
    if image.bits_allocated not in (8, 16) or bits < 8:
        raise FileError(Status.UNSUPPORTED, f"{bits} bits in {image.bits_allocated}, not 8 to 16")
    if bits > image.bits_allocated or high != bits - 1:
        raise broken(f"{bits} bits in {image.bits_allocated} with high bit {high}")
    if image.samples_per_pixel != (3 if colour else 1):
        raise broken(
            f"SamplesPerPixel {image.samples_per_pixel} contradicts "
            f"PhotometricInterpretation {photometric}"
        )
    if not 0 <= image.pixel_representation <= (0 if colour else 1):
        raise broken("values neither unsigned nor signed, or signed colour")
    if image.planar_configuration not in (0, 1) or image.number_of_frames < 1:
        raise broken("a pixel description with impossible values")
    return image
