"""--part: what can be typed, and what the schedulers say."""

import pytest

from tumorbatch.errors import ConfigError
from tumorbatch.parts import ENVIRONMENT, Part, chunk_size
from tumorbatch.scheduler import parse_part

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_MAX": "13"}
SGE = {"SGE_TASK_ID": "2", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "8", "SGE_TASK_STEPSIZE": "1"}


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("3/64", {}, "3/64"),
        (" 1/1 ", SLURM, "1/1"),
        ("auto", SLURM, "3/9"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "5"}, "2/5"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "9"}, "3/9"),
        ("auto/20", SLURM, "7/20"),
        ("auto/4", {"PBS_ARRAY_INDEX": "4"}, "4/4"),
        ("auto", {"LSB_JOBINDEX": "2", "LSB_JOBINDEX_END": "9"}, "2/9"),
        ("auto", SGE, "2/8"),
        ("auto", {"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0", **SLURM}, "3/9"),
        ("auto/64", {"JOB_COMPLETION_INDEX": "0"}, "1/64"),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "63", "AWS_BATCH_JOB_ARRAY_SIZE": "64"}, "64/64"),
    ],
)
def test_a_part(text: str, environment: dict[str, str], part: str) -> None:
    assert str(parse_part(text, environment)) == part


@pytest.mark.parametrize(
    ("text", "environment", "sentence"),
    [
        ("3", {}, "takes I/N"),
        ("0/4", {}, "numbered from 1"),
        ("5/4", {}, "numbered from 1"),
        ("1/0", {}, "numbered from 1"),
        ("auto/x", {}, "takes I/N"),
        ("auto", {}, "none of SLURM_ARRAY_TASK_ID"),
        ("auto", {"LSB_JOBINDEX": "0"}, "none of SLURM_ARRAY_TASK_ID"),
        ("auto", {"PBS_ARRAY_INDEX": "4"}, "not of how many"),
        ("auto", {"JOB_COMPLETION_INDEX": "4"}, "not of how many"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "4"}, "not of how many"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "from 0 to 3"),
        ("auto/4", {"PBS_ARRAY_INDEX": "0"}, "from 1 to 4"),
        # sbatch --array=5,7,13: the tasks that are repeated
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "3"}, "without gaps"),
    ],
)
def test_what_is_not_a_part(text: str, environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_part(text, environment)


@pytest.mark.parametrize(("chunks", "count"), [(10, 3), (3, 10), (0, 4), (64, 64), (1, 1)])
def test_the_parts_have_all_chunks_once_in_order(chunks: int, count: int) -> None:
    parts = [Part(number, count).chunks(chunks) for number in range(1, count + 1)]
    assert [chunk for part in parts for chunk in part] == list(range(chunks))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_size_of_chunks_depends_on_the_files_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [chunk_size(files) for files in (1, 10**7, 10**7 + 1)] == [4096, 4096, 65_536]
    monkeypatch.setenv(ENVIRONMENT, "100")
    assert chunk_size(10**8) == 100
    monkeypatch.setenv(ENVIRONMENT, "-1")
    with pytest.raises(ConfigError, match=ENVIRONMENT):
        chunk_size(1)
