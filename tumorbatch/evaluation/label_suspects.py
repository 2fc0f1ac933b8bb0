"""Images whose label a confident model contradicts: an error of the model, or of the label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumorbatch.evaluation.answers import Answers, read_images
from tumorbatch.evaluation.compare_csv import csv_text
from tumorbatch.files import counted, visible
from tumorbatch.labels import CLASS_NAMES, TUMOR
from tumorbatch.report.html import Code, Page, Picture
from tumorbatch.shardset import Dataset

CONFIDENT = 0.9  # calibrated probability of the class that the label is not
MEANING = (
    "In the public set that the report used, Healthy means “not cancer”: of the 24 most confident "
    "“Healthy” errors of a good model, 10 visibly show a lesion or a malformation. Where about 2.5 % "
    "of the labels are in doubt, a difference of that size between two accuracies has no meaning."
)
_HEAD = (
    "path", "split", "label", "called", "prob_tumor", "logit", "group", "copies_in_split", "width",
    "height", "format",
)  # fmt: skip
_SIDE = 150  # pixels of a picture, at least


def label_suspects(answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """Return the images on which a confident model disagrees with the label, most confident first.

    Only held-out images: the model has not been fitted to their labels. One of each duplicate group.

    Args:
        answers: {split: answers at the frozen temperature}; of splits that were not trained on.

    Returns:
        A dictionary for each with path, split, label and called (class names), prob_tumor, logit,
        group, copies_in_split, width, height, format.
    """
    rows: dict[int, dict[str, Any]] = {}
    for split_answers in answers.values():
        images, labels = split_answers.images, split_answers.labels
        probabilities = split_answers.probabilities.astype(np.float64)
        of_label = np.where(labels == TUMOR, probabilities, 1 - probabilities)
        sizes = dict(zip(*np.unique(images.groups, return_counts=True), strict=True))
        for index in np.flatnonzero(of_label <= 1 - CONFIDENT):
            group = int(images.groups[index])
            row = {
                "path": images.paths[index],
                "split": images.split,
                "label": CLASS_NAMES[labels[index]],
                "called": CLASS_NAMES[1 - labels[index]],
                "prob_tumor": float(probabilities[index]),
                "logit": float(split_answers.scores[index]),
                "group": group,
                "copies_in_split": int(sizes[group]),
                "width": int(images.widths[index]),
                "height": int(images.heights[index]),
                "format": images.formats[index],
            }
            if group not in rows or _doubt(row) > _doubt(rows[group]):
                rows[group] = row
    return sorted(rows.values(), key=lambda row: (-_doubt(row), row["path"]))


def _doubt(row: Mapping[str, Any]) -> float:
    """Return how far the logit lies on the wrong side; probabilities of float32 tie near 0 and 1."""
    logit = float(row["logit"])
    return -logit if row["label"] == CLASS_NAMES[TUMOR] else logit


def suspects_csv(suspects: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a suspect, for those who look through them."""
    return csv_text(_HEAD, [[row[name] for name in _HEAD] for row in suspects])


def suspect_pictures(
    folder: Path, dataset: Dataset, suspects: Sequence[Mapping[str, Any]], count: int
) -> list[Picture]:
    """Return pictures of the first suspects, as the network sees them.

    Args:
        folder: The shard set.
        dataset: Its description.
        suspects: From `label_suspects`.
        count: At most so many.

    Raises:
        InputError: A record is damaged.
    """
    import cv2

    chosen = suspects[:count]
    if not chosen:
        return []
    pictures = []
    images = read_images(folder, dataset, [row["path"] for row in chosen])
    for row, image in zip(chosen, images, strict=True):
        scale = max(1, round(_SIDE / image.shape[1]))
        encoded, data = cv2.imencode(".png", image.repeat(scale, 0).repeat(scale, 1))
        if not encoded:
            raise ValueError("the picture cannot be encoded")
        path, copies = visible(row["path"]), row["copies_in_split"]
        times = f", {copies} copies in the split" if copies > 1 else ""
        pictures.append(
            Picture(
                data.tobytes(),
                f"{path}: labelled {row['label']}, the model says {row['called']}",
                f"Labelled {row['label']}, probability of Tumor {row['prob_tumor']:.3f}. {path} "
                f"({row['split']}{times}).",
            )
        )
    return pictures


def add_suspects(
    page: Page, suspects: Sequence[Mapping[str, Any]], pictures: Sequence[Picture]
) -> None:
    """Add the section on label suspects to a report."""
    page.section("Label suspects")
    page.paragraph(MEANING)
    if not suspects:
        page.paragraph(
            f"Here the model does not contradict any label with a probability of {CONFIDENT:g} or more."
        )
        return
    count = len(suspects)
    page.paragraph(
        f"The model contradicts {counted(count, 'label')} of held-out images with a probability of at "
        f"least {CONFIDENT:g}; each group of copies is counted once. Each is an error of the model or "
        "of the label: ask an expert to look at them. All are listed in ",
        Code("label_suspects.csv"), ".",
    )  # fmt: skip
    if pictures:
        page.gallery(pictures)
