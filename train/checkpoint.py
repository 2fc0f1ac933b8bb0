"""What a killed training needs to continue: one file, whole or absent.

32 bytes  sha256 of the rest
the rest  a safetensors file: every variable of network and optimizer (the generators' states
          included) and the best weights; in its metadata the plan and the position, as JSON
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from tumorbatch.atomic import write_bytes
from tumorbatch.bundle_weights import MAX_WEIGHTS_BYTES
from tumorbatch.checks import refuse_other_plan
from tumorbatch.errors import ConfigError, InputError, not_finished, reason
from tumorbatch.files import read_regular
from tumorbatch.json_reader import COUNT, FLAG, NULL, NUMBER, OBJECT, TEXT, parse_object

_MAX_BYTES = 5 * MAX_WEIGHTS_BYTES  # weights, Adam's two moments, the best weights, and some room
_DIGEST = 32
_STATE_SHAPE = {
    "plan": OBJECT,
    "position": {
        **dict.fromkeys(
            ("epoch", "step", "best_epoch", "phase", "phase_start", "rate_changed", "images",
             "timed_steps"), COUNT,
        ),
        **dict.fromkeys(("learning_rate", "seconds", "waited"), NUMBER),
        "partial": {TEXT: NUMBER},
        "history": {TEXT: [NUMBER]},
        "best": ([NUMBER], NULL),
        "starts": [COUNT],
        "sums": [NUMBER],
        "stopped": FLAG,
    },
}  # fmt: skip


@dataclass(slots=True)
class Position:
    """How far a training has come.

    Attributes:
        epoch: Epochs that are finished, validation included.
        step: Steps of the next epoch that are finished.
        partial: {name: mean over those steps' images}.
        sums: Values of the variables from which Keras computes these means.
        history: {name: one value a finished epoch}.
        best: (validation AUC, minus validation loss) of the best epoch, or None before the first.
        best_epoch: From 1; 0 before the first.
        phase: The current phase's index.
        phase_start: Epochs that were finished when it began.
        starts: The same of the phases before.
        stopped: Whether the last finished epoch is to be the phase's last one.
        learning_rate: Of the coming epoch; heeded by the schedule "plateau" alone.
        rate_changed: Epochs that were finished when it was last changed.
        seconds: Spent in training steps.
        images: Trained on in those seconds.
        timed_steps: Steps in those seconds.
        waited: Seconds of these in waiting for batches.
    """

    epoch: int = 0
    step: int = 0
    partial: dict[str, float] = field(default_factory=dict)
    sums: list[float] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    best: tuple[float, float] | None = None
    best_epoch: int = 0
    phase: int = 0
    phase_start: int = 0
    starts: list[int] = field(default_factory=list)
    stopped: bool = False
    learning_rate: float = 0.0
    rate_changed: int = 0
    seconds: float = 0.0
    images: int = 0
    timed_steps: int = 0
    waited: float = 0.0

    def enter(self, number: int, learning_rate: float) -> None:
        """Begin a phase after the last finished epoch."""
        if number:
            self.starts.append(self.phase_start)
        self.phase, self.phase_start, self.stopped = number, self.epoch, False
        self.learning_rate, self.rate_changed = learning_rate, self.epoch

    def close_epoch(self, figures: Mapping[str, float]) -> bool:
        """Record a finished epoch's figures and go to the next one; return whether it is the best.

        The AUC decides, not the loss: the loss of an ever surer network rises while it still learns to
        rank, and `infer` chooses among bundles by the same figure.
        """
        for name, value in figures.items():
            self.history.setdefault(name, []).append(value)
        self.epoch, self.step, self.partial = self.epoch + 1, 0, {}
        rank = (figures["val_auc"], -figures["val_loss"])
        is_best = self.best is None or rank > self.best
        if is_best:
            self.best, self.best_epoch = rank, self.epoch
        return is_best


class Checkpoint:
    """The file of one training.

    Args:
        path: Where; its folder exists.
        plan: What decides the outcome, as JSON values; another plan's file is refused.
        minutes: Time between two saves inside an epoch.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], minutes: float = 5.0) -> None:
        self.path = path
        self.minutes = minutes
        self._plan: dict[str, Any] = json.loads(json.dumps(plan))

    def check(self) -> None:
        """Refuse another training's file, before TensorFlow is loaded.

        Raises:
            ConfigError: The file belongs to a training with another plan.
            InputError: It is damaged.
        """
        self._read()

    def save(
        self,
        network: Any,
        optimizer: Any,
        best_weights: Sequence[NDArray[np.float32]],
        position: Position,
    ) -> None:
        """Replace the file.

        Raises:
            OutputError: The disk is full or not writable.
        """
        arrays = {
            **_named("network", [variable.numpy() for variable in network.variables]),
            **_named("optimizer", [variable.numpy() for variable in optimizer.variables]),
            **_named("best", best_weights),
        }
        state = json.dumps({"plan": self._plan, "position": asdict(position)})
        data = safetensors.numpy.save(arrays, metadata={"state": state})
        write_bytes(self.path, hashlib.sha256(data).digest() + data)

    def load(self) -> "Saved | None":
        """Return the saved content, or None if nothing was saved.

        Raises:
            ConfigError: The file belongs to a training with another plan.
            InputError: It is damaged.
        """
        content = self._read()
        return None if content is None else Saved(self, *content)

    def remove(self) -> None:
        """Delete the file: the training is finished, or cannot be."""
        self.path.unlink(missing_ok=True)

    def remove_behind(self, out: Path) -> None:
        """Delete the file of a training whose bundle is in its place.

        Raises:
            OutputError: It cannot be deleted; the same command does it.
        """
        try:
            self.remove()
        except OSError as error:
            raise not_finished(out, error) from error

    def remove_own_behind(self, out: Path) -> None:
        """Do so unless the file is damaged, or another training's, which may continue."""
        try:
            self.check()
        except (ConfigError, InputError):
            return
        self.remove_behind(out)

    def _read(self) -> tuple[Position, dict[str, NDArray[Any]]] | None:
        try:
            data = read_regular(self.path, _MAX_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self.damaged(error) from error
        digest, data = data[:_DIGEST], data[_DIGEST:]
        try:
            if hashlib.sha256(data).digest() != digest:
                raise ValueError("its checksum does not fit")
            length = int.from_bytes(data[:8], "little")
            header = parse_object(data[8 : 8 + length], {"__metadata__": {"state": TEXT}})
            state = parse_object(header["__metadata__"]["state"].encode(), _STATE_SHAPE)
            values = state["position"]
            if values["best"] is not None:
                values["best"] = tuple(values["best"])
            position = Position(**values)
            arrays = safetensors.numpy.load(data)
        except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise self.damaged(error) from error
        refuse_other_plan(self.path, state["plan"], self._plan)
        return position, arrays

    def damaged(self, error: Exception) -> InputError:
        """Return the error for a file that cannot be used."""
        return InputError(
            f"{self.path} cannot be used ({reason(error)}). Start again with --overwrite, or delete it."
        )


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint's content.

    Attributes:
        checkpoint: Whose.
        position: How far the training had come.
        arrays: By name.
    """

    checkpoint: Checkpoint
    position: Position
    arrays: dict[str, NDArray[Any]]

    def restore(self, network: Any, optimizer: Any) -> list[NDArray[np.float32]]:
        """Set the variables of a network and of the optimizer of the position's phase, which is built.

        Returns:
            The best weights.

        Raises:
            InputError: The file does not fit the network.
        """
        best = [variable.numpy() for variable in network.weights]
        for name, variables in (
            ("network", network.variables), ("optimizer", optimizer.variables),
        ):  # fmt: skip
            values = self._checked(name, [tuple(variable.shape) for variable in variables])
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return self._checked("best", [value.shape for value in best])

    def _checked(self, name: str, shapes: Sequence[tuple[int, ...]]) -> list[NDArray[Any]]:
        values = [self.arrays.get(f"{name}/{index:05}") for index in range(len(shapes))]
        if [None if value is None else value.shape for value in values] != list(shapes):
            raise self.checkpoint.damaged(ValueError(f"its {name} variables are other ones"))
        return [value for value in values if value is not None]


def _named(name: str, values: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        f"{name}/{index:05}": np.ascontiguousarray(value).reshape(np.shape(value))
        for index, value in enumerate(values)
    }
