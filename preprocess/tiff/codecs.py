"""What TIFF's strips and tiles are compressed with (TIFF 6.0 sections 9, 13 and technical note 2).

Each decoder raises where libtiff would complain, and where it would not: at data that are too long.
Only deflate has a checksum; a damaged LZW or PackBits strip mostly has another length than its pixels.
"""

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Decoder = Callable[[bytes, int], bytes]

_CLEAR, _END, _FIRST = 256, 257, 258  # LZW: the codes without a meaning, and the first string's
# A code has one bit more from the table's 511th, 1023rd and 2047th entry on. Writers start a new table
# at the 4094th; libtiff allows for some that are late.
_WIDTHS = np.repeat([9, 10, 11, 12], [254, 512, 1024, 3072])
_STARTS = np.concatenate([[0], np.cumsum(_WIDTHS)])
_MARGIN = 4  # zero bytes after the data: the last code is read from three bytes


class DamageError(Exception):
    """What is wrong with a strip's or a tile's compressed data."""


def no_compression(data: bytes, most: int) -> bytes:
    """Return the data themselves; writers pad strips, and what is too long is ignored."""
    return data[:most]


def inflate(data: bytes, most: int) -> bytes:
    """Undo deflate (zlib, RFC 1950), its checksum included.

    Args:
        data: Compressed bytes; data after the stream's end is ignored.
        most: How many bytes it may hold.

    Raises:
        DamageError: It is not whole, or holds more.
    """
    inflater = zlib.decompressobj()
    try:
        pixels = inflater.decompress(data, most + 1)
        if not inflater.eof:  # the checksum is still to be read
            pixels += inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise DamageError("it does not inflate") from error
    if len(pixels) > most:
        raise DamageError(f"it holds more than its {most:,} bytes of pixels")
    if not inflater.eof:
        raise DamageError("its compressed data have no end")
    return pixels


def unpack_bits(data: bytes, most: int) -> bytes:
    """Undo PackBits; see `inflate`."""
    pixels = bytearray()
    at = 0
    while at < len(data) and len(pixels) < most:
        count = data[at]
        if count < 128:  # so many bytes, and one more, as they are
            pixels += data[at + 1 : at + 2 + count]
            if at + 2 + count > len(data):
                raise DamageError("its compressed data end too early")
            at += 2 + count
        elif count > 128:  # the next byte, repeated
            pixels += data[at + 1 : at + 2] * (257 - count)
            at += 2
        else:
            at += 1
    if len(pixels) > most:
        raise DamageError(f"it holds more than its {most:,} bytes of pixels")
    return bytes(pixels)


def unpack_lzw(data: bytes, most: int) -> bytes:
    """Undo LZW; see `inflate`.

    Where the codes of a table lie is known as soon as it is known where the table begins, so all are
    read at once, and all their strings written at once.
    """
    if data[:1] == b"\0" and data[1:2] and data[1] & 1:
        raise DamageError("its LZW codes are written in the order of before TIFF 5")
    padded = np.frombuffer(data + bytes(_MARGIN), np.uint8).astype(np.uint32)
    bits = 8 * len(data)
    parts: list[NDArray[np.uint8]] = []
    length = at = 0
    while length < most:
        codes = _codes(padded, at, bits)
        special = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        count = int(special[0]) if special.size else codes.size
        if count:
            part = _strings(codes[:count])
            parts.append(part)
            length += part.size
        if not special.size or codes[count] == _END:
            break
        at += int(_STARTS[count + 1])
    if length > most:
        raise DamageError(f"it holds more than its {most:,} bytes of pixels")
    return b"".join(part.tobytes() for part in parts)


def _codes(padded: NDArray[np.uint32], at: int, bits: int) -> NDArray[np.int64]:
    """Read the codes of one table from a bit on, as many as there may be."""
    count = int(np.searchsorted(_STARTS, bits - at, side="right")) - 1
    widths = _WIDTHS[: max(count, 0)]
    start = at + _STARTS[: widths.size]
    byte = start >> 3
    word = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
    return np.asarray(word.astype(np.int64) >> (24 - widths - (start & 7)) & ((1 << widths) - 1))


def _strings(codes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Write the strings of one table's codes [count], none of which is special.

    Code 258 + k means the string of the k-th code and the first byte of the next string: for what
    lies in the output from where the k-th string begins up to one byte into the next one.
    """
    entry = codes - _FIRST
    defined = entry >= 0
    places = np.arange(codes.size)
    if np.any(entry >= places):
        raise DamageError("its LZW table is corrupt")
    # A string is one byte longer than the one it is made of: count the steps down to a single byte.
    parent = np.where(defined, entry, places)
    lengths = 1 + _depth(parent)
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    begins = ends - lengths
    # Each byte is a copy of an earlier one, or its own code.
    source = np.arange(total) - np.repeat(np.where(defined, begins - begins[parent], 0), lengths)
    while True:
        further = source[source]
        if np.array_equal(further, source):
            break
        source = further
    single = np.zeros(total, np.uint8)
    single[begins[~defined]] = codes[~defined]
    return np.asarray(single[source])


def _depth(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the steps from each place to the one that is its own parent, twice as far each time."""
    steps: NDArray[np.int64] = (parent != np.arange(parent.size)).astype(np.int64)
    while True:
        further = steps[parent]
        if not further.any():
            return steps
        steps = steps + further
        parent = parent[parent]


DECODERS: dict[int, Decoder] = {
    1: no_compression,
    5: unpack_lzw,
    8: inflate,
    32773: unpack_bits,
    32946: inflate,
}
