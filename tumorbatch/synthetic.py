"""A synthetic data set to try the commands on: 2-D head phantoms, drawn here, from no patient.

The images resemble axial MRI slices as far as trying out a small neural network needs it. They have
no diagnostic value: no number measured on them says how a model does on images of patients.

The set has the traits of a real collection that trip pipelines up: mixed sizes, formats and bit
depths, duplicates, a wrong extension, damaged files. All of them but the damage fall on both
classes alike, so the shape or format of a file does not tell its class.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.atomic import make_folder, sync_folder, temporary_name
from tumorbatch.checks import check_seed
from tumorbatch.errors import ConfigError, cannot_write
from tumorbatch.labels import HEALTHY, TUMOR
from tumorbatch.lock import lock_inside, output_lock

_MARK = ".synthetic"  # in each class folder: --overwrite must never take real data for a sample
CLASS_FOLDERS = ("Healthy", "Brain Tumor")  # index = label
MIN_IMAGES = 24  # the fewest that hold every kind of file in both classes

Image = NDArray[np.float32]
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


class _Contrast(NamedTuple):
    """Mean signal of each tissue, 0 to 1, under one kind of acquisition."""

    scalp: float
    bone: float
    fluid: float
    grey: float
    white: float
    lesion: float
    necrosis: float  # the dead middle of a ring-enhancing lesion
    oedema: float


_CONTRASTS = (
    _Contrast(0.58, 0.07, 0.10, 0.24, 0.33, 0.90, 0.16, 0.26),  # T1 with contrast agent
    _Contrast(0.55, 0.05, 0.50, 0.32, 0.24, 0.88, 0.62, 0.48),  # T2
    _Contrast(0.58, 0.06, 0.10, 0.33, 0.27, 0.88, 0.32, 0.50),  # FLAIR
)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Image:
    """Return noise (height, width) with mean 0, deviation about 0.8, varying over `cell` pixels."""
    height, width = shape
    rows, columns = math.ceil(height / cell) + 3, math.ceil(width / cell) + 3
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _ramp(values: Image) -> Image:
    """Return a soft step: 0 below -0.5, 1 above 0.5, linear between."""
    step: Image = np.clip(values + 0.5, 0, 1)
    return step


class _Lesion:
    """One irregular blob in the brain; lengths in head units (half the head's length is 1)."""

    def __init__(self, rng: np.random.Generator, aspect: float) -> None:
        self.rng = rng
        self.radius = rng.uniform(0.18, 0.3)
        reach, angle = (0.72 - self.radius) * math.sqrt(rng.random()), rng.uniform(0, math.tau)
        self.x, self.y = aspect * reach * math.cos(angle), reach * math.sin(angle)
        self.lobes = [(k, rng.uniform(0, 0.3) / k, rng.uniform(0, math.tau)) for k in (2, 3, 5)]
        self.ring = rng.random() < 0.3
        self.strength, self.oedema = rng.uniform(0.6, 1), rng.uniform(0.3, 0.9)

    def push(self, x: Image, y: Image) -> tuple[Image, Image]:
        """Return coordinates whose anatomy gives way to the lesion (mass effect)."""
        dx, dy = x - self.x, y - self.y
        pull = 0.45 * np.exp((dx * dx + dy * dy) / -((1.7 * self.radius) ** 2))
        return x - pull * dx, y - pull * dy

    def draw(self, image: Image, x: Image, y: Image, unit: float, contrast: _Contrast) -> Image:
        """Return `image` (height, width) with the lesion and its oedema blended in."""
        dx, dy = x - self.x, y - self.y
        angle = np.arctan2(dy, dx)
        outline = 1 + sum(size * np.cos(k * angle + phase) for k, size, phase in self.lobes)
        coarse = _smooth_noise(self.rng, image.shape, 0.11 * unit)
        fine = _smooth_noise(self.rng, image.shape, 0.035 * unit)
        q = np.sqrt(dx * dx + dy * dy) / (self.radius * outline) + 0.05 * fine  # 1 at the edge
        around = self.oedema * _ramp((1.25 + self.oedema / 2 + 0.35 * coarse - q) * 2.5)
        image = image + (contrast.oedema - image) * around
        signal = contrast.lesion + 0.06 * coarse + 0.03 * fine
        if self.ring:
            signal = signal + (contrast.necrosis - signal) * _ramp((0.68 + 0.08 * coarse - q) * 6)
        return image + (signal - image) * _ramp((1 - q) * 3) * self.strength


def phantom(seed: int, index: int, shape: tuple[int, int], tumor: bool) -> Image:
    """Draw one axial slice of a head: a phantom, of no diagnostic value.

    Skull, brain, folds, ventricles, deep grey matter, a bias field and Rician noise (the noise of
    magnitude images, Gudbjartsson & Patz 1995). With the same `seed`, `index` and `shape`, the
    healthy and the tumor image show the same head, without and with the lesion.

    Args:
        seed: Not negative.
        index: Which head, not negative.
        shape: (height, width) in pixels.
        tumor: Whether it has a lesion.

    Returns:
        float32, (height, width), 0 to 1.
    """
    rng = np.random.default_rng([seed, index])
    height, width = shape
    means = _CONTRASTS[rng.integers(len(_CONTRASTS))]
    contrast = _Contrast(*(mean + rng.normal(0, 0.02) for mean in means))

    # Head coordinates: x to the right, y to the back, 1 = half the head's length.
    aspect = rng.uniform(0.74, 0.9)
    unit = rng.uniform(0.82, 0.98) * min(height / 2, width / 2 / aspect)
    tilt, shift_x, shift_y = rng.normal(0, 0.1), rng.normal(0, 0.02), rng.normal(0, 0.02)
    column = (np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2) / unit - shift_x
    row = (np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2) / unit - shift_y
    x = math.cos(tilt) * column + math.sin(tilt) * row
    y = math.cos(tilt) * row - math.sin(tilt) * column

    across = x / (aspect * (1 + rng.uniform(0.02, 0.1) * np.clip(y, -1, 1)))  # wider at the back
    angle = np.arctan2(y, across)
    harmonics = [(k, rng.normal(0, 0.03) / k, rng.uniform(0, math.tau)) for k in (2, 3, 4)]
    rho = np.sqrt(across * across + y * y)  # 1 at the skin
    rho = rho / (1 + sum(size * np.cos(k * angle + phase) for k, size, phase in harmonics))
    skull, dura = 1 - rng.uniform(0.03, 0.07), 0.9 - rng.uniform(0, 0.03)
    surface = dura - rng.uniform(0.015, 0.04)

    lesion = _Lesion(np.random.default_rng([seed, index, 1]), aspect * surface) if tumor else None
    inner_x, inner_y = lesion.push(x, y) if lesion else (x, y)
    inner_x = inner_x + 0.018 * _smooth_noise(rng, shape, 0.25 * unit)
    inner_y = inner_y + 0.018 * _smooth_noise(rng, shape, 0.25 * unit)
    side = np.abs(inner_x)

    def ellipse(x0: float, y0: float, across: float, along: float, turn: float) -> Image:
        """Return a soft mask in both hemispheres."""
        dx, dy = side - x0, inner_y - y0
        u = (math.cos(turn) * dx + math.sin(turn) * dy) / across
        v = (math.cos(turn) * dy - math.sin(turn) * dx) / along
        return _ramp((1 - np.sqrt(u * u + v * v)) * across * unit / 2)

    # `gap` is about the distance to the nearest fluid: the surface, a sulcus, the midline cleft.
    depth = surface - rho
    folds = np.abs(_smooth_noise(rng, shape, rng.uniform(0.09, 0.13) * unit))
    gap = 0.12 * folds + 0.5 * np.maximum(depth - rng.uniform(0.16, 0.34), 0)
    gap = np.minimum(gap, depth + 0.01)
    cleft = side + 0.006 + np.maximum(rng.uniform(0.3, 0.5) - np.abs(inner_y), 0)
    gap = np.minimum(gap, cleft)
    white = _ramp((gap - rng.uniform(0.035, 0.055)) / 0.03)
    fluid = 0.8 * _ramp((rng.uniform(0.006, 0.02) - gap) / 0.015)

    size = rng.uniform(0.6, 1.25)
    if rng.random() < 0.35:  # a high slice, through the bodies of the ventricles
        ventricles = ellipse(0.11, 0.02, 0.045 * size, 0.3 * size, rng.uniform(-0.1, 0.2))
    else:  # a lower one, through their horns, thalamus and putamen
        front = ellipse(0.1, -0.24, 0.045 * size, 0.16 * size, 0.4)
        back = ellipse(0.2, 0.36, 0.05 * size, 0.17 * size, -0.5)
        ventricles = np.maximum(front, back)
        ventricles = np.maximum(ventricles, ellipse(0, 0.1, 0.018 * size, 0.12, 0))
        nuclei = ellipse(0.13, 0.1, 0.09, 0.14, 0.5) + ellipse(0.27, -0.04, 0.055, 0.2, -0.25)
        white = white * (1 - rng.uniform(0.5, 0.9) * np.minimum(nuclei, 1))
    fluid = np.maximum(fluid, ventricles)

    tissue = contrast.grey + (contrast.white - contrast.grey) * white
    tissue = tissue + 0.018 * _smooth_noise(rng, shape, 0.08 * unit)
    tissue = tissue + (contrast.fluid - tissue) * fluid
    for _ in range(rng.integers(0, 5)):  # vessels and small bright foci, in both classes
        x0, y0, radius = rng.uniform(-0.6, 0.6), rng.uniform(-0.7, 0.7), rng.uniform(0.015, 0.035)
        spot = np.exp(((inner_x - x0) ** 2 + (inner_y - y0) ** 2) / -(radius**2))
        tissue = tissue + (0.55 - tissue) * spot
    if lesion:
        tissue = lesion.draw(tissue, x, y, unit, contrast)

    image = contrast.scalp * (1 + 0.12 * _smooth_noise(rng, shape, 0.2 * unit))
    image = image * _ramp((1 - rho) * unit)
    layers = ((skull, contrast.bone), (dura, 0.8 * contrast.fluid), (surface, tissue))
    for limit, signal in layers:
        image = image + (signal - image) * _ramp((limit - rho) * unit)
    bias = 1 + rng.normal(0, 0.08) * x + rng.normal(0, 0.08) * y - rng.uniform(0, 0.15) * rho * rho
    image = np.clip(image * np.clip(bias, 0.5, 1.5), 0, 1) ** rng.uniform(0.85, 1.25)
    noise = rng.uniform(0.005, 0.018) * rng.standard_normal((2, height, width), dtype=np.float32)
    image = rng.uniform(0.92, 1.08) * np.sqrt((image + noise[0]) ** 2 + noise[1] ** 2)
    return np.asarray(np.clip(image, 0, 1), np.float32)


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
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
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
    visible = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
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
    for stale in out.glob(".sample.tmp-*"):  # left by killed runs; the lock says they are dead
        shutil.rmtree(stale)
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
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
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
