"""The part of inference that runs in worker processes: files to tensors, one row each."""

import datetime
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumorbatch.files import FoundFile, is_dicom, read_file
from tumorbatch.pool import SECONDS, limited
from tumorbatch.preprocess.pixels import process
from tumorbatch.preprocessing import Preprocessing
from tumorbatch.status import FileError, Status

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Decoded(NamedTuple):
    """What a worker sends back for one file.

    Attributes:
        row: Columns of the predictions that are known without the network.
        pixels: uint8 [size, size], or None when the file gives none.
    """

    row: dict[str, Any]
    pixels: NDArray[np.uint8] | None


def decode_files(
    files: Sequence[FoundFile], preprocessing: Preprocessing, seconds: float = SECONDS
) -> list[Decoded]:
    """The work of one task; a file that takes longer than `seconds` kills its process."""
    return [_decode_file(file, preprocessing) for file in limited(files, seconds)]


def _decode_file(file: FoundFile, preprocessing: Preprocessing) -> Decoded:
    row: dict[str, Any] = {"path": file.name, "status": Status.OK.value}
    try:
        data, info = read_file(file)
        row |= {
            "file_size": info.st_size,
            "mtime": _time(info.st_mtime_ns),
            "sha256": hashlib.sha256(data).hexdigest(),
            # Also of one that cannot be decoded: the table must be private then.
            "format": "dicom" if is_dicom(data) else None,
        }
        done = process(data, preprocessing)
    except FileError as error:
        return Decoded(row | {"status": error.status.value, "error": error.message}, None)
    height, width = done.decoded.grey.shape
    row |= {
        "width": width,
        "height": height,
        "format": done.decoded.header.format,
        "flags": ",".join(done.flags),
    }
    return Decoded(row, done.pixels)


def _time(nanoseconds: int) -> datetime.datetime | None:
    """Whole microseconds, UTC; None beyond the years 1 to 9999, which some file systems allow."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None


def lost(file: FoundFile, error: FileError) -> Decoded:
    """The row of a file that cost the process which decoded it."""
    return Decoded({"path": file.name, "status": error.status.value, "error": error.message}, None)
