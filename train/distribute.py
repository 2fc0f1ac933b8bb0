"""Several GPUs on one machine."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tumorbatch.errors import ConfigError


class LossScale(keras.optimizers.LossScaleOptimizer):  # type: ignore[misc]
    """Keras' dynamic loss scale, safe on several replicas.

    Keras 3.15 asks only the first replica whether the gradients are finite, before they are summed:
    an overflow on another one would reach the weights. Averaged first, they are the same everywhere,
    infinite wherever one was, and the sum that Keras' optimizer takes next restores their size.
    """

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update the variables, or on an overflow anywhere only the scale."""
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            grads = context.all_reduce(tf.distribute.ReduceOp.MEAN, list(grads))
        super().apply(grads, trainable_variables)


def strategy(devices: Sequence[str]) -> Any:
    """Return a `tf.distribute.Strategy` that gives each device its part of every batch.

    Args:
        devices: TensorFlow's names, such as "GPU:0".
    """
    return tf.distribute.MirroredStrategy(list(devices))


def refuse_several_nodes(environment: Mapping[str, str]) -> None:
    """Raise `ConfigError` where this process was started as one of several on several machines."""
    for name in ("SLURM_STEP_NUM_NODES", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE"):
        if environment.get(name, "1").isdecimal() and int(environment.get(name, "1")) > 1:
            raise _several(f"{name}={environment[name]}")
    try:
        cluster = json.loads(environment.get("TF_CONFIG") or "{}").get("cluster", {})
        tasks = sum(len(addresses) for addresses in cluster.values())
    except (ValueError, AttributeError, TypeError):
        return
    if tasks > 1:
        raise _several("TF_CONFIG")


def _several(reason: str) -> ConfigError:
    return ConfigError(
        f"tumorbatch trains in one process, and was started as several ({reason}): start it once, on "
        "one node with --gpus N (Slurm: --nodes=1 --ntasks=1 --gres=gpu:N), and give the other nodes "
        "other trainings, one --arch or --seed each."
    )
