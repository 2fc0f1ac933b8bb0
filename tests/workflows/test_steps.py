"""What the making of a shard set is expected to cost."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.pictures import head
from tumorbatch import workers
from tumorbatch.errors import ConfigError
from tumorbatch.preprocess.classes import SourceFile, find_sources
from tumorbatch.preprocess.shard import Config
from tumorbatch.workflows import checks, steps


@pytest.fixture
def files(tmp_path: Path) -> list[SourceFile]:
    """48 files, of which the first is no image and the second is gone when it is to be read."""
    for label in ("Healthy", "Tumor"):
        (tmp_path / label).mkdir()
        for number in range(24):
            picture = cv2.imencode(".png", head(number, 48))[1].tobytes()
            (tmp_path / label / f"{number:02}.png").write_bytes(picture)
    (tmp_path / "Healthy" / "00.png").write_bytes(b"no image")
    found = find_sources(tmp_path, {})
    (tmp_path / "Healthy" / "01.png").unlink()
    return found


def test_each_file_has_its_time_good_or_bad(files: list[SourceFile]) -> None:
    times = steps.seconds_of(files[:4], Config())
    assert len(times) == 4
    assert min(times) > 0


def test_a_sample_is_timed_in_a_worker_process(
    files: list[SourceFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may crash its decoder: that one costs the limit on its time, and not this process."""

    def ordered_map(
        function: Callable[..., Any], chunks: Sequence[Any], count: int, on_loss: Any, seconds: float
    ) -> Iterator[list[float]]:
        assert (function.func, count, seconds) == (steps.seconds_of, 1, 30.0)  # type: ignore[attr-defined]
        (chunk,) = chunks
        assert chunk == files[::2]
        yield [0.5] * 23 + [on_loss(None, None)]

    monkeypatch.setattr(workers, "ordered_map", ordered_map)
    cost = steps.shards_cost(files, Config(workers=2, timeout=30.0))
    assert cost.seconds == pytest.approx((23 * 0.5 + 30) * 48 / 24 / 2)


def test_litter_is_no_stranger_in_a_folder_of_results(tmp_path: Path) -> None:
    for name in ("Thumbs.db", "._x", ".hidden", "compare.csv"):
        (tmp_path / name).touch()
    checks.refuse_foreign(tmp_path, {"compare.csv"})
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(ConfigError, match=r"\(thesis\.doc\)"):
        checks.refuse_foreign(tmp_path, {"compare.csv"})
