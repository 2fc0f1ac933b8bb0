"""Where the predictions go: what may be replaced, and how the table is written."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch import stores
from tumorbatch.atomic import make_folder, real_folder, recover_folder, was_set_aside, writing
from tumorbatch.checks import IMAGE_FORMATS, differences
from tumorbatch.errors import ConfigError, InputError, OutputError, TumorBatchError
from tumorbatch.files import foreign_entries, is_empty, printable
from tumorbatch.infer.predictions import (
    CONTINUED,
    PARTS,
    SCHEMA_VERSION,
    SUCCESS,
    PredictionsWriter,
    read_metadata,
    recover_sidecar,
    sidecar_path,
)
from tumorbatch.infer.writers import DatasetWriter, TextWriter, Writer
from tumorbatch.json_reader import TEXT, read_object
from tumorbatch.object_path import Location, ObjectPath
from tumorbatch.parts import place_in_work

_SUFFIXES = {
    "": "parquet", ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}  # fmt: skip


def _format_of(path: Path) -> str:
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError as error:
        known = ", ".join(suffix for suffix in _SUFFIXES if suffix)
        raise ConfigError(
            f"{printable(path.name)}: {printable(path.suffix)} is not the suffix of a table. Give "
            f"one of {known}, or choose with --format."
        ) from error


@dataclass(frozen=True, slots=True)
class Target:
    """The output of a run.

    Attributes:
        path: A file, or a folder that holds the table and nothing else. Never a link to a folder, but
            the folder: two runs that come to it by different names meet at one lock.
        format: "parquet", "dataset", "csv" or "jsonl".
        remote: Where the table goes when it is whole, if OUT is in an object store; `path` is then a
            file in the work folder.
    """

    path: Path
    format: str
    remote: ObjectPath | None = None

    @property
    def shown(self) -> str:
        """Return the name of the output, as it was given."""
        return str(self.remote or self.path)

    @classmethod
    def choose(cls, path: Location, format: str, work: Path | None = None) -> "Target":
        """Choose `format`, or by the name of `path` if `format` is "auto".

        Raises:
            ConfigError: `path` is a folder with other files in it, a device, a pipe, or has no name,
                or its suffix is not known.
            OutputError: It is a link in a circle.
        """
        if isinstance(path, ObjectPath):
            return cls._in_store(path, format, work)
        if work is not None:
            raise ConfigError("--work is for an OUT in an object store: leave it out.")
        if format == "auto":
            folder = path.is_dir() or was_set_aside(path)
            format = "dataset" if folder else _format_of(path)
        if path.name in ("", ".."):
            raise ConfigError(f"{path} is a folder that is not replaced. Give a name in it.")
        if path.is_dir():
            if format != "dataset":
                raise ConfigError(f"{path} is a folder. Give a file's name: {path}/out.parquet.")
            own = {SUCCESS, *(part.name for part in path.glob(PARTS))}
            foreign = foreign_entries(path, own)
            unfinished = not foreign and not is_empty(path) and not (path / SUCCESS).is_file()
            if foreign or unfinished:
                content = f"other files ({foreign})" if foreign else "half a table"
                raise ConfigError(
                    f"{path} is a folder with {content} in it. Give the name of a file in it, such as "
                    f"{path}/out.parquet, or its own folder for the table."
                )
        elif path.exists() and not path.is_file():
            raise ConfigError(f"{path} is not a regular file. Give another name.")
        elif path.exists() and format == "dataset":
            raise ConfigError(f"{path} is a file, and the table is to be a folder. Give another name.")
        return cls(real_folder(path) if format == "dataset" else path, format)

    @classmethod
    def _in_store(cls, remote: ObjectPath, format: str, work: Path | None) -> "Target":
        """Choose for an output in an object store, which has no locks and no renames."""
        format = _format_of(Path(remote.name)) if format == "auto" else format
        if format == "dataset" or not remote.key:
            raise ConfigError(
                f"{remote} would be a folder, which an object store cannot replace in one step. Give "
                "the name of a file, such as s3://bucket/out.parquet."
            )
        return cls(place_in_work(remote, work), format, remote)

    def refuse_missing_folder(self) -> None:
        """Raise `OutputError` if the folder of the output does not exist: its name may be mistyped."""
        folder = self.path.parent.parent if self.remote else self.path.parent
        if not folder.exists():
            raise OutputError(
                f"Cannot write {printable(str(self.path))}: the folder {printable(str(folder))} does "
                "not exist. Create it, or correct the name."
            )
        if self.remote:
            make_folder(self.path.parent)

    def recover(self, overwrite: bool) -> None:
        """Finish, or undo, the commit of a run that was killed in it. Hold the lock.

        A table that is in an object store comes into the work folder; not if it is to be overwritten.

        Raises:
            OutputError: What it left cannot be renamed or deleted; the store refuses access.
            TryAgainError: The store does not answer.
        """
        if self.format == "dataset":
            recover_folder(self.path)
        else:
            recover_sidecar(self.path)
        if self.remote:
            self._remove_copy()
            self._bring(() if overwrite else self._files())

    def bring(self) -> None:
        """Bring a table that is in an object store into the work folder, for a task to look at.

        Raises:
            OutputError, TryAgainError: As `recover`.
        """
        if self.remote:
            self._bring(self._files())

    def _bring(self, paths: Iterable[Path]) -> None:
        if self.remote is None:
            return
        try:
            stores.check_container(self.remote)
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    stores.fetch(self.remote.beside(path.name), path)
        except InputError as error:
            raise OutputError(str(error)) from error

    def upload(self) -> None:
        """Make the finished table the one in the object store, if OUT is there.

        Raises:
            OutputError, TryAgainError, ConfigError: The store does not take it. The old table is still
                there, and the work area, from which the next run writes it again.
        """
        if self.remote:
            for path in self._files():
                stores.publish(path, self.remote.beside(path.name))
            self._remove_copy()

    def _files(self) -> tuple[Path, Path]:
        return self.path, sidecar_path(self.path)

    def _remove_copy(self) -> None:
        with writing(self.path):
            for path in self._files():
                path.unlink(missing_ok=True)

    def unchanged(self) -> None:
        """Leave the table as it is: of one in an object store, remove the copy that was looked at."""
        if self.remote:
            self._remove_copy()

    def before(self) -> dict[str, str] | None:
        """Return the metadata of the existing table, {name: text}; None without a table.

        Raises:
            ConfigError: There is something else.
        """
        if not self.path.exists():
            return None
        if self.path.is_dir() and is_empty(self.path):
            return None
        try:
            metadata = self._metadata()
        except InputError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno:
                raise  # it cannot be read just now, which says nothing of what it is
            metadata = {}
        if "model_id" not in metadata:
            raise ConfigError(
                f"{self.shown} exists and is not a predictions file. Give another name, or --overwrite."
            )
        return metadata

    def _metadata(self) -> dict[str, str]:
        if self.format in ("parquet", "dataset"):
            return read_metadata(self.path)
        try:
            value = read_object(sidecar_path(self.path), {"file": TEXT, "model_id": TEXT})
        except (FileNotFoundError, ValueError):
            return {}
        except OSError as error:
            raise InputError(f"{sidecar_path(self.path)} cannot be read: {error.strerror}.") from error
        whole = value["file"] == printable(self.path.name)
        return {name: str(content) for name, content in value.items()} if whole else {}

    def refuse_foreign(self, model_id: str) -> dict[str, str] | None:
        """Return `before`; raise `ConfigError` if the table belongs to another model.

        Raises:
            ConfigError: It holds another model's predictions, or something else.
        """
        before = self.before()
        if before is not None and before["model_id"] != model_id:
            raise ConfigError(
                f"{self.shown} holds predictions of model {before['model_id']}; this run would use "
                f"{model_id}. Give another name, --model for that model, or --overwrite."
            )
        return before

    def refuse_no_base(self, before: Mapping[str, str], settings: Mapping[str, str]) -> None:
        """Raise `ConfigError` unless the rows that are there can be kept together with new ones.

        Args:
            before: What `before` gave.
            settings: Values of the footer that must be the same.
        """
        if self.format not in ("parquet", "dataset"):
            raise ConfigError(
                f"--incremental reads the table of the last run, and {self.format} has no checksums "
                "and no types. Write Parquet."
            )
        expected = {"schema_version": str(SCHEMA_VERSION), "identity_key": "", **settings}
        # What earlier versions do not say.
        before = {"formats": ",".join(IMAGE_FORMATS), "identity_key": "", **before}
        if before.get("schema_version") in CONTINUED:
            before["schema_version"] = expected["schema_version"]
        changed = [name for name, *_ in differences(before, expected)]
        if changed:
            raise ConfigError(
                f"{self.shown} was made with another {' and '.join(changed)}: its rows cannot be kept "
                "together with new ones. Give another name, or --overwrite to compute all of it again."
            )

    def writer(self, metadata: Mapping[str, Any]) -> Writer:
        """Return the writer of the new table.

        Args:
            metadata: What is known at the beginning.
        """
        if self.format == "dataset":
            return DatasetWriter(self.path, metadata)
        if self.format == "parquet":
            return PredictionsWriter(self.path)
        return TextWriter(self.path, self.format)

    def bytes(self) -> int:
        """Return the size of the table, bytes; 0 where the file system does not tell it.

        It is asked when the table is published: that it fails then is not the end of the run.
        """
        try:
            if self.remote:
                return stores.size(self.remote)
            parts = self.path.glob(PARTS) if self.format == "dataset" else [self.path]
            return sum(part.stat().st_size for part in parts)
        except (OSError, TumorBatchError):
            return 0

    def outputs(self) -> tuple[Location, ...]:
        """Return the paths that this run writes and may find in its own input folder."""
        if self.remote:
            return (*self._files(), *(self.remote.beside(path.name) for path in self._files()))
        if self.format == "dataset":
            return (self.path / SUCCESS, *self.path.glob(PARTS))
        return (self.path, sidecar_path(self.path))
