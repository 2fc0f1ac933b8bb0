"""What a machine may lack is never the file's fault: a status that is tried again, or a sentence.

docs/operations.md has the table that these tests pin.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.in_process import leave_out_workers
from tests.preprocess.conftest import Build
from tests.preprocess.sets import SIZE, content_of, small_config
from tests.surroundings import needs_mounts
from tumorbatch import machine
from tumorbatch.errors import ExitCode, TryAgainError
from tumorbatch.files import FoundFile, find_files
from tumorbatch.infer import worker
from tumorbatch.preprocess import decode, equalize_folder, first_pass, previous_set, shard
from tumorbatch.preprocess import worker as shard_worker
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.explore import survey
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import DECIDED_BY_CONTENT, FileError, Status

HOW = Preprocessing(size=SIZE)


# --------------------------------------------------------------------- in a worker: the file's row


def _outcomes(file: FoundFile, folder: Path) -> dict[str, tuple[str, str | None]]:
    """Status and error of one file in each stage that decodes."""
    source = SourceFile(file, 0)
    (inferred,) = worker.decode_files([worker.Task(file)], HOW)
    (sharded,) = shard_worker.process_files([shard_worker.Task(source)], HOW, b"secret", 60)
    task = equalize_folder._Task(file, str(folder / "out.png"))
    (equalized,) = equalize_folder.equalize_files([task], HOW, 60)
    (explored,) = survey.look_at_files([source], HOW, b"secret", 60)
    rows = {"infer": inferred.rows[0], "shard": sharded.row, "explore": explored.row}
    found = {stage: (row["status"], row.get("error")) for stage, row in rows.items()}
    return found | {"equalize": (equalized.status, equalized.error)}


@pytest.fixture
def image(tmp_path: Path) -> FoundFile:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(Build.encode(".png", Build.smooth(40, 48)))
    (file,) = find_files(tmp_path / "in")
    return file


def _opencv_error(code: int, text: str) -> cv2.error:
    """As OpenCV raises it."""
    error = cv2.error(text)
    error.code, error.err = code, text
    return error


NO_TEMPORARY = "No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/work']"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (MemoryError(), "not enough memory"),
        (_opencv_error(-4, "Failed to allocate 1234567 bytes"), "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "too many files are open"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (FileNotFoundError(errno.ENOENT, NO_TEMPORARY), "TMPDIR"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (ImportError("libx.so: failed to map segment from shared object"), "not enough memory"),
    ],
)
def test_a_fault_of_the_machine_is_no_fault_of_the_file(
    image: FoundFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, words: str
) -> None:
    def fail(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(decode, "read_header", fail)  # where decoding begins
    for stage, (status, error) in _outcomes(image, tmp_path).items():
        assert status == Status.MACHINE_ERROR, stage
        assert words in str(error), stage


def test_a_bug_stays_a_bug(image: FoundFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(decode, "read_header", fail)
    with pytest.raises(ZeroDivisionError):
        worker.decode_files([worker.Task(image)], HOW)


def test_such_a_row_is_tried_again_by_every_stage_that_keeps_rows() -> None:
    assert Status.MACHINE_ERROR not in DECIDED_BY_CONTENT
    assert Status.MACHINE_ERROR not in previous_set.DECIDED_BY_CONTENT
    assert not {Status.DECODER_CRASH, Status.TIMEOUT, Status.NOT_FINITE} & DECIDED_BY_CONTENT


LIMITED = """
import resource, sys
import numpy as np, cv2
from tumorbatch.infer import worker
from tumorbatch.files import find_files
from tumorbatch.preprocessing_config import Preprocessing
from pathlib import Path
(file,) = find_files(Path(sys.argv[1]))
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20), -1))
(done,) = worker.decode_files([worker.Task(file)], Preprocessing(size=32))
print(done.rows[0]["status"], done.rows[0].get("error"))
"""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_a_process_with_too_little_memory(tmp_path: Path, suffix: str) -> None:
    """Native decoders say nothing of it; 36 million pixels do not fit into 20 MiB."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"a{suffix}").write_bytes(Build.encode(suffix, np.zeros((6000, 6000), np.uint8)))
    command = [sys.executable, "-c", LIMITED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("machine_error the machine could not decode it"), done


# ---------------------------------------------------------------- in the command's own process


def test_a_first_pass_goes_on_at_what_the_machine_could_not_decode(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where everything fails for lack of memory, nothing is published, and nothing is believed."""
    out = tmp_path / "out"
    leave_out_workers(monkeypatch)

    def starved(function: Callable[..., Any], chunks: Any, *_: Any) -> Any:
        for chunk in chunks:
            row = {"status": Status.MACHINE_ERROR.value, "error": "not enough memory"}
            yield [shard_worker.FileResult(row, None) for _ in chunk]

    with monkeypatch.context() as patch:
        patch.setattr(first_pass, "ordered_map", starved)
        with pytest.raises(TryAgainError, match=r"machine_error.*not enough memory"):
            shard.run(sample, out, small_config())
    report = shard.run(sample, out, small_config())
    assert (report.taken_over, report.dataset.files["ok"]) == (0, 96)


def test_a_missing_resource_ends_with_75_and_its_name(
    sample: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {
        MemoryError(): "not enough memory",
        OSError(errno.EMFILE, "Too many open files"): "ulimit -n",
        FileNotFoundError(errno.ENOENT, NO_TEMPORARY): "TMPDIR",
    }
    for fault, words in faults.items():

        def fail(*_: Any, fault: Exception = fault) -> None:
            raise fault

        monkeypatch.setattr(shard, "find_sources", fail)
        code, output = invoke("shard", sample, tmp_path / "out")
        assert (code, words in output) == (ExitCode.TRY_AGAIN, True), output


def _shard(little: Path, folder: Path, before: str = "") -> "subprocess.CompletedProcess[str]":
    """`tumorbatch shard` in `folder`, after some shell commands, in mounts of its own."""
    command = f"{sys.executable} -m tumorbatch shard {little} {folder}/out --size {SIZE} --workers 2"
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{before}\nexec {command}"],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip


@needs_mounts
@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("mount -t tmpfs -o size=64k none /dev/shm; head -c 64k /dev/zero > /dev/shm/x", "is full"),
        ("mount -t tmpfs -o ro none /dev/shm", "is read-only"),
        (
            "mkdir dev; touch dev/null; mount --bind /dev/null dev/null; mount --rbind dev /dev",
            "is missing",
        ),
    ],
)
def test_shared_memory_is_named(little: Path, tmp_path: Path, before: str, words: str) -> None:
    done = _shard(little, tmp_path, before)
    assert done.returncode == ExitCode.TRY_AGAIN, done.stderr
    assert f"Error: Worker processes cannot be started: /dev/shm {words}" in done.stderr
    assert "Traceback" not in done.stderr
    # What is there now is the work area alone, and the same command does the rest.
    assert _shard(little, tmp_path).returncode == ExitCode.SOME_ERRORS


@needs_mounts
def test_without_any_temporary_folder(little: Path, tmp_path: Path) -> None:
    """A read-only container: nothing in this command needs one."""
    mounts = "".join(f"mount -t tmpfs -o ro none {place}\n" for place in ("/var/tmp", "/usr/tmp"))
    done = _shard(little, tmp_path, f"export TMPDIR=/nowhere\n{mounts}")
    assert done.returncode == ExitCode.SOME_ERRORS, done.stderr


@pytest.fixture(scope="module")
def undisturbed(little: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    shard.run(little, out, small_config())
    return content_of(out)


@pytest.mark.parametrize("count", [10, 18, 26])
def test_too_few_open_files(
    little: Path, tmp_path: Path, undisturbed: dict[str, bytes], count: int
) -> None:
    """How many are enough depends on the libraries: fewer end in a sentence, never in error rows."""
    command = f"ulimit -n {count}; exec {sys.executable} -m tumorbatch shard {little} out --size {SIZE}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    if done.returncode == ExitCode.SOME_ERRORS:
        assert content_of(tmp_path / "out") == undisturbed
    else:
        assert done.returncode == ExitCode.TRY_AGAIN, done.stderr
        assert "too many files are open (raise `ulimit -n`)" in done.stderr
    if count < 12:  # a semaphore for each queue, and a pipe
        assert done.returncode == ExitCode.TRY_AGAIN


# ------------------------------------------------------------------------------ the current folder


@pytest.mark.parametrize("command", [["tumorbatch.cli.main"], ["-m", "tumorbatch"]])
def test_python_files_in_the_current_folder_are_not_imported(
    little: Path, tmp_path: Path, undisturbed: dict[str, bytes], command: list[str]
) -> None:
    for name in ("signal", "queue", "random", "socket", "tempfile", "numpy", "cv2", "click"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the real one')\n")
    if command[0] != "-m":  # as the installed command does it
        code = "import sys; sys.path.pop(0); from tumorbatch.cli.main import main; main()"
        command = ["-c", code]
    done = subprocess.run(
        [sys.executable, *command, "shard", str(little), "out", "--size", str(SIZE), "--quiet"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (ExitCode.SOME_ERRORS, "")
    assert content_of(tmp_path / "out") == undisturbed


def test_a_deleted_current_folder(little: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    command = f"{sys.executable} -m tumorbatch"
    script = f"""
mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone
{command} shard {little} {tmp_path}/out --size {SIZE} --quiet; echo $?
{command} verify {tmp_path}/out --quiet; echo $?
{command} shard; echo $?
{command} sample images; echo $?
{command} --version > {tmp_path}/version; echo $?
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["3", "0", "66", "73", "0"], done.stderr
    assert "Traceback" not in done.stderr
    assert content_of(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("name", [b"caf\xe9", b"file:out", b"s3:x", b"a b\n"])
def test_an_output_folder_of_any_name(
    little: Path, tmp_path: Path, undisturbed: dict[str, bytes], invoke: Any, name: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    out = os.fsdecode(name)
    if name.isascii():  # the other one goes through the workers' pipes
        leave_out_workers(monkeypatch)
    code, output = invoke("shard", little, out, "--size", SIZE)
    assert code == ExitCode.SOME_ERRORS, output
    assert content_of(tmp_path / out) == undisturbed
    assert invoke("verify", out)[0] == ExitCode.OK
    assert invoke("shard", little, out, "--size", SIZE)[0] == ExitCode.OK
    assert invoke("equalize", little, f"{out}-e", "--quiet")[0] == ExitCode.SOME_ERRORS
    assert invoke("sample", f"{out}-s", "--images", 24)[0] == ExitCode.OK


def test_shortages_are_told_by_their_causes() -> None:
    wrapped = RuntimeError("all decoders failed")
    wrapped.__cause__ = MemoryError()
    assert machine.shortage(wrapped) == "there is not enough memory"
    assert machine.shortage(RuntimeError("all decoders failed")) == ""
    assert machine.shortage(FileNotFoundError(errno.ENOENT, "No such file")) == ""
    with pytest.raises(FileError) as caught, machine.blamed():
        raise PermissionError(errno.EACCES, "Permission denied")
    assert caught.value.status == Status.MACHINE_ERROR
    assert json.loads(json.dumps(machine.shared_memory_problem())) == ""
