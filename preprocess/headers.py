"""What an image file says of itself, read from its first bytes without decoding a pixel.

The magic bytes decide the format, never the extension; size and depth are known before any memory is
spent on pixels. JPEG, PNG and TIFF have modules of their own. Sources of the others: RFC 9649 (WebP),
and Microsoft's BITMAPINFOHEADER and BITMAPV5HEADER (BMP).
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tumorbatch.preprocess import jpeg, nifti, png
from tumorbatch.preprocess.exif import orientation_of
from tumorbatch.preprocess.image import Header
from tumorbatch.preprocess.tiff import header as tiff
from tumorbatch.preprocess.tiff.directory import directories
from tumorbatch.status import FileError, Status

# Formats of volumes that other programs can convert, by their first bytes.
_VOLUMES: dict[str, Callable[[bytes], bool]] = {
    "NRRD": lambda data: data.startswith(b"NRRD000"),
    "MetaImage (MHA, MHD)": lambda data: data.startswith((b"ObjectType", b"NDims")),
}


@contextmanager
def described() -> Iterator[None]:
    """Turn errors while reading a header into a file's status and reason."""
    try:
        yield
    except (struct.error, IndexError) as error:
        raise FileError(Status.TRUNCATED, "the file ends inside its header") from error
    except ValueError as error:
        raise FileError(Status.DECODE_ERROR, str(error)) from error


def format_of(data: bytes) -> str | None:
    """Return which of the formats a file is in, by its first bytes; None: none, DICOM apart."""
    if data.startswith(jpeg.MAGIC):
        return "jpeg"
    if data.startswith(png.MAGIC):
        return "png"
    if data[:4] in tiff.MAGICS:
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and data[6:10] == bytes(4):  # reserved: 0 in every BMP
        return "bmp"
    return "nifti" if nifti.is_nifti(data) else None


def read_header(data: bytes) -> Header:
    """Read the header of a whole file's bytes.

    Raises:
        FileError: `unsupported` for anything but JPEG, PNG, TIFF, BMP and WebP; `truncated` when the
            bytes end before the image does; `decode_error` when the header contradicts itself.
    """
    name = format_of(data)
    with described():
        if name == "tiff":
            return tiff.read_header(data, directories(data))[0]
        if name is not None:
            readers = {"jpeg": jpeg.read_header, "png": png.read_header, "webp": _webp, "bmp": _bmp}
            return readers[name](data)
    magics = (jpeg.MAGIC, png.MAGIC, *tiff.MAGICS, b"RIFF", b"BM")
    short = {b"RIFF": 12, b"BM": 10}.get(data[:4] if data[:1] == b"R" else data[:2], 0)
    if any(magic.startswith(data) for magic in magics) or len(data) < short:
        raise FileError(Status.TRUNCATED, "the file ends inside its header")
    for name, is_of_it in _VOLUMES.items():
        if is_of_it(data):
            raise FileError(
                Status.UNSUPPORTED,
                f"{name} is not read: save it as NIfTI (.nii.gz), as 3D Slicer and SimpleITK do",
            )
    raise FileError(
        Status.UNSUPPORTED, "not a JPEG, PNG, TIFF, BMP, WebP, DICOM or NIfTI image, by its first bytes"
    )


def _bmp(data: bytes) -> Header:
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:  # OS/2
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif header_size >= 40:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
        height = abs(height)  # negative: the first row is the top one
    else:
        raise ValueError(f"BMP with a header of {header_size} bytes")
    if width <= 0 or height == 0:
        raise ValueError("BMP without a width or height")
    masks = struct.unpack_from("<4I", data, 54) if compression == 3 else (0xFF0000, 0xFF00, 0xFF, 0)
    if depth not in (1, 4, 8, 24, 32) or masks[:3] != (0xFF0000, 0xFF00, 0xFF):
        raise FileError(
            Status.UNSUPPORTED,
            f"a BMP of {depth} bits a pixel or with odd masks: save it as PNG",
        )
    if compression not in (0, 3):
        raise FileError(Status.UNSUPPORTED, "a compressed BMP: save it as PNG")
    row = (width * depth + 31) // 32 * 4
    if offset + row * height > len(data):
        raise FileError(Status.TRUNCATED, "the BMP ends before its pixels do")
    alpha = compression == 3 and header_size >= 56 and masks[3] != 0
    return Header("bmp", width, height, min(depth, 8), {24: 3, 32: 4}.get(depth, 1), alpha=alpha)


def _webp(data: bytes) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise FileError(Status.TRUNCATED, "the WebP ends before its size says")
    width = height = frames = 0
    alpha, orientation = False, None
    at = 12
    while at + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if at + 8 + size > end:
            raise FileError(Status.TRUNCATED, "the WebP ends inside a chunk")
        if name == b"VP8X":
            alpha = bool(body[0] & 0x10)
            width, height = (1 + int.from_bytes(body[k : k + 3], "little") for k in (4, 7))
        elif name == b"VP8 " and not width:
            if body[3:6] != b"\x9d\x01\x2a":
                raise ValueError("WebP without its start code")
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        elif name == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", body, 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
            alpha = bool(bits >> 28 & 1)
        elif name == b"ANMF":
            frames += 1
        elif name == b"EXIF":
            orientation = orientation_of(body.removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    if not (width and height):
        raise ValueError("WebP without an image")
    return Header(
        "webp",
        width,
        height,
        8,
        4 if alpha else 3,
        alpha=alpha,
        orientation=orientation or 1,
        pages=max(1, frames),
    )
