"""The command `export`: write a bundle for other programs."""

from pathlib import Path

import click

from tumorbatch.cli import options
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.export import KINDS
from tumorbatch.files import printable


@click.command()
@click.argument("model", type=options.PATH)
@click.option(
    "--format",
    "kind",
    type=click.Choice(KINDS),
    required=True,
    help="`keras`: one file for Keras 3; `h5`: one file for older programs; `savedmodel`: a folder for "
    "TensorFlow Serving, LiteRT and others.",
)
@click.option(
    "--out",
    type=options.PATH,
    help="File or folder to write.  [default: MODEL.keras, MODEL.h5 or MODEL.savedmodel]",
)
@options.overwrite
@options.quiet
def export(model: Path, kind: str, out: Path | None, overwrite: bool, quiet: bool) -> None:
    """Write the bundle MODEL for other programs.

    They need nothing of tumorbatch to load it. OUT.json beside it says what is inside and what is
    not: the network takes grey images that are decoded, equalised and resized already.

    \b
    Examples:
      tumorbatch export cnn1 --format keras
      tumorbatch export models/cnn1 --format savedmodel --out serving/cnn1/1
    """
    with session(quiet, "Nothing was published."):
        from tumorbatch import bundle
        from tumorbatch import export as exporting

        folder = bundle.find(model)
        out = out or folder.with_name(f"{folder.name}.{kind}")
        exporting.run(folder, out, kind, overwrite)
        if not quiet:
            say(f"{printable(str(out))}, and what it expects in {printable(out.name)}.json.")
