"""The public Python API: what `__all__` names exists, loads nothing too early, and is documented."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "tumorbatch": "tumorbatch",
    "tumorbatch.evaluation": "tumorbatch/evaluation",
    "tumorbatch.statistics": "tumorbatch/statistics",
    "tumorbatch.workflows": "tumorbatch/workflows",
    "tumorbatch.preprocess": "preprocess",
    "tumorbatch.preprocess.explore": "preprocess/explore",
    "tumorbatch.train": "train",
    "tumorbatch.infer": "infer",
}
MODULES = {"tumorbatch.imaging", "tumorbatch.plots"}  # public as a whole


def _for_type_checkers(package: str) -> set[str]:
    tree = ast.parse((ROOT / PACKAGES[package] / "__init__.py").read_text())
    blocks = [
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node)
    ]
    return {
        alias.asname or alias.name
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists_and_type_checkers_see_it(package: str) -> None:
    module = importlib.import_module(package)
    names = set(module.__all__) - {"__version__"}
    assert all(getattr(module, name) is not None for name in names)
    assert names == _for_type_checkers(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018 - the access is what is tested


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_none_of_its_stages(package: str) -> None:
    heavy = "{'numpy', 'cv2', 'pyarrow', 'scipy', 'sklearn', 'matplotlib', 'keras', 'tensorflow'}"
    source = f"import sys, {package}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package: str) -> None:
    text = (ROOT / "docs/python.md").read_text()
    for name in set(importlib.import_module(package).__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", text), name


def test_the_examples_of_the_documentation_run(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one namespace, in the order of the page, on small images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sample, "data/raw", symlinks=True)
    text = (ROOT / "docs/python.md").read_text()
    source = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    small = source.replace("size=150", "size=32").replace("epochs=20", "epochs=1")
    assert small.count("size=32") == small.count("epochs=1") == 1
    exec(compile(small, "docs/python.md", "exec"), {"__name__": "documentation"})
    assert all(map(Path.exists, map(Path, ("results/cnn1/report.html", "out.parquet", "history.png"))))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebooks_use_public_names_only(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(
        line
        for cell in cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if not line.startswith("%")
    )
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names if alias.name.startswith("tumorbatch")}
            assert names <= {"tumorbatch"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tumorbatch"):
            module = str(node.module)
            assert module in PACKAGES | dict.fromkeys(MODULES)
            public = importlib.import_module(module).__all__
            packages = {name.rpartition(".")[2] for name in PACKAGES}
            assert {alias.name for alias in node.names} <= {*public, *packages}
