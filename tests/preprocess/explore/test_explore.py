"""`explore`: what it finds is what is there, and its folder is whole or absent."""

import errno
import html
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from tests.preprocess.hostile import write_corpus
from tests.preprocess.sets import by_path, content_of, write_file
from tumorbatch import json_reader
from tumorbatch.copies import KINDS
from tumorbatch.errors import ConfigError, ExitCode, InputError, OutputError, TryAgainError
from tumorbatch.files import find_files
from tumorbatch.lock import output_lock
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.explore import metadata, statistics
from tumorbatch.preprocess.explore import survey as module
from tumorbatch.preprocess.explore.explore import Config, run
from tumorbatch.preprocess.pixels import equalize
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.report import charts, style
from tumorbatch.status import FileError, Status
from tumorbatch.workers import ordered_map

if TYPE_CHECKING:
    from tests.conftest import Invoke
    from tests.preprocess.conftest import Build

ROOT = Path(__file__).resolve().parents[3]
PICTURES = {
    "class_counts.png", "image_sizes.png", "samples_healthy.png", "samples_tumor.png",
    "grey_values.png", "image_means.png", "clahe.png", "duplicates.png", "copies.png",
}  # fmt: skip


def serial(
    function: Callable[[Sequence[Any]], list[Any]],
    chunks: Iterable[Sequence[Any]],
    workers: int,
    on_loss: Callable[[Any, FileError], Any],
    seconds: float,
) -> Iterator[list[Any]]:
    """`ordered_map` in this process; a file called killer.png kills its worker."""
    for chunk in chunks:
        results = []
        for item in chunk:
            killer = getattr(item, "file", item).name.endswith("killer.png")
            error = FileError(Status.DECODER_CRASH, "the process that decoded it was killed")
            results += [on_loss(item, error)] if killer else function([item])
        yield results


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker processes, no figures, few trees and resamples: `explored` has what takes time."""
    monkeypatch.setattr(module, "ordered_map", serial)
    monkeypatch.setattr(style, "png", lambda _: b"not drawn")
    for name in ("class_counts", "image_sizes", "image_grid", "pixel_intensity", "image_means"):
        monkeypatch.setattr(charts, name, lambda *_, **__: None)
    monkeypatch.setattr(metadata, "TREES", 5)
    monkeypatch.setattr(statistics, "RESAMPLES", 50)


@pytest.fixture
def in_workers(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with real worker processes."""
    monkeypatch.setattr(module, "ordered_map", ordered_map)


COMMAND = """
import sys
from tumorbatch.cli.main import main
try:
    main(["explore", *sys.argv[1:], "--workers", "2", "--quiet"])
except SystemExit as end:
    print(end.code, "tensorflow" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""


@pytest.fixture(scope="module")
def by_the_command(
    sample: Path, shard_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The sample, explored by the command's defaults in its own process; and what that said."""
    out = tmp_path_factory.mktemp("explored") / "results" / "explore"
    arguments = [sample, "--out", out, "--tfrecords", shard_set]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def explored(by_the_command: tuple[Path, str]) -> Path:
    """Its folder. Do not change it."""
    return by_the_command[0]


@pytest.fixture(scope="module")
def found(explored: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((explored / "explore.json").read_bytes())
    return value


@pytest.fixture
def source(tmp_path: Path, build: "type[Build]") -> Path:
    """Six small images of each class: two of Tumor are copies."""
    folder = tmp_path / "raw"
    for label, name in enumerate(("Healthy", "Tumor")):
        for number in range(6):
            grey = build.smooth(40 + number, 48, 100 * label + number)
            write_file(folder / name / f"{number}.png", build.png(grey))
    shutil.copy(folder / "Tumor" / "0.png", folder / "Tumor" / "copy.png")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "explore"


def read(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "explore.json").read_bytes())
    return value


# --- what it finds --------------------------------------------------------------------------------


def test_files_classes_and_formats_are_those_of_the_manifest(
    found: dict[str, Any], shard_set: Path
) -> None:
    rows = by_path(shard_set).values()
    good = [row for row in rows if row["width"]]
    assert found["files"]["found"] == len(rows)
    assert found["files"]["ok"] == len(good)
    assert found["classes"] == {
        name: sum(row["class"] == name for row in good) for name in ("Healthy", "Tumor")
    }
    for column in ("format", "bit_depth", "channels"):
        for value, of in found["images"][column].items():
            for name, count in of.items():
                assert count == sum(str(row[column]) == value and row["class"] == name for row in good)
    assert found["images"]["width"]["mean"] == pytest.approx(np.mean([row["width"] for row in good]))
    assert found["images"]["height"]["maximum"] == max(row["height"] for row in good)
    assert found["images"]["sizes"] == len({(row["width"], row["height"]) for row in good})
    assert {row["path"]: (row["status"], row["error"]) for row in found["bad_files"]} == {
        row["path"]: (row["status"], row["error"]) for row in rows if not row["width"]
    }


def test_grey_values_are_those_of_every_pixel(found: dict[str, Any], sample: Path) -> None:
    for folder, name in (("Healthy", "Healthy"), ("Brain Tumor", "Tumor")):
        before, after = [], []
        for file in find_files(sample / folder):
            try:
                grey = decode(Path(file.path).read_bytes()).grey
            except (FileError, OSError):
                continue
            before.append(grey)
            after.append(equalize(grey, Preprocessing()))
        for version, images in (("before", before), ("after", after)):
            pixels = np.concatenate([image.ravel() for image in images])
            assert found["histograms"][version][name] == np.bincount(pixels, minlength=256).tolist()
            assert found["grey_values"][version][name] == pytest.approx(
                {
                    "pixels": pixels.size,
                    "mean": pixels.mean(dtype=np.float64),
                    "median": np.median(pixels),
                    "standard_deviation": pixels.std(dtype=np.float64),
                    "minimum": pixels.min(),
                    "maximum": pixels.max(),
                }
            )
            means = [image.mean(dtype=np.float64) for image in images]
            of = found["image_means"][version][name]
            assert (of["n"], of["mean"]) == (len(means), pytest.approx(np.mean(means)))
            assert of["median"] == pytest.approx(np.median(means))


def test_tests_name_their_numbers(found: dict[str, Any]) -> None:
    for version in ("before", "after"):
        every, once = (
            found["image_means"][version][key] for key in ("all_images", "one_value_a_group")
        )
        assert every["shapiro_wilk"]["healthy"]["n"] == found["classes"]["Healthy"]
        groups = sum(once["shapiro_wilk"][name]["n"] for name in ("healthy", "tumor"))
        assert groups == found["duplicates"]["groups"] < found["files"]["ok"]
        for test in (every, once):
            low, high = test["effect"]["interval_95"]
            assert low < test["effect"]["value"] < high
            assert 0 <= test["p_value"] <= 1


def test_duplicates_are_those_of_the_shard_set(found: dict[str, Any], shard_set: Path) -> None:
    dataset = json.loads((shard_set / "dataset.json").read_bytes())
    of = found["duplicates"]
    kinds = [f"copies_{kind}" for kind in KINDS]
    for name in (
        "groups",
        "largest_group",
        "byte_identical",
        "pixel_identical",
        "near_duplicate",
        *kinds,
    ):
        assert of[name] == dataset["groups"][name]
    sizes = {int(size): count for size, count in of["groups_of_each_size"].items()}
    assert sum(sizes.values()) == of["groups"]
    assert sum(size * count for size, count in sizes.items()) == found["files"]["ok"]
    assert of["images_with_a_copy"] == found["files"]["ok"] - sizes[1]
    assert of["largest"][0]["images"] == max(sizes) == len(found["samples"]["largest_group"])
    assert found["splits"]["counts"] == dataset["counts"]
    assert found["splits"]["source_images_in_it"] == found["files"]["ok"]
    assert found["splits"]["its_images_not_in_source"] == 0


def test_pairs_of_copies_are_of_one_group(found: dict[str, Any], shard_set: Path) -> None:
    rows = by_path(shard_set)
    pairs = found["samples"]["copies"]
    assert len(pairs) % 2 == 0 < len(pairs)
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        assert first != second
        assert rows[first]["duplicate_group"] == rows[second]["duplicate_group"]
        assert "altered" in (rows[first]["copy_kind"], rows[second]["copy_kind"])


def test_the_page_and_the_figures_are_there(explored: Path, found: dict[str, Any]) -> None:
    names = {path.name for path in explored.iterdir()}
    assert names == {*PICTURES, "explore.html", "explore.json"}
    assert set(found["figures"]) == PICTURES
    text = (explored / "explore.html").read_text()
    assert text.count("<img ") == len(PICTURES)
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,|#)', text)
    assert "<script" not in text
    for row in found["bad_files"]:
        assert html.escape(row["path"]) in text
        assert html.escape(row["error"]) in text
    for name, count in found["classes"].items():
        assert f"{count} {name}" in text


def test_samples_are_of_their_class_and_differ(found: dict[str, Any]) -> None:
    for name, folder in (("healthy", "Healthy/"), ("tumor", "Brain Tumor/")):
        paths = found["samples"][name]
        assert len(paths) == len(set(paths)) == 18
        assert all(path.startswith(folder) for path in paths)


@pytest.mark.usefixtures("quick")
def test_both_classes_of_one_group_are_told(source: Path, out: Path) -> None:
    shutil.copy(source / "Tumor" / "1.png", source / "Healthy" / "twin.png")
    run(source, out, Config())
    of = read(out)["duplicates"]
    assert (of["pixel_identical_under_both_classes"], of["groups_with_both_classes"]) == (2, 1)
    (group,) = of["with_both_classes"]
    assert group["first"] == {"Healthy": "Healthy/twin.png", "Tumor": "Tumor/1.png"}
    assert (group["images"], group["different_files"]) == (2, 1)
    assert "are in both classes" in (out / "explore.html").read_text()


@pytest.mark.usefixtures("quick")
def test_copies_that_decide_a_test_are_told(out: Path, tmp_path: Path) -> None:
    # Of different images Tumor is the darker; the one bright one of Tumor lies there in many copies.
    random = np.random.default_rng(0)
    for number in range(8):
        for name, level in (("Healthy", 100), ("Tumor", 60)):
            grey = random.integers(level, level + 20 + number, (40, 40), np.uint8)
            write_file(
                tmp_path / "raw" / name / f"{number}.png", cv2.imencode(".png", grey)[1].tobytes()
            )
    bright = cv2.imencode(".png", random.integers(180, 250, (40, 40), np.uint8))[1].tobytes()
    for number in range(30):
        write_file(tmp_path / "raw" / "Tumor" / f"copy{number}.png", bright)
    means = run(tmp_path / "raw", out, Config()).findings["image_means"]["before"]
    assert means["all_images"]["effect"]["value"] > 0 > means["one_value_a_group"]["effect"]["value"]
    assert "Copies decide: before CLAHE" in (out / "explore.html").read_text()


@pytest.mark.usefixtures("quick")
def test_hostile_names_are_text(source: Path, out: Path, build: "type[Build]") -> None:
    name = "<img src=x onerror=alert(1)> $\\frac{1}{0}$ \u202egnp.png"
    write_file(source / "Healthy" / name, build.png(build.smooth(40, 40, 7)))
    write_file(source / "Healthy" / f"0 {name}", build.png(build.smooth(40, 40, 7)))
    write_file(source / "Tumor" / f"cut {name}", b"no image")
    run(source, out, Config())
    text = (out / "explore.html").read_text()
    assert "<img src=x" not in text
    assert "\u202e" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") == 2  # the first of its group; the bad one


@pytest.mark.usefixtures("in_workers")
def test_every_hostile_file_is_listed(source: Path, out: Path, build: "type[Build]") -> None:
    expected = {f"Tumor/{name}": of for name, of in write_corpus(source / "Tumor", build).items()}
    report = run(source, out, Config(workers=2))
    assert report.errors == len(expected) >= 60
    bad = {row["path"]: row for row in read(out)["bad_files"]}
    assert {path: row["status"] for path, row in bad.items()} == expected
    assert all(row["error"] for row in bad.values())
    assert report.findings["classes"] == {"Healthy": 6, "Tumor": 7}


@pytest.mark.usefixtures("quick")
def test_a_file_that_kills_its_worker_is_listed(source: Path, out: Path, build: "type[Build]") -> None:
    write_file(source / "Healthy" / "killer.png", build.png(build.smooth(40, 40, 7)))
    report = run(source, out, Config())
    assert report.errors == 1
    assert read(out)["bad_files"] == [
        {
            "path": "Healthy/killer.png",
            "class": "Healthy",
            "status": "decoder_crash",
            "error": "the process that decoded it was killed",
        }
    ]


@pytest.mark.usefixtures("quick")
def test_a_class_without_readable_images_is_no_crash(source: Path, out: Path) -> None:
    for path in (source / "Tumor").iterdir():
        path.write_bytes(b"")
    report = run(source, out, Config())
    assert report.findings["classes"] == {"Healthy": 6, "Tumor": 0}
    assert report.findings["metadata"]["grouped"] is None
    assert report.findings["image_means"]["before"]["all_images"]["test"] is None
    text = (out / "explore.html").read_text()
    assert "Not tested where a class has fewer than three images" in text
    assert {"samples_tumor.png", "duplicates.png"} & {path.name for path in out.iterdir()} == set()


@pytest.mark.usefixtures("quick")
def test_one_image_of_each_class_is_enough(source: Path, out: Path) -> None:
    for folder in source.iterdir():
        for path in folder.glob("[1-9c]*.png"):
            path.unlink()
    assert run(source, out, Config()).findings["classes"] == {"Healthy": 1, "Tumor": 1}


@pytest.mark.usefixtures("quick")
def test_a_leaky_split_is_called_so(sample: Path, tmp_path: Path, out: Path) -> None:
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.preprocess.shard import run as shard

    leaky = tmp_path / "leaky"
    shard(sample, leaky, ShardConfig(Preprocessing(size=32), split_by="file", workers=1))
    assert run(sample, out, Config(tfrecords=leaky)).findings["splits"]["leaky"]
    assert "This split is leaky" in (out / "explore.html").read_text()


@pytest.mark.usefixtures("quick")
def test_another_sets_splits_are_seen_to_be_anothers(source: Path, shard_set: Path, out: Path) -> None:
    run(source, out, Config(tfrecords=shard_set))
    splits = read(out)["splits"]
    assert splits["source_images_in_it"] == 0
    assert splits["its_images_not_in_source"] > 80
    page = (out / "explore.html").read_text()
    assert "It was made of other images: splits are not shown" in page
    assert ">train<" not in page
    with pytest.raises(InputError, match="is not there"):
        run(source, out, Config(tfrecords=source / "nowhere"))


@pytest.mark.usefixtures("quick")
def test_splits_are_counted_of_the_images_that_are_here(
    sample: Path, shard_set: Path, tmp_path: Path, out: Path
) -> None:
    """Against the manifest; a file that was changed since is none of the set's."""
    source = Path(shutil.copytree(sample, tmp_path / "raw"))
    rows = [row for row in by_path(shard_set).values() if row["split"]]
    gone, changed = rows[0], next(row for row in rows[1:] if row["format"] == "png")
    (source / gone["path"]).unlink()
    with (source / changed["path"]).open("ab") as file:
        file.write(b"more")
    run(source, out, Config(tfrecords=shard_set))
    splits = read(out)["splits"]
    expected = {split: {"Healthy": 0, "Tumor": 0} for split in ("train", "validation", "test")}
    for row in rows:
        if row not in (gone, changed):
            expected[row["split"]][row["class"]] += 1
    assert splits["counts"] == expected
    assert splits["source_images_in_it"] == len(rows) - 2
    assert splits["its_images_not_in_source"] == 2
    assert "It was made before the images changed" in (out / "explore.html").read_text()


@pytest.mark.usefixtures("quick")
def test_a_flipped_bit_in_the_manifest_is_found(source: Path, shard_set: Path, out: Path) -> None:
    name = os.fsdecode(b"tf\xe9")
    tfrecords = Path(shutil.copytree(shard_set, out.parent.parent / name))
    run(source, out, Config(tfrecords=tfrecords))  # a name that is not UTF-8
    path = tfrecords / "manifest.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"manifest\.parquet is (missing or )?damaged"):
        run(source, out, Config(tfrecords=tfrecords))


@pytest.mark.usefixtures("quick")
def test_images_of_dicom_files_are_for_the_owner_alone(source: Path, out: Path) -> None:
    from tests.preprocess.dicom.test_stages import NAME, PATIENT, dicom_slice

    run(source, out, Config())
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in out.iterdir()} != {0}
    (source / "Healthy" / "cut").write_bytes(dicom_slice(9)[:-1000])
    run(source, out, Config())
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    (source / "Healthy" / "cut").unlink()
    for number in range(3):
        (source / "Healthy" / f"slice{number}").write_bytes(dicom_slice(number))
    report = run(source, out, Config())
    assert report.findings["images"]["format"]["dicom"]["Healthy"] == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    told = (out / "explore.html").read_text() + (out / "explore.json").read_text()
    assert NAME not in told
    assert PATIENT not in told


# --- how it behaves -------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_workers")
def test_any_number_of_workers_gives_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "one", Config(workers=1))
    monkeypatch.setattr(module, "CHUNK", 2)
    run(source, tmp_path / "three", Config(workers=3))
    assert content_of(tmp_path / "three") == content_of(tmp_path / "one")


@pytest.mark.usefixtures("quick")
def test_the_seed_changes_the_samples_and_not_the_data(sample: Path, tmp_path: Path) -> None:
    run(sample, tmp_path / "one", Config(seed=1))
    run(sample, tmp_path / "two", Config(seed=2))
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    assert one["samples"]["tumor"] != two["samples"]["tumor"]
    assert one["histograms"] == two["histograms"]


@pytest.mark.usefixtures("quick")
def test_a_changed_source_replaces_the_result(source: Path, out: Path) -> None:
    run(source, out, Config())
    (source / "Tumor" / "copy.png").unlink()
    assert "duplicates.png" in {path.name for path in out.iterdir()}
    run(source, out, Config())
    assert read(out)["classes"]["Tumor"] == 6
    assert "duplicates.png" not in {path.name for path in out.iterdir()}
    assert [path.name for path in out.parent.iterdir()] == ["explore"]


@pytest.mark.usefixtures("quick")
def test_the_same_images_by_another_path_and_a_new_shard_set_are_no_other_settings(
    source: Path, shard_set: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, out, Config())
    monkeypatch.chdir(source.parent)
    run(Path(source.name), out, Config(tfrecords=shard_set))
    assert read(out)["settings"]["source"] == source.name
    with pytest.raises(ConfigError, match="source:"):
        run(Path(shutil.copytree(source, source.parent / "other")), out, Config())


@pytest.mark.usefixtures("quick")
def test_a_result_behind_a_link_is_replaced_behind_it(source: Path, out: Path, tmp_path: Path) -> None:
    out.parent.mkdir(parents=True)
    (tmp_path / "scratch").mkdir()
    out.symlink_to(tmp_path / "scratch")
    for _ in range(2):
        run(source, out, Config())
        assert out.is_symlink()
        assert (tmp_path / "scratch" / "explore.json").is_file()


@pytest.mark.usefixtures("quick")
def test_a_result_that_the_disk_does_not_give_is_nobody_elses(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, out, Config())
    before = content_of(out)

    def failing(path: Path, *_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(json_reader, "read_regular", failing)
        with pytest.raises(OSError, match="Input/output error"):
            run(source, out, Config())
    assert content_of(out) == before


@pytest.mark.usefixtures("quick")
def test_other_settings_need_overwrite(source: Path, out: Path) -> None:
    run(source, out, Config())
    before = content_of(out)
    other = Preprocessing(clahe_clip=4.0)
    with pytest.raises(ConfigError, match=r"clahe_clip: 2\.0 there, 4\.0 now.* or --overwrite"):
        run(source, out, Config(other))
    assert content_of(out) == before
    run(source, out, Config(other, overwrite=True))
    assert read(out)["settings"]["preprocessing"]["clahe_clip"] == 4.0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_never_replaced(source: Path, out: Path, overwrite: bool) -> None:
    write_file(out / "thesis.txt", b"mine")
    with pytest.raises(ConfigError, match=r"holds 'thesis\.txt', which is not from this command"):
        run(source, out, Config(overwrite=overwrite))
    (out / "thesis.txt").unlink()
    run(source, out, Config())
    write_file(out / "notes.txt", b"mine too")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        run(source, out, Config(overwrite=overwrite))
    assert (out / "notes.txt").exists()


@pytest.mark.usefixtures("quick")
def test_litter_in_the_output_folder_is_nothing(source: Path, out: Path) -> None:
    """Looked at with a file manager, an empty folder is not empty any more."""
    out.mkdir(parents=True)
    for name in ("Thumbs.db", ".DS_Store", "._x"):
        (out / name).write_bytes(b"litter")
    for path in source.glob("*/*"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="can be read"):  # the folder was accepted
        run(source, out, Config(workers=1))


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_done_is_a_sentence(source: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        run(tmp_path / "nowhere", out, Config())
    with pytest.raises(ConfigError, match="cannot be replaced"):
        run(source, Path(), Config())
    with pytest.raises(ConfigError, match="is among the images"):
        run(source, source / "explore", Config())
    with pytest.raises(ConfigError, match="--workers must be at least 1"):
        Config(workers=0)
    write_file(tmp_path / "file", b"")
    with pytest.raises(OutputError, match="Cannot write"):
        run(source, tmp_path / "file" / "out", Config())
    out.parent.mkdir(parents=True)
    with (
        output_lock(out, out.with_name(".explore.lock")),
        pytest.raises(TryAgainError, match="in use by"),
    ):
        run(source, out, Config())
    for path in source.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"None of the 13 files .* \(13 empty\)"):
        run(source, out, Config())
    assert not out.exists()


@pytest.mark.usefixtures("quick")
def test_a_full_disk_leaves_the_result_as_it_was(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorbatch.preprocess.explore import explore

    run(source, out, Config())
    before = content_of(out)
    (source / "Tumor" / "copy.png").unlink()

    def full(path: Path, *_: Any) -> None:
        raise OutputError(f"Cannot write {path}: No space left on device.")

    monkeypatch.setattr(explore, "write_json", full)
    with pytest.raises(OutputError):
        run(source, out, Config())
    assert content_of(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["explore"]


@pytest.mark.usefixtures("quick")
def test_the_command_prints_what_matters_and_exits_3(
    invoke: "Invoke", sample: Path, shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shard_set, tmp_path / "tfrecords")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "raw").symlink_to(sample)
    monkeypatch.chdir(tmp_path)
    code, output = invoke("explore", "--workers", 1)
    assert code == ExitCode.SOME_ERRORS
    assert "Found 101 files: 48 Healthy, 48 Tumor; rejected:" in output
    assert "Height, width and format alone predict the class of" in output
    assert "Open results/explore/explore.html" in output
    assert read(tmp_path / "results" / "explore")["splits"]["folder"] == "tfrecords"
    code, output = invoke("explore", "--quiet", "--seed", 1)
    assert code == ExitCode.USAGE
    assert "made with other settings (seed: 0 there, 1 now)" in output


def test_a_signal_publishes_nothing_and_exits_75(source: Path, out: Path) -> None:
    for number in range(400):
        for name in ("Healthy", "Tumor"):
            (source / name / f"link{number}.png").symlink_to(source / name / "1.png")
    command = [sys.executable, "-m", "tumorbatch", "explore", source, "--out", out, "--workers", "1"]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        lock = out.parent / ".explore.lock"
        while not (lock.exists() and lock.read_text()):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (ExitCode.TRY_AGAIN, "")
    assert "Interrupted (SIGTERM). Nothing was published" in stderr
    assert "Traceback" not in stderr
    assert list(out.parent.iterdir()) == []


def test_explore_loads_no_tensorflow(by_the_command: tuple[Path, str]) -> None:
    assert by_the_command[1] == "3 False False\n"
