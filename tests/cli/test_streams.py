"""Standard streams that are closed, or take nothing: the work is done, and the exit code is right."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.stages import make_inputs
from tests.preprocess.sets import SIZE, content_of
from tumorbatch.cli.main import main
from tumorbatch.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]

# What a shell or a scheduler may do to the three descriptors.
CLOSED = (
    "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full",
    ">&- 2>/dev/full", "<&- 2>/dev/full",
)  # fmt: skip
FULL = (">/dev/full", ">/dev/full 2>&-", ">/dev/full 2>/dev/full", "<&- >/dev/full")
LOST = "standard output could not be written: No space left on device"


def _shell(script: str, folder: Path) -> str:
    """Run a script in which TUMORBATCH is the command, QUICK that of `inputs`; give what it prints."""
    command, quick = f"{sys.executable} -m tumorbatch", f"{sys.executable} quick.py"
    done = subprocess.run(
        ["bash", "-c", script.replace("TUMORBATCH", command).replace("QUICK", quick)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "ways"),
    [
        ("--version", (*CLOSED, *FULL)),
        ("--help", ("<&- >&- 2>&-", ">/dev/full")),
        *((f"{command} --help", (">/dev/full",)) for command in sorted(main.commands)),
        pytest.param("--help", (*CLOSED, *FULL), marks=pytest.mark.slow),
        *(
            pytest.param(f"{command} --help", (*CLOSED, *FULL), marks=pytest.mark.slow)
            for command in sorted(main.commands)
        ),
    ],
)
def test_help_and_version(tmp_path: Path, arguments: str, ways: tuple[str, ...]) -> None:
    script = "".join(f"TUMORBATCH {arguments} {how}; echo $?\n" for how in ways)
    output = _shell(f"{{ {script} }} 2>&1 | grep -x '[0-9]*' | tr '\\n' ' '", tmp_path)
    codes = ["0" if how in CLOSED else str(int(ExitCode.CANNOT_WRITE)) for how in ways]
    assert output.split() == codes


def test_wrong_usage(tmp_path: Path) -> None:
    ways = (*CLOSED[::2], *FULL[::2])
    script = "".join(f"TUMORBATCH shard a b c {how}; echo $?\n" for how in ways)
    output = _shell(f"{{ {script} }} 2>/dev/null", tmp_path)
    assert output.split() == [str(int(ExitCode.USAGE))] * len(ways)


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    script = "TUMORBATCH shard --help | head -1; echo ${PIPESTATUS[0]}"
    assert _shell(script, tmp_path).splitlines()[1:] == ["0"]


@pytest.fixture(scope="module")
def shards(little: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert _shell(f"TUMORBATCH shard {little} out --size {SIZE} --quiet; echo $?", folder) == "3\n"
    return content_of(folder / "out")


@pytest.mark.parametrize(
    ("how", "quiet"),
    [
        ("<&- >&- 2>&-", ""),
        ("2>&-", "--quiet"),
        *(
            pytest.param(how, quiet, marks=pytest.mark.slow)
            for how in CLOSED
            for quiet in ("", "--quiet")
        ),
    ],
)
def test_the_work_is_done_and_nothing_lands_in_the_outputs(
    little: Path, shards: dict[str, bytes], tmp_path: Path, how: str, quiet: str
) -> None:
    """A free descriptor would become a shard's, and every word of a library would land in it."""
    script = f"TUMORBATCH shard {little} out --size {SIZE} {quiet} {how}; echo $?"
    assert _shell(script, tmp_path).splitlines()[-1] == "3"
    assert content_of(tmp_path / "out") == shards


def test_a_full_standard_output_is_said_when_the_work_is_done(
    little: Path, shards: dict[str, bytes], tmp_path: Path
) -> None:
    script = f"TUMORBATCH shard {little} out --size {SIZE} >/dev/full; echo $?"
    output = _shell(script, tmp_path)
    assert LOST in output
    assert output.startswith(f"{int(ExitCode.CANNOT_WRITE)}\n")
    assert content_of(tmp_path / "out") == shards


def test_an_error_with_nowhere_to_tell_it_keeps_its_code(tmp_path: Path) -> None:
    script = "".join(f"TUMORBATCH verify absent {how}; echo $?\n" for how in ("2>&-", "2>/dev/full"))
    assert _shell(script, tmp_path).split() == [str(int(ExitCode.NO_INPUT))] * 2


def test_a_list_from_a_closed_standard_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    code = "from pathlib import Path; from tumorbatch.cli import streams; streams.fill(); "
    code += "from tumorbatch.infer import listing; "
    code += "print(listing._listed(Path('in'), '-'))"
    done = _shell(f'{sys.executable} -c "{code}" <&-', tmp_path)
    assert done == "[]\n"


# `infer` with a network that needs no TensorFlow; its workers import the file too.
QUICK = """
import sys
import numpy as np
from tumorbatch.cli.main import main
from tumorbatch.infer import network
def load(self):
    return lambda images: images.reshape(len(images), -1).astype(np.float32).mean(1) / 64 - 1
network.Network.load = load
if __name__ == "__main__":
    main()
"""
# What each command does in a working folder with raw/, model/, tfrecords/, cnn1/ and out.parquet, its
# exit code, and what must be there afterwards.
QUICK_COMMANDS = {
    "sample": ("TUMORBATCH sample new --images 24", 0, "new"),
    "shard": (f"TUMORBATCH shard raw new --size {SIZE} --workers 1", 3, "new/dataset.json"),
    "equalize": ("TUMORBATCH equalize raw new --workers 1", 3, "new"),
    "verify": ("TUMORBATCH verify out.parquet", 0, "out.parquet"),
    "show": ("TUMORBATCH show out.parquet", 0, "out.parquet"),
    "infer": ("QUICK infer raw new --model model --workers 1 --format parquet", 3, "new"),
    "status": ("TUMORBATCH status out.parquet", 0, "out.parquet"),
    "summarize": ("TUMORBATCH summarize out.parquet --by path", 0, "out.parquet"),
    "slurm": ("TUMORBATCH slurm --tasks 1 --time 1:00:00 -- infer raw new --model model", 0, "raw"),
    "k8s": ("TUMORBATCH k8s --tasks 1 --image i --claim c -- infer raw new --model model", 0, "raw"),
}
SLOW_COMMANDS = {
    "explore": ("TUMORBATCH explore raw --out new --workers 1", 3, "new/explore.html"),
    "doctor": ("TUMORBATCH doctor", 0, "raw"),
    "train": ("TUMORBATCH train --arch cnn1 --epochs 1 --device cpu --out new", 0, "new/model.json"),
    "evaluate": ("TUMORBATCH evaluate cnn1 --no-freeze --out new", 0, "new/report.html"),
    "compare": ("TUMORBATCH compare cnn1 --out new", 0, "new/compare.html"),
    "experiment": (
        f"TUMORBATCH experiment clahe raw --seeds 2 --epochs 1 --size {SIZE} --out new --yes",
        0,
        "new/result.json",
    ),
    "ensemble": (
        "TUMORBATCH train --arch cnn1 --epochs 1 --device cpu --seed 1 --out other --quiet && "
        "TUMORBATCH ensemble cnn1 other --out new",
        0,
        "new/model.json",
    ),
    "weights": ("TUMORBATCH weights check --arch mobilenetv2 --to raw", 3, "raw"),
    "export": ("TUMORBATCH export cnn1 --format h5 --out new.h5", 0, "new.h5"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    (folder / "quick.py").write_text(QUICK)
    command = "QUICK infer raw out.parquet --model model --workers 1 --quiet; echo $?"
    assert _shell(command, folder) == "3\n"
    return folder


def _try_commands(
    folder: Path, commands: dict[str, tuple[str, int, str]], ways: tuple[str, ...]
) -> None:
    for name, (command, code, result) in commands.items():
        for how in ways:
            output = _shell(f"{command} {how}; echo exit code $?", folder)
            expected = code if how in CLOSED else int(ExitCode.CANNOT_WRITE)
            assert f"exit code {int(expected)}" in output.splitlines(), (name, how, output)
            assert (folder / result).exists(), (name, how)
            for path in folder.glob("new*"):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def test_every_command_is_tried() -> None:
    tried = QUICK_COMMANDS.keys() | SLOW_COMMANDS.keys()
    assert main.commands.keys() - tried == {"sr"}  # it needs DICOM images and an extra package


@pytest.mark.parametrize(
    "ways",
    [("<&- >&- 2>&-",), pytest.param((*CLOSED, *FULL), marks=pytest.mark.slow)],
)
def test_commands_with_nowhere_to_write(inputs: Path, ways: tuple[str, ...]) -> None:
    _try_commands(inputs, QUICK_COMMANDS, ways)


@pytest.mark.slow
def test_commands_that_load_tensorflow(
    sample: Path, shard_set: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(sample, tmp_path / "raw", symlinks=True)
    shutil.copytree(shard_set, tmp_path / "tfrecords")
    shutil.copytree(model, tmp_path / "cnn1")
    _try_commands(tmp_path, SLOW_COMMANDS, ("<&- >&- 2>&-", ">/dev/full", ">&- 2>/dev/full"))
