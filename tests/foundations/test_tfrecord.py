"""TFRecord framing and Example encoding, held against TensorFlow's own."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumorbatch import tfrecord
from tumorbatch.errors import InputError
from tumorbatch.tfrecord import ImageRecord, decode_example, encode_example, frame, read

# Small enough for every byte and bit; lengths that need one and two bytes as varints.
RECORDS = [
    ImageRecord(bytes(range(6)), 2, 3, 1, "Brain Tumor/é 1.png", "ab" * 32),
    ImageRecord(bytes(range(200)), 10, 20, 0, "a/b.tif", "00" * 32),
]
FEATURES = st.dictionaries(st.text(), st.one_of(st.binary(), st.integers(0, 2**63 - 1)))

repeatable = settings(derandomize=True, deadline=None, database=None, max_examples=100)


def test_tensorflow_parses_our_record(tf: Any) -> None:
    for record in RECORDS:
        example = tf.train.Example.FromString(record.encode())
        feature = example.features.feature
        assert set(feature) == {
            "image/raw",
            "image/height",
            "image/width",
            "image/class/label",
            "image/filename",
            "image/sha256",
        }
        assert feature["image/raw"].bytes_list.value == [record.pixels]
        assert feature["image/height"].int64_list.value == [record.height]
        assert feature["image/width"].int64_list.value == [record.width]
        assert feature["image/class/label"].int64_list.value == [record.label]
        assert feature["image/filename"].bytes_list.value == [record.filename.encode()]
        assert feature["image/sha256"].bytes_list.value == [record.sha256.encode()]


def test_our_example_has_the_bytes_of_tensorflows(tf: Any) -> None:
    for record in RECORDS:
        example = tf.train.Example.FromString(record.encode())
        assert example.SerializeToString(deterministic=True) == record.encode()


def test_we_decode_tensorflows_example(tf: Any) -> None:
    # The same values, set one by one through TensorFlow's own classes.
    example = tf.train.Example()
    example.features.feature["zero"].int64_list.value.append(0)
    example.features.feature["large"].int64_list.value.append(2**63 - 1)
    example.features.feature["data"].bytes_list.value.append(b"\x00\xff")
    example.features.feature["none"].bytes_list.value.append(b"")
    assert decode_example(example.SerializeToString()) == {
        "zero": 0,
        "large": 2**63 - 1,
        "data": b"\x00\xff",
        "none": b"",
    }


@pytest.mark.parametrize("values", [[], [1, 2]])
def test_examples_with_other_than_one_value_are_refused(tf: Any, values: list[int]) -> None:
    for kind, kind_values in (
        ("int64_list", values),
        ("bytes_list", [b"x"] * len(values)),
        ("float_list", [1.0]),
    ):
        example = tf.train.Example()
        getattr(example.features.feature["name"], kind).value.extend(kind_values)
        with pytest.raises(ValueError, match=r"not|too many|wrong"):
            decode_example(example.SerializeToString())


def test_frame_has_the_bytes_of_tensorflows_writer(tf: Any, tmp_path: Path) -> None:
    path = tmp_path / "theirs.tfrecord"
    data = [b"", b"x", bytes(100_000), *(record.encode() for record in RECORDS)]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in data:
            writer.write(one)
    assert path.read_bytes() == b"".join(map(frame, data))
    assert list(read(path)) == data


def test_tensorflow_reads_our_file(tf: Any, tmp_path: Path) -> None:
    path = tmp_path / "ours.tfrecord"
    data = [record.encode() for record in RECORDS]
    path.write_bytes(b"".join(map(frame, data)))
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == data


@repeatable
@given(FEATURES)
def test_examples_round_trip(features: dict[str, bytes | int]) -> None:
    assert decode_example(encode_example(features)) == features


@repeatable
@given(st.binary(), st.integers(0, 1 << 16), st.integers(0, 1 << 16), st.integers(0, 1), st.text())
def test_image_records_round_trip(
    pixels: bytes, height: int, width: int, label: int, filename: str
) -> None:
    record = ImageRecord(pixels, height, width, label, filename, "5a" * 32)
    assert ImageRecord.decode(record.encode()) == record


def test_records_of_one_length_are_told_apart() -> None:
    """They are read like the last one of that length: other labels, names, sides, and foreign bytes."""
    pixels = bytes(range(12))
    records = [
        ImageRecord(pixels, height, width, label, name, sha256)
        for height, width in ((3, 4), (4, 3), (2, 6))
        for label in (0, 1, 2)
        for name, sha256 in (("a/b.png", "0" * 64), ("a/c.png", "f" * 64), ("\u00e9/.png", "1" * 64))
    ]
    assert len({len(record.encode()) for record in records}) == 1
    for _ in range(2):
        for record in records:
            assert ImageRecord.decode(record.encode()) == record
    for at in range(len(records[0].encode())):  # each byte changed: another record, or none
        data = bytearray(records[0].encode())
        data[at] ^= 1
        try:
            decoded = ImageRecord.decode(bytes(data))
        except ValueError:
            continue
        values = decode_example(bytes(data))
        assert (decoded.label, decoded.height) == (values["image/class/label"], values["image/height"])
        assert decoded.pixels == values["image/raw"]
        assert decoded.filename.encode() == values["image/filename"]


@repeatable
@given(st.binary())
def test_any_bytes_decode_or_raise_value_error(data: bytes) -> None:
    try:
        decoded = decode_example(data)
    except ValueError:
        return
    assert all(isinstance(value, bytes | int) for value in decoded.values())


@pytest.mark.parametrize("name", [tfrecord.IMAGE, tfrecord.LABEL, tfrecord.SHA256])
def test_a_record_without_a_field_is_refused(name: str) -> None:
    features = decode_example(RECORDS[0].encode())
    del features[name]
    with pytest.raises(ValueError, match=name):
        ImageRecord.decode(encode_example(features))


@pytest.mark.parametrize(("name", "value"), [(tfrecord.IMAGE, 1), (tfrecord.HEIGHT, b"2")])
def test_a_record_with_a_field_of_another_type_is_refused(name: str, value: bytes | int) -> None:
    features = decode_example(RECORDS[0].encode()) | {name: value}
    with pytest.raises(ValueError, match="wrong type"):
        ImageRecord.decode(encode_example(features))


@pytest.mark.parametrize("name", ["", "a", "x" * 127, "x" * 128, "ü/" * 9_000])
@pytest.mark.parametrize(
    ("height", "width", "label"), [(0, 0, 0), (1, 127, 1), (150, 150, 1), (300, 2, 0)]
)
def test_a_record_is_the_example_of_its_six_features(
    name: str, height: int, width: int, label: int
) -> None:
    record = ImageRecord(bytes(height * width), height, width, label, name, "ab" * 32)
    features: dict[str, bytes | int] = {
        "image/raw": record.pixels, "image/height": height, "image/width": width,
        "image/class/label": label, "image/filename": name.encode(), "image/sha256": b"ab" * 32,
    }  # fmt: skip
    assert record.encode() == encode_example(features)
    assert ImageRecord.decode(record.encode()) == record


def test_golden_bytes() -> None:
    # Shards made by an older version must stay readable and equal: change these with a new
    # schema version only.
    assert encode_example({"b": b"\x01\x02", "a": 300}).hex(" ") == (
        "0a 1a"  # Example.features, 26 bytes
        " 0a 0b 0a 01 61 12 06 1a 04 0a 02 ac 02"  # "a": int64_list of 300, packed
        " 0a 0b 0a 01 62 12 06 0a 04 0a 02 01 02"  # "b": bytes_list of 01 02
    )
    framed = frame(RECORDS[0].encode())
    assert len(framed) == 247
    assert (
        hashlib.sha256(framed).hexdigest()
        == "d602eafb0d854bd2a9f98b47ab10af3ef2646c931af09e970506206c710c3c44"
    )


def _small_file(path: Path) -> tuple[bytes, list[int]]:
    """Three records, and the positions at which one ends and the next begins."""
    frames = [frame(b"first"), frame(b""), frame(b"third record")]
    boundaries = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    path.write_bytes(b"".join(frames))
    return b"".join(frames), boundaries


def test_a_cut_anywhere_but_between_records_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.tfrecord"
    whole, boundaries = _small_file(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length in boundaries:
            assert list(read(path)) == [b"first", b"", b"third record"][: boundaries.index(length)]
        else:
            with pytest.raises(InputError, match=r"cut\.tfrecord is cut off inside the record"):
                list(read(path))


def test_every_flipped_bit_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "flipped.tfrecord"
    whole, _ = _small_file(path)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"flipped\.tfrecord is damaged"):
            list(read(path))


def test_records_before_the_damage_are_still_given(tmp_path: Path) -> None:
    path = tmp_path / "tail.tfrecord"
    whole, boundaries = _small_file(path)
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    records_read = read(path)
    assert [next(records_read), next(records_read)] == [b"first", b""]
    with pytest.raises(InputError, match=f"at byte {boundaries[2]}"):
        next(records_read)
