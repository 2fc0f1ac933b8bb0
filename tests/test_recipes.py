"""The recipes of docs/operations.md and docs/cluster.md: parsed, and checked by the real tools."""

import configparser
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from tumorbatch.cli.main import main
from tumorbatch.cli.prometheus import Metrics, render
from tumorbatch.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
DOCS = (ROOT / "docs" / "operations.md").read_text()
CLUSTER = (ROOT / "docs" / "cluster.md").read_text()
_COMMAND = "/srv/tumorbatch/.venv/bin/tumorbatch"


def needs(tool: str) -> pytest.MarkDecorator:
    """Skip a test where the command `tool` is not installed."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def _run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(item) for item in arguments], capture_output=True, text=True, check=False
    )


def _blocks(language: str, text: str = DOCS) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return found


def _commands() -> list[list[str]]:
    """Return the arguments of every `tumorbatch` in the examples."""
    blocks = [block for kind in ("crontab", "ini", "bash") for block in _blocks(kind)]
    blocks += _blocks("bash", CLUSTER)
    found = []
    for line in itertools.chain.from_iterable(block.splitlines() for block in blocks):
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
    assert len(commands) >= 11
    for arguments in commands:
        command = main.commands[arguments[0]]
        with click.Context(main, **main.context_settings) as parent:
            context = command.make_context(arguments[0], arguments[1:], parent=parent)
        assert context.params


def test_the_shell_examples_are_bash() -> None:
    for block in _blocks("bash") + _blocks("bash", CLUSTER):
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


@needs("crontab")
def test_the_crontab_is_accepted_by_cron(tmp_path: Path) -> None:
    (tmp_path / "crontab").write_text(_blocks("crontab")[0])
    checked = _run("crontab", "-T", tmp_path / "crontab")
    if "invalid option" in checked.stderr:
        pytest.skip("this version of crontab cannot check a file")
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Write the service and the timer, with a command that exists; return their folder."""
    service, timer = _blocks("ini")
    assert service.count(_COMMAND) == 1
    (tmp_path / "tumorbatch.service").write_text(service.replace(_COMMAND, sys.executable))
    (tmp_path / "tumorbatch.timer").write_text(timer)
    return tmp_path


def test_the_service_follows_the_exit_codes() -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(_blocks("ini")[0])
    assert parser["Service"]["RestartForceExitStatus"] == str(int(ExitCode.TRY_AGAIN))
    assert parser["Service"]["SuccessExitStatus"] == str(int(ExitCode.SOME_ERRORS))
    assert parser["Service"]["Type"] != "oneshot"  # refused with RestartForceExitStatus=


@needs("systemd-analyze")
@pytest.mark.parametrize("name", ["tumorbatch.service", "tumorbatch.timer"])
def test_systemd_accepts_the_units(units: Path, name: str) -> None:
    checked = _run("systemd-analyze", "verify", "--man=no", units / name)
    complaints = [line for line in checked.stderr.splitlines() if "tumorbatch." in line]
    assert (checked.returncode, complaints) == (0, []), checked.stderr


@needs("systemd-analyze")
def test_systemd_refuses_what_it_refused_before(units: Path) -> None:
    """The test above can fail: a unit of type oneshot is not restarted by an exit code."""
    unit = units / "tumorbatch.service"
    if int(_run("systemd-analyze", "--version").stdout.split()[1]) > 252:
        pytest.skip("newer versions accept it")
    unit.write_text(unit.read_text().replace("Type=exec", "Type=oneshot"))
    assert _run("systemd-analyze", "verify", "--man=no", unit).returncode != 0


@needs("systemd-analyze")
def test_the_service_is_hardened(units: Path) -> None:
    unit = units / "tumorbatch.service"
    checked = _run(
        "systemd-analyze", "security", "--offline=true", "--threshold=29", "--no-pager", unit
    )
    if "unrecognized option" in checked.stderr:
        pytest.skip("this version of systemd-analyze does not judge a file")
    assert checked.returncode == 0, checked.stdout  # exposure below 3.0


@needs("promtool")
def test_prometheus_accepts_the_alerts(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(_blocks("yaml")[0])
    checked = _run("promtool", "check", "rules", tmp_path / "rules.yml")
    assert checked.returncode == 0, checked.stderr


_RAN = "tumorbatch_infer_last_run_timestamp_seconds"
_WORKED = "tumorbatch_infer_last_success_timestamp_seconds"


@needs("promtool")
@pytest.mark.parametrize(
    ("series", "late"),
    [
        ({}, True),  # nothing was ever written: cron does not run it
        ({_RAN: "0+60x5000"}, True),  # it runs, and has never succeeded
        ({_RAN: "0+60x5000", _WORKED: "60x5000"}, True),  # the last success was three days ago
        ({_RAN: "0+60x5000", _WORKED: "0+60x5000"}, False),
    ],
)
def test_the_late_alert(tmp_path: Path, series: dict[str, str], late: bool) -> None:
    (tmp_path / "rules.yml").write_text(_blocks("yaml")[0])
    expected = {"eval_time": "72h", "alertname": "TumorbatchLate"}
    labels = {"instance": "reader"} if series else {}
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f'{name}{{instance="reader"}}', "values": values}
            for name, values in series.items()
        ],
        "alert_rule_test": [expected | {"exp_alerts": [{"exp_labels": labels}] if late else []}],
    }
    # JSON is YAML.
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [case]}))
    checked = _run("promtool", "test", "rules", tmp_path / "test.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


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


def test_the_container_is_confined_and_runs_a_command() -> None:
    run = next(line for line in "".join(_blocks("bash")).splitlines() if line.startswith("podman run"))
    assert {"--read-only", "--rm"} <= set(run.split())
    (user,) = re.findall(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for option in ("--network none", "--cap-drop all", f"--user {user}", ":/in:ro"):
        assert option in run
    arguments = shlex.split(run.partition(" tumorbatch:cpu ")[2])
    with click.Context(main, **main.context_settings) as parent:
        assert main.commands[arguments[0]].make_context(arguments[0], arguments[1:], parent=parent)
