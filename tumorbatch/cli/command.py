"""What all commands share beside their options: headings in `--help`, and configuration files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tumorbatch.cli import settings
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import printable

# Every option has one heading in all commands; `tests/cli/test_options.py` checks that. What is in no
# group stands under "Options".
_GROUPS: dict[str, tuple[str, ...]] = {
    "Files that are read": (
        "listed", "include", "exclude", "all_files", "min_age", "max_frames", "classes", "patients",
        "allow_unmatched", "patient_id", "formats", "timeout", "max_error_rate",
    ),
    "Pixels and splits": (
        "size", "variants", "clahe", "clahe_clip", "clahe_grid", "split_by", "splits", "fractions",
        "new_splits",
        "shard_mb",
    ),
    "Training": (
        "recipe", "weights", "epochs", "patience", "learning_rate", "rate", "finetune_epochs",
        "finetune_learning_rate", "finetune_batch_norm", "feature_copies",
        "folds", "folds_by", "weight_decay", "dropout",
        "label_smoothing",
        "class_weights", "group_weights", "deterministic", "known_images", "checkpoint_every",
        "tensorboard",
    ),
    "Augmentation": (
        "augment", "shear", "zoom", "flip", "rotation", "shift", "contrast", "brightness",
    ),
    "Other protocols": ("protocols", "source", "reuse"),
    "Another shard set": ("external", "trained_on"),
    "Rows that are kept": ("incremental", "content", "prune"),
    "Speed and machine": (
        "batch_size", "cache_dir", "workers", "device", "gpus", "precision", "xla", "threads", "onednn",
        "feed", "steps_per_execution", "pixels",
    ),
    "Run": (
        "max_runtime", "part", "executor", "address", "engines", "gpus_per_engine",
        "seed", "yes", "dry_run", "overwrite", "config_file", "save_config",
        "as_json", "metrics_file", "log_format", "verbose", "quiet", "help",
    ),
}  # fmt: skip
_OTHER = "Options"
_FEW = 12  # options that need no headings
_HEADINGS = {name: heading for heading, names in _GROUPS.items() for name in names}


def write_options(
    parameters: Sequence[click.Parameter], context: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write the options of a command, below headings if there are many."""
    options = [
        ("help" if "--help" in parameter.opts else parameter.name or "", record)
        for parameter in parameters
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    grouped: dict[str, list[tuple[str, str]]] = {_OTHER: [], **{heading: [] for heading in _GROUPS}}
    for name, record in options:
        grouped[_HEADINGS.get(name, _OTHER) if len(options) > _FEW else _OTHER].append(record)
    for heading, records in grouped.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)


_SAVE, _ARGUMENTS = "tumorbatch.save_config", "tumorbatch.arguments"  # keys of a context's `meta`


def read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take the options of a command from the file that --config names.

    Raises:
        click.UsageError: It cannot be used.
    """
    if path is None or context.resilient_parsing:
        return
    try:
        context.default_map = settings.read(path, context)
    except (ConfigError, InputError) as error:
        raise click.UsageError(str(error), context) from error


def save_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Remember the file of --save-config; `Command.invoke` writes it."""
    context.meta[_SAVE] = path


class Command(click.Command):
    """A command whose options stand below headings in its `--help`, and may come from a file."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and remember them."""
        context.meta[_ARGUMENTS] = list(args)
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run the command, or with --save-config write its options to a file."""
        path = context.meta.get(_SAVE)
        if path is None:
            return super().invoke(context)
        with session(bool(context.params.get("quiet")), "Nothing was written."):
            settings.save(path, context, context.meta[_ARGUMENTS])
            if not context.params.get("quiet"):
                say(f"Wrote {printable(str(path))}. Nothing else was done.")
        return None

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        write_options(self.get_params(context), context, formatter)
