"""Dockerfile and apptainer.def: one set of steps, pinned versions, no rights."""

import configparser
import re
from pathlib import Path

from tests.cluster.bare_root import allowed, instructions

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "apptainer.def").read_text()


def _packages(text: str) -> list[str]:
    found = re.search(r"apt-get install -y --no-install-recommends ([^\n\\]*)", text)
    assert found is not None
    return found[1].split()


def _pip(text: str) -> str:
    found = re.search(r"python -m pip install .*", text)
    assert found is not None
    return found[0]


def test_both_do_the_same() -> None:
    assert _packages(DOCKERFILE) == _packages(APPTAINER)
    assert _pip(DOCKERFILE) == _pip(APPTAINER)
    assert "From: debian:bookworm-slim" in APPTAINER
    images = [rest.split()[0] for word, rest in instructions(DOCKERFILE) if word == "FROM"]
    assert images == ["debian:bookworm-slim"] * 2
    for setting in ("KERAS_HOME=/tmp/keras", "MPLCONFIGDIR=/tmp/matplotlib"):
        assert setting in DOCKERFILE
        assert setting in APPTAINER


def test_versions_are_those_of_the_constraints() -> None:
    assert "--constraint constraints.txt" in _pip(DOCKERFILE)
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    for extra in re.findall(r"EXTRAS=([a-z]+)", DOCKERFILE + APPTAINER):
        assert extra in parser["options.extras_require"]


def test_the_user_has_no_rights_and_the_command_is_the_entry() -> None:
    last = [(word, rest) for word, rest in instructions(DOCKERFILE) if word != "RUN"][-4:]
    assert last == [
        ("USER", "1000:1000"), ("WORKDIR", "/data"), ("ENTRYPOINT", '["tumorbatch"]'),
        ("CMD", '["--help"]'),
    ]  # fmt: skip


def test_what_is_copied_is_there_and_is_enough_to_build() -> None:
    names = allowed((ROOT / ".dockerignore").read_text())
    assert all((ROOT / name).exists() for name in names)
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    packages = parser["options"]["package_dir"].split("\n")
    needed = {line.split("=")[1].strip() for line in packages if line}
    needed |= set(parser["metadata"]["license_files"].split())
    assert needed | {"setup.cfg", "setup.py", "pyproject.toml", "README.md"} <= set(names)
