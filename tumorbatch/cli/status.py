"""The command `status`: how far the tasks of a job are."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.cli.summaries import shown_path
from tumorbatch.files import counted
from tumorbatch.object_path import Location

if TYPE_CHECKING:
    from tumorbatch.survey import Survey

_STATES = ("done", "running", "stopped", "never started")  # `survey` has them as constants
_LISTED = 50  # parts that are named one by one


@click.command(cls=Command)
@click.argument("out", type=options.LOCATION)
@click.option(
    "--work",
    type=options.PATH,
    metavar="DIR",
    help="Folder of the unfinished work, as it was given to `infer`; needed if OUT is in an object "
    "store.",
)
@options.of_a_run
def status(out: Location, work: Path | None, as_json: bool, quiet: bool) -> None:
    """Show how far the parts of a job are: done, running (where, since when), or missing.

    OUT is the output of `infer` or `shard`, as it was given there; of one in an object store, the
    unfinished work is in --work DIR. Nothing is changed or disturbed.
    A part is stopped if its task has ended before all of its chunks were computed: start it again, or
    leave it to the command without --part.

    \b
    Examples:
      tumorbatch status out.parquet
      tumorbatch status /scratch/tfrecords --json
      tumorbatch status s3://b/out.parquet --work /scratch/me
    """
    with session(quiet, "Nothing was changed; run the same command again."):
        from tumorbatch.survey import take

        survey = take(out, work)
        if as_json:
            say(_json(survey, out))
        elif not quiet:
            say(_text(survey, out))


def _json(survey: "Survey | None", out: Location) -> str:
    state = "published" if survey is None else "unfinished"
    value: dict[str, object] = {"out": shown_path(out), "state": state}
    if survey is not None:
        counts = {name: survey.count(name) for name in _STATES}
        value |= {**dataclasses.asdict(survey), "counts": counts}
    return json.dumps(value, ensure_ascii=False)


def _text(survey: "Survey | None", out: Location) -> str:
    name = shown_path(out)
    if survey is None:
        return f"{name} is there, and no part of it is being computed."
    lines = []
    if survey.listing:
        lines.append(f"{name}: the list of files is being written ({survey.listing}).")
    if survey.finishing:
        lines.append(f"{name} is being written ({survey.finishing}).")
    if survey.chunks:
        counts = [
            f"{survey.count(state):,} {state}"
            for state in _STATES
            if survey.count(state) or state == _STATES[0]
        ]
        lines.append(
            f"{name}: {counted(len(survey.parts), 'part')}: {', '.join(counts)}; {survey.finished:,} "
            f"of {counted(survey.chunks, 'chunk')} computed ({counted(survey.files, 'file')} in all)."
        )
    for state in _STATES[1:3]:
        for part in [part for part in survey.parts if part.state == state][:_LISTED]:
            lines.append(
                f"  part {part.part} {state}: {part.finished:,} of {counted(part.chunks, 'chunk')}, on "
                f"{part.host} since {part.since}"
            )
    waiting = [part.part.partition("/")[0] for part in survey.parts if part.state == _STATES[3]]
    if waiting:
        more = f" and {len(waiting) - _LISTED:,} more" if len(waiting) > _LISTED else ""
        lines.append(f"  never started: {', '.join(waiting[:_LISTED])}{more}")
    if not survey.finishing:
        after = " when they have ended" if survey.count(_STATES[1]) or survey.listing else ""
        lines.append(
            f"Next: the command without --part{after}; it computes what is missing, and publishes."
        )
    return "\n".join(lines)
