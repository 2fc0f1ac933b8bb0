"""A network of three variants: trained, evaluated and used on the same tensors."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SIZE, Invoke
from tests.untrained import leave_out_training
from tumorbatch import architectures, bundle, shard_reader, shardset
from tumorbatch.bundle_weights import load_network
from tumorbatch.errors import ConfigError
from tumorbatch.evaluation.answers import read_images, score_split
from tumorbatch.evaluation.gradcam import GradCam, overlay
from tumorbatch.evaluation.subject import Subject
from tumorbatch.export import _description
from tumorbatch.infer.api import predict
from tumorbatch.infer.config import Config as InferConfig
from tumorbatch.preprocess import shard
from tumorbatch.preprocess.pixels import process
from tumorbatch.preprocessing_config import VARIANTS, Preprocessing
from tumorbatch.runtime import resolve
from tumorbatch.scoring import scorer
from tumorbatch.train import training
from tumorbatch.train.config import Config
from tumorbatch.train.stream import Shards

ORDER = ("plain", "clahe", "normalised")


@pytest.fixture(scope="module")
def tfrecords(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("variants") / "tfrecords"
    config = shard.Config(preprocessing=Preprocessing(size=SIZE, variants=VARIANTS), workers=1)
    shard.run(sample, out, config)
    return out


@pytest.fixture(scope="module")
def model(tfrecords: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "three"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_training(patch)
        training.run(tfrecords, out, Config("cnn1", variants=ORDER))
    return out


def test_one_network_sees_the_same_tensors_everywhere(
    tfrecords: Path, model: Path, sample: Path
) -> None:
    subject = Subject.load(model, tfrecords, external=False)
    assert subject.bundle.preprocessing.channels == ORDER == subject.dataset.preprocessing.channels
    network = load_network(model, subject.bundle)
    assert network.input.shape[1:] == (SIZE, SIZE, 3)
    score = scorer(network, 32, resolve("cpu", "float32", "off"))
    answers = score_split(tfrecords, subject.dataset, "test", score)
    table = predict(sample, model, InferConfig(workers=1)).to_pylist()
    logits = {row["path"]: row["logit"] for row in table}
    expected = [logits[path] for path in answers.images.paths]
    assert np.allclose(answers.scores, expected, rtol=0, atol=1e-5)
    images = read_images(tfrecords, subject.dataset, answers.images.paths)
    for path, image in zip(answers.images.paths, images, strict=True):
        computed = process((sample / path).read_bytes(), subject.bundle.preprocessing).pixels
        assert np.array_equal(image, computed), "infer sees what shard wrote, to the bit"
    maps = GradCam(network)(images[:2], np.array([0, 1]))
    assert overlay(images[0], maps[0]).shape == (SIZE, SIZE, 3)
    described = _description(subject.bundle, "keras")["input"]
    assert (described["shape"], described["channels"]) == (["batch", SIZE, SIZE, 3], list(ORDER))


def test_memory_and_stream_give_the_same_channels(tfrecords: Path) -> None:
    dataset = shardset.load(tfrecords)
    pixels, _ = shard_reader.read_split(tfrecords, dataset.select(ORDER), "train")
    for channel, name in enumerate(ORDER):
        alone, _ = shard_reader.read_split(tfrecords, dataset.select([name]), "train")
        assert np.array_equal(pixels[..., channel], alone)
    feed = Shards(tfrecords, dataset.select(ORDER), "train").feed(4, None, 0, False)
    streamed = np.concatenate([images.numpy() for images, _ in feed.epoch(0)])
    assert sorted(image.tobytes() for image in streamed) == sorted(image.tobytes() for image in pixels)


def test_another_variant_is_another_training(tfrecords: Path, model: Path) -> None:
    assert training.run(tfrecords, model, Config("cnn1", variants=ORDER)).unchanged
    with pytest.raises(ConfigError, match=r"trained differently .variants"):
        training.run(tfrecords, model, Config("cnn1"))


def test_channels_that_differ_are_not_folded(model: Path) -> None:
    network = load_network(model, bundle.load(model))
    assert architectures.fold(network) is network
    with pytest.raises(ConfigError, match="1 or 3 variants"):
        architectures.build("cnn1", SIZE, channels=2)


def test_a_set_without_the_variant_says_what_to_type(
    invoke: Invoke, sample: Path, tmp_path: Path, model: Path
) -> None:
    shard.run(sample, tmp_path / "set", shard.Config(preprocessing=Preprocessing(size=SIZE)))
    code, output = invoke("train", tmp_path / "set", "--arch", "cnn1", "--variant", "plain")
    assert code == 2
    assert "tumorbatch shard SRC OUT --variants clahe,plain" in " ".join(output.split())
    code, output = invoke("train", tmp_path / "set", "--arch", "cnn1", "--variant", "plain,clahe")
    assert code == 2
    assert "takes one name, or 3" in " ".join(output.split())
    with pytest.raises(ConfigError, match=r"prepared differently.*variants"):
        Subject.load(model, tmp_path / "set", external=True)
