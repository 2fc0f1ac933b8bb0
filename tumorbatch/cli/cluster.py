"""The commands `slurm` and `k8s`: print what lets a cluster compute the parts of a job."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import click

from tumorbatch.architectures import ARCHITECTURES
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import complain, say
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError
from tumorbatch.files import counted
from tumorbatch.folds import GROUP, Folds
from tumorbatch.job_scripts import Cluster, Job, kubernetes_manifest, slurm_script
from tumorbatch.parts import ENVIRONMENT as CHUNK_FILES_VARIABLE
from tumorbatch.parts import chunk_size

COMMANDS = ("infer", "shard", "train")
_MAX_ARRAY = 1001  # Slurm's default MaxArraySize
_SOURCES = {"infer": "folders", "shard": "src"}  # the parameter with the files

_tasks = click.option(
    "--tasks", type=click.IntRange(1), required=True, metavar="N", help="Number of parts."
)
_gpus = click.option(
    "--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs of a task."
)
_cpus = click.option(
    "--cpus", type=click.IntRange(1), default=4, show_default=True, help="Cores of a task."
)
_name = click.option("--name", default="tumorbatch", show_default=True, help="Name of the jobs.")
_command = click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")


@click.command(cls=Command)
@_tasks
@click.option("--time", required=True, metavar="T", help="Time of a task, as 4:00:00 or 1-12.")
@click.option("--finish-time", metavar="T", help="Time of the finishing job.  [default: --time]")
@_gpus
@_cpus
@click.option("--mem", default="", help="Memory of a task, as 16G.  [default: the cluster's]")
@_name
@click.option(
    "--sbatch",
    "more",
    multiple=True,
    metavar="OPTION",
    help="Another option of sbatch, as --sbatch=--partition=gpu; can be repeated.",
)
@click.option(
    "--max-array-size",
    type=click.IntRange(2),
    help="The cluster's MaxArraySize.  [default: as `scontrol show config` says, else 1001]",
)
@options.config_file
@options.save_config
@options.as_json
@options.log_format
@options.verbose
@_command
@click.pass_context
def slurm(
    context: click.Context,
    tasks: int,
    time: str,
    finish_time: str | None,
    gpus: int,
    cpus: int,
    mem: str,
    name: str,
    more: tuple[str, ...],
    max_array_size: int | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Print a script that submits an array of Slurm and the job that finishes.

    COMMAND is one of `infer`, `shard` and `train` with its arguments, without --part. The array has N
    tasks, each a part; the finishing job starts when all have ended, computes what is missing, and
    publishes. Nothing is submitted: read the script, and run it with bash.

    \b
    Examples:
      tumorbatch slurm --tasks 64 --gpus 1 --time 4:00:00 -- infer /scratch/scans out.parquet > job.sh
      tumorbatch slurm --tasks 9 --time 2-0 --sbatch=--partition=long -- shard /data tfrecords > job.sh
    """
    with session(False, "Nothing was submitted."):
        words = _checked(context, command)
        tasks = _fewer(tasks, words, context)
        limit = (max_array_size or _slurm_limit()) - 1
        if tasks > limit:
            raise ConfigError(
                f"This cluster's arrays have at most {limit:,} tasks (MaxArraySize), and --tasks is "
                f"{tasks:,}. Give --tasks {limit}: a part may be as large as you like."
            )
        job = Job(words, tasks, name, cpus, gpus, mem, _environment())
        _print(slurm_script(job, time, finish_time or time, more), tasks, as_json)


@click.command(cls=Command)
@_tasks
@click.option("--image", required=True, help="The container's image; see Dockerfile.")
@click.option(
    "--claim",
    required=True,
    help="PersistentVolumeClaim (ReadWriteMany) with the images, the model and OUT.",
)
@click.option(
    "--mount",
    default="/data",
    show_default=True,
    help="Where it is in the container.",
)
@click.option("--parallelism", type=click.IntRange(1), help="Pods at a time.  [default: N]")
@_gpus
@_cpus
@click.option("--memory", default="8Gi", show_default=True, help="Memory of a pod.")
@_name
@click.option("--namespace", default="", help="Namespace of the jobs.  [default: kubectl's]")
@click.option(
    "--user", type=click.IntRange(1), default=1000, show_default=True, help="User who owns the files."
)
@options.config_file
@options.save_config
@options.as_json
@options.log_format
@options.verbose
@_command
@click.pass_context
def k8s(
    context: click.Context,
    tasks: int,
    image: str,
    claim: str,
    mount: str,
    parallelism: int | None,
    gpus: int,
    cpus: int,
    memory: str,
    name: str,
    namespace: str,
    user: int,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Print two Jobs of Kubernetes: the parts, and one that finishes.

    COMMAND is one of `infer`, `shard` and `train` with its arguments, without --part. The first Job is
    indexed and has N pods; the second is suspended: resume it when the first has ended. Nothing is
    submitted.

    \b
    Examples:
      tumorbatch k8s --tasks 64 --image tumorbatch:cpu --claim c -- infer scans out.parquet > job.yaml
    """
    with session(False, "Nothing was submitted."):
        words = _checked(context, command)
        tasks = _fewer(tasks, words, context)
        job = Job(words, tasks, name, cpus, gpus, memory, _environment())
        cluster = Cluster(image, claim, mount, namespace, parallelism or tasks, user)
        _print(kubernetes_manifest(job, cluster), tasks, as_json)


def _print(script: str, tasks: int, as_json: bool) -> None:
    say(json.dumps({"tasks": tasks, "script": script}) if as_json else script.rstrip("\n"))


def _environment() -> dict[str, str]:
    """Return the variables that decide the chunks, which the first task must know too."""
    text = os.environ.get(CHUNK_FILES_VARIABLE)
    return {CHUNK_FILES_VARIABLE: text} if text else {}


def _checked(context: click.Context, command: tuple[str, ...]) -> list[str]:
    """Return the words of a command that tasks can share, parsed as they will parse it."""
    words = list(command[1:] if command[:1] == ("tumorbatch",) else command)
    if not words or words[0] not in COMMANDS:
        received = words[0] if words else "nothing"
        raise ConfigError(
            f"After -- comes a command that has parts: {', '.join(COMMANDS)}. Received: {received}."
        )
    if any(word == "--part" or word.startswith("--part=") for word in words):
        raise ConfigError("Leave out --part: the script gives each task its own.")
    _parameters(context, words)
    return words


def _parameters(context: click.Context, words: list[str]) -> dict[str, object]:
    program = context.find_root()
    if not isinstance(program.command, click.Group):
        return {}
    parsed = program.command.commands[words[0]].make_context(words[0], words[1:], parent=program)
    return dict(parsed.params)


def _fewer(tasks: int, words: list[str], context: click.Context) -> int:
    """Return the number of tasks, at most that of the chunks where the files can be counted here."""
    parameters = _parameters(context, words)
    if words[0] == "train":
        return _fewer_trainings(tasks, parameters)
    given = parameters.get(_SOURCES[words[0]])
    sources = given if isinstance(given, tuple) else (given,)
    enough = tasks * chunk_size(1)
    files = 0
    for source in sources:
        if not isinstance(source, Path) or not source.exists():
            return tasks
        files += source.is_file()
        for _, _, names in os.walk(source):
            files += len(names)
            if files >= enough:
                return tasks
    chunks = max(1, -(-files // chunk_size(files)))
    if chunks < tasks:
        complain(
            f"{counted(files, 'file')} are {counted(chunks, 'chunk')}: {counted(chunks, 'task')} "
            f"instead of {tasks:,}."
        )
    return min(tasks, chunks)


def _fewer_trainings(tasks: int, parameters: dict[str, object]) -> int:
    """Return the number of tasks, at most that of the trainings."""
    seeds = parameters.get("seeds")
    trainings = len(ARCHITECTURES) if parameters.get("arch") == "all" else 1
    trainings *= seeds if isinstance(seeds, int) else 1
    folds = parameters.get("folds")
    if trainings == 1 and isinstance(folds, int):  # of several trainings each keeps its folds
        trainings = len(Folds(folds, str(parameters.get("folds_by") or GROUP)).all())
    if trainings == 1:
        raise ConfigError("One training has no parts: give --arch all, --seeds or --folds.")
    if trainings < tasks:
        complain(f"There are {trainings:,} trainings: {trainings:,} tasks instead of {tasks:,}.")
    return min(tasks, trainings)


def _slurm_limit() -> int:
    """Return MaxArraySize of the cluster of this machine, or Slurm's default."""
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        return _MAX_ARRAY
    try:
        done = subprocess.run(  # noqa: S603 - no word of it is the user's
            [scontrol, "show", "config"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return _MAX_ARRAY
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(found[1]) if found else _MAX_ARRAY
