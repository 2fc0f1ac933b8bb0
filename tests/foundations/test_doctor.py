"""`tumorbatch doctor`: what it finds here, and that what is wrong is marked and counted."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import doctor
from tumorbatch.doctor import Finding
from tumorbatch.errors import ExitCode

pytestmark = pytest.mark.usefixtures("tf")


def test_it_tells_versions_processor_and_room(invoke: Any) -> None:
    code, output = invoke("doctor")
    assert code in (ExitCode.OK, ExitCode.SOME_ERRORS)
    assert (code == ExitCode.OK) == ("!! " not in output)
    assert platform.python_version() in output
    for name in ("tensorflow", "keras", "processor", "XLA", "mixed precision", "free disk"):
        assert f"\n   {name} " in output, name


def test_problems_are_marked_and_counted() -> None:
    text = doctor.format_findings([Finding("a", "fine"), Finding("disk", "full", False)])
    assert text.splitlines() == ["   a     fine", "!! disk  full", "1 problem."]
    assert doctor.format_findings([Finding("a", "fine")]).endswith("No problems.")


def test_a_machine_with_a_gpu_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Any
) -> None:
    monkeypatch.setattr("tumorbatch.gpu.devices", lambda: ["/dev/nvidia0"])
    monkeypatch.setattr("tumorbatch.gpu.driver", lambda: "550.1, Tesla T4, 15360 MiB")
    monkeypatch.setattr("tumorbatch.gpu._opens", lambda name, package=None: name != "libcudnn.so.9")
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda *_: [])
    code, output = invoke("doctor")
    assert code == ExitCode.SOME_ERRORS
    assert "   driver " in output
    assert "Tesla T4" in output
    assert "!! libcudnn.so.9 " in output
    assert "   libcublas.so.12 " in output
    assert "libcudnn.so.9 cannot be opened. Install" in output


def test_too_little_room_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: 10**8)
    found = {finding.name: finding for finding in doctor.run(tmp_path)}
    assert not found["free memory"].well
    assert found["free memory"].text == "0.1 GB"


def test_quick_loads_no_tensorflow_and_json_tells_the_same(cli: Any, tmp_path: Path) -> None:
    done = cli("doctor", "--quick", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    names = {finding["name"] for finding in result["findings"]}
    assert {"tensorflow", "processor", "free disk", "shared memory"} <= names
    assert not {"XLA", "GPU", "mixed precision"} & names
    assert result["problems"] == sum(not finding["well"] for finding in result["findings"])
    assert done.returncode == (ExitCode.SOME_ERRORS if result["problems"] else ExitCode.OK)
    code = "import sys; from tumorbatch import doctor as d; d.run(d.Path(), quick=True)"
    answer = subprocess.run(
        [sys.executable, "-c", f"{code}; print('tensorflow' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "False\n"


def test_a_decoder_that_cannot_be_loaded_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdcm", None)  # as a missing library: the import fails
    found = {finding.name: finding for finding in doctor.run(Path(), quick=True)}
    assert not found["python-gdcm"].well
    assert found["python-gdcm"].text.endswith("cannot be loaded")
