"""A synthetic data set to try the commands on: files of head phantoms (`phantom`), from no patient.

The images have no diagnostic value: no number measured on them says how a model does on images of
patients.

The set has the traits of a real collection that trip pipelines up: mixed sizes, formats and bit
depths, duplicates, a wrong extension, damaged files. All of them but the damage fall on both
classes alike, so the shape or format of a file does not reveal its class.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.atomic import (
    discard_folder,
    make_folder,
    remove_temporaries,
    sync_folder,
    temporary_name,
)
from tumorbatch.checks import check_seed
from tumorbatch.errors import ConfigError, cannot_write
from tumorbatch.files import is_litter
from tumorbatch.labels import HEALTHY, TUMOR
from tumorbatch.lock import lock_inside, output_lock
from tumorbatch.phantom import phantom

_MARK = ".synthetic"  # in each class folder: --overwrite must never take real data for a sample
CLASS_FOLDERS = ("Healthy", "Brain Tumor")  # index = label
MIN_IMAGES = 24  # the fewest that hold every kind of file in both classes

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """What to write.

    Attributes:
        images: Readable images in both classes together, duplicates included; at least 24. An odd
            one out is healthy.
        seed: Not negative. The same seed gives the same bytes, on one machine with one set of
            libraries (elsewhere a pixel may differ by one); a larger `images` only adds files.
        overwrite: Replace the two class folders of an output that is not empty.

    Raises:
        ConfigError: A value is out of range.
    """

    images: int = 320
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.images < MIN_IMAGES:
            raise ConfigError(
                f"The number of images must be at least {MIN_IMAGES}, or some kinds of file would "
                f"be missing. Received: {self.images}."
            )
        check_seed(self.seed)


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        healthy: Readable images of that class, duplicates included.
        tumor: Readable images of that class, duplicates included.
        exact_duplicates: Of these, byte-identical copies of another image of the same class.
        near_duplicates: Of these, images of the same class encoded again, some of them resized.
        misnamed: Of these, PNG files that are called `.jpg`.
        broken: Files on top that no decoder reads, among them one `notes.txt`.
        bytes: Size of all files together.
        seconds: Wall-clock time.
    """

    healthy: int
    tumor: int
    exact_duplicates: int
    near_duplicates: int
    misnamed: int
    broken: int
    bytes: int
    seconds: float


# Entry k describes the k-th file of either class, round and round. 7 shapes against 16 kinds: every
# kind meets every shape. Before a duplicate stand five originals, of which it takes one. The order
# of the random draws here and in `phantom` is part of the contract: it fixes the bytes.
_COPY, _SIMILAR = "exact duplicate", "near duplicate"
_KINDS = (
    "grey.jpg", "8.png", "16.tif", "8.tif", "grey.JPG", _COPY, "grey.jpg", "colour.jpg",
    "grey.jpg", "16.png", "grey.jpg", _SIMILAR, "grey.jpg", "grey.JPG", "grey.jpg", "colour.jpg",
)  # fmt: skip
_SHAPES = ((150, 150), (256, 256), (320, 280), (200, 200), (128, 120), (225, 300), (512, 512))
_MISNAMED = 6  # this one JPEG of each class is in truth a PNG


def _encode(suffix: str, pixels: Pixels, quality: int = 90) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() == ".jpg" else []
    return cv2.imencode(suffix.lower(), pixels, options)[1].tobytes()


def _image_file(seed: int, label: int, k: int) -> tuple[str, bytes]:
    """Return suffix and content of the k-th image of a class."""
    # The draws about the file, as opposed to the head, are the same for both classes.
    rng = np.random.default_rng([seed, k, 2])
    quality, back = int(rng.integers(75, 96)), int(rng.integers(1, 6))
    kind, suffix = os.path.splitext(_KINDS[k % len(_KINDS)])
    if kind == _COPY:
        return _image_file(seed, label, k - back)
    if kind == _SIMILAR:
        data = np.frombuffer(_image_file(seed, label, k - back)[1], np.uint8)
        similar = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
        if similar.dtype == np.uint16:
            similar = np.rint(similar * (255 / 4095)).astype(np.uint8)
        if k // len(_KINDS) % 2 == 1:  # every other one is also resized
            height, width = similar.shape[:2]
            small = (round(0.9 * width), round(0.9 * height))
            similar = cv2.resize(similar, small, interpolation=cv2.INTER_AREA)
        return ".jpg", _encode(".jpg", similar, quality=60)
    head = phantom(seed, 2 * k + label, _SHAPES[k % len(_SHAPES)], label == TUMOR)
    if kind == "16":  # scanners store 12 bits in 16
        return suffix, _encode(suffix, np.rint(head * 4095).astype(np.uint16))
    grey = np.rint(head * 255).astype(np.uint8)
    if kind == "colour":
        return suffix, _encode(suffix, np.repeat(grey[:, :, None], 3, axis=2), quality)
    return suffix, _encode(".png" if k == _MISNAMED else suffix, grey, quality)


def _broken_files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Return path (below the output) and content of the unreadable files."""
    head = np.rint(phantom(seed, 2**32 - 1, (200, 200), False) * 255).astype(np.uint8)
    jpeg, png = _encode(".jpg", head), _encode(".png", head)
    yield "Healthy/Not Cancer  (empty).jpg", b""
    yield "Healthy/Not Cancer  (truncated).png", png[: len(png) // 2]
    yield "Brain Tumor/Cancer (truncated).jpg", jpeg[: len(jpeg) // 2]
    yield "Brain Tumor/Cancer (text).jpg", b"This is a text file, not an image.\n"
    yield "Brain Tumor/notes.txt", b"Synthetic phantoms, of no diagnostic value.\n"


def _publish(temporary: Path, out: Path) -> None:
    """Move the new class folders into `out` and the old ones out of it, or leave all as it was."""
    replaced = [name for name in CLASS_FOLDERS if os.path.lexists(out / name)]
    moves = [(out / name, temporary / f"old {name}") for name in replaced]
    moves += [(temporary / name, out / name) for name in CLASS_FOLDERS]
    written = []
    try:
        for source, target in moves:
            source.rename(target)
            written.append((source, target))
    except BaseException:
        for source, target in reversed(written):
            target.rename(source)
        raise
    sync_folder(out)


def run(out: Path, config: SampleConfig) -> Report:
    """Write the folders `Brain Tumor` and `Healthy` below `out`: phantoms, of no diagnostic value.

    All is written into a hidden folder first, and the class folders appear when they are complete.

    Args:
        out: A folder; it is made if it does not exist.
        config: What to write.

    Raises:
        ConfigError: `out` holds something already and `config.overwrite` is off, or its class
            folders were not made by this function.
        OutputError: `out` cannot be written.
        TryAgainError: Another run is writing a sample there.
    """
    start = time.monotonic()
    make_folder(out)
    with output_lock(out, lock_inside(out)):
        try:
            return _run(out, config, start)
        except OSError as error:
            raise cannot_write(out, error) from error


def _run(out: Path, config: SampleConfig, start: float) -> Report:
    names = (path.name for path in out.iterdir())
    visible = sorted(name for name in names if not name.startswith(".") and not is_litter(name))
    if visible and not config.overwrite:
        raise ConfigError(
            f"{out} is not empty (it holds {visible[0]!r}). Choose another folder, or give "
            f"--overwrite to replace the folders {' and '.join(map(repr, CLASS_FOLDERS))} in it."
        )
    for name in CLASS_FOLDERS:
        if os.path.lexists(out / name) and not (out / name / _MARK).is_file():
            raise ConfigError(
                f"{out / name} was not made by this command, and is not replaced: it may be real data. "
                "Choose another folder, or move it away yourself."
            )
    temporary = temporary_name(out / "sample")
    remove_temporaries(out, "sample")
    counts = {HEALTHY: (config.images + 1) // 2, TUMOR: config.images // 2}
    kinds = [_KINDS[k % len(_KINDS)] for count in counts.values() for k in range(count)]
    size = broken = 0
    try:
        for label, name in ((HEALTHY, "Not Cancer  ({})"), (TUMOR, "Cancer ({})")):
            folder = temporary / CLASS_FOLDERS[label]
            folder.mkdir(parents=True)
            (folder / _MARK).touch()
            for k in range(counts[label]):
                suffix, content = _image_file(config.seed, label, k)
                size += (folder / f"{name.format(k + 1)}{suffix}").write_bytes(content)
        for path, content in _broken_files(config.seed):
            size += (temporary / path).write_bytes(content)
            broken += 1
        _publish(temporary, out)
    finally:
        discard_folder(temporary)
    return Report(
        healthy=counts[HEALTHY],
        tumor=counts[TUMOR],
        exact_duplicates=kinds.count(_COPY),
        near_duplicates=kinds.count(_SIMILAR),
        misnamed=len(counts),
        broken=broken,
        bytes=size,
        seconds=time.monotonic() - start,
    )
