"""The command `evaluate`: judge a model on the test split of its shard set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from tumorbatch.cli import options
from tumorbatch.cli.consent import asked
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError
from tumorbatch.files import printable

if TYPE_CHECKING:
    from tumorbatch.evaluation.protocols import Protocols

# Options that mean nothing with --protocols, and nothing without it.
_NOT_WITH = ("rule", "freeze", "external", "trained_on", "overwrite")
_ONLY_WITH = ("source", "patients", "allow_unmatched", "weights", "reuse", "yes")


@click.command()
@click.argument("model", type=options.PATH)
@click.argument("tfrecords", type=options.PATH, default="tfrecords")
@click.option("--out", type=options.PATH, help="Folder of the results.  [default: results/MODEL]")
@click.option(
    "--threshold",
    "rule",
    metavar="RULE",
    help="How to choose the threshold on validation: sensitivity=X (the largest specificity with at "
    "least this sensitivity), specificity=X, youden, f1, or a number between 0 and 1.  [default: what "
    "the bundle has; sensitivity=0.95 where it has none]",
)
@click.option(
    "--freeze/--no-freeze",
    default=True,
    show_default=True,
    help="Write a newly chosen threshold and temperature and the renewed card into the bundle.",
)
@click.option(
    "--external",
    is_flag=True,
    help="TFRECORDS is another set than the model was trained on, and you know that they share no "
    "patient. All of its images are judged, but copies of those that the model was trained on; nothing "
    "is chosen, and the bundle is left alone.",
)
@click.option(
    "--trained-on",
    metavar="TFRECORDS",
    type=options.PATH,
    help="With --external: the shard set that MODEL was trained on. Images of which it holds a copy or "
    "near copy for training or validation are left out, and the baselines learn from it.  [default: "
    "found among the tfrecords* folders here]",
)
@click.option("--replicates", type=int, default=2000, show_default=True, help="Of the bootstrap.")
@click.option(
    "--gallery", type=int, default=12, show_default=True, help="At most so many errors as pictures."
)
@click.option(
    "--protocols",
    is_flag=True,
    help="Train MODEL's network anew under the other protocols too (leaky, grouped, held-out shapes), "
    "and put the figures side by side.  [OUT: results/protocols/MODEL]",
)
@click.option(
    "--src",
    "source",
    type=options.PATH,
    default=Path("data/raw"),
    show_default=True,
    help="With --protocols: the images, for shard sets that are missing.",
)
@options.patients
@options.allow_unmatched
@click.option(
    "--weights",
    metavar="FILE",
    help="With --protocols: the weights that MODEL's training started from.",
)
@click.option(
    "--reuse",
    type=options.PATH,
    multiple=True,
    help="With --protocols: a folder of bundles; those that are just what is missing are taken.",
)
@options.batch_size
@options.device
@options.seed
@options.yes
@options.overwrite
@options.as_json
@options.quiet
@click.pass_context
def evaluate(
    context: click.Context,
    model: Path,
    tfrecords: Path,
    out: Path | None,
    rule: str | None,
    freeze: bool,
    external: bool,
    trained_on: Path | None,
    replicates: int,
    gallery: int,
    batch_size: int,
    protocols: bool,
    source: Path,
    patients: Path | None,
    allow_unmatched: bool,
    weights: str | None,
    reuse: tuple[Path, ...],
    yes: bool,
    device: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Judge a model on the test split of its shard set: figures with intervals, and a report.

    MODEL is a bundle's folder, or its name under models/. Writes report.html, which opens without
    network, metrics.json, predictions.parquet and the figures. Temperature and threshold are chosen
    on the validation split alone and frozen in the bundle, where `infer` finds them.

    With --protocols it says what the missing shard sets and trainings cost and asks before it makes
    them; without a terminal, --yes is needed. What is finished is kept, and nothing is made twice.

    \b
    Examples:
      tumorbatch evaluate cnn1
      tumorbatch evaluate models/cnn1 tfrecords --threshold youden
      tumorbatch evaluate cnn1 other-hospital/ --external --out results/cnn1-other
      tumorbatch evaluate cnn1 --protocols --yes
    """
    what = (
        "What is finished is kept: the same command does the rest."
        if protocols
        else "Nothing was published: the same command starts again."
    )
    with session(quiet, what):
        from tumorbatch import bundle
        from tumorbatch.evaluation.config import Config
        from tumorbatch.runtime import load_tensorflow

        _refuse_given(context, _NOT_WITH if protocols else _ONLY_WITH, protocols)
        config = Config(
            rule=rule,
            freeze=freeze,
            external=external,
            replicates=replicates,
            seed=seed,
            gallery=gallery,
            batch_size=batch_size,
            device=device,
            overwrite=overwrite,
        )
        folder = bundle.find(model)
        load_tensorflow()  # before anything that brings it along
        if protocols:
            out = out or Path("results/protocols") / folder.resolve().name
            from tumorbatch.workflows import protocols as workflow

            how = workflow.Config(config, source, patients, allow_unmatched, weights, reuse=reuse)
            result = workflow.run(folder, tfrecords, out, how, asked(yes))
            _print_protocols(folder, out, result, as_json, quiet)
            return
        from tumorbatch.cli.summaries import evaluation_report
        from tumorbatch.workflows import evaluate as evaluation

        out = out or Path("results") / folder.resolve().name
        report = evaluation.run(folder, tfrecords, out, config, trained_on)
        if as_json:
            say(json.dumps(report.summary() | {"out": printable(str(out))}))
        elif not quiet:
            say(evaluation_report(report, out))


def _refuse_given(context: click.Context, names: tuple[str, ...], protocols: bool) -> None:
    """Raise `ConfigError` where an option was given that would be ignored."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            how = "goes without" if protocols else "needs"
            raise ConfigError(f"{parameter.opts[0]} {how} --protocols.")


def _print_protocols(
    model: Path, out: Path, protocols: "Protocols", as_json: bool, quiet: bool
) -> None:
    if as_json:
        say(json.dumps({"out": printable(str(out)), **protocols.to_dict()}))
    elif not quiet:
        from tumorbatch.cli.tables import protocols_table
        from tumorbatch.workflows.protocols import PAGE

        protocols_table(printable(model.resolve().name), protocols)
        say(f"{printable(str(out / PAGE))} has the details.")
