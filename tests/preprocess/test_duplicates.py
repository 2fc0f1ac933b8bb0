"""Near pairs against comparing each with each, groups against a naive union-find."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tumorbatch.preprocess import duplicates
from tumorbatch.preprocess.duplicates import join, near_pairs, renumber, under_both_labels

WORD = st.integers(0, 2**64 - 1)
SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)
BITS = st.lists(st.integers(0, 63), max_size=5, unique=True)


def _flip(word: int, bits: Iterable[int]) -> int:
    for bit in bits:
        word ^= 1 << bit
    return word


@st.composite
def _words(draw: st.DrawFn) -> list[int]:
    """Distinct words, many of them within a few bits of each other."""
    words = draw(st.lists(WORD, min_size=1, max_size=12))
    for _ in range(draw(st.integers(0, 12))):
        words.append(_flip(draw(st.sampled_from(words)), draw(BITS)))
    return list(dict.fromkeys(words))


def _brute_force(words: Sequence[int], distance: int) -> set[tuple[int, int]]:
    return {
        (first, second)
        for first in range(len(words))
        for second in range(first + 1, len(words))
        if (words[first] ^ words[second]).bit_count() <= distance
    }


def _found(words: Sequence[int], distance: int) -> set[tuple[int, int]]:
    pairs = near_pairs(np.array(words, np.uint64), distance)
    assert pairs.dtype == np.int64
    assert pairs.shape == (len(pairs), 2)
    return {(int(first), int(second)) for first, second in pairs}


# --- near pairs -------------------------------------------------------------------------------------


@given(words=_words(), distance=st.integers(0, 4))
@SETTINGS
def test_near_pairs_are_those_of_brute_force(words: list[int], distance: int) -> None:
    assert _found(words, distance) == _brute_force(words, distance)


@given(word=WORD, bits=BITS)
@SETTINGS
def test_four_bits_are_near_and_five_are_not(word: int, bits: list[int]) -> None:
    words = [word, _flip(word, bits)] if bits else [word]
    assert _found(words, 4) == ({(0, 1)} if 1 <= len(bits) <= 4 else set())


def test_every_single_bit_counts() -> None:
    """Each of the 64 bits lies in exactly one band."""
    for bit in range(64):
        assert _found([0, 1 << bit], 1) == {(0, 1)}
        assert _found([0, 1 << bit], 0) == set()


@pytest.mark.parametrize("block", [1, 7, 100])
def test_large_buckets_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """All words share four of the five bands; memory is bounded by the block, not by the bucket."""
    words = [value << 52 for value in range(60)] + [3, 1 << 20]
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", block)
    assert _found(words, 4) == _brute_force(words, 4)


def test_many_random_words() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, 600, np.uint64)
    planted = [
        _flip(int(word), rng.choice(64, k % 7, replace=False).tolist()) for k, word in enumerate(words)
    ]
    every = list(dict.fromkeys([*words.tolist(), *planted]))
    assert _found(every, 4) == _brute_force(every, 4)


def test_no_words() -> None:
    assert _found([], 4) == set()
    assert _found([7], 4) == set()


@pytest.mark.parametrize("distance", [-1, 5])
def test_a_distance_that_five_bands_cannot_promise(distance: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 4"):
        near_pairs(np.zeros(1, np.uint64), distance)


# --- groups -----------------------------------------------------------------------------------------


def _naive_groups(files: list[str], pixels: list[str], words: list[int]) -> list[int]:
    group = list(range(len(words)))
    for first in range(len(words)):
        for second in range(first + 1, len(words)):
            alike = (
                files[first] == files[second]
                or pixels[first] == pixels[second]
                or (words[first] ^ words[second]).bit_count() <= 4
            )
            if alike:
                old, new = group[second], group[first]
                group = [new if value == old else value for value in group]
    return [sorted(set(group), key=group.index).index(value) for value in group]


@st.composite
def _images(draw: st.DrawFn) -> tuple[list[str], list[str], list[int]]:
    count = draw(st.integers(0, 14))
    base = draw(st.lists(WORD, min_size=1, max_size=6))
    few = st.integers(0, 8).map(str)
    return (
        draw(st.lists(few, min_size=count, max_size=count)),
        draw(st.lists(few, min_size=count, max_size=count)),
        [_flip(draw(st.sampled_from(base)), draw(BITS)) for _ in range(count)],
    )


@given(images=_images())
@SETTINGS
def test_groups_are_those_of_union_find(images: tuple[list[str], list[str], list[int]]) -> None:
    files, pixels, words = images
    out = join(files, pixels, np.array(words, np.uint64))
    assert out.dtype == np.int64
    assert out.tolist() == _naive_groups(files, pixels, words)


def test_each_kind_of_likeness_joins() -> None:
    far = [0, 0xFF, 0xFF00, 0xFF0000, 0xFF000000, 0xFF00000000]
    assert join(list("aabcde"), list("uvvwxy"), np.array(far, np.uint64)).tolist() == [0, 0, 0, 1, 2, 3]
    near = [0, 0xFF, 0b1111, 0b11111 << 60 & (1 << 64) - 1, 1, 0xFF00]
    assert join(list("abcdef"), list("uvwxyz"), np.array(near, np.uint64)).tolist() == [
        0, 0, 0, 0, 0, 1,
    ]  # fmt: skip


def test_likeness_is_handed_on() -> None:
    """A chain of steps of four bits is one group, however far its ends are apart."""
    chain = [(1 << 4 * step) - 1 for step in range(12)]
    names = [str(step) for step in range(12)]
    assert join(names, names, np.array(chain, np.uint64)).tolist() == [0] * 12


def test_groups_do_not_depend_on_the_order_of_images() -> None:
    rng = np.random.default_rng(0)
    words = [_flip(int(word), [k]) for word in rng.integers(0, 2**64, 20, np.uint64) for k in range(3)]
    files = [str(k // 2) for k in range(60)]
    pixels = [str(k % 55) for k in range(60)]
    once = join(files, pixels, np.array(words, np.uint64))
    order = rng.permutation(60)
    again = join(
        [files[k] for k in order], [pixels[k] for k in order], np.array(words, np.uint64)[order]
    )
    np.testing.assert_array_equal(again, renumber(once[order]))
    assert 1 < len(set(once.tolist())) < 20


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
