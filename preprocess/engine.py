"""What an engine of a cluster does in `shard`: it reads whole chunks of files into records."""

import functools
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence

from tumorbatch.preprocess.shard import Config
from tumorbatch.preprocess.worker import CHUNK, FileResult, Task, lost_file, process_files
from tumorbatch.ray_cluster import Engine
from tumorbatch.workers import ordered_map


def read_files(
    batches: Iterable[Sequence[Task]], config: Config, secret: bytes
) -> Generator[list[FileResult]]:
    """Read files in worker processes, in their order.

    Args:
        batches: Files, so many a call of a worker.
        config: How.
        secret: Of the patients' keyed hashes.
    """
    work = functools.partial(
        process_files,
        preprocessing=config.preprocessing,
        secret=secret,
        seconds=config.timeout,
        formats=config.formats,
    )
    return ordered_map(work, batches, config.workers, lost_file, config.timeout)


def in_batches(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    """Divide the files of a chunk among calls of workers."""
    remaining = iter(tasks)
    while some := list(itertools.islice(remaining, CHUNK)):
        yield some


class Reader(Engine):
    """Worker processes that read.

    Args:
        variables: As for `Engine`.
        config, secret: As for `read_files`; the workers are those of this engine.
    """

    def __init__(self, variables: dict[str, str], config: Config, secret: bytes) -> None:
        super().__init__(variables)
        self._config = config
        self._secret = secret

    def compute(self, work: Sequence[Task]) -> list[FileResult]:
        """Read the files of a chunk."""
        results = read_files(in_batches(work), self._config, self._secret)
        return list(itertools.chain.from_iterable(results))
