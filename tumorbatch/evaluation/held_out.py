"""Answers on training and validation images, each by a network that has not been trained on it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.bundle import OUT_OF_FOLD, Bundle
from tumorbatch.errors import InputError
from tumorbatch.evaluation import answers
from tumorbatch.evaluation.answers import Answers, split_images
from tumorbatch.folds import GROUP, SHAPE, SPLITS
from tumorbatch.out_of_fold import OutOfFold, read
from tumorbatch.shardset import Dataset

OUT_OF_FOLD_SPLIT = "out-of-fold"  # in predictions and lists of images
ON = "out-of-fold predictions"  # in the notes on temperature and threshold
ON_SHAPES = "out-of-fold predictions with shapes held out"


def held_out_answers(
    folder: Path, dataset: Dataset, index: NDArray[np.int64], logits: NDArray[np.float32]
) -> Answers:
    """Return logits as answers at temperature 1.

    Args:
        folder: The shard set.
        dataset: Its description.
        index: int64 [n], the image's number among training and validation images, sorted by path.
        logits: float32 [n].

    Raises:
        InputError: The manifest is missing or damaged, or has no such image.
    """
    table = shardset.manifest(folder, dataset, *answers.manifest_columns(dataset))
    rows = table.filter(pc.is_in(table["split"], pa.array(SPLITS, pa.string()))).sort_by("path")
    if len(index) and not 0 <= index.min() <= index.max() < rows.num_rows:
        raise InputError(
            f"{folder} has {rows.num_rows:,} training and validation images, and {OUT_OF_FOLD} names "
            "others. Train the model again."
        )
    images = split_images(folder, dataset, OUT_OF_FOLD_SPLIT, rows.take(index))
    return Answers("", images, logits, temperature=1.0)


def out_of_fold_answers(folder: Path, dataset: Dataset, by: dict[str, OutOfFold]) -> dict[str, Answers]:
    """Return {how the folds were made: answers on all training and validation images}.

    Raises:
        InputError: They are not of all of these images.
    """
    count = sum(dataset.records(split) for split in SPLITS)
    for one in by.values():
        if not one.is_complete(count):
            raise InputError(
                f"{OUT_OF_FOLD} does not hold one logit for each of the {count:,} training and "
                f"validation images in {folder}. Train the model again."
            )
    return {name: held_out_answers(folder, dataset, one.index, one.logit) for name, one in by.items()}


def read_out_of_fold(model: Path, bundle: Bundle, folder: Path, dataset: Dataset) -> dict[str, Answers]:
    """Return the out-of-fold answers that a bundle carries, see `out_of_fold_answers`; {} if none."""
    if not bundle.out_of_fold_sha256:
        return {}
    by = read(model / OUT_OF_FOLD, bundle.out_of_fold_sha256)
    return out_of_fold_answers(folder, dataset, by)


def as_validation(by: dict[str, Answers]) -> Answers:
    """Return those that stand in for the validation split: at home, if there are such."""
    return by.get(GROUP) or by[SHAPE]


def to_choose_on(by: dict[str, Answers]) -> tuple[Answers, str]:
    """Return those on which temperature and threshold are chosen, and what they are, in words.

    With shapes held out, if there are such: a threshold chosen at home misses tumours elsewhere.
    """
    return (by[SHAPE], ON_SHAPES) if SHAPE in by else (by[GROUP], ON)
