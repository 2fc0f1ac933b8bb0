"""A random forest that sees a file's height, width and format, and no pixel.

If it separates the classes, a network may separate them in the same way: by where an image comes from,
and not by what it shows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def metadata_features(
    heights: NDArray[np.integer],
    widths: NDArray[np.integer],
    formats: Sequence[str],
    known_formats: Sequence[str],
) -> NDArray[np.float32]:
    """Return float32 [n, 2 + formats]: height, width, then 1 or 0 for each known format.

    Args:
        heights: int [n], of the files, pixels.
        widths: int [n], likewise.
        formats: n names: jpeg, png, ...
        known_formats: The formats that have a column; an image of another one has only zeros there.
    """
    names = np.array(formats)
    columns = [heights, widths, *(names == name for name in known_formats)]
    return np.column_stack(columns).astype(np.float32)


def fit_forest(
    features: NDArray[np.float32], labels: NDArray[np.int64], trees: int, seed: int, threads: int
) -> Any:
    """Return a fitted `RandomForestClassifier`.

    Args:
        features: float32 [n, features], from `metadata_features`.
        labels: int64 [n], both classes.
        trees: Their number.
        seed: Of the forest.
        threads: For fitting; the result does not depend on them.
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(trees, random_state=seed, n_jobs=threads)
    forest.fit(features, labels)
    # Several threads add the trees' votes in any order, and the last bit with them.
    forest.set_params(n_jobs=1)
    return forest


def tumor_scores(forest: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the forest's probability of Tumor, float64 [n]; at least 0.5 means Tumor."""
    return np.asarray(forest.predict_proba(features)[:, 1], np.float64)
