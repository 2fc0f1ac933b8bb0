"""What an operator sees: JSON results and logs, Prometheus figures, and the examples in the docs."""

import configparser
import itertools
import json
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tumorbatch.cli.main import main
from tumorbatch.cli.prometheus import Metrics, render
from tumorbatch.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "operations.md").read_text()


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
    logs = [json.loads(line) for line in stderr.splitlines()]
    assert len(logs) >= 2
    for entry in logs:
        assert list(entry) == ["ts", "level", "logger", "message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["ts"])
    assert str(sample) not in stderr

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


# ---------------------------------------------------------------------------------- the examples


def _blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    assert found
    return found


def _commands() -> list[list[str]]:
    """The arguments of every `tumorbatch` in the examples."""
    lines = [
        line for kind in ("crontab", "ini", "bash") for of in _blocks(kind) for line in of.splitlines()
    ]
    found = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        for _, part in itertools.groupby(lexer, lambda word: set(word) <= set("|&;")):
            words = list(part)
            at = next(
                (at for at, word in enumerate(words) if re.search(r"(^|[/=])tumorbatch$", word)), -1
            )
            if at >= 0 and words[at + 1 :]:
                found.append(words[at + 1 :])
    return found


def test_every_command_of_the_examples_is_one() -> None:
    commands = _commands()
    assert len(commands) >= 7
    for arguments in commands:
        command = main.commands[arguments[0]]
        with click.Context(main) as parent:
            context = command.make_context(arguments[0], arguments[1:], parent=parent)
        assert context.params


def test_the_shell_examples_are_bash() -> None:
    for block in _blocks("bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_crontab_has_five_fields_and_no_bare_percent() -> None:
    (block,) = _blocks("crontab")
    (line,) = [line for line in block.splitlines() if not line.startswith("#")]
    fields = line.split(None, 5)
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    for field, (low, high) in zip(fields[:5], limits, strict=True):
        assert field == "*" or low <= int(field) <= high
    assert fields[5].startswith("cd ")
    assert "%" not in line  # cron takes it for a line end


def test_the_units_are_systemds(tmp_path: Path) -> None:
    service, timer = _blocks("ini")
    for name, text, sections in (
        ("service", service, {"Unit", "Service"}),
        ("timer", timer, {"Unit", "Timer", "Install"}),
    ):
        parser = configparser.ConfigParser(interpolation=None, strict=True)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        assert set(parser.sections()) == sections
        (tmp_path / f"tumorbatch.{name}").write_text(text)
    parser.read_string(service)
    assert parser["Service"]["RestartForceExitStatus"] == str(int(ExitCode.TRY_AGAIN))
    assert parser["Service"]["SuccessExitStatus"] == str(int(ExitCode.SOME_ERRORS))
    if shutil.which("systemd-analyze"):  # says more, where it is installed
        checked = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / "tumorbatch.timer"], capture_output=True, text=True
        )
        assert "Unknown" not in checked.stderr


def test_the_cluster_script_queues_again_after_75_and_passes_other_codes_on(tmp_path: Path) -> None:
    """With stand-ins for tumorbatch and scontrol."""
    script = next(block for block in _blocks("bash") if "SBATCH" in block)
    for name, text in (
        ("scontrol", f'echo "$@" > {tmp_path}/queued'),
        (
            "tumorbatch",
            f'trap "exit 75" USR2; touch {tmp_path}/ready; '
            'if [ -n "$CODE" ]; then exit "$CODE"; fi; sleep 30 & wait',
        ),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "CODE": "3"}
    done = subprocess.run(["bash", "-c", script], env=environment, check=False)
    assert done.returncode == 3
    assert not (tmp_path / "queued").exists()
    del environment["CODE"]
    (tmp_path / "ready").unlink()
    process = subprocess.Popen(["bash", "-c", script], env=environment)
    while not (tmp_path / "ready").exists():  # by then the script's own trap is set, too
        time.sleep(0.01)
    process.send_signal(12)  # USR2
    assert process.wait(timeout=60) == ExitCode.TRY_AGAIN
    assert (tmp_path / "queued").read_text() == "requeue 17\n"


def test_the_alerts_use_figures_that_exist() -> None:
    (block,) = _blocks("yaml")
    used = set(re.findall(r"tumorbatch_infer_[a-z_]+", block))
    metrics = Metrics()
    metrics.files, metrics.labels = {"ok": 1}, {"Tumor": 1}
    assert used
    for name in used:
        assert f"# TYPE {name} gauge" in render(metrics, 0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("number", [0, 1])
def test_the_python_examples_run_as_far_as_they_can(number: int) -> None:
    block = _blocks("python")[number]
    compile(block, "example", "exec")
    for module, name in re.findall(r"from (\S+) import (\w+)", block):
        assert hasattr(__import__(module, fromlist=[name]), name)
