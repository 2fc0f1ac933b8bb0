"""`infer` in its own process, without TensorFlow's start: what is tested is the rest of it."""

from collections.abc import Iterator

import pytest

from tests.quick import Start, starting


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    yield from starting(tmp_path_factory.mktemp("quick"))
