"""Read DICOM files: header, stored values, and the transforms to a grey image.

Only this package imports pydicom. No value of a header leaves it, except a keyed hash of the patient.
"""
