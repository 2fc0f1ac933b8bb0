"""What a copy is: on pictures of known content, turned and altered."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pictures import head
from tumorbatch import copies, copy_candidates
from tumorbatch.copies import components, matches, pairs, signature, thumbnails
from tumorbatch.copy_alignment import similarity
from tumorbatch.copy_candidates import Candidates
from tumorbatch.orientation import INVERSE, ORIENTATIONS, orient

Grey = NDArray[np.uint8]


def _warp(grey: Grey, degrees: float = 0, zoom: float = 1) -> Grey:
    middle = (grey.shape[1] - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), degrees, zoom)
    return np.asarray(cv2.warpAffine(grey, turn, grey.shape[::-1]), np.uint8)


def _text(grey: Grey) -> Grey:
    return np.asarray(cv2.putText(grey.copy(), "R 12345", (5, 20), 0, 0.5, 255, 1), np.uint8)


def _jpeg(grey: Grey) -> Grey:
    data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def _noise(grey: Grey) -> Grey:
    noise = np.random.default_rng(9).normal(0, 12, grey.shape)
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


ALTERATIONS: dict[str, Callable[[Grey], Grey]] = {
    "brighter": lambda grey: np.clip(grey * 1.3, 0, 255).astype(np.uint8),
    "darker": lambda grey: (grey * 0.6).astype(np.uint8),
    "gamma": lambda grey: np.rint((grey / 255) ** 0.7 * 255).astype(np.uint8),
    "sharpened": lambda grey: cv2.addWeighted(grey, 2, cv2.GaussianBlur(grey, (0, 0), 2), -1, 0),
    "blurred": lambda grey: cv2.GaussianBlur(grey, (0, 0), 1.5),
    "noise": _noise,
    "recompressed": _jpeg,
    "resized": lambda grey: cv2.resize(grey, (90, 130), interpolation=cv2.INTER_AREA),
    "black border": lambda grey: cv2.copyMakeBorder(grey, 12, 12, 12, 12, 0, value=0),
    "white border": lambda grey: cv2.copyMakeBorder(grey, 9, 9, 9, 9, 0, value=255),
    "cropped": lambda grey: grey[4:-10, 9:-5],
    "zoomed": lambda grey: _warp(grey, zoom=1.1),
    "turned by 10 degrees": lambda grey: _warp(grey, degrees=10),
    "burnt-in text": _text,
}
HEADS = [head(seed) for seed in range(24)]


def _signatures(images: list[Grey]) -> Grey:
    return thumbnails([signature(np.ascontiguousarray(image)) for image in images])


@pytest.mark.parametrize("alteration", ALTERATIONS.values(), ids=ALTERATIONS)
def test_a_copy_is_found_in_any_orientation(alteration: Callable[[Grey], Grey]) -> None:
    """24 heads, each altered and in another of the eight orientations: every one finds its own."""
    altered = [orient(alteration(head), index % 8) for index, head in enumerate(HEADS)]
    found = matches(_signatures(altered), _signatures(HEADS))
    assert found.dtype == np.int64
    assert (found == np.arange(len(HEADS))).sum() >= 23
    assert set(found.tolist()) <= {-1, *range(24)}


def test_different_heads_are_no_copies() -> None:
    assert len(pairs(_signatures([head(seed) for seed in range(100, 180)])).first) == 0


def test_eight_orientations_are_one_group() -> None:
    images = [orient(one, turn) for one in HEADS[:3] for turn in ORIENTATIONS]
    pictures = _signatures(images)
    found = pairs(pictures)
    groups = components(found.first, found.second, len(images))
    assert groups.tolist() == np.repeat([0, 1, 2], 8).tolist()
    for first, second, turn in zip(found.first, found.second, found.orientation, strict=True):
        difference = orient(pictures[first], int(turn)).astype(int) - pictures[second]
        assert np.abs(difference).max() <= 2


def test_orientations_undo_each_other() -> None:
    image = np.arange(12).reshape(3, 4)
    assert len({orient(image, turn).tobytes() for turn in ORIENTATIONS}) == 8
    for turn in ORIENTATIONS:
        np.testing.assert_array_equal(orient(orient(image, turn), int(INVERSE[turn])), image)


def test_blank_images_are_nobodys_copies() -> None:
    random = np.random.default_rng(0)
    blank = [np.full((64, 64), 7, np.uint8)] * 3
    noisy = [random.integers(0, 4, (64, 64), np.uint8) for _ in range(3)]
    assert len(pairs(_signatures([*blank, *noisy])).first) == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images(count: int) -> None:
    found = pairs(_signatures([HEADS[0]] * count))
    assert set(zip(found.first, found.second, strict=True)) == ({(0, 1)} if count == 2 else set())
    assert matches(_signatures(HEADS[:count]), _signatures([])).tolist() == [-1] * count


def test_groups_do_not_depend_on_the_order() -> None:
    images = [*HEADS[:6], *(_warp(one, 6) for one in HEADS[:6])]
    order = np.random.default_rng(1).permutation(len(images))
    pictures = _signatures(images)
    found, in_order = pairs(pictures), pairs(pictures[order])
    one = components(found.first, found.second, len(images))
    other = components(in_order.first, in_order.second, len(images))
    same = one[:, None] == one
    assert same.sum() == 24
    np.testing.assert_array_equal(same[order][:, order], other[:, None] == other)


def test_leaves_find_what_one_leaf_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many images that they are sorted into leaves: work is bounded, and copies are still found."""
    images = [*HEADS, *(orient(_jpeg(head), index % 8) for index, head in enumerate(HEADS))]
    monkeypatch.setattr(copy_candidates, "_LEAF", 16)
    monkeypatch.setattr(copy_candidates, "_SMALL_LEAF", 16)
    found = copy_candidates.find_candidates(_signatures(images), (copy_candidates.WHOLE,), 6)
    true = found.second - found.first == len(HEADS)
    assert len(np.unique(found.first[true])) >= 22
    rows = found.orientation.size
    assert rows <= len(images) * 6 * copy_candidates._TREES * 8


def test_the_similarity_of_a_picture_with_itself_is_one() -> None:
    pictures = _signatures(HEADS[:4])
    index, upright = np.arange(4), np.zeros(4, np.int8)
    itself = Candidates(index, index, upright, np.ones(4, np.float32), upright)
    np.testing.assert_allclose(similarity(pictures, itself), 1, atol=1e-3)


def test_a_signature_is_the_mean_of_its_pixels() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (48, 72), np.uint8)
    expected = grey.reshape(24, 2, 24, 3).mean(axis=(1, 3))
    picture = thumbnails([signature(grey)])[0]
    assert np.abs(picture - expected).max() <= 1  # rows are rounded before columns


def test_a_bright_frame_is_cut_off_and_a_dark_one_is_not() -> None:
    head = HEADS[0]
    framed = cv2.copyMakeBorder(head, 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=255)
    assert signature(np.asarray(framed, np.uint8)) == signature(head)
    dark = cv2.copyMakeBorder(head, 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=0)
    assert signature(np.asarray(dark, np.uint8)) != signature(head)
    assert len(signature(np.full((30, 30), 255, np.uint8))) == copies.SIGNATURE_BYTES


def test_a_signature_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a signature has 576 bytes"):
        thumbnails([b"short"])
