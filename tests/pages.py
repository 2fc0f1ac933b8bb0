"""Pages for tests that are about something else: small forests, few replicates, figures left out."""

import base64
from collections.abc import Iterator, Sequence

import pytest
from numpy.typing import ArrayLike

from tumorbatch.evaluation import baselines, figures
from tumorbatch.report import style
from tumorbatch.statistics import intervals, weighting

PIXEL = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)  # a PNG file
_REPLICATES = 100
_RESAMPLED = intervals.resampled


def _few(
    groups: ArrayLike, replicates: int = 0, seed: int | Sequence[int] = 0
) -> Iterator[intervals.Weights]:
    return _RESAMPLED(groups, min(replicates or _REPLICATES, _REPLICATES), seed)


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a page's time; tests/report and test_evaluate.py have it all."""
    patch.setattr(style, "png", lambda _: PIXEL)
    for name in ("confusion", "scores", "reliability", "roc", "precision_recall"):
        patch.setattr(figures, name, lambda *_: None)
    patch.setattr(baselines, "_TREES", 20)
    patch.setattr(intervals, "resampled", _few)
    patch.setattr(weighting, "resampled", _few)
