"""Run the steps of the Dockerfile without Docker: in a bare Debian root that debootstrap makes.

    sudo unshare --mount python tests/cluster/bare_root.py FOLDER [EXTRAS]

Both stages begin with such a root, as they do with `debian:bookworm-slim`. At the end the command works
as the user of the image: it makes images and a shard set.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the machine, and not the image, must know: how it reaches the package index.
_HOST = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, rest) of each line of a Dockerfile, continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word.isupper()]


def allowed(text: str) -> list[str]:
    """Return the names that .dockerignore, which begins with `*`, lets through."""
    return [line[1:] for line in text.splitlines() if line.startswith("!")]


def _chroot(root: Path, command: str, environment: dict[str, str], user: str, folder: str) -> None:
    print("+", command, flush=True)
    chroot = shutil.which("chroot") or "chroot"
    subprocess.run(
        [chroot, f"--userspec={user}", str(root), "/bin/sh", "-ec", f"cd {folder}; {command}"],
        check=True, env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", **environment},
    )  # fmt: skip


def _bare(root: Path, pristine: Path) -> None:
    subprocess.run(["cp", "-a", str(pristine), str(root)], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    shared = ("mount", "-t", "tmpfs", "-o", "mode=1777,size=64m", "tmpfs", str(root / "dev" / "shm"))
    subprocess.run(shared, check=True)  # as in a container


def _copy_host_files(root: Path) -> None:
    for name in _HOST:
        target = root / name.removeprefix("/")
        if Path(name).is_dir():
            shutil.copytree(name, target, dirs_exist_ok=True)
        elif Path(name).exists():
            shutil.copy(name, target)


def run(folder: Path, extras: str) -> None:
    """Run all steps of both stages in `folder`."""
    pristine = folder / "pristine"
    if not pristine.exists():
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(pristine)], check=True)
    index = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    environment, user, work, stages = {"EXTRAS": extras, **index}, "0:0", "/", []
    for word, rest in instructions((ROOT / "Dockerfile").read_text()):
        if word == "FROM":
            stages.append(folder / f"stage{len(stages)}")
            shutil.rmtree(stages[-1], ignore_errors=True)
            _bare(stages[-1], pristine)
            user, work = "0:0", "/"
        elif word == "RUN":
            _copy_host_files(stages[-1])  # each time: packages replace certificates
            _chroot(stages[-1], rest, environment, user, work)
        elif word == "WORKDIR":
            work = rest
            (stages[-1] / rest.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            user = rest
        elif word == "ENV":
            pairs = dict(pair.split("=", 1) for pair in rest.split())
            environment |= {k: v.replace("$PATH", "/usr/bin:/bin") for k, v in pairs.items()}
        elif word == "COPY" and rest == ". .":
            for name in allowed((ROOT / ".dockerignore").read_text()):
                subprocess.run(["cp", "-rL", str(ROOT / name), f"{stages[-1]}{work}/"], check=True)
        elif word == "COPY":
            source, target = rest.split()[-2:]
            subprocess.run(["cp", "-a", f"{stages[0]}{source}", f"{stages[-1]}{target}"], check=True)
    (stages[-1] / "data").chmod(0o777)
    for command in (
        "id -u", "tumorbatch --version", "tumorbatch sample raw --images 40",
        "tumorbatch shard raw tfrecords --size 64 || [ $? -eq 3 ]",
        "tumorbatch train --arch cnn1 tfrecords --epochs 1 --batch-size 8 --quiet",
        "tumorbatch infer raw out.parquet --part 1/1 || [ $? -eq 3 ]",
        "tumorbatch infer raw out.parquet || [ $? -eq 3 ]",
    ):  # fmt: skip
        _chroot(stages[-1], command, environment, user, work)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
