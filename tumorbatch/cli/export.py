"""The command `export`: write a model bundle in a format of other programs."""

import json
from pathlib import Path

import click

from tumorbatch.checks import EXPORT_KINDS
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError
from tumorbatch.files import printable


@click.command(cls=Command)
@click.argument("model", type=options.PATH, required=False, shell_complete=options.complete_models)
@options.named_model
@click.option(
    "--format",
    "kind",
    type=click.Choice(EXPORT_KINDS),
    required=True,
    help="`keras`: one file for Keras 3; `h5`: one file for older programs; `savedmodel`: a folder for "
    "TensorFlow Serving, LiteRT and others.",
)
@click.option(
    "-o",
    "--out",
    type=options.PATH,
    help="File or folder to write.  [default: MODEL.keras, MODEL.h5 or MODEL.savedmodel]",
)
@options.overwrite
@options.of_a_run
def export(
    model: Path | None,
    named: Path | None,
    kind: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a model bundle in a format of other programs.

    MODEL is the folder of a bundle, or its name under models/. Other programs load the result without
    tumorbatch. OUT.json next to it describes input and output: the network takes grey images that are
    already decoded, equalised and resized.

    \b
    Examples:
      tumorbatch export cnn1 --format keras
      tumorbatch export --model cnn1 --format h5 --json
      tumorbatch export models/cnn1 --format savedmodel --out serving/cnn1/1
    """
    with session(quiet, "Nothing was published."):
        from tumorbatch import bundle
        from tumorbatch import export as exporting

        if (model is None) is (named is None):
            raise ConfigError("Give MODEL once: the folder of a bundle, or its name under models/.")
        folder = bundle.find(model or named or Path())
        out = out or folder.with_name(f"{folder.name}.{kind}")
        exporting.run(folder, out, kind, overwrite)
        if as_json:
            described = printable(f"{out}.json")
            say(json.dumps({"out": printable(str(out)), "format": kind, "description": described}))
        elif not quiet:
            say(f"Wrote {printable(str(out))}; {printable(out.name)}.json describes input and output.")
