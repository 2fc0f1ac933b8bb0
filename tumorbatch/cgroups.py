"""The cores and the memory that a job's control groups leave to it.

A scheduler (Slurm, systemd, Kubernetes, Docker) puts a job into its own group, often several
levels deep. Each level has limits, and all of them hold. /proc/self/cgroup names the group: one line
for version 2 ("0::/system.slice/job_7"), one for each controller of version 1 ("4:memory:/job_7").
Both may be mounted at once. Inside a container the path may start above what is mounted there.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")


def core_quota() -> float | None:
    """Return the cores that the groups allow, possibly a fraction; None without a limit."""
    quotas = []
    for folder in _folders("cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))  # ValueError: "max"
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            limit = int((folder / "cpu.cfs_quota_us").read_text())
            if limit > 0:  # -1: none
                quotas.append(limit / int((folder / "cpu.cfs_period_us").read_text()))
    return min((quota for quota in quotas if quota > 0), default=None)


def free_memory() -> int | None:
    """Return the bytes that the groups still allow; None without a limit.

    What a group holds in the page cache of files counts as free: the kernel drops it first.
    """
    free = []
    for folder in _folders("memory"):
        for limit, usage, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.high", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):
                allowed = int((folder / limit).read_text())  # ValueError: "max"
                in_use = int((folder / usage).read_text()) - _statistic(folder, cached)
                free.append(max(0, allowed - max(0, in_use)))
    return min(free, default=None)


def _statistic(folder: Path, name: str) -> int:
    """Return one line of memory.stat, 0 if it is not to be had."""
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process' groups, each with all above it, that have the controller."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        lines = []
    mounts = _mounts()
    yielded = set()
    for line in [*lines, "0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        places = mounts.get(controller if controllers else "", [])
        for mounted, top in [*places, *_usual(controllers, controller)]:
            # A mount may show a part of the tree; the group's path starts at the tree's top.
            inside = group == top or group.startswith(top.rstrip("/") + "/")
            below = group.removeprefix(top) if inside else group
            parts = [part for part in below.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                folder = mounted.joinpath(*parts[:depth])
                if folder not in yielded:
                    yielded.add(folder)
                    yield folder


def _usual(controllers: str, controller: str) -> list[tuple[Path, str]]:
    """Return where a hierarchy is mounted on nearly every machine, as `_mounts`."""
    if not controllers:
        return [(_ROOT, "/"), (_ROOT / "unified", "/")]
    return [(_ROOT / controllers, "/"), (_ROOT / controller, "/")]


def _mounts() -> dict[str, list[tuple[Path, str]]]:
    """Return {controller: [(where it is mounted, which part of its tree is seen there)]}.

    The key of version 2 is "". Format: proc(5), /proc/PID/mountinfo.
    """
    mounts: dict[str, list[tuple[Path, str]]] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MOUNTS.read_text().splitlines():
            fields = line.split()
            kind, _, options = fields[fields.index("-") + 1 :][:3]
            place = (Path(fields[4].replace("\\040", " ")), fields[3])
            if kind == "cgroup2":
                mounts.setdefault("", []).append(place)
            elif kind == "cgroup":
                for name in options.split(","):
                    mounts.setdefault(name, []).append(place)
    return mounts
