"""A training's history as a table, as a figure, and for TensorBoard."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from tumorbatch import figures
from tumorbatch.errors import ConfigError

_TRAINING = {"color": figures.BLUE, "linestyle": "-", "label": "training (augmented)"}
_VALIDATION = {"color": figures.VERMILLION, "linestyle": "--", "label": "validation"}
_AUC = {"color": figures.GREEN, "linestyle": ":", "label": "validation AUC"}


def csv(history: Mapping[str, Sequence[float]]) -> str:
    """One row an epoch; `epoch` counts from 1."""
    lines = [",".join(("epoch", *history))]
    for epoch, values in enumerate(zip(*history.values(), strict=True), 1):
        lines.append(",".join((str(epoch), *(f"{value:.9g}" for value in values))))
    return "\n".join(lines) + "\n"


@figures.style()
def png(
    history: Mapping[str, Sequence[float]], phases: Mapping[str, int], best_epoch: int, title: str
) -> bytes:
    """Loss and accuracy over the epochs, as a PNG file.

    Args:
        history: {name: one value an epoch}, with loss, accuracy, val_loss, val_accuracy, val_auc.
        phases: {name: epochs}, in order; a line parts them.
        best_epoch: Whose weights were kept, from 1.
        title: Above.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (loss, accuracy) = figures.subplots(10, 4.2, 1, 2)
    figure.suptitle(title)
    epochs = range(1, len(history["loss"]) + 1)
    marker = "o" if len(epochs) < 3 else ""  # a line of one point would not be seen
    for axes, name, unit in (
        (loss, "loss", "binary cross-entropy (nats)"), (accuracy, "accuracy", "share, or AUC"),
    ):  # fmt: skip
        axes.plot(epochs, history[name], marker=marker, **_TRAINING)
        axes.plot(epochs, history[f"val_{name}"], marker=marker, **_VALIDATION)
        if name == "accuracy":
            axes.plot(epochs, history["val_auc"], marker=marker, **_AUC)
        axes.axvline(best_epoch, color="0.5", linewidth=0.8, label=f"kept: epoch {best_epoch}")
        for before, after in pairwise(_ends(phases)):
            if before and after > before:
                axes.axvline(
                    before + 0.5, color="0.3", linestyle="-.", linewidth=0.8, label=list(phases)[1]
                )
        axes.set(xlabel="epoch", ylabel=unit, title=name if axes is loss else "accuracy and AUC")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    loss.set_ylim(bottom=0)
    return figures.png(figure)


def _ends(phases: Mapping[str, int]) -> list[int]:
    ends = [0]
    for epochs in phases.values():
        ends.append(ends[-1] + epochs)
    return ends


def board(folder: Path) -> Callable[[int, Mapping[str, float]], None]:
    """A function that adds an epoch's figures to TensorBoard's event files in `folder`.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs TensorBoard: pip install 'tumorbatch[tensorboard]'."
        ) from error
    writer = Writer(str(folder))

    def add(epoch: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return add
