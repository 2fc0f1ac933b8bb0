"""TIFF's image file directories (TIFF 6.0 section 2), which Exif blocks are made of too."""

import struct
from collections.abc import Set

_RATIONAL = 5  # two integers, numerator and denominator
TYPES = {  # bytes and struct code of each type of integer, and of bytes without a meaning
    1: (1, "B"),
    3: (2, "H"),
    4: (4, "I"),
    _RATIONAL: (4, "I"),
    6: (1, "b"),
    7: (1, "B"),
    8: (2, "h"),
    9: (4, "i"),
}
_MAX_VALUES = 1 << 20  # one tag's; a million strips are more than any image has
_MAX_PAGES = 10_000

Tags = dict[int, tuple[int, ...]]


def byte_order(data: bytes) -> str:
    """Return `struct`'s sign for the byte order.

    Raises:
        ValueError: The first two bytes name none.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("TIFF without a byte order")
    return order


def first_directory(data: bytes) -> int:
    """Return where the first directory lies.

    Raises:
        struct.error: The data end before its offset does.
    """
    (at,) = struct.unpack_from(byte_order(data) + "I", data, 4)
    return int(at)


def read_directory(data: bytes, at: int, tags_to_read: Set[int]) -> tuple[Tags, int]:
    """Read the integers of the wanted tags in a directory; of two equal tags the first counts.

    A fraction gives two of them.

    What is not wanted is not read: a small file can hold thousands of tags that all claim to have
    the whole file for values.

    Args:
        data: A TIFF or Exif block.
        at: Where the directory lies.
        tags_to_read: Numbers of tags.

    Returns:
        {tag: its integers}, and where the next directory lies, 0 for none.

    Raises:
        struct.error: The data end inside the directory.
        IndexError: A wanted tag's values lie beyond the end.
        ValueError: A wanted tag has absurdly many values, or there is no byte order.
    """
    order = byte_order(data)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: Tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if tag not in tags_to_read or tag in tags or kind not in TYPES:
            continue
        size, code = TYPES[kind]
        number *= 1 + (kind == _RATIONAL)
        size *= number
        where = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if where + size > len(data):
            raise IndexError("TIFF values beyond the end of the file")
        if number > _MAX_VALUES:
            raise ValueError(f"TIFF tag {tag} with {number:,} values")
        tags[tag] = struct.unpack_from(f"{order}{number}{code}", data, where)
    (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    return tags, following


def directories(data: bytes) -> list[int]:
    """Return where the directories lie, one a page, up to the first one that is broken.

    A broken later page must not cost the first one, which is taken as it is.

    Raises:
        struct.error: The first one is broken.
        ValueError: There is no byte order.
    """
    order = byte_order(data)
    at = first_directory(data)
    following = _next(data, at, order)
    offsets, visited = [at], set()
    while following and following not in visited and len(offsets) < _MAX_PAGES:
        at = following
        visited.add(at)
        try:
            following = _next(data, at, order)
        except struct.error:
            break
        offsets.append(at)
    return offsets


def _next(data: bytes, at: int, order: str) -> int:
    (count,) = struct.unpack_from(order + "H", data, at)
    (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    return int(following)
