"""Networks that stay as they were made: training takes seconds, and what is around it is tested."""

import pytest

from tumorbatch.train.fit import Fit, Fitted


def leave_out_training(patch: pytest.MonkeyPatch, epochs: int = 1) -> None:
    """Let each training end at once, with a history of so many epochs."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc")
    figures = {name: [0.5] * epochs for name in names}
    fitted = Fitted(
        figures, {"training": epochs}, 1, seconds=1.0, images=100, waited=0.1, compiling=1.0
    )
    patch.setattr(Fit, "run", lambda _: fitted)
