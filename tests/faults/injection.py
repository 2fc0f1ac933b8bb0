"""File-system calls that fail on demand: the shim, its control block, and runs under it."""

import errno
import json
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
_CONTROL = "6q512s512s"  # struct control in shim.c
VARYING = re.compile(r"[0-9a-f]{4,}|\d+")  # numbers of processes, digits of checksums, random names


class Fault(NamedTuple):
    """What happens at a call.

    Attributes:
        name: For the table.
        error: errno, or 0: the process group is killed.
        onwards: Later calls fail as well.
    """

    name: str
    error: int
    onwards: bool

    @property
    def spares_reading(self) -> bool:
        """Whether it makes no difference at calls that change nothing.

        A full or read-only disk can be read, and a kill leaves what the last change has left.
        """
        return self.error != errno.EIO


FAULTS = (
    Fault("killed", 0, False),
    Fault("EIO once", errno.EIO, False),
    Fault("EIO from then on", errno.EIO, True),
    Fault("ENOSPC once", errno.ENOSPC, False),
    Fault("ENOSPC from then on", errno.ENOSPC, True),
    Fault("EROFS from then on", errno.EROFS, True),
)


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        status: Exit code, or minus the signal.
        output: Standard output and error.
        hit: Whether a call failed.
    """

    status: int
    output: str
    hit: bool


class Point(NamedTuple):
    """A call that may meet a fault.

    Attributes:
        at: Its number in an undisturbed run, from 1.
        changes: Whether it changes a file or a folder.
        site: Function and path below the root, with `#` for what differs from run to run.
        place: "first" or "last" of the calls of this site.
    """

    at: int
    changes: bool
    site: str
    place: str


def build_shim(folder: Path) -> Path:
    """Compile the shim, or skip the test."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    source, shim = Path(__file__).with_name("shim.c"), folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return shim


class Runs:
    """Runs `tumorbatch` under the shim, each time in a new process.

    Args:
        folder: For the shim and its control block.

    Attributes:
        temporary: The commands' folder for temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self._output, self._log = folder / "output", folder / "log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        block = folder / "control"
        block.write_bytes(bytes(struct.calcsize(_CONTROL)))
        with block.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), 0)
        self._environment = os.environ | {
            "LD_PRELOAD": str(build_shim(folder)),
            "TUMORBATCH_FAULTS": str(block),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
        }

    def close(self) -> None:
        """End what runs."""

    def run(
        self,
        arguments: Sequence[object],
        folder: Path,
        root: Path | None = None,
        at: int = 0,
        fault: Fault = FAULTS[0],
        log: bool = False,
    ) -> Outcome:
        """Run a command.

        Args:
            arguments: Of `tumorbatch`.
            folder: The working folder.
            root: Calls below it are counted; None: nothing is.
            at: Number of the call that meets the fault, from 1; 0: none.
            fault: See there.
            log: Whether each call is logged for `points`.
        """
        self._log.write_bytes(b"")
        armed = (int(root is not None), 0, at, fault.error, int(fault.onwards), 0)
        log_name = os.fsencode(self._log) if log else b""
        self._control[:] = struct.pack(_CONTROL, *armed, os.fsencode(root or ""), log_name)
        status = self._status(list(map(str, arguments)), folder)
        hit = bool(struct.unpack(_CONTROL, self._control[:])[5])
        return Outcome(status, self._output.read_text(errors="replace"), hit)

    def _status(self, arguments: list[str], folder: Path) -> int:
        with self._output.open("wb") as output:
            return subprocess.run(
                [sys.executable, "-m", "tumorbatch", *arguments],
                cwd=folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a fault kills the group
                timeout=300,
            ).returncode

    def points(self) -> list[Point]:
        """Return the first and the last logged call of each site: a function on a kind of path.

        A Parquet file is written in many small pieces, and none of them differs from its neighbour.
        """
        root = struct.unpack(_CONTROL, self._control[:])[6].rstrip(b"\0").decode()
        sites: dict[str, list[int]] = {}
        changing = set()
        for at, line in enumerate(self._log.read_text(errors="replace").splitlines(), 1):
            function, kind, path = line.split(" ", 2)
            site = f"{function} {VARYING.sub('#', path.removeprefix(root)) or '/'}"
            sites.setdefault(site, []).append(at)
            if kind == "changes":
                changing.add(at)
        chosen = []
        for site, calls in sites.items():
            chosen.append(Point(calls[0], calls[0] in changing, site, "first"))
            if len(calls) > 1:
                chosen.append(Point(calls[-1], calls[-1] in changing, site, "last"))
        return sorted(chosen)


class Server(Runs):
    """Does the same in forked children of one process, which has the modules loaded: see server.py.

    Args:
        folder: For the shim and its control block.
        modules: "light" or "tensorflow".
    """

    def __init__(self, folder: Path, modules: str = "light") -> None:
        super().__init__(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", modules],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _status(self, arguments: list[str], folder: Path) -> int:
        request = {"arguments": arguments, "folder": str(folder), "output": str(self._output)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())
