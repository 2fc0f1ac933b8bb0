"""Unfamiliar images: features far from those of the training images, in the bundle as data."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorbatch import architectures
from tumorbatch.errors import InputError
from tumorbatch.familiarity import Familiarity, read, to_bytes, unfamiliarity
from tumorbatch.foreign_images import foreign_images
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import featured, scorer

CPU = Runtime("cpu", "float32", False, 1, "for a test")


def _familiarity(seed: int, size: int = 6) -> Familiarity:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(size, size))
    features = (random.normal(size=(600, size)) @ mixing).astype(np.float32)
    return Familiarity.fit(features[:400], features[400:], np.arange(200))


def test_one_in_a_hundred_held_out_images_is_beyond_the_limit() -> None:
    made = _familiarity(0)
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6))
    same = (random.normal(size=(2000, 6)) @ mixing).astype(np.float32)
    assert 0.002 < (made.distances(same) >= 1).mean() < 0.04
    assert (made.distances(same * 8) >= 1).mean() > 0.9
    values = unfamiliarity(np.float32([0, 1, 3, np.inf]))
    assert values[:3].tolist() == pytest.approx([0, 0.5, 0.9])


def test_copies_of_one_image_do_not_move_the_limit() -> None:
    random = np.random.default_rng(1)
    features = random.normal(size=(300, 3)).astype(np.float32)
    held = np.concatenate([features[200:], np.repeat(np.float32([[9, 9, 9]]), 50, axis=0)])
    groups = np.r_[np.arange(100), np.full(50, 100)]
    alone = Familiarity.fit(features[:200], held[:101], groups[:101])
    assert Familiarity.fit(features[:200], held, groups).limit == alone.limit


def test_it_is_read_back_and_damage_is_refused(tmp_path: Path) -> None:
    several = [_familiarity(0), _familiarity(1, 4)]
    data = to_bytes(several)
    path = tmp_path / "familiarity.safetensors"
    path.write_bytes(data)
    again = read(path, hashlib.sha256(data).hexdigest())
    assert [len(one.mean) for one in again] == [6, 4]
    assert np.array_equal(again[1].whitening, several[1].whitening)
    with pytest.raises(InputError, match="its sha256 is another one"):
        read(path, "0" * 64)
    broken = Familiarity(several[0].mean, several[0].whitening * np.nan, several[0].limit)
    data = to_bytes([broken])
    path.write_bytes(data)
    with pytest.raises(InputError, match="is not finite"):
        read(path, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("name", ["cnn1", "mobilenetv2"])
def test_the_logits_are_those_without_and_the_distance_is_that_of_the_features(
    tf: Any, name: str
) -> None:
    network = architectures.build(name, 32)
    images = np.random.default_rng(3).integers(0, 256, (6, 32, 32), np.uint8)
    logits, features = featured(network, 4, CPU)(images)
    plain = scorer(network, 4, CPU)(images)
    np.testing.assert_allclose(logits, plain, rtol=1e-5, atol=1e-6)
    assert features.shape == (6, {"cnn1": 192, "mobilenetv2": 1280}[name])
    made = Familiarity.fit(features, features, np.arange(6))
    scores = scorer(network, 4, CPU, familiarity=[made])(images)
    np.testing.assert_allclose(scores[:, 0], plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores[:, 1], made.distances(features), rtol=1e-3, atol=1e-4)
    both = architectures.ensemble([network, network], [0.5, 0.5], [[0], [0]])
    joined = scorer(both, 4, CPU, familiarity=[made, made])(images)
    np.testing.assert_allclose(joined, scores, rtol=1e-3, atol=1e-4)


def test_foreign_images_are_drawn_the_same_each_time() -> None:
    drawn, again = foreign_images(40, 3), foreign_images(40, 3)
    assert {kind: pictures.shape for kind, pictures in drawn.items()} == dict.fromkeys(
        ("noise", "clouds", "gradients", "pages of text"), (3, 40, 40)
    )
    assert all(np.array_equal(drawn[kind], again[kind]) for kind in drawn)
