"""Test whether a model is better than simple baselines on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.split_metrics import within_file_kinds
from tumorbatch.statistics.auc import auc_difference
from tumorbatch.statistics.intervals import REPLICATES, Estimate
from tumorbatch.statistics.weighting import Weighting, headline, weightings


def measure_baselines(
    model: Answers, baselines: Sequence[Answers], replicates: int = REPLICATES, seed: int = 0
) -> list[dict[str, Any]]:
    """Return each baseline's measures on the test split, and how much higher the model's AUC is.

    Args:
        model: A model's answers.
        baselines: Scored on the same images, and perhaps on others, which do not count.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        For each: name, description; accuracy (at 0.5), auc and auc_difference (model minus baseline,
        paired bootstrap over duplicate groups), `Estimate.to_dict` each; within_file_kinds, see
        `split_metrics.within_file_kinds`; under "per_group" the same with each group counted once;
        beaten: whether the interval of that last difference is above 0. Nothing where the split has
        one class only: there is no AUC.

    Raises:
        ValueError: A baseline was not scored on one of the images.
    """
    if len(np.unique(model.labels)) < 2:
        return []
    rows = []
    for baseline in baselines:
        answers = baseline.on(model.images)
        row: dict[str, Any] = {"name": answers.name, "description": answers.description}
        for key, weighting in weightings(model.groups).items():
            measured = _measured(model, answers, weighting, replicates, seed)
            row |= {key: measured} if key else measured
        low = headline(row)["auc_difference"]["low"]
        rows.append({**row, "beaten": low is not None and low > 0})
    return rows


def _measured(
    model: Answers, baseline: Answers, weighting: Weighting, replicates: int, seed: int
) -> dict[str, Any]:
    measures = baseline.core_measures
    drawn = weighting.bootstrap(measures, replicates, seed)
    difference = auc_difference(
        model.scores, baseline.scores, baseline.labels, weighting, replicates, seed
    )
    return {
        **{
            name: measures.estimate(name, drawn[name], weighting).to_dict()
            for name in ("accuracy", "auc")
        },
        "auc_difference": difference.to_dict(),
        "within_file_kinds": within_file_kinds(baseline, weighting, replicates, seed),
    }


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in words which baselines the model does not beat, or that it beats all.

    Args:
        rows: From `measure_baselines`.
    """
    if not rows:
        return ""
    lost = [row for row in rows if not row["beaten"]]
    if not lost:
        return (
            "The model beats every baseline: the 95 % interval of the difference in AUC is above 0 "
            "each time."
        )
    listed = []
    for row in lost:
        difference = headline(row)["auc_difference"]
        worse = ": it is WORSE" if (difference["high"] or 0) < 0 else ""
        listed.append(f"{row['name']} (AUC difference {Estimate.from_dict(difference).text()}{worse})")
    return (
        f"The model does NOT beat {'; '.join(listed)}. It may have learned no more than what such a "
        "baseline sees: its accuracy does not show that it recognises tumours."
    )


def beyond_metadata(within: Mapping[str, Any]) -> str:
    """Return in words whether the model separates classes that height, width and format cannot.

    Args:
        within: From `split_metrics.within_file_kinds`.
    """
    auc = Estimate.from_dict(within["auc"])
    if auc.value is None:
        return (
            "No combination of height, width and format occurs with both classes in the test split. So "
            "the split cannot show whether the model knows more than the file's metadata."
        )
    text = (
        "Between images of the same height, width and format, where metadata alone has an AUC of 0.5, "
        f"the model's AUC is {auc.text()} (n = {auc.n:,}: {within['pairs']:,} pairs of "
        f"{within['healthy']:,} Healthy and {within['tumor']:,} Tumor images)"
    )
    if auc.low is None:
        return f"{text}: too few independent images for an interval."
    if (auc.high or 1.0) < 0.5:
        return f"{text}: its order is the wrong way round."
    if auc.low <= 0.5:
        return f"{text}: not shown to be better than chance."
    return f"{text}: it knows more than the file's metadata."
