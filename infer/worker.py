"""What a worker process of `infer` does: files to tensors, one row a frame."""

import datetime
import functools
import hashlib
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.copies import signature
from tumorbatch.files import FoundFile, is_dicom, may_name_patient, read_file
from tumorbatch.infer import shared_memory
from tumorbatch.infer.config import MAX_FRAMES
from tumorbatch.infer.shared_memory import Place
from tumorbatch.machine import blamed
from tumorbatch.preprocess.pixels import Frames, Processed, is_blank
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import DECIDED_BY_CONTENT, FileError, Status
from tumorbatch.stores import begin_reading
from tumorbatch.workers import SECONDS, limited

Row = dict[str, Any]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class KnownFile(NamedTuple):
    """Where a bundle keeps the images that it was trained on, and the sha256 of that file."""

    path: Path
    sha256: str


class Task(NamedTuple):
    """One file of a chunk.

    Attributes:
        file: What is to be read.
        place: Where the image of its first frame may be put.
        earlier_rows: Rows of an earlier run, to be kept if the file's sha256 is still theirs.
    """

    file: FoundFile
    place: Place | None = None
    earlier_rows: tuple[Row, ...] = ()


class Decoded(NamedTuple):
    """What a worker sends back for one file.

    Attributes:
        rows: One a frame, with the columns that are known without the network.
        pixels: For each row uint8 of `Preprocessing.shape`, or where it lies, or None: no image, or the
            row has its prediction already.
        seconds: What it cost.
    """

    rows: list[Row]
    pixels: list[NDArray[np.uint8] | Place | None]
    seconds: float


def decode_files(
    tasks: Sequence[Task],
    preprocessing: Preprocessing,
    seconds: float = SECONDS,
    max_frames: int = MAX_FRAMES,
    formats: Collection[str] = IMAGE_FORMATS,
    known_file: KnownFile | None = None,
    identity_key: bytes | None = None,
) -> list[Decoded]:
    """Decode one chunk of files; a frame that takes longer than `seconds` kills its process.

    Args:
        tasks: The files.
        preprocessing: What is done to their pixels.
        seconds: A file that takes longer, all its frames together, kills its process.
        max_frames: A file of more pages or frames gets one row, `too_large`.
        formats: Of `IMAGE_FORMATS`: the decoders that may run.
        known_file: Where the bundle keeps what it was trained on: such images are flagged.
        identity_key: Of the keyed hashes of DICOM's identifiers; None: there are none.

    Returns:
        One result for each task, in their order.
    """
    begin_reading([task.file for task in tasks])
    signatures: list[tuple[Row, bytes]] = []
    decoded = [
        _decode_file(
            task,
            preprocessing,
            max_frames,
            formats,
            None if known_file is None else signatures,
            identity_key,
        )
        for task in limited(tasks, seconds)
    ]
    if known_file is not None and signatures:
        rows = [row for row, _ in signatures]
        flags = _known_images(known_file).flags(
            [row["sha256"] for row in rows], [one for _, one in signatures]
        )
        for row, flag in zip(rows, flags, strict=True):
            if flag:
                row["flags"].append(flag)
    return decoded


@functools.lru_cache(maxsize=1)
def _known_images(known_file: KnownFile) -> Any:
    """Return the bundle's known images, read once a process."""
    from tumorbatch.known_images import KnownImages

    return KnownImages.read(known_file.path, known_file.sha256)


def _decode_file(
    task: Task,
    preprocessing: Preprocessing,
    max_frames: int,
    formats: Collection[str],
    signatures: list[tuple[Row, bytes]] | None,
    identity_key: bytes | None,
) -> Decoded:
    """Decode one file; the rows of its images are added to `signatures`, each with its own."""
    started = time.monotonic()
    rows: list[Row] = []
    pixels: list[NDArray[np.uint8] | Place | None] = []
    common: Row = {"path": task.file.name, "status": Status.OK.value, "frame": 1}
    try:
        with blamed():
            data, info = read_file(task.file)
        common |= {
            "file_size": info.size,
            "mtime": to_time(info.mtime_ns),
            "sha256": hashlib.sha256(data).hexdigest(),
            # Also of one that cannot be decoded: the table must be private then.
            "format": "dicom" if is_dicom(data) else None,
        }
        if task.earlier_rows and task.earlier_rows[0]["sha256"] == common["sha256"]:
            current = {name: common[name] for name in ("file_size", "mtime")}
            kept_rows = [{**row, **current} for row in task.earlier_rows]
            return Decoded(kept_rows, [None] * len(kept_rows), time.monotonic() - started)
        with blamed():
            file = Frames(data, preprocessing, formats=formats)
        if file.count > max_frames:
            raise FileError(
                Status.TOO_LARGE,
                f"{file.count:,} frames; the limit is {max_frames:,} (--max-frames)",
            )
        for frame in range(file.count):
            row = common | {"frame": frame + 1}
            try:
                with blamed():
                    processed = file.process(frame)
                    columns, flags = file.identity(frame, identity_key)
            except FileError as error:
                rows.append(row | {"status": error.status.value, "error": error.message})
                pixels.append(None)
                if frame == 0:
                    break  # mostly the file's fault, not this frame's: no thousand rows of it
                continue
            rows.append(row | columns | _described(processed, flags))
            if signatures is not None:
                signatures.append((rows[-1], signature(processed.decoded.grey)))
            pixels.append(processed.pixels)
            place = task.place if frame == 0 else None
            if place is not None and shared_memory.write(place, processed.pixels):
                pixels[0] = place
    except FileError as error:
        if error.status in DECIDED_BY_CONTENT and not task.file.problem:
            # Of one that was not read: empty, or too large. By these the next run knows it again.
            found: Row = {"file_size": task.file.size, "mtime": to_time(task.file.mtime_ns)}
            common = found | common
        rows.append(common | {"status": error.status.value, "error": error.message})
        pixels.append(None)
    return Decoded(rows, pixels, time.monotonic() - started)


def _described(processed: Processed, more_flags: Sequence[str]) -> Row:
    blank = ("blank",) if is_blank(processed.decoded.grey) else ()
    height, width = processed.decoded.grey.shape
    return {
        "width": width,
        "height": height,
        "format": processed.decoded.header.format,
        "flags": sorted((*processed.flags, *more_flags, *blank)),
    }


def to_time(nanoseconds: int) -> datetime.datetime | None:
    """Return whole microseconds, UTC; None outside the years 1 to 9999."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None


def lost(task: Task, error: FileError) -> Decoded:
    """Return the row of a file that killed the process which decoded it."""
    row: Row = {
        "path": task.file.name,
        "frame": 1,
        "status": error.status.value,
        "error": error.message,
    }
    if may_name_patient(task.file):  # the table must be private then, whatever decoded the file
        row["format"] = "dicom"
    return Decoded([row], [None], 0.0)
