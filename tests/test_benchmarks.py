"""The harness of `make bench`: ratios, skipped peers, results and charts. Nothing is measured here."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
ABOUT = {
    "date": "2026-01-02T03:04:05+00:00",
    "hardware": {"processor": "Nine $ Cores", "cores": 2, "memory_gib": 8},
    "versions": {"own": {"tumorbatch": "1.2"}, "peers": {}, "commit": "abc"},
    "data": {"source": "folder", "files": 60},
}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script of benchmarks/ as the scripts import each other."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def common(harness: Callable[[str], ModuleType]) -> ModuleType:
    return harness("common")


def _stage(common: ModuleType) -> object:
    one = common.Contestant
    return common.Stage(
        "stage",
        "a stage: 60 images",
        60,
        (
            one("ours", ("ours", common.OUT), own=True),
            one("ours, faster", ("ours", "--fast"), own=True),
            one("peer", ("peer",), needs=("here",)),
            one("absent peer", ("other",), needs=("here", "not_here")),
            one("broken peer", ("broken",)),
        ),
    )


@pytest.fixture
def comparison(common: ModuleType) -> object:
    """Three rounds on a clock on which the machine is twice as slow in the second one."""
    seconds = {"ours": [2.0, 4.0, 2.0], "ours, faster": [1.0, 2.0, 1.0], "peer": [6.0, 12.0, 5.0]}

    def run(contestant: object, images: int) -> object:
        if contestant.name == "broken peer":
            raise common.FailedError("exit code 1: no memory")
        return common.Run(images, seconds[contestant.name].pop(0), 1.5)

    comparison = common.Comparison(_stage(common), {"not_here"}, run)
    for _ in range(3):
        comparison.round()
    return comparison


def test_ratios_are_those_of_pairs_of_one_round(comparison: object) -> None:
    result = comparison.result(ABOUT)
    ratios = {(ratio["own"], ratio["peer"]): ratio for ratio in result["ratios"]}
    # Medians of rates would mix the rounds; each round by itself gives 3, 3 and 2.5.
    expected = {"own": "ours", "peer": "peer", "median": 3.0, "min": 2.5, "max": 3.0}
    assert ratios["ours", "peer"] == expected
    assert ratios["ours, faster", "peer"]["median"] == 6.0
    assert ratios["ours", "ours, faster"]["max"] == 0.5
    assert len(ratios) == 4
    assert result["rounds"] == 3


def test_a_missing_and_a_failing_peer_are_skipped_with_the_reason(comparison: object) -> None:
    peers = {one["name"]: one for one in comparison.result(ABOUT)["contestants"]}
    assert peers["absent peer"]["skipped"] == "not installed in .venv-peers: not_here"
    assert peers["broken peer"]["skipped"] == "it failed: exit code 1: no memory"
    assert peers["absent peer"]["seconds"] == peers["broken peer"]["seconds"] == []
    assert peers["peer"]["skipped"] is None


def test_own_failure_ends_the_run(common: ModuleType) -> None:
    def run(contestant: object, images: int) -> object:
        raise common.FailedError("exit code 70: bug")

    with pytest.raises(common.FailedError, match="ours: exit code 70: bug"):
        common.Comparison(_stage(common), set(), run).round()


def test_result_is_json_and_its_table_has_all(common: ModuleType, comparison: object) -> None:
    result = json.loads(json.dumps(comparison.result(ABOUT), allow_nan=False))
    assert result["hardware"] == ABOUT["hardware"]
    assert result["contestants"][0]["seconds"] == [2.0, 4.0, 2.0]
    text = common.table(result)
    rows = {line[:40].strip(): line for line in text.splitlines()}
    assert "3.00 (2.50 to 3.00)" in rows["peer"]
    assert "6.00 (5.00 to 6.00)" in rows["peer"]
    assert rows["ours"].split()[1] == "30"
    assert rows["peer"].split()[1] == "10"
    assert common.rate_text({"images": [8], "seconds": [16.0]}) == "0.50"
    assert "not_here" in rows["absent peer"]


def test_chart_is_written_as_svg_and_png(
    harness: Callable[[str], ModuleType], comparison: object, tmp_path: Path
) -> None:
    chart = harness("chart")
    result = comparison.result(ABOUT)
    chart.write(chart.bars(result), tmp_path / "stage")
    assert ElementTree.parse(tmp_path / "stage.svg").getroot().tag.endswith("svg")
    pixels = cv2.imdecode(np.fromfile(tmp_path / "stage.png", np.uint8), cv2.IMREAD_COLOR)
    # White behind it all, so that a dark page shows it too; and the bars of both own commands.
    assert pixels[0, 0].tolist() == [255, 255, 255]
    colors = {tuple(color) for color in pixels.reshape(-1, 3)[:, ::-1].tolist()}
    assert {(0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)} <= colors
    text = chart.footer(result)
    assert "Nine $ Cores, 2 cores, 8 GiB" in text
    assert "tumorbatch 1.2" in text
    assert "Skipped: absent peer, broken peer" in text


def test_rounds_go_on_while_there_is_time(harness: Callable[[str], ModuleType]) -> None:
    bench = harness("bench")
    now = 0.0
    log: list[str] = []

    class Slow:
        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def round(self) -> None:
            nonlocal now
            now += self.seconds
            log.append(self.name)

    stages = [Slow("short", 10), Slow("long", 50)]
    finished: list[object] = []
    bench.rounds(stages, 5, 100, finished.append, lambda: now)
    # After the first round 40 s are left: too few for the long stage, enough for four short ones.
    assert log == ["short", "long", "short", "short", "short", "short"]
    assert len(finished) == 6
    log.clear()
    bench.rounds(stages, 5, 0, finished.append, lambda: now)
    assert log == ["short", "long"], "the first round is always run"


def test_a_command_is_run_as_a_process_of_its_own(common: ModuleType) -> None:
    def run(code: str, own: bool = False, inside: bool = False) -> object:
        command = (sys.executable, "-S", "-c", code, common.OUT)
        ticks = iter((10.0, 13.0))
        return common.run_command(
            common.Contestant("one", command, own=own, inside=inside), 60, lambda: next(ticks)
        )

    write = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('x'); "
    own = run(write + "sys.exit(3)", own=True)  # some files have error rows: it is done all the same
    assert (own.images, own.seconds) == (60, 3.0)
    peer = run("""print('noise'); print('{"images": 55}')""")
    assert (peer.images, peer.seconds) == (55, 3.0)
    inside = run("""print('{"images": 55, "seconds": 0.5}')""", inside=True)
    assert (inside.images, inside.seconds) == (55, 0.5)
    with pytest.raises(common.FailedError, match="exit code 1: ValueError: of the peer"):
        run("raise ValueError('of the peer')")
    with pytest.raises(common.FailedError, match="number of images"):
        run("print('done')")


def test_modules_of_a_missing_environment_are_missing(common: ModuleType, tmp_path: Path) -> None:
    assert common.missing_modules(tmp_path / "python", ["json", "cv2"]) == {"json", "cv2"}
    assert common.missing_modules(Path(sys.executable), ["json", "no_such_module"]) == {
        "no_such_module"
    }


def test_files_are_spread_and_paths_are_shortened(harness: Callable[[str], ModuleType]) -> None:
    inputs, bench = harness("inputs"), harness("bench")
    files = [f"{number:02}" for number in range(10)]
    assert inputs.chosen(files[::-1], 5) == ["00", "02", "04", "06", "08"]
    assert inputs.chosen(files, None) == inputs.chosen(files, 99) == files
    result = bench.readable({"command": "python /tmp/bench-1/images OUT"}, {"/tmp/bench-1": "WORK"})
    assert result == {"command": "python WORK/images OUT"}


def test_a_folder_grows_by_links(harness: Callable[[str], ModuleType], tmp_path: Path) -> None:
    curve = harness("bench_curve")
    names = ["Healthy/deep/a.jpg", "Brain Tumor/b.png"]
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    curve.grow(tmp_path / "data", tmp_path / "images", names, 0, 3)
    curve.grow(tmp_path / "data", tmp_path / "images", names, 3, 5)
    files = sorted(path for path in (tmp_path / "images").rglob("*") if path.is_file())
    assert len(files) == 5
    assert [path.read_text() for path in files if "Healthy" in path.parts] == ["Healthy/deep/a.jpg"] * 3
    assert all(path.stat().st_nlink > 2 for path in files if path.suffix == ".jpg")


def test_every_peer_is_a_script_with_its_needs(harness: Callable[[str], ModuleType]) -> None:
    peers = harness("peers_list")
    modules = {"shared", "cnn1_torch"}
    assert {path.stem for path in peers.FOLDER.glob("*.py")} == peers.NEEDS.keys() | modules
    lines = (peers.FOLDER / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9\[\]-]+==[0-9.]+", line) for line in wanted), "pinned, one a line"
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    for name, version in (line.split("==") for line in wanted):  # the same TensorFlow and OpenCV
        assert constraints.get(name, version) == version


@pytest.mark.parametrize("target", ["bench", "bench-quick", "bench-curve"])
def test_make_targets_call_what_the_scripts_take(
    target: str, harness: Callable[[str], ModuleType]
) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", target, "DATA=some folder"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = (line for line in done.stdout.splitlines() if "benchmarks/bench" in line)
    script, *words = shlex.split(line)[1:]
    given = harness(Path(script).stem).parser().parse_args(words)
    assert given.data == Path("some folder")


def test_shard_makes_no_more_calls_a_file_than_its_bound(harness: Callable[[str], ModuleType]) -> None:
    guard = harness("guard")
    assert guard.calls() <= guard.CALLS
