"""Names of objects in stores: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tumorbatch.errors import ConfigError

SCHEMES = ("s3", "gs", "az", "abfs")
_URI = re.compile(rf"(?i:({'|'.join(SCHEMES)}))://(.*)", re.DOTALL)
_ACCOUNT = re.compile(r"([^@]+)@([^.]+)\.(?:dfs|blob)\.core\.windows\.net")


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """An object, or a prefix that stands for a folder.

    Attributes:
        scheme: One of `SCHEMES`.
        container: Bucket or container; of `abfs://` with its account, `container@account.dfs...`.
        key: Without `/` at its ends; "" is the container itself.
    """

    scheme: str
    container: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> "ObjectPath":
        """Parse a URI.

        Raises:
            ConfigError: It names no bucket.
        """
        match = _URI.fullmatch(uri)
        container, _, key = match[2].partition("/") if match else ("", "", "")
        if match is None or not container:
            raise ConfigError(f"{uri!r} names no bucket. Write it as s3://bucket/folder.")
        return cls(match[1].lower(), container, key.strip("/"))

    @property
    def name(self) -> str:
        """Return the last part of the key; of a container its name."""
        return self.key.rpartition("/")[2] or self.container

    @property
    def path(self) -> str:
        """Return what `pyarrow.fs` calls it: container and key."""
        account = _ACCOUNT.fullmatch(self.container)
        container = account[1] if account else self.container
        return f"{container}/{self.key}".rstrip("/")

    @property
    def account(self) -> str:
        """Return the account that the URI names, as only those of Azure do; else ""."""
        account = _ACCOUNT.fullmatch(self.container)
        return account[2] if account else ""

    def __truediv__(self, name: str) -> "ObjectPath":
        """Return the object `name` below this prefix."""
        return ObjectPath(self.scheme, self.container, f"{self.key}/{name}".lstrip("/"))

    def beside(self, name: str) -> "ObjectPath":
        """Return the object `name` in the folder of this one."""
        folder = self.key.rpartition("/")[0]
        return ObjectPath(self.scheme, self.container, f"{folder}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.container}/{self.key}".rstrip("/")


Location = Path | ObjectPath


def several(places: Location | Sequence[Location]) -> Sequence[Location]:
    """Return one place or several as a sequence."""
    return [places] if isinstance(places, Path | ObjectPath) else places


def is_uri(text: str) -> bool:
    """Return whether a text names an object in a store rather than a file."""
    return _URI.match(text) is not None


def location(text: str) -> Location:
    """Return what a text names: an object in a store, or a file."""
    return ObjectPath.parse(text) if is_uri(text) else Path(text)


def absolute(path: str) -> str:
    """Return a path that names the same file in every current folder, and on nodes that share it."""
    return path if is_uri(path) else os.path.abspath(path)


def identity(place: Location | str) -> str:
    """Return the one name of a place: of a file its real path, of an object its URI."""
    return str(place) if is_uri(str(place)) else os.path.realpath(str(place))
