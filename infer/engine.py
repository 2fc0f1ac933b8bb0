"""What an engine of a cluster does in `infer`: a loaded network that computes whole chunks of files."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tumorbatch import bundle
from tumorbatch.bundle import Bundle
from tumorbatch.infer.batching import FileToPredict, predict_files
from tumorbatch.infer.config import Config, Timings
from tumorbatch.infer.network import Network
from tumorbatch.infer.worker import Row
from tumorbatch.ray_cluster import Engine
from tumorbatch.runtime import processor


def bundle_files(folder: Path, loaded: Bundle) -> dict[str, bytes]:
    """Read what an engine needs of a bundle: {name: content}. The nodes need not see its folder."""
    names = [name for name in loaded.files if (folder / name).is_file()]
    return {name: (folder / name).read_bytes() for name in (bundle.MODEL, *names)}


class Machine(NamedTuple):
    """On what rows were computed, as the table's footer says it."""

    runtime: str
    processor: str
    place_in_batch_matters: bool | None

    @classmethod
    def of(cls, network: Network) -> "Machine":
        """Return what a network has run on in this process."""
        return cls(network.reason, processor()[0], network.place_matters)


class Computed(NamedTuple):
    """The rows of a chunk: of each file, one a frame, in the order of the files."""

    rows: list[list[Row]]
    machine: Machine
    timings: Timings


class Predictor(Engine):
    """A network, and the worker processes that feed it.

    Args:
        variables: As for `Engine`.
        files: The bundle: {name of a file: content}.
        config: How to infer; the workers are those of this engine.
        secret: Of the keyed hashes of DICOM's identifiers, or None.
    """

    def __init__(
        self,
        variables: dict[str, str],
        files: Mapping[str, bytes],
        config: Config,
        secret: bytes | None,
    ) -> None:
        super().__init__(variables)
        self._folder = tempfile.TemporaryDirectory(prefix="tumorbatch-engine-")
        folder = Path(self._folder.name)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        # Several engines may share a node: each takes the cores that it has reserved.
        self._config = replace(config, threads=config.threads or config.workers)
        self._loaded = bundle.load(folder).with_tta(config.tta)
        self._secret = secret
        self._network = Network(folder, self._loaded, self._config)

    def compute(self, work: Sequence[FileToPredict]) -> Computed:
        """Compute the rows of a chunk; the network is loaded once."""
        config, network, timings = self._config, self._network, Timings()
        before = network.loading
        rows = list(
            predict_files(
                work, self._loaded, network, config.batch_size, config.workers, config.seconds,
                config.max_frames, timings, network.known, config.formats, self._secret, network.load,
            )
        )  # fmt: skip
        timings.count_loading(network.loading - before)
        return Computed(rows, Machine.of(network), timings)
