"""What an image file says of itself, read from its first bytes without decoding a pixel.

The magic bytes decide the format, never the extension; size and depth are known before any memory is
spent on pixels. Sources: ITU-T T.81 (JPEG) annex B, the PNG specification (third edition) section
11, TIFF revision 6.0 section 2, CIPA DC-008 (Exif) for the orientation tag, RFC 9649 (WebP), and
Microsoft's BITMAPINFOHEADER and BITMAPV5HEADER (BMP).
"""

import re
import struct
from collections.abc import Set
from dataclasses import dataclass

from tumorbatch.status import FileError, Status

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD})
# Every marker but padding, restarts and those without a length; none occurs in compressed data.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_ORIENTATION = 274
_TIFF_TAGS = frozenset({256, 257, 258, 259, 262, 273, 277, 279, 284, 324, 325, 338, _ORIENTATION})
# None, CCITT, LZW, JPEG, deflate, PackBits, LZMA, zstd, WebP: these libtiff reads, or says that it
# does not. Of others it gives nothing but zeros, and no error.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000, 50001})
_TIFF_TYPES = {1: (1, "B"), 3: (2, "H"), 4: (4, "I")}  # bytes, struct code
_MAX_TIFF_VALUES = 1 << 20  # one tag's; a million strips are more than any image has
_MAX_TIFF_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of the (first) image in a file.

    Attributes:
        format: "jpeg", "png", "tiff", "bmp", "webp" or "dicom".
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
        FileError: `unsupported` for anything but JPEG, PNG, TIFF, BMP and WebP; `truncated` when the
            bytes end before the image does; `decode_error` when the header contradicts itself.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:2] == b"BM" and data[6:10] == bytes(4):  # reserved: 0 in every BMP
            return _bmp(data)
    except (struct.error, IndexError) as error:
        raise FileError(Status.TRUNCATED, "the file ends inside its header") from error
    except ValueError as error:
        raise FileError(Status.DECODE_ERROR, str(error)) from error
    known = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"RIFF", b"BM")
    short = {b"RIFF": 12, b"BM": 10}.get(data[:4] if data[:1] == b"R" else data[:2], 0)
    if any(magic.startswith(data) for magic in known) or len(data) < short:
        raise FileError(Status.TRUNCATED, "the file ends inside its header")
    raise FileError(
        Status.UNSUPPORTED, "not a JPEG, PNG, TIFF, BMP, WebP or DICOM image, by its first bytes"
    )


def _jpeg(data: bytes) -> Header:
    at = 2
    frame = orientation = None
    # From marker to marker up to the end mark, across the compressed data: a decoder takes the zero
    # bytes that may stand in the place of a lost tail for pixels.
    while match := _JPEG_MARKER.search(data, at):
        at = match.end()
        marker = data[at - 1]
        if marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise ValueError("JPEG segment with an impossible length")
        if marker in _START_OF_FRAME and frame is None:
            frame = struct.unpack_from(">BHHB", data, at + 2)
        if marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0" and orientation is None:
            orientation = _orientation(data[at + 8 : at + length])
        at += length
    else:
        raise FileError(Status.TRUNCATED, "the JPEG ends before its end mark")
    if frame is None:
        raise ValueError("JPEG without a frame header")
    bits, height, width, channels = frame
    return Header("jpeg", width, height, bits, channels, orientation=orientation or 1)


def _orientation(exif: bytes) -> int | None:
    """1 to 8, or None where the Exif block does not say."""
    try:
        value = _first_directory(exif, {_ORIENTATION})[0][_ORIENTATION][0]
    except (struct.error, IndexError, KeyError, ValueError):
        return None  # a broken Exif block does not make the image unreadable
    return value if 1 <= value <= 8 else None


def _png(data: bytes) -> Header:
    length, name, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if length != 13 or name != b"IHDR" or colour not in _PNG_CHANNELS:
        raise ValueError("PNG with a broken header chunk")
    transparent = colour in (4, 6)
    orientation, pages = None, 1
    at = 8
    while True:  # every chunk must be there, up to the end mark
        if at + 12 > len(data):
            raise FileError(Status.TRUNCATED, "the PNG ends before its end mark")
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"tRNS":
            transparent = True
        if name == b"eXIf" and orientation is None:
            orientation = _orientation(data[at + 8 : at + 8 + size])
        if name == b"acTL":  # an animation
            pages = max(1, *struct.unpack_from(">I", data, at + 8))
        if name == b"IEND":
            break
        at += 12 + size
    return Header(
        "png",
        width,
        height,
        depth,
        _PNG_CHANNELS[colour],
        alpha=transparent,
        orientation=orientation or 1,
        pages=pages,
    )


def _byte_order(data: bytes) -> str:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("TIFF without a byte order")
    return order


def _first_directory(data: bytes, wanted: Set[int]) -> tuple[dict[int, tuple[int, ...]], int]:
    """The first TIFF image file directory: {wanted tag: its integers}, and where the next one is.

    What is not wanted is not read: a small file can hold thousands of tags that all claim to have
    the whole file for values.
    """
    order = _byte_order(data)
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if tag not in wanted or tag in tags or kind not in _TIFF_TYPES:
            continue
        size, code = _TIFF_TYPES[kind]
        size *= number
        where = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if where + size > len(data):
            raise IndexError("TIFF values beyond the end of the file")
        if number > _MAX_TIFF_VALUES:
            raise ValueError(f"TIFF tag {tag} with {number:,} values")
        tags[tag] = struct.unpack_from(f"{order}{number}{code}", data, where)
    (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    return tags, following


def _later_pages(data: bytes, following: int) -> list[int]:
    """Where the directories behind the first lie, whose chain goes on at `following`."""
    order = _byte_order(data)
    found: list[int] = []
    seen = set()
    while following and following not in seen and len(found) + 1 < _MAX_TIFF_PAGES:
        seen.add(following)
        at = following
        try:
            (count,) = struct.unpack_from(order + "H", data, at)
            (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
        except struct.error:
            break  # a broken later page must not cost the first one
        found.append(at)
    return found


def tiff_page(data: bytes, index: int) -> tuple[bytes, int]:
    """The same TIFF with another page first, and how many pages it has in all.

    Only the offset in its header is changed.

    Raises:
        FileError: There is no such page.
    """
    try:
        order = _byte_order(data)
        (at,) = struct.unpack_from(order + "I", data, 4)
        _, following = _first_directory(data, frozenset())
        offsets = [at, *_later_pages(data, following)]
        return data[:4] + struct.pack(order + "I", offsets[index]) + data[8:], len(offsets)
    except (ValueError, IndexError, struct.error) as error:
        raise FileError(Status.DECODE_ERROR, f"it has no page {index + 1}") from error


def _tiff(data: bytes) -> Header:
    tags, following = _first_directory(data, _TIFF_TAGS)

    def first(tag: int, default: int) -> int:
        return (tags.get(tag) or (default,))[0]

    width, height = first(256, 0), first(257, 0)
    if not (width and height):
        raise ValueError("TIFF without a width or height")
    for offsets, counts in ((273, 279), (324, 325)):  # strips, tiles
        for start, size in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False):
            if start + size > len(data):
                raise FileError(Status.TRUNCATED, "the TIFF ends before its pixels do")
    if first(259, 1) not in _TIFF_COMPRESSIONS:
        raise FileError(
            Status.UNSUPPORTED, f"a TIFF with compression {first(259, 1)}: save it with LZW or as PNG"
        )
    depth = max(tags.get(258) or (1,))
    channels = first(277, 1)
    photometric = first(262, 1)
    # OpenCV takes the values of these two for something else, and says nothing.
    if depth > 8 and photometric == 0:
        raise FileError(Status.UNSUPPORTED, "a TIFF of more than 8 bits in which 0 is white")
    if depth > 8 and channels > 1 and first(284, 1) == 2:
        raise FileError(Status.UNSUPPORTED, "a TIFF of more than 8 bits with a plane for each channel")
    orientation = first(_ORIENTATION, 1)
    return Header(
        "tiff",
        width,
        height,
        depth,
        channels,
        # As libtiff has it, a fourth channel beside RGB is alpha even where nothing says so.
        alpha=bool(tags.get(338)) or (photometric == 2 and channels > 3),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        pages=1 + len(_later_pages(data, following)),
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
            orientation = _orientation(body.removeprefix(b"Exif\0\0"))
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
