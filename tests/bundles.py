"""Bundles that say something else, in themselves consistent: as another training would make them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tumorbatch import bundle


def rewrite(folder: Path, **changes: Any) -> bundle.Bundle:
    """Write model.json anew with other attributes of `Bundle`."""
    made = replace(bundle.load(folder), **changes)
    (folder / bundle.MODEL).write_text(json.dumps(made.to_dict()))
    return made
