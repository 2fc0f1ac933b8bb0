"""The figures for users: from any format, by class, with the right numbers, and without a window."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import classification_report

from tumorbatch import bundle, plots
from tumorbatch.errors import InputError
from tumorbatch.imaging import random_image
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.report import charts, style

if TYPE_CHECKING:
    from tumorbatch.preprocess.explore.survey import Survey

ROOT = Path(__file__).resolve().parent.parent


def shown(figure: Any) -> list[Any]:
    """The images in a figure's axes."""
    return [image.get_array() for axes in figure.axes for image in axes.get_images()]


def texts(figure: Any) -> str:
    """All text in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")))


@pytest.fixture(scope="module")
def seen(sample: Path) -> "Survey":
    return plots.survey(sample, workers=1)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different images in the class folders: 8 and 16 bit, grey and colour, DICOM, and a broken one."""
    from tests.preprocess.dicom.test_stages import dicom_slice

    folder = tmp_path_factory.mktemp("formats")
    random = np.random.default_rng(0)
    for name, dtype, channels in (
        ("Healthy/a.jpg", np.uint8, 3), ("Healthy/b.png", np.uint16, 1),
        ("Healthy/c.tif", np.uint16, 1),
        ("Tumor/d.bmp", np.uint8, 3), ("Tumor/e.webp", np.uint8, 3), ("Tumor/f.png", np.uint8, 4),
    ):  # fmt: skip
        pixels = random.integers(0, np.iinfo(dtype).max, (40, 50, channels)).astype(dtype)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, pixels)[1].tobytes())
    (folder / "Tumor" / "g").write_bytes(dicom_slice(0))
    (folder / "Tumor" / "broken.png").write_bytes(b"no image")
    return folder


def test_an_image_of_any_format_is_shown_as_shard_decodes_it(formats: Path) -> None:
    files = [
        path for path in sorted(formats.rglob("*")) if path.is_file() and path.name != "broken.png"
    ]
    assert len(files) == 7
    for path in files:
        (pixels,) = shown(plots.image(path))
        assert np.array_equal(pixels, decode(path.read_bytes()).grey)
    with pytest.raises(InputError, match=r"broken\.png cannot be shown: not a JPEG"):
        plots.image(formats / "Tumor" / "broken.png")
    for no_image in (np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8)):
        with pytest.raises(ValueError, match=r"uint8 \[height, width\]"):
            plots.image(no_image)
    with pytest.raises(ValueError, match="At least one image"):
        plots.image_grid(formats, count=0)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(shown(plots.image(grey, "a ramp"))[0], grey)
    colour = np.stack([grey, grey // 2, 255 - grey], axis=-1)
    assert np.array_equal(shown(plots.image(colour))[0], colour)


def test_a_random_image_is_that_of_the_image_utilities(formats: Path) -> None:
    for seed in range(5):
        path, grey = random_image(formats, seed)
        figure = plots.random_image(formats, seed=seed)
        assert np.array_equal(shown(figure)[0], grey)
        assert texts(figure).splitlines()[-1] == path.name


@pytest.mark.parametrize(("name", "files"), [("Healthy", 3), ("tumor", 4)])
def test_a_grid_of_a_class_shows_each_of_its_images_once(formats: Path, name: str, files: int) -> None:
    figure = plots.image_grid(formats, name, count=10, columns=2, seed=1)
    images = {np.asarray(image).tobytes() for image in shown(figure)}
    assert len(shown(figure)) == len(images) == files
    folder = formats / name.capitalize()
    readable = [path for path in folder.iterdir() if path.name != "broken.png"]
    assert images == {decode(path.read_bytes()).grey.tobytes() for path in readable}
    assert name.capitalize() in texts(figure)
    for seed in range(3):
        (one,) = shown(plots.random_image(formats, name, seed))
        assert np.asarray(one).tobytes() in images


def test_wrong_classes_and_folders_are_refused(formats: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0 or Healthy, 1 or Tumor\. Received: 'cat'"):
        plots.random_image(formats, "cat")
    with pytest.raises(InputError, match="does not exist"):
        plots.random_image(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no image that can be read"):
        plots.image_grid(tmp_path)
    with pytest.raises(InputError, match="is not a model bundle"):
        plots.training_history(tmp_path)


def test_class_distribution_counts_images(sample: Path, shard_set: Path, seen: "Survey") -> None:
    (axes,) = plots.class_distribution(seen).axes
    assert [bar.get_height() for bar in axes.patches] == [48, 48]
    counts = json.loads((shard_set / "dataset.json").read_bytes())["counts"]
    (axes,) = plots.class_distribution(shard_set).axes
    expected = [of[name] for name in ("Healthy", "Tumor") for of in counts.values()]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [48, *expected[:3], 48, *expected[3:]]
    assert [text.get_text().split("\n")[0] for text in axes.get_xticklabels()] == ["all", *counts]


def test_image_properties_show_every_size_once(seen: "Survey") -> None:
    for label, axes in enumerate(plots.image_properties(seen).axes):
        (marks,) = axes.collections
        sizes = {
            (width, height)
            for width, height, of in zip(
                seen.column("width"), seen.column("height"), seen.labels, strict=True
            )
            if of == label
        }
        assert set(map(tuple, np.asarray(marks.get_offsets()).tolist())) == sizes


def test_pixel_intensity_is_the_share_of_pixels(seen: "Survey") -> None:
    for stage, axes in enumerate(plots.pixel_intensity(seen).axes):
        for label, line in enumerate(axes.get_lines()):
            share = np.nan_to_num(line.get_ydata())
            counts = seen.histograms[label, stage]
            assert share == pytest.approx(100 * counts / counts.sum())
            assert share.sum() == pytest.approx(100)


def test_mean_intensity_is_the_share_of_images(seen: "Survey") -> None:
    for axes in plots.mean_intensity(seen).axes:
        assert [patch.get_data().values.sum() for patch in axes.patches] == pytest.approx([100, 100])


def test_survey_refuses_a_folder_without_images(tmp_path: Path) -> None:
    for name in ("Healthy", "Tumor"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match="None of the 2 files"):
        plots.survey(tmp_path, workers=1)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """What a bundle says of its training; no weights."""
    training = {"phases": {"frozen": 2, "fine-tuning": 3}, "best_epoch": 4}
    made = bundle.Bundle(
        "resnet50", Preprocessing(), ("Healthy", "Tumor"), 0.5, 1.0, "0" * 64, training, {}
    )  # fmt: skip
    (tmp_path / bundle.MODEL).write_text(json.dumps(made.to_dict()))
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc")
    history = {
        name: [0.1 * place + 0.02 * epoch for epoch in range(5)] for place, name in enumerate(names)
    }
    (tmp_path / bundle.HISTORY).write_text(json.dumps(history))
    return tmp_path


def test_training_history_is_the_bundles(trained: Path) -> None:
    figure = plots.training_history(trained)
    history = json.loads((trained / bundle.HISTORY).read_bytes())
    loss, accuracy = figure.axes
    for axes, names in (
        (loss, ["loss", "val_loss"]), (accuracy, ["accuracy", "val_accuracy", "val_auc"])
    ):  # fmt: skip
        drawn = [list(line.get_ydata()) for line in axes.get_lines()[: len(names)]]
        assert drawn == [history[name] for name in names]
        assert "epoch 4, kept" in texts(figure)
        assert "fine-tuning" in texts(figure)
    assert "epoch 4, whose validation AUC is the highest" in texts(figure)
    assert style.png(figure)[:4] == b"\x89PNG"


@pytest.mark.parametrize("damage", ["{", "{}", '{"loss": [1]}'])
def test_a_damaged_history_is_a_sentence(trained: Path, damage: str) -> None:
    (trained / bundle.HISTORY).write_text(damage)
    with pytest.raises(InputError, match=r"is missing or damaged: .* Train the model again"):
        plots.training_history(trained)


def test_confusion_matrix_has_scikit_learns_report() -> None:
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 2, (2, 50))
    names = np.array(["Healthy", "Tumor"])
    figure = plots.confusion_matrix(names[truth], predicted, "cnn1, test")
    report = classification_report(truth, predicted, target_names=names, digits=3)
    assert report.rstrip() in texts(figure)
    assert "cnn1, test (n = 50 images)" in texts(figure)
    right = int((truth == predicted).sum())
    ends = stats.binomtest(right, 50).proportion_ci(method="wilson")
    told = f"accuracy, 95 % interval: {right / 50:.3f} ({ends.low:.3f} to {ends.high:.3f}), n = 50"
    assert told in texts(figure)
    for row in (0, 1):
        for column in (0, 1):
            count = int(((truth == row) & (predicted == column)).sum())
            share = count / (truth == row).sum()
            assert f"{count}\n{share:.1%} of {names[row]}" in texts(figure)


def test_confusion_matrix_of_one_class_and_of_none() -> None:
    assert "n = 3 images" in texts(plots.confusion_matrix([1, 1, 1], [1, 0, 1]))
    with pytest.raises(ValueError, match="no predictions"):
        plots.confusion_matrix([], [])
    with pytest.raises(ValueError, match="Received: 2"):
        plots.confusion_matrix([0, 2], [0, 1])
    with pytest.raises(ValueError, match="one prediction for each truth"):
        plots.confusion_matrix([0, 1], [0])


def test_names_are_no_formulas() -> None:
    grey = np.zeros((16, 16), np.uint8)
    figure = charts.image_grid(
        [grey], ["$\\frac{1}{0$ and a very long name indeed.png"] * 1, title="$x^"
    )
    assert style.png(figure)[:4] == b"\x89PNG"


def test_no_window_and_no_setting_is_touched(formats: Path) -> None:
    code = (
        "import sys, matplotlib\n"
        "matplotlib.use('svg'); matplotlib.rcParams['font.size'] = 31\n"
        "from tumorbatch import plots\n"
        f"plots.image_grid({str(formats)!r}, 'Tumor', seed=0)\n"
        "plots.confusion_matrix([0, 1], [1, 1])\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.get_backend(),\n"
        "      matplotlib.rcParams['font.size'], 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["False", "svg", "31.0", "False"], done.stderr
