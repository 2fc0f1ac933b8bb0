"""Files with several frames or pages: a row each, with the frame's own prediction."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import RLELossless

from tests.preprocess.conftest import Build
from tests.preprocess.dicom.test_decode import make
from tumorbatch import bundle
from tumorbatch.errors import ExitCode
from tumorbatch.files import find_files
from tumorbatch.infer import inference
from tumorbatch.infer.config import Config
from tumorbatch.infer.predictions import iterate_rows
from tumorbatch.infer.shared_memory import Ring
from tumorbatch.infer.worker import Task, decode_files
from tumorbatch.preprocess.pixels import process
from tumorbatch.status import FileError, Status

pytestmark = pytest.mark.usefixtures("in_process")

PAGES = [Build.smooth(40 + 4 * index, 48, index) for index in range(4)]
FRAMES = np.stack([Build.smooth(40, 48, 10 + index) for index in range(5)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "a.png").write_bytes(Build.encode(".png", PAGES[1]))
    (folder / "pages.tif").write_bytes(Build.pages(PAGES))
    (folder / "series").write_bytes(make(FRAMES, Frames=5))  # no suffix
    (folder / "z.png").write_bytes(Build.encode(".png", PAGES[2]))
    return folder


def test_each_page_and_frame_is_decoded_as_if_it_stood_alone(model: Path) -> None:
    preprocessing = bundle.load(model).preprocessing
    for index, page in enumerate(PAGES):
        alone = process(Build.encode(".png", page), preprocessing)
        of_file = process(Build.pages(PAGES), preprocessing, frame=index)
        assert (of_file.pixels == alone.pixels).all()
        assert of_file.decoded.header.pages == 4
    for index, frame in enumerate(FRAMES):
        alone = process(make(frame), preprocessing)
        assert (
            process(make(FRAMES, Frames=5), preprocessing, frame=index).pixels == alone.pixels
        ).all()
    for data, frame in (
        (Build.pages(PAGES), 4), (make(FRAMES, Frames=5), 5), (Build.encode(".png", PAGES[0]), 1),
    ):  # fmt: skip
        with pytest.raises(FileError) as caught:
            process(data, preprocessing, frame=frame)
        assert caught.value.status == Status.DECODE_ERROR


@pytest.mark.usefixtures("real_workers")
def test_a_row_for_each(folder: Path, model: Path, tmp_path: Path, invoke: Any) -> None:
    out = tmp_path / "out.parquet"
    code, output = invoke("infer", folder, out, "--model", model, "--workers", 2)
    assert code == ExitCode.OK, output
    assert "4 files: 4 predicted" in output
    assert "11 rows: one for each frame or page." in output
    rows = list(iterate_rows(out))
    assert [(row["path"], row["frame"]) for row in rows] == [
        ("a.png", 1),
        *(("pages.tif", number) for number in range(1, 5)),
        *(("series", number) for number in range(1, 6)),
        ("z.png", 1),
    ]
    logits = {(row["path"], row["frame"]): row["logit"] for row in rows}
    assert len(set(logits.values())) >= 9
    assert logits["pages.tif", 2] == pytest.approx(logits["a.png", 1], abs=1e-6)
    assert logits["pages.tif", 3] == pytest.approx(logits["z.png", 1], abs=1e-6)
    assert [row["height"] for row in rows[1:5]] == [40, 44, 48, 52]
    assert all("multi-page" in row["flags"] for row in rows[1:5])
    assert all("multi-frame" in row["flags"] for row in rows[5:10])
    assert all("duplicate" not in row["flags"] for row in rows)
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_later_page_that_is_broken_costs_itself_alone(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    data = bytearray(Build.pages(PAGES))
    at = bytes(data).index(PAGES[2].tobytes())
    link = at + PAGES[2].nbytes + PAGES[2].nbytes % 2  # the third page's directory: behind its pixels
    for entry in range(10):
        where = link + 2 + 12 * entry
        if int.from_bytes(data[where : where + 2], "little") == 257:  # its height
            data[where + 8 : where + 10] = (4000).to_bytes(2, "little")
    (folder / "pages.tif").write_bytes(data)
    out = tmp_path / "out.parquet"
    report = inference.run(folder, out, model, Config(workers=1))
    assert (report.files, report.errors, report.rows) == (4, 1, 11)
    statuses = [row["status"] for row in iterate_rows(out) if row["path"] == "pages.tif"]
    assert statuses[:2] == ["ok", "ok"]
    assert statuses[2] != "ok"
    assert statuses[3] == "ok"


def test_frames_are_kept_together_when_the_run_goes_on(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    config = Config(workers=1, incremental=True)
    inference.run(folder, out, model, config)
    before = list(iterate_rows(out))
    (folder / "b.png").write_bytes(Build.encode(".png", PAGES[3]))
    report = inference.run(folder, out, model, config)
    assert (report.files_kept, report.rows) == (4, 12)
    assert [row for row in iterate_rows(out) if row["path"] != "b.png"] == before


@pytest.mark.usefixtures("real_workers")
def test_pixels_through_shared_memory_are_those_through_a_pipe(folder: Path, model: Path) -> None:
    preprocessing = bundle.load(model).preprocessing
    files = find_files(folder)
    plain = decode_files([Task(file) for file in files], preprocessing)
    with Ring(3, preprocessing.shape) as ring:
        places = [ring.place(index) for index in (0, 1, 2, 3)]
        assert places[0] is not None
        assert places[0] == places[3]  # round and round
        for file, expected, place in zip(files, plain, places[:3], strict=False):
            (entry,) = decode_files([Task(file, place)], preprocessing)
            assert entry.rows == expected.rows
            assert entry.pixels[0] is place
            assert place is not None
            assert (ring.read(place) == expected.pixels[0]).all()
            for frame, other in zip(entry.pixels[1:], expected.pixels[1:], strict=True):
                assert (frame == other).all()


@pytest.mark.usefixtures("real_workers")
@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no shared memory in a folder")
def test_memory_that_a_killed_job_left_is_freed_and_memory_in_use_is_not() -> None:
    left = Path("/dev/shm/tumorbatch-left-by-a-test")
    left.write_bytes(bytes(10))
    with Ring(2, (8, 8)) as used:
        place = used.place(0)
        assert place is not None
        for path in (left, Path("/dev/shm") / place.name):
            os.utime(path, (0, 0))
        with Ring(2, (8, 8)) as other:
            assert other.place(0) != place
        assert not left.exists()
        assert (Path("/dev/shm") / place.name).exists()
    assert not (Path("/dev/shm") / place.name).exists()


def test_without_shared_memory_pixels_go_through_the_pipe(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container with a small /dev/shm."""
    from tumorbatch.infer import shared_memory

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    inference.run(folder, tmp_path / "a.parquet", model, Config(workers=1))
    monkeypatch.setattr(shared_memory, "_reserve", full)
    inference.run(folder, tmp_path / "b.parquet", model, Config(workers=1))
    first, second = (
        [{**row, "run_id": ""} for row in iterate_rows(tmp_path / f"{name}.parquet")] for name in "ab"
    )
    assert first == second


def test_more_frames_than_allowed_are_one_row(folder: Path, model: Path) -> None:
    preprocessing = bundle.load(model).preprocessing
    tasks = [Task(file) for file in find_files(folder)]
    for limit, expected in ((5, [1, 4, 5, 1]), (4, [1, 4, 1, 1]), (1, [1, 1, 1, 1])):
        done = decode_files(tasks, preprocessing, max_frames=limit)
        assert [len(entry.rows) for entry in done] == expected
        refused = [entry.rows[0] for entry in done if entry.rows[0]["status"] == Status.TOO_LARGE]
        assert len(refused) == {5: 0, 4: 1, 1: 2}[limit]
        assert all("--max-frames" in row["error"] for row in refused)


def test_the_header_of_many_frames_is_read_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorbatch.preprocess.dicom import decode as dicom
    from tumorbatch.preprocess.tiff import directory

    calls: list[str] = []

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*given: Any, **more: Any) -> Any:
            calls.append(name)
            return original(*given, **more)

        monkeypatch.setattr(module, name, call)

    counted(dicom, "read_part10")
    counted(dicom, "StoredValues")
    counted(directory, "first_directory")
    (tmp_path / "a.dcm").write_bytes(make(FRAMES, Frames=5))
    (tmp_path / "b.dcm").write_bytes(make(FRAMES, Frames=5, syntax=RLELossless))
    (tmp_path / "c.tif").write_bytes(Build.pages(PAGES))
    tasks = [Task(file) for file in find_files(tmp_path)]
    done = decode_files(tasks, bundle.load(model).preprocessing)
    assert [len(entry.rows) for entry in done] == [5, 5, 4]
    assert all(row["status"] == Status.OK for entry in done for row in entry.rows)
    assert sorted(calls) == ["StoredValues"] * 2 + ["first_directory"] + ["read_part10"] * 2
