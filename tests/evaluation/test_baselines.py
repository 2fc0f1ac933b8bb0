"""The baselines: each against an independent computation, on the very images of the shard set."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier

from tumorbatch import shardset, tfrecord
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import InputError
from tumorbatch.evaluation import baselines
from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.baselines import evaluate, nearest_scores, thumbnail
from tumorbatch.tfrecord import ImageRecord

Bytes = NDArray[np.uint8]


@pytest.fixture(scope="module")
def found(shard_set: Path) -> list[Answers]:
    return evaluate(shard_set, seed=0)


def _records(folder: Path, split: str) -> list[ImageRecord]:
    shards = shardset.load(folder).split(split)
    return [ImageRecord.decode(data) for shard in shards for data in tfrecord.read(folder / shard.name)]


def _random(n: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (n, 256), np.uint8)


@pytest.mark.parametrize("external", [False, True])
def test_every_image_once(external: bool, shard_set: Path, found: list[Answers]) -> None:
    """Of the test split; of an external set, all of it."""
    rows = pq.read_table(shard_set / "manifest.parquet").to_pylist()
    splits = SPLITS if external else ("test",)
    expected = {row["path"]: int(row["class"] == "Tumor") for row in rows if row["split"] in splits}
    for baseline in evaluate(shard_set, 0, external=shard_set) if external else found:
        paths, labels, scores = baseline.images.paths, baseline.labels, baseline.scores
        assert len(paths) == len(expected) == len(scores)
        assert dict(zip(paths, labels.tolist(), strict=True)) == expected
        assert (labels.dtype, scores.dtype) == (np.int64, np.float64)
        assert ((scores >= 0) & (scores <= 1)).all()


def test_an_external_image_is_scored_as_one_of_the_test_split(
    shard_set: Path, found: list[Answers]
) -> None:
    for own, other in zip(found, evaluate(shard_set, 0, external=shard_set), strict=True):
        score = dict(zip(other.images.paths, other.scores.tolist(), strict=True))
        assert [score[path] for path in own.images.paths] == own.scores.tolist()


def test_the_majority_is_the_share_of_the_training_split(shard_set: Path, found: list[Answers]) -> None:
    counts = shardset.load(shard_set).counts["train"]
    share = counts["Tumor"] / sum(counts.values())
    assert found[0].name == baselines.MAJORITY
    assert set(found[0].scores) == {share}
    assert f"{share:.3f}" in found[0].description


def test_the_neighbour_is_scikit_learns(shard_set: Path, found: list[Answers]) -> None:
    train, test = (_records(shard_set, split) for split in ("train", "test"))

    def features(images: list[ImageRecord]) -> NDArray[np.float64]:
        pixels = [np.frombuffer(image.pixels, np.uint8).reshape(32, 32) for image in images]
        # 32 to 16 by areas: the mean of each 2 x 2, rounded half to even.
        return np.array([one.reshape(16, 2, 16, 2).mean((1, 3)).round().ravel() for one in pixels])

    rule = KNeighborsClassifier(1).fit(features(train), [image.label for image in train])
    said = dict(zip(found[2].images.paths, found[2].scores >= 0.5, strict=True))
    predicted = rule.predict(features(test))
    assert [said[image.filename] for image in test] == predicted.tolist()
    assert 0 < predicted.sum() < len(test)


def test_scores_are_ratios_of_distances_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    references, queries = _random(40, 1), _random(17, 2)
    labels = np.arange(40) % 2
    distances = cdist(queries.astype(float), references.astype(float))
    healthy, tumor = (distances[:, labels == label].min(axis=1) for label in (0, 1))
    expected = healthy / (healthy + tumor)
    np.testing.assert_allclose(nearest_scores(references, labels, queries), expected, rtol=1e-12)
    monkeypatch.setattr(baselines, "_QUERIES", 5)
    monkeypatch.setattr(baselines, "_REFERENCES", 3)
    np.testing.assert_allclose(nearest_scores(references, labels, queries), expected, rtol=1e-12)


def test_copies_decide_and_a_draw_is_half() -> None:
    references = _random(4, 3)
    labels = np.array([0, 1, 0, 1])
    assert nearest_scores(references, labels, references).tolist() == [0, 1, 0, 1]
    both = np.concatenate([references[:1], references[:1]])
    assert nearest_scores(both, np.array([0, 1]), references[:1]).tolist() == [0.5]


def test_the_largest_distance_is_exact() -> None:
    black, white = np.zeros((1, 256), np.uint8), np.full((1, 256), 255, np.uint8)
    assert baselines._squared_distances(black, white).tolist() == [[256 * 255**2]]
    assert baselines._squared_distances(white, white).tolist() == [[0]]


def test_a_thumbnail_is_a_mean_of_areas() -> None:
    pixels = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 3, 0), 3, 1)
    assert thumbnail(pixels).tolist() == list(range(256))


def _write_manifest(folder: Path, table: pa.Table) -> None:
    """Replace the manifest by one that dataset.json names."""
    pq.write_table(table, folder / "manifest.parquet")
    value = json.loads((folder / "dataset.json").read_text())
    value["manifest_sha256"] = shardset.file_sha256(folder / "manifest.parquet")
    (folder / "dataset.json").write_text(json.dumps(value))


def _with_metadata(source: Path, folder: Path, height: dict[str, int], kind: dict[str, str]) -> Path:
    """A copy whose manifest says other heights and formats, by class; all widths are 100."""
    shutil.copytree(source, folder)
    table = pq.read_table(folder / "manifest.parquet")
    columns = table.to_pydict()
    columns["width"] = [100] * len(table)
    columns["height"] = [height[name] for name in columns["class"]]
    columns["format"] = [kind[name] for name in columns["class"]]
    _write_manifest(folder, pa.table(columns, schema=table.schema))
    return folder


@pytest.mark.parametrize(
    ("height", "kind", "accuracy"),
    [
        ({"Healthy": 64, "Tumor": 65}, {"Healthy": "png", "Tumor": "png"}, 1.0),
        ({"Healthy": 64, "Tumor": 64}, {"Healthy": "png", "Tumor": "tiff"}, 1.0),
        ({"Healthy": 64, "Tumor": 64}, {"Healthy": "png", "Tumor": "png"}, None),
    ],
    ids=["by height", "by format", "nothing to see"],
)
def test_the_forest_sees_size_and_format_and_nothing_else(
    height: dict[str, int],
    kind: dict[str, str],
    accuracy: float | None,
    shard_set: Path,
    tmp_path: Path,
) -> None:
    folder = _with_metadata(shard_set, tmp_path / "tfrecords", height, kind)
    forest = evaluate(folder, seed=0)[1]
    right = (forest.scores >= 0.5) == forest.labels
    if accuracy is None:  # one row of features for all: one score for all
        assert len(set(forest.scores)) == 1
        assert right.mean() < 0.8
    else:
        assert right.mean() == accuracy


def test_a_seed_decides_every_bit(shard_set: Path, found: list[Answers]) -> None:
    for before, again in zip(found, evaluate(shard_set, seed=0), strict=True):
        assert before.scores.tobytes() == again.scores.tobytes()
    other = evaluate(shard_set, seed=1)
    assert found[1].scores.tobytes() != other[1].scores.tobytes()


def _copy_with(source: Path, folder: Path, change: dict[str, bytes]) -> Path:
    """A copy with other bytes in some shards, and dataset.json none the wiser but for the size."""
    shutil.copytree(source, folder)
    described = json.loads((folder / "dataset.json").read_text())
    for shard in described["shards"]:
        if shard["name"] in change:
            shard["bytes"] = len(change[shard["name"]])
            (folder / shard["name"]).write_bytes(change[shard["name"]])
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("kind", ["flipped", "short", "long", "stranger"])
def test_damage_is_named(kind: str, shard_set: Path, tmp_path: Path) -> None:
    shard = shardset.load(shard_set).split("test")[0]
    frames = [tfrecord.frame(data) for data in tfrecord.read(shard_set / shard.name)]
    data = b"".join(frames)
    if kind == "flipped":
        data = bytes((*data[:-20], data[-20] ^ 1, *data[-19:]))
    elif kind == "short":
        data = b"".join(frames[:-1])
    elif kind == "long":
        data += frames[0]
    else:
        stranger = ImageRecord(bytes(32 * 32), 32, 32, 1, "nobody.png", "0" * 64)
        data = b"".join([*frames[:-1], tfrecord.frame(stranger.encode())])
    folder = _copy_with(shard_set, tmp_path / "tfrecords", {shard.name: data})
    named = "manifest.parquet has another row than nobody.png" if kind == "stranger" else shard.name
    with pytest.raises(InputError, match=named):
        evaluate(folder, seed=0)


def _dataset_with(source: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    shutil.copytree(source, folder)
    value = json.loads((folder / "dataset.json").read_text())
    change(value)
    (folder / "dataset.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_a_sentence(split: str, shard_set: Path, tmp_path: Path) -> None:
    def change(value: Any) -> None:
        value["shards"] = [one for one in value["shards"] if one["split"] != split]

    folder = _dataset_with(shard_set, tmp_path / "tfrecords", change)
    with pytest.raises(InputError, match=f"The {split} split in .* holds no image"):
        evaluate(folder, seed=0)


def test_one_class_to_learn_from_is_a_sentence(shard_set: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shard_set, tmp_path / "tfrecords"))
    value = json.loads((folder / "dataset.json").read_text())
    for shard in value["shards"]:
        if shard["split"] == "train":
            kept = [
                tfrecord.frame(data)
                for data in tfrecord.read(folder / shard["name"])
                if ImageRecord.decode(data).label == 1
            ]
            (folder / shard["name"]).write_bytes(b"".join(kept))
            shard |= {"records": len(kept), "bytes": sum(map(len, kept))}
    (folder / "dataset.json").write_text(json.dumps(value))
    rows = pq.read_table(folder / "manifest.parquet").to_pylist()
    position: dict[str, int] = {}
    kept_rows = []
    for row in sorted(rows, key=lambda row: (row["shard"] or "", row["position"] or 0)):
        if row["split"] != "train" or row["class"] == "Tumor":
            at = position.setdefault(row["shard"], 0)
            position[row["shard"]] += 1
            kept_rows.append({**row, "position": at if row["split"] else None})
    schema = pq.read_schema(folder / "manifest.parquet")
    _write_manifest(folder, pa.Table.from_pylist(kept_rows, schema))
    with pytest.raises(InputError, match="one class only"):
        evaluate(folder, seed=0)


def test_a_missing_manifest_is_a_sentence(shard_set: Path, tmp_path: Path) -> None:
    folder = _copy_with(shard_set, tmp_path / "tfrecords", {})
    (folder / "manifest.parquet").unlink()
    with pytest.raises(InputError, match=r"manifest\.parquet is missing or damaged"):
        evaluate(folder, seed=0)


def test_splits_share_nothing_with_training(shard_set: Path, found: list[Answers]) -> None:
    trained = {image.filename for image in _records(shard_set, SPLITS[0])}
    assert not trained & set(found[0].images.paths)
