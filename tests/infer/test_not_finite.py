"""A network whose output is not a number: a row that says so, and never "Healthy"."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch.bundle import Bundle
from tumorbatch.errors import ExitCode
from tumorbatch.files import find_files
from tumorbatch.infer import verify
from tumorbatch.infer.batching import predict_files
from tumorbatch.infer.config import Timings
from tumorbatch.infer.network import Network
from tumorbatch.infer.predictions import PredictionsWriter, iterate_rows
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocessing_config import Preprocessing

pytestmark = pytest.mark.usefixtures("in_process")

SIZE = 32
Score = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Nine images, each of one brightness: 20, 40, ..., 180."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(1, 10):
        picture = np.full((40, 40), 20 * number, np.uint8)
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def _score(broken: dict[int, float]) -> Score:
    """Give every image the logit 1, but for those of some brightness."""

    def score(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        brightness = pixels[:, 0, 0]
        return np.array([broken.get(int(value), 1.0) for value in brightness], np.float32)

    return score


def _bundle() -> Bundle:
    return Bundle(
        architecture="cnn1",
        preprocessing=Preprocessing(size=SIZE, clahe=False),
        classes=CLASS_NAMES,
        threshold=0.5,
        temperature=1.0,
        weights_sha256="0" * 64,
        training={},
        versions={},
    )


def test_such_a_logit_is_an_error_row_and_its_neighbours_are_predicted(images: Path) -> None:
    broken = {20: np.nan, 100: np.inf, 180: -np.inf}
    files = ((file, ()) for file in find_files(images))
    results = predict_files(files, _bundle(), _score(broken), 4, 1, 60, 10, Timings())
    rows = [row for rows in results for row in rows]
    assert [row["path"] for row in rows] == [f"{number}.png" for number in range(1, 10)]
    for row, number in zip(rows, range(1, 10), strict=True):
        if 20 * number in broken:
            assert row["status"] == "not_finite"
            assert "not a finite number" in row["error"]
            assert not {"label", "logit", "prob_tumor"} & row.keys()
        else:
            assert (row["status"], row["label"], row["logit"]) == ("ok", "Tumor", 1.0)


def test_it_is_counted_as_an_error_and_tried_again(
    images: Path, model: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    command = ("infer", images, out, "--model", model, "--workers", 1)
    monkeypatch.setattr(Network, "load", lambda _: _broken_score)
    code, output = invoke(*command)
    assert code == ExitCode.SOME_ERRORS
    assert "9 files: 0 predicted (0 Healthy, 0 Tumor); errors: 9 not_finite." in output
    assert {(row["status"], row["label"]) for row in iterate_rows(out)} == {("not_finite", None)}
    assert verify.run(out).problems == ()
    assert invoke(*command, "--overwrite", "--max-error-rate", 0.5)[0] == ExitCode.TOO_MANY_ERRORS
    # What an interrupted run has kept of it is computed again: the machine may have been the cause.
    monkeypatch.setattr(Network, "load", lambda _: lambda pixels: np.ones(len(pixels), np.float32))
    code, output = invoke(*command, "--overwrite", "--max-error-rate", 0.5)
    assert (code, "9 predicted" in output) == (ExitCode.OK, True)


def _broken_score(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.full(len(pixels), np.nan, np.float32)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"logit": np.nan, "prob_tumor": 0.5, "label": "Healthy"}, "no finite logit"),
        ({"logit": 1.0, "prob_tumor": np.inf, "label": "Healthy"}, "no finite logit"),
        ({"logit": 1.0, "prob_tumor": None, "label": "Healthy"}, "no finite logit"),
        ({"logit": 1.0, "prob_tumor": 1.5, "label": "Tumor"}, "not between 0 and 1"),
        ({"logit": 1.0, "prob_tumor": 0.7, "label": None}, "no label"),
        ({"logit": 1.0, "prob_tumor": 0.7, "label": "Tumor", "status": "empty"}, "has a prediction"),
    ],
)
def test_verify_finds_a_prediction_that_is_none(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "out.parquet"
    known = {"path": "a.png", "frame": 1, "status": "ok", "model_id": "m", "run_id": "r"}
    with PredictionsWriter(path) as writer:
        writer.write([known | row])
        writer.finish({"model_id": "m", "rows": 1, "statuses": {}})
    (found,) = verify.run(path).problems
    assert "row 1" in found
    assert problem in found
