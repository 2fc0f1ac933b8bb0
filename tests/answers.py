"""Answers that a test makes up: logits and labels given, the rest plain."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tumorbatch.evaluation.answers import Answers, SplitImages


def answers(logits: ArrayLike, labels: ArrayLike, **changes: Any) -> Answers:
    """Return a model's answers on images 000.png, 001.png, ..., each its own group.

    Args:
        logits: [n].
        labels: [n], 0 Healthy, 1 Tumor.
        changes: Attributes of `Answers` or of its images.
    """
    n = len(np.asarray(labels))
    images = SplitImages(
        split="test",
        dataset="d" * 64,
        protocol="group",
        paths=tuple(f"{index:03}.png" for index in range(n)),
        labels=np.array(labels, np.int64),
        groups=np.arange(n),
        widths=np.full(n, 100),
        heights=np.full(n, 80),
        formats=("png",) * n,
    )
    own = {name: value for name, value in changes.items() if name in SplitImages.__slots__}
    others = {name: value for name, value in changes.items() if name not in own}
    plain = Answers(
        "cnn1",
        replace(images, **own),
        np.array(logits, np.float32),
        temperature=1.0,
        architecture="cnn1",
        model_id="cnn1-0123456789ab",
    )
    return replace(plain, **others)
