"""The scripts that `slurm` and `k8s` print."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tumorbatch.errors import ConfigError
from tumorbatch.job_scripts import Cluster, Job, kubernetes_manifest, slurm_script
from tumorbatch.parts import ENVIRONMENT

JOB = Job(
    ["infer", "/data/my scans", "out.parquet"], 64, "tumorbatch", 4, 1, "16G", {ENVIRONMENT: "500"}
)
CLUSTER = Cluster("registry/tumorbatch:cuda", "scans", "/data", "imaging", 16, 1000)


def test_a_script_for_slurm_is_bash_and_has_what_sbatch_needs() -> None:
    script = slurm_script(JOB, "4:00:00", "1-0", ["--partition=gpu"])
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    array, finish = re.findall(r"<<'JOB'\n(.*?)^JOB$", script, re.MULTILINE | re.DOTALL)
    for body in (array, finish):
        options = set(re.findall(r"^#SBATCH (\S+)$", body, re.MULTILINE))
        assert {
            "--requeue", "--open-mode=append", "--signal=B:USR2@120", "--gpus=1", "--mem=16G",
            "--cpus-per-task=4", "--partition=gpu",
        } <= options  # fmt: skip
    assert "#SBATCH --array=1-64\n" in array
    assert "#SBATCH --time=4:00:00\n" in array
    assert "#SBATCH --time=1-0\n" in finish
    assert array.endswith("exec tumorbatch infer '/data/my scans' out.parquet --part auto\n")
    assert finish.endswith("exec tumorbatch infer '/data/my scans' out.parquet\n")
    assert 'sbatch --parsable --dependency="afterany:$array"' in script


def test_what_sbatch_gets(tmp_path: Path) -> None:
    """The script is run, with an sbatch that writes down what it is given."""
    (tmp_path / "sbatch").write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/arguments\ncat >> {tmp_path}/jobs\necho "17;cluster"\n'
    )
    (tmp_path / "sbatch").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash"], input=slurm_script(JOB, "60", "60", []), text=True, capture_output=True, check=True,
        env=environment,
    )  # fmt: skip
    assert done.stdout == "array 17, finishing job 17\n"
    assert (tmp_path / "arguments").read_text() == "--parsable\n--parsable --dependency=afterany:17\n"
    assert (tmp_path / "jobs").read_text().count("#!/bin/bash\n") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--time", "soon", "--", "infer", "a", "b.csv"], "not a time of Slurm"),
        (["--time", "1", "--name", "My Job", "--", "infer", "a", "b.csv"], "cannot be the name"),
        (["--time", "1", "--sbatch=partition", "--", "infer", "a", "b.csv"], "not an option of sbatch"),
        (["--time", "1", "--", "infer", "a\nJOB", "b.csv"], "cannot stand in a script"),
        (["--time", "1", "--", "verify", "a"], "a command that has parts: infer, shard, train"),
        (["--time", "1"], "Received: nothing"),
        (["--time", "1", "--", "infer", "a", "b.csv", "--part", "1/2"], "Leave out --part"),
        (["--time", "1", "--", "infer", "a"], "Missing argument 'FOLDER...'"),
        (["--time", "1", "--", "infer", "a", "b.csv", "--bach-size", "3"], "No such option"),
        (["--time", "1", "--max-array-size", "8", "--", "infer", "a", "b.csv"], "Give --tasks 7"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_submitted(
    invoke: Any, words: list[str], sentence: str
) -> None:
    code, output = invoke("slurm", "--tasks", 64, *words)
    assert (code, sentence in output) == (2, True), output


def test_no_more_tasks_than_chunks(
    tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, "5")
    for number in range(12):
        (tmp_path / f"{number}.png").touch()
    code, output = invoke("slurm", "--tasks", 64, "--time", 1, "--", "infer", tmp_path, "b.csv")
    assert code == 0
    assert "12 files are 3 chunks: 3 tasks instead of 64." in output
    assert "#SBATCH --array=1-3\n" in output
    assert f"\nexport {ENVIRONMENT}=5\n" in output
    output = invoke("slurm", "--tasks", 2, "--time", 1, "--", "tumorbatch", "infer", tmp_path, "b.csv")[
        1
    ]
    assert "#SBATCH --array=1-2\n" in output


def test_no_more_tasks_than_trainings(invoke: Any) -> None:
    train = ("--tasks", 64, "--time", 1, "--", "train", "tfrecords", "--arch")
    code, output = invoke("slurm", *train, "all", "--seeds", 3)
    assert (code, "There are 15 trainings: 15 tasks instead of 64." in output) == (0, True)
    assert "exec tumorbatch train tfrecords --arch all --seeds 3 --part auto\n" in output
    code, output = invoke("slurm", *train, "cnn1")
    assert (code, "One training has no parts" in output) == (2, True)
    for more, trainings in (((), 5), (("--folds-by", "both"), 10), (("--seeds", 3), 3)):
        code, output = invoke("slurm", *train, "cnn1", "--folds", 5, *more)
        assert code == 0
        assert f"There are {trainings} trainings: {trainings} tasks instead of 64." in output


def _documents(text: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return list(yaml.safe_load_all(text))


def test_kubernetes_gets_two_jobs() -> None:
    parts, finish = _documents(kubernetes_manifest(JOB, CLUSTER))
    assert [one["metadata"]["name"] for one in (parts, finish)] == [
        "tumorbatch-parts", "tumorbatch-finish",
    ]  # fmt: skip
    spec = parts["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 64, 16)
    assert finish["spec"]["suspend"] is True
    for one, more in ((parts, ["--part", "auto/64"]), (finish, [])):
        pod = one["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["args"][1:] == ["tumorbatch", *JOB.command, *more]
        assert container["resources"]["limits"] == {"memory": "16G", "nvidia.com/gpu": 1}
        assert container["env"] == [{"name": ENVIRONMENT, "value": "500"}]
        names = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == names
        for rule in one["spec"]["podFailurePolicy"]["rules"]:
            if "onExitCodes" in rule:
                assert rule["onExitCodes"]["containerName"] == container["name"]


def test_kubernetes_own_schema_accepts_the_jobs() -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate, which has the schema, is not installed"
    )
    for document in _documents(kubernetes_manifest(JOB, CLUSTER)):
        validate.validate(document, "1.31", strict=True)
    broken = _documents(kubernetes_manifest(JOB, CLUSTER))[0]
    broken["spec"]["completionMod"] = broken["spec"].pop("completionMode")
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, "1.31", strict=True)


@pytest.mark.parametrize(
    ("job", "cluster"),
    [
        (Job(["infer"], 2, "Big_Job", 1, 0, ""), CLUSTER),
        (Job(["infer"], 2, "job", 1, 0, "much"), CLUSTER),
        (Job(["infer"], 2, "job", 1, 0, ""), Cluster("i", "my claim", "/data", "", 1, 1000)),
    ],
)
def test_what_kubernetes_would_refuse(job: Job, cluster: Cluster) -> None:
    with pytest.raises(ConfigError):
        kubernetes_manifest(job, cluster)


@pytest.fixture
def pod(tmp_path: Path) -> Any:
    """Run the shell of a container, with a `tumorbatch` that ends as it is told."""
    (tmp_path / "tumorbatch").write_text(
        f"#!{sys.executable}\nimport signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print(sys.argv[1:], flush=True)\n"
        "time.sleep(float(sys.argv[1]))\nsys.exit(int(sys.argv[2]))\n"
    )
    (tmp_path / "tumorbatch").chmod(0o755)
    text = kubernetes_manifest(JOB, CLUSTER).split("            - |\n")[1]
    lines = [line[14:] for line in text.splitlines() if line.startswith(" " * 14)]
    script = "\n".join(lines[: lines.index('exit "$code"') + 1])

    def start(*arguments: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["/bin/sh", "-c", script, "tumorbatch", *map(str, arguments)], text=True,
            stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        )  # fmt: skip

    return start


def test_a_container_ends_as_kubernetes_understands_it(pod: Any) -> None:
    for code, seen in ((0, 0), (3, 0), (75, 75), (66, 66)):
        process = pod(0, code, "my scans")
        assert process.communicate(timeout=20)[0] == f"['0', '{code}', 'my scans']\n"
        assert process.returncode == seen
    process = pod(30, 0)
    process.stdout.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)  # to the shell alone, as the kubelet does it
    process.communicate(timeout=20)
    assert process.returncode == 75
    assert time.monotonic() - started < 10
