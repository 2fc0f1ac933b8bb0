"""Consent to the cost of a long job, asked on the terminal."""

import logging
import sys
from typing import TYPE_CHECKING

import click

from tumorbatch.cli.console import complain
from tumorbatch.errors import ConfigError

if TYPE_CHECKING:
    from tumorbatch.workflows.cost import Cost
    from tumorbatch.workflows.steps import Consent

log = logging.getLogger(__name__)


def consent_from_terminal(yes: bool) -> "Consent":
    """Return the function that workflows call before they make anything.

    It prints what is missing and what that costs, and asks. It raises `ConfigError` without consent:
    the answer was no, or there is no terminal to ask on.

    Args:
        yes: Consent was given beforehand: only log the cost.
    """

    def consent(missing: str, cost: "Cost") -> None:
        sentence = f"This makes {missing}: {cost.text()}."
        if yes:
            log.info("%s", sentence)
            return
        if sys.stdin is None or not sys.stdin.isatty():  # None: it was closed
            raise ConfigError(f"{sentence} Nothing was started: give --yes to start it.")
        complain(sentence)
        try:
            agreed = click.confirm("Start?", err=True)
        except click.Abort:  # Ctrl-D; Ctrl-C where no session watches
            agreed = False
        if not agreed:
            raise ConfigError("Nothing was started.")

    return consent
