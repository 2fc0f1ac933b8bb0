"""What helps on images that were not trained on: settings side by side, judged on validation alone.

    python benchmarks/bench_generalisation.py TFRECORDS cnn1
    python benchmarks/bench_generalisation.py TFRECORDS mobilenetv2 --weights FILE

Every line is its own training, with the same split, seed, and number of epochs. The test split
is not looked at: what is chosen here may be tested once.
"""

import argparse
import tempfile
from pathlib import Path

from tumorbatch.statistics.intervals import Estimate
from tumorbatch.train import training
from tumorbatch.train.config import Augmentation, Config, schedule

REPORT = {"shear": 0.2, "zoom": 0.2}
STRONG = {**REPORT, "rotation": 15.0, "shift": 0.1, "contrast": 0.2, "brightness": 0.1}
# Name: (augmentation or None, attributes of the schedule)
SETTINGS: dict[str, tuple[dict[str, float] | None, dict[str, object]]] = {
    "no augmentation": (None, {}),
    "report": (REPORT, {}),
    "strong": (STRONG, {}),
    "report, dropout 0.5": (REPORT, {"dropout": 0.5}),
    "report, weight decay 0.05": (REPORT, {"weight_decay": 0.05}),
    "report, cosine": (REPORT, {"rate": "cosine"}),
    "strong, cosine, dropout 0.5": (STRONG, {"rate": "cosine", "dropout": 0.5}),
    "report, lower rate": (REPORT, {"learning_rate": 3e-4}),
    "strong, lower rate, smoothing 0.1": (STRONG, {"learning_rate": 3e-4, "label_smoothing": 0.1}),
}


def main() -> None:
    """Train with each setting and print one line a setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tfrecords", type=Path)
    parser.add_argument("architecture")
    parser.add_argument("--weights")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), help="names of settings")
    options = parser.parse_args()
    print("setting | validation AUC | accuracy | log loss | best epoch | seconds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(options.only):
            augmentation, attributes = SETTINGS[name]
            times = {"epochs": options.epochs, "patience": options.epochs, **attributes}
            config = Config(
                options.architecture,
                schedule(options.architecture, options.weights, **times),
                None if augmentation is None else Augmentation(**augmentation),  # type: ignore[arg-type]
                weights=options.weights,
            )
            report = training.run(options.tfrecords, Path(folder) / str(number), config)
            figures = report.metrics["validation"]["figures"]
            told = " | ".join(
                Estimate.from_dict(figures[of]).text() for of in ("auc", "accuracy", "log_loss")
            )
            print(
                f"{name} | {told} | {report.bundle.training['best_epoch']} | {report.seconds:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
