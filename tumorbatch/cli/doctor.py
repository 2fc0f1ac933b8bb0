"""The command `doctor`: say what this machine can do, and what is missing."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode


@click.command(cls=Command)
@click.option("--quick", is_flag=True, help="Leave out the GPU, XLA and mixed precision: two seconds.")
@options.of_a_run
def doctor(quick: bool, as_json: bool, quiet: bool) -> None:
    """Report what this machine can do and what is missing.

    Checks versions, processor, GPU, driver, CUDA's libraries, whether mixed precision and XLA give the
    right numbers here, free memory and disk. Exit code 3 if something would fail or be slow.

    \b
    Examples:
      tumorbatch doctor
      tumorbatch doctor --quick --json
      tumorbatch doctor || mail -s "look at the GPU node" me
    """
    with session(quiet, "Nothing was changed."):
        from tumorbatch import doctor as examination

        findings = examination.run(Path(), quick)
        if as_json:
            problems = sum(not finding.well for finding in findings)
            listed = [dataclasses.asdict(finding) for finding in findings]
            say(json.dumps({"problems": problems, "findings": listed}))
        elif not quiet:
            say(examination.format_findings(findings))
    sys.exit(ExitCode.SOME_ERRORS if any(not finding.well for finding in findings) else ExitCode.OK)
