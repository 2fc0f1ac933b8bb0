"""The public data set, where there is a copy: the folder that TUMORBATCH_DATASET names."""

import collections
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tumorbatch import shardset, tfrecord
from tumorbatch.files import find_files
from tumorbatch.preprocess.shard import Config, run

DATASET = os.environ.get("TUMORBATCH_DATASET", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATASET, reason="TUMORBATCH_DATASET does not name a copy of the data set"),
]


def test_every_file_becomes_a_record_and_no_duplicate_crosses(tmp_path: Path) -> None:
    report = run(Path(DATASET), tmp_path / "out", Config())
    files = find_files(Path(DATASET))
    manifest = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pydict()
    assert sorted(manifest["path"]) == [file.name for file in files]
    assert set(manifest["status"]) == {"ok"}
    assert set(report.dataset.shared.values()) == {0}
    written: collections.Counter[str] = collections.Counter()
    for shard in shardset.load(tmp_path / "out").shards:
        for data in tfrecord.read(tmp_path / "out" / shard.name):
            written[Path(tfrecord.ImageRecord.decode(data).filename).suffix.lower()] += 1
    assert written == collections.Counter(Path(file.path).suffix.lower() for file in files)
    assert written[".tif"] > 0
