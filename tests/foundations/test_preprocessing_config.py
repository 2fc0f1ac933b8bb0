"""The description of the pixel path, and its fingerprint."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tumorbatch.errors import ConfigError
from tumorbatch.preprocessing_config import Preprocessing

GOOD = Preprocessing().to_dict()


def test_golden_fingerprint() -> None:
    # Shard sets and models carry it: it changes only together with what is done to the pixels.
    text = (
        '{"clahe":true,"clahe_clip":2.0,"clahe_grid":16,"decode_version":2,'
        '"interpolation":"area","size":150}'
    )
    fingerprint = "2ef5908ebfac98fa338aca20e93a720035dc38089797c75c44935d6329561ae8"
    assert hashlib.sha256(text.encode()).hexdigest() == fingerprint
    assert Preprocessing().fingerprint == fingerprint


def test_sets_and_models_of_the_first_decoding_rules_are_read() -> None:
    old = Preprocessing.from_dict(GOOD | {"decode_version": 1})
    assert old.to_dict() == GOOD | {"decode_version": 1}
    assert old.fingerprint == "a299001b0786269907e4c1e5c6a04345547e5dbbfebe978fe13999c67f3495ea"


def test_every_setting_changes_the_fingerprint() -> None:
    base = Preprocessing()
    variants = [
        base,
        replace(base, size=151),
        replace(base, clahe=False),
        replace(base, clahe_clip=2.5),
        replace(base, clahe_grid=8),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)


def test_equal_descriptions_have_equal_fingerprints() -> None:
    assert Preprocessing(clahe_clip=2) == Preprocessing(clahe_clip=2.0)
    assert Preprocessing(clahe_clip=2).fingerprint == Preprocessing(clahe_clip=2.0).fingerprint


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(),
        Preprocessing(size=32, clahe=False, clahe_clip=0.1, clahe_grid=1),
        Preprocessing(size=1024, clahe_clip=100, clahe_grid=64),
    ],
)
def test_round_trip_through_json(preprocessing: Preprocessing) -> None:
    value = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(value) == preprocessing


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("size", 31, "between 32 and 1024 pixels. Received: 31"),
        ("size", 1025, "between 32 and 1024 pixels"),
        ("clahe_clip", 0.0, "above 0 and at most 100"),
        ("clahe_clip", 100.1, "above 0 and at most 100"),
        ("clahe_clip", float("nan"), "above 0 and at most 100"),
        ("clahe_grid", 0, "between 1 and 64 tiles"),
        ("clahe_grid", 65, "between 1 and 64 tiles"),
        ("interpolation", "nearest", "must be one of area. Received: nearest"),
        ("decode_version", 0, "version 0 of the decoding rules"),
        ("decode_version", 3, "version 3 of the decoding rules"),
    ],
)
def test_values_out_of_range(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**{name: value})
    with pytest.raises(ConfigError, match=message):
        Preprocessing.from_dict(GOOD | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "150"),
        ("size", 150.0),
        ("size", True),
        ("size", None),
        ("size", np.int64(150)),
        ("clahe", 1),
        ("clahe", "true"),
        ("clahe_clip", 2),
        ("clahe_clip", "2.0"),
        ("clahe_grid", [16]),
        ("interpolation", 3),
        ("decode_version", True),
    ],
)
def test_from_dict_takes_exact_types(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"The preprocessing's {name} must be of type"):
        Preprocessing.from_dict(GOOD | {name: value})


@pytest.mark.parametrize("name", GOOD)
def test_from_dict_takes_no_fewer_fields(name: str) -> None:
    value = {key: GOOD[key] for key in GOOD if key != name}
    with pytest.raises(ConfigError, match="must have exactly the fields"):
        Preprocessing.from_dict(value)


@pytest.mark.parametrize("value", [GOOD | {"rotate": True}, {}, None, [], "area", 150])
def test_from_dict_takes_nothing_else(value: Any) -> None:
    with pytest.raises(ConfigError, match="must have exactly the fields"):
        Preprocessing.from_dict(value)
