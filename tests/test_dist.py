"""What `make dist` builds: a source distribution and a wheel that run without the checkout."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import __version__

ROOT = Path(__file__).resolve().parents[1]


def _run(*command: object, **more: object) -> str:
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_make_dist_builds_with_the_build_frontend() -> None:
    assert re.search(r"^dist:.*\n(\t.*\n)*\t.*-m build", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_citation_names_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation
    assert "\nlicense: Apache-2.0\n" in citation
    assert "\ncff-version: 1.2.0\n" in "\n" + citation


def test_the_description_for_a_package_index_has_no_broken_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", told.update)
    for url in ("", "https://example.org/tumorbatch/"):
        monkeypatch.setenv("TUMORBATCH_URL", url)
        runpy.run_path(str(ROOT / "setup.py"))
        links = re.findall(r"\[[^\]]*\]\(([^)]*)\)", told["long_description"])
        assert all(link.startswith("https://") for link in links)
        assert ("https://example.org/tumorbatch/docs/guide.md" in links) == bool(url)
        assert "how far to trust it" in told["long_description"]


@pytest.mark.slow
def test_the_wheel_of_the_source_distribution_runs(tmp_path: Path) -> None:
    """Builds as `make dist` does; the wheel comes from the sdist, which must be complete."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__", "demo")
    shutil.copytree(ROOT, tree, ignore=ignored)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", tree)
    (source,) = (tmp_path / "dist").glob("*.tar.gz")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tumorbatch/native/*.[ch]")}
    needed = {
        "Makefile",
        "constraints.txt",
        "LICENSE",
        "CITATION.cff",
        "CHANGELOG.md",
        "tests/test_dist.py",
    }
    assert needed | native <= names
    assert not [name for name in names if name.endswith((".tfrecord", ".parquet", ".pyc"))]

    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    _run(*pip, "install", "--no-deps", "--no-index", wheel)
    (tmp_path / "empty").mkdir()
    libraries = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(libraries))}
    run = {"cwd": tmp_path / "empty", "env": environment}
    program = tmp_path / "venv" / "bin" / "tumorbatch"
    where = "import tumorbatch.infer; print(tumorbatch.infer.__file__)"
    # -S and PYTHONPATH: the dependencies, but not the editable installation of this checkout.
    assert str(tmp_path / "venv") in _run(
        python, "-S", "-c", f"import site; site.main(); {where}", **run
    )
    assert __version__ in _run(program, "--version", **run)
    _run(program, "sample", "data/raw", "--images", 24, **run)
    assert len(list((tmp_path / "empty" / "data" / "raw").rglob("*.*"))) >= 24
