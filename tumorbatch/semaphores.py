"""The named semaphores of worker processes, and those that killed runs left in /dev/shm.

Python deletes them when a run ends, and its resource tracker does where the parent alone is killed. A
job's end on a cluster takes the tracker as well. So their names say whose they are: the number of the
process, when it started, and the namespace in which that number means something.
"""

import contextlib
import multiprocessing
import os
import re
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108  # where Linux keeps them
_NAME = re.compile(r"sem\.tumorbatch-(\d+)-(\d+)-(\d+)-.*")


def claim() -> None:
    """Name the semaphores that are created from here on after this process; free what others left."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = os.getpid()
        prefix = f"/tumorbatch-{_namespace()}-{pid}-{_started(pid)}"
        # Python has no public way to choose it; without the entry, names are Python's own.
        multiprocessing.current_process()._config["semprefix"] = prefix  # type: ignore[attr-defined]
        for path in _FOLDER.iterdir():
            owner = _NAME.fullmatch(path.name)
            if owner and int(owner[1]) == _namespace() and not _lives(int(owner[2]), int(owner[3])):
                with contextlib.suppress(OSError):
                    path.unlink()


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int:
    """Return when a process started, in clock ticks since the machine did (proc(5), field 22)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _lives(pid: int, started: int) -> bool:
    try:
        return _started(pid) == started
    except (FileNotFoundError, ProcessLookupError):
        return False
