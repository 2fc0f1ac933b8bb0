"""The consent to the cost of a long job."""

import io
import sys

import pytest

from tumorbatch.cli.consent import consent_from_terminal
from tumorbatch.errors import ConfigError
from tumorbatch.workflows.cost import Cost


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "starts"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks(
    answer: str, starts: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    if starts:
        consent_from_terminal(yes=False)("1 training", Cost(90, 90, 1, 1))
    else:
        with pytest.raises(ConfigError, match=r"Nothing was started\.$"):
            consent_from_terminal(yes=False)("1 training", Cost(90, 90, 1, 1))
    assert "This makes 1 training: about 2 minutes, 1 MB of disk" in capsys.readouterr().err


def test_without_a_terminal_it_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(ConfigError, match=r"This makes 1 training: .* give --yes to start it"):
        consent_from_terminal(yes=False)("1 training", Cost(90, 90, 1, 1))


def test_a_closed_standard_input_is_no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as Python has it after `<&-`
    with pytest.raises(ConfigError, match="give --yes"):
        consent_from_terminal(yes=False)("1 training", Cost(90, 90, 1, 1))
