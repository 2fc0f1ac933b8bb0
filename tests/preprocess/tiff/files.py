"""TIFF files of every kind, built strip by strip, so that single strips can be damaged."""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tags = dict[int, tuple[int, Sequence[int]]]

NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946
_CODES = {1: "B", 3: "H", 4: "I", 7: "B"}


def lzw(data: bytes) -> bytes:
    """Compress as TIFF 6.0 section 13 tells a writer to."""
    table = {bytes([value]): value for value in range(256)}
    codes = [(256, 9)]
    string, width, following = b"", 9, 258
    for value in data:
        longer = string + bytes([value])
        if longer in table:
            string = longer
            continue
        codes.append((table[string], width))
        table[longer], following = following, following + 1
        width = max(width, (following).bit_length())
        string = bytes([value])
        if following == 4094:
            codes.append((256, width))
            table = {bytes([value]): value for value in range(256)}
            width, following = 9, 258
    if string:
        codes.append((table[string], width))
        width = max(width, (following + 1).bit_length())
    codes.append((257, width))
    bits = "".join(f"{code:0{size}b}" for code, size in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def pack_bits(data: bytes) -> bytes:
    """Compress as TIFF 6.0 section 9 tells, runs of three and more apart from what is not alike."""
    packed, at = bytearray(), 0
    while at < len(data):
        run = 1
        while run < 128 and data[at : at + 1] == data[at + run : at + run + 1]:
            run += 1
        if run > 2:
            packed += bytes([257 - run, data[at]])
            at += run
            continue
        end = at
        while end < len(data) and end - at < 128 and len(set(data[end : end + 3])) > 1:
            end += 1
        end = max(end, at + 1)
        packed += bytes([end - at - 1]) + data[at:end]
        at = end
    return bytes(packed)


COMPRESS: dict[int, Callable[[bytes], bytes]] = {
    NONE: bytes,
    LZW: lzw,
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    PACKBITS: pack_bits,
}


def _differences(piece: Array, predictor: int) -> Array:
    """Undone by a reader (TIFF 6.0 section 14, technical note 3): [rows, columns, samples]."""
    if predictor == 3:
        rows, columns, samples = piece.shape
        size = piece.dtype.itemsize
        big = piece.astype(piece.dtype.newbyteorder(">")).reshape(rows, columns * samples)
        planes = big.view(np.uint8).reshape(rows, columns * samples, size).transpose(0, 2, 1)
        piece = planes.reshape(rows, size * columns, samples)
    else:
        piece = piece.view(f"u{piece.dtype.itemsize}")
    first = np.zeros_like(piece[:, :1])
    return np.diff(piece, axis=1, prepend=first)


def strips_of(
    pixels: Array,
    compression: int = NONE,
    order: str = "<",
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    planes: bool = False,
    predictor: int = 1,
) -> list[bytes]:
    """Compressed strips, or tiles of that height and width, of [height, width, samples]."""
    height, width, _ = pixels.shape
    down, across = tile or (rows or height, width)
    pieces = []
    for plane in range(pixels.shape[2]) if planes else (slice(None),):
        for top in range(0, height, down):
            for left in range(0, width, across):
                piece = pixels[top : top + down, left : left + across, plane]
                piece = np.ascontiguousarray(piece.reshape(*piece.shape[:2], -1))
                if tile:
                    lack = (down - piece.shape[0], across - piece.shape[1])
                    piece = np.pad(piece, ((0, lack[0]), (0, lack[1]), (0, 0)))
                if predictor > 1:
                    piece = _differences(piece, predictor)
                raw = piece.astype(piece.dtype.newbyteorder(order)).tobytes()
                pieces.append(COMPRESS[compression](raw))
    return pieces


def tiff(
    pixels: Array,
    compression: int = NONE,
    order: str = "<",
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    planes: bool = False,
    predictor: int = 1,
    strips: Sequence[bytes | None] | None = None,
    tags: Mapping[int, tuple[int, Sequence[int]] | None] | None = None,
) -> bytes:
    """A TIFF of [height, width] or [height, width, samples].

    Args:
        pixels: In their own type; three samples and more are RGB.
        compression: TIFF's number.
        order: `struct`'s sign for the byte order.
        rows: In a strip.
        tile: Height and width of the tiles, in place of strips.
        planes: A plane for each sample.
        predictor: TIFF's number.
        strips: Compressed ones in place of the right ones; None for one that was never written.
        tags: {tag: (type, values)}, added or changed; None takes one away.
    """
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, samples = pixels.shape
    if strips is None:
        strips = strips_of(pixels, compression, order, rows, tile, planes, predictor)
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    offsets, counts = [], []
    for strip in strips:
        offsets.append(len(data) if strip is not None else 0)
        counts.append(len(strip or b""))
        data += (strip or b"") + bytes(len(strip or b"") % 2)
    every: dict[int, tuple[int, Sequence[int]] | None] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8 * pixels.dtype.itemsize] * samples),
        259: (3, [compression]),
        262: (3, [2 if samples > 2 else 1]),
        277: (3, [samples]),
        284: (3, [2 if planes else 1]),
        317: (3, [predictor]),
        339: (3, [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * samples),
    }
    if tile:
        every |= {322: (4, [tile[1]]), 323: (4, [tile[0]]), 324: (4, offsets), 325: (4, counts)}
    else:
        every |= {278: (4, [rows or height]), 273: (4, offsets), 279: (4, counts)}
    every |= tags or {}
    present = {tag: value for tag, value in sorted(every.items()) if value is not None}
    struct.pack_into(order + "I", data, 4, len(data))
    behind = len(data) + 2 + 12 * len(present) + 4
    entries, values_behind = [], b""
    for tag, (kind, values) in present.items():
        packed = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        if len(packed) > 4:
            where = struct.pack(order + "I", behind + len(values_behind))
            values_behind, packed = values_behind + packed, where
        entries.append(struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0"))
    data += struct.pack(order + "H", len(present)) + b"".join(entries) + bytes(4) + values_behind
    return bytes(data)


def jpeg(pixels: Array, quality: int = 95, *options: int) -> bytes:
    """A JPEG of grey, or of RGB as YCbCr."""
    pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, quality, *options]
    )
    return bytes(done[1])
