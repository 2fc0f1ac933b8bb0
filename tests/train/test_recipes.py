"""Recipes: what they set, and that what is given too wins."""

from pathlib import Path

import pytest

from tests.conftest import Invoke
from tumorbatch.architectures import ARCHITECTURES
from tumorbatch.train import training
from tumorbatch.train.config import Config, Schedule, schedule
from tumorbatch.train.recipes import BEST, RECIPES, REPORT, settings


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_a_training(recipe: str, architecture: str) -> None:
    chosen = settings(recipe, architecture)
    Config(architecture, schedule(architecture, recipe=recipe), variants=chosen.variants)
    assert settings(None, architecture).schedule == {}
    assert schedule(architecture, recipe=recipe, weight_decay=0.3).weight_decay == 0.3


def test_the_report_knows_no_weight_decay() -> None:
    reported = schedule("cnn1", recipe=REPORT)
    assert reported == Schedule(weight_decay=0.0)
    assert settings(REPORT, "cnn1").variants == ("clahe",)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"weight_decay": 0.05, "epochs": 40}),
        (("--recipe", "report"), {"weight_decay": 0.0, "epochs": 40}),
        (("--recipe", "report", "--weight-decay", "0.1"), {"weight_decay": 0.1}),
        (("--recipe", BEST, "--epochs", "2"), {"epochs": 2}),
    ],
)
def test_what_is_typed_wins(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    expected: dict[str, float],
) -> None:
    seen: list[Config] = []

    def stop(_: Path, __: Path, config: Config) -> None:
        seen.append(config)
        raise SystemExit(9)

    monkeypatch.setattr(training, "run", stop)
    code, _ = invoke("train", tmp_path, "--arch", "mobilenetv2", "--weights", "none", *arguments)
    assert code == 9
    (config,) = seen
    assert {name: getattr(config.schedule, name) for name in expected} == expected
    if BEST not in arguments:
        assert config.variants == (("clahe",) if REPORT in arguments else ())
