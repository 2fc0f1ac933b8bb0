"""The notebooks run from top to bottom, show their figures, and hold no output in git."""

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
SMALL = "SIZE = 32\nEPOCHS = 1\n"
# `%reset` would also take what worker processes look up in the main module.
FORGET = """
for _name in [name for name in globals() if name[0] != "_" and name not in _IPYTHONS]:
    del globals()[_name]
"""
REMEMBER = "_IPYTHONS = set(globals())"

# What Jupyter's own code warns of is no concern of this project.
pytestmark = pytest.mark.filterwarnings("ignore")


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def work(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the synthetic images."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "data").mkdir()
    shutil.copytree(sample, folder / "data" / "raw", symlinks=True)
    (folder / "notebooks").mkdir()
    return folder


def _read_small(path: Path) -> nbformat.NotebookNode:
    """Read a notebook, with small settings put in behind its parameters, as papermill does."""
    notebook = _read(path)
    (at,) = [
        place
        for place, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    ]
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(SMALL))
    return notebook


@pytest.fixture(scope="module")
def executed(work: Path) -> list[nbformat.NotebookNode]:
    """The notebooks, executed one after the other: 3 needs the model of 2.

    In one kernel that forgets all names in between: to load TensorFlow takes longer than a notebook.
    """
    notebooks = [_read_small(path) for path in NOTEBOOKS]
    whole = nbformat.v4.new_notebook(
        metadata=notebooks[0].metadata, cells=[nbformat.v4.new_code_cell(REMEMBER)]
    )
    for notebook in notebooks:
        whole.cells += [*notebook.cells, nbformat.v4.new_code_cell(FORGET)]
    client = nbclient.NotebookClient(
        whole, timeout=300, resources={"metadata": {"path": str(work / "notebooks")}}
    )
    # The kernel is its own process, and shall write nothing into the user's home.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(work / "ipython"))
        patch.setenv("JUPYTER_DATA_DIR", str(work / "jupyter"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(work / "jupyter" / "runtime"))
        client.execute()
    return notebooks  # whose cells were executed


def _check_figures(notebook: nbformat.NotebookNode) -> None:
    """Cells that end in a call of `plots` show one figure, and no cell prints a warning."""
    figures = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        last = cell.source.splitlines()[-1]
        wanted = last.startswith("plots.")
        assert pictures == wanted, cell.source
        figures += pictures
        assert "Traceback" not in str(cell.outputs)
    assert figures


def _printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stdout"
    )


def test_the_notebooks_are_these() -> None:
    assert NAMES == ["01_explore", "02_model", "03_inference"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_no_output_is_stored(path: Path) -> None:
    notebook = _read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert len(path.read_bytes()) < 20_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_code_is_short_and_public(path: Path) -> None:
    for cell in _read(path).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 10
            assert not [word for word in cell.source.split("tumorbatch.")[1:] if word.startswith("_")]


def test_01_explores(work: Path, executed: list[nbformat.NotebookNode]) -> None:
    _check_figures(executed[0])
    assert "96 of 101 files can be read" in _printed(executed[0])
    assert "one_value_a_group: " in _printed(executed[0])
    assert "grouped: accuracy 0." in _printed(executed[0])
    assert (work / "results" / "notebook" / "explore.html").is_file()


def test_02_trains(work: Path, executed: list[nbformat.NotebookNode]) -> None:
    _check_figures(executed[1])
    assert "test: accuracy 0." in _printed(executed[1])
    assert (work / "models" / "cnn1" / "model.json").is_file()


def test_03_predicts(executed: list[nbformat.NotebookNode]) -> None:
    _check_figures(executed[2])
    assert "images are called Tumor" in _printed(executed[2])
