"""Which group goes into which split."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tumorbatch.errors import ConfigError
from tumorbatch.preprocess.splits import Fractions, assign

Ints = NDArray[np.int64]
SEED = 0
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def _case(sizes: list[tuple[int, int]]) -> tuple[Ints, Ints, list[str]]:
    """Groups, labels and names from (label, size) of each group."""
    groups = np.repeat(np.arange(len(sizes)), [size for _, size in sizes])
    labels = np.repeat([label for label, _ in sizes], [size for _, size in sizes])
    return groups.astype(np.int64), labels.astype(np.int64), [f"f{k}" for k in range(len(groups))]


def _shares(splits: Ints) -> NDArray[np.float64]:
    return np.bincount(splits, minlength=3) / len(splits)


@st.composite
def _group_structures(draw: st.DrawFn) -> list[tuple[int, int]]:
    size = st.one_of(st.just(1), st.integers(1, 12))
    return [
        (label, count) for label in (0, 1) for count in draw(st.lists(size, min_size=6, max_size=40))
    ]


# --- what always holds ------------------------------------------------------------------------------


@given(sizes=_group_structures(), seed=st.integers(0, 5))
@SETTINGS
def test_no_group_crosses_and_every_split_has_both_classes(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    groups, labels, names = _case(sizes)
    splits = assign(groups, labels, names, Fractions(), seed)
    assert splits.shape == groups.shape
    assert {(group, split) for group, split in zip(groups, splits, strict=True)} == {
        (group, splits[groups == group][0]) for group in groups
    }
    for split in range(3):
        for label in (0, 1):
            assert ((splits == split) & (labels == label)).any()


@given(sizes=_group_structures(), seed=st.integers(0, 5), data=st.data())
@SETTINGS
def test_neither_order_nor_numbering_of_the_input_matters(
    sizes: list[tuple[int, int]], seed: int, data: st.DataObject
) -> None:
    groups, labels, names = _case(sizes)
    once = assign(groups, labels, names, Fractions(), seed)
    order = np.array(data.draw(st.permutations(range(len(groups)))))
    again = assign(
        10_000 - 7 * groups[order], labels[order], [names[k] for k in order], Fractions(), seed
    )
    np.testing.assert_array_equal(again, once[order])


@given(sizes=_group_structures(), seed=st.integers(0, 5))
@SETTINGS
def test_shares_are_met_within_the_largest_group(sizes: list[tuple[int, int]], seed: int) -> None:
    groups, labels, names = _case(sizes)
    splits = assign(groups, labels, names, Fractions(), seed)
    for label in (0, 1):
        largest = max(size for of, size in sizes if of == label)
        members = splits[labels == label]
        for share, target in zip(_shares(members), Fractions().values(), strict=True):
            assert abs(share - target) * len(members) <= largest


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.8, 0.1, 0.1), (0.34, 0.33, 0.33)])
def test_a_set_like_the_real_one_is_stratified(fractions: tuple[float, float, float]) -> None:
    """4,000 images, many single ones, some groups of up to 40, and groups that hold both classes."""
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.zipf(1.9, 1600), 40)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.repeat(rng.integers(0, 2, len(sizes)), sizes)
    mixed = rng.random(len(groups)) < 0.01
    labels[mixed] ^= 1
    names = [f"{k}.jpg" for k in range(len(groups))]
    splits = assign(groups, labels, names, Fractions(*fractions), SEED)
    for label in (0, 1):
        np.testing.assert_allclose(_shares(splits[labels == label]), fractions, atol=0.005)
    assert all(len(set(splits[groups == group])) == 1 for group in range(len(sizes)))


@pytest.mark.parametrize("label", [0, 1])
def test_one_huge_group_goes_to_train(label: int) -> None:
    groups, labels, names = _case([(label, 500), *[(label, 1)] * 100, *[(1 - label, 1)] * 100])
    splits = assign(groups, labels, names, Fractions(), SEED)
    assert set(splits[groups == 0]) == {0}
    shares = _shares(splits[labels == label])
    assert shares[1] > 0.05
    assert shares[2] > 0.05


def test_single_images_meet_the_shares_exactly() -> None:
    groups, labels, names = _case([(0, 1)] * 100 + [(1, 1)] * 200)
    splits = assign(groups, labels, names, Fractions(), SEED)
    assert np.bincount(splits[labels == 0]).tolist() == [70, 15, 15]
    assert np.bincount(splits[labels == 1]).tolist() == [140, 30, 30]


# --- seed and golden --------------------------------------------------------------------------------


def _small() -> tuple[Ints, Ints, list[str]]:
    return _case([(0, 3), (1, 4), (0, 2), (1, 2), *[(0, 1), (1, 1)] * 12])


def test_the_assignment_is_pinned() -> None:
    splits = assign(*_small(), Fractions(), SEED)
    assert "".join(map(str, splits)) == "00000000011020000111000220020020010"


def test_another_seed_gives_another_split() -> None:
    seen = {assign(*_small(), Fractions(), seed).tobytes() for seed in range(10)}
    assert len(seen) == 10


def test_other_names_give_another_split() -> None:
    groups, labels, names = _small()
    renamed = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    once = assign(groups, labels, names, Fractions(), SEED)
    assert assign(groups, labels, renamed, Fractions(), SEED).tolist() != once.tolist()


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("few", [[], [1], [1, 1], [50, 50]])
def test_too_few_groups_of_a_class(label: int, few: list[int]) -> None:
    groups, labels, names = _case([(label, size) for size in few] + [(1 - label, 1)] * 20)
    with pytest.raises(ConfigError) as caught:
        assign(groups, labels, names, Fractions(), SEED)
    text = str(caught.value)
    name = ("Healthy", "Tumor")[label]
    assert f"{name} has {sum(few)} images in {len(few)} groups" in text
    assert "--split" in text


def test_both_classes_in_one_group_only() -> None:
    groups, labels = np.zeros(40, np.int64), np.arange(40) % 2
    with pytest.raises(ConfigError, match="in 1 groups of duplicates"):
        assign(groups, labels, [str(k) for k in range(40)], Fractions(), SEED)


def test_no_images() -> None:
    nothing = np.empty(0, np.int64)
    with pytest.raises(ConfigError, match="Healthy has 0 images"):
        assign(nothing, nothing, [], Fractions(), SEED)


@pytest.mark.parametrize("count", [4, 5, 7])
def test_a_few_groups_are_enough(count: int) -> None:
    groups, labels, names = _case([(0, 2)] * count + [(1, 1)] * count)
    splits = assign(groups, labels, names, Fractions(), SEED)
    for label in (0, 1):
        assert set(splits[labels == label]) == {0, 1, 2}


@pytest.mark.parametrize(
    "values",
    [
        (1, 0, 0),
        (0.5, 0.5, 0),
        (0.7, 0.2, 0.2),
        (0.7, 0.15, 0.14),
        (1.2, -0.1, -0.1),
        (float("nan"), 0.5, 0.5),
        (0.5, float("nan"), 0.5),
        (float("inf"), 0.5, 0.5),
    ],
)
def test_shares_that_make_no_split(values: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="above 0 and add up to 1"):
        Fractions(*values)


@pytest.mark.parametrize("values", [(0.7, 0.15, 0.15), (0.7, 0.2, 0.1), (1 / 3, 1 / 3, 1 / 3)])
def test_shares_that_do(values: tuple[float, float, float]) -> None:
    assert Fractions(*values).values() == values
