"""What a bundle knows of its images: the files themselves, their copies, and damage of its own file."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch.copies import signature, thumbnails
from tumorbatch.errors import InputError
from tumorbatch.known_images import KnownImages

Grey = NDArray[np.uint8]


def _image(seed: int) -> Grey:
    """Smooth shapes on black, different for each seed."""
    noise = np.random.default_rng(seed).normal(size=(9, 9)).astype(np.float32)
    smooth = cv2.resize(noise, (120, 120), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[-1:1:120j, -1:1:120j]
    inside = np.clip(1.2 - (x**2 + y**2), 0, 1)
    return np.clip((smooth * 60 + 110) * inside, 0, 255).astype(np.uint8)


def _sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture(scope="module")
def known() -> KnownImages:
    """Forty images, of which the last ten are of the validation split."""
    hashes = "".join(_sha256(f"{number}") for number in range(40))
    return KnownImages(
        np.frombuffer(bytes.fromhex(hashes), np.uint8).reshape(40, 32),
        thumbnails([signature(_image(number)) for number in range(40)]),
        np.arange(40) >= 30,
    )


def test_the_very_files_are_known_by_their_split(known: KnownImages) -> None:
    names = ["3", "35"]
    flags = known.flags([_sha256(name) for name in names], [signature(_image(99))] * 2)
    assert flags == ["trained-on", "validated-on"]


@pytest.mark.parametrize(
    "change",
    [
        lambda grey: grey,
        lambda grey: grey[:, ::-1],
        lambda grey: grey[::-1],
        lambda grey: np.rot90(grey),
        lambda grey: grey.T,
        lambda grey: np.clip(grey * 1.2 + 8, 0, 255),
        lambda grey: grey[4:-4, 4:-4],
        lambda grey: cv2.resize(grey, (90, 90), interpolation=cv2.INTER_AREA),
    ],
    ids=["another file", "mirrored", "upside down", "turned", "transposed", "brighter", "cut", "small"],
)
def test_copies_in_any_orientation_and_mildly_altered(known: KnownImages, change: object) -> None:
    copies = [np.ascontiguousarray(change(_image(seed)), np.uint8) for seed in range(10)]  # type: ignore[operator]
    flags = known.flags([_sha256(f"new {n}") for n in range(10)], [signature(one) for one in copies])
    assert flags == ["copy-of-training"] * 10


def test_other_images_and_blank_ones_are_not_copies(known: KnownImages) -> None:
    others = [signature(_image(seed)) for seed in range(100, 130)]
    blank = [signature(np.full((80, 80), 7, np.uint8)), signature(np.zeros((80, 80), np.uint8))]
    hashes = [_sha256(f"other {number}") for number in range(32)]
    assert known.flags(hashes, others + blank) == [""] * 32


def test_each_image_is_judged_by_itself(known: KnownImages) -> None:
    """A run that was killed and continues meets the images in other company."""
    pictures = thumbnails([signature(_image(seed)) for seed in (*range(5), *range(200, 210))])
    together = known.copies(pictures)
    alone = [known.copies(pictures[index : index + 1])[0] for index in range(len(pictures))]
    assert together.tolist() == alone == [True] * 5 + [False] * 10


def test_the_file_reads_back_and_damage_is_seen(known: KnownImages, tmp_path: Path) -> None:
    path, data = tmp_path / "known_images.safetensors", known.to_bytes()
    path.write_bytes(data)
    again = KnownImages.read(path, hashlib.sha256(data).hexdigest())
    assert (again.sha256 == known.sha256).all()
    assert (again.pictures == known.pictures).all()
    assert (again.validation == known.validation).all()
    flipped = bytearray(data)
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(InputError, match="sha256 is another one"):
        KnownImages.read(path, hashlib.sha256(data).hexdigest())
    with pytest.raises(InputError, match="damaged"):
        KnownImages.read(tmp_path / "missing", "0" * 64)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="damaged"):
        KnownImages.read(path, hashlib.sha256(b"nonsense").hexdigest())
