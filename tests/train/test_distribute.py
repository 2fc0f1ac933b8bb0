"""Several devices: two logical CPUs stand for two GPUs, in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tumorbatch.errors import ConfigError
from tumorbatch.train.distribute import refuse_several_nodes

ROOT = Path(__file__).resolve().parents[2]

# Before anything touches a device, TensorFlow can be told to split the CPU.
BOTH = """
import sys
sys.path.insert(0, sys.argv[1])
from tumorbatch.runtime import Runtime, load_tensorflow
tf = load_tensorflow()
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import contextlib, json
import keras
import numpy as np
from tumorbatch.train.distribute import LossScale, strategy
result = {}
"""

TRAIN = """
from tumorbatch import architectures
from tumorbatch.train.checkpoint import Checkpoint
from tumorbatch.train.config import Augmentation, Schedule
from tumorbatch.train.feed import Images
from tumorbatch.train.fit import Fit, Recipe
from pathlib import Path
random = np.random.default_rng(0)
labels = np.arange(50) % 2
pixels = (random.integers(0, 120, (50, 32, 32)) + 100 * labels[:, None, None]).astype(np.uint8)
data = Images(pixels, labels)
def trained(spread, precision="float32", checkpoint=None, stop=None):
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(1)
    with spread.scope() if spread else contextlib.nullcontext():
        network = architectures.build("cnn1", 32)
    seen = []
    def done(epoch, figures):
        seen.append(figures)
        if epoch == stop:
            raise SystemError("stop")
    runtime = Runtime("cpu", precision, False, 1, "for a test")
    schedule = Schedule(epochs=3, batch_size=16, weight_decay=1.0)
    try:
        recipe = Recipe(schedule, Augmentation(), runtime, strategy=spread)
        fitted = Fit(network, data, data, recipe, checkpoint, done).run()
    except SystemError:
        return None
    assert fitted.waited is None or not spread
    return fitted.history, [value.tolist() for value in network.get_weights()]
def apart(one, other):
    return np.concatenate([np.abs(np.subtract(a, b)).ravel() for a, b in zip(one, other)])
def far(one, other):
    return float(apart(one, other).max())
two = strategy(["CPU:0", "CPU:1"])
one_history, one = trained(strategy(["CPU:0"]))
two_history, both = trained(two)
_, half = trained(two, "mixed_float16")
path = Path(sys.argv[2])
keras.config.set_dtype_policy("float32")
trained(two, checkpoint=Checkpoint(path, {}), stop=3)
_, resumed = trained(two, checkpoint=Checkpoint(path, {}))
result["train"] = {
    "most": float(np.quantile(apart(one, both), 0.999)), "far": far(one, both),
    "half": far(both, half), "resumed": far(both, resumed),
    "one": one_history["loss"], "two": two_history["loss"],
    "moved": far(both, [np.zeros(np.shape(value)) for value in both]),
}
"""


OVERFLOW = """
def gradients(first, second):
    return two.experimental_distribute_values_from_function(
        lambda context: tf.fill([3], [first, second][context.replica_id_in_sync_group]))
def overflow(kind):
    with two.scope():
        variable = keras.Variable(np.ones(3, np.float32))
        optimizer = kind(keras.optimizers.SGD(0.5), initial_scale=4.0)
        optimizer.build([variable])
    @tf.function(autograph=False)
    def step(gradients):
        two.run(lambda gradient: optimizer.apply([gradient], [variable]), args=(gradients,))
    step(gradients(4.0, 8.0))
    good = variable.numpy().tolist()
    step(gradients(4.0, float("inf")))
    return {
        "good": good, "after": [str(value) for value in variable.numpy()],
        "scale": float(optimizer.dynamic_scale.numpy()),
    }
result["ours"] = overflow(LossScale)
result["keras"] = overflow(keras.optimizers.LossScaleOptimizer)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What one process has found with two devices: TensorFlow takes longer to start than the rest."""
    checkpoint = tmp_path_factory.mktemp("distribute") / "checkpoint"
    done = subprocess.run(
        [sys.executable, "-c", BOTH + TRAIN + OVERFLOW, str(ROOT), str(checkpoint)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return values


def test_two_devices_train_like_one(results: dict[str, dict[str, object]]) -> None:
    found = results["train"]
    assert found["two"] == pytest.approx(found["one"], rel=1e-4)
    # Adam divides a gradient near 0 by its own size: of a few weights rounding decides the direction.
    # A step that is twice too large, or a weight decay, would show in all of them.
    assert float(str(found["most"])) < 1e-5
    assert float(str(found["far"])) < 3e-3
    assert float(str(found["half"])) < 2e-2
    assert float(str(found["resumed"])) < 1e-6


def test_an_overflow_on_one_replica_is_skipped_and_halves_the_scale(
    results: dict[str, dict[str, object]],
) -> None:
    found = results["ours"]
    assert found["good"] == [1 - 0.5 * (4 + 8) / 4] * 3  # the sum of both, unscaled
    assert [float(value) for value in found["after"]] == found["good"]  # type: ignore[attr-defined]
    assert found["scale"] == 2.0


def test_keras_own_scale_lets_it_through(results: dict[str, dict[str, object]]) -> None:
    """Why there is one of our own; once this fails, Keras has mended it, and ours can go."""
    found = results["keras"]
    assert found["after"] != [str(value) for value in found["good"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_STEP_NUM_NODES": "2"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        {"WORLD_SIZE": "2"},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'},
    ],
)
def test_several_nodes_are_refused_with_what_to_do(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"in one process.*--gpus N"):
        refuse_several_nodes(environment)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1"}, {"TF_CONFIG": "{"}, {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}],
)
def test_one_node_is_not(environment: dict[str, str]) -> None:
    refuse_several_nodes(environment)
