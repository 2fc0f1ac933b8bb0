"""Scripts that let a cluster compute the parts of a job and then finish it: Slurm and Kubernetes.

They are text for the operator to read, keep and submit; nothing here talks to a scheduler.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tumorbatch.errors import ConfigError, ExitCode

# Slurm's: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].
_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", re.ASCII)  # RFC 1123, with room for "-finish"
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?", re.ASCII)
_NOTICE = 120  # seconds before the end of its time at which a task saves its work


@dataclass(frozen=True, slots=True)
class Job:
    """What both schedulers need to know.

    Attributes:
        command: Arguments of `tumorbatch` without --part, such as ["infer", "scans", "out.parquet"].
        tasks: Number of parts.
        name: Of the job.
        cpus: Cores a task.
        gpus: GPUs a task.
        memory: A task's, as the scheduler writes it, or "".
        environment: Variables that the tasks need.
    """

    command: Sequence[str]
    tasks: int
    name: str
    cpus: int
    gpus: int
    memory: str
    environment: Mapping[str, str] = field(default_factory=dict)


def refuse_line_ends(command: Sequence[str]) -> None:
    """Raise `ConfigError` for an argument that a script cannot hold on one line."""
    for argument in command:
        if not argument.isprintable():
            raise ConfigError(f"{argument!r} has characters that cannot stand in a script.")


def _shell(command: Sequence[str], *more: str) -> str:
    return shlex.join(["tumorbatch", *command, *more])


def slurm_script(job: Job, time: str, finish_time: str, options: Sequence[str]) -> str:
    """Return a bash script that submits an array and, after it, the job that finishes.

    Args:
        job: What is to be computed.
        time: A task's, as sbatch takes it.
        finish_time: Of the finishing job.
        options: More options of sbatch, for both: "--partition=gpu".

    Raises:
        ConfigError: A time, a name or an option cannot be one of sbatch.
    """
    for value in (time, finish_time):
        if not _TIME.fullmatch(value):
            raise ConfigError(f"{value!r} is not a time of Slurm such as 90, 4:00:00 or 2-12.")
    for option in options:
        if not re.fullmatch(r"--?[a-zA-Z][^\n]*", option):
            raise ConfigError(f"{option!r} is not an option of sbatch, such as --partition=gpu.")
    _check_name(job.name)
    refuse_line_ends([*job.command, *options, job.memory])
    common = [f"--cpus-per-task={job.cpus}"]
    common += [f"--gpus={job.gpus}"] if job.gpus else []
    common += [f"--mem={job.memory}"] if job.memory else []
    common += ["--requeue", "--open-mode=append", f"--signal=B:USR2@{_NOTICE}", *options]
    array = [
        f"--job-name={job.name}", f"--array=1-{job.tasks}", f"--output={job.name}-%A_%a.log",
        f"--time={time}", *common,
    ]  # fmt: skip
    finish = [
        f"--job-name={job.name}-finish", f"--output={job.name}-finish-%j.log",
        f"--time={finish_time}", *common,
    ]  # fmt: skip
    return f"""#!/bin/bash
# Written by `tumorbatch slurm`. Submit both jobs with: bash THIS_FILE
# Submit it again if tasks have failed or their time was over: what is finished stays.
set -euo pipefail
{_exports(job)}
array=$(sbatch --parsable <<'JOB'
#!/bin/bash
{_directives(array)}
# exec: Slurm's signal, {_NOTICE} seconds before the end, reaches the command, which saves its work.
exec {_shell(job.command, "--part", "auto")}
JOB
)
array=${{array%%;*}}

# afterany: also where tasks have failed. It computes what is missing, and publishes.
finish=$(sbatch --parsable --dependency="afterany:$array" <<'JOB'
#!/bin/bash
{_directives(finish)}
exec {_shell(job.command)}
JOB
)
echo "array $array, finishing job ${{finish%%;*}}"
"""


def _exports(job: Job) -> str:
    """Return the lines by which the tasks get their variables: sbatch passes on its own."""
    return "".join(f"export {name}={shlex.quote(text)}\n" for name, text in job.environment.items())


def _directives(options: Sequence[str]) -> str:
    return "\n".join(f"#SBATCH {option}" for option in options)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a job: up to 52 lower-case letters, digits and hyphens."
        )


# The same command would end in the same way.
_FINAL = (ExitCode.USAGE, ExitCode.TOO_MANY_ERRORS, ExitCode.NO_INPUT, ExitCode.CANNOT_WRITE)
# Kubernetes takes every exit code but 0 for a failure, and a shell keeps SIGTERM to itself.
_WRAPPER = f"""\
tumorbatch "$@" &
child=$!
stopped=
trap 'stopped=1; kill -TERM "$child"' TERM
code=0
wait "$child" || code=$?
# A signal ends `wait`, not the child: its own exit code comes with the next `wait`.
while [ -n "$stopped" ]; do stopped=; code=0; wait "$child" || code=$?; done
# Some files have error rows: the work is done nevertheless.
if [ "$code" -eq {int(ExitCode.SOME_ERRORS)} ]; then code=0; fi
exit "$code"
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Kubernetes needs besides.

    Attributes:
        image: Of the container.
        claim: PersistentVolumeClaim with images, model and output; ReadWriteMany.
        mount: Where it is mounted in the container.
        namespace: Or "".
        parallelism: Pods at a time.
        user: Number of the user, who owns the files.
    """

    image: str
    claim: str
    mount: str
    namespace: str
    parallelism: int
    user: int


def kubernetes_manifest(job: Job, cluster: Cluster) -> str:
    """Return two Jobs as YAML: an indexed one for the parts, and one, suspended, that finishes.

    Raises:
        ConfigError: A name or a quantity cannot be one of Kubernetes.
    """
    for name in filter(None, (job.name, cluster.claim, cluster.namespace)):
        _check_name(name)
    if job.memory and not _QUANTITY.fullmatch(job.memory):
        raise ConfigError(f"{job.memory!r} is not an amount of memory such as 16Gi.")
    refuse_line_ends([*job.command, cluster.image, cluster.mount])
    indexed = [
        f"  completions: {job.tasks}",
        f"  parallelism: {min(cluster.parallelism, job.tasks)}",
        "  completionMode: Indexed",
        "  backoffLimitPerIndex: 3",
    ]
    suspended = ["  suspend: true", "  backoffLimit: 3"]
    part = ["--part", f"auto/{job.tasks}"]
    return "---\n".join(
        [
            "# Written by `tumorbatch k8s`; see docs/cluster.md.\n"
            + _job(job, cluster, f"{job.name}-parts", indexed, part, "FailIndex"),
            _job(job, cluster, f"{job.name}-finish", suspended, [], "FailJob"),
        ]
    )


def _job(
    job: Job, cluster: Cluster, name: str, spec: Sequence[str], more: Sequence[str], failure: str
) -> str:
    lines = [
        "apiVersion: batch/v1",
        "kind: Job",
        "metadata:",
        f"  name: {name}",
        *([f"  namespace: {cluster.namespace}"] if cluster.namespace else []),
        "spec:",
        *spec,
        *_failure_policy(failure),
        *_pod(job, cluster, more),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _failure_policy(failure: str) -> list[str]:
    """Return what follows from a pod's end; `failure`: the action for what would happen again."""
    final = [int(code) for code in _FINAL]
    return [
        "  podFailurePolicy:",
        "    rules:",
        "      # A node that is drained or lost is no failure, nor is exit code 75: try again.",
        "      - action: Ignore",
        "        onPodConditions:",
        "          - type: DisruptionTarget",
        "            status: \"True\"",
        "      - action: Ignore",
        "        onExitCodes:",
        "          containerName: tumorbatch",
        "          operator: In",
        f"          values: [{int(ExitCode.TRY_AGAIN)}]",
        "      # Usage, input, output: the same would happen again.",
        f"      - action: {failure}",
        "        onExitCodes:",
        "          containerName: tumorbatch",
        "          operator: In",
        f"          values: {json.dumps(final)}",
    ]  # fmt: skip


def _pod(job: Job, cluster: Cluster, more: Sequence[str]) -> list[str]:
    """Return the template of the pods."""
    quoted = [json.dumps(argument) for argument in (*job.command, *more)]
    requests = [f"cpu: {json.dumps(str(job.cpus))}"]
    requests += [f"memory: {json.dumps(job.memory)}"] if job.memory else []
    limits = ([f"memory: {json.dumps(job.memory)}"] if job.memory else []) + (
        [f"nvidia.com/gpu: {job.gpus}"] if job.gpus else []
    )
    return [
        "  template:",
        "    spec:",
        "      restartPolicy: Never",
        f"      terminationGracePeriodSeconds: {_NOTICE}",
        "      securityContext:",
        "        runAsNonRoot: true",
        f"        runAsUser: {cluster.user}",
        f"        fsGroup: {cluster.user}",
        "      containers:",
        "        - name: tumorbatch",
        f"          image: {json.dumps(cluster.image)}",
        "          command: [/bin/sh, -c]",
        "          args:",
        "            - |",
        *(f"              {line}" for line in _WRAPPER.splitlines()),
        "            - tumorbatch",
        *(f"            - {argument}" for argument in quoted),
        f"          workingDir: {json.dumps(cluster.mount)}",
        *(["          env:"] if job.environment else []),
        *(
            f"            - {{name: {name}, value: {json.dumps(text)}}}"
            for name, text in job.environment.items()
        ),
        "          securityContext:",
        "            allowPrivilegeEscalation: false",
        "            capabilities:",
        "              drop: [ALL]",
        "          resources:",
        "            requests:",
        *(f"              {line}" for line in requests),
        *(["            limits:"] if limits else []),
        *(f"              {line}" for line in limits),
        "          volumeMounts:",
        "            - name: data",
        f"              mountPath: {json.dumps(cluster.mount)}",
        "            - name: shm",
        "              mountPath: /dev/shm",
        "      volumes:",
        "        - name: data",
        "          persistentVolumeClaim:",
        f"            claimName: {cluster.claim}",
        "        # Images wait there for the network; 64 MiB, the default, are few.",
        "        - name: shm",
        "          emptyDir:",
        "            medium: Memory",
        "            sizeLimit: 2Gi",
    ]  # fmt: skip
