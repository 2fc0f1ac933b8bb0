"""What the commands say about their work."""

from pathlib import Path

import pytest

from tumorbatch.cli.summaries import verify_summary
from tumorbatch.preprocess.verify import Report


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        ("leaky-orientation", "`tumorbatch shard --overwrite --new-splits` makes it again"),
        ("leaky", "LEAKY: copies lie in more than one split"),
    ],
)
def test_verify_says_that_an_intact_set_is_leaky(leak: str, words: str) -> None:
    first, second = verify_summary(Report(2, 20, 1000, 0.1, (), leak), Path("tfrecords")).split("\n")
    assert first.startswith("tfrecords is intact (20 records in 2 shards")
    assert words in second


def test_verify_says_no_more_of_a_set_without_a_leak() -> None:
    assert "\n" not in verify_summary(Report(2, 20, 1000, 0.1, ()), Path("tfrecords"))
