"""From a table of predictions and its DICOM files to DICOM structured reports, one a study.

For a PACS test instance: to see how predictions look next to the images. Each report is an unverified,
preliminary Comprehensive SR by template 1500 (PS3.16), with the probability of Tumor as a measurement
of each slice. Its codes are this project's own (scheme 99TUMORBATCH): those of DICOM mean findings of
people. Unlike a table, a report names the patient, as its images do.
"""

import contextlib
import hashlib
import io
import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from tumorbatch import __version__
from tumorbatch.atomic import PRIVATE, atomic_path, make_folder
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import is_empty, read_file
from tumorbatch.infer.columns import flags
from tumorbatch.infer.listing import found_file
from tumorbatch.infer.summarize import LEFT_OUT, NOT_VALIDATED, metadata_of, prediction_rows
from tumorbatch.machine import is_machines
from tumorbatch.status import FileError, Status
from tumorbatch.table_reader import Row, as_number

_SCHEME = "99TUMORBATCH"
_PROBABILITY = Code("prob_tumor", _SCHEME, "Probability of the class Tumor, by a classifier of slices")
_LABEL = Code("label", _SCHEME, "Class of the slice, by a classifier of slices")
_ANSWERS = {name: Code(name, _SCHEME, name) for name in ("Healthy", "Tumor")}
_NO_UNITS = Code("1", "UCUM", "no units")
_MRI = Code("241601008", "SCT", "MRI of brain")
_SERIES_NUMBER = 9000  # far behind those of a scanner


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        studies: Structured reports written.
        slices: Predictions in them.
        skipped: {why: rows or studies}.
        seconds: Wall time.
    """

    studies: int
    slices: int
    skipped: Mapping[str, int]
    seconds: float


class _Slice(NamedTuple):
    """A prediction, and the path of its file below the folder."""

    path: str
    frame: int
    row: Row


def run(table: Path, folder: Path, out: Path) -> Report:
    """Write a structured report for each study.

    Args:
        table: Of predictions, in any of the formats that `infer` writes.
        folder: To which its paths are relative.
        out: A new or empty folder; it is made.

    Raises:
        InputError: There is no such table, or no row of a DICOM file that is there.
        ConfigError: highdicom is missing; paths are hidden; `out` is not empty.
        OutputError: `out` cannot be written.
    """
    started = time.monotonic()
    try:
        import highdicom  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConfigError("Structured reports need highdicom: pip install highdicom.") from error
    about = {name: str(value) for name, value in metadata_of(table).items()}
    if about.get("path_mode") == "hash":
        raise ConfigError(f"{table} hides its paths (--path-mode hash): its files cannot be found.")
    if out.exists() and not (out.is_dir() and is_empty(out)):
        raise ConfigError(f"{out} is not an empty folder. Give a new one.")
    skipped: Counter[str] = Counter()
    studies = _studies(table, folder, skipped)
    if not studies:
        raise InputError(
            f"No row of {table} is a prediction of a DICOM file below {folder}. Give the folder that "
            "was scanned."
        )
    make_folder(out)
    out.chmod(0o700)
    written = slices = 0
    for study in sorted(studies):
        report = _report(study, studies[study], folder, about)
        if report is None:
            skipped["the study's attributes are not valid"] += 1
            continue
        with atomic_path(out / f"{report.SOPInstanceUID}.dcm", PRIVATE) as temporary:
            report.save_as(temporary, enforce_file_format=True)
        written += 1
        slices += len(studies[study])
    return Report(written, slices, dict(skipped), time.monotonic() - started)


def _studies(table: Path, folder: Path, skipped: Counter[str]) -> dict[str, list[_Slice]]:
    """Return the slices of each study whose files are what the table judged."""
    studies: dict[str, list[_Slice]] = defaultdict(list)
    known: tuple[str, str | None] = ("", None)  # path and study of the last file: frames follow
    for row in prediction_rows(table):
        if row.get("status") != Status.OK or row.get("format") != "dicom":
            continue
        if LEFT_OUT.intersection(flags(row.get("flags"))):
            skipped["flagged"] += 1
            continue
        path = str(row["path"])
        if known[0] != path:
            header = _header(folder, row)
            known = path, None if header is None else str(header.get("StudyInstanceUID") or "")
        if not known[1]:
            skipped["the file is missing or has changed"] += 1
            continue
        studies[known[1]].append(_Slice(path, int(row["frame"]), row))
    return studies


def _header(folder: Path, row: Row) -> Dataset | None:
    """Return the header of a row's file; None if it is not the one that was judged."""
    path = os.path.normpath(str(row["path"]))
    if os.path.isabs(path) or path.startswith(".."):
        return None
    try:
        data, _ = read_file(found_file(os.path.join(folder, path), path))
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            return None
        with _refusals():
            return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    except FileError:
        return None


def _report(
    study: str, slices: Sequence[_Slice], folder: Path, about: Mapping[str, str]
) -> Dataset | None:
    """Return the report of one study; None if its attributes do not allow one."""
    import highdicom

    sr = highdicom.sr
    headers: dict[str, Dataset] = {}
    for one in slices:
        if one.path not in headers and (header := _header(folder, one.row)) is not None:
            headers[one.path] = header
    origin = [study, about.get("run_id", ""), about.get("model_id", "")]
    try:
        with _refusals():
            device = sr.DeviceObserverIdentifyingAttributes(
                uid=_uid(origin, "device"), name="tumorbatch", manufacturer_name="tumorbatch",
                model_name=about.get("model_id", ""),
            )  # fmt: skip
            observer = sr.ObserverContext(
                observer_type=Code("121007", "DCM", "Device"), observer_identifying_attributes=device
            )
            content = sr.MeasurementReport(
                observation_context=sr.ObservationContext(observer_device_context=observer),
                procedure_reported=_MRI,
                title=Code("126000", "DCM", "Imaging Measurement Report"),
                imaging_measurements=list(_groups(slices, headers, origin, about)),
            )
            report: Dataset = sr.ComprehensiveSR(
                evidence=list(headers.values()),
                content=content,
                series_instance_uid=_uid(origin, "series"),
                series_number=_SERIES_NUMBER,
                series_description="tumorbatch: not for diagnosis",
                sop_instance_uid=_uid(origin, "report"),
                instance_number=1,
                manufacturer="tumorbatch",
                is_complete=True,
                is_final=False,
                is_verified=False,
            )
            return report
    except FileError:  # of whatever highdicom refuses
        return None


def _groups(
    slices: Sequence[_Slice],
    headers: Mapping[str, Dataset],
    origin: Sequence[str],
    about: Mapping[str, str],
) -> Iterator[Any]:
    """Yield a measurement group for each slice."""
    import highdicom

    sr = highdicom.sr
    algorithm = sr.AlgorithmIdentification(
        name="tumorbatch",
        version=__version__,
        parameters=[
            f"model {about.get('model_id', '')}",
            f"threshold {about.get('threshold', '')}",
            NOT_VALIDATED,
        ],
    )
    for one in slices:
        header = headers[one.path]
        frames = [one.frame] if int(header.get("NumberOfFrames") or 1) > 1 else None
        name = f"{header.SOPInstanceUID} {one.frame}"
        yield sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=_uid(origin, name), identifier=f"frame {one.frame}"
            ),
            algorithm_id=algorithm,
            source_images=[
                sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID, frames)
            ],
            measurements=[
                sr.Measurement(
                    name=_PROBABILITY,
                    value=float(as_number(one.row["prob_tumor"]) or 0),
                    unit=_NO_UNITS,
                )
            ],
            qualitative_evaluations=[
                sr.QualitativeEvaluation(name=_LABEL, value=_ANSWERS[str(one.row["label"])])
            ],
        )


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn what pydicom and highdicom raise into a `FileError`; their words may name a patient."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileError:
        raise
    except Exception as error:
        if is_machines(error):
            raise
        raise FileError(Status.DECODE_ERROR, f"not valid DICOM ({type(error).__name__})") from None


def _uid(origin: Sequence[str], name: str) -> str:
    """Return the same UID for the same part of the same run."""
    return str(uid.generate_uid(entropy_srcs=[*origin, name]))
