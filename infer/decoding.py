"""The part of inference that runs in worker processes: files to tensors, one row each."""

import datetime
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumorbatch.files import FoundFile, read_file
from tumorbatch.preprocess.pixels import process
from tumorbatch.preprocessing import Preprocessing
from tumorbatch.status import FileError, Status


class Decoded(NamedTuple):
    """What a worker sends back for one file.

    Attributes:
        row: Columns of the predictions that are known without the network.
        pixels: uint8 [size, size], or None when the file gives none.
    """

    row: dict[str, Any]
    pixels: NDArray[np.uint8] | None


def decode_files(files: Sequence[FoundFile], preprocessing: Preprocessing) -> list[Decoded]:
    """The work of one task."""
    return [_decode_file(file, preprocessing) for file in files]


def _decode_file(file: FoundFile, preprocessing: Preprocessing) -> Decoded:
    row: dict[str, Any] = {"path": file.name, "status": Status.OK.value}
    try:
        data, info = read_file(file)
        mtime = datetime.datetime.fromtimestamp(info.st_mtime_ns // 1000 / 1e6, datetime.UTC)
        row |= {
            "file_size": info.st_size,
            "mtime": mtime,
            "sha256": hashlib.sha256(data).hexdigest(),
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


def crashed(file: FoundFile) -> Decoded:
    """The row of a file that killed the process which decoded it."""
    message = "the process that decoded it was killed, by a crash or for memory"
    row = {"path": file.name, "status": Status.DECODER_CRASH.value, "error": message}
    return Decoded(row, None)
