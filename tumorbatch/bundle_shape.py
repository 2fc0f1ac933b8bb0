"""What the JSON files of a bundle hold: members and types, as `json_reader.check` reads them."""

from typing import Any

from tumorbatch.json_reader import (
    COUNT,
    FLAG,
    NULL,
    NUMBER,
    OBJECT,
    SHA256,
    SHARE,
    TEXT,
    Shape,
)

MODEL_SHAPE = {
    "model_id": TEXT,
    "architecture": TEXT,
    "preprocessing": OBJECT,
    "classes": [TEXT],
    "threshold": NUMBER,
    "temperature": NUMBER,
    "weights_sha256": SHA256,
    "known_images_sha256?": TEXT,
    "out_of_fold_sha256?": SHA256,
    "familiarity_sha256?": SHA256,
    "tta?": TEXT,
    "members?": [
        {
            "name": TEXT,
            "architecture": TEXT,
            "weights_sha256": SHA256,
            "model_id": TEXT,
            "weight": NUMBER,
            "channels": [TEXT],
        }
    ],
    "training": {
        "dataset_sha256?": TEXT,
        "split_by?": TEXT,
        "leaky?": FLAG,
        "variants?": [TEXT],
        "weights?": (NULL, {"origin": TEXT, "name": TEXT, "sha256": TEXT}),
        "schedule?": {"seed?": COUNT, "batch_size?": COUNT, TEXT: (NUMBER, FLAG, TEXT)},
        "augmentation?": (NULL, {TEXT: (NUMBER, FLAG)}),
        "epochs?": COUNT,
        "best_epoch?": COUNT,
        "parameters?": COUNT,
        "fold?": {"number": COUNT, "count": COUNT, "by": TEXT},
        "unfamiliar?": {
            "pictures": {TEXT: {"auroc": NUMBER, "flagged": NUMBER}},
            "false_alarms": NUMBER,
        },
        "phases?": {TEXT: COUNT},
        "images_per_second?": NUMBER,
        "shapes?": [TEXT],
    },
    "versions": {TEXT: TEXT},
    "calibration?": OBJECT,
}
# What reports say about `Bundle.calibration`.
CALIBRATION_SHAPE = {
    "split": TEXT,
    "dataset_sha256": TEXT,
    "threshold": {"value": NUMBER, "reached": FLAG, "rule": TEXT, "n": COUNT, "note": TEXT},
    "temperature": {"value": NUMBER, "n": COUNT, "note": TEXT},
}
_FIGURE_SHAPE = {
    "value": (NUMBER, NULL),
    "n": COUNT,
    "low": (NUMBER, NULL),
    "high": (NUMBER, NULL),
    "method": TEXT,
    "low_by_group?": (NUMBER, NULL),
    "high_by_group?": (NUMBER, NULL),
}
_SUMMARISED = ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc")
_FIGURES_SHAPE: dict[str, Any] = {
    "figures": {**dict.fromkeys(_SUMMARISED, _FIGURE_SHAPE), TEXT: _FIGURE_SHAPE},
    "at_0.5": {"figures": {"accuracy": _FIGURE_SHAPE, TEXT: _FIGURE_SHAPE}},
}
_SPLIT_SHAPE = {
    "n": COUNT,
    "healthy": COUNT,
    "tumor": COUNT,
    "groups": COUNT,
    **_FIGURES_SHAPE,
    "per_group?": _FIGURES_SHAPE,
}
AUC_SHAPE: Shape = {"validation": {"figures": {"auc": {"value": SHARE}}}}
METRICS_SHAPE: Shape = {"validation": _SPLIT_SHAPE, "test": _SPLIT_SHAPE}
