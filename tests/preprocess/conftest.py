"""Image files built byte by byte, for what no available encoder writes."""

import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]

_TIFF_CODES = {1: "B", 3: "H", 4: "I"}


class Build:
    """Builders of image files; all arrays are [height, width] or [height, width, channels]."""

    @staticmethod
    def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
        """A grey image that looks like something: blobs, between 20 and 235."""
        coarse = np.random.default_rng(seed).random((6, 6), dtype=np.float32)
        fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        low, high = fine.min(), fine.max()
        return np.rint(20 + (fine - low) / (high - low) * 215).astype(np.uint8)

    @staticmethod
    def colour(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
        """An RGB image whose channels differ."""
        return np.dstack([Build.smooth(height, width, 3 * seed + k) for k in range(3)])

    @staticmethod
    def encode(suffix: str, pixels: Array, *options: int) -> bytes:
        """By OpenCV; colour is given as RGB or RGBA."""
        order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
        if pixels.ndim == 3:
            pixels = np.ascontiguousarray(pixels[:, :, order[pixels.shape[2]]])
        return bytes(cv2.imencode(suffix, pixels, list(options))[1])

    @staticmethod
    def chunk(name: bytes, data: bytes) -> bytes:
        """One PNG chunk."""
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    @staticmethod
    def png(pixels: Array, colour: int = 0, depth: int = 8, before: bytes = b"") -> bytes:
        """A PNG of that colour type; `before`: chunks in front of the pixels."""
        height, width = pixels.shape[:2]
        if depth < 8:
            bits = np.unpackbits(pixels[:, :, None].astype(np.uint8), axis=2)[:, :, 8 - depth :]
            rows = np.packbits(bits.reshape(height, -1), axis=1)
        else:
            rows = pixels.astype(f">u{depth // 8}").reshape(height, -1)
        raw = b"".join(b"\0" + row.tobytes() for row in rows)
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        return b"".join(
            (
                b"\x89PNG\r\n\x1a\n",
                Build.chunk(b"IHDR", header),
                before,
                Build.chunk(b"IDAT", zlib.compress(raw)),
                Build.chunk(b"IEND", b""),
            )
        )

    @staticmethod
    def directory(tags: Mapping[int, tuple[int, Sequence[int]]], at: int, order: str = "<") -> bytes:
        """A TIFF image file directory {tag: (type, values)} that is to lie at `at`; the last one."""
        behind = at + 2 + 12 * len(tags) + 4
        entries, values_behind = [], b""
        for tag, (kind, values) in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(values)}{_TIFF_CODES[kind]}", *values)
            if len(packed) > 4:
                where = struct.pack(order + "I", behind + len(values_behind))
                values_behind, packed = values_behind + packed, where
            entries.append(struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0"))
        return b"".join(
            (
                struct.pack(order + "H", len(tags)),
                *entries,
                bytes(4),
                values_behind,
            )
        )

    @staticmethod
    def tags(pixels: Array) -> dict[int, tuple[int, Sequence[int]]]:
        """The tags of an uncompressed image of one strip, which is still to be placed."""
        height, width = pixels.shape[:2]
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        return {
            256: (3, [width]),
            257: (3, [height]),
            258: (3, [8 * pixels.dtype.itemsize] * channels),
            259: (3, [1]),  # not compressed
            262: (3, [2 if channels > 2 else 1]),  # RGB, or black is zero
            273: (4, [0]),  # where the pixels are
            277: (3, [channels]),
            278: (3, [height]),
            279: (4, [pixels.nbytes]),
            339: (3, [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * channels),
        }

    @staticmethod
    def tiff(
        pixels: Array,
        order: str = "<",
        tags: Mapping[int, tuple[int, Sequence[int]] | None] | None = None,
    ) -> bytes:
        """An uncompressed TIFF of one strip, its directory in front; `tags` adds, changes, removes."""
        every = {**Build.tags(pixels), **(tags or {})}
        present = {tag: value for tag, value in every.items() if value is not None}
        if present.get(273) == (4, [0]):
            present[273] = (4, [8 + len(Build.directory(present, 8, order))])
        magic = b"II*\0" if order == "<" else b"MM\0*"
        raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        return magic + struct.pack(order + "I", 8) + Build.directory(present, 8, order) + raw

    @staticmethod
    def pages(images: Sequence[Array]) -> bytes:
        """A TIFF of several uncompressed pages, each one's directory behind its pixels."""
        data, link = bytearray(b"II*\0" + bytes(4)), 4
        for pixels in images:
            start = len(data)
            data += pixels.tobytes() + bytes(pixels.nbytes % 2)
            struct.pack_into("<I", data, link, len(data))
            tags = {**Build.tags(pixels), 273: (4, [start])}
            link = len(data) + 2 + 12 * len(tags)
            data += Build.directory(tags, len(data))
        return bytes(data)

    @staticmethod
    def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
        """The TIFF structure of an Exif block that says nothing but the orientation."""
        magic = b"II*\0" if order == "<" else b"MM\0*"
        return (
            magic
            + struct.pack(order + "I", 8)
            + Build.directory({274: (kind, [orientation])}, 8, order)
        )

    @staticmethod
    def app1(exif: bytes) -> bytes:
        """The JPEG segment that holds an Exif block."""
        return b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif

    @staticmethod
    def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
        """A JPEG with segments put in behind its start mark."""
        return jpeg[:2] + b"".join(segments) + jpeg[2:]

    @staticmethod
    def flat_jpeg(values: Sequence[int], adobe: int | None = None) -> bytes:
        """A baseline JPEG, 16 x 16, each component of one value; `adobe`: the transform it names."""
        flat = range(1, len(values) + 1)
        segments = [
            (0xDB, b"\0" + b"\x08" * 64),  # quantised by 8: the DC coefficient is value - 128
            (
                0xC0,
                struct.pack(">BHHB", 8, 16, 16, len(values))
                + bytes(x for k in flat for x in (k, 17, 0)),
            ),
            (0xC4, b"\x00" + bytes([0, 0, 0, 9, *[0] * 12]) + bytes(range(9))),  # DC: code = category
            (0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\0"),  # AC: end of block is the bit 0
            (0xDA, bytes([len(values)]) + bytes(x for k in flat for x in (k, 0)) + b"\0\x3f\0"),
        ]
        if adobe is not None:
            segments.insert(0, (0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, adobe)))
        bits = ""
        for block, value in itertools.product(range(4), values):
            change = value - 128 if block == 0 else 0
            size = abs(change).bit_length()
            bits += f"{size:04b}"
            if size:
                bits += f"{change if change > 0 else change + 2**size - 1:0{size}b}"
            bits += "0"
        bits += "1" * (-len(bits) % 8)
        packed = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
        head = b"".join(
            struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments
        )
        return b"\xff\xd8" + head + packed + b"\xff\xd9"


@pytest.fixture(scope="session")
def build() -> type[Build]:
    """The builders, for a test's arguments."""
    return Build
