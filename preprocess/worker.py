"""What a worker process of `shard` does with one file: read, hash, decode, and make its record.

Imported by each worker as it starts, so it imports no more than this takes.
"""

import contextlib
import hashlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.files import is_dicom, read_file
from tumorbatch.machine import blamed
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.pixels import describe, process
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError, Status
from tumorbatch.stores import begin_reading
from tumorbatch.tfrecord import ImageRecord, frame
from tumorbatch.workers import limited

CHUNK = 64  # files a task: 0.15 s of work, 1.5 MB of records


class Task(NamedTuple):
    """One file of a chunk.

    Attributes:
        source: The file.
        expected_sha256: Of its bytes, if the previous set's row and record are still right, or None.
    """

    source: SourceFile
    expected_sha256: str | None = None


class FileResult(NamedTuple):
    """What a worker sends back for one file.

    Attributes:
        row: Values for the journal, without path and class.
        record: The framed TFRecord, or None when there are no pixels, or the previous set has them.
        in_previous_set: The file is as the previous set knows it.
    """

    row: dict[str, Any]
    record: bytes | None
    in_previous_set: bool = False


def status_of(result: FileResult) -> str:
    """Return the status in a file's row."""
    return str(result.row["status"])


def process_files(
    tasks: Sequence[Task],
    preprocessing: Preprocessing,
    secret: bytes,
    seconds: float,
    formats: Collection[str] = IMAGE_FORMATS,
) -> list[FileResult]:
    """Process one chunk of files, in a worker process; a file that takes too long ends it."""
    begin_reading([task.source.file for task in tasks])
    return [_process_file(task, preprocessing, secret, formats) for task in limited(tasks, seconds)]


def _process_file(
    task: Task, preprocessing: Preprocessing, secret: bytes, formats: Collection[str]
) -> FileResult:
    source = task.source
    row: dict[str, Any] = {"status": Status.OK.value}
    try:
        with blamed():
            data, content = read_source(source)
            row |= content
            if row["sha256"] == task.expected_sha256:
                return FileResult({"patient": patient(data, secret)}, None, in_previous_set=True)
            processed = process(data, preprocessing, formats=formats)
            identity = patient(data, secret)
    except FileError as error:
        return FileResult(row | {"status": error.status.value, "error": error.message}, None)
    row |= describe(processed.decoded) | {"flags": ",".join(processed.flags), "patient": identity}
    record = _record(processed.pixels, preprocessing, source, row["sha256"])
    return FileResult(row, frame(record.encode()))


def _record(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, source: SourceFile, sha256: str
) -> ImageRecord:
    """Return an image's record; its first variant is in `image/raw`, the others beside it."""
    height, width = pixels.shape[:2]
    images = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, -1, 0))
    others = zip(preprocessing.channels[1:], (image.tobytes() for image in images[1:]), strict=True)
    return ImageRecord(
        images[0].tobytes(),
        height,
        width,
        source.label,
        source.file.name,
        sha256,
        tuple(sorted(others)),
    )


def read_source(source: SourceFile) -> tuple[bytes, dict[str, Any]]:
    """Read a file's bytes, and return what the manifest says of them; raises as `read_file` does."""
    data, info = read_file(source.file)
    return data, {"file_size": info.size, "sha256": hashlib.sha256(data).hexdigest()}


def patient(data: bytes, secret: bytes) -> str | None:
    """Return a DICOM file's patient as a keyed hash; None for other files or without a patient."""
    if not is_dicom(data):
        return None
    from tumorbatch.preprocess.dicom.decode import patient_key  # pydicom only where it is needed

    with contextlib.suppress(FileError):  # of a file that gave no pixels either
        return patient_key(data, secret)
    return None


def lost_file(task: Task, error: FileError) -> FileResult:
    """Return the result of a file that ended its worker, or took too long."""
    row = {"status": error.status.value, "error": error.message}
    with contextlib.suppress(FileError, OSError):  # a later run must know the file again
        row |= read_source(task.source)[1]
    return FileResult(row, None)
