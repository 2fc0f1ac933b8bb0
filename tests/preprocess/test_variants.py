"""Several variants of one decoded image: what they are, in the records, and who reads which."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import Invoke
from tests.preprocess.sets import SIZE, content_of, image_files, records_of, small_config, write_file
from tumorbatch import native, shardset
from tumorbatch.errors import ConfigError
from tumorbatch.preprocess import shard
from tumorbatch.preprocess.normalised import head_box, normalise
from tumorbatch.preprocess.pixels import compute_variants, equalize_and_resize, process
from tumorbatch.preprocess.verify import run as verify
from tumorbatch.preprocessing_config import VARIANTS, Preprocessing
from tumorbatch.tfrecord import IMAGE, ImageRecord, variant_key

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

Array = NDArray[Any]
ALL = Preprocessing(size=SIZE, variants=VARIANTS)

# --- the computation --------------------------------------------------------------------------------


def _slowly(grey: Array) -> list[list[int]]:
    """The variant `normalised` before resizing, pixel by pixel, by its written definition."""
    rows = grey.tolist()
    height, width = grey.shape
    limit = sum(map(sum, rows)) // (2 * height * width)
    columns = [list(column) for column in zip(*rows, strict=True)]
    box = []
    for lines in (rows, columns):
        inside = [at for at, line in enumerate(lines) if 20 * sum(v > limit for v in line) >= len(line)]
        box.append((inside[0], inside[-1] + 1) if inside else (0, 0))
    if any(4 * (end - start) < length for (start, end), length in zip(box, grey.shape, strict=True)):
        box = [(0, height), (0, width)]
    (top, bottom), (left, right) = box
    head = [row[left:right] for row in rows[top:bottom]]
    values = sorted(value for row in head for value in row)
    low, high = (
        next(v for v in range(256) if 100 * sum(value <= v for value in values) >= p * len(values))
        for p in (1, 99)
    )
    if low == high:
        return head
    span = high - low
    return [[min(255, max(0, (255 * (v - low) + span // 2) // span)) for v in row] for row in head]


def _images() -> list[Array]:
    rng = np.random.default_rng(0)
    head = np.zeros((40, 56), np.uint8)
    head[9:31, 14:45] = rng.integers(60, 200, (22, 31))
    speck = np.zeros((40, 40), np.uint8)
    speck[3:7, 3:7] = 255
    return [
        head,
        np.where(head == 0, 3, head).astype(np.uint8),
        speck,
        np.zeros((17, 9), np.uint8),
        np.full((17, 9), 255, np.uint8),
        np.full((5, 5), 1, np.uint8),
        np.array([[7]], np.uint8),
        np.array([[0, 255]], np.uint8),
        rng.integers(0, 256, (1, 50), np.uint8),
        rng.integers(100, 110, (33, 21), np.uint8),
    ]


@pytest.mark.parametrize("number", range(len(_images())))
def test_normalised_is_its_definition(number: int) -> None:
    grey = _images()[number]
    assert normalise(grey).tolist() == _slowly(grey)


def test_the_head_is_cut_out_and_stretched() -> None:
    head, _, speck, *_ = _images()
    assert head_box(head) == (slice(9, 31), slice(14, 45))
    out = normalise(head)
    assert (out.shape, out.min(), out.max()) == ((22, 31), 0, 255)
    assert head_box(speck) == (slice(0, 40), slice(0, 40)), "a speck is not a head"


def test_nothing_to_stretch_stays_as_it_is() -> None:
    for value in (0, 1, 255):
        flat = np.full((20, 30), value, np.uint8)
        assert np.array_equal(normalise(flat), flat)


def test_pixels_of_all_variants_are_pinned() -> None:
    blocks = np.random.default_rng(1).integers(40, 220, (14, 11), np.uint8)
    grey = np.pad(np.repeat(np.repeat(blocks, 10, 0), 10, 1), 35)
    made = compute_variants(grey, Preprocessing(), VARIANTS)
    digests = {name: hashlib.sha256(pixels.tobytes()).hexdigest()[:12] for name, pixels in made.items()}
    assert digests == {"clahe": "64adb7a58627", "plain": "a113ba5a5cd1", "normalised": "6f5b7e2988f1"}


def test_variants_by_opencv_have_the_same_bits(
    build: "type[Build]", monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = np.pad(build.smooth(120, 97, 2), 25)
    usual = compute_variants(grey, ALL, VARIANTS)
    monkeypatch.setattr(native, "choose", lambda: native.Choice(None, "by OpenCV"))
    for name, pixels in compute_variants(grey, ALL, VARIANTS).items():
        assert np.array_equal(pixels, usual[name]), name


def test_channels_are_the_variants_one_by_one(build: "type[Build]") -> None:
    data = build.png(np.pad(build.smooth(60, 50), 9))
    several = process(data, ALL)
    assert several.pixels.shape == ALL.shape == (SIZE, SIZE, 3)
    for channel, name in enumerate(VARIANTS):
        alone = process(data, ALL.select([name]))
        assert np.array_equal(several.pixels[..., channel], alone.pixels)
    plain = equalize_and_resize(several.decoded.grey, Preprocessing(size=SIZE, clahe=False))
    assert np.array_equal(several.pixels[..., 1], plain)


# --- the description --------------------------------------------------------------------------------


def test_one_old_variant_is_described_as_ever() -> None:
    for name, clahe in (("clahe", True), ("plain", False)):
        described = Preprocessing(variants=(name,))
        assert described == Preprocessing(clahe=clahe)
        assert "variants" not in described.to_dict()


@pytest.mark.parametrize("names", [("normalised",), VARIANTS, ("plain", "clahe")])
def test_variants_are_part_of_the_fingerprint(names: tuple[str, ...]) -> None:
    described = Preprocessing(variants=names)
    assert described.fingerprint not in {Preprocessing(clahe=on).fingerprint for on in (True, False)}
    assert Preprocessing.from_dict(json.loads(json.dumps(described.to_dict()))) == described
    assert described.select(["plain"]) == Preprocessing(clahe=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": ["normalised", "normalised"]}, "each once"),
        ({"variants": []}, "each once"),
        ({"variants": ["sharp"]}, "must be one of clahe, plain, normalised"),
        ({"variants": "plain"}, "must be a list of names"),
        ({"clahe": True}, "contradict"),
        ({"normalised_version": 2}, "version 2 of the variant normalised"),
        ({"more": 1}, "must have exactly the fields"),
    ],
)
def test_impossible_variants_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing.from_dict({**Preprocessing(variants=("normalised",)).to_dict(), **change})


# --- the records ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(build: "type[Build]", tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants") / "raw"
    for name, data in image_files(build, 12).items():
        write_file(folder / name, data)
    return folder


@pytest.fixture(scope="module")
def several(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set with all variants. Do not change it."""
    out = tmp_path_factory.mktemp("several") / "tfrecords"
    shard.run(source, out, small_config(preprocessing=ALL))
    return out


def test_each_variant_is_that_of_a_set_of_its_own(source: Path, several: Path, tmp_path: Path) -> None:
    dataset = shardset.load(several)
    records = {record.filename: record for _, _, record in records_of(several, dataset)}
    for name in VARIANTS:
        out = tmp_path / name
        alone = shard.run(source, out, small_config(preprocessing=ALL.select([name]))).dataset
        key = IMAGE if name == "clahe" else variant_key(name)
        for _, _, record in records_of(out, alone):
            assert record.others == ()
            assert np.array_equal(record.image(), records[record.filename].variant(key))
        assert alone.preprocessing.fingerprint == dataset.fingerprints[name]
        assert alone.counts == dataset.counts
    stated = json.loads((several / shardset.DATASET).read_text())
    assert stated["preprocessing"] == Preprocessing(size=SIZE).to_dict()
    assert list(stated["variants"]) == list(VARIANTS)


def test_a_set_grows_with_its_variants(source: Path, tmp_path: Path, build: "type[Build]") -> None:
    raw, out = tmp_path / "raw", tmp_path / "tfrecords"
    for name, data in content_of(source).items():
        write_file(raw / name, data)
    config = small_config(preprocessing=ALL)
    first = {r.filename: r for *_, r in records_of(out, shard.run(raw, out, config).dataset)}
    write_file(raw / "Healthy" / "new.png", build.png(build.smooth(50, 44, 77)))
    report = shard.run(raw, out, config)
    assert report.changes == {"kept": len(first), "new": 1} | {
        name: count for name, count in report.changes.items() if name not in ("kept", "new")
    }
    second = {r.filename: r for *_, r in records_of(out, report.dataset)}
    assert {name: second[name] for name in first} == first
    assert second["Healthy/new.png"].variants == ("normalised", "plain")
    with pytest.raises(ConfigError, match="variants"):
        shard.run(raw, out, small_config())


def test_verify_checks_the_other_variants(several: Path, tmp_path: Path) -> None:
    assert not verify(several).problems
    dataset = shardset.load(several)
    record = next(record for _, _, record in records_of(several, dataset))
    assert len(ImageRecord.decode(record.encode()).others) == 2
    from tumorbatch.shard_records import check_images

    check_images(record, dataset)
    for others in ((), record.others[:1], (record.others[0], ("plain", b"short"))):
        with pytest.raises(ValueError, match=r"other variants|another size"):
            check_images(replace(record, others=others), dataset)


def test_a_variant_that_is_not_there_is_named(several: Path, source: Path, tmp_path: Path) -> None:
    dataset = shardset.load(several).select(["plain", "normalised", "clahe"])
    assert dataset.features == (variant_key("plain"), variant_key("normalised"), IMAGE)
    assert dataset.to_dict() == shardset.load(several).to_dict()
    alone = shard.run(source, tmp_path / "alone", small_config()).dataset
    assert alone.select(["clahe"]) is alone
    with pytest.raises(ConfigError, match=r"not plain.*shard SRC OUT --variants clahe,plain"):
        alone.select(["plain"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--variants", "sharp"), "'sharp' is not one of clahe, plain, normalised"),
        (("--variants", "plain,plain"), "names a variant twice"),
        (("--variants", "plain", "--no-clahe"), "not both"),
    ],
)
def test_wrong_variants_are_wrong_usage(
    invoke: Invoke, source: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, output = invoke("shard", source, tmp_path / "out", *arguments)
    assert code == 2
    assert words in " ".join(output.split())
