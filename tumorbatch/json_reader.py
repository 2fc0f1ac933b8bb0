"""JSON files that a bug, an editor or an attacker may have written.

Python's own reader takes more than JSON has (NaN, Infinity, a name twice), ends deep nesting with a
`RecursionError`, and gives numbers that overflow where they are used. Here each of these is an error
with a reason, and so is a value of another kind than the one that is needed.
"""

import errno
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch.files import NotRegularError, is_file_name, read_regular

MAX_BYTES = 64 << 20  # the largest files of this product are a hundredth of it
_MAX_DEPTH = 32
_MAX_DIGITS = 19  # of a whole number: those of 64 bits
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Kind:
    """What one JSON value must be.

    Attributes:
        name: For the message: "a text".
        accepts: Whether a value is of this kind.
    """

    name: str
    accepts: Callable[[Any], bool]


TEXT = Kind("a text", lambda value: type(value) is str)
NUMBER = Kind("a number", lambda value: type(value) in (int, float))
SHARE = Kind("a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1)
INTEGER = Kind("a whole number", lambda value: type(value) is int)
COUNT = Kind("a whole number of at least 0", lambda value: type(value) is int and value >= 0)
FLAG = Kind("true or false", lambda value: type(value) is bool)
NULL = Kind("null", lambda value: value is None)
OBJECT = Kind("an object", lambda value: type(value) is dict)
ANYTHING = Kind("anything", lambda _: True)
SHA256 = Kind(
    "a sha256 (64 hexadecimal digits)",
    lambda value: type(value) is str and _SHA256.fullmatch(value) is not None,
)
FILE_NAME = Kind(
    "the name of a file in the same folder", lambda value: type(value) is str and is_file_name(value)
)

# A kind; [shape]: a list of such values; {name: shape}: an object that has at least these members,
# where a name that ends with "?" may be absent; {TEXT: shape}: an object with any names;
# (shape, shape): one of them.
Shape = Kind | list[Any] | dict[Any, Any] | tuple[Any, ...]


def read_object(path: Path, shape: Shape = OBJECT, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: A regular file; anything else is refused without being opened.
        shape: What the object must be like.
        max_bytes: Larger files are refused.

    Raises:
        OSError: The file is missing, unreadable, or not a regular file.
        ValueError: Its content is not such an object; the text is a reason, without the file's name.
    """
    return parse_object(read_regular(path, max_bytes), shape)


def read_own(path: Path, shape: Shape = OBJECT) -> dict[str, Any] | None:
    """Return the object that a JSON file of an earlier run holds; None if it is missing or damaged.

    Raises:
        OSError: The file system does not give it: it may be there and whole, and is not to be replaced.
    """
    try:
        return read_object(path, shape)
    except (NotRegularError, ValueError):
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise


def parse_object(data: bytes, shape: Shape = OBJECT) -> dict[str, Any]:
    """Return the object that `data` holds as JSON, see `read_object`; raise `ValueError`."""
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_without_repetition,
            parse_int=_integer,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_limits(value)
    if type(value) is not dict:
        raise ValueError(f"it must hold an object, not {_shortened(value)}")
    check(value, shape)
    return value


def check(value: Any, shape: Shape, name: str = "") -> None:
    """Raise `ValueError` where a JSON value is not of the shape that is needed.

    Args:
        value: From `parse_object`.
        shape: What it must be.
        name: Of the value, for the message.
    """
    if isinstance(shape, Kind):
        if not shape.accepts(value):
            raise ValueError(f"{name or 'it'} must be {shape.name}, not {_shortened(value)}")
    elif isinstance(shape, tuple):
        _check_one_of(value, shape, name)
    elif isinstance(shape, list):
        if type(value) is not list:
            raise ValueError(f"{name or 'it'} must be a list, not {_shortened(value)}")
        for index, item in enumerate(value):
            check(item, shape[0], f"{name}[{index}]")
    else:
        _check_members(value, shape, name)


def _check_one_of(value: Any, shapes: tuple[Shape, ...], name: str) -> None:
    reason = None
    for shape in shapes:
        try:
            return check(value, shape, name)
        except ValueError as error:
            reason = error
    kinds = [shape.name for shape in shapes if isinstance(shape, Kind)]
    if reason is None or len(kinds) == len(shapes):
        raise ValueError(f"{name or 'it'} must be {' or '.join(kinds)}, not {_shortened(value)}")
    raise reason


def _check_members(value: Any, shape: Mapping[Any, Shape], name: str) -> None:
    if type(value) is not dict:
        raise ValueError(f"{name or 'it'} must be an object, not {_shortened(value)}")
    prefix = f"{name}." if name else ""
    for key, inner in shape.items():
        if key is TEXT:
            for member, item in value.items():
                check(item, inner, prefix + member)
        elif key.removesuffix("?") in value:
            check(value[key.removesuffix("?")], inner, prefix + key.removesuffix("?"))
        elif not key.endswith("?"):
            raise ValueError(f"{prefix}{key} is missing")


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {json.dumps(twice)[:60]} twice")
    return value


def _integer(text: str) -> int:
    digits = len(text.removeprefix("-"))
    if digits > _MAX_DIGITS:
        raise ValueError(f"it has a whole number of {digits:,} digits")
    return int(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has {name}, which is not a JSON number")


def _check_limits(value: Any) -> None:
    """Raise `ValueError` for JSON that cannot be used: nested deeply, infinite, lone surrogates."""
    pending = [(value, 1)]  # a stack, not recursion: the depth is what is checked
    while pending:
        item, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if type(item) is dict:
            pending += [(part, depth + 1) for pair in item.items() for part in pair]
        elif type(item) is list:
            pending += [(part, depth + 1) for part in item]
        elif type(item) is float and not math.isfinite(item):
            raise ValueError("it has a number that is too large")
        elif type(item) is str and not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                raise ValueError(f"it has a text that is not Unicode: {_shortened(item)}") from None
