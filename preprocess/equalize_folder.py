"""A folder of images, equalised: the same tree of lossless grey PNG files.

The pixels are those that `shard` has before it resizes them: decoded by `decode`, equalised by
`pixels.equalize`, at the image's own size, whatever the format of the file.

    SRC/ward/a.jpg  ->  DST/ward/a.jpg.png       .png is added to every name, a.png becomes a.png.png:
    SRC/ward/a.tif  ->  DST/ward/a.tif.png       so no two files ever get one name
                        DST/equalize.json        written last: without it, unfinished

An output carries its source's time of change. That is how the next run knows which are done: each
appears whole or not at all, so one with the time of its source is that source's, and is kept; after
any change of the source, to a later or an earlier time, it is made again. (Where the two file systems
keep times with different precision, everything is made anew, with the same bytes.)
"""

import errno
import functools
import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from tumorbatch.atomic import (
    PRIVATE,
    atomic_path,
    make_folder,
    remove_temporaries,
    sync_folder,
    write_json,
)
from tumorbatch.checks import (
    IMAGE_FORMATS,
    check_formats,
    check_workers,
    differences,
    refuse_nothing_read,
    sorted_formats,
)
from tumorbatch.errors import ConfigError, InputError, OutputError, cannot_write
from tumorbatch.files import FoundFile, find_files, is_dicom, is_litter, printable, read_file
from tumorbatch.json_reader import read_own
from tumorbatch.lock import lock_inside, output_lock
from tumorbatch.machine import blamed
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.pixels import equalize
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.progress import Progress
from tumorbatch.runtime import available_cores, versions
from tumorbatch.status import NO_ERRORS, FileError, Status, count_errors
from tumorbatch.workers import SECONDS, limited, ordered_map

log = logging.getLogger(__name__)

RESULT = "equalize.json"
SCHEMA_VERSION = 1
_PLAN = ".equalize.json"  # there while DST is unfinished: the settings of what lies in it
_CHUNK = 32  # files a task


@dataclass(frozen=True, slots=True)
class Config:
    """How to equalise a folder.

    Attributes:
        preprocessing: Its CLAHE settings count; size and interpolation come after what is done here.
        workers: Processes; default: the cores that this process may use.
        timeout: Seconds after which a file that is still being decoded becomes an error row.
        overwrite: Delete all PNG files in an output of this command, and start again.
        formats: Of `IMAGE_FORMATS`: the decoders that may run; files in other formats are errors.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    workers: int = field(default_factory=available_cores)
    timeout: float = SECONDS
    overwrite: bool = False
    formats: tuple[str, ...] = IMAGE_FORMATS

    def __post_init__(self) -> None:
        check_workers(self.workers)
        check_formats(self.formats)


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        files: {status: number of files}, and "found" for all of them.
        written: PNG files made in this run.
        files_kept: PNG files that an earlier run had made.
        strays: PNG files without a source; they are left alone.
        unchanged: True when everything was there already.
        bytes: Size of all PNG files that have a source.
        seconds: Wall time.
        litter: Entries of the source that were skipped, as in `find_files`.
    """

    files: dict[str, int]
    written: int
    files_kept: int
    strays: int
    unchanged: bool
    bytes: int
    seconds: float
    litter: int = 0

    @property
    def errors(self) -> int:
        """Return the number of files that gave no PNG file."""
        return count_errors(self.files)


class _Task(NamedTuple):
    """A file, and where its PNG goes."""

    file: FoundFile
    output: str


class _Outcome(NamedTuple):
    """What became of a task: status, reason, whether the PNG was made now, and its size."""

    status: str
    error: str = ""
    written: bool = False
    bytes: int = 0


def run(source: Path, target: Path, config: Config) -> Report:
    """Equalise every image below `source` into `target`, or what is not done yet.

    The bytes of the outputs depend on the sources, the settings and OpenCV's version only. Files
    that cannot be read get no output; each is logged as a warning, with its reason.

    Args:
        source: Read at any depth; entries with a leading dot are skipped.
        target: A separate folder: new, empty, or from an earlier run with the same settings.
        config: How.

    Raises:
        InputError: `source` is missing, has no files, or none that can be read.
        ConfigError: One folder lies in the other, or `target` holds something else.
        OutputError: `target` cannot be written.
        TryAgainError: Another process is writing `target`.
    """
    started = time.monotonic()
    _refuse_nested(target, source)
    litter: list[str] = []
    files = find_files(source, litter)
    if not files:
        raise InputError(f"{source} has no files. Put the images there, or give another folder.")
    _refuse_nested(target, *{Path(file.path).parent for file in files})
    tasks = _tasks(source, target, files)
    settings = {
        "preprocessing": config.preprocessing.before_resizing(),
        "formats": sorted_formats(config.formats),
    }
    make_folder(target)
    with output_lock(target, lock_inside(target)):
        before = _prepare(target, settings, config.overwrite)
        results = _process(tasks, config)
        statuses = Counter(row.status for row in results)
        refuse_nothing_read(((row.status, row.error) for row in results), source)
        strays = sorted(_outputs(target) - {task.output for task in tasks})
        if strays:
            log.warning(
                "PNG files without a source lie in %s: %d, such as %s. They are left alone; delete "
                "them, or start again with --overwrite.",
                target, len(strays), printable(os.path.relpath(strays[0], target)),
            )  # fmt: skip
        counts = {"found": len(files), **dict(sorted(statuses.items()))}
        result = {
            "schema_version": SCHEMA_VERSION,
            **settings,
            "preprocessing_fingerprint": config.preprocessing.fingerprint,
            "files": counts,
            "versions": versions("numpy", "opencv-python-headless", "simplejpeg"),
        }
        write_json(target / RESULT, result)
        try:
            (target / _PLAN).unlink()
        except OSError as error:
            raise cannot_write(target, error) from error
    written = sum(row.written for row in results)
    return Report(
        files=counts,
        written=written,
        files_kept=statuses[Status.OK] - written,
        strays=len(strays),
        unchanged=before == result and not written,
        bytes=sum(row.bytes for row in results),
        seconds=time.monotonic() - started,
        litter=len(litter),
    )


def _refuse_nested(target: Path, *sources: Path) -> None:
    """Raise `ConfigError` where outputs would be inputs of the next run, or lie among them.

    Symbolic links are looked through: a folder below the source may be a link to the target.
    """
    inner = Path(os.path.realpath(target))
    for source in sources:
        outer = Path(os.path.realpath(source))
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise ConfigError(
                f"{target} and {source} are inside each other, or the same folder. Give an output "
                "folder outside the images' folder."
            )


def _tasks(source: Path, target: Path, files: Sequence[FoundFile]) -> list[_Task]:
    tasks = []
    folders = set()
    for file in files:
        # From the path, not the printable name: a name that is not UTF-8 keeps its bytes.
        relative = os.path.relpath(file.path, source) + ".png"
        tasks.append(_Task(file, os.path.join(target, relative)))
        while relative := os.path.dirname(relative):
            folders.add(os.path.join(target, relative))
    for task in tasks:
        if task.output in folders:
            name = printable(os.path.relpath(task.output, target))
            raise ConfigError(
                f"{source} has a folder {name!r}, and a file next to it whose output would have that "
                "name. Rename one of them."
            )
    return tasks


def _prepare(target: Path, settings: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Leave only outputs with `settings` in `target`, and a plan; gives equalize.json's content.

    Raises:
        ConfigError: `target` holds something else, and may not be cleared.
        OutputError: `target` cannot be written.
    """
    finished, plan = (_read_json(target / name) for name in (RESULT, _PLAN))
    record = plan if plan is not None else finished
    names = [path.name for path in target.iterdir()]
    visible = sorted(name for name in names if not name.startswith(".") and not is_litter(name))
    if visible and record is None:
        raise ConfigError(
            f"{target} is not empty (it holds {printable(visible[0])!r}), and was not made by this "
            "command. Give a new or an empty folder."
        )
    # What earlier versions wrote does not say the formats: it was made of all.
    there = {"formats": [*IMAGE_FORMATS], **(record or {})}
    existing = {name: there.get(name) for name in settings} if record else None
    same = existing is not None and not list(differences(existing, settings))
    if visible and not same and not overwrite:
        raise ConfigError(
            f"{target} holds images that were made differently ({existing or 'it is not known how'}; "
            f"asked for: {settings}). Give another output folder, or --overwrite to replace them."
        )
    try:
        for folder, _, _ in os.walk(target):
            remove_temporaries(Path(folder))
        if overwrite and (plan is None or not same):
            # Without settings: if this run is killed now, the next trusts nothing that is there.
            write_json(target / _PLAN, {})
            for output in _outputs(target):
                os.unlink(output)
        write_json(target / _PLAN, settings)
        (target / RESULT).unlink(missing_ok=True)
        sync_folder(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    return finished


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return its content; empty if it is damaged, None if it is missing."""
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    return read_own(path) or {}


def _outputs(target: Path) -> set[str]:
    """Return every PNG file below `target` that is not hidden."""
    outputs = set()
    for folder, folders, names in os.walk(target):
        folders[:] = [name for name in folders if not name.startswith(".")]
        outputs |= {
            os.path.join(folder, name)
            for name in names
            if name.endswith(".png") and not name.startswith(".")
        }
    return outputs


def _process(tasks: Sequence[_Task], config: Config) -> list[_Outcome]:
    rows: list[_Outcome] = []
    work = functools.partial(
        equalize_files,
        preprocessing=config.preprocessing,
        seconds=config.timeout,
        formats=config.formats,
    )
    chunks = (tasks[at : at + _CHUNK] for at in range(0, len(tasks), _CHUNK))
    with Progress("equalize", "images", len(tasks)) as progress:
        for results in ordered_map(work, chunks, config.workers, _lost, config.timeout):
            for task, result in zip(tasks[len(rows) :], results, strict=False):
                if result.status != Status.OK:
                    level = logging.INFO if result.status in NO_ERRORS else logging.WARNING
                    log.log(level, "%s: %s (%s)", task.file.name, result.error, result.status)
                    _remove_outdated(Path(task.output))
            rows += results
            progress.advance(len(results))
    return rows


def _remove_outdated(output: Path) -> None:
    """Delete the PNG of a source that cannot be read any more."""
    try:
        if os.path.isfile(output):
            output.unlink()
    except OSError as error:
        raise cannot_write(output, error) from error


def _lost(_: _Task, error: FileError) -> _Outcome:
    return _Outcome(error.status.value, error.message)


def equalize_files(
    tasks: Sequence[_Task],
    preprocessing: Preprocessing,
    seconds: float,
    formats: Collection[str] = IMAGE_FORMATS,
) -> list[_Outcome]:
    """Equalise one chunk of files, in a worker process; a file that takes too long ends it."""
    return [_equalize_file(task, preprocessing, formats) for task in limited(tasks, seconds)]


def _equalize_file(task: _Task, preprocessing: Preprocessing, formats: Collection[str]) -> _Outcome:
    size = _finished_size(task)
    if size:
        return _Outcome(Status.OK.value, bytes=size)
    try:
        with blamed():
            data, info = read_file(task.file)
            done, png = cv2.imencode(
                ".png", equalize(decode(data, formats=formats).grey, preprocessing)
            )
        if not done:
            raise FileError(Status.DECODE_ERROR, "OpenCV cannot write it as PNG")
        mode = PRIVATE if is_dicom(data) else None
        _write(Path(task.output), png.tobytes(), info.mtime_ns, mode)
    except FileError as error:
        return _Outcome(error.status.value, error.message)
    return _Outcome(Status.OK.value, written=True, bytes=len(png))


def _finished_size(task: _Task) -> int:
    """Return the size of the output if it exists and belongs to its source, otherwise 0."""
    if task.file.problem:
        return 0
    try:
        source, output = os.stat(task.file.path), os.stat(task.output)
    except OSError:
        return 0
    current = stat.S_ISREG(output.st_mode) and source.st_mtime_ns == output.st_mtime_ns
    return output.st_size if current else 0


def _write(path: Path, png: bytes, mtime_ns: int, mode: int | None) -> None:
    try:
        make_folder(path.parent)
        with atomic_path(path, mode) as temporary:
            temporary.write_bytes(png)
            os.utime(temporary, ns=(mtime_ns, mtime_ns))
    except OutputError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG:
            # A trait of this one file, unlike a full disk.
            raise FileError(Status.IO_ERROR, "the name of its PNG file would be too long") from error
        raise
