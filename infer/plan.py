"""What a run is about, which decides whether it continues what an earlier run or a task has left."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tumorbatch import bundle, native
from tumorbatch.bundle import Bundle
from tumorbatch.checks import sorted_formats
from tumorbatch.errors import ConfigError
from tumorbatch.files import FoundFile, printable
from tumorbatch.infer.config import Config
from tumorbatch.infer.listing import LEFT_OUT, Listing, list_files, stream_files
from tumorbatch.infer.target import Target
from tumorbatch.object_path import Location, identity, several
from tumorbatch.parts import area_beside
from tumorbatch.preprocessing_config import DECODE_VERSION
from tumorbatch.runtime import versions
from tumorbatch.secret_key import create_key, read_key

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Images, a model, and a table to make of them.

    Attributes:
        sources: Folders of images, or files.
        target: Of the table.
        model: Folder of the bundle.
        loaded: Its model.json.
        config: How to infer.
    """

    sources: Sequence[Location]
    target: Target
    model: Path
    loaded: Bundle
    config: Config

    @classmethod
    def prepare(
        cls, sources: Location | Sequence[Location], out: Location, model: Path, config: Config
    ) -> "Job":
        """Load the bundle and look at the output, without changing anything.

        Raises:
            InputError: The bundle is missing or damaged.
            ConfigError, OutputError: See `Target`.
        """
        target = Target.choose(out, config.format, config.work)
        loaded = bundle.load(model)
        if config.tta not in (None, loaded.tta):
            log.warning(
                "temperature and threshold were chosen with --tta %s: `tumorbatch evaluate --tta %s` "
                "chooses them anew", loaded.tta, config.tta,
            )  # fmt: skip
        loaded = loaded.with_tta(config.tta)
        if loaded.preprocessing.decode_version != DECODE_VERSION:
            log.warning(
                "this model was trained on images that an earlier version decoded: colour PNGs with a "
                "gAMA chunk and some DICOM files look otherwise now; shard and train again where you "
                "have such"
            )
        target.refuse_missing_folder()
        return cls(several(sources), target, model, loaded, config)

    @property
    def area(self) -> Path:
        """Return the folder of unfinished work."""
        return area_beside(self.target.path)

    def key(self) -> bytes | None:
        """Return the secret that hides the paths of this table, the same in every run, or None."""
        if self.config.path_mode != "hash":
            return None
        path = self.target.path.with_name(f".{self.target.path.name}.key")
        if not path.exists():
            create_key(path)
        return read_key(path)

    def secret(self) -> bytes | None:
        """Return the key of the keyed hashes of DICOM's identifiers, or None."""
        return identity_secret(self.config)

    def settings(self, key: bytes | None) -> dict[str, str]:
        """Return what must be the same for rows that are kept together."""
        secret = self.secret()
        return {
            "preprocessing_fingerprint": self.loaded.preprocessing.fingerprint,
            "formats": ",".join(sorted_formats(self.config.formats)),
            "path_mode": self.config.path_mode,
            "path_key": hashlib.sha256(key).hexdigest()[:12] if key else "",
            **({"identity_key": hashlib.sha256(secret).hexdigest()[:12]} if secret else {}),
        }

    def plan(self, settings: Mapping[str, str]) -> dict[str, Any]:
        """Return what an interrupted run must have been about to be continued."""
        folders = " ".join(self.real_names())
        return {"model_id": self.loaded.model_id, **settings, "folder": folders}

    def real_names(self) -> list[str]:
        """Return the sources without links, as they are named in the plan and the table."""
        return [printable(identity(source)) for source in self.sources]

    def choices(self) -> dict[str, Any]:
        """Return what, besides, decides a list of files that several tasks share, and their rows."""
        selection = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.config.selection).items()
        }
        return {
            "selection": selection,
            "incremental": self.config.incremental,
            "content": self.config.content,
            "software": _software(),  # of every node the same
        }

    def find_files(self, key: bytes | None) -> Listing:
        """List the files of the sources, and log what is left out."""
        own = frozenset(map(identity, self.target.outputs()))
        listing = list_files(self.sources, self.config.selection, own, key)
        _log_left_out(listing.young, listing.future)
        return listing

    def stream_files(self, key: bytes | None, left_out: Counter[str]) -> Iterator[FoundFile]:
        """Yield what `find_files` lists, and count what is left out; hidden names are sorted first."""
        if key is not None:
            listing = self.find_files(key)
            left_out.update({name: getattr(listing, name) for name in LEFT_OUT})
            yield from listing.files
            return
        own = frozenset(map(identity, self.target.outputs()))
        yield from stream_files(self.sources, self.config.selection, own, left_out)
        _log_left_out(left_out["young"], left_out["future"])

    def announce(self) -> None:
        """Log what computes."""
        log.info("model %s from %s", self.loaded.model_id, printable(str(self.model)))
        log.info("images are equalised and resized %s", native.choose().reason)

    def static(self) -> dict[str, Any]:
        """Return what determines the predictions."""
        loaded = self.loaded
        return {
            "model_id": loaded.model_id,
            "model": printable(self.model.name),
            "architecture": loaded.architecture,
            "weights_sha256": loaded.weights_sha256,
            "preprocessing": loaded.preprocessing.to_dict(),
            "classes": [*loaded.classes],
            "threshold": loaded.threshold,
            "temperature": loaded.temperature,
            "tta": loaded.tta,
            "trained_on_leaky_split": bool(loaded.training.get("leaky")),
            "training_shapes_known": "shapes" in loaded.training,
            "versions": _software(),
        }


def identity_secret(config: Config) -> bytes | None:
    """Return the key of the keyed hashes of DICOM's identifiers; make one where there is none.

    Raises:
        ConfigError: The tasks of one table would each make a key of their own.
        InputError, OutputError: See `secret_key`.
    """
    path = config.identity_key
    if path is None:
        return None
    if not os.path.lexists(path):
        if config.part is not None:
            raise ConfigError(
                f"--part needs the same --identity-key in every task, and {path} is not there. Make it "
                f"first: (umask 077; head -c 32 /dev/urandom > {path})"
            )
        create_key(path)
        log.info("a new key for patient_key and the other keys: %s; keep it", printable(str(path)))
    return read_key(path)


def _software() -> dict[str, str]:
    """Return the versions of what decides the predictions."""
    return versions("tensorflow", "keras", "numpy", "opencv-python-headless", "pyarrow", "simplejpeg")


def _log_left_out(young: int, future: int) -> None:
    if young:
        log.info("%d files younger than --min-age are left for the next run", young)
    if future:
        log.info("%d files have a time of change in the future; --min-age passes them", future)
