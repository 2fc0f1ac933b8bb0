"""The stages without worker processes: each would import its libraries anew, half a second of a core.

Workers have their own tests (tests/foundations/test_workers.py), and the real commands start them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from tumorbatch.infer import batching
from tumorbatch.infer.shared_memory import Ring
from tumorbatch.preprocess import equalize_folder, first_pass
from tumorbatch.preprocess.explore import survey


def ordered_map(
    function: Callable[[Sequence[Any]], list[Any]], chunks: Iterable[Sequence[Any]], *_: Any
) -> Iterator[list[Any]]:
    """Do what `workers.ordered_map` does, in this process."""
    for chunk in chunks:
        yield function(chunk)


def leave_out_workers(patch: pytest.MonkeyPatch) -> None:
    """Let every stage decode in this process, and wait for no disk."""
    patch.setattr(Ring, "place", lambda *_: None)  # a worker would put its images there
    for module in (batching, equalize_folder, first_pass, survey):
        patch.setattr(module, "ordered_map", ordered_map)
    patch.setattr(os, "fsync", lambda _: None)
