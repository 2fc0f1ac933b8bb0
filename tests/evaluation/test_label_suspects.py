"""Label suspects: sure disagreements on held-out images, each group once, as CSV and as pictures."""

import csv
import io
from pathlib import Path

import numpy as np

from tests.answers import answers
from tumorbatch import shardset
from tumorbatch.evaluation.label_suspects import (
    add_suspects,
    label_suspects,
    suspect_pictures,
    suspects_csv,
)
from tumorbatch.report.html import Page


def test_only_sure_disagreements_each_group_once_the_surest_first() -> None:
    # sigmoid(2.3) is 0.909, sigmoid(2.1) 0.891: above and below 0.9.
    test = answers(
        [2.3, 2.1, -2.3, 5, 4, -9, 9],
        [0, 0, 1, 0, 0, 0, 1],
        groups=np.array([0, 1, 2, 3, 3, 4, 5]),
    )
    validation = answers(
        [-7, 6], [1, 0], groups=np.array([7, 3]), paths=("v0.png", "v1.png"), split="validation"
    )
    rows = label_suspects({"validation": validation, "test": test})
    assert [(row["path"], row["split"], row["label"], row["called"]) for row in rows] == [
        ("v0.png", "validation", "Tumor", "Healthy"),
        ("v1.png", "validation", "Healthy", "Tumor"),  # of a group with test images, and surer
        ("000.png", "test", "Healthy", "Tumor"),
        ("002.png", "test", "Tumor", "Healthy"),
    ]
    assert rows[1]["copies_in_split"] == 1
    # A temperature of 10 leaves nobody sure.
    assert label_suspects({"test": test.at(0.5, 10.0)}) == []


def test_the_table_reads_back_and_starts_no_formula() -> None:
    rows = label_suspects({"test": answers([5], [0], paths=("=cmd.png",), formats=("tiff",))})
    (line,) = csv.DictReader(io.StringIO(suspects_csv(rows)))
    assert (line["path"], line["label"], line["called"]) == ("'=cmd.png", "Healthy", "Tumor")
    assert float(line["prob_tumor"]) == rows[0]["prob_tumor"]
    assert (line["format"], int(line["width"]), int(line["height"])) == ("tiff", 100, 80)


def test_pictures_show_the_records_and_the_page_says_what_the_labels_are(shard_set: Path) -> None:
    dataset = shardset.load(shard_set)
    table = shardset.manifest(shard_set, dataset, "path", "split").to_pylist()
    paths = tuple(sorted(row["path"] for row in table if row["split"] == "test"))[:3]
    rows = label_suspects({"test": answers([5, 6, 7], [0, 0, 0], paths=paths)})
    pictures = suspect_pictures(shard_set, dataset, rows, 2)
    assert [picture.alt.split(":")[0] for picture in pictures] == [paths[2], paths[1]]
    assert all(picture.size == (160, 160) for picture in pictures)  # 32 pixels, five times
    page = Page("t")
    add_suspects(page, rows, pictures)
    html = page.html().replace("\N{NO-BREAK SPACE}", " ")
    assert "Healthy means “not cancer”" in html
    assert "contradicts 3 labels" in html
    assert html.count("<img") == 2
    none = Page("t")
    add_suspects(none, [], [])
    assert "does not contradict any label" in none.html()
