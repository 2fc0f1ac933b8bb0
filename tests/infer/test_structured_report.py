"""Predictions as DICOM structured reports: each slice with its image and its probability."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from tests.preprocess.conftest import Build
from tests.preprocess.dicom.test_decode import ID, make
from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.infer.predictions import PredictionsWriter

pytest.importorskip("highdicom", reason="of the extra sr")

PROBS = {"a/1.dcm": 0.25, "a/2.dcm": 0.75, "b/1.dcm": 0.5}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two studies; the second has one slice."""
    pixels = Build.smooth(40, 48).astype(np.uint16) * 16
    for name in PROBS:
        study = "1.2.3" if name.startswith("a") else "1.2.4"
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            make(
                pixels, 12, Modality="MR", StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1",
                SOPInstanceUID=f"{study}.1.{path.stem}", StudyDate="20240101", StudyTime="101010",
                AccessionNumber="", StudyID="S", PatientBirthDate="", PatientSex="O",
                ReferringPhysicianName="",
            )
        )  # fmt: skip
    return tmp_path / "scans"


def _table(scans: Path, path_mode: str = "relative", **changes: Any) -> Path:
    out = scans.parent / "out.parquet"
    with PredictionsWriter(out) as writer:
        writer.write(
            [
                {
                    "path": name, "frame": 1, "status": "ok", "prob_tumor": prob, "format": "dicom",
                    "label": "Tumor" if prob >= 0.5 else "Healthy", "flags": [], "model_id": "cnn1-0",
                    "sha256": hashlib.sha256((scans / name).read_bytes()).hexdigest(), "run_id": "r",
                    **changes,
                }
                for name, prob in PROBS.items()
            ]
        )  # fmt: skip
        writer.finish({"model_id": "cnn1-0", "run_id": "r", "threshold": 0.5, "path_mode": path_mode})
    return out


def _numbers(item: Any) -> list[float]:
    """All measurements of a report, in their order."""
    own = [float(item.MeasuredValueSequence[0].NumericValue)] if "MeasuredValueSequence" in item else []
    return own + [value for part in item.get("ContentSequence", []) for value in _numbers(part)]


def _references(item: Any) -> set[str]:
    own = {reference.ReferencedSOPInstanceUID for reference in item.get("ReferencedSOPSequence", [])}
    return own.union(*(_references(part) for part in item.get("ContentSequence", [])))


def test_a_report_a_study(scans: Path, tmp_path: Path) -> None:
    from tumorbatch.infer.structured_report import run

    report = run(_table(scans), scans, tmp_path / "sr")
    assert (report.studies, report.slices, report.skipped) == (2, 3, {})
    written = {}
    for path in (tmp_path / "sr").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        dataset = pydicom.dcmread(path)
        written[str(dataset.StudyInstanceUID)] = dataset
        assert dataset.PatientID == ID
        assert (dataset.VerificationFlag, dataset.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
        assert b"Not for diagnosis" in path.read_bytes()
        if shutil.which("dciodvfy"):
            done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
            assert "Error" not in done.stderr
    assert _numbers(written["1.2.3"]) == [0.25, 0.75]
    assert _references(written["1.2.3"]) == {"1.2.3.1.1", "1.2.3.1.2"}
    # The same table gives the same objects: an archive does not get them twice.
    run(_table(scans), scans, tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        path.name for path in (tmp_path / "sr").iterdir()
    }


def test_what_is_left_out(scans: Path, tmp_path: Path) -> None:
    from tumorbatch.infer.structured_report import run

    table = _table(scans)
    (scans / "b" / "1.dcm").write_bytes((scans / "a" / "1.dcm").read_bytes())
    report = run(table, scans, tmp_path / "sr")
    assert (report.studies, report.skipped) == (1, {"the file is missing or has changed": 1})
    for changes in ({"flags": ["localizer"]}, {"format": "png"}, {"path": "../a/1.dcm"}):
        with pytest.raises(InputError, match="No row of"):
            run(_table(scans, **changes), scans, tmp_path / "other")


def test_the_command_and_what_it_refuses(scans: Path, tmp_path: Path, invoke: Any) -> None:
    code, text = invoke("sr", _table(scans), scans, tmp_path / "sr")
    assert (code, "2 structured reports of 3 slices" in text) == (ExitCode.OK, True), text
    code, text = invoke("sr", _table(scans), scans, tmp_path / "sr")
    assert (code, "not an empty folder" in text) == (ExitCode.USAGE, True)
    from tumorbatch.infer.structured_report import run

    with pytest.raises(ConfigError, match="hides its paths"):
        run(_table(scans, path_mode="hash"), scans, tmp_path / "hidden")
