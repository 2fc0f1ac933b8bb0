"""docs/table.md: its examples run, and it names what a table carries."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tumorbatch.infer.columns import DESCRIPTIONS
from tumorbatch.infer.predictions import SCHEMA, PredictionsWriter
from tumorbatch.infer.writers import TextWriter

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "table.md").read_text()
(R_EXAMPLE,) = re.findall(r"^```r\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four rows, as Parquet and as CSV: sure, unsure, small and unsure, and without a prediction."""
    rows = []
    for number, (probability, flags) in enumerate(
        [(0.99, []), (0.38, ["16-bit"]), (0.36, ["16-bit", "low-res"])]
    ):
        row = {"path": f"{number}.png", "frame": 1, "status": "ok", "label": "Tumor", "flags": flags}
        rows.append(row | {"prob_tumor": float(np.float32(probability)), "logit": 0.0})
    rows.append({"path": "9.png", "frame": 1, "status": "empty", "error": "the file has no bytes"})
    for table in (PredictionsWriter(tmp_path / "out.parquet"), TextWriter(tmp_path / "out.csv", "csv")):
        with table as writer:
            writer.write([row | {"model_id": "cnn1-0", "run_id": "r"} for row in rows])
            writer.finish({"model_id": "cnn1-0", "threshold": 0.37})
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out.parquet"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0].lstrip("# "))
def test_examples_run(example: str, table: Path) -> None:
    values: dict[str, object] = {}
    exec(example, values)
    if "threshold" in values:
        assert values["threshold"] == 0.37
        assert len(values["unsure"]) == 2  # type: ignore[arg-type]
    else:
        assert len(values["small"]) == 1  # type: ignore[arg-type]
        assert "counts" not in values or values["counts"]["16-bit"] == 2  # type: ignore[index]


@pytest.mark.usefixtures("table")
def test_the_example_in_r_runs() -> None:
    command = ["Rscript", "-e", R_EXAMPLE + 'cat(threshold, nrow(unsure), "\\n")']
    if (
        not shutil.which("Rscript")
        or subprocess.run(
            ["Rscript", "-e", "library(jsonlite)"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("R with the package jsonlite is not installed")
    assert subprocess.check_output(command, text=True).split() == ["0.37", "2"]


def test_each_column_is_described_in_the_file(table: Path) -> None:
    schema = pq.read_schema(table)
    found = {field.name: (field.metadata or {}).get(b"description", b"").decode() for field in schema}
    assert found == {name: DESCRIPTIONS.get(name) for name in SCHEMA.names}
    assert all(text.endswith(".") for text in found.values())
