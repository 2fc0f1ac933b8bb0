"""Figures of a binary classifier, from logits and labels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tumorbatch.scoring import probability
from tumorbatch.statistics import wilson
from tumorbatch.train.measures import pointwise_log_loss


def log_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean binary cross-entropy in nats, computed from logits without overflow.

    Args:
        logits: float32 [n].
        labels: int64 [n], 0 or 1.
    """
    return float(pointwise_log_loss(logits, labels).mean())


def binary_metrics(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    threshold: float,
    temperature: float,
) -> dict[str, Any]:
    """Counts and figures; Tumor is the positive class.

    Args:
        logits: float32 [n].
        labels: int64 [n], 0 Healthy, 1 Tumor; both occur.
        threshold: A probability of at least this much counts as Tumor.
        temperature: Divides the logits.

    Returns:
        n, confusion (tn, fp, fn, tp), accuracy with its 95 % Wilson interval, precision, recall and
        f1 (0 where undefined), auc, log_loss and brier, as JSON values.
    """
    probabilities = probability(logits, temperature)
    positive = probabilities >= np.float32(threshold)
    truth = labels == 1
    tp, fp = int((positive & truth).sum()), int((positive & ~truth).sum())
    fn, tn = int((~positive & truth).sum()), int((~positive & ~truth).sum())
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    return {
        "n": len(labels),
        "accuracy": (tp + tn) / len(labels),
        "accuracy_95": list(wilson(tp + tn, len(labels))),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "auc": float(roc_auc_score(labels, logits)),
        "log_loss": log_loss((logits / temperature).astype(np.float32), labels),
        "brier": float(np.mean((probabilities.astype(np.float64) - labels) ** 2)),
        "confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
    }
