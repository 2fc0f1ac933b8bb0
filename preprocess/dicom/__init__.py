"""DICOM files: header, stored values, transforms to a grey image."""
