"""The command `evaluate`: judge a model on the test split of its shard set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.consent import consent_from_terminal
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError
from tumorbatch.files import printable
from tumorbatch.object_path import Location

if TYPE_CHECKING:
    from tumorbatch.evaluation.protocol_drops import SideBySide

# Options that mean nothing with --protocols, and nothing without it.
_NOT_WITH = ("rule", "freeze", "external", "trained_on", "overwrite", "tta")
_ONLY_WITH = ("source", "weights", "reuse", "yes")


@click.command(cls=Command)
@click.argument("model", type=options.PATH, required=False, shell_complete=options.complete_models)
@click.argument("tfrecords", type=options.LOCATION, default=Path("tfrecords"))
@options.named_model
@click.option("-o", "--out", type=options.PATH, help="Folder of the results.  [default: results/MODEL]")
@click.option(
    "--threshold",
    "rule",
    metavar="RULE",
    help="Judge at another threshold, chosen on validation: sensitivity=X (the largest specificity "
    "with at least this sensitivity), specificity=X, youden, f1, or a number between 0 and 1.  "
    "[default: the bundle's own; sensitivity=0.95 if it has none]",
)
@click.option(
    "--freeze/--no-freeze",
    default=None,
    help="Write threshold, temperature, metrics and card into the bundle: `infer` then uses them. A "
    "new threshold makes a new model_id, and `infer` does not continue tables of the old one. "
    "--no-freeze writes nothing there.  [default: metrics and card only, if the threshold is the "
    "bundle's own]",
)
@click.option(
    "--external",
    is_flag=True,
    help="TFRECORDS is another set than the model's own, and you know that they share no patient. All "
    "images are used, except copies of the model's training images; nothing is chosen, and the bundle "
    "is not changed.",
)
@click.option(
    "--trained-on",
    metavar="TFRECORDS",
    type=options.PATH,
    help="With --external: the shard set that MODEL was trained on. Copies and near copies of its "
    "training and validation images are left out, and the baselines learn from it.  [default: searched "
    "among the tfrecords* folders here]",
)
@click.option("--replicates", type=int, default=2000, show_default=True, help="Bootstrap replicates.")
@click.option(
    "--gallery",
    type=int,
    default=12,
    show_default=True,
    help="Largest number of errors shown as pictures.",
)
@click.option(
    "--protocols",
    is_flag=True,
    help="Also train MODEL's network under the other protocols (leaky, grouped, held-out shapes), and "
    "compare the metrics.  [OUT: results/protocols/MODEL]",
)
@click.option(
    "--src",
    "source",
    type=options.PATH,
    default=Path("data/raw"),
    show_default=True,
    help="With --protocols: the images, for shard sets that are missing.",
)
@click.option(
    "--groups",
    "patients",
    type=options.PATH,
    metavar="FILE",
    help="CSV or Parquet table with the columns path and patient. With --external: intervals are over "
    "patients, and copies. With --protocols: for shard sets that are missing.",
)
@options.allow_unmatched
@click.option(
    "--weights",
    metavar="FILE",
    help="With --protocols: the weights from which MODEL's training started.",
)
@click.option(
    "--reuse",
    type=options.PATH,
    multiple=True,
    help="With --protocols: a folder of bundles; one that is exactly a missing training is used.",
)
@options.tta
@options.batch_size
@options.cache_dir
@options.device
@options.seed
@options.yes
@options.overwrite
@options.of_a_run
@click.pass_context
def evaluate(
    context: click.Context,
    model: Path | None,
    named: Path | None,
    tfrecords: Location,
    out: Path | None,
    rule: str | None,
    freeze: bool | None,
    external: bool,
    trained_on: Path | None,
    replicates: int,
    gallery: int,
    tta: str | None,
    batch_size: int,
    cache_dir: Path | None,
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
    """Evaluate a model on the test split of its shard set, with intervals and a report.

    MODEL is the folder of a bundle, or its name under models/. Writes report.html, which opens offline,
    metrics.json, predictions.parquet and figures. Temperature and threshold are chosen on the
    validation split alone. Only --freeze changes the threshold by which `infer` decides.

    With --protocols, prints the cost of the missing shard sets and trainings and asks before it starts;
    without a terminal, --yes is needed. Finished parts are kept, and nothing is made twice.

    \b
    Examples:
      tumorbatch evaluate cnn1
      tumorbatch evaluate models/cnn1 tfrecords --threshold youden
      tumorbatch evaluate --model cnn1 --threshold youden --freeze
      tumorbatch evaluate cnn1 other-hospital/ --external --groups patients.csv --out results/other
      tumorbatch evaluate cnn1 --protocols --yes
    """
    when_interrupted = (
        "Finished parts are kept; the same command continues."
        if protocols
        else "Nothing was published; run the same command again."
    )
    with session(quiet, when_interrupted):
        from tumorbatch import bundle
        from tumorbatch.evaluation.config import Config
        from tumorbatch.runtime import load_tensorflow
        from tumorbatch.staging import shard_folder

        model, tfrecords = _named(context, model, named, tfrecords)
        _refuse_given(context, _NOT_WITH if protocols else _ONLY_WITH, protocols)
        if allow_unmatched and patients is None:
            raise ConfigError("--allow-unmatched needs --groups.")
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
            tta=tta,
        )
        folder = bundle.find(model)
        load_tensorflow()  # before anything that brings it along
        shards = shard_folder(tfrecords, cache_dir)
        if protocols:
            out = out or Path("results/protocols") / folder.resolve().name
            from tumorbatch.workflows import protocols as workflow

            how = workflow.Config(config, source, patients, allow_unmatched, weights, reuse=reuse)
            result = workflow.run(folder, shards, out, how, consent_from_terminal(yes))
            _print_protocols(folder, out, result, as_json, quiet)
            return
        from tumorbatch.cli.model_summaries import evaluation_summary
        from tumorbatch.workflows import evaluate as evaluation

        out = out or Path("results") / folder.resolve().name
        report = evaluation.run(folder, shards, out, config, trained_on, patients, allow_unmatched)
        if as_json:
            say(json.dumps(report.summary() | {"out": printable(str(out))}))
        elif not quiet:
            say(evaluation_summary(report, out))


def _named(
    context: click.Context, model: Path | None, named: Path | None, tfrecords: Location
) -> tuple[Path, Location]:
    """Return MODEL and TFRECORDS; with --model the first argument is TFRECORDS."""
    if named is None:
        if model is None:
            raise ConfigError("Give MODEL: the folder of a bundle, or its name under models/.")
        return model, tfrecords
    if model is None:
        return named, tfrecords
    if context.get_parameter_source("tfrecords") is ParameterSource.COMMANDLINE:
        raise ConfigError("MODEL is given twice: leave out --model or the first argument.")
    return named, model


def _refuse_given(context: click.Context, names: tuple[str, ...], protocols: bool) -> None:
    """Raise `ConfigError` if an option was given that would be ignored."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source not in (ParameterSource.DEFAULT, None):
            how = "cannot be combined with" if protocols else "needs"
            raise ConfigError(f"{parameter.opts[0]} {how} --protocols.")


def _print_protocols(
    model: Path, out: Path, protocols: "SideBySide", as_json: bool, quiet: bool
) -> None:
    if as_json:
        say(json.dumps({"out": printable(str(out)), **protocols.to_dict()}))
    elif not quiet:
        from tumorbatch.cli.tables import protocols_table
        from tumorbatch.workflows.protocols import PAGE

        protocols_table(printable(model.resolve().name), protocols)
        say(f"Open {printable(str(out / PAGE))}.")
