"""The protocols: which one a shard set or a bundle was made by, and that a leak is called one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import shardset
from tumorbatch.evaluation.protocols import PROTOCOLS, dataset_protocol, training_protocol


@pytest.mark.parametrize(
    ("training", "key"),
    [
        ({"split_by": "group", "leaky": False, "leak": None}, "group"),
        ({"split_by": "shape", "leaky": False, "leak": None}, "shape"),
        ({"split_by": "file", "leaky": True, "leak": "leaky"}, "leaky"),
        ({"split_by": "file", "leaky": True}, "leaky"),
        ({"split_by": "group", "leaky": True, "leak": "leaky"}, "leaky-proof"),
        ({"split_by": "group", "leaky": True, "leak": "leaky-orientation"}, "leaky-orientation"),
        # From before bundles said it: upright copies only.
        ({"split_by": "group", "leaky": False}, "leaky-orientation"),
    ],
)
def test_a_bundle_says_by_which_protocol_it_is_judged(training: dict[str, Any], key: str) -> None:
    protocol = training_protocol(training)
    assert protocol is PROTOCOLS[key]
    assert protocol.leaky == key.startswith("leaky")
    assert ("LEAKY" in protocol.title, "LEAKY" in protocol.warning) == (protocol.leaky,) * 2


@pytest.mark.parametrize("training", [{}, {"split_by": "group"}, {"split_by": "x", "leaky": True}])
def test_a_bundle_that_does_not_say_it_has_none(training: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="which kind of split"):
        training_protocol(training)


def test_a_shard_set_says_it_by_its_version_and_its_proof(shard_set: Path) -> None:
    dataset = shardset.load(shard_set)
    assert dataset_protocol(dataset).key == "group"
    assert dataset_protocol(replace(dataset, split_by="shape")).key == "shape"
    assert dataset_protocol(replace(dataset, split_by="file")).key == "leaky"
    assert dataset_protocol(replace(dataset, shared={"groups": 1})).key == "leaky-proof"
    assert dataset_protocol(replace(dataset, schema_version=1)).key == "leaky-orientation"
