"""The report's figures, for notebooks and scripts: from folders, bundles and labels.

Each function returns a matplotlib figure, opens no window, and changes no setting of matplotlib's:

    from tumorbatch import plots
    plots.image_grid("data/raw", "Tumor", seed=0).savefig("tumor.png")

A folder of images holds one folder for each class, as for `tumorbatch shard`; images may have any of
the formats that it reads, and are shown as it decodes them. Functions that must look at every image
take a folder, or what `survey` saw in it, so that several figures need one look:

    seen = plots.survey("data/raw")
    plots.image_properties(seen)
    plots.pixel_intensity(seen)

In a script, put calls with a folder under `if __name__ == "__main__":`, since worker processes start.
This module is for users: nothing in the package imports it. `tumorbatch.report.charts` draws.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch import bundle, shardset
from tumorbatch.errors import InputError, reason
from tumorbatch.json_reader import COUNT, NUMBER, TEXT, Shape, check, read_object
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.report import charts
from tumorbatch.runtime import available_cores
from tumorbatch.status import FileError
from tumorbatch.workers import SECONDS

if TYPE_CHECKING:
    from tumorbatch.files import FoundFile
    from tumorbatch.preprocess.explore.survey import Survey

Folder = str | os.PathLike[str]

_CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc")
_HISTORY_SHAPE: Shape = {**{name: [NUMBER] for name in _CURVES}, TEXT: [NUMBER]}


def survey(
    folder: Folder,
    *,
    classes: Mapping[str, str] | None = None,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
) -> "Survey":
    """Examine every image of a folder once, in worker processes; the memory hardly grows.

    Args:
        folder: With one folder for each class.
        classes: {class name: folder name}, where these are not known spellings.
        preprocessing: Its CLAHE settings count.
        workers: Default: the cores that this process may use.

    Raises:
        InputError: There are no files, or none that can be read.
        ConfigError: Unknown class folders.
    """
    from tumorbatch.preprocess.classes import find_sources
    from tumorbatch.preprocess.explore import survey as stage

    files = find_sources(Path(folder), classes or {})
    preprocessing = preprocessing or Preprocessing()
    surveyed = stage.survey(files, preprocessing, workers or available_cores(), SECONDS)
    if not len(surveyed.index):
        raise InputError(f"None of the {len(files)} files in {folder} can be read.")
    return surveyed


def image(picture: Folder | NDArray[np.uint8], title: str = "") -> Any:
    """Plot one image: a file, or uint8 [height, width].

    Raises:
        InputError: The file cannot be read, with the reason.
        ValueError: The array is not such an image.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or picture.shape[2:] == (3,)):
            raise ValueError(
                "An image is an array uint8 [height, width] or [height, width, 3]. Received: "
                f"{picture.dtype} {list(picture.shape)}."
            )
        return charts.image_grid([picture], title=title)
    from tumorbatch.files import FoundFile, printable, read_file
    from tumorbatch.preprocess.decode import decode

    path = Path(picture)
    try:
        grey = decode(read_file(FoundFile(str(path), path.name))[0]).grey
    except FileError as error:
        raise InputError(f"{path} cannot be shown: {error.message}.") from error
    return charts.image_grid([grey], title=title or printable(path.name))


def random_image(folder: Folder, class_name: str | None = None, seed: int | None = None) -> Any:
    """Plot a random readable image of a folder or of one of its classes, each equally likely.

    Args:
        folder: With one folder for each class; without `class_name` any folder with images.
        class_name: "Healthy" or "Tumor"; None: anything below `folder`.
        seed: The same seed gives the same image of the same folder; None gives any.

    Raises:
        ValueError: Another class name, or no image that can be read.
        InputError: `folder` is missing.
    """
    return image_grid(folder, class_name, 1, seed=seed)


def image_grid(
    folder: Folder,
    class_name: str | None = None,
    count: int = 18,
    columns: int = 6,
    seed: int | None = None,
) -> Any:
    """Plot different random readable images of a folder or of one of its classes, side by side.

    Args:
        folder: As for `random_image`.
        class_name: As for `random_image`.
        count: At most so many images; fewer where there are not so many.
        columns: Images in a row.
        seed: The same seed gives the same images of the same folder; None gives any.

    Raises:
        ValueError: Another class name, or no image that can be read.
        InputError: `folder` is missing.
    """
    from tumorbatch.imaging import sample_images

    if count < 1 or columns < 1:
        raise ValueError(f"At least one image and one column are needed. Received: {count}, {columns}.")
    sample = sample_images(_files(Path(folder), class_name), count, seed)
    if not sample:
        raise ValueError(f"{folder} has no image that can be read. Give a folder with images.")
    names = [file.name.rsplit("/", 1)[-1] for file, _ in sample]
    title = CLASS_NAMES[_label(class_name)] if class_name else ""
    if count == 1:
        title, names = f"{title}: {names[0]}".removeprefix(": "), []
    return charts.image_grid([grey for _, grey in sample], names, columns, title)


def _files(folder: Path, class_name: str | None) -> "Sequence[FoundFile]":
    from tumorbatch.files import find_files
    from tumorbatch.preprocess.classes import find_sources

    if class_name is None:
        return find_files(folder)
    label = _label(class_name)
    return [source.file for source in find_sources(folder, {}) if source.label == label]


def class_distribution(source: "Folder | Survey") -> Any:
    """Plot the number of images of each class: of a shard set per split, otherwise overall.

    Args:
        source: A shard set; what `survey` saw; or a folder with one folder for each class, whose
            images are then looked at, so that what cannot be read is not counted.
    """
    folder = Path(source) if isinstance(source, str | os.PathLike) else None
    if folder is not None and (folder / shardset.DATASET).is_file():
        counts = shardset.load(folder).counts
        every = {
            name: sum(split_counts[name] for split_counts in counts.values()) for name in CLASS_NAMES
        }
        return charts.class_counts({"all": every, **counts})
    labels = _survey_of(source).labels
    counted = np.bincount(labels, minlength=len(CLASS_NAMES)).tolist()
    return charts.class_counts({"all": dict(zip(CLASS_NAMES, counted, strict=True))})


def image_properties(source: "Folder | Survey") -> Any:
    """Plot width and height of the images of each class, from a folder or a survey."""
    surveyed = _survey_of(source)
    heights, widths = (np.array(surveyed.column(name), np.int64) for name in ("height", "width"))
    return charts.image_sizes(heights, widths, surveyed.labels)


def pixel_intensity(source: "Folder | Survey") -> Any:
    """Plot grey value histograms per class before and after CLAHE, from a folder or a survey."""
    before, after = _survey_of(source).histograms.transpose(1, 0, 2)
    return charts.pixel_intensity({"Before CLAHE": before, "After CLAHE": after})


def mean_intensity(source: "Folder | Survey") -> Any:
    """Plot the distribution of mean grey values per class, from a folder or a survey."""
    surveyed = _survey_of(source)
    before, after = surveyed.means
    return charts.image_means({"Before CLAHE": before, "After CLAHE": after}, surveyed.labels)


def training_history(folder: Folder) -> Any:
    """Plot loss and accuracy over the epochs of a model bundle.

    Raises:
        InputError: It is not a bundle, or damaged.
        ConfigError: It was written by another version of the format.
    """
    description = bundle.load(Path(folder))
    path = Path(folder) / bundle.HISTORY
    try:
        history = read_object(path, _HISTORY_SHAPE)
        check(description.training, {"phases": {TEXT: COUNT}, "best_epoch": COUNT}, "training")
        phases, best = description.training["phases"], description.training["best_epoch"]
        epochs = sum(phases.values())
        if {len(values) for values in history.values()} != {epochs} or not 1 <= best <= epochs:
            raise ValueError(f"{bundle.MODEL} says that there were {epochs} epochs, the best {best}")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is missing or damaged: {reason(error)}. Train the model again."
        ) from error
    return charts.training_history(history, phases, best, description.model_id)


def confusion_matrix(
    truth: Sequence[int] | Sequence[str] | NDArray[Any],
    predicted: Sequence[int] | Sequence[str] | NDArray[Any],
    title: str = "Confusion matrix",
) -> Any:
    """Plot counts of each truth and prediction, with scikit-learn's classification report.

    Below it the accuracy with its 95 % interval (Wilson).

    Args:
        truth: n labels, 0 Healthy and 1 Tumor, or n of these names.
        predicted: The same, of the predictions.
        title: Above.

    Raises:
        ValueError: Another label, none at all, or not one prediction for each truth.
    """
    if len(truth) != len(predicted):
        raise ValueError(
            f"There must be one prediction for each truth. Received: {len(predicted)} for {len(truth)}."
        )
    return charts.confusion_matrix(_labels(truth), _labels(predicted), title)


def _labels(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    return np.array([_label(value) for value in values], np.int64)


def _label(value: Any) -> int:
    if isinstance(value, str):
        matching = [name for name in CLASS_NAMES if name.casefold() == value.casefold()]
        if matching:
            return CLASS_NAMES.index(matching[0])
    elif value in (0, 1):
        return int(value)
    raise ValueError(f"A class is 0 or Healthy, 1 or Tumor. Received: {value!r}.")


def _survey_of(source: "Folder | Survey") -> "Survey":
    return survey(source) if isinstance(source, str | os.PathLike) else source
