"""One pass over a folder of images: what each one is, and the grey values of each class.

For looking at data before anything is made of it. Every file is read, checked, decoded and equalised
by the code that `shard` uses, in worker processes. What is kept of an image is one row; its
histograms are added to those of its class and forgotten, so memory hardly grows with the images.
"""

import functools
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.files import is_dicom, may_name_patient, read_file
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.machine import blamed
from tumorbatch.manifest_schema import ROW_SCHEMA
from tumorbatch.preprocess import duplicates as grouping
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.pixels import describe, equalize
from tumorbatch.preprocess.worker import CHUNK, patient, read_source
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError, Status
from tumorbatch.workers import limited, ordered_map

LEVELS = 256  # grey values of a uint8 image
VERSIONS = ("before", "after")  # of an image, by CLAHE; index = axis `version` of the histograms
_EXACT = 1 << 24  # pixels up to which OpenCV's float32 counts are exact
_VALUES = np.arange(LEVELS, dtype=np.int64)

# What the manifest says of a file, with its class as a label, and the mean grey values.
SCHEMA = pa.schema(
    [
        ROW_SCHEMA.field("path"),
        ("label", pa.int8()),
        *(field for field in ROW_SCHEMA if field.name not in ("path", "class", "file_size")),
        ("mean_before", pa.float64()),
        ("mean_after", pa.float64()),
        ("subclass", pa.string()),
    ]
)
# The keyed hash of a DICOM file's patient joins images into groups, and goes nowhere else.
_ROWS = SCHEMA.append(pa.field("patient", pa.string()))


class _Outcome(NamedTuple):
    """What a worker sends back for one file; histograms: int64 [version, level], None for bad files."""

    row: dict[str, Any]
    histograms: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen; `n` images of the files could be read.

    Attributes:
        rows: `SCHEMA`, one row a file, good or bad, in the order of the files.
        index: int64 [n], the row of each readable image.
        labels: int64 [n], index into `CLASS_NAMES`.
        means: float64 [version, n], mean grey value of each image before and after CLAHE, 0 to 255.
        histograms: int64 [class, version, level], pixels of each grey value, over all images.
        duplicates: int64 [n], group of images that are copies of each other.
        kinds: n of `copies.KINDS`: how an image is a copy of another; None: of none.
        groups: int64 [n], the same with all DICOM files of one patient in one group.
    """

    rows: pa.Table
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    means: NDArray[np.float64]
    histograms: NDArray[np.int64]
    duplicates: NDArray[np.int64]
    kinds: list[str | None]
    groups: NDArray[np.int64]

    def column(self, name: str) -> list[Any]:
        """Return a column of the readable images, n values."""
        values: list[Any] = self.rows[name].take(pa.array(self.index)).to_pylist()
        return values


def survey(
    files: Sequence[SourceFile],
    preprocessing: Preprocessing,
    workers: int,
    seconds: float,
    formats: Collection[str] = IMAGE_FORMATS,
    advance: Callable[[int], None] = lambda _: None,
) -> Survey:
    """Look at every file once. The result does not depend on the number of workers.

    Args:
        files: From `find_sources`.
        preprocessing: Its CLAHE settings count.
        workers: Processes.
        seconds: After so many a file that is still being decoded becomes an error row.
        formats: Of `IMAGE_FORMATS`: the decoders that may run.
        advance: Called with the number of files that are done since the last call.

    Raises:
        TryAgainError: Worker processes cannot start.
    """
    work = functools.partial(
        look_at_files,
        preprocessing=preprocessing,
        secret=secrets.token_bytes(32),
        seconds=seconds,
        formats=formats,
    )
    chunks = (files[at : at + CHUNK] for at in range(0, len(files), CHUNK))
    histograms = np.zeros((len(CLASS_NAMES), len(VERSIONS), LEVELS), np.int64)
    batches = []
    for decoded in ordered_map(work, chunks, workers, _lost, seconds):
        for one in decoded:
            if one.histograms is not None:
                histograms[one.row["label"]] += one.histograms
        batches.append(pa.RecordBatch.from_pylist([one.row for one in decoded], _ROWS))
        advance(len(decoded))
    return _survey(pa.Table.from_batches(batches, _ROWS).combine_chunks(), histograms)


def _survey(rows: pa.Table, histograms: NDArray[np.int64]) -> Survey:
    index = np.flatnonzero(pc.equal(rows["status"], Status.OK.value).to_numpy()).astype(np.int64)
    good = rows.take(pa.array(index))
    duplicates = grouping.join(grouping.Images.from_manifest(good))
    return Survey(
        rows=rows.drop_columns(["patient"]),
        index=index,
        labels=good["label"].to_numpy().astype(np.int64),
        means=np.stack([good[f"mean_{version}"].to_numpy() for version in VERSIONS]),
        histograms=histograms,
        duplicates=duplicates.group,
        kinds=duplicates.kind,
        groups=grouping.unite(duplicates.group, good["patient"].to_pylist()),
    )


def look_at_files(
    sources: Sequence[SourceFile],
    preprocessing: Preprocessing,
    secret: bytes,
    seconds: float,
    formats: Collection[str] = IMAGE_FORMATS,
) -> list[_Outcome]:
    """Examine one chunk of files, in a worker process; a file that takes too long ends it."""
    return [
        _look_at_file(source, preprocessing, secret, formats) for source in limited(sources, seconds)
    ]


def _look_at_file(
    source: SourceFile, preprocessing: Preprocessing, secret: bytes, formats: Collection[str]
) -> _Outcome:
    row = _named(source)
    try:
        with blamed():
            data, content = read_source(source)
            row["format"] = "dicom" if is_dicom(data) else None  # known of broken ones too
            decoded = decode(data, formats=formats)
            after = equalize(decoded.grey, preprocessing)
            histograms = np.stack([histogram(decoded.grey), histogram(after)])
            identity = patient(data, secret)
    except FileError as error:
        return _Outcome({**row, "status": error.status.value, "error": error.message}, None)
    means = (histograms @ _VALUES) / after.size
    row |= content | describe(decoded) | dict(zip(("mean_before", "mean_after"), means, strict=True))
    row |= {"status": Status.OK.value, "flags": ",".join(decoded.flags)}
    return _Outcome({**row, "patient": identity}, histograms)


def _lost(source: SourceFile, error: FileError) -> _Outcome:
    row = _named(source)
    if may_name_patient(source.file):  # the results must be private then, whatever decoded the file
        row["format"] = "dicom"
    return _Outcome({**row, "status": error.status.value, "error": error.message}, None)


def _named(source: SourceFile) -> dict[str, Any]:
    return {"path": source.file.name, "label": source.label, "subclass": source.subclass}


def histogram(grey: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of uint8 [height, width] with each grey value, int64 [256]."""
    total = np.zeros(LEVELS, np.int64)
    flat = grey.reshape(1, -1)
    for at in range(0, grey.size, _EXACT):
        part = cv2.calcHist([flat[:, at : at + _EXACT]], [0], None, [LEVELS], [0, LEVELS])
        total += part.ravel().astype(np.int64)
    return total


def thumbnails(
    sources: Sequence[SourceFile],
    preprocessing: Preprocessing,
    side: int,
    workers: int,
    seconds: float,
    formats: Collection[str] = IMAGE_FORMATS,
) -> list[NDArray[np.uint8] | None]:
    """Return small copies of a few images, before and after CLAHE, made by worker processes.

    Args:
        sources: The files.
        preprocessing: Its CLAHE settings count.
        side: The longer side is made this long, in pixels, where it is longer.
        workers: Processes.
        seconds: Limit for one file.
        formats: Of `IMAGE_FORMATS`: the decoders that may run.

    Returns:
        For each file uint8 [version, height, width], or None if it cannot be read (any more).
    """
    work = functools.partial(
        make_thumbnails, preprocessing=preprocessing, side=side, seconds=seconds, formats=formats
    )
    chunks = (sources[at : at + 8] for at in range(0, len(sources), 8))
    chunks_done = ordered_map(work, chunks, workers, lambda *_: None, seconds)
    return [one for some in chunks_done for one in some]


def make_thumbnails(
    sources: Sequence[SourceFile],
    preprocessing: Preprocessing,
    side: int,
    seconds: float,
    formats: Collection[str],
) -> list[NDArray[np.uint8] | None]:
    """Make one chunk of `thumbnails`, in a worker process."""
    return [_thumbnail(source, preprocessing, side, formats) for source in limited(sources, seconds)]


def _thumbnail(
    source: SourceFile, preprocessing: Preprocessing, side: int, formats: Collection[str]
) -> NDArray[np.uint8] | None:
    try:
        with blamed():
            grey = decode(read_file(source.file)[0], formats=formats).grey
            return np.stack([shrunk(grey, side), shrunk(equalize(grey, preprocessing), side)])
    except FileError:
        return None


def shrunk(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink uint8 [height, width] to a longer side of at most `side`, in proportion."""
    scale = side / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(scale * length)) for length in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
