"""What an operator sees: JSON results and logs, and metrics in the textfile format."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tumorbatch.cli.prometheus import Metrics, render
from tumorbatch.errors import ExitCode
from tumorbatch.infer.predictions import read_metadata

pytestmark = pytest.mark.usefixtures("in_process")

# ----------------------------------------------------------------------------- results and logs


def test_result_and_logs_as_json(
    sample: Path, model: Path, tmp_path: Path, cli: Any, quick: Any
) -> None:
    out = tmp_path / "out.parquet"
    command = ("infer", sample, out, "--model", model, "--workers", 1)
    process = quick(*command, "--json", "--log-format", "json")
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == ExitCode.SOME_ERRORS
    (line,) = stdout.splitlines()
    result = json.loads(line)
    assert result["files"] == sum(result["statuses"].values()) == result["rows"]
    assert result["errors"] == result["files"] - result["statuses"]["ok"]
    assert result["timings"]["decoding"] > 0
    assert json.loads(read_metadata(out)["sources"]) == [str(sample)]
    logs = [json.loads(line) for line in stderr.splitlines()]
    assert len(logs) >= 2
    for entry in logs:
        assert list(entry)[:4] == ["ts", "level", "logger", "message"]
        assert ("event" in entry) == (entry is logs[-1])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["ts"])
    assert str(sample) not in stderr
    assert (logs[-1]["event"], logs[-1]["exit_code"]) == ("end", ExitCode.SOME_ERRORS)
    assert logs[-1]["seconds"] > 0

    failed = cli("infer", tmp_path / "absent", out, "--model", model, "--log-format", "json", "--quiet")
    (entry,) = map(json.loads, failed.stderr.splitlines())
    assert (failed.returncode, entry["level"], entry["exit_code"]) == (66, "error", 66)
    assert "does not exist" in entry["message"]


def _figures(path: Path) -> dict[str, float]:
    text = path.read_text()
    assert text.endswith("\n")
    figures = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+.e\d]+', line)
            name, value = line.rsplit(" ", 1)  # a third field would be a timestamp
            figures[name.removeprefix("tumorbatch_infer_")] = float(value)
            assert f"# TYPE {name.partition('{')[0]} gauge" in text
    return figures


def test_metrics_carry_the_last_success_over_failed_runs(
    sample: Path, model: Path, tmp_path: Path, invoke: Any
) -> None:
    out, file = tmp_path / "out.parquet", tmp_path / "node" / "tumorbatch.prom"
    file.parent.mkdir()
    command = (
        "infer",
        sample,
        out,
        "--model",
        model,
        "--workers",
        1,
        "--quiet",
        "--metrics-file",
        file,
    )
    before = time.time()
    assert invoke(*command)[0] == ExitCode.SOME_ERRORS
    first = _figures(file)
    assert before <= first["last_success_timestamp_seconds"] == first["last_run_timestamp_seconds"]
    assert first["last_exit_code"] == 3
    assert first['files{status="ok"}'] > 90
    assert first['files{status="truncated"}'] >= 1
    assert 0 <= first["positive_ratio"] <= 1
    assert first["images_per_second"] > 0
    assert any(name.startswith("build_info{") and "cnn1-" in name for name in first)

    assert invoke(*command, "--max-error-rate", 0)[0] == ExitCode.TOO_MANY_ERRORS
    second = _figures(file)
    assert second["last_exit_code"] == 4
    assert second["last_success_timestamp_seconds"] == first["last_success_timestamp_seconds"]
    assert second["last_run_timestamp_seconds"] > first["last_run_timestamp_seconds"]
    assert [path.name for path in file.parent.iterdir()] == ["tumorbatch.prom"]

    code, output = invoke(*command[:-1], tmp_path / "metrics.txt")
    assert (code, ".prom" in output) == (ExitCode.USAGE, True)


def test_figures_that_are_not_known_are_left_out() -> None:
    text = render(Metrics(), 66, 100.0, 101.5, None)
    assert "tumorbatch_infer_last_duration_seconds 1.5\n" in text
    assert "last_success" not in text
    assert "images_per_second" not in text


def test_labels_are_escaped_and_carried_over_by_any_name(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.files, metrics.model_id = {'a"b\n': 2}, 'x\\"y\n'
    text = render(metrics, 0, 100.0, 101.5, 101.25)
    assert '{status="a\\"b\\n"} 2' in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["tumorbatch_infer_build_info"].samples[0].labels["model"] == 'x\\"y\n'
    assert families["tumorbatch_infer_last_success_timestamp_seconds"].samples[0].value == 101.25
