"""The figures of `explore`, and the sample images in them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.copies import ALTERED, TURNED
from tumorbatch.copies import thumbnails as thumbnails_of
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.explore.survey import VERSIONS, Survey, thumbnails
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.report import charts, style

CLASSES, SIZES, GREY, MEANS = (
    "class_counts.png",
    "image_sizes.png",
    "grey_values.png",
    "image_means.png",
)
SAMPLES = tuple(f"samples_{name.lower()}.png" for name in CLASS_NAMES)
CLAHE, DUPLICATES, COPIES = "clahe.png", "duplicates.png", "copies.png"
TITLES = ("Before CLAHE", "After CLAHE")

_SAMPLES = 18  # of each class: three rows of six
_PAIRS = 3  # of each class, before and after CLAHE
_COPIES = 12  # of the largest group
_GROUPS = 9  # of which a mirrored, turned or altered pair is shown
_SIDE = 300  # pixels of an image in a figure


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was drawn.

    Attributes:
        png: {file name: PNG file}.
        samples: {what: paths of the images that are shown, in their order}.
    """

    png: dict[str, bytes]
    samples: dict[str, list[str]]


def draw(
    survey: Survey,
    results: Mapping[str, Any],
    files: Sequence[SourceFile],
    preprocessing: Preprocessing,
    seed: int,
    workers: int,
    seconds: float,
    formats: Collection[str],
) -> Pictures:
    """Draw all figures; worker processes make the small images in them.

    Args:
        survey: Of `files`.
        results: From `findings`.
        files: As they were surveyed.
        preprocessing: Its CLAHE settings count.
        seed: Of the choice of samples.
        workers: Processes.
        seconds: Limit for one file.
        formats: Of `IMAGE_FORMATS`: the decoders that may run.
    """
    samples = [_choose(survey, label, seed) for label in range(len(CLASS_NAMES))]
    copies = _example_group(survey)
    pairs = _example_pairs(survey)
    groups = [*samples, pairs, copies]
    small = thumbnails(
        [files[survey.index[image]] for chosen in groups for image in chosen],
        preprocessing,
        _SIDE,
        workers,
        seconds,
        formats,
    )
    # A file that has changed since gives none: it is left out.
    paths = survey.column("path")
    sections = []
    for chosen in groups:
        thumbnails_of_name, small = small[: len(chosen)], small[len(chosen) :]
        sections.append(
            [
                (paths[image], two)
                for image, two in zip(chosen, thumbnails_of_name, strict=True)
                if two is not None
            ]
        )
    histograms = {title: survey.histograms[:, at] for at, title in enumerate(TITLES)}
    means = {title: survey.means[at] for at, title in enumerate(TITLES)}
    heights, widths = (np.array(survey.column(name), np.int64) for name in ("height", "width"))
    drawn: dict[str, Any] = {
        CLASSES: charts.class_counts(class_counts(results)),
        SIZES: charts.image_sizes(heights, widths, survey.labels),
    }
    for label, name in enumerate(SAMPLES):
        if sections[label]:
            drawn[name] = _grid(sections[label], CLASS_NAMES[label])
    drawn[GREY] = charts.pixel_intensity(histograms)
    drawn[MEANS] = charts.image_means(means, survey.labels)
    pairs_of_class = [
        (name, two) for label, name in enumerate(CLASS_NAMES) for _, two in sections[label][:_PAIRS]
    ]
    if pairs_of_class:
        drawn[CLAHE] = _before_and_after(pairs_of_class)
    if len(sections[-2]) == len(pairs) > 0:  # a pair of one image shows nothing
        drawn[COPIES] = _grid(sections[-2], "Mirrored, turned or altered copies, in pairs")
    if sections[-1]:
        size = int(np.bincount(survey.duplicates).max())
        drawn[DUPLICATES] = _grid(
            sections[-1], f"{len(sections[-1])} of {size} images of the largest group"
        )
    names = [*(name.lower() for name in CLASS_NAMES), "copies", "largest_group"]
    return Pictures(
        {name: style.png(figure) for name, figure in drawn.items()},
        {name: [path for path, _ in chosen] for name, chosen in zip(names, sections, strict=True)},
    )


def class_counts(results: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return {"all" or a split: {class name: images}} of these images; no empty splits."""
    splits = results["splits"]
    in_splits = splits is not None and splits["source_images_in_it"]
    return {"all": results["classes"], **(splits["counts"] if in_splits else {})}


def _choose(survey: Survey, label: int, seed: int) -> NDArray[np.int64]:
    """Choose up to `_SAMPLES` images of a class, each equally likely."""
    of_class = np.flatnonzero(survey.labels == label)
    return np.random.default_rng([seed, label]).permutation(of_class)[:_SAMPLES]


def _example_group(survey: Survey) -> NDArray[np.int64]:
    """Return the first images of the largest duplicate group; none without copies."""
    sizes = np.bincount(survey.duplicates)
    if sizes.max() < 2:
        return np.empty(0, np.int64)
    return np.flatnonzero(survey.duplicates == sizes.argmax())[:_COPIES]


def _example_pairs(survey: Survey) -> NDArray[np.int64]:
    """Return two images each of the first groups with a turned or altered copy, one after the other.

    The second is the one of its group whose signature differs most from that of the first.
    """
    kinds = np.array([kind in (TURNED, ALTERED) for kind in survey.kinds], np.bool_)
    groups = list(dict.fromkeys(survey.duplicates[kinds].tolist()))[:_GROUPS]
    signatures = survey.column("signature")
    chosen: list[int] = []
    for group in groups:
        members = np.flatnonzero(survey.duplicates == group)
        pictures = thumbnails_of([signatures[member] for member in members]).astype(np.int64)
        away = np.abs(pictures - pictures[0]).sum(axis=(1, 2))
        chosen += [int(members[0]), int(members[away.argmax()])]
    return np.array(chosen, np.int64)


def _grid(pictures: Sequence[tuple[str, NDArray[np.uint8]]], title: str) -> Any:
    images = [two[VERSIONS.index("before")] for _, two in pictures]
    return charts.image_grid(images, [path for path, _ in pictures], title=title)


def _before_and_after(pairs: Sequence[tuple[str, NDArray[np.uint8]]]) -> Any:
    images = [two[at] for at in range(len(VERSIONS)) for _, two in pairs]
    titles = [f"{name}, {version}" for version in VERSIONS for name, _ in pairs]
    return charts.image_grid(images, titles, len(pairs), "Above: before CLAHE. Below: after CLAHE.")
