"""PNG: chunks whose checksums hold, to grey values.

libpng lets some damage pass as a warning, and makes colour grey in linear light where a gAMA or sRGB
chunk stands. So the pixels' compressed data are checked here, and libpng gets a PNG of what decides the
samples and nothing else. Source: the PNG specification (third edition), sections 5, 7, 8 and 11.
"""

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.preprocess.exif import orientation_of
from tumorbatch.preprocess.image import Header
from tumorbatch.status import FileError, Status

MAGIC = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PALETTE = 3
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Adam7: first column, first row, step between columns, step between rows.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE = 1 << 20  # bytes inflated at once, only to be counted


def read_header(data: bytes) -> Header:
    """Read what a PNG says of itself.

    Raises:
        FileError: `truncated` where it ends before its end mark.
        ValueError: Its header chunk is broken.
        struct.error: It ends inside its header chunk.
    """
    length, name, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if length != 13 or name != b"IHDR" or colour not in _CHANNELS:
        raise ValueError("PNG with a broken header chunk")
    transparent = colour in (4, 6)
    orientation, pages = None, 1
    for name, start, end in _chunks(data):
        # With a wrong checksum they are skipped, as libpng does.
        if name not in (b"tRNS", b"eXIf", b"acTL") or not _is_whole(data, start, end):
            continue
        body = data[start:end]
        if name == b"tRNS":
            transparent = True
        if name == b"eXIf" and orientation is None:
            orientation = orientation_of(body)
        if name == b"acTL":  # an animation
            pages = max(1, *struct.unpack_from(">I", body))
    return Header(
        "png",
        width,
        height,
        depth,
        _CHANNELS[colour],
        alpha=transparent,
        orientation=orientation or 1,
        pages=pages,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, and where the content begins and ends, of the chunks up to the end mark."""
    at = 8
    name = b""
    while name != b"IEND":
        if at + 12 > len(data):
            raise FileError(Status.TRUNCATED, "the PNG ends before its end mark")
        size, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + size
        if end + 4 > len(data):
            raise FileError(Status.TRUNCATED, "the PNG ends before its end mark")
        yield name, at + 8, end
        at = end + 4


def _is_whole(data: bytes, start: int, end: int) -> bool:
    """Whether a chunk's checksum holds; it covers the name too."""
    (checksum,) = struct.unpack_from(">I", data, end)
    return zlib.crc32(memoryview(data)[start - 4 : end]) == int(checksum)


def _is_critical(name: bytes) -> bool:
    """Return whether the image needs the chunk: its name starts with an upper-case letter."""
    return not name[0] & 0x20


def decode_png(data: bytes, header: Header) -> NDArray[np.generic]:
    """Decode the (default) image of a PNG; transparency is dropped, no orientation is applied.

    Returns:
        Luma, uint8 or uint16 [height, width]; fewer than 8 bits span 0 to 255.

    Raises:
        FileError: `decode_error` where it is damaged, though libpng would show some of its pixels;
            `unsupported` where it asks for what is not known.
    """
    chunks: list[tuple[bytes, bytes]] = []
    for name, begin, end in _chunks(data):
        if not _is_critical(name):
            continue
        if not _is_whole(data, begin, end):
            raise FileError(Status.DECODE_ERROR, "the PNG is damaged: a chunk's checksum is wrong")
        if name not in _CRITICAL:
            raise FileError(Status.UNSUPPORTED, "a PNG with a critical chunk that is not known")
        chunks.append((name, data[begin:end]))
    start = next(body for name, body in chunks if name == b"IHDR")
    compressed = [body for name, body in chunks if name == b"IDAT"]
    colour, interlaced = start[9], start[12]
    _check_content(compressed, _bytes_of(header, colour, bool(interlaced)))
    if colour == _PALETTE:
        palette = next((body for name, body in chunks if name == b"PLTE"), b"")
        indices = _by_libpng(start[:9] + b"\0" + start[10:], compressed)
        return _coloured(indices, palette, header.bit_depth)
    return _by_libpng(start, compressed)


def _bytes_of(header: Header, colour: int, interlaced: bool) -> int:
    """Return the number of bytes of the filtered rows, each with its filter's number in front."""
    bits = header.bit_depth * _CHANNELS[colour]
    total = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns = (header.width - left + across - 1) // across
        rows = (header.height - top + down - 1) // down
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    return total


def _check_content(compressed: list[bytes], size: int) -> None:
    """Refuse compressed data that are damaged, or not as long as the image."""
    inflater = zlib.decompressobj()
    length = 0
    try:
        for piece in compressed:
            while piece and length <= size:
                length += len(inflater.decompress(piece, _PIECE))
                piece = inflater.unconsumed_tail
    except zlib.error as error:
        raise FileError(Status.DECODE_ERROR, "the PNG is damaged: its pixels do not inflate") from error
    if not inflater.eof and length <= size:
        raise FileError(Status.DECODE_ERROR, "the PNG is damaged: its compressed pixels have no end")
    if length != size:
        raise FileError(
            Status.DECODE_ERROR, f"{length:,} bytes of pixels in a PNG; its header asks for {size:,}"
        )


def _by_libpng(start: bytes, compressed: list[bytes]) -> NDArray[np.generic]:
    parts = [(b"IHDR", start), *((b"IDAT", piece) for piece in compressed), (b"IEND", b"")]
    plain = MAGIC + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    image = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise FileError(Status.DECODE_ERROR, "libpng cannot decode this PNG")
    return image


def _coloured(indices: NDArray[np.generic], palette: bytes, depth: int) -> NDArray[np.uint8]:
    """Return luma of a palette's colours, rounded as libpng does."""
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).astype(np.int64)
    if depth < 8:  # libpng has spread them over 0..255
        indices = np.asarray(indices) // (255 // (2**depth - 1))
    if int(np.max(indices)) >= len(colours):
        raise FileError(Status.DECODE_ERROR, "a PNG with pixels of colours that its palette has not")
    luma = colours @ np.array([9797, 19235, 3736]) >> 15
    return np.asarray(luma.astype(np.uint8)[indices])
