"""The chunks that tasks have computed: one file each, which says what it belongs to."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tumorbatch.errors import InputError, reason
from tumorbatch.files import open_regular, printable
from tumorbatch.infer.predictions import PREFIX, file_schema
from tumorbatch.json_reader import COUNT, TEXT, parse_object
from tumorbatch.parquet_reader import read_footer, read_table
from tumorbatch.parts import Frozen, find_chunks

log = logging.getLogger(__name__)

_NAMES = (
    "plan",
    "chunk",
    "rows",
    "statuses",
    "labels",
    "runtime",
    "processor",
    "place_in_batch_matters",
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The file of a finished chunk.

    Attributes:
        path: Where it is.
        rows: Number of its rows.
        texts: What its footer says; the names are `_NAMES`.
    """

    path: Path
    rows: int
    texts: Mapping[str, str]

    def counts(self, name: str) -> dict[str, int]:
        """Return the numbers by "statuses" or "labels".

        Raises:
            ValueError: They are not numbers.
        """
        return parse_object(self.texts[name].encode(), {TEXT: COUNT})


def read_chunk(path: Path, number: int, frozen: Frozen) -> Chunk:
    """Read a chunk's footer.

    Raises:
        InputError: It is damaged, or belongs to another job or chunk.
    """
    try:
        _, texts = read_footer(path, PREFIX)
        if [texts.get("plan"), texts.get("chunk")] != [frozen.fingerprint, str(number)]:
            raise ValueError("it belongs to another job")
        if not all(name in texts for name in _NAMES):
            raise ValueError("its footer is not complete")
        with open_regular(path) as stream, pq.ParquetFile(stream) as file:
            if texts["rows"] != str(file.metadata.num_rows):
                raise ValueError("it lacks rows")
        chunk = Chunk(path, int(texts["rows"]), texts)
        chunk.counts("statuses"), chunk.counts("labels")
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(str(path))} cannot be used: {reason(error)}.") from error
    return chunk


def sound_chunks(area: Path, frozen: Frozen) -> list[Chunk]:
    """Return one intact file of each finished chunk, by number; delete those that are damaged.

    Those of earlier versions of the table are intact, too.
    """
    sound = []
    for number, paths in sorted(find_chunks(area).items()):
        for path in paths:
            try:
                chunk = read_chunk(path, number, frozen)
                _read_all(chunk)
            except InputError as error:
                log.warning("%s It is computed again.", error)
                path.unlink()
                continue
            sound.append(chunk)
            break
    return sound


def _read_all(chunk: Chunk) -> None:
    """Raise `InputError` where a chunk is damaged; reading verifies all checksums."""
    try:
        if read_table(chunk.path, file_schema(chunk.path)).num_rows != chunk.rows:
            raise ValueError("it lacks rows")
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(str(chunk.path))} cannot be used: {reason(error)}.") from error


def finished_chunk(
    area: Path, number: int, frozen: Frozen, paths: Mapping[int, list[Path]]
) -> Chunk | None:
    """Return a finished chunk, judged by its footer; None: it is to be computed.

    Args:
        area: The work area.
        number: Of the chunk.
        frozen: The plan.
        paths: From `find_chunks`.
    """
    for path in paths.get(number, ()):
        try:
            return read_chunk(path, number, frozen)
        except InputError as error:
            log.warning("%s It is computed again.", error)
    return None
