"""Which folder holds which class, and which split where the source has folders for splits."""

import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tumorbatch import stores
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import FoundFile, find_files, is_litter, printable
from tumorbatch.labels import CLASS_NAMES, TUMOR
from tumorbatch.object_path import Location, ObjectPath

ClassFolders = Mapping[str, str | Sequence[str]]  # {class name: its folder, or its folders}

_SPELLINGS = {
    "Healthy": ("healthy", "no_tumor", "notumor", "no_tumour", "no", "normal"),
    "Tumor": ("tumor", "brain_tumor", "braintumor", "tumour", "brain_tumour", "yes"),
}
# Kinds of tumour that have a folder each in public data sets; together they are the class Tumor.
_SUBTYPES = ("glioma", "meningioma", "pituitary")
_SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_WRAPPERS = 4  # folders inside each other that are looked into for the class folders


def _fold(folder: str) -> str:
    return folder.strip().casefold().replace(" ", "_").replace("-", "_")


def _subtype(folder: str) -> str | None:
    """Return the kind of tumour that a folder's name tells, or None."""
    name = _fold(folder).removesuffix("_tumor").removesuffix("_tumour")
    return name if name in _SUBTYPES else None


def _known_class(folder: str) -> str | None:
    """Return the class that a folder's name tells, or None."""
    if _subtype(folder) is not None:
        return CLASS_NAMES[TUMOR]
    return next((name for name in CLASS_NAMES if _fold(folder) in _SPELLINGS[name]), None)


def split_of_folder(folder: str) -> str | None:
    """Return the split that a folder's name tells, as in `Training` and `test`, or None."""
    return _SPLIT_FOLDERS.get(_fold(folder))


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file and the class whose folder it lies in.

    Attributes:
        file: The file; its name is relative to the source folder.
        label: Index into `CLASS_NAMES`.
        subclass: The known name of the file's class folder, or the folder's own, where folders are
            joined to one class; otherwise None.
        split: One of `SPLITS` by the folder above the class folder, `Training` or the like, or None.
    """

    file: FoundFile
    label: int
    subclass: str | None = None
    split: str | None = None

    def note(self) -> str:
        """Return what the list of a job's files keeps besides the file."""
        return json.dumps([self.label, self.subclass, self.split])

    @classmethod
    def noted(cls, file: FoundFile, note: str) -> "SourceFile":
        """Return the file with what `note` gave."""
        return cls(file, *json.loads(note))


class _Part(NamedTuple):
    """A folder that holds class folders: the source, or one of its folders for splits.

    Attributes:
        prefix: Of the names of its files: "", or the folder's name and "/".
        split: One of `SPLITS`, or None for the source itself.
        present: Names of its visible folders, sorted.
    """

    prefix: str
    split: str | None
    present: list[str]


def find_sources(
    source: Location, class_folders: ClassFolders, litter: list[str] | None = None
) -> list[SourceFile]:
    """Find all files below the class folders of `source`, sorted by name.

    Args:
        source: Contains a folder for each class or kind of tumour, and otherwise only hidden entries,
            litter and files; or contains only folders for splits (`Training`, `Testing`, ...) with
            the class folders inside. A folder, or a prefix in an object store.
        class_folders: {class name: folder name, or several that are joined}. Other classes are found by
            known spellings.
        litter: Gets the paths of the entries that were skipped, as for `find_files`.

    Raises:
        InputError: `source` is missing, or has no files in its class folders.
        ConfigError: A folder's class is not known, two folders claim one class, or one is missing.
    """
    litter = [] if litter is None else litter
    given = {folder for value in class_folders.values() for folder in _several(value)}
    parts = _parts(source, litter, given)
    present = sorted({folder for part in parts for folder in part.present})
    folders = _class_folders(source, present, class_folders)
    joined = any(len({_subclass(folder) for folder in several}) > 1 for several in folders)
    sources = []
    for part in parts:
        for label, several in enumerate(folders):
            for folder in several:
                if folder not in part.present:
                    continue
                subclass = _subclass(folder) if joined else None
                # The class folder's own name goes in front: names are relative to the source.
                for file in find_files(source / f"{part.prefix}{folder}", litter):
                    name = "/".join(text for text in (printable(folder), file.name) if text)
                    named = replace(file, name=printable(part.prefix) + name)
                    sources.append(SourceFile(named, label, subclass, part.split))
    if not sources:
        names = " and ".join(repr(printable(folder)) for several in folders for folder in several)
        raise InputError(f"{source} has no files in its class folders {names}. Put the images there.")
    return sorted(sources, key=lambda entry: entry.file.name)


def class_folder(path: str) -> str:
    """Return the name of the class folder in a file's path relative to the source."""
    first, _, rest = path.partition("/")
    inner, _, more = rest.partition("/")
    return inner if more and split_of_folder(first) is not None else first


def _subclass(folder: str) -> str:
    return _subtype(folder) or printable(folder)


def _several(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _parts(source: Location, litter: list[str], given: Set[str]) -> list[_Part]:
    """Return the folders that hold class folders; litter next to them is added to `litter`."""
    present = _folders(source, litter)
    splits = [split_of_folder(folder) for folder in present]
    if not present or None in splits or not given.isdisjoint(present):
        return [_Part("", None, present)]
    return [
        _Part(f"{folder}/", split, _folders(source / folder, litter))
        for folder, split in zip(present, splits, strict=True)
    ]


def refuse_inside(
    out: Path, source: Location, files: Sequence[SourceFile], class_folders: ClassFolders
) -> None:
    """Raise `ConfigError` where an output would lie among the images, and be read by the next run.

    Hidden folders are not read, nor is anything except the class folders if both are given by name.

    Args:
        out: The output.
        source: Of the images.
        files: In it; a class folder may be a link to somewhere else.
        class_folders: As for `find_sources`.
    """
    if isinstance(source, ObjectPath):
        return
    tops = {str(source / name) for name in {entry.file.name.split("/", 1)[0] for entry in files}}
    parents = {os.path.dirname(entry.file.path) for entry in files}
    whole = set() if len(class_folders) == len(CLASS_NAMES) else {str(source)}
    place = Path(os.path.realpath(out))
    for folder in {os.path.realpath(entry) for entry in whole | tops | parents}:
        inside = place.relative_to(folder).parts if place.is_relative_to(folder) else None
        if inside is not None and not any(part.startswith(".") for part in inside):
            raise ConfigError(
                f"{out} is among the images in {source}: it would be taken for images by the next "
                "run. Give another folder."
            )


def _folders(source: Location, litter: list[str]) -> list[str]:
    """Return the visible folders of `source` by name, sorted; litter next to them goes to `litter`."""
    if isinstance(source, ObjectPath):
        names = stores.folders(source)
        return [name for name in names if not name.startswith(".") and not is_litter(name)]
    try:
        everything = list(source.iterdir())
        litter += [str(entry) for entry in everything if is_litter(entry.name)]
        visible = [entry for entry in everything if not entry.name.startswith(".")]
        entries = [entry for entry in visible if entry.is_dir() and not is_litter(entry.name)]
    except (FileNotFoundError, NotADirectoryError) as error:
        if source.is_file():
            raise InputError(
                f"{source} is a file. Give the folder that holds one folder for each class."
            ) from error
        raise InputError(
            f"{source} is not there. Put the images into {source / CLASS_NAMES[0]} and "
            f"{source / CLASS_NAMES[1]}, name another folder, or make synthetic ones with "
            f"`tumorbatch sample {source}`."
        ) from error
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}.") from error
    return sorted(entry.name for entry in entries)


def _class_folders(source: Location, present: Sequence[str], folders: ClassFolders) -> list[list[str]]:
    """Return the folders of each class.

    Args:
        source: For messages.
        present: The folders that are there, sorted.
        folders: Those that were given.
    """
    listed = ", ".join(repr(printable(name)) for name in present) or "no folders"
    chosen = _given(source, present, folders, listed)
    settled = set(chosen)
    taken = {folder for several in chosen.values() for folder in several}
    # With all classes given, other folders may be anything; otherwise each must be accounted for.
    for folder in present if len(settled) < len(CLASS_NAMES) else ():
        if folder in taken:
            continue
        name = _known_class(folder)
        if name is None:
            _name_wrapped(source, present)
            raise ConfigError(
                f"{source} has a folder {printable(folder)!r}, which is not a known name of "
                f"{' or '.join(CLASS_NAMES)}. Found: {listed}. Say which folder is which with "
                "--class Healthy=FOLDER --class Tumor=FOLDER."
            )
        if name not in settled:
            chosen.setdefault(name, []).append(folder)
    for name in chosen.keys() - settled:
        _refuse_ambiguous(source, name, chosen[name])
    missing = [name for name in CLASS_NAMES if name not in chosen]
    if missing == list(CLASS_NAMES):
        raise InputError(
            f"{source} has no folders for the classes. Found: {listed}. "
            f"Put the images into {source / CLASS_NAMES[0]} and {source / CLASS_NAMES[1]}."
        )
    if missing:
        raise ConfigError(
            f"{source} has no folder for {missing[0]}: both classes are needed. Found: {listed}. "
            f"If a folder has another name, say so with --class {missing[0]}=FOLDER."
        )
    if set(chosen[CLASS_NAMES[0]]) & set(chosen[CLASS_NAMES[1]]):
        raise ConfigError("--class names one folder for both classes; each needs its own.")
    return [chosen[name] for name in CLASS_NAMES]


def _name_wrapped(source: Location, present: Sequence[str]) -> None:
    """Raise `ConfigError` where `source` holds one folder alone, and the class folders lie inside it.

    Archives of public data sets unpack to such folders.
    """
    place = source
    for _ in range(_WRAPPERS):
        if len(present) != 1:
            return
        place = place / present[0]
        present = _folders(place, [])
        known = [_known_class(folder) is not None or split_of_folder(folder) for folder in present]
        if known and all(known):
            listed = ", ".join(repr(printable(name)) for name in present)
            raise ConfigError(
                f"{source} has no folders for the classes, but {place} has: {listed}. Give that folder."
            )


def _given(
    source: Location, present: Sequence[str], folders: ClassFolders, listed: str
) -> dict[str, list[str]]:
    """Return the folders that were given by name, {class: folders}."""
    chosen: dict[str, list[str]] = {}
    for name, value in folders.items():
        match = [class_name for class_name in CLASS_NAMES if class_name.casefold() == name.casefold()]
        if not match:
            raise ConfigError(f"--class takes {' or '.join(CLASS_NAMES)}. Received: {name}.")
        for folder in _several(value):
            if folder not in present:
                raise ConfigError(
                    f"--class {name}={folder}: {source} has no such folder. Found: {listed}."
                )
            if folder not in chosen.setdefault(match[0], []):
                chosen[match[0]].append(folder)
    return chosen


def _refuse_ambiguous(source: Location, name: str, folders: Sequence[str]) -> None:
    """Raise `ConfigError` where folders claim one class, unless each is another kind of tumour."""
    kinds = [_subtype(folder) for folder in folders]
    if len(folders) > 1 and (None in kinds or len(set(kinds)) < len(folders)):
        first, second = (printable(folder) for folder in folders[:2])
        raise ConfigError(
            f"{source} has two folders for {name}: {first!r} and {second!r}. Say which "
            f"one counts with --class {name}=FOLDER, or give --class once for each to join them."
        )
