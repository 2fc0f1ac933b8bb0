"""What a DICOM file says of whose image it is, and of what: keyed hashes, and words from closed lists.

Nothing of it can name a patient: identifiers become HMACs, and texts that are in none of the lists here
become OTHER. Malformed attributes count as missing: they are no reason to lose the image.
"""

import contextlib
import hashlib
import hmac
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from tumorbatch.preprocess.dicom.header import text_of, value_of
from tumorbatch.preprocess.dicom.transforms import macro
from tumorbatch.status import FileError

# Defined terms of Modality that have images, PS3.3 C.7.3.1.1.1.
_MODALITIES = frozenset(
    {
        "AR", "BMD", "CR", "CT", "DMS", "DX", "EPS", "ES", "GM", "HD", "IO", "IVOCT", "IVUS", "LS",
        "MG", "MR", "NM", "OP", "OPT", "OPV", "OT", "PT", "PX", "RF", "RG", "RTIMAGE", "SC", "SM",
        "SMR", "TG", "US", "VA", "XA", "XC",
    }
)  # fmt: skip
# Of BodyPartExamined, PS3.16 annex L; letters only.
_BODY_PARTS = frozenset(
    {
        "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BRAIN", "BREAST", "CHEST", "CHESTABDOMEN",
        "CSPINE", "ELBOW", "EXTREMITY", "EYE", "FACE", "FOOT", "FOREARM", "HAND", "HEAD", "HEADNECK",
        "HEART", "HIP", "JAW", "KNEE", "LEG", "LIVER", "LSPINE", "LUNG", "MAXILLA", "NECK", "ORBIT",
        "PELVIS", "PITUITARY", "PROSTATE", "SHOULDER", "SKULL", "SPINE", "TSPINE", "WHOLEBODY", "WRIST",
    }
)  # fmt: skip
_OF_HEAD = ("HEAD", "BRAIN", "SKULL", "CRANI", "CEREB", "PITUIT", "SELLA", "ORBIT", "EYE", "FACE")
_LOCALIZER = re.compile(r"locali[sz]er|scout|survey|3.?plane", re.IGNORECASE)
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture, and with a suffix its frames
_FAR = 1e5  # mm: no slice is so far from the middle of the scanner


class Identity(NamedTuple):
    """What is known of one frame.

    Attributes:
        columns: patient_key, study_key, series_key and instance_key (HMAC-SHA256, 64 hexadecimal
            digits; None without a key), modality, body_part, slice_position (mm along the normal of the
            slices); None where the file does not say it.
        flags: Of `localizer`, `mosaic`, `not-head`, `not-mr` and `screenshot` those that apply.
    """

    columns: dict[str, Any]
    flags: tuple[str, ...]


def identity(dataset: Dataset, kind: str, frame: int, key: bytes | None) -> Identity:
    """Return what a data set says of one of its frames.

    Args:
        dataset: Of an image.
        kind: Its SOP class.
        frame: From 0.
        key: Of the keyed hashes, or None.
    """
    modality = _text(dataset, "Modality").upper()
    part = re.sub("[^A-Z]", "", _text(dataset, "BodyPartExamined").upper())
    of_head = any(word in part for word in _OF_HEAD)
    image_type = _text(dataset, "ImageType").upper()
    named_localizer = _LOCALIZER.search(_text(dataset, "SeriesDescription"))
    secondary = kind == _SECONDARY or kind.startswith(f"{_SECONDARY}.")
    columns = {
        **_keys(dataset, key),
        "modality": _listed(modality, _MODALITIES),
        "body_part": "HEAD" if of_head and part not in _BODY_PARTS else _listed(part, _BODY_PARTS),
        "slice_position": _slice_position(dataset, frame),
    }
    flags = {
        "localizer": "LOCALIZER" in image_type or named_localizer is not None,
        "mosaic": "MOSAIC" in image_type,
        "not-head": bool(part) and not of_head,
        "not-mr": bool(modality) and modality != "MR",
        "screenshot": secondary or _text(dataset, "BurnedInAnnotation").upper() == "YES",
    }
    return Identity(columns, tuple(name for name, applies in flags.items() if applies))


def keyed(key: bytes, text: str) -> str:
    """Return the keyed hash of an identifier: HMAC-SHA256, 64 hexadecimal digits."""
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def patient_text(dataset: Dataset) -> str | None:
    r"""Return what identifies a patient, `IssuerOfPatientID\PatientID`; None without a PatientID.

    A backslash separates values in DICOM: neither of the two can hold one.
    """
    patient, issuer = text_of(dataset, "PatientID"), text_of(dataset, "IssuerOfPatientID")
    return f"{issuer}\\{patient}" if patient else None


def _keys(dataset: Dataset, key: bytes | None) -> dict[str, Any]:
    return {
        column: keyed(key, text) if key is not None and text else None
        for column, text in _identifiers(dataset)
    }


def _identifiers(dataset: Dataset) -> Iterator[tuple[str, str | None]]:
    patient = None
    with contextlib.suppress(FileError):
        patient = patient_text(dataset)
    yield "patient_key", patient
    yield "study_key", _text(dataset, "StudyInstanceUID")
    yield "series_key", _text(dataset, "SeriesInstanceUID")
    yield "instance_key", _text(dataset, "SOPInstanceUID")


def _text(dataset: Dataset, keyword: str) -> str:
    with contextlib.suppress(FileError):
        return text_of(dataset, keyword)
    return ""


def _listed(text: str, terms: frozenset[str]) -> str | None:
    if not text:
        return None
    return text if text in terms else "OTHER"


def _slice_position(dataset: Dataset, frame: int) -> float | None:
    """Return the place of a slice along its normal, mm (PS3.3 C.7.6.2.1.1), or SliceLocation."""
    position: float | None = None
    try:
        axes = _numbers(macro(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient")
        place = _numbers(macro(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient")
        if len(axes) == 6 and len(place) == 3:
            normal = np.cross(axes[:3], axes[3:])
            length = float(np.linalg.norm(normal))
            position = float(np.dot(normal, place)) / length if length > 0.5 else None
        else:
            position = next(iter(_numbers(dataset, "SliceLocation")), None)
    except (FileError, IndexError, TypeError, ValueError, OverflowError):
        return None
    # Not a number compares as false.
    return position if position is not None and abs(position) < _FAR else None


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    value = value_of(dataset, keyword)
    if value is None or value == "":
        return []
    return [float(number) for number in np.atleast_1d(np.asarray(value, np.float64))]
