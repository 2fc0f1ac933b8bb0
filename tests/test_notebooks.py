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

# What Jupyter's own code warns of is no concern of this project.
pytestmark = pytest.mark.filterwarnings("ignore")


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def work(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the synthetic images; the notebooks run in it one after the other."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "data").mkdir()
    shutil.copytree(sample, folder / "data" / "raw", symlinks=True)
    (folder / "notebooks").mkdir()
    return folder


def _run(path: Path, work: Path) -> nbformat.NotebookNode:
    """Execute a notebook with small settings put in behind its parameters, as papermill does."""
    notebook = _read(path)
    (at,) = [
        place
        for place, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    ]
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(SMALL))
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(work / "notebooks")}}
    )
    # The kernel is its own process, and shall write nothing into the user's home.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(work / "ipython"))
        patch.setenv("JUPYTER_DATA_DIR", str(work / "jupyter"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(work / "jupyter" / "runtime"))
        client.execute()
    return notebook


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


def test_01_explores(work: Path) -> None:
    notebook = _run(NOTEBOOKS[0], work)
    _check_figures(notebook)
    assert "96 of 101 files can be read" in _printed(notebook)
    assert "one_value_a_group: " in _printed(notebook)
    assert "grouped: accuracy 0." in _printed(notebook)
    assert (work / "results" / "notebook" / "explore.html").is_file()


@pytest.fixture(scope="module")
def second(work: Path) -> nbformat.NotebookNode:
    """Notebook 2, executed: notebook 3 needs its model."""
    return _run(NOTEBOOKS[1], work)


def test_02_trains(work: Path, second: nbformat.NotebookNode) -> None:
    _check_figures(second)
    assert "test: accuracy 0." in _printed(second)
    assert (work / "models" / "cnn1" / "model.json").is_file()


@pytest.mark.usefixtures("second")
def test_03_predicts(work: Path) -> None:
    notebook = _run(NOTEBOOKS[2], work)
    _check_figures(notebook)
    assert "images are called Tumor" in _printed(notebook)
