"""Keras' ImageNet weights of the three bases: where they are published, and whether a copy is right.

Keras publishes an MD5 for two of the three files and no sha256 for any. So `fetch` checks the MD5, or
the number of bytes, and writes down the sha256 of what came; from then on `check` knows each bit.
"""

import contextlib
import hashlib
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tumorbatch.atomic import make_folder, write_bytes
from tumorbatch.errors import InputError, reason
from tumorbatch.files import open_regular, read_regular
from tumorbatch.shardset import file_sha256

ENVIRONMENT = "TUMORBATCH_WEIGHTS"  # a folder with the files, for machines without internet
SUMS = "tumorbatch-weights.sha256"  # as `sha256sum` writes it: for `sha256sum --check`, too
_HOST = "https://storage.googleapis.com/tensorflow/keras-applications"
_TIMEOUT = 30  # seconds without an answer; a node without internet often gives none at all
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")


@dataclass(frozen=True, slots=True)
class Published:
    """A file of weights: keras/src/applications, the "no top" files.

    Attributes:
        url: Where Keras fetches it from.
        md5: What Keras compares it with; None: Keras compares mobilenetv2's with nothing.
        bytes: Its length, as the server gives it.
    """

    url: str
    md5: str | None
    bytes: int

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.url.rsplit("/", 1)[1]


PUBLISHED = {
    "resnet50": Published(
        f"{_HOST}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
        94_765_736,
    ),
    "mobilenetv2": Published(
        f"{_HOST}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        None,
        9_406_464,
    ),
    "densenet121": Published(
        f"{_HOST}/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "30ee3e1110167f948a6b9946edeeb738",
        29_084_464,
    ),
}


@dataclass(frozen=True, slots=True)
class State:
    """What is known of the file of one network.

    Attributes:
        architecture: Its name.
        path: Where it is, or should be.
        sha256: Hex; "" if it is missing.
        problem: What is wrong with it, the end of a sentence; "" if nothing is.
        compared: What it was compared with: "sha256", "MD5", "length".
    """

    architecture: str
    path: Path
    sha256: str
    problem: str
    compared: tuple[str, ...] = ()


def folder() -> Path:
    """Return where the files are looked for: TUMORBATCH_WEIGHTS, or Keras' own cache."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    # Keras' cache, so that a copy which other programs have fetched is found.
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def find(architecture: str, where: Path | None = None) -> Path:
    """Return the file of an architecture; download it if there is none.

    Args:
        architecture: One with a base.
        where: Folder of the files, from which nothing is downloaded; None: see `folder`.

    Raises:
        InputError: It is damaged; or it is missing, and cannot be downloaded.
    """
    published = PUBLISHED[architecture]
    path = (where or folder()) / published.name
    if path.is_file():
        if published.md5 in (None, _md5(path)):
            return path
        raise InputError(
            f"{path} is damaged: its MD5 is not {published.md5}. Delete it, and fetch it again from "
            f"{published.url}."
        )
    if where is not None or os.environ.get(ENVIRONMENT):
        raise InputError(
            f"{path} is not there. Fetch it where there is internet with `tumorbatch weights fetch "
            f"--to DIR`, and bring the folder; or start from random weights with --weights none."
        )
    _download(architecture, path)
    return path


def _download(architecture: str, path: Path) -> None:
    """Download a file to `path`, and compare its MD5 if there is one; raise `InputError`."""
    import keras

    published = PUBLISHED[architecture]
    try:
        with _silent(), _timeout():
            keras.utils.get_file(
                published.name, published.url, cache_dir=path.parent.parent,
                cache_subdir=path.parent.name, file_hash=published.md5,
                hash_algorithm="md5" if published.md5 else "auto",
            )  # fmt: skip
    except Exception as error:  # get_file turns every failure into a bare Exception
        raise InputError(
            f"The ImageNet weights of {architecture} are not on this machine and cannot be downloaded "
            f"({error}). Fetch {published.url} where there is internet and put it to {path}; or give "
            "another file with --weights FILE, or start from random weights with --weights none."
        ) from error


def fetch(architectures: Sequence[str], where: Path) -> list[State]:
    """Download what is missing in a folder, check it, and write down its sha256.

    Args:
        architectures: Those with a base whose files are wanted.
        where: The folder; it is made if it is missing.

    Raises:
        InputError: A file cannot be downloaded, or what is there is damaged.
        OutputError: The folder cannot be written.
    """
    make_folder(where)
    for name in architectures:
        path = where / PUBLISHED[name].name
        if not path.is_file():
            _download(name, path.resolve())
    states = check(architectures, where)
    wrong = [state for state in states if state.problem]
    if wrong:
        raise InputError(f"{wrong[0].path} {wrong[0].problem}. Delete it, and fetch it again.")
    sums = _sums(where) | {state.path.name: state.sha256 for state in states}
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items()))
    write_bytes(where / SUMS, lines.encode())
    return states


def check(architectures: Sequence[str], where: Path) -> list[State]:
    """Compare the files in a folder with what is known of them.

    Args:
        architectures: Those with a base whose files are wanted.
        where: The folder.

    Raises:
        InputError: A file cannot be read.
    """
    return [_state(name, where, _sums(where)) for name in architectures]


def _state(architecture: str, where: Path, sums: dict[str, str]) -> State:
    published = PUBLISHED[architecture]
    path = where / published.name
    if not path.is_file():
        return State(architecture, path, "", f"is missing; {published.url}")
    sha256, size = file_sha256(path), path.stat().st_size
    compared, problem = ["length"], ""
    if size != published.bytes:
        problem = f"has {size:,} bytes and should have {published.bytes:,}"
    if published.md5 is not None:
        compared.append("MD5")
        if not problem and _md5(path) != published.md5:
            problem = f"is damaged: its MD5 is not {published.md5}"
    if path.name in sums:
        compared.append("sha256")
        if not problem and sums[path.name] != sha256:
            problem = f"was changed since it was fetched: its sha256 is not that in {SUMS}"
    return State(architecture, path, sha256, problem, tuple(compared))


def _sums(where: Path) -> dict[str, str]:
    """Return {file: sha256} that `fetch` wrote down in a folder."""
    path = where / SUMS
    if not path.exists():
        return {}
    try:
        lines = read_regular(path, 1 << 16).decode().splitlines()
        pairs = [_SUM.fullmatch(line) for line in lines]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}. Delete it.") from error
    return {pair[2]: pair[1] for pair in pairs if pair is not None}


def _md5(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress the progress bar on standard output, where the result belongs."""
    import keras

    before = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            yield
    finally:
        if before:
            keras.config.enable_interactive_logging()


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
