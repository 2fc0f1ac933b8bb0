"""The cost of a long job: consent to it, asked on the terminal, and --dry-run, which only tells it."""

import json
import logging
import sys
from typing import TYPE_CHECKING

import click

from tumorbatch.cli.console import complain, say
from tumorbatch.errors import ConfigError

if TYPE_CHECKING:
    from tumorbatch.workflows.cost import Cost
    from tumorbatch.workflows.plans import Plan
    from tumorbatch.workflows.steps import Consent

log = logging.getLogger(__name__)


def print_plan(plan: "Plan", as_json: bool) -> None:
    """Print what a command would do; with --dry-run that is all it does, so also with --quiet."""
    if as_json:
        say(json.dumps({"dry_run": True, **plan.facts}, ensure_ascii=False))
    else:
        say("\n".join([*plan.sentences, "Nothing was done (--dry-run)."]))


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
