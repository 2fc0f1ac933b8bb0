"""What each column of the predictions means, for the schema that a table carries; reading of flags."""

DESCRIPTIONS = {
    "path": "File, relative to the folder that was scanned; with --path-mode hash its HMAC-SHA256.",
    "frame": "Frame of a DICOM file or page of a TIFF, from 1; 1 for other files.",
    "status": "ok, or why there is no prediction.",
    "error": "The reason in words; null if ok.",
    "label": "Healthy or Tumor: Tumor if prob_tumor is at least tumorbatch.threshold of the footer.",
    "prob_tumor": "Calibrated probability of Tumor, 0 to 1: sigmoid(logit / temperature).",
    "logit": "Output of the network, before calibration.",
    "file_size": "Size of the file, bytes.",
    "mtime": "When the file was last changed, UTC.",
    "sha256": "Of the file's bytes, hex.",
    "width": "Of the decoded image, pixels, before it was resized for the network.",
    "height": "Of the decoded image, pixels, before it was resized for the network.",
    "format": "Image format by the file's first bytes.",
    "flags": "What is special about the image, a list of names; empty: nothing.",
    "model_id": "Weights, threshold, temperature and preprocessing that the row was made with.",
    "run_id": "Run that computed the row.",
    "patient_key": "Of DICOM with --identity-key: HMAC-SHA256 of the PatientID.",
    "study_key": "Of DICOM with --identity-key: HMAC-SHA256 of the StudyInstanceUID.",
    "series_key": "Of DICOM with --identity-key: HMAC-SHA256 of the SeriesInstanceUID.",
    "instance_key": "Of DICOM with --identity-key: HMAC-SHA256 of the SOPInstanceUID.",
    "modality": "Of DICOM: Modality, a term of a closed list, or OTHER.",
    "body_part": "Of DICOM: BodyPartExamined, a term of a closed list, or OTHER.",
    "slice_position": "Of DICOM: place of the slice along the normal of its plane, millimetres.",
    "unfamiliar": "How far the image's features lie from those of the training images.",
}


def flags(value: object) -> list[str]:
    """Return the flags of a row: CSV and earlier tables have one text, with commas between the names.

    Args:
        value: A list of names, a text, or None.
    """
    if isinstance(value, str):
        return [name for name in value.split(",") if name]
    return [str(name) for name in value] if isinstance(value, list) else []
