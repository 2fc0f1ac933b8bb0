"""Groups against a naive union-find, kinds of copies, conflicts."""

from collections.abc import Hashable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.pictures import head
from tumorbatch.copies import SIGNATURE_BYTES, signature, thumbnails
from tumorbatch.orientation import orient
from tumorbatch.preprocess.duplicates import Images, count, join, renumber, under_both_labels

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)
BLANK = bytes(SIGNATURE_BYTES)  # nobody's copy


def _images(files: str, pixels: str, turned: str, pictures: list[bytes] | None = None) -> Images:
    known = pictures or [BLANK] * len(files)
    return Images(list(files), list(pixels), list(turned), thumbnails(known))


# --- groups -----------------------------------------------------------------------------------------


def _naive_groups(*keys: list[str]) -> list[int]:
    group = list(range(len(keys[0])))
    for first in range(len(group)):
        for second in range(first + 1, len(group)):
            if any(key[first] == key[second] for key in keys):
                old, new = group[second], group[first]
                group = [new if value == old else value for value in group]
    return [sorted(set(group), key=group.index).index(value) for value in group]


@st.composite
def _keys(draw: st.DrawFn) -> list[list[str]]:
    size = draw(st.integers(0, 14))
    return [draw(st.lists(st.integers(0, 12).map(str), min_size=size, max_size=size)) for _ in range(3)]


@given(keys=_keys())
@SETTINGS
def test_groups_are_those_of_union_find(keys: list[list[str]]) -> None:
    out = join(Images(*keys, thumbnails([BLANK] * len(keys[0])))).group
    assert out.dtype == np.int64
    assert out.tolist() == _naive_groups(*keys)


def test_every_kind_of_copy_joins_and_is_named_by_the_surest() -> None:
    heads = [head(seed) for seed in range(6)]
    brighter = np.clip(heads[3] * 1.3, 0, 255).astype(np.uint8)
    mirrored = np.ascontiguousarray(orient(heads[4], 1))
    images = [heads[0], heads[0], heads[1], heads[1], heads[2], heads[2].T]
    images += [heads[3], brighter, heads[4], mirrored, heads[5]]
    pictures = [signature(np.ascontiguousarray(image)) for image in images]
    found = join(_images("aabcdefghij", "kkllmnopqrs", "ttuuvvwxyzA", pictures))
    assert found.group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert found.kind == [
        "bytes", "bytes", "pixels", "pixels", "turned", "turned", "altered", "altered", "turned",
        "turned", None,
    ]  # fmt: skip
    assert count(found.group, found, list("aabcdefghij"), list("kkllmnopqrs")) == {
        "groups": 6, "largest_group": 2, "byte_identical": 1, "pixel_identical": 2,
        "near_duplicate": 5, "copies_bytes": 2, "copies_pixels": 2, "copies_turned": 4,
        "copies_altered": 2,
    }  # fmt: skip


def test_the_same_images_are_grouped_once_and_others_anew() -> None:
    one = _images("ab", "cd", "ef")
    assert join(one) is join(_images("ab", "cd", "ef"))
    assert join(_images("aa", "cd", "ef")).group.tolist() == [0, 0]
    assert join(one).group.tolist() == [0, 1]


def test_images_are_taken_from_any_slice_of_a_table() -> None:
    pictures = [signature(head(seed)) for seed in range(5)]
    table = pa.table(
        {
            "sha256": list("abcde"),
            "pixel_hash": list("fghij"),
            "turned_hash": list("klmno"),
            "signature": pa.array(pictures, pa.binary(SIGNATURE_BYTES)),
        }
    )
    for start, stop in ((0, 5), (1, 4), (2, 2)):
        part = pa.concat_tables([table[start:stop], table[4:]])
        images = Images.from_manifest(part)
        wanted = [*pictures[start:stop], pictures[4]]
        np.testing.assert_array_equal(images.pictures, thumbnails(wanted))
        assert images.sha256 == [*"abcde"[start:stop], "e"]
    missing = pa.table({**{name: table[name] for name in table.column_names}, "sha256": [None] * 5})
    with pytest.raises(ValueError, match="lacks a hash"):
        Images.from_manifest(missing)


# --- numbers and conflicts --------------------------------------------------------------------------


@SETTINGS
@given(st.lists(st.integers(-5, 5)))
def test_renumber_counts_in_order_of_appearance(values: list[int]) -> None:
    order = list(dict.fromkeys(values))
    out: NDArray[np.int64] = renumber(np.array(values, np.int64))
    assert out.dtype == np.int64
    assert out.tolist() == [order.index(value) for value in values]


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 1))))
def test_under_both_labels(images: list[tuple[str, int]]) -> None:
    keys: list[Hashable] = [key for key, _ in images]
    labels = np.array([label for _, label in images], np.int64)
    out = under_both_labels(keys, labels)
    assert out.dtype == np.bool_
    assert out.tolist() == [(key, 1 - label) in images for key, label in images]
