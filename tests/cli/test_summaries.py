"""What the commands say about their work."""

from pathlib import Path

import pytest

from tumorbatch.cli.summaries import verify_summary
from tumorbatch.cli.table_summaries import infer_summary
from tumorbatch.infer.config import Report as InferReport
from tumorbatch.infer.config import Timings
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


@pytest.mark.parametrize(
    ("rows", "absent", "first", "second"),
    [
        (3, 0, "3 files: 3 predicted (1 Healthy, 2 Tumor); errors: none.", "Nothing new: "),
        (4, 1, "3 files: 3 predicted; errors: none.",
         "4 rows: one for each frame or page, also of files that no longer exist. "
         "Labels: 1 Healthy, 3 Tumor."),
        (8, 0, "3 files: 3 predicted; errors: none.",
         "8 rows: one for each frame or page. Labels: 1 Healthy, 7 Tumor."),
    ],
)  # fmt: skip
def test_infer_says_labels_of_rows_where_they_are_not_one_a_file(
    rows: int, absent: int, first: str, second: str
) -> None:
    report = InferReport(
        model_id="cnn1-0", files=3, statuses={"ok": 3}, labels={"Healthy": 1, "Tumor": rows - 1},
        rows=rows, files_kept=0, absent=absent, young=0, others=0, future=0, litter=0, seconds=1.0,
        timings=Timings(), bytes=1, unchanged=True,
    )  # fmt: skip
    lines = infer_summary(report, Path("out.parquet")).split("\n")
    assert lines[0] == first
    assert lines[1].startswith(second)
