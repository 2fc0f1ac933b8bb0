"""Pages for tests that are about something else: small forests, figures drawn but not rendered."""

import base64

import pytest

from tumorbatch.evaluation import baselines
from tumorbatch.report import style

PIXEL = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)  # a PNG file


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a page's time; tests/report and test_evaluate.py have it all."""
    patch.setattr(style, "png", lambda _: PIXEL)
    patch.setattr(baselines, "_TREES", 20)
