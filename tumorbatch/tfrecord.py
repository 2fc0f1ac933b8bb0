"""TFRecord files and `tf.train.Example` records, written and read without TensorFlow.

`shard` never loads TensorFlow, and its bytes must not depend on a protobuf library's version, so the
small part of the two formats that is needed stands here. Both are fixed public formats:

    TFRecord:  u64 length | u32 masked crc32c(length) | data | u32 masked crc32c(data)
    Example:   message Example { Features features = 1; }
               message Features { map<string, Feature> feature = 1; }
               message Feature { oneof { BytesList bytes_list = 1; Int64List int64_list = 3; } }

Sources: tensorflow/core/lib/io/record_writer.h, tensorflow/core/example/{example,feature}.proto.
"""

import functools
import itertools
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from tumorbatch.errors import InputError
from tumorbatch.files import open_regular

IMAGE = "image/raw"  # the first variant of the image; others are image/raw/<name>
HEIGHT = "image/height"
WIDTH = "image/width"
LABEL = "image/class/label"
FILENAME = "image/filename"
SHA256 = "image/sha256"

FRAME_BYTES = 16  # what the framing adds to each record
_SMALL = [bytes((value,)) for value in range(0x80)]
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Return one TFRecord: `data` with its length and checksums."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", _masked_crc(length)), data, struct.pack("<I", _masked_crc(data)))
    )


def read(path: Path) -> Iterator[bytes]:
    """Yield each record's data; unlike TensorFlow's reader, a cut at any byte is an error.

    A cut exactly between two records cannot be seen here: compare the count with dataset.json's.

    Raises:
        InputError: A checksum does not fit, or the file ends inside a record.
    """
    with open_regular(path) as file:
        position, size = 0, os.fstat(file.fileno()).st_size
        while header := file.read(12):
            if len(header) < 12:
                raise InputError(f"{path} is cut off inside the record at byte {position}.")
            length, length_crc = struct.unpack("<QI", header)
            if _masked_crc(header[:8]) != length_crc:
                raise InputError(f"{path} is damaged: bad length checksum at byte {position}.")
            # A length that is not in the file would reserve any amount of memory.
            body = file.read(length + 4) if position + FRAME_BYTES + length <= size else b""
            if len(body) < length + 4:
                raise InputError(f"{path} is cut off inside the record at byte {position}.")
            data = body[:-4]
            if _masked_crc(data) != struct.unpack("<I", body[-4:])[0]:
                raise InputError(f"{path} is damaged: bad data checksum at byte {position}.")
            yield data
            position += FRAME_BYTES + length


def places(path: Path) -> list[tuple[int, int]]:
    """Yield offset and length of each framed record, from the lengths alone, without checksums.

    Raises:
        InputError: The lengths lead past the end of the file.
    """
    offsets = []
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            file.seek(at)
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            if at + FRAME_BYTES + length > size:
                raise InputError(f"{path} is cut off or damaged inside the record at byte {at}.")
            offsets.append((at, FRAME_BYTES + length))
            at += FRAME_BYTES + length
    return offsets


def unframe(record: bytes) -> bytes:
    """Yield the records of framed data: the inverse of `frame`.

    Raises:
        ValueError: A checksum does not fit.
    """
    data = record[12:-4]
    if frame(data) != record:
        raise ValueError("a checksum does not fit")
    return data


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data  # wire type 2: length-delimited


def encode_example(features: Mapping[str, bytes | int]) -> bytes:
    """Serialise one `tf.train.Example`, features sorted by name.

    Args:
        features: bytes become a BytesList of one; non-negative int, an Int64List of one.
    """
    return _field(1, b"".join(_entry(name, features[name]) for name in sorted(features)))


def _entry(name: str, value: bytes | int) -> bytes:
    """Serialise one feature; the bytes of its value come last."""
    if isinstance(value, bytes):
        feature = _field(1, _field(1, value))
    else:
        feature = _field(3, _field(1, _varint(value)))  # packed, as TensorFlow writes it
    return _field(1, _field(1, name.encode()) + _field(2, feature))


def variant_key(variant: str) -> str:
    """Return the feature that holds a variant which is not the first of its record."""
    return f"{IMAGE}/{variant}"


@functools.lru_cache(maxsize=4096)
def _around(
    height: int, width: int, label: int, lengths: tuple[int, ...], others: tuple[str, ...] = ()
) -> tuple[bytes, ...]:
    """Return what stands around the file name, the pixels and the sha256 of a record, in pieces.

    It is the same for all records with these numbers, and putting the features together takes ten
    times as long as joining it with the rest.

    Args:
        height: In pixels.
        width: In pixels.
        label: 0 or 1.
        lengths: Of the file name, the pixels, each other variant's and the sha256, in bytes.
        others: Names of the other variants, sorted.

    Returns:
        A piece before each of `lengths`, and the last one behind them.
    """
    name, pixels, *more, sha256 = lengths
    entries = (
        _entry(LABEL, label) + _entry(FILENAME, bytes(name)),
        _entry(HEIGHT, height) + _entry(IMAGE, bytes(pixels)),
        *(_entry(variant_key(other), bytes(n)) for other, n in zip(others, more, strict=True)),
        _entry(SHA256, bytes(sha256)),
        _entry(WIDTH, width),
    )
    total = sum(map(len, entries))
    first, *pieces = (
        entry[: len(entry) - length] for entry, length in zip(entries, lengths, strict=False)
    )
    return (_varint(1 << 3 | 2) + _varint(total) + first, *pieces, entries[-1])


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        length, at = _read_varint(data, at)
        if key & 7 != 2 or at + length > len(data):
            raise ValueError("not a message of length-delimited fields")
        yield key >> 3, data[at : at + length]
        at += length


def _one_integer(kind: int, packed: memoryview) -> int:
    value, end = _read_varint(packed, 0)
    if kind != 3 or end != len(packed):
        raise ValueError("not an Int64List of one")
    return value


def decode_example(data: bytes) -> dict[str, bytes | int]:
    """Parse what `encode_example` wrote.

    Raises:
        ValueError: The bytes are something else.
    """
    out: dict[str, bytes | int] = {}
    try:
        for _, features in _fields(memoryview(data)):
            for _, entry in _fields(features):
                parts = dict(_fields(entry))
                name = bytes(parts[1]).decode()
                ((kind, values),) = _fields(parts[2])
                ((_, value),) = _fields(values)
                out[name] = bytes(value) if kind == 1 else _one_integer(kind, value)
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError("not a record of this project") from error
    return out


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One record of a shard.

    Attributes:
        pixels: uint8 bytes, row-major [height, width], one channel, after preprocessing.
        height: In pixels.
        width: In pixels.
        label: 0 Healthy, 1 Tumor.
        filename: Path relative to the source, `/` between its parts.
        sha256: Of the source file's bytes, hex.
        others: (name, pixels) of each further variant of the image, sorted by name.
    """

    pixels: bytes
    height: int
    width: int
    label: int
    filename: str
    sha256: str
    others: tuple[tuple[str, bytes], ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """Return the names of the further variants."""
        return tuple(name for name, _ in self.others)

    def encode(self) -> bytes:
        """Return the serialised `tf.train.Example`."""
        more = (pixels for _, pixels in self.others)
        values = self.filename.encode(), self.pixels, *more, self.sha256.encode()
        lengths = tuple(map(len, values))
        *pieces, behind = _around(self.height, self.width, self.label, lengths, self.variants)
        pairs = itertools.chain.from_iterable(zip(pieces, values, strict=True))
        return b"".join((*pairs, behind))

    def image(self) -> NDArray[np.uint8]:
        """Return the pixels, uint8 [height, width]; raise `ValueError` where they are not as many."""
        return self._image(self.pixels)

    def variant(self, key: str) -> NDArray[np.uint8]:
        """Return the pixels of one feature, `IMAGE` or a `variant_key`, uint8 [height, width].

        Raises:
            ValueError: It is not there, or has another number of pixels.
        """
        if key == IMAGE:
            return self.image()
        for name, pixels in self.others:
            if variant_key(name) == key:
                return self._image(pixels)
        raise ValueError(f"the record has no {key}")

    def _image(self, pixels: bytes) -> NDArray[np.uint8]:
        return np.frombuffer(pixels, np.uint8).reshape(self.height, self.width)

    @classmethod
    def decode(cls, data: bytes) -> "ImageRecord":
        """Parse what `encode` wrote.

        Raises:
            ValueError: The bytes are not such a record.
        """
        record = _decode_alike(data)
        if record is not None:
            return record
        values = decode_example(data)
        try:
            pixels, filename, sha256 = values[IMAGE], values[FILENAME], values[SHA256]
            height, width, label = values[HEIGHT], values[WIDTH], values[LABEL]
        except KeyError as error:
            raise ValueError(f"the record has no {error}") from error
        if not (
            isinstance(pixels, bytes) and isinstance(filename, bytes) and isinstance(sha256, bytes)
        ):
            raise ValueError("a field of the record has the wrong type")
        if not (isinstance(height, int) and isinstance(width, int) and isinstance(label, int)):
            raise ValueError("a field of the record has the wrong type")
        others = _other_variants(values)
        record = cls(pixels, height, width, label, filename.decode(), sha256.decode(), others)
        if len(_layouts) >= _MOST_LAYOUTS:
            _layouts.clear()
        _layouts[len(data)] = _Layout.of(record)
        return record


def _other_variants(values: Mapping[str, bytes | int]) -> tuple[tuple[str, bytes], ...]:
    """Return (name, pixels) of the variants behind the first; raise `ValueError` for another type."""
    prefix = variant_key("")
    others: list[tuple[str, bytes]] = []
    for key in sorted(key for key in values if key.startswith(prefix)):
        pixels = values[key]
        if not isinstance(pixels, bytes):
            raise ValueError("a field of the record has the wrong type")
        others.append((key.removeprefix(prefix), pixels))
    return tuple(others)


class _Layout(NamedTuple):
    """Where the values of a record lie."""

    height: int
    width: int
    label_at: int
    filename: slice
    pixels: slice
    sha256: slice
    others: tuple[tuple[str, slice], ...] = ()

    @classmethod
    def of(cls, record: ImageRecord) -> "_Layout":
        """Return the layout of a record, as `encode` writes it."""
        more = (len(pixels) for _, pixels in record.others)
        lengths = (
            len(record.filename.encode()), len(record.pixels), *more, len(record.sha256.encode()),
        )  # fmt: skip
        parts = _around(record.height, record.width, record.label, lengths, record.variants)
        slices, at = [], 0
        for part, length in zip(parts, lengths, strict=False):
            slices.append(slice(at + len(part), at + len(part) + length))
            at = slices[-1].stop
        label = 1 - min(record.label, 1)
        other = _around(record.height, record.width, label, lengths, record.variants)[0]
        label_at = next(at for at, (a, b) in enumerate(zip(parts[0], other, strict=False)) if a != b)
        filename, pixels, *more_slices, sha256 = slices
        others = tuple(zip(record.variants, more_slices, strict=True))
        return cls(record.height, record.width, label_at, filename, pixels, sha256, others)


# By the length of a record, as the last one of that length was.
_layouts: dict[int, _Layout] = {}
_MOST_LAYOUTS = 4096


def _decode_alike(data: bytes) -> ImageRecord | None:
    """Take a record for one like the last of the same length; None if that is not so.

    Most records of a set differ in nothing but their values. What is read in this way is written again
    and compared: twenty times as fast as to parse it, and as sure.
    """
    layout = _layouts.get(len(data))
    if layout is None:
        return None
    try:
        filename, sha256 = data[layout.filename].decode(), data[layout.sha256].decode()
    except UnicodeDecodeError:
        return None
    pixels, label = data[layout.pixels], data[layout.label_at]
    others = tuple((name, data[place]) for name, place in layout.others)
    record = ImageRecord(pixels, layout.height, layout.width, label, filename, sha256, others)
    return record if record.encode() == data else None
