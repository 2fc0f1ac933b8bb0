"""The equalised tree: its pixels, its names, and that it is whole whatever happens."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch.errors import ConfigError, InputError, OutputError, TryAgainError
from tumorbatch.lock import output_lock
from tumorbatch.preprocess import equalize_folder as module
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.equalize_folder import Config, run
from tumorbatch.preprocess.pixels import equalize, process, resize
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError, Status

ROOT = Path(__file__).resolve().parents[2]
OTHER = Preprocessing(clahe_clip=4.0)

Warned = Callable[[], list[str]]


def serial(
    function: Callable[[Sequence[Any]], list[Any]],
    chunks: Iterable[Sequence[Any]],
    workers: int,
    on_loss: Callable[[Any, FileError], Any],
    seconds: float,
) -> Iterator[list[Any]]:
    """`ordered_map` in this process; a file called killer.png kills its worker."""
    for chunk in chunks:
        results = []
        for item in chunk:
            killer = item.file.name.endswith("killer.png")
            error = FileError(Status.DECODER_CRASH, "the process that decoded it was killed")
            results += [on_loss(item, error)] if killer else function([item])
        yield results


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker processes: they take a second to start."""
    monkeypatch.setattr(module, "ordered_map", serial)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Warned:
    """Gives the warnings logged so far."""
    monkeypatch.setattr(logging.getLogger("tumorbatch"), "propagate", True)
    caplog.set_level(logging.WARNING, "tumorbatch")
    return lambda: caplog.messages


def noise(seed: int, *shape: int, dtype: type = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def save(path: Path, image: NDArray[Any], suffix: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(suffix or path.suffix, image)[1].tobytes())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four readable images of four formats, hidden ones, and two broken files."""
    folder = tmp_path / "raw"
    save(folder / "a.jpg", noise(0, 60, 70, 3))
    save(folder / "a.tif", noise(1, 50, 40, dtype=np.uint16))
    save(folder / "ward 1" / "deep" / "é.PNG", noise(2, 33, 47), ".png")
    save(folder / "ward 1" / "wrong extension.jpg", noise(3, 90, 20), ".png")
    save(folder / ".hidden.png", noise(4, 20, 20))
    save(folder / ".trash" / "old.png", noise(4, 20, 20))
    (folder / "notes.txt").write_text("notes")
    cut = (folder / "ward 1" / "deep" / "é.PNG").read_bytes()[:-30]
    (folder / "ward 1" / "cut.png").write_bytes(cut)
    return folder


NAMES = ["a.jpg", "a.tif", "ward 1/deep/é.PNG", "ward 1/wrong extension.jpg"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "processed"


def content(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels(path: Path) -> NDArray[np.uint8]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


def expected(path: Path, preprocessing: Preprocessing | None = None) -> NDArray[np.uint8]:
    return equalize(decode(path.read_bytes()).grey, preprocessing or Preprocessing())


def touch_back(path: Path) -> None:
    """Make a file look ten seconds older."""
    before = path.stat().st_mtime_ns - 10 * 10**9
    os.utime(path, ns=(before, before))


@pytest.mark.usefixtures("quick")
def test_the_tree_is_mirrored_as_grey_png(source: Path, target: Path, warned: Warned) -> None:
    report = run(source, target, Config())
    assert set(content(target)) == {*(f"{name}.png" for name in NAMES), "equalize.json"}
    for name in NAMES:
        made = pixels(target / f"{name}.png")
        assert made.ndim == 2
        assert made.dtype == np.uint8
        assert np.array_equal(made, expected(source / name))
    assert report.files == {"found": 6, "ok": 4, "truncated": 1, "unsupported": 1}
    assert (report.written, report.files_kept, report.strays, report.errors) == (4, 0, 0, 2)
    assert not report.unchanged
    assert report.bytes == sum(path.stat().st_size for path in target.rglob("*.png"))
    assert [text.partition(":")[0] for text in warned()] == ["notes.txt", "ward 1/cut.png"]
    assert "before its end mark (truncated)" in warned()[1]


@pytest.mark.usefixtures("quick")
def test_the_pixels_are_those_of_shard_before_its_resize(sample: Path, target: Path) -> None:
    preprocessing = Preprocessing(size=64)
    report = run(sample, target, Config(preprocessing))
    assert report.written == 96
    for path in target.rglob("*.png"):
        origin = sample / str(path.relative_to(target)).removesuffix(".png")
        resized = resize(pixels(path), preprocessing)
        assert np.array_equal(resized, process(origin.read_bytes(), preprocessing).pixels)


@pytest.mark.usefixtures("quick")
def test_the_result_file_says_what_was_done(source: Path, target: Path) -> None:
    preprocessing = Preprocessing(clahe_clip=3, clahe_grid=8)
    run(source, target, Config(preprocessing))
    value = json.loads((target / "equalize.json").read_text())
    assert value["preprocessing"] == {
        "clahe": True, "clahe_clip": 3.0, "clahe_grid": 8, "decode_version": 2,
    }  # fmt: skip
    assert value["preprocessing_fingerprint"] == preprocessing.fingerprint
    assert value["files"] == {"found": 6, "ok": 4, "truncated": 1, "unsupported": 1}
    assert np.array_equal(pixels(target / "a.tif.png"), expected(source / "a.tif", preprocessing))


@pytest.mark.usefixtures("quick")
def test_names_never_collide(tmp_path: Path, target: Path) -> None:
    names = ["a", "a.png", "a.png.png", "a.jpg", "a.jpg.png", "A.jpg", "b/a.jpg", "a.jpg.d/a"]
    for seed, name in enumerate(names):
        save(tmp_path / "raw" / name, noise(seed, 20, 20), ".png")
    assert run(tmp_path / "raw", target, Config()).written == len(names)
    for name in names:
        assert np.array_equal(pixels(target / f"{name}.png"), expected(tmp_path / "raw" / name))


@pytest.mark.usefixtures("quick")
def test_a_folder_with_the_name_of_an_output_is_refused(source: Path, target: Path) -> None:
    save(source / "a.jpg.png" / "b.png", noise(0, 20, 20))
    with pytest.raises(ConfigError, match=r"has a folder 'a\.jpg\.png', and a file next to it"):
        run(source, target, Config())
    assert not target.exists()


@pytest.mark.usefixtures("quick")
def test_names_that_are_not_utf8_keep_their_bytes(source: Path, target: Path, warned: Warned) -> None:
    raw = os.fsencode(source) + b"/\xff.png"
    bad = os.fsencode(source) + b"/\xfe.txt"
    Path(os.fsdecode(raw)).write_bytes((source / "ward 1" / "wrong extension.jpg").read_bytes())
    Path(os.fsdecode(bad)).write_text("notes")
    run(source, target, Config())
    assert os.path.isfile(os.fsencode(target) + b"/\xff.png.png")
    assert any(text.startswith(r"\xfe.txt: not a JPEG") for text in warned())


@pytest.mark.usefixtures("quick")
def test_a_name_that_gets_too_long_costs_its_file_alone(
    source: Path, target: Path, warned: Warned
) -> None:
    name = "x" * 250 + ".png"
    save(source / name, noise(0, 20, 20))
    report = run(source, target, Config())
    assert report.files["io_error"] == 1
    assert report.written == 4
    assert f"{name}: the name of its PNG file would be too long (io_error)" in warned()
    assert len(content(target)) == 5


@pytest.mark.usefixtures("quick")
def test_a_file_that_kills_its_worker_is_a_row(source: Path, target: Path, warned: Warned) -> None:
    save(source / "killer.png", noise(0, 20, 20))
    report = run(source, target, Config())
    assert report.files["decoder_crash"] == 1
    assert any(
        text.startswith("killer.png: the process that decoded it was killed") for text in warned()
    )


def test_any_number_of_workers_gives_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(20):
        save(source / "many" / f"{seed}.png", noise(seed, 40, 40))
    monkeypatch.setattr(module, "_CHUNK", 4)
    one, three = (tmp_path / name for name in ("one", "three"))
    assert run(source, one, Config(workers=1)).written == 24
    run(source, three, Config(workers=3))
    assert content(one) == content(three)


def test_a_killed_run_is_finished_by_the_same_command(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "raw"
    for seed in range(60):
        save(source / f"{seed % 3}" / f"{seed}.png", noise(seed, 300, 300))
    code = (
        "import sys; from pathlib import Path; "
        "from tumorbatch.preprocess.equalize_folder import Config, run; "
        "run(Path(sys.argv[1]), Path(sys.argv[2]), Config(workers=1))"
    )
    command = [sys.executable, "-c", code, source, target]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        while len(list(target.rglob("[!.]*.png"))) < 5:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        while True:  # its worker notices, and then the group is empty
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    left = {path: path.stat().st_ino for path in target.rglob("[!.]*.png")}
    assert 5 <= len(left) < 60
    assert not (target / "equalize.json").exists()
    (target / "0" / ".0.png.png.tmp-1-0123abcd").write_bytes(b"half")
    report = run(source, target, Config(workers=1))
    assert (report.written, report.files_kept) == (60 - len(left), len(left))
    assert all(path.stat().st_ino == inode for path, inode in left.items())  # not made twice
    undisturbed = tmp_path / "undisturbed"
    monkeypatch.setattr(module, "ordered_map", serial)
    run(source, undisturbed, Config())
    assert content(target) == content(undisturbed)


@pytest.mark.usefixtures("quick")
def test_the_same_command_again_changes_nothing(source: Path, target: Path) -> None:
    run(source, target, Config())
    before = content(target)
    inodes = {path: path.stat().st_ino for path in target.rglob("*.png")}
    report = run(source, target, Config())
    assert report.unchanged
    assert (report.written, report.files_kept) == (0, 4)
    assert content(target) == before
    assert {path: path.stat().st_ino for path in target.rglob("*.png")} == inodes
    assert report.bytes == sum(path.stat().st_size for path in target.rglob("*.png"))


@pytest.mark.usefixtures("quick")
def test_a_changed_source_is_made_anew(source: Path, target: Path) -> None:
    run(source, target, Config())
    save(source / "a.jpg", noise(7, 30, 30, 3))
    touch_back(source / "a.jpg")  # an older file, moved here: a comparison by age would pass it over
    save(source / "new.png", noise(8, 30, 30))
    report = run(source, target, Config())
    assert not report.unchanged
    assert (report.written, report.files_kept) == (2, 3)
    for name in ("a.jpg", "new.png", "a.tif"):
        assert np.array_equal(pixels(target / f"{name}.png"), expected(source / name))


@pytest.mark.usefixtures("quick")
def test_a_source_that_became_unreadable_loses_its_output(source: Path, target: Path) -> None:
    run(source, target, Config())
    (source / "a.jpg").write_bytes(b"")
    touch_back(source / "a.jpg")
    report = run(source, target, Config())
    assert report.files["empty"] == 1
    assert not (target / "a.jpg.png").exists()


@pytest.mark.usefixtures("quick")
def test_outputs_without_a_source_stay_until_overwrite(
    source: Path, target: Path, warned: Warned
) -> None:
    run(source, target, Config())
    (source / "ward 1" / "deep" / "é.PNG").unlink()
    report = run(source, target, Config())
    assert report.strays == 1
    assert "PNG files without a source lie in" in warned()[-1]
    assert "ward 1/deep/é.PNG.png" in warned()[-1]
    assert (target / "ward 1" / "deep" / "é.PNG.png").exists()
    report = run(source, target, Config(overwrite=True))
    assert (report.written, report.files_kept, report.strays) == (3, 0, 0)
    assert not (target / "ward 1" / "deep" / "é.PNG.png").exists()


@pytest.mark.usefixtures("quick")
def test_other_settings_are_refused_unless_overwrite(
    source: Path, target: Path, tmp_path: Path
) -> None:
    run(source, target, Config())
    before = content(target)
    with pytest.raises(ConfigError, match=r"made differently .*'clahe_clip': 4\.0.* or --overwrite"):
        run(source, target, Config(OTHER))
    assert content(target) == before
    assert run(source, target, Config(OTHER, overwrite=True)).written == 4
    run(source, tmp_path / "direct", Config(OTHER))
    assert content(target) == content(tmp_path / "direct") != before


@pytest.mark.usefixtures("quick")
def test_size_does_not_matter(source: Path, target: Path) -> None:
    run(source, target, Config())
    assert run(source, target, Config(Preprocessing(size=64))).files_kept == 4


@pytest.mark.usefixtures("quick")
def test_no_output_of_other_settings_survives_a_kill(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, target, Config())

    class KilledError(BaseException):
        pass

    real = os.unlink

    def unlink_one(path: Any, *args: Any, **kwargs: Any) -> None:
        real(path, *args, **kwargs)
        if str(path).endswith("a.jpg.png"):
            raise KilledError

    # While the old outputs are deleted ...
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink_one)
        with pytest.raises(KilledError):
            run(source, target, Config(OTHER, overwrite=True))
    for config in (Config(), Config(OTHER)):
        with pytest.raises(ConfigError, match="made differently"):
            run(source, target, config)

    # ... and while the new ones are made: neither command takes over what the other made.
    def two_only(*args: Any) -> Iterator[list[Any]]:
        for results in serial(*args):
            yield results
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(module, "_CHUNK", 2)
        patch.setattr(module, "ordered_map", two_only)
        with pytest.raises(KilledError):
            run(source, target, Config(OTHER, overwrite=True))
    assert not (target / "equalize.json").exists()
    with pytest.raises(ConfigError, match="made differently"):
        run(source, target, Config())
    assert (
        run(source, target, Config(OTHER, overwrite=True)).files_kept == 2
    )  # the same command continues
    run(source, tmp_path / "direct", Config(OTHER))
    assert content(target) == content(tmp_path / "direct")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_refused(source: Path, target: Path, overwrite: bool) -> None:
    save(target / "holiday.png", noise(0, 20, 20))
    before = content(target)
    with pytest.raises(ConfigError, match=r"is not empty \(it holds 'holiday.png'\)"):
        run(source, target, Config(overwrite=overwrite))
    assert content(target) == before


@pytest.mark.usefixtures("quick")
def test_a_damaged_result_file_is_not_trusted(source: Path, target: Path) -> None:
    run(source, target, Config())
    (target / "equalize.json").write_text("{")
    with pytest.raises(ConfigError, match="it is not known how"):
        run(source, target, Config())
    assert run(source, target, Config(overwrite=True)).written == 4


@pytest.mark.parametrize(
    ("one", "other"), [("raw", "raw"), ("raw", "raw/out"), ("raw/in", "raw"), ("raw", "raw/../raw")]
)
def test_folders_inside_one_another_are_refused(tmp_path: Path, one: str, other: str) -> None:
    save(tmp_path / "raw" / "in" / "a.png", noise(0, 20, 20))
    before = content(tmp_path)
    with pytest.raises(ConfigError, match="are inside each other, or the same folder"):
        run(tmp_path / one, tmp_path / other, Config())
    assert content(tmp_path) == before


@pytest.mark.usefixtures("quick")
def test_links_between_the_folders_are_seen_through(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(source)
    with pytest.raises(ConfigError, match="are inside each other"):
        run(source, tmp_path / "alias", Config())
    run(source, target, Config())
    (source / "results").symlink_to(target)  # its outputs would be inputs now
    with pytest.raises(ConfigError, match="are inside each other"):
        run(source, target, Config())


@pytest.mark.usefixtures("quick")
def test_without_readable_images_nothing_is_finished(tmp_path: Path, target: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "raw", target, Config())
    (tmp_path / "raw").mkdir()
    with pytest.raises(InputError, match="has no files"):
        run(tmp_path / "raw", target, Config())
    (tmp_path / "raw" / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match=r"None of the 1 files .* can be read \(1 unsupported\)"):
        run(tmp_path / "raw", target, Config())
    save(tmp_path / "raw" / "a.png", noise(0, 20, 20))
    assert run(tmp_path / "raw", target, Config(OTHER)).written == 1  # nothing is in its way


@pytest.mark.usefixtures("quick")
def test_a_second_run_at_once_is_told_to_wait(source: Path, target: Path) -> None:
    target.mkdir()
    with output_lock(target, target / ".lock"), pytest.raises(TryAgainError, match="is in use by"):
        run(source, target, Config())


@pytest.mark.usefixtures("quick")
def test_an_output_that_cannot_be_written_is_a_sentence(source: Path, target: Path) -> None:
    target.write_text("a file")
    with pytest.raises(OutputError, match="Cannot write"):
        run(source, target, Config())


@pytest.mark.usefixtures("quick")
def test_a_full_disk_ends_the_run_and_loses_nothing(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(path: Any, **_: Any) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", full)
        with pytest.raises(OutputError, match="The disk is full"):
            run(source, target, Config())
    assert not (target / "equalize.json").exists()
    run(source, target, Config())
    run(source, tmp_path / "direct", Config())
    assert content(target) == content(tmp_path / "direct")


def test_a_config_without_workers_is_refused() -> None:
    with pytest.raises(ConfigError, match="--workers must be at least 1"):
        Config(workers=0)
