"""DICOM files through the stages: the same tensors everywhere, and no patient in any output."""

import io
import stat
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from tumorbatch import tfrecord
from tumorbatch.files import find_files
from tumorbatch.infer.decoding import Task, decode_files
from tumorbatch.infer.predictions import PredictionsWriter
from tumorbatch.preprocess.shard import Config, run
from tumorbatch.preprocessing_config import Preprocessing

NAME, PATIENT = "DOE^JANE", "MRN-0815"


def _slice(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 4096, (64, 48)).astype("<u2")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{seed + 1}"
    dataset.PatientName, dataset.PatientID, dataset.Modality = NAME, PATIENT, "MR"
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
        path.write_bytes(_slice(number))
    (folder / "Tumor" / "cut.dcm").write_bytes(_slice(99)[:-1000])
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
