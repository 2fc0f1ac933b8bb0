"""The command line: the group of all commands.

Each command parses, builds the config, calls the stage's `run`, and prints its report. Stages are
imported inside their commands, so that `--help` is instant and `shard` never loads TensorFlow.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import click

from tumorbatch import __version__
from tumorbatch.cli import session, settings, streams
from tumorbatch.cli.cluster import k8s, slurm
from tumorbatch.cli.compare import compare
from tumorbatch.cli.doctor import doctor
from tumorbatch.cli.ensemble import ensemble
from tumorbatch.cli.equalize import equalize
from tumorbatch.cli.evaluate import evaluate
from tumorbatch.cli.experiment import experiment
from tumorbatch.cli.explore import explore
from tumorbatch.cli.export import export
from tumorbatch.cli.infer import infer
from tumorbatch.cli.sample import sample
from tumorbatch.cli.shard import shard
from tumorbatch.cli.show import show
from tumorbatch.cli.sr import sr
from tumorbatch.cli.status import status
from tumorbatch.cli.summarize import summarize
from tumorbatch.cli.train import train
from tumorbatch.cli.verify import verify
from tumorbatch.cli.weights import weights
from tumorbatch.errors import ExitCode

_EARLIER_NAMES = {"rate": "lr-schedule"}  # of options; they still work, and no help names them


class Program(click.Group):
    """The command, which sees to it that its standard streams are there and its exit code is right."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Run the command; without `args`, those of the process."""
        if args is not None:  # from Python, whose streams are the caller's
            return self._logged(args, *more, **options)
        streams.fill()
        streams.guard()
        with _leaving():
            return self._run(args, *more, **options)

    def _run(self, args: Sequence[str] | None, *more: Any, **options: Any) -> Any:
        """Run the command; a failure of standard output is one of --help, too."""
        try:
            return self._logged(args, *more, **options)
        except SystemExit as end:
            if end.code in (None, 0) and streams.failure() is not None:  # --help, --version
                click.echo(f"Error: {streams.lost()}", err=True)
                sys.exit(ExitCode.CANNOT_WRITE)
            raise

    def _logged(self, args: Sequence[str] | None, *more: Any, **options: Any) -> Any:
        """Run the command; a JSON log ends with an event, whatever the end."""
        session.begin(sys.argv[1:] if args is None else args)
        try:
            return super().main(args, *more, **options)
        except SystemExit as end:
            session.end(end.code if isinstance(end.code, int) else ExitCode.OK)
            raise
        except Exception as error:
            if not session.is_json():
                raise
            session.end_with_bug(error)
            sys.exit(ExitCode.BUG)

    def invoke(self, context: click.Context) -> Any:
        """Run the command; a JSON log also tells of wrong usage."""
        try:
            return super().invoke(context)
        except click.UsageError as error:
            if not session.is_json():
                raise
            session.print_error(f"Error: {error.format_message()}", ExitCode.USAGE)
            context.exit(ExitCode.USAGE)


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    """End the process at once where Python's own end would abort it: after tensorflow-io read S3.

    Its client is destroyed after what it needs (tensorflow/io #2039), and the exit code would be 134.
    """
    code: object = 0
    try:
        yield
    except SystemExit as end:
        code = end.code
        raise
    except BaseException:
        code = ExitCode.BUG
        if "tensorflow_io" in sys.modules:
            traceback.print_exc()
        raise
    finally:
        if "tensorflow_io" in sys.modules:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code if isinstance(code, int) else int(code is not None))


@click.group(
    cls=Program,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": lambda word: _EARLIER_NAMES.get(word, word),
    },
)
@click.version_option(__version__, prog_name="tumorbatch")
def main() -> None:
    """Classify brain images as Healthy or Tumor, whole folders at a time.

    \b
    From a working folder with images in data/raw/Healthy and data/raw/Tumor:
      tumorbatch shard                      images -> CLAHE -> splits -> tfrecords/
      tumorbatch train --arch cnn1          tfrecords/ -> models/cnn1/
      tumorbatch evaluate cnn1              models/cnn1/ -> results/cnn1/report.html
      tumorbatch infer folder/ out.parquet  any folder -> one row per file

    \b
    No images? `tumorbatch sample data/raw` creates synthetic ones.

    \b
    Options may also stand in a file (--config FILE.toml) or in the environment
    (TUMORBATCH_INFER_BATCH_SIZE=64); the command line wins over both.

    \b
    Exit codes:
      0   done, all files read; or nothing new to do
      2   wrong usage, or settings that do not match the existing output
      3   done and published, but some files have error rows
      4   more errors than --max-error-rate, nothing published
      66  input missing, empty, unfinished or damaged
      73  output cannot be written
      75  try again later: output in use by another run, or interrupted
      1   a bug, with a traceback

    Not a medical device; not for diagnosis.
    """


for command in (
    sample, explore, shard, verify, equalize, weights, train, ensemble, evaluate, compare, experiment,
    infer, slurm, k8s, status, show, summarize, sr, export, doctor,
):  # fmt: skip
    main.add_command(command)
settings.name_variables(main)
