"""The command `weights`: fetch and check the ImageNet weights of the pretrained networks."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tumorbatch.architectures import PRETRAINED
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode, InputError
from tumorbatch.files import printable

if TYPE_CHECKING:
    from tumorbatch.train.imagenet import State

_to = click.option(
    "--to",
    "folder",
    type=options.PATH,
    help="Folder of the files.  [default: $TUMORBATCH_WEIGHTS, or Keras' cache]",
)
_architectures = click.option(
    "--arch",
    "architectures",
    type=click.Choice(PRETRAINED),
    multiple=True,
    help="A network whose weights are wanted; may be repeated.  [default: all three]",
)


@click.group()
def weights() -> None:
    """Fetch and check the ImageNet weights of the pretrained networks.

    \b
    Examples:
      tumorbatch weights fetch --to weights/
      tumorbatch weights check --to weights/
      tumorbatch train --arch densenet121 --weights weights/
    """


@weights.command(cls=Command)
@_to
@_architectures
@options.of_a_run
def fetch(folder: Path | None, architectures: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Download the weights that Keras publishes, where they are missing.

    For a node with internet; bring the folder to the others, and give it with `train --weights DIR` or
    in TUMORBATCH_WEIGHTS. Each file is compared with Keras' MD5 (Keras has none for mobilenetv2, of
    which only the length is known), and its sha256 is written into tumorbatch-weights.sha256, with
    which `check` and `sha256sum --check` compare it later.

    \b
    Examples:
      tumorbatch weights fetch
      tumorbatch weights fetch --arch mobilenetv2 --to weights/
    """
    with session(quiet, "What was fetched so far is kept."):
        from tumorbatch.train import imagenet

        states = imagenet.fetch(architectures or PRETRAINED, folder or imagenet.folder())
        _report(states, {}, as_json, quiet)


@weights.command(cls=Command)
@_to
@_architectures
@options.of_a_run
def check(folder: Path | None, architectures: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Check the weights in a folder, and that the networks compute with them what Keras' own do.

    Compares length, MD5 and the sha256 that `fetch` wrote down; then loads each file into the network
    and into plain Keras', and compares the feature maps of one image. Exit code 3 if a file is missing
    or wrong.

    \b
    Examples:
      tumorbatch weights check
      tumorbatch weights check --to weights/ --arch resnet50
    """
    with session(quiet, "Nothing was changed."):
        from tumorbatch.runtime import load_tensorflow
        from tumorbatch.train import imagenet, pretrained

        states = imagenet.check(architectures or PRETRAINED, folder or imagenet.folder())
        problems = {state.architecture: state.problem for state in states if state.problem}
        if len(problems) < len(states):
            load_tensorflow()
        for state in states:
            if not state.problem:
                try:
                    apart = pretrained.difference(state.architecture, state.path)
                except InputError as error:
                    problems[state.architecture] = f"cannot be used: {error}"
                    continue
                if not apart <= pretrained.TOLERANCE:  # not a number is a problem too
                    problems[state.architecture] = (
                        f"gives other feature maps than plain Keras: by {apart:.1e} of the largest"
                    )
        _report(states, problems, as_json, quiet)
    sys.exit(ExitCode.SOME_ERRORS if problems else ExitCode.OK)


def _report(states: "Sequence[State]", problems: dict[str, str], as_json: bool, quiet: bool) -> None:
    if as_json:
        entries = [
            {
                "architecture": state.architecture,
                "path": printable(str(state.path)),
                "sha256": state.sha256,
                "compared": list(state.compared),
                "problem": problems.get(state.architecture, ""),
            }
            for state in states
        ]
        say(json.dumps({"problems": len(problems), "weights": entries}))
    elif not quiet:
        for state in states:
            problem = problems.get(state.architecture)
            words = problem or f"is right by {', '.join(state.compared)}; sha256 {state.sha256}"
            say(f"{state.architecture}: {printable(str(state.path))} {words}")
