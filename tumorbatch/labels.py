"""The two classes. Positive = Tumor = 1."""

HEALTHY = 0
TUMOR = 1
CLASS_NAMES = ("Healthy", "Tumor")  # index = label
