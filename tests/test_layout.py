"""Folders at the top, one import name: what is installed, what imports what, how it runs."""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("preprocess", "train", "infer")
FOLDERS = ("tumorbatch", *STAGES)
MODULES = [path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py"))]
MODULE_IDS = [path.relative_to(ROOT).as_posix() for path in MODULES]
# The compiler that setuptools takes.
HAS_COMPILER = (
    shutil.which((os.environ.get("CC") or sysconfig.get_config_var("CC")).split()[0]) is not None
)


# --- installing and running -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, without what building and working have left in it."""
    copy = tmp_path_factory.mktemp("checkout") / "tree"
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.so")
        )
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("data", "tfrecords", "tests", "benchmarks"):  # nothing of these is installed
        (copy / name).mkdir()
        (copy / name / "stray.py").touch()
    return copy


def _pip(*arguments: object) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *map(str, arguments)], check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    tree = shutil.copytree(checkout, out / "tree")  # building leaves files there
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", out, tree)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed") / "site-packages"
    _pip("install", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel)
    return target


def _python(*arguments: object, path: list[Path], cwd: Path) -> "subprocess.CompletedProcess[str]":
    """`python ARGUMENTS` that finds packages in `path` and the dependencies, and nothing else.

    -S leaves out site-packages' .pth files, and with them the editable install of this checkout.
    """
    libraries = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, path), *dict.fromkeys(libraries)])},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_the_wheel_holds_every_module_and_nothing_else(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in names if not name.startswith("tumorbatch/")}
        assert archive.read(f"{info}/top_level.txt").decode() == "tumorbatch\n"
        assert (
            "tumorbatch = tumorbatch.cli.main:main" in archive.read(f"{info}/entry_points.txt").decode()
        )
    files = {
        f"tumorbatch/{path.relative_to(checkout / name if name == 'tumorbatch' else checkout)}"
        for name in FOLDERS
        for path in (checkout / name).rglob("*")
        if path.suffix in (".py", ".jinja", ".css")
    }
    assert len(files) > 30
    libraries = {name for name in names if name.startswith("tumorbatch/native/_native")}
    assert {name for name in names if name.startswith("tumorbatch/")} == {
        *files,
        *libraries,
        "tumorbatch/py.typed",
    }
    assert len(libraries) == HAS_COMPILER
    # Where it lies is setuptools' choice: newer ones take the second place.
    assert names & {f"{info}/LICENSE", f"{info}/licenses/LICENSE"}


WHERE = """
import tumorbatch, tumorbatch.infer.worker, tumorbatch.preprocess.shard
for module in (tumorbatch, tumorbatch.infer.worker, tumorbatch.preprocess.shard):
    print(module.__file__)
print(list(tumorbatch.__path__))
"""


def test_the_installed_wheel_runs_anywhere(installed: Path) -> None:
    help_text = _python("-m", "tumorbatch", "--help", path=[installed], cwd=Path("/"))
    assert (help_text.returncode, help_text.stderr) == (0, "")
    assert "Classify brain images as Healthy or Tumor" in help_text.stdout
    package = installed / "tumorbatch"
    assert _python("-c", WHERE, path=[installed], cwd=Path("/")).stdout.splitlines() == [
        f"{package}/__init__.py",
        f"{package}/infer/worker.py",
        f"{package}/preprocess/shard.py",
        f"['{package}']",
    ]


@pytest.fixture
def by_both(installed: Path, tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Run a command of the installed wheel, given without OUT, by the library and by OpenCV."""

    def run(*arguments: object) -> dict[str, Path]:
        out = {"auto": tmp_path / "auto" / "out", "opencv": tmp_path / "opencv" / "out"}
        for pixels, path in out.items():
            path.parent.mkdir()
            command = ["-m", "tumorbatch", *arguments, path, "--workers", 1, "--pixels", pixels]
            done = _python(*command, path=[installed], cwd=tmp_path)
            assert done.returncode == 3, done.stderr  # the sample has broken files
            by = "the library in c" if pixels == "auto" and HAS_COMPILER else "opencv"
            assert f"equalised and resized by {by}" in (done.stdout + done.stderr).lower()
        return out

    return run


def test_shards_and_manifest_are_the_same_bytes_by_both_ways(
    by_both: Callable[..., dict[str, Path]], sample: Path
) -> None:
    out = by_both("shard", sample)
    files = {path.name: path.read_bytes() for path in out["auto"].iterdir()}
    assert {"dataset.json", "manifest.parquet"} < files.keys()
    assert files == {path.name: path.read_bytes() for path in out["opencv"].iterdir()}


@pytest.mark.slow
def test_predictions_are_the_same_by_both_ways(
    by_both: Callable[..., dict[str, Path]], sample: Path, model: Path
) -> None:
    out = by_both("infer", "--model", model, sample)
    tables = [pq.read_table(path).drop_columns(["run_id"]) for path in out.values()]
    assert tables[0].num_rows > 96
    assert tables[0].equals(tables[1])


def test_a_checkout_runs_from_its_root_without_being_installed(checkout: Path) -> None:
    help_text = _python("-m", "tumorbatch", "--help", path=[], cwd=checkout)
    assert (help_text.returncode, help_text.stderr) == (0, "")
    assert "Classify brain images as Healthy or Tumor" in help_text.stdout
    assert _python("-c", WHERE, path=[], cwd=checkout).stdout.splitlines() == [
        f"{checkout}/tumorbatch/__init__.py",
        f"{checkout}/infer/worker.py",
        f"{checkout}/preprocess/shard.py",
        f"['{checkout}/tumorbatch', '{checkout}']",
    ]
    # Elsewhere it is not to be found: the two above have seen no other installation.
    elsewhere = _python("-m", "tumorbatch", "--help", path=[], cwd=checkout / "data")
    assert "No module named tumorbatch" in elsewhere.stderr


# --- TensorFlow only where it is needed -----------------------------------------------------------


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages `tensorflow` and `keras`: importing one leaves a file behind, and fails.

    Unlike a look at sys.modules it sees worker processes too.
    """
    folder = tmp_path_factory.mktemp("traps")
    for name in ("tensorflow", "keras"):
        (folder / f"{name}.py").write_text(
            "import pathlib, traceback\n"
            f"pathlib.Path({str(folder)!r}, 'caught').write_text(''.join(traceback.format_stack()))\n"
            f"raise ImportError('{name}')\n"
        )
    return folder


def _caught(traps: Path) -> str:
    mark = traps / "caught"
    return mark.read_text() if mark.exists() else ""


def test_the_traps_work(checkout: Path, traps: Path) -> None:
    source = "from tumorbatch.runtime import load_tensorflow; load_tensorflow()"
    failed = _python("-c", source, path=[traps, checkout], cwd=checkout)
    assert "ImportError: tensorflow" in failed.stderr
    assert "load_tensorflow" in _caught(traps)
    (traps / "caught").unlink()


# One process shows them all: what one of them loads stays loaded.
HELP = """
import json, sys
from tumorbatch.cli.main import main
for command in json.loads(sys.argv[1]):
    try:
        main([*command, "--help"], prog_name="tumorbatch")
    except SystemExit as end:
        assert not end.code, command
"""


def test_no_help_loads_tensorflow(checkout: Path, traps: Path) -> None:
    from tumorbatch.cli.experiment import experiment
    from tumorbatch.cli.main import main

    assert {"shard", "train", "infer"} <= main.commands.keys()
    subcommands = [["experiment", name] for name in experiment.commands]
    commands = [[], *([name] for name in main.commands), *subcommands]
    shown = _python("-c", HELP, json.dumps(commands), path=[traps, checkout], cwd=checkout)
    assert (shown.returncode, shown.stderr) == (0, "")
    usages = [line for line in shown.stdout.splitlines() if line.startswith("Usage: ")]
    for command, usage in zip(commands, usages, strict=True):
        assert usage.startswith(" ".join(["Usage: tumorbatch", *command]))
    assert _caught(traps) == ""


def test_the_list_of_commands_is_there_at_once(checkout: Path) -> None:
    """NumPy and pyarrow would make `tumorbatch --help` take four times as long."""
    code = "import sys, tumorbatch.cli.main; print({'numpy', 'pyarrow', 'cv2'} & sys.modules.keys())"
    done = _python("-c", code, path=[checkout], cwd=checkout)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_shard_loads_no_tensorflow(checkout: Path, traps: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("Healthy", "Tumor"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for number in range(4):  # enough for all three splits
            _, data = cv2.imencode(".png", random.integers(0, 256, (64, 64), np.uint8))
            (tmp_path / "raw" / name / f"{number}.png").write_bytes(data)
    done = _python(
        "-m", "tumorbatch", "shard", tmp_path / "raw", tmp_path / "tfrecords", "--workers", 1,
        path=[traps, checkout],
        cwd=checkout,
    )  # fmt: skip
    assert _caught(traps) == ""
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tfrecords" / "dataset.json").exists()


# --- the modules ----------------------------------------------------------------------------------


class Import(NamedTuple):
    """One imported module of this project; `typing`: for type checkers alone."""

    by: str  # tumorbatch.train.feed
    name: str  # tumorbatch.tfrecord, or tumorbatch.tfrecord.read: a module or what is in it
    typing: bool


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "tumorbatch" else ("tumorbatch", *parts))


def _imports_of(tree: ast.AST, by: str, typing: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{by}: relative imports hide which module is meant"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _imports_of(ast.Module(node.body, []), by, typing=True)
            yield from _imports_of(ast.Module(node.orelse, []), by, typing)
            continue
        else:
            yield from _imports_of(node, by, typing)
            continue
        yield from (Import(by, name, typing) for name in names if name.split(".")[0] == "tumorbatch")


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """Every import between this project's modules, wherever in a module it stands."""
    found = [
        one for path in MODULES for one in _imports_of(ast.parse(path.read_text()), _module_name(path))
    ]
    # It does see those inside functions and those for type checkers.
    assert Import("tumorbatch.cli.train", "tumorbatch.workflows.train_folds", False) in found
    assert Import("tumorbatch.cli.model_summaries", "tumorbatch.train.training", True) in found
    return found


# A module imports only from its own room and from lower floors.
FLOORS = (
    {"foundations"},
    {"statistics"},
    {"report"},
    {"preprocess", "evaluation"},
    {"train", "infer"},
    {"workflows"},
    {"cli"},
)
DOORS = {
    "tumorbatch.__main__",
    "tumorbatch.__init__",
    "tumorbatch.imaging",
    "tumorbatch.plots",
}  # for users; nothing imports them


def _room(module: str) -> str:
    parts = module.split(".")
    rooms = set().union(*FLOORS)
    return parts[1] if len(parts) > 1 and parts[1] in rooms else "foundations"


def _floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_floors_import_only_downwards(imports: list[Import]) -> None:
    upwards = [
        one
        for one in imports
        if one.by not in DOORS
        and _room(one.by) != _room(one.name)
        and _floor(_room(one.name)) >= _floor(_room(one.by))
    ]
    assert upwards == []
    assert not [one for one in imports if one.name.startswith(tuple(DOORS)) and one.by not in DOORS]


def test_infer_takes_nothing_of_preprocess_but_the_pixel_path(imports: list[Import]) -> None:
    foreign = [one for one in imports if _room(one.by) == "infer" and _room(one.name) == "preprocess"]
    assert foreign  # inference must run the same code that made the shards
    for one in foreign:
        assert one.name.startswith("tumorbatch.preprocess.pixels"), one


def test_evaluation_and_training_take_nothing_of_preprocess(imports: list[Import]) -> None:
    assert not [
        one
        for one in imports
        if _room(one.by) in ("evaluation", "train") and _room(one.name) == "preprocess"
    ]


def test_only_the_command_line_talks_to_the_terminal() -> None:
    for path in MODULES:
        if path.parent.name != "cli":
            nodes = list(ast.walk(ast.parse(path.read_text())))
            names = {
                alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
            }
            names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
            assert "click" not in names, path


def test_no_module_imports_itself_through_others(imports: list[Import]) -> None:
    modules = {_module_name(path).removesuffix(".__init__") for path in MODULES}

    def target(name: str) -> str:
        return name if name in modules else name.rpartition(".")[0]

    arrows: dict[str, set[str]] = {module: set() for module in modules}
    for one in imports:
        if not one.typing:
            arrows[one.by.removesuffix(".__init__")].add(target(one.name))
    waiting = dict(arrows)
    while free := [module for module, targets in waiting.items() if not targets & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert sorted(waiting) == []


@pytest.mark.parametrize("path", MODULES, ids=MODULE_IDS)
def test_every_module_says_what_it_is_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring is not None
    assert docstring.splitlines()[0].endswith((".", ":", "?"))
    assert len(text.splitlines()) <= 400
