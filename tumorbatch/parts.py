"""One job as several tasks of a scheduler: parts, chunks, the frozen plan, and who is at work.

A part is a run of consecutive chunks of a list of files that the first task writes down. Chunks do not
depend on the number of parts, so a job may be continued with another number. A task publishes nothing;
the command without --part takes what the tasks have left, computes what is missing, and publishes.

    .out.parquet.partial-lock               who writes down the list
    .out.parquet.partial/parts.json         the frozen plan
    .out.parquet.partial/part-00003-of-00064.lock, .json   who computes part 3, since when
    .out.parquet.partial/chunk-00000012-1a2b3c4d.parquet   a finished chunk: whole, or absent

A task takes the lock of its part and then looks for the output's; the command that finishes takes the
output's lock and then looks for those of the parts. So at least one of two sees the other.
"""

import contextlib
import datetime
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tumorbatch.atomic import (
    PRIVATE,
    new_folder,
    sync_folder,
    temporary_name,
    write_json,
    writing,
)
from tumorbatch.checks import refuse_other_plan
from tumorbatch.errors import ConfigError, TryAgainError
from tumorbatch.found_file import printable
from tumorbatch.json_reader import COUNT, SHA256, TEXT, read_object, read_own
from tumorbatch.lock import Holder, find_holder, output_lock
from tumorbatch.object_path import ObjectPath

log = logging.getLogger(__name__)

PLAN = "parts.json"
CHUNK_FILES = 4096
LARGE_CHUNK_FILES = 65_536
MANY_FILES = 10_000_000
ENVIRONMENT = "TUMORBATCH_CHUNK_FILES"  # another number of files a chunk; the frozen plan keeps it
_PLAN_SHAPE = {
    "run_id": TEXT, "files": COUNT, "chunk_files": COUNT, "manifest_sha256": SHA256,
    "left_out": {TEXT: COUNT},
}  # fmt: skip
_POLL = 1.0  # seconds between two looks at what another task does


_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Part:
    """One of several tasks.

    Attributes:
        number: From 1.
        count: Of all parts.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"--part {self.number}/{self.count} does not exist: parts are numbered from 1 to their "
                "count."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def chunks(self, total: int) -> range:
        """Return the numbers of this part's chunks, of `total` that there are."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """Return this part's of some items that are dealt out one after another."""
        return list(items[self.number - 1 :: self.count])

    def name(self, suffix: str) -> str:
        """Return the name of a file of this part in the work area."""
        return f"part-{self.number:05d}-of-{self.count:05d}.{suffix}"


_PART_NAME = re.compile(r"part-(\d{5,})-of-(\d{5,})\.json")
_CHUNK_NAME = re.compile(r"chunk-(\d{8,})-[0-9a-f]{8}\.parquet")


def chunk_size(files: int) -> int:
    """Return the number of files a chunk, for a list of so many files.

    Raises:
        ConfigError: The environment asks for something that is not a number.
    """
    text = os.environ.get(ENVIRONMENT, "")
    if text:
        if not (text.isascii() and text.isdecimal() and int(text)):
            raise ConfigError(f"{ENVIRONMENT} must be a whole number above 0. Received: {text}.")
        return int(text)
    return CHUNK_FILES if files <= MANY_FILES else LARGE_CHUNK_FILES


@dataclass(frozen=True, slots=True)
class Frozen:
    """What all tasks of a job share: parts.json.

    Attributes:
        values: Its content.
    """

    values: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Return the run's identity, the same in all rows."""
        return str(self.values["run_id"])

    @property
    def fingerprint(self) -> str:
        """Return the sha256 of the plan; a chunk's file names it."""
        text = json.dumps(dict(self.values), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def files(self) -> int:
        """Return the number of files in the list."""
        return int(self.values["files"])

    @property
    def chunk_files(self) -> int:
        """Return the number of files a chunk; the last one may have fewer."""
        return max(1, int(self.values["chunk_files"]))

    @property
    def chunks(self) -> int:
        """Return the number of chunks."""
        return -(-self.files // self.chunk_files)

    def has(self, plan: Mapping[str, Any]) -> bool:
        """Return whether a task that is about `plan` belongs to this job."""
        return all(self.values.get(name) == value for name, value in plan.items())

    def left_out(self, name: str) -> int:
        """Return how many files or entries are not in the list, by a reason that the stage names."""
        return int(self.values["left_out"].get(name, 0))


def read_frozen(area: Path) -> Frozen | None:
    """Return the frozen plan in a work area; None where there is none, or a damaged one.

    A plan without its list is none: that is what a deletion leaves which was killed, or failed.
    """
    values = read_own(area / PLAN, _PLAN_SHAPE)
    if values is None:
        return None
    try:
        manifest_path(area, values["manifest_sha256"]).lstat()
    except FileNotFoundError:
        return None
    return Frozen(values)


def manifest_path(area: Path, sha256: str) -> Path:
    """Return where the list of files with this sha256 lies."""
    return area / f"manifest-{sha256[:16]}.parquet"


def area_beside(output: Path) -> Path:
    """Return the work area of an output that is replaced as a whole, and so cannot hold it."""
    return output.with_name(f".{output.name}.partial")


def place_in_work(remote: ObjectPath, work: Path | None) -> Path:
    """Return the file in the work folder that stands for an output in an object store.

    Raises:
        ConfigError: No work folder is given.
    """
    if work is None:
        raise ConfigError(
            f"{remote} is in an object store, which keeps no unfinished work and has no locks. Give "
            "--work DIR, a folder on a disk that all tasks of this run share."
        )
    # Two outputs of one name must not meet there.
    digest = hashlib.sha256(str(remote).encode()).hexdigest()[:8]
    return work / f"{printable(remote.name)}-{digest}" / remote.name


def gate(area: Path) -> Path:
    """Return the lock of those who write down a job's list of files."""
    return area.with_name(f"{area.name}-lock")


def remove_gate(area: Path) -> None:
    """Delete what a killed task has left of the gate; hold the output's lock, with no part running."""
    with contextlib.suppress(OSError):  # an empty lock file blocks no run
        gate(area).unlink(missing_ok=True)


def join(
    output: Path,
    lock: Path,
    area: Path,
    plan: Mapping[str, Any],
    freeze: Callable[[], Mapping[str, Any]],
    overwrite: bool,
) -> Frozen:
    """Return the frozen plan of a job; the first task makes it, the others wait for that.

    Args:
        output: What the job makes, for messages.
        lock: That of the output.
        area: Its work area.
        plan: What the job is about, as JSON values.
        freeze: Writes the list of files into `area` and returns the rest of the plan.
        overwrite: Start anew where the area belongs to another job.

    Raises:
        ConfigError: The area belongs to another job, and `overwrite` is not set.
        TryAgainError: A part of that other job is running, or the output is being finished.
    """
    waiting = False
    while True:
        frozen = read_frozen(area)
        if frozen is not None and frozen.has(plan):
            return frozen
        refuse_finishing(output, lock)
        holder = find_holder(gate(area))
        if holder is not None:
            if not waiting:
                log.info("waiting for the list of files, which another task writes (%s)", holder.text)
            waiting = True
            time.sleep(_POLL)
            continue
        try:
            with output_lock(output, gate(area)):
                frozen = read_frozen(area)
                if frozen is None or not frozen.has(plan):
                    refuse_finishing(output, lock)
                    _prepare(output, area, frozen, plan, overwrite)
                    _write_once(area / PLAN, {**plan, **freeze()})
        except TryAgainError:
            if find_holder(gate(area)) is None:
                raise
            time.sleep(_POLL)


def _prepare(
    output: Path, area: Path, frozen: Frozen | None, plan: Mapping[str, Any], overwrite: bool
) -> None:
    """Make the area ready for a new plan; hold the gate."""
    with writing(output):
        if frozen is not None and not overwrite:
            refuse_other_plan(area.name, frozen.values, plan)
        if frozen is not None or (area / PLAN).exists():  # of another job, or damaged
            refuse_running(output, area, gate_too=False)
            new_folder(area)
        elif area.is_symlink() or not area.is_dir():
            new_folder(area)
        area.chmod(0o700)  # names and rows may be those of DICOM files


def _write_once(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file unless it is there: the first one stays."""
    temporary = temporary_name(path)
    with writing(path):
        try:
            write_json(temporary, value, PRIVATE)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
            except OSError as error:  # no hard links there: the gate's lock alone must do
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def refuse_finishing(output: Path, lock: Path) -> None:
    """Raise `TryAgainError` while another command writes `output`, which has this lock."""
    with writing(output):
        holder = find_holder(lock)
    if holder is not None:
        raise TryAgainError(
            f"{output} is in use by {holder.text}: no part of it can be computed meanwhile. Try again "
            "when that run has ended."
        )


def refuse_running(output: Path, area: Path, gate_too: bool = True) -> None:
    """Raise `TryAgainError` while a part of `output` is being computed.

    Where only a heartbeat tells (lock.py), it waits for the next one, or until a dead task's is old.

    Args:
        output: What is to be finished.
        area: Its work area.
        gate_too: Also while a task writes down the list of files.
    """
    before: dict[Path, float] = {}
    while True:
        with writing(output):
            holders = running(area)
        if not gate_too:
            holders.pop(gate(area), None)
        for lock, holder in holders.items():
            if holder.certain or before.setdefault(lock, holder.beat) != holder.beat:
                raise TryAgainError(
                    f"{output} cannot be finished yet: {_task(lock)} is running ({holder.text}). Run "
                    "the same command again when it has ended; what is computed stays."
                )
        if not holders:
            return
        time.sleep(_POLL)


def _task(lock: Path) -> str:
    name = _PART_NAME.fullmatch(f"{lock.stem}.json")
    return f"part {int(name[1])}/{int(name[2])}" if name else "the task that lists the files"


def running(area: Path) -> dict[Path, Holder]:
    """Return who is at work in a work area: {lock file: holder}."""
    locks = [gate(area), *sorted(area.glob("part-*.lock"))]
    holders = ((lock, find_holder(lock)) for lock in locks)
    return {lock: holder for lock, holder in holders if holder is not None}


@contextlib.contextmanager
def at_work(output: Path, lock: Path, area: Path, part: Part) -> Iterator[None]:
    """Hold a part for the length of the block, and leave a note of it for `tumorbatch status`.

    Raises:
        TryAgainError: Another task computes it, or the output is being finished.
    """
    with output_lock(Path(f"part {part} of {output}"), area / part.name("lock")):
        refuse_finishing(output, lock)
        note = {"since": _utc_time(), "host": os.uname().nodename, "pid": os.getpid()}
        write_json(area / part.name("json"), note, PRIVATE)
        yield
        write_json(area / part.name("json"), {**note, "ended": _utc_time()}, PRIVATE)


def _utc_time() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def started(area: Path) -> dict[Part, dict[str, Any]]:
    """Return the notes of the parts that were ever at work: {part: since, host, pid, ended}."""
    notes = {}
    for path in sorted(area.glob("part-*.json")):
        name = _PART_NAME.fullmatch(path.name)
        if name and 1 <= int(name[1]) <= int(name[2]):
            with contextlib.suppress(OSError, ValueError):
                shape = {"since": TEXT, "host": TEXT, "pid": COUNT, "ended?": TEXT}
                notes[Part(int(name[1]), int(name[2]))] = read_object(path, shape)
    return notes


def new_chunk(area: Path, number: int) -> Path:
    """Return the path under which this task publishes a chunk; no other task has the same."""
    return area / f"chunk-{number:08d}-{secrets.token_hex(4)}.parquet"


def find_chunks(area: Path) -> dict[int, list[Path]]:
    """Return the files of finished chunks, {number: one or more}."""
    found: dict[int, list[Path]] = {}
    for path in sorted(area.glob("chunk-*.parquet")):
        name = _CHUNK_NAME.fullmatch(path.name)
        if name:
            found.setdefault(int(name[1]), []).append(path)
    return found
