"""Whose image it is, without a name: keyed hashes, and what is no slice of an MR of the head."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.preprocess.conftest import Build
from tests.preprocess.dicom.test_decode import ID, make
from tumorbatch.errors import ConfigError, ExitCode
from tumorbatch.files import FoundFile
from tumorbatch.infer.config import Config
from tumorbatch.infer.plan import identity_secret
from tumorbatch.infer.predictions import EARLIER_SCHEMA, SCHEMA, iterate_rows, read_metadata
from tumorbatch.infer.target import Target
from tumorbatch.infer.worker import Task, decode_files
from tumorbatch.parts import Part
from tumorbatch.preprocess.pixels import is_blank
from tumorbatch.preprocessing_config import Preprocessing

KEY = bytes(range(32))
KEYS = ("patient_key", "study_key", "series_key", "instance_key")
IDS: dict[str, Any] = {
    "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1", "IssuerOfPatientID": "Ward 7",
}  # fmt: skip
PIXELS = Build.smooth(40, 48).astype(np.uint16) * 16


def _rows(tmp_path: Path, data: bytes, key: bytes | None = KEY) -> list[dict[str, Any]]:
    path = tmp_path / "a.dcm"
    path.write_bytes(data)
    task = Task(FoundFile(str(path), "a.dcm"))
    (done,) = decode_files([task], Preprocessing(size=32), identity_key=key)
    assert all(row["status"] == "ok" for row in done.rows)
    return done.rows


def _row(tmp_path: Path, key: bytes | None = KEY, **values: Any) -> dict[str, Any]:
    (row,) = _rows(tmp_path, make(PIXELS, 12, **values), key)
    return row


def _hash(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


# --- keys -------------------------------------------------------------------------------------------


def test_identifiers_become_keyed_hashes(tmp_path: Path) -> None:
    row = _row(tmp_path, **IDS)
    assert [row[name] for name in KEYS] == [
        _hash(f"Ward 7\\{ID}"), _hash("1.2.3"), _hash("1.2.3.1"), _hash("1.2.3.4"),
    ]  # fmt: skip
    assert not any(word in str(row) for word in (ID, "1.2.3", "Ward 7"))


def test_without_a_key_the_columns_are_null(tmp_path: Path) -> None:
    row = _row(tmp_path, key=None, **IDS, Modality="MR")
    assert [row[name] for name in KEYS] == [None] * 4
    assert row["modality"] == "MR"
    missing = _row(tmp_path, PatientID=None)
    assert [missing[name] is None for name in KEYS] == [True, True, True, False]


# --- what it shows ----------------------------------------------------------------------------------


def test_texts_of_no_list_are_not_shown(tmp_path: Path) -> None:
    row = _row(tmp_path, Modality="XX", BodyPartExamined="Mr Smith")
    assert (row["modality"], row["body_part"]) == ("OTHER", "OTHER")
    row = _row(tmp_path, Modality="MR", BodyPartExamined="Head^Brain ")
    assert (row["modality"], row["body_part"]) == ("MR", "HEAD")
    assert not [flag for flag in row["flags"] if flag.startswith("not-")]


def test_the_place_of_a_slice(tmp_path: Path) -> None:
    tilted = [1, 0, 0, 0, 0.6, 0.8]  # the normal is (0, -0.8, 0.6)
    row = _row(tmp_path, ImageOrientationPatient=tilted, ImagePositionPatient=[5, 10, 20])
    assert row["slice_position"] == pytest.approx(-0.8 * 10 + 0.6 * 20)
    assert _row(tmp_path, SliceLocation=12.5)["slice_position"] == 12.5
    assert _row(tmp_path)["slice_position"] is None
    for wrong in ([0, 0, 0, 0, 0, 0], [1, 0, 0]):
        row = _row(tmp_path, ImageOrientationPatient=wrong, ImagePositionPatient=[5, 10, 20])
        assert row["slice_position"] is None


def test_each_frame_has_its_own_place(tmp_path: Path) -> None:
    def item(**values: Any) -> Dataset:
        dataset = Dataset()
        for name, value in values.items():
            setattr(dataset, name, value)
        return dataset

    frames = [
        item(PlanePositionSequence=Sequence([item(ImagePositionPatient=[0, 0, 3 * k])]))
        for k in range(3)
    ]
    plane = item(PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]))
    data = make(
        np.stack([PIXELS] * 3), 12, Frames=3, PerFrameFunctionalGroupsSequence=Sequence(frames),
        SharedFunctionalGroupsSequence=Sequence([plane]),
    )  # fmt: skip
    assert [row["slice_position"] for row in _rows(tmp_path, data)] == [0, 3, 6]


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("not-mr", {"Modality": "CT"}),
        ("not-head", {"BodyPartExamined": "LSPINE"}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("localizer", {"SeriesDescription": "3-plane survey"}),
        ("mosaic", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}),
        ("screenshot", {"BurnedInAnnotation": "YES"}),
        ("blank", None),
    ],
)
def test_what_is_no_slice_of_an_mr_of_the_head_is_flagged(
    flag: str, values: dict[str, Any] | None, tmp_path: Path
) -> None:
    pixels = PIXELS if values is not None else np.full_like(PIXELS, 7)
    (row,) = _rows(tmp_path, make(pixels, 12, **(values or {})))
    assert flag in row["flags"]
    plain = _row(tmp_path, Modality="MR", BodyPartExamined="BRAIN")
    assert flag not in plain["flags"]


def test_nearly_nothing_is_blank() -> None:
    image = np.full((64, 64), 9, np.uint8)
    assert is_blank(image)
    image += (np.arange(64) % 8).astype(np.uint8)  # noise
    assert is_blank(image)
    image[20:40, 20:40] = 200
    assert not is_blank(image)


# --- tables -----------------------------------------------------------------------------------------


def test_tables_without_these_columns_are_read(tmp_path: Path) -> None:
    old = {
        "path": "a.png",
        "frame": 1,
        "status": "ok",
        "label": "Tumor",
        "model_id": "m",
        "run_id": "r",
    }
    pq.write_table(pa.Table.from_pylist([old], EARLIER_SCHEMA), tmp_path / "old.parquet")
    (row,) = iterate_rows(tmp_path / "old.parquet")
    assert row["label"] == "Tumor"
    assert row.get("patient_key") is None
    assert SCHEMA.names[: len(EARLIER_SCHEMA)] == EARLIER_SCHEMA.names  # new ones come last


def test_the_tasks_of_a_table_share_a_key(tmp_path: Path) -> None:
    missing = Config(identity_key=tmp_path / "key", part=Part(1, 2))
    with pytest.raises(ConfigError, match="the same --identity-key in every task"):
        identity_secret(missing)
    made = identity_secret(Config(identity_key=tmp_path / "key"))
    assert identity_secret(missing) == made


def test_a_table_keeps_its_key(quick: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.dcm").write_bytes(make(PIXELS, 12, **IDS))
    out, key = tmp_path / "out.parquet", tmp_path / "key"
    command = (
        "infer",
        tmp_path / "scans",
        out,
        "--model",
        model,
        "--workers",
        1,
        "--identity-key",
        key,
    )
    process = quick(*command)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == ExitCode.OK, stderr
    assert key.stat().st_mode & 0o777 == 0o600
    assert "keep it" in stderr
    (row,) = iterate_rows(out)
    expected = hmac.new(key.read_bytes(), f"Ward 7\\{ID}".encode(), hashlib.sha256).hexdigest()
    assert row["patient_key"] == expected
    before = read_metadata(out)
    assert len(before["identity_key"]) == 12
    settings = {name: before[name] for name in ("formats", "path_mode", "identity_key")}
    Target(out, "parquet").refuse_no_base(before, settings)
    for other in ({"identity_key": "another"}, {}):
        without = {name: value for name, value in settings.items() if name != "identity_key"}
        with pytest.raises(ConfigError, match="made with another identity_key"):
            Target(out, "parquet").refuse_no_base(before, without | other)
