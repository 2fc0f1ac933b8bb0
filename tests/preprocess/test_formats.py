"""`--formats`: which decoders may run, in every stage that decodes; and every output remembers it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.preprocess.dicom.test_decode import make
from tests.preprocess.sets import SIZE, by_path, small_config, write_file
from tests.preprocess.test_bmp_webp import bmp, webp
from tests.preprocess.test_nifti import volume
from tumorbatch import shardset
from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.errors import ConfigError, ExitCode
from tumorbatch.files import find_files
from tumorbatch.infer import worker
from tumorbatch.infer.config import Config as InferConfig
from tumorbatch.infer.target import Target
from tumorbatch.preprocess import equalize_folder, shard
from tumorbatch.preprocess.classes import find_sources
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.explore import explore, survey
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError, Status

if TYPE_CHECKING:
    from tests.conftest import Invoke
    from tests.preprocess.conftest import Build

pytestmark = pytest.mark.usefixtures("in_process")

HOW = Preprocessing(size=SIZE)
NOT_TIFF = tuple(name for name in IMAGE_FORMATS if name != "tiff")
REASON = "its format is tiff; --formats allows jpeg, png, bmp, webp, dicom, nifti"


@pytest.fixture(scope="module")
def images(build: "type[Build]") -> dict[str, bytes]:
    """{format: a file}."""
    grey, colour = build.smooth(40, 48, 1), build.colour(40, 48, 2)
    return {
        "jpeg": build.encode(".jpg", colour),
        "png": build.png(grey),
        "tiff": build.tiff(grey),
        "bmp": bmp(colour, 24),
        "webp": webp(colour),
        "dicom": make(grey.astype(np.uint16) * 16, 12),
        "nifti": volume(grey.T[:, :, None]),
    }


@pytest.fixture
def source(images: dict[str, bytes], build: "type[Build]", tmp_path: Path) -> Path:
    """Class folders with a TIFF file among PNG files."""
    for label in ("Healthy", "Tumor"):
        for seed in range(6):
            data = build.png(build.smooth(40, 48, 10 * len(label) + seed))
            write_file(tmp_path / "raw" / label / f"{seed}.png", data)
    write_file(tmp_path / "raw" / "Healthy" / "named as.png", images["tiff"])
    return tmp_path / "raw"


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_a_decoder_runs_only_if_its_format_is_allowed(name: str, images: dict[str, bytes]) -> None:
    if name == "nifti":
        pytest.importorskip("nibabel", reason="of the extra nifti")
    assert decode(images[name], formats=(name,)).header.format == name
    others = [other for other in IMAGE_FORMATS if other != name]
    head = 400 if name == "nifti" else 140  # that of NIfTI ends with the mark of its format
    for data in (images[name], images[name][:head]):  # of a cut one, not even the header is read
        with pytest.raises(FileError) as caught:
            decode(data, formats=others)
        assert caught.value.status == Status.UNSUPPORTED
        expected = f"its format is {name}; --formats allows {', '.join(others)}"
        assert caught.value.message == expected


def test_every_stage_that_decodes_gives_the_reason(source: Path, tmp_path: Path) -> None:
    (image,) = (file for file in find_files(source) if file.name.endswith("named as.png"))
    (one,) = (file for file in find_sources(source, {}) if file.file.name == image.name)
    expected = (Status.UNSUPPORTED, REASON)
    (inferred,) = worker.decode_files([worker.Task(image)], HOW, formats=NOT_TIFF)
    assert (inferred.rows[0]["status"], inferred.rows[0]["error"]) == expected
    (looked_at,) = survey.look_at_files([one], HOW, b"secret", 60, NOT_TIFF)
    assert (looked_at.row["status"], looked_at.row["error"]) == expected
    assert survey.make_thumbnails([one], HOW, 16, 60, NOT_TIFF) == [None]
    task = equalize_folder._Task(image, str(tmp_path / "out.png"))
    (equalized,) = equalize_folder.equalize_files([task], HOW, 60, NOT_TIFF)
    assert (equalized.status, equalized.error) == expected


def test_a_shard_set_remembers_its_formats(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = shard.run(source, out, small_config(formats=NOT_TIFF))
    assert report.dataset.formats == NOT_TIFF
    row = by_path(out)["Healthy/named as.png"]
    assert (row["status"], row["error"]) == (Status.UNSUPPORTED, REASON)
    assert shard.run(source, out, small_config(formats=NOT_TIFF)).unchanged
    with pytest.raises(ConfigError, match=r"formats: .* asked for"):
        shard.run(source, out, small_config())
    with pytest.raises(ConfigError, match=r"formats: .* asked for"):
        shard.run(source, out, small_config(formats=("png",)))
    done = shard.run(source, out, small_config(overwrite=True))
    assert done.dataset.formats == IMAGE_FORMATS
    assert by_path(out)["Healthy/named as.png"]["status"] == Status.OK


def test_a_set_that_does_not_say_its_formats_was_made_of_all(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard.run(source, out, small_config())
    path = out / shardset.DATASET
    value = json.loads(path.read_bytes())
    assert value.pop("formats") == [*IMAGE_FORMATS]
    path.write_text(json.dumps(value))
    assert shard.run(source, out, small_config()).unchanged


def test_all_formats_of_an_earlier_version_mean_all_of_this_one(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = IMAGE_FORMATS[:-1]
    shard.run(source, out, small_config(formats=before))
    assert shard.run(source, out, small_config()).unchanged
    with pytest.raises(ConfigError, match=r"formats: .* asked for"):
        shard.run(source, out, small_config(formats=("png", "tiff")))
    target = Target(tmp_path / "out.parquet", "parquet")
    recorded = {"schema_version": "2", "formats": ",".join(before)}
    target.refuse_no_base(recorded, {"formats": ",".join(IMAGE_FORMATS)})


def test_the_other_outputs_remember_their_formats(source: Path, tmp_path: Path) -> None:
    equalized, explored = tmp_path / "equalized", tmp_path / "explored"
    few = equalize_folder.Config(workers=1, formats=NOT_TIFF)
    assert equalize_folder.run(source, equalized, few).files["unsupported"] == 1
    with pytest.raises(ConfigError, match="made differently"):
        equalize_folder.run(source, equalized, equalize_folder.Config(workers=1))
    explore._refuse_other(explored, {}, False)
    explored.mkdir()
    settings = explore._settings(source, explore.Config(formats=NOT_TIFF))
    for before, refused in ((settings, False), (settings | {"formats": [*IMAGE_FORMATS]}, True)):
        (explored / explore.RESULT).write_text(json.dumps({"figures": [], "settings": before}))
        if refused:
            with pytest.raises(ConfigError, match=r"formats: .* now"):
                explore._refuse_other(explored, settings, False)
        else:
            explore._refuse_other(explored, settings, False)
    target = Target(tmp_path / "out.parquet", "parquet")
    everything = {"formats": ",".join(IMAGE_FORMATS)}
    target.refuse_no_base({"schema_version": "2"}, everything)  # of an earlier version
    with pytest.raises(ConfigError, match="made with another formats"):
        target.refuse_no_base({"schema_version": "2", **everything}, {"formats": "png"})


def test_formats_are_checked(invoke: "Invoke", tmp_path: Path) -> None:
    for config in (shard.Config, equalize_folder.Config, explore.Config, InferConfig):
        for wrong in ((), ("gif",), ("png", "PNG")):
            with pytest.raises(ConfigError, match="--formats takes jpeg, png"):
                config(formats=wrong)  # type: ignore[operator]
    for command in ("shard a b", "infer a b", "explore a", "equalize a b"):
        for wrong in ("gif", "", "png,", "png;jpeg"):
            code, output = invoke(*command.split(), "--formats", wrong)
            assert (code, "is not one of jpeg, png" in output) == (ExitCode.USAGE, True), output
    # Order, case and repetition do not matter: the folder is what is missing.
    code, _ = invoke("shard", tmp_path / "a", tmp_path / "b", "--formats", "PNG, jpeg,png")
    assert code == ExitCode.NO_INPUT
