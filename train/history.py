"""A training's history as a table, as a figure, and for TensorBoard."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tumorbatch.errors import ConfigError
from tumorbatch.report import charts
from tumorbatch.report import style as figures


def csv(history: Mapping[str, Sequence[float]]) -> str:
    """Return the history as CSV, one row per epoch; `epoch` counts from 1."""
    lines = [",".join(("epoch", *history))]
    for epoch, values in enumerate(zip(*history.values(), strict=True), 1):
        lines.append(",".join((str(epoch), *(f"{value:.9g}" for value in values))))
    return "\n".join(lines) + "\n"


def png(
    history: Mapping[str, Sequence[float]], phases: Mapping[str, int], best_epoch: int, title: str
) -> bytes:
    """Draw `charts.training_history` as a PNG file."""
    return figures.png(charts.training_history(history, phases, best_epoch, title))


def board(folder: Path) -> Callable[[int, Mapping[str, float]], None]:
    """Return a function that adds an epoch's metrics to TensorBoard's event files in `folder`.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ConfigError("--tensorboard needs TensorBoard: pip install tensorboard.") from error
    writer = Writer(str(folder))

    def add(epoch: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return add
