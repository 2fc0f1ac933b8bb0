"""A comparison of models as two CSV files: one line a model, one line a pair."""

import io
from collections.abc import Sequence
from typing import Any

from tumorbatch.csv_text import Writer
from tumorbatch.evaluation.compare import AT_HALF, MEASURES, PUBLISHED_MEASURES, Comparison
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import PER_GROUP

_DIGITS = 6  # more than any interval is worth, and few enough to read
_ABOUT = (
    "name", "kind", "architecture", "model_id", "protocol", "protocol_key", "leaky", "dataset_sha256",
    "test_images", "test_groups", "threshold",
)  # fmt: skip


def models_csv(comparison: Comparison) -> str:
    """Return one line a model or baseline; shares are 0 to 1, empty where there is none.

    Columns `accuracy_per_group` and so on count each group once, and have the bootstrap's interval;
    columns `accuracy` and so on count each image, with Wilson's interval (`_low`, `_high`) and the
    bootstrap's (`_low_by_group`, `_high_by_group`) for shares.
    """
    head = list(_ABOUT)
    names = (*MEASURES, AT_HALF)
    for name in names:
        head += [f"{name}_{PER_GROUP}{end}" for end in ("", "_low", "_high", "_n")]
    for name in names:
        head += [f"{name}{end}" for end in ("", "_low", "_high", "_n")]
        if name not in ("f1", "auc"):
            head += [f"{name}_low_by_group", f"{name}_high_by_group"]
    reference = PUBLISHED_MEASURES if comparison.has_reference else ()
    head += [f"report_{name}" for name in reference]
    lines = []
    for row in comparison.rows:
        about = row.to_dict()
        about |= {
            "kind": "baseline" if about["baseline"] else "model",
            "test_images": about["n"],
            "test_groups": about["groups"],
        }
        line = [about[name] for name in _ABOUT]
        for name in names:
            line += [*_ends(row.per_group[name]), row.per_group[name].n]
        for name in names:
            estimate = row.per_image[name]
            line += [*_ends(estimate), estimate.n]
            if name not in ("f1", "auc"):
                line += [_rounded(estimate.low_by_group), _rounded(estimate.high_by_group)]
        line += [(row.published or {}).get(name) for name in reference]
        lines.append(line)
    return csv_text(head, lines)


def pairs_csv(comparison: Comparison) -> str:
    """Return one line a pair that was judged on the same images."""
    head = ["first", "second", "protocol", "test_images", "test_groups"]
    for suffix in (f"_{PER_GROUP}", ""):
        for name in ("auc_difference", "accuracy_difference"):
            head += [f"{name}{suffix}{end}" for end in ("", "_low", "_high")]
    head += ["only_first_right", "only_second_right", "mcnemar_p", "mcnemar_p_holm", "mcnemar_method"]
    lines = []
    for pair in comparison.pairs:
        images = pair.first.images
        line: list[Any] = [
            pair.first.name, pair.second.name, pair.first.protocol.name, images.n, images.group_count,
        ]  # fmt: skip
        for difference in (pair.per_group, pair.per_image):
            line += [*_ends(difference.auc), *_ends(difference.accuracy)]
        line += [
            pair.test.first_only, pair.test.second_only, f"{pair.test.p:.4g}",
            f"{pair.p_adjusted:.4g}", pair.test.method,
        ]  # fmt: skip
        lines.append(line)
    return csv_text(head, lines)


def _ends(estimate: Estimate) -> list[float | None]:
    return [_rounded(end) for end in (estimate.value, estimate.low, estimate.high)]


def _rounded(end: float | None) -> float | None:
    return None if end is None else round(end, _DIGITS)


def csv_text(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a CSV file of a head and lines."""
    text = io.StringIO()
    writer = Writer(text)
    for cells in (head, *lines):
        writer.write_row(cells)
    return text.getvalue()
