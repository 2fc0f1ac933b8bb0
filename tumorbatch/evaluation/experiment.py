"""Compare two ways of training: same images, splits and seeds, and one thing different."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch import bundle, shardset
from tumorbatch.bundle_weights import load_network
from tumorbatch.evaluation.answers import Answers, score_split
from tumorbatch.files import counted
from tumorbatch.runtime import resolve
from tumorbatch.scoring import scorer
from tumorbatch.statistics.calibration import DEFAULT_RULE, Rule, calibrate
from tumorbatch.statistics.intervals import REPLICATES, Estimate, Weights, bootstrapped
from tumorbatch.statistics.seeds import Spread, over_seeds, over_seeds_and_images
from tumorbatch.statistics.weighting import Weighting, weightings

MEASURES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


@dataclass(frozen=True, slots=True)
class SeedPair:
    """One measure of one seed, in both arms.

    Attributes:
        seed: Of both trainings.
        first: In the first arm.
        second: In the second.
        difference: First less second, paired: both arms meet the same resampled groups.
    """

    seed: int
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class MeasureCompared:
    """One measure over all seeds.

    Attributes:
        name: A key of `MEASURES`.
        per_group: Whether each group of copies is counted once, or each image.
        pairs: One a seed.
        first: Mean of the first arm, with an interval for other seeds and other images.
        second: Of the second.
        overall: Mean difference, likewise: the result.
        over_seeds: The same with the images taken as given; None with fewer than three seeds.
    """

    name: str
    per_group: bool
    pairs: tuple[SeedPair, ...]
    first: Spread
    second: Spread
    overall: Spread
    over_seeds: Spread | None

    def sentence(self, first: str, second: str) -> str:
        """Return the result as a sentence.

        Args:
            first: Name of the first arm.
            second: Name of the second.
        """
        wording, spread = MEASURES[self.name], self.overall
        arms = ", ".join(
            f"{arm.mean:.3f} ({arm.interval()}) {words}"
            for arm, words in ((self.first, first), (self.second, second))
        )
        unit = "groups of copies, each counted once" if self.per_group else "images"
        start = (
            f"Mean {wording} over {counted(len(self.pairs), 'seed')}, n = "
            f"{self.pairs[0].first.n:,} {unit}: {arms}; difference {spread.mean:+.3f} "
            f"({spread.interval('+')}); 95 % intervals"
        )
        if spread.mean == 0 and spread.standard_error == 0:
            return f"{start}. Both arms are equal on every sample: these images cannot separate them."
        if spread.low is None or spread.high is None:
            return f"{start}. Without an interval, no difference can be shown."
        if spread.low <= 0 <= spread.high:
            return f"{start}. The interval includes 0: no difference was shown."
        better, worse = (first, second) if spread.mean > 0 else (second, first)
        return f"{start}. The {wording} is higher {better} than {worse}."

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "per_seed": [
                {
                    "seed": pair.seed,
                    "first": pair.first.to_dict(),
                    "second": pair.second.to_dict(),
                    "difference": pair.difference.to_dict(),
                }
                for pair in self.pairs
            ],
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "difference": self.overall.to_dict(),
            "difference_over_seeds_alone": self.over_seeds.to_dict() if self.over_seeds else None,
        }


@dataclass(frozen=True, slots=True)
class ArmsCompared:
    """All measures of two arms, in the order of `MEASURES`.

    Attributes:
        per_group: Each group of copies counted once: the headline.
        per_image: Each image counted once.
        n: Test images.
        groups: Of copies among them.
    """

    per_group: list[MeasureCompared]
    per_image: list[MeasureCompared]
    n: int
    groups: int


def answer(model: Path, tfrecords: Path, device: str = "auto") -> Answers:
    """Run a bundle over validation and test of the shard set that it was trained on.

    Its threshold is chosen on validation by the default rule, not taken from the bundle, so that both
    arms are treated alike.

    Args:
        model: The bundle.
        tfrecords: The shard set.
        device: "auto", "cpu" or "gpu".

    Returns:
        Its answers on the test split.

    Raises:
        InputError: The bundle or the shard set is missing or damaged.
    """
    description, dataset = bundle.load(model), shardset.load(tfrecords)
    runtime = resolve(device)
    network = load_network(model, description)
    score = scorer(network, description.training["schedule"]["batch_size"], runtime)
    validation, test = (
        score_split(tfrecords, dataset, split, score) for split in ("validation", "test")
    )
    temperature, threshold = calibrate(validation.scores, validation.labels, Rule.parse(DEFAULT_RULE))
    named = replace(test, name=model.name, architecture=description.architecture)
    return named.at(threshold.value, temperature.value)


def compare_arms(
    seeds: Sequence[int],
    first: Sequence[Answers],
    second: Sequence[Answers],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> ArmsCompared:
    """Compare two arms, seed by seed and over the seeds.

    All trainings of both arms meet the same bootstrap samples of groups, so that what makes images
    hard or easy for all of them cancels out of the differences, and the covariance between seeds can be
    estimated.

    Args:
        seeds: Of the trainings.
        first: A training's answers for each seed.
        second: Those of the other arm, on the same images.
        replicates: Bootstrap samples.
        seed: Of the bootstrap.

    Raises:
        ValueError: The arms do not have an answer for each seed.
    """
    if not seeds or {len(first), len(second)} != {len(seeds)}:
        raise ValueError("both arms must have a training for each seed")
    images = first[0].images
    per_image, per_group = (
        _compared(seeds, (first, second), weighting, replicates, seed)
        for weighting in weightings(images.groups).values()
    )
    return ArmsCompared(per_group, per_image, images.n, images.group_count)


def _compared(
    seeds: Sequence[int],
    arms: tuple[Sequence[Answers], Sequence[Answers]],
    weighting: Weighting,
    replicates: int,
    seed: int,
) -> list[MeasureCompared]:
    measures = [[answers.core_measures for answers in arm] for arm in arms]

    def all_of(weights: Weights) -> dict[str, NDArray[np.float64]]:
        return {
            f"{arm} {number} {name}": values
            for arm in (0, 1)
            for number, each in enumerate(measures[arm])
            for name, values in each(weights).items()
            if name in MEASURES
        }

    drawn = weighting.bootstrap(all_of, replicates, seed)
    compared = []
    for name in MEASURES:
        columns = [
            np.stack([drawn[f"{arm} {number} {name}"] for number in range(len(seeds))], axis=1)
            for arm in (0, 1)
        ]
        pairs = []
        for number, training_seed in enumerate(seeds):
            first, second = (
                measures[arm][number].estimate(name, columns[arm][:, number], weighting)
                for arm in (0, 1)
            )
            values = [math.nan if each.value is None else each.value for each in (first, second)]
            difference = bootstrapped(
                values[0] - values[1], first.n, columns[0][:, number] - columns[1][:, number]
            )
            pairs.append(SeedPair(training_seed, first, second, difference))
        means = np.array([[pair.first.value, pair.second.value] for pair in pairs], np.float64).T
        compared.append(
            MeasureCompared(
                name,
                weighting.per_group,
                tuple(pairs),
                first=over_seeds_and_images(means[0], columns[0], (0.0, 1.0)),
                second=over_seeds_and_images(means[1], columns[1], (0.0, 1.0)),
                overall=over_seeds_and_images(means[0] - means[1], columns[0] - columns[1]),
                over_seeds=over_seeds(means[0] - means[1]),
            )
        )
    return compared
