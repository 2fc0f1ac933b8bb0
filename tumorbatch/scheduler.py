"""Which part a task of a scheduler's array is, from the variables that the scheduler sets."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tumorbatch.errors import ConfigError
from tumorbatch.parts import Part

_FORM = re.compile(r"(auto|\d{1,9})(?:/(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """The variables of one scheduler.

    Attributes:
        name: For messages.
        index: Variable with the task's index; "" of those that lack one.
        first: Variable with the first index, or the index itself.
        last: Variable with the last index.
        step: Variable with the distance of two indices.
        size: Variable with the number of tasks.
    """

    name: str
    index: str
    first: str | int = 1
    last: str = ""
    step: str = ""
    size: str = ""


# Slurm: sbatch(1), job arrays. PBS: pbs_job_attributes, array jobs; it does not tell the size. LSF:
# bsub -J "name[1-64]"; the index is 0 outside of arrays. SGE: qsub -t; "undefined" outside of arrays.
# Kubernetes: indexed Jobs. AWS Batch: array jobs.
_SCHEDULERS = (
    _Scheduler(
        "Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX",
        "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT",
    ),
    _Scheduler("PBS", "PBS_ARRAY_INDEX"),
    _Scheduler("LSF", "LSB_JOBINDEX", 1, "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP"),
    _Scheduler("Grid Engine", "SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
    _Scheduler("Kubernetes", "JOB_COMPLETION_INDEX", 0),
    _Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", 0, size="AWS_BATCH_JOB_ARRAY_SIZE"),
)  # fmt: skip


def parse_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """Return the part that --part names.

    Args:
        text: "3/64"; "auto": from the scheduler's variables; "auto/64": where it does not tell how
            many tasks there are.
        environment: Variables of the process.

    Raises:
        ConfigError: It is something else; there is no array, or its size is not known.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None or (form[1] != "auto" and form[2] is None):
        raise ConfigError(f"--part takes I/N, such as 3/64, auto, or auto/N. Received: {text}.")
    if form[1] != "auto":
        return Part(int(form[1]), int(form[2]))
    for scheduler in _SCHEDULERS:
        index = _number(environment, scheduler.index)
        if index is None or (scheduler.name == "LSF" and index == 0):
            continue
        return _part(scheduler, index, int(form[2]) if form[2] else None, environment)
    names = ", ".join(scheduler.index for scheduler in _SCHEDULERS)
    raise ConfigError(
        f"--part auto found no task of an array: none of {names} is set. Give --part I/N, or leave it "
        "out for the whole."
    )


def _part(scheduler: _Scheduler, index: int, count: int | None, environment: Mapping[str, str]) -> Part:
    first, step = scheduler.first, _number(environment, scheduler.step) or 1
    if count is not None:  # then indices count from the scheduler's usual first one
        base = first if isinstance(first, int) else 1
        number = index - base + 1
        if not 1 <= number <= count:
            raise ConfigError(
                f"--part auto/{count}: {scheduler.index} is {index}; {scheduler.name} must number the "
                f"tasks from {base} to {count + base - 1}."
            )
        return Part(number, count)
    size = _number(environment, scheduler.size)
    base_index = first if isinstance(first, int) else _number(environment, first)
    last = _number(environment, scheduler.last)
    if last is None and size is not None and base_index is not None:
        last = base_index + size - 1
    if base_index is None or last is None:
        raise ConfigError(
            f"--part auto: {scheduler.name} says that this is task {index}, but not of how many. Give "
            "--part auto/N with the number of tasks."
        )
    count = (last - base_index) // step + 1
    if (size is not None and size != count) or not base_index <= index <= last:
        raise ConfigError(
            f"--part auto: the tasks of this array are not numbered without gaps from {base_index} to "
            f"{last}. Give --part auto/N with the number of parts of the whole job."
        )
    return Part((index - base_index) // step + 1, count)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "") if name else ""
    return int(text) if text.isascii() and text.isdecimal() else None
