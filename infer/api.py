"""Predictions for notebooks and scripts, without a file in between."""

import contextlib
import itertools
import os
import uuid
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from tumorbatch import bundle
from tumorbatch.files import FoundFile, printable
from tumorbatch.infer.batching import predict_files
from tumorbatch.infer.config import Config, Timings
from tumorbatch.infer.listing import found_file, list_files
from tumorbatch.infer.network import Network
from tumorbatch.infer.plan import identity_secret
from tumorbatch.infer.predictions import SCHEMA, footer
from tumorbatch.infer.table import Duplicates
from tumorbatch.infer.work_area import FileRows

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def predict(paths: Paths, model: str | os.PathLike[str], config: Config | None = None) -> pa.Table:
    """Predict a folder's images, or some files.

    A script needs `if __name__ == "__main__":` around the call, for the worker processes;
    a notebook does not.

    Args:
        paths: A folder: its image files, recursively, sorted, with paths below it. Or files: one row
            each (one a frame), in the given order, with the paths as given.
        model: Folder of the model bundle, or its name under models/.
        config: Workers, batch size, device, precision, threads, time limit, and for a folder
            `selection`; the rest is for the command.

    Returns:
        The columns of out.parquet; metadata `tumorbatch.model_id`, threshold and so on.

    Raises:
        InputError: The folder or the bundle is missing, empty or damaged. A bad image is a row.
        ConfigError: There is no GPU where one was asked for.
    """
    with contextlib.closing(batches(paths, model, config)) as pieces:
        tta = config.tta if config else None
        loaded = bundle.load(bundle.find(Path(model))).with_tta(tta)
        return pa.Table.from_batches(pieces, _schema(loaded))


def batches(
    paths: Paths,
    model: str | os.PathLike[str],
    config: Config | None = None,
    rows: int = 1024,
) -> Generator[pa.RecordBatch]:
    """Predict like `predict`, but yield the table in pieces, for sets larger than the memory.

    Args:
        paths, model, config: As for `predict`.
        rows: At least so many a batch, but for the last; a file's frames stay together.
    """
    config = config or Config()
    folder = bundle.find(Path(model))
    loaded = bundle.load(folder).with_tta(config.tta)
    network = Network(folder, loaded, config)
    duplicates = Duplicates()
    schema = _schema(loaded)
    identity = {"model_id": loaded.model_id, "run_id": uuid.uuid4().hex}
    results = predict_files(
        ((file, ()) for file in _files(paths, config)), loaded, network, config.batch_size,
        config.workers, config.seconds,
        config.max_frames, Timings(), network.known, config.formats, identity_secret(config),
        network.load,
    )  # fmt: skip

    def batch(files: Sequence[tuple[FileRows, bool]]) -> pa.RecordBatch:
        flagged = itertools.chain.from_iterable(duplicates.flag(files))
        return pa.RecordBatch.from_pylist([{**identity, **row} for row in flagged], schema)

    waiting: list[tuple[FileRows, bool]] = []
    count = 0
    with contextlib.closing(results):
        for of_file in results:
            waiting.append((of_file, True))
            count += len(of_file)
            if count >= rows:
                yield batch(waiting)
                waiting, count = [], 0
    if waiting:
        yield batch(waiting)


def _schema(loaded: bundle.Bundle) -> pa.Schema:
    return SCHEMA.with_metadata(
        footer(
            {
                "model_id": loaded.model_id,
                "preprocessing_fingerprint": loaded.preprocessing.fingerprint,
                "classes": list(loaded.classes),
                "threshold": loaded.threshold,
                "temperature": loaded.temperature,
                "tta": loaded.tta,
            }
        )
    )


def _files(paths: Paths, config: Config) -> Iterable[FoundFile]:
    if isinstance(paths, str | os.PathLike):
        return list_files(Path(paths), config.selection, frozenset(), None).files
    names = (str(os.fspath(path)) for path in paths)
    return (found_file(name, printable(name)) for name in names)
