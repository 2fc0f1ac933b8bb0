"""Which folder holds which class."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import FoundFile, find_files, is_litter, printable
from tumorbatch.labels import CLASS_NAMES

_SPELLINGS = {
    "Healthy": ("healthy", "no_tumor", "notumor", "no", "normal"),
    "Tumor": ("tumor", "brain_tumor", "braintumor", "tumour", "brain_tumour", "yes"),
}


def _fold(folder: str) -> str:
    return folder.strip().casefold().replace(" ", "_").replace("-", "_")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file and the class whose folder it lies in.

    Attributes:
        file: The file; its name is relative to the source folder.
        label: Index into `CLASS_NAMES`.
    """

    file: FoundFile
    label: int


def find_sources(
    source: Path, class_folders: Mapping[str, str], litter: list[str] | None = None
) -> list[SourceFile]:
    """Find all files below the class folders of `source`, sorted by name.

    Args:
        source: Contains one folder for each class, and otherwise only hidden entries, litter and files.
        class_folders: {class name: folder name}. Other classes are found by known spellings.
        litter: Gets the paths of the entries that were skipped, as for `find_files`.

    Raises:
        InputError: `source` is missing, or has no files in its class folders.
        ConfigError: A folder's class is not known, two folders claim one class, or one is missing.
    """
    litter = [] if litter is None else litter
    folders = _class_folders(source, class_folders, litter)
    sources = []
    for label, folder in enumerate(folders):
        # The class folder's own name goes in front, so that names are relative to the source.
        for file in find_files(source / folder, litter):
            name = "/".join(part for part in (printable(folder), file.name) if part)
            sources.append(SourceFile(replace(file, name=name), label))
    if not sources:
        raise InputError(
            f"{source} has no files in its class folders {' and '.join(map(repr, folders))}. "
            "Put the images there."
        )
    return sorted(sources, key=lambda entry: entry.file.name)


def refuse_inside(
    out: Path, source: Path, files: Sequence[SourceFile], class_folders: Mapping[str, str]
) -> None:
    """Raise `ConfigError` where an output would lie among the images, and be read by the next run.

    Hidden folders are not read, nor is anything except the class folders if both are given by name.

    Args:
        out: The output.
        source: Of the images.
        files: In it; a class folder may be a link to somewhere else.
        class_folders: As for `find_sources`.
    """
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


def _folders(source: Path, litter: list[str]) -> list[str]:
    """Return the visible folders of `source` by name, sorted; litter next to them goes to `litter`."""
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


def _class_folders(source: Path, folders: Mapping[str, str], litter: list[str]) -> list[str]:
    """Return the folder of each class; litter next to them is added to `litter`."""
    present = _folders(source, litter)
    listed = ", ".join(repr(printable(name)) for name in present) or "no folders"
    chosen: dict[str, str] = {}
    for name, folder in folders.items():
        match = [class_name for class_name in CLASS_NAMES if class_name.casefold() == name.casefold()]
        if not match:
            raise ConfigError(f"--class takes {' or '.join(CLASS_NAMES)}. Received: {name}.")
        if folder not in present:
            raise ConfigError(f"--class {name}={folder}: {source} has no such folder. Found: {listed}.")
        chosen[match[0]] = folder
    settled = set(chosen)
    # With all classes given, other folders may be anything; otherwise each must be accounted for.
    for folder in present if len(settled) < len(CLASS_NAMES) else ():
        if folder in chosen.values():
            continue
        classes = [name for name in CLASS_NAMES if _fold(folder) in _SPELLINGS[name]]
        if not classes:
            raise ConfigError(
                f"{source} has a folder {printable(folder)!r}, which is not a known name of "
                f"{' or '.join(CLASS_NAMES)}. Found: {listed}. Say which folder is which with "
                "--class Healthy=FOLDER --class Tumor=FOLDER."
            )
        if classes[0] in settled:
            continue
        if classes[0] in chosen:
            raise ConfigError(
                f"{source} has two folders for {classes[0]}: {chosen[classes[0]]!r} and "
                f"{folder!r}. Say which one counts with --class, or merge them."
            )
        chosen[classes[0]] = folder
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
    if chosen[CLASS_NAMES[0]] == chosen[CLASS_NAMES[1]]:
        raise ConfigError("--class names one folder for both classes; each needs its own.")
    return [chosen[name] for name in CLASS_NAMES]
