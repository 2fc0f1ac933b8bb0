"""The limit on one file's memory, in processes of their own."""

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorbatch import memory_limit
from tumorbatch.machine import blamed
from tumorbatch.status import FileError, Status
from tumorbatch.workers import limited, ordered_map

LIMIT = 64 << 20
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the limit needs Linux' account of memory"
)


def allocate(sizes: Sequence[int], limit: int = LIMIT, own: int | None = None) -> list[Any]:
    """Take so many bytes for each item; gives the size, or the status and what is told.

    Args:
        sizes: Bytes.
        limit: What any file may have.
        own: What this machine can give to a file; None: as much.
    """
    memory_limit.LIMIT = limit  # type: ignore[misc]
    memory_limit.start(limit if own is None else own)
    results: list[Any] = []
    for size in limited(sizes, 60):
        try:
            with blamed():
                results.append(np.ones(size, np.uint8).size)
        except FileError as error:
            results.append((error.status, error.message))
    return results


def allocate_where_little_is_free(sizes: Sequence[int]) -> list[Any]:
    return allocate(sizes, own=LIMIT // 2)


def allocate_under_a_limit_of_the_users(sizes: Sequence[int]) -> list[Any]:
    """As under `ulimit -d`."""
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + LIMIT // 2, resource.RLIM_INFINITY))
    return allocate(sizes)


def _never(*_: Any) -> Any:
    raise AssertionError("a process was lost")


def test_a_file_that_takes_more_is_too_large_and_the_next_ones_are_not() -> None:
    small, large = LIMIT // 4, 2 * LIMIT
    (results,) = ordered_map(allocate, [[small, large, 1 << 50, small, LIMIT - (8 << 20)]], 1, _never)
    message = "decoding it takes more memory than a file may have; the limit is 64 MiB"
    assert results == [small, *[(Status.TOO_LARGE, message)] * 2, small, LIMIT - (8 << 20)]


@pytest.mark.parametrize(
    "function", [allocate_where_little_is_free, allocate_under_a_limit_of_the_users]
)
def test_a_machine_with_less_memory_is_not_the_files_fault(function: Any) -> None:
    (results,) = ordered_map(function, [[LIMIT - (8 << 20), 2 * LIMIT, LIMIT // 4]], 1, _never)
    message = "the machine could not decode it: there is not enough memory"
    assert results == [*[(Status.MACHINE_ERROR, message)] * 2, LIMIT // 4]


def test_without_a_worker_there_is_no_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_limit.for_one_file():
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert not memory_limit.was_reached()


@pytest.mark.parametrize(
    ("free", "expected"),
    [(None, 4 << 30), (64 << 30, 4 << 30), (3 << 30, 3 << 30), (1 << 20, 1 << 30)],
)
def test_a_file_gets_what_is_free_within_bounds(
    free: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_limit, "free_memory", lambda: free)
    assert memory_limit.budget() == expected


def test_memory_that_can_be_had() -> None:
    assert memory_limit.enough_memory(1 << 20)
    assert not memory_limit.enough_memory(1 << 60)
