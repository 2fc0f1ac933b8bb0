"""DICOM files through the stages: the same tensors everywhere, and no patient in any output."""

import io
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage

from tests.preprocess.sets import image_files, write_file
from tumorbatch import tfrecord
from tumorbatch.checks import refuse_too_many_errors
from tumorbatch.cli.summaries import shard_summary
from tumorbatch.errors import TooManyErrorsError
from tumorbatch.files import find_files
from tumorbatch.infer.predictions import PredictionsWriter
from tumorbatch.infer.worker import Task, decode_files, lost
from tumorbatch.preprocess import equalize_folder, verify
from tumorbatch.preprocess.shard import Config, run
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError, Status, count_errors

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

pytestmark = pytest.mark.usefixtures("in_process")

NAME, PATIENT = "DOE^JANE", "MRN-0815"


def dicom_slice(seed: int, kind: str = MRImageStorage, patient: str = PATIENT) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 4096, (64, 48)).astype("<u2")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{seed + 1}"
    dataset.PatientName, dataset.PatientID, dataset.Modality = NAME, patient, "MR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom") / "raw"
    for number in range(24):
        path = folder / ("Healthy", "Tumor")[number % 2] / f"slice{number}"  # no extension
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom_slice(number))
    (folder / "Tumor" / "cut.dcm").write_bytes(dicom_slice(99)[:-1000])
    return folder


def test_shards_hold_what_infer_feeds_and_no_patient(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocessing = Preprocessing(size=32)
    report = run(source, out, Config(preprocessing, workers=1, patient_id=False))
    assert report.dataset.files == {"found": 25, "ok": 24, "truncated": 1}
    manifest = {row["path"]: row for row in pq.read_table(out / "manifest.parquet").to_pylist()}
    assert manifest["Healthy/slice0"]["format"] == "dicom"
    assert manifest["Healthy/slice0"]["bit_depth"] == 12
    assert manifest["Healthy/slice0"]["flags"] == "16-bit"
    written = {}
    for shard in report.dataset.shards:
        for data in tfrecord.read(out / shard.name):
            record = tfrecord.ImageRecord.decode(data)
            written[record.filename] = record.pixels
    tasks = [Task(file) for file in find_files(source)]
    fed = {entry.rows[0]["path"]: entry.pixels[0] for entry in decode_files(tasks, preprocessing)}
    assert fed.pop("Tumor/cut.dcm") is None
    assert written == {name: pixels.tobytes() for name, pixels in fed.items() if pixels is not None}
    for path in out.iterdir():
        content = path.read_bytes()
        for secret in (NAME, PATIENT, "JANE"):
            assert secret.encode() not in content, path.name


@pytest.mark.parametrize(("files", "mode"), [("Tumor/cut.dcm", 0o600), ("plain.png", 0o644)])
def test_a_table_with_dicom_rows_is_its_owners_alone(
    source: Path, tmp_path: Path, files: str, mode: int
) -> None:
    (tmp_path / "in").mkdir()
    content = (source / files).read_bytes() if (source / files).exists() else b"\x89PNG\r\n\x1a\n"
    (tmp_path / "in" / "one").write_bytes(content)
    (task,) = (Task(file) for file in find_files(tmp_path / "in"))
    (entry,) = decode_files([task], Preprocessing())
    rows = [{**row, "model_id": "m", "run_id": "r"} for row in entry.rows]
    with PredictionsWriter(tmp_path / "out.parquet") as writer:
        writer.write(rows)
        writer.finish({"model_id": "m"})
    for name in ("out.parquet", "out.parquet.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_shard_set_with_dicom_files_is_its_owners_alone(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", Config(Preprocessing(size=32), workers=1, patient_id=False))
    assert _mode(tmp_path / "out") == 0o700
    assert {path.name: oct(_mode(path)) for path in (tmp_path / "out").iterdir()} == {
        path.name: oct(0o600) for path in (tmp_path / "out").iterdir()
    }


def test_a_shard_set_whose_dicom_files_crash_their_decoder_too(
    source: Path, tmp_path: Path, build: "type[Build]"
) -> None:
    """Nothing says that they are DICOM but their first bytes, or their names."""
    for name, data in image_files(build, 8).items():
        write_file(tmp_path / "raw" / name, data)
    run(tmp_path / "raw", tmp_path / "public", Config(Preprocessing(size=32), workers=1))
    assert _mode(tmp_path / "public" / "manifest.parquet") == 0o644
    (tmp_path / "raw" / "Healthy" / "broken.DCM").write_bytes(b"no DICOM at all")
    run(tmp_path / "raw", tmp_path / "private", Config(Preprocessing(size=32), workers=1))
    assert _mode(tmp_path / "private" / "manifest.parquet") == 0o600
    crash = FileError(Status.DECODER_CRASH, "it killed the process")
    for name in ("slice0", "cut.dcm"):
        (file,) = (found for found in find_files(source) if found.name.endswith(name))
        assert lost(Task(file), crash).rows[0]["format"] == "dicom"


def test_equalised_dicom_files_are_their_owners_alone(source: Path, tmp_path: Path) -> None:
    equalize_folder.run(source, tmp_path / "out", equalize_folder.Config(workers=1))
    assert _mode(tmp_path / "out" / "Healthy" / "slice0.png") == 0o600


def test_objects_without_an_image_are_no_errors(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "raw")
    (tmp_path / "raw" / "Tumor" / "cut.dcm").unlink()
    for number, kind in enumerate((BasicTextSRStorage, SegmentationStorage)):
        (tmp_path / "raw" / "Healthy" / f"{number}").write_bytes(dicom_slice(500 + number, kind))
    config = Config(Preprocessing(size=32), workers=1, max_error_rate=0, patient_id=False)
    report = run(tmp_path / "raw", tmp_path / "out", config)
    assert report.dataset.files == {"found": 26, "ok": 24, "not_an_image": 2}
    assert report.errors == 0
    assert "Skipped 2 DICOM objects without an image" in shard_summary(report, tmp_path / "out")
    assert verify.run(tmp_path / "out").problems == ()
    assert run(tmp_path / "raw", tmp_path / "out", config).unchanged
    equalised = equalize_folder.run(
        tmp_path / "raw", tmp_path / "eq", equalize_folder.Config(workers=1)
    )
    assert equalised.errors == 0
    assert equalised.files["not_an_image"] == 2


def test_what_counts_as_an_error() -> None:
    assert count_errors({"found": 9, "ok": 5, "not_an_image": 2, "empty": 1, "timeout": 1}) == 2
    refuse_too_many_errors({"not_an_image": 9}, 0.0, "")
    refuse_too_many_errors({"ok": 1, "not_an_image": 9}, 0.0, "")
    with pytest.raises(TooManyErrorsError, match=r"1 of 2 files .* \(1 empty\)"):
        refuse_too_many_errors({"ok": 1, "empty": 1, "not_an_image": 9}, 0.4, "")
