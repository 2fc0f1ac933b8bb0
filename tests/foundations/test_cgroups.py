"""Cores and memory of a job's own control group: version 1, version 2, nested, in a container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.surroundings import needs_mounts
from tumorbatch import cgroups
from tumorbatch.runtime import available_cores, free_memory

MIB = 1 << 20
JOB = "system.slice/slurmstepd.scope/job_7"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /sys/fs/cgroup, and no group."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    monkeypatch.setattr(cgroups, "_ROOT", folder)
    _belong(tmp_path, monkeypatch, "")
    monkeypatch.setattr(cgroups, "_MOUNTS", tmp_path / "absent")
    return folder


def _belong(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "membership").write_text(text)
    monkeypatch.setattr(cgroups, "_MEMBERSHIP", folder / "membership")


def _write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_without_limits(root: Path) -> None:
    assert (cgroups.core_quota(), cgroups.free_memory()) == (None, None)
    _write(root, cpu__max="max 100000", memory__max="max", memory__current=5)
    assert (cgroups.core_quota(), cgroups.free_memory()) == (None, None)
    assert available_cores() == len(os.sched_getaffinity(0))
    assert (free_memory() or 0) > 0


def test_version_2_every_level_counts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _belong(tmp_path, monkeypatch, f"0::/{JOB}\n")
    _write(root / JOB, cpu__max="max 100000", memory__max=900 * MIB, memory__current=100 * MIB)
    _write(root / JOB, memory__stat=f"anon 5\nfile 7\ninactive_file {60 * MIB}\nslab 1")
    assert cgroups.core_quota() is None
    assert cgroups.free_memory() == 860 * MIB  # the page cache is given back
    _write(root / JOB, cpu__max="150000 100000")
    assert cgroups.core_quota() == 1.5
    assert available_cores() == min(2, len(os.sched_getaffinity(0)))
    # The step's own group allows more than the job's.
    _write((root / JOB).parent, cpu__max="50000 100000", memory__max=600 * MIB)
    _write((root / JOB).parent, memory__current=400 * MIB)
    assert (cgroups.core_quota(), cgroups.free_memory()) == (0.5, 200 * MIB)
    assert (available_cores(), free_memory()) == (1, 200 * MIB)
    _write(root / JOB, memory__current=2000 * MIB)  # above its limit: it is being reclaimed
    assert cgroups.free_memory() == 0


def test_version_1_each_controller_has_its_own_group(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _belong(
        tmp_path, monkeypatch, "5:memory:/slurm/uid_1/job_7\n3:cpu,cpuacct:/jobs/7\n1:name=systemd:/\n"
    )
    _write(root / "cpu,cpuacct/jobs/7", cpu__cfs_quota_us=300_000, cpu__cfs_period_us=100_000)
    _write(root / "cpu,cpuacct", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100_000)
    memory = root / "memory/slurm/uid_1/job_7"
    _write(memory, memory__limit_in_bytes=800 * MIB, memory__usage_in_bytes=300 * MIB)
    _write(memory, memory__stat=f"inactive_file 1\ntotal_inactive_file {100 * MIB}")
    _write(root / "memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=900 * MIB)
    assert (cgroups.core_quota(), cgroups.free_memory()) == (3.0, 600 * MIB)


def test_a_container_sees_its_own_part_of_the_tree(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker on version 1: the path is the host's, and what is mounted begins at it."""
    place = tmp_path / "elsewhere"
    line = f"30 23 0:26 /docker/c0ffee {place} ro,relatime shared:9 - cgroup cgroup rw,memory\n"
    (tmp_path / "mounts").write_text(line)
    monkeypatch.setattr(cgroups, "_MOUNTS", tmp_path / "mounts")
    _belong(tmp_path, monkeypatch, "4:memory:/docker/c0ffee/job\n")
    _write(place, memory__limit_in_bytes=500 * MIB, memory__usage_in_bytes=100 * MIB)
    assert cgroups.free_memory() == 400 * MIB
    _write(place / "job", memory__limit_in_bytes=50 * MIB, memory__usage_in_bytes=10 * MIB)
    assert cgroups.free_memory() == 40 * MIB
    # A group outside of what the namespace shows: "/../..".
    _belong(tmp_path, monkeypatch, "0::/../../job_7\n")
    _write(root, cpu__max="200000 100000")
    assert cgroups.core_quota() == 2.0


def test_nonsense_is_no_limit(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _belong(tmp_path, monkeypatch, "what\n0::\n::\n")
    _write(root, cpu__max="1 0", memory__max="much", memory__current="x")
    assert (cgroups.core_quota(), cgroups.free_memory()) == (None, None)


SAYS = "from tumorbatch.runtime import *; print(available_cores(), free_memory())"


@needs_mounts
def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    script = f"""
mount -t tmpfs none /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/{JOB} && cd /sys/fs/cgroup/{JOB}
echo '100000 100000' > cpu.max; echo {300 * MIB} > memory.max; echo {100 * MIB} > memory.current
echo 0::/{JOB} > {tmp_path}/membership && mount --bind {tmp_path}/membership /proc/$$/cgroup
exec {sys.executable} -c '{SAYS}'
"""
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"1 {200 * MIB}\n", "")
