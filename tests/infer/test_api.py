"""`tumorbatch.infer.predict` and `batches`: the command's rows without a file."""

from pathlib import Path

import pyarrow as pa
import pytest

import tumorbatch.infer
from tumorbatch.errors import InputError
from tumorbatch.infer import inference
from tumorbatch.infer.config import Config
from tumorbatch.infer.predictions import SCHEMA, iterate_rows

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.mark.usefixtures("real_workers")
def test_a_folder_gives_the_rows_of_the_command(sample: Path, model: Path, tmp_path: Path) -> None:
    table = tumorbatch.infer.predict(sample, model, Config(workers=1))
    inference.run(sample, tmp_path / "out.parquet", model, Config(workers=2))
    expected = [{**row, "run_id": ""} for row in iterate_rows(tmp_path / "out.parquet")]
    assert [{**row, "run_id": ""} for row in table.to_pylist()] == expected
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata[b"tumorbatch.threshold"]

    parts = list(tumorbatch.infer.batches(str(sample), str(model), Config(workers=1), rows=10))
    assert all(batch.num_rows >= 10 for batch in parts[:-1])
    assert len(parts) > 3
    together = pa.Table.from_batches(parts).to_pylist()
    assert [{**row, "run_id": ""} for row in together] == expected


def test_a_list_keeps_its_order_and_gives_a_row_for_what_is_not_there(
    sample: Path, model: Path, tmp_path: Path
) -> None:
    paths = sorted((sample / "Healthy").glob("*[0-9]).*"), reverse=True)[:5]
    table = tumorbatch.infer.predict([*paths, tmp_path / "absent.png"], model, Config(workers=1))
    assert table["path"].to_pylist() == [*map(str, paths), str(tmp_path / "absent.png")]
    assert table["status"].to_pylist() == ["ok"] * 5 + ["vanished"]
    assert table["file_size"].to_pylist()[:5] == [path.stat().st_size for path in paths]
    assert tumorbatch.infer.predict([], model).num_rows == 0


def test_what_is_missing_is_a_sentence(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        tumorbatch.infer.predict(tmp_path / "absent", model)
    with pytest.raises(InputError, match="not a model bundle"):
        tumorbatch.infer.predict([], tmp_path)
    with pytest.raises(AttributeError):
        tumorbatch.infer.absent  # noqa: B018
