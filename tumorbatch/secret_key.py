"""A secret that turns names into keyed hashes: 32 random bytes in a file for its owner alone."""

import os
import secrets
import stat
from pathlib import Path

from tumorbatch.atomic import PRIVATE, write_bytes
from tumorbatch.errors import InputError, reason
from tumorbatch.files import open_regular

_BYTES = 32
_LEAST_BYTES = 16  # 128 bits; with fewer, all keys could be tried


def create_key(path: Path) -> None:
    """Write a new key to `path`; raise `OutputError` where that is not possible."""
    write_bytes(path, secrets.token_bytes(_BYTES), PRIVATE)


def read_key(path: Path) -> bytes:
    """Return the key in `path`.

    Raises:
        InputError: The file is missing, unreadable, too short for a secret, or readable by everybody:
            the hashes would hide nothing.
    """
    try:
        with open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(_BYTES + 1)
    except OSError as error:
        raise InputError(f"The key {path} cannot be read: {reason(error)}.") from error
    if not _LEAST_BYTES <= len(key) <= _BYTES:
        raise InputError(
            f"The key {path} has not {_LEAST_BYTES} to {_BYTES} bytes and hides nothing. Bring the "
            "original back, or delete it, and a new one is made: names get other hashes then."
        )
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise InputError(
            f"The key {path} can be read by every user of this machine, so it hides nothing. Make it "
            f"private: chmod 600 {path}. If others may have read it, delete it: a new one is made."
        )
    return key
