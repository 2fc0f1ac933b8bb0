"""Broken surroundings for real processes: mounts of their own, full devices, few descriptors."""

import functools
import shutil
import subprocess

import pytest


@functools.cache
def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev/shm"]
    return subprocess.run(command, capture_output=True).returncode == 0


# Evaluated once a session; a decorator for tests.
needs_mounts = pytest.mark.skipif(not _can_mount(), reason="mounting needs `unshare -m` as root")
