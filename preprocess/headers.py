"""What an image file says of itself, read from its first bytes without decoding a pixel.

The magic bytes decide the format, never the extension; size and depth are known before any memory is
spent on pixels. Sources: ITU-T T.81 (JPEG) annex B, the PNG specification (third edition) section
11, TIFF revision 6.0 section 2, CIPA DC-008 (Exif) for the orientation tag.
"""

import struct
from dataclasses import dataclass

from tumorbatch.status import FileError, Status

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD})
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_MAX_TIFF_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of the (first) image in a file.

    Attributes:
        format: "jpeg", "png" or "tiff".
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


def read_header(data: bytes) -> Header:
    """Parse the header of a whole file's bytes.

    Raises:
        FileError: `unsupported` for anything but JPEG, PNG and TIFF; `truncated` when the bytes end
            before the image does; `decode_error` when the header contradicts itself.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
    except (struct.error, IndexError) as error:
        raise FileError(Status.TRUNCATED, "the file ends inside its header") from error
    except ValueError as error:
        raise FileError(Status.DECODE_ERROR, str(error)) from error
    for known in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*"):
        if known.startswith(data):
            raise FileError(Status.TRUNCATED, "the file ends inside its header")
    raise FileError(Status.UNSUPPORTED, "not a JPEG, PNG or TIFF image, by its first bytes")


def _jpeg(data: bytes) -> Header:
    at = 2
    orientation = 1
    while True:
        if data[at] != 0xFF:
            raise ValueError("JPEG marker missing")
        while data[at] == 0xFF:  # any number of fill bytes may stand before a marker
            at += 1
        marker = data[at]
        at += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker in (0xD9, 0xDA):
            raise ValueError("JPEG without a frame header")
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise ValueError("JPEG segment with an impossible length")
        if marker in _START_OF_FRAME:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 2)
            return Header("jpeg", width, height, bits, channels, orientation=orientation)
        if marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _orientation(data[at + 8 : at + length])
        at += length


def _orientation(exif: bytes) -> int:
    try:
        value = _first_directory(exif)[0].get(0x0112, (1,))[0]
    except (struct.error, IndexError, ValueError):
        return 1  # a broken Exif block does not make the image unreadable
    return value if 1 <= value <= 8 else 1


def _png(data: bytes) -> Header:
    length, name, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if length != 13 or name != b"IHDR" or colour not in _PNG_CHANNELS:
        raise ValueError("PNG with a broken header chunk")
    transparent = colour in (4, 6)
    at = 8
    while True:  # every chunk must be there, up to the end mark
        if at + 12 > len(data):
            raise FileError(Status.TRUNCATED, "the PNG ends before its end mark")
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"tRNS":
            transparent = True
        if name == b"IEND":
            break
        at += 12 + size
    return Header("png", width, height, depth, _PNG_CHANNELS[colour], alpha=transparent)


def _first_directory(data: bytes, at: int | None = None) -> tuple[dict[int, tuple[int, ...]], int]:
    """One TIFF image file directory: {tag: integer values}, offset of the next directory or 0."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("TIFF without a byte order")
    if at is None:
        (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        size = _TIFF_SIZES.get(kind, 0) * number
        code = {1: "B", 3: "H", 4: "I"}.get(kind)
        if code is None:
            continue
        where = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if where + size > len(data):
            raise IndexError("TIFF values beyond the end of the file")
        tags[tag] = struct.unpack_from(f"{order}{number}{code}", data, where)
    (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    return tags, following


def _tiff(data: bytes) -> Header:
    tags, following = _first_directory(data)
    try:
        width, height = tags[256][0], tags[257][0]
    except (KeyError, IndexError) as error:
        raise ValueError("TIFF without a width or height") from error
    for offsets, counts in ((273, 279), (324, 325)):  # strips, tiles
        for start, size in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False):
            if start + size > len(data):
                raise FileError(Status.TRUNCATED, "the TIFF ends before its pixels do")
    pages, seen = 1, set()
    while following and following not in seen and pages < _MAX_TIFF_PAGES:
        seen.add(following)
        try:
            _, following = _first_directory(data, following)
        except (struct.error, IndexError, ValueError):
            break  # only the first page is used; a broken later one must not cost it
        pages += 1
    depth = max(tags.get(258, (1,)) or (1,))
    channels = (tags.get(277) or (1,))[0]
    orientation = (tags.get(274) or (1,))[0]
    return Header(
        "tiff",
        width,
        height,
        depth,
        channels,
        alpha=bool(tags.get(338)),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        pages=pages,
    )
