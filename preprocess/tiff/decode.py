"""A TIFF's page to numbers: every strip and tile whole, or an error.

libtiff shows zeros, or what lay in memory, where a strip is damaged, short or was never written. So the
strips are read here, each with its length checked before and after it is unpacked.
"""

import itertools
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.preprocess.image import luma
from tumorbatch.preprocess.jpeg import decode_jpeg, read_frame, with_colour_transform
from tumorbatch.preprocess.tiff import fax
from tumorbatch.preprocess.tiff.codecs import DECODERS, DamageError
from tumorbatch.preprocess.tiff.header import CMYK, JPEG, PALETTE, RGB, YCBCR, Page, byte_size
from tumorbatch.status import FileError, Status

Array = NDArray[Any]

_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_HEADER_BYTES = 8
_MOST_BYTES = 1 << 30  # of all samples of a page: 64 million pixels in RGBA of 32 bits


def decode_page(data: bytes, page: Page) -> Array:
    """Decode one page; transparency is dropped, no orientation is applied.

    Returns:
        Grey or luma [height, width] in the page's own type; fewer than 8 bits span 0 to 255. Small is
        bright where `page.white_is_zero`.

    Raises:
        FileError: `truncated` where strips or tiles are missing or too short, `decode_error` where they
            are damaged or lie upon each other.
    """
    pixels = _samples(data, page)
    if page.photometric == PALETTE:
        return _coloured(pixels[..., 0], page)
    if page.photometric == CMYK:
        inks = 255 - pixels[..., :4].astype(np.float64)
        return np.asarray(np.rint(luma(inks[..., :3] * inks[..., 3:] / 255)), np.uint8)
    if page.photometric in (RGB, YCBCR):  # JPEG's YCbCr has become RGB
        return luma(pixels[..., :3])
    grey = pixels[..., 0]
    return grey * np.uint8(255 // (2**page.bits - 1)) if page.bits < 8 else grey


def _samples(data: bytes, page: Page) -> Array:
    """Return all samples: [height, width, samples]."""
    rows, columns = page.segment
    down, across = -(-page.height // rows), -(-page.width // columns)
    planes = page.samples if page.planes else 1
    size = page.height * page.width * page.samples * page.dtype.itemsize
    if size > _MOST_BYTES:
        raise FileError(Status.TOO_LARGE, f"{size:,} bytes of samples; the limit is {_MOST_BYTES:,}")
    pieces = _pieces(data, page, down * across * planes)
    pixels = np.empty((page.height, page.width, page.samples), page.dtype)
    for number in range(down * across * planes):
        plane, place = divmod(number, down * across)
        top, left = place // across * rows, place % across * columns
        # Tiles are whole also where they reach beyond the image; writers may pad the last strip.
        least = rows if across > 1 or columns != page.width else min(rows, page.height - top)
        try:
            piece = _decoded(pieces[number], page, least, rows, columns)
        except (DamageError, FileError, ValueError, struct.error) as error:
            reason = f"strip or tile {number + 1} is damaged: {error}"
            raise FileError(Status.DECODE_ERROR, reason) from error
        into = pixels[top : top + rows, left : left + columns]
        piece = piece[: into.shape[0], : into.shape[1]]
        if page.planes:
            into[..., plane] = piece[..., 0]
        else:
            into[:] = piece
    return pixels


def _pieces(data: bytes, page: Page, size: int) -> list[bytes]:
    """Return the bytes of each strip or tile; all must exist, and none may overlap."""
    rows, columns = page.segment
    whole = byte_size(page, rows, columns)
    counts = page.counts
    if not counts and page.compression == 1:  # old writers left them out
        counts = tuple(min(whole, len(data) - start) for start in page.offsets)
    if min(len(page.offsets), len(counts)) < size:
        raise FileError(
            Status.TRUNCATED,
            f"{min(len(page.offsets), len(counts))} strips or tiles; its size asks for {size}",
        )
    ranges = list(zip(page.offsets[:size], counts[:size], strict=True))
    for number, (start, count) in enumerate(ranges, 1):
        if start <= 0 or count <= 0:
            raise FileError(Status.TRUNCATED, f"strip or tile {number} of {size} was never written")
        if start < _HEADER_BYTES or start + count > len(data):
            raise FileError(Status.DECODE_ERROR, f"strip or tile {number} is not where the TIFF says")
    if page.compression == 1:  # what is longer than its pixels is padding, often a wrong count
        ranges = [(start, min(count, whole)) for start, count in ranges]
    ordered = sorted(set(ranges))  # equal ones may share their bytes
    for (start, count), (following, _) in itertools.pairwise(ordered):
        if start + count > following:
            raise FileError(Status.DECODE_ERROR, "strips or tiles overlap")
    pieces = [data[start : start + count] for start, count in ranges]
    return [piece.translate(_REVERSED) for piece in pieces] if page.lowest_bit_first else pieces


def _decoded(piece: bytes, page: Page, least: int, rows: int, columns: int) -> Array:
    """Decode one strip or tile: [from `least` up to `rows`, columns, samples of a plane]."""
    if page.compression == JPEG:
        return _from_jpeg(piece, page, least, rows, columns)
    if page.compression in fax.COMPRESSIONS:
        content = fax.unpack_fax(piece, page.compression, page.both_ways, least, columns)
    else:
        content = DECODERS[page.compression](piece, byte_size(page, rows, columns))
    size, a_row = byte_size(page, least, columns), byte_size(page, 1, columns)
    if len(content) < size:
        raise DamageError(f"{len(content):,} of {size:,} bytes")
    if page.photometric == YCBCR:
        return _luma_of_units(content[:size], page.unit, least, columns)
    lines = np.frombuffer(content, np.uint8)
    lines = lines[: len(content) // a_row * a_row].reshape(-1, a_row)
    samples = 1 if page.planes else page.samples
    if page.bits < 8:
        bits = np.unpackbits(lines, axis=1)[:, : columns * page.bits].reshape(-1, columns, page.bits)
        return np.packbits(bits, axis=2) >> (8 - page.bits)
    if page.predictor == 3:
        return _without_float_differences(lines, page.dtype, samples)
    kind = page.dtype.newbyteorder(page.order)
    if page.predictor == 2:
        whole = lines.view(f"{page.order}u{page.dtype.itemsize}").reshape(-1, columns, samples)
        native = np.cumsum(whole, axis=1, dtype=f"u{page.dtype.itemsize}")
        return native.view(page.dtype)
    return lines.view(kind).reshape(-1, columns, samples)


def _luma_of_units(content: bytes, unit: tuple[int, int], rows: int, columns: int) -> NDArray[np.uint8]:
    """Return Y of YCbCr [rows, columns, 3], the same value for red, green and blue.

    It is luma already. Each unit holds Y of some pixels down and across, then one Cb and one Cr.
    """
    down, across = unit
    units = np.frombuffer(content, np.uint8).reshape(-1, -(-columns // across), down * across + 2)
    luma_of_pixels = units[..., :-2].reshape(*units.shape[:2], down, across).transpose(0, 2, 1, 3)
    whole = luma_of_pixels.reshape(units.shape[0] * down, units.shape[1] * across)
    return np.repeat(whole[:rows, :columns, np.newaxis], 3, axis=2)


def _without_float_differences(
    lines: NDArray[np.uint8], dtype: "np.dtype[np.generic]", samples: int
) -> Array:
    """Undo predictor 3: in a row first all first bytes lie, then all second ones, as differences."""
    size = dtype.itemsize
    summed = np.cumsum(lines.reshape(len(lines), -1, samples), axis=1, dtype=np.uint8)
    by_value = summed.reshape(len(lines), size, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(by_value).view(dtype.newbyteorder(">")).reshape(len(lines), -1, samples)


def _from_jpeg(piece: bytes, page: Page, least: int, rows: int, columns: int) -> Array:
    """Decode one strip or tile that is a JPEG without tables; like libtiff, ignore its markers."""
    stream = b"\xff\xd8" + page.tables[2:-2] + piece[2:]
    samples = 1 if page.planes else page.samples
    if samples == 3:
        stream = with_colour_transform(stream, page.photometric == YCBCR)
    frame = read_frame(stream)
    if frame.components != samples or frame.width != columns or not least <= frame.height <= rows:
        raise DamageError("its JPEG has another size than the strip or tile")
    pixels, _ = decode_jpeg(stream, samples, grey=False)
    return np.reshape(pixels, (frame.height, columns, samples))


def _coloured(indices: Array, page: Page) -> NDArray[np.uint8]:
    """Return luma of a palette's colours, of which libtiff shows 8 bits."""
    colours = np.array(page.colours, np.int64)
    if colours.size != 3 * 2**page.bits:
        raise FileError(Status.DECODE_ERROR, "a TIFF whose palette is not as long as its bits ask for")
    if colours.max() > 255:  # some writers give 8 bits
        colours >>= 8
    table = luma(colours.reshape(1, 3, -1).transpose(0, 2, 1).astype(np.uint8))[0]
    return np.asarray(table[indices], np.uint8)
