"""Standard streams that are closed, or take nothing: the work is done, and the exit code is right."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.preprocess.sets import SIZE, content_of
from tumorbatch.errors import ExitCode

# What a shell or a scheduler may do to the three descriptors.
CLOSED = (
    "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full",
    ">&- 2>/dev/full", "<&- 2>/dev/full",
)  # fmt: skip
FULL = (">/dev/full", ">/dev/full 2>&-", ">/dev/full 2>/dev/full", "<&- >/dev/full")
LOST = "standard output could not be written: No space left on device"


def _shell(script: str, folder: Path) -> str:
    """Run a script in which TUMORBATCH is the command; give what it prints."""
    command = f"{sys.executable} -m tumorbatch"
    done = subprocess.run(
        ["bash", "-c", script.replace("TUMORBATCH", command)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("arguments", ["--version", "--help", "shard --help"])
def test_help_and_version(tmp_path: Path, arguments: str) -> None:
    script = "".join(f"TUMORBATCH {arguments} {how}; echo $?\n" for how in (*CLOSED, *FULL))
    output = _shell(f"{{ {script} }} 2>&1 | grep -x '[0-9]*' | tr '\\n' ' '", tmp_path)
    assert output.split() == ["0"] * len(CLOSED) + [str(int(ExitCode.CANNOT_WRITE))] * len(FULL)


def test_wrong_usage(tmp_path: Path) -> None:
    script = "".join(f"TUMORBATCH shard a b c {how}; echo $?\n" for how in (*CLOSED, *FULL))
    output = _shell(f"{{ {script} }} 2>/dev/null", tmp_path)
    assert output.split() == [str(int(ExitCode.USAGE))] * len(CLOSED + FULL)


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    script = "TUMORBATCH shard --help | head -1; echo ${PIPESTATUS[0]}"
    assert _shell(script, tmp_path).splitlines()[1:] == ["0"]


@pytest.fixture(scope="module")
def shards(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert _shell(f"TUMORBATCH shard {sample} out --size {SIZE} --quiet; echo $?", folder) == "3\n"
    return content_of(folder / "out")


@pytest.mark.parametrize(
    ("how", "quiet"),
    [("2>&-", "--quiet"), ("<&- >&- 2>&-", "--quiet"), ("2>&-", ""), (">&- 2>/dev/full", "")],
)
def test_the_work_is_done_and_nothing_lands_in_the_outputs(
    sample: Path, shards: dict[str, bytes], tmp_path: Path, how: str, quiet: str
) -> None:
    """A free descriptor would become a shard's, and every word of a library would land in it."""
    script = f"TUMORBATCH shard {sample} out --size {SIZE} {quiet} {how}; echo $?"
    assert _shell(script, tmp_path).splitlines()[-1] == "3"
    assert content_of(tmp_path / "out") == shards


def test_a_full_standard_output_is_said_when_the_work_is_done(
    sample: Path, shards: dict[str, bytes], tmp_path: Path
) -> None:
    script = f"TUMORBATCH shard {sample} out --size {SIZE} >/dev/full; echo $?"
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
