"""Head phantoms: synthetic axial slices of a head, with or without a lesion, drawn from no patient.

They resemble MRI as far as trying out a small neural network needs it, and have no diagnostic value.
Lengths are in head units: half the length of the head is 1. The order of the random draws must not
change: it fixes the bytes of the synthetic data set.
"""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


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


def _ramp(values: Any) -> Image:
    """Return a soft step: 0 below -0.5, 1 above 0.5, linear between."""
    step: Image = np.clip(values + 0.5, 0, 1)
    return step


class _Head(NamedTuple):
    """The shape of one head, and where each pixel lies in it.

    Attributes:
        x: To the right, float [height, width].
        y: To the back, float [height, width].
        unit: Pixels in one head unit.
        aspect: Half the width of the head.
        rho: Distance from the centre, 1 at the skin, float [height, width].
        skull: `rho` of the outer side of the bone.
        dura: `rho` of its inner side.
        surface: `rho` of the brain's surface.
    """

    x: Image
    y: Image
    unit: float
    aspect: float
    rho: Image
    skull: float
    dura: float
    surface: float


class _Lesion:
    """One irregular blob in the brain."""

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
        float32 [height, width], 0 to 1.
    """
    rng = np.random.default_rng([seed, index])
    means = _CONTRASTS[rng.integers(len(_CONTRASTS))]
    contrast = _Contrast(*(mean + rng.normal(0, 0.02) for mean in means))
    head = _draw_head(rng, shape)
    lesion = None
    if tumor:
        lesion = _Lesion(np.random.default_rng([seed, index, 1]), head.aspect * head.surface)
    brain = _draw_brain(rng, head, contrast, lesion)
    return _acquire(rng, _wrap(rng, head, contrast, brain), head)


def _draw_head(rng: np.random.Generator, shape: tuple[int, int]) -> _Head:
    """Draw position, size and outline of a head in an image of (height, width) pixels."""
    height, width = shape
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
    rho = np.sqrt(across * across + y * y)
    rho = rho / (1 + sum(size * np.cos(k * angle + phase) for k, size, phase in harmonics))
    skull, dura = 1 - rng.uniform(0.03, 0.07), 0.9 - rng.uniform(0, 0.03)
    surface = dura - rng.uniform(0.015, 0.04)
    return _Head(x, y, unit, aspect, rho, skull, dura, surface)


def _draw_brain(
    rng: np.random.Generator, head: _Head, contrast: _Contrast, lesion: _Lesion | None
) -> Image:
    """Return the signal of the brain, as if it filled the image: float [height, width]."""
    shape, unit = head.rho.shape, head.unit
    inner_x, inner_y = lesion.push(head.x, head.y) if lesion else (head.x, head.y)
    inner_x = inner_x + 0.018 * _smooth_noise(rng, shape, 0.25 * unit)
    inner_y = inner_y + 0.018 * _smooth_noise(rng, shape, 0.25 * unit)
    side = np.abs(inner_x)
    white, fluid = _draw_cortex(rng, head, side, inner_y)
    white, fluid = _draw_deep_structures(rng, unit, (side, inner_y), white, fluid)

    tissue = contrast.grey + (contrast.white - contrast.grey) * white
    tissue = tissue + 0.018 * _smooth_noise(rng, shape, 0.08 * unit)
    tissue = tissue + (contrast.fluid - tissue) * fluid
    for _ in range(rng.integers(0, 5)):  # vessels and small bright foci, in both classes
        x0, y0, radius = rng.uniform(-0.6, 0.6), rng.uniform(-0.7, 0.7), rng.uniform(0.015, 0.035)
        spot = np.exp(((inner_x - x0) ** 2 + (inner_y - y0) ** 2) / -(radius**2))
        tissue = tissue + (0.55 - tissue) * spot
    return lesion.draw(tissue, head.x, head.y, unit, contrast) if lesion else tissue


def _draw_cortex(
    rng: np.random.Generator, head: _Head, side: Image, inner_y: Image
) -> tuple[Image, Image]:
    """Return the shares of white matter and fluid that the folds give, float [height, width], 0 to 1.

    Args:
        rng: Source of the draws.
        head: Its shape.
        side: Distance from the midline, float [height, width].
        inner_y: Position towards the back, float [height, width].
    """
    # `gap` is about the distance to the nearest fluid: the surface, a sulcus, the midline cleft.
    depth = head.surface - head.rho
    folds = np.abs(_smooth_noise(rng, head.rho.shape, rng.uniform(0.09, 0.13) * head.unit))
    gap = 0.12 * folds + 0.5 * np.maximum(depth - rng.uniform(0.16, 0.34), 0)
    gap = np.minimum(gap, depth + 0.01)
    cleft = side + 0.006 + np.maximum(rng.uniform(0.3, 0.5) - np.abs(inner_y), 0)
    gap = np.minimum(gap, cleft)
    white = _ramp((gap - rng.uniform(0.035, 0.055)) / 0.03)
    fluid = 0.8 * _ramp((rng.uniform(0.006, 0.02) - gap) / 0.015)
    return white, fluid


def _draw_deep_structures(
    rng: np.random.Generator, unit: float, place: tuple[Image, Image], white: Image, fluid: Image
) -> tuple[Image, Image]:
    """Return the shares of white matter and fluid with ventricles and deep grey matter added.

    Args:
        rng: Source of the draws.
        unit: Pixels in one head unit.
        place: Distance from the midline and position towards the back, float [height, width] each.
        white: Share of white matter, float [height, width].
        fluid: Share of fluid, float [height, width].
    """
    side, inner_y = place

    def ellipse(x0: float, y0: float, across: float, along: float, turn: float) -> Image:
        """Return a soft mask in both hemispheres."""
        dx, dy = side - x0, inner_y - y0
        u = (math.cos(turn) * dx + math.sin(turn) * dy) / across
        v = (math.cos(turn) * dy - math.sin(turn) * dx) / along
        return _ramp((1 - np.sqrt(u * u + v * v)) * across * unit / 2)

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
    return white, np.maximum(fluid, ventricles)


def _wrap(rng: np.random.Generator, head: _Head, contrast: _Contrast, brain: Image) -> Image:
    """Return the signal of the whole head: the brain inside dura, skull and scalp."""
    image = contrast.scalp * (1 + 0.12 * _smooth_noise(rng, head.rho.shape, 0.2 * head.unit))
    image = image * _ramp((1 - head.rho) * head.unit)
    layers = (
        (head.skull, contrast.bone), (head.dura, 0.8 * contrast.fluid), (head.surface, brain),
    )  # fmt: skip
    for limit, signal in layers:
        image = image + (signal - image) * _ramp((limit - head.rho) * head.unit)
    return np.asarray(image)


def _acquire(rng: np.random.Generator, image: Image, head: _Head) -> Image:
    """Return the head as a scanner gives it: bias field, contrast curve, Rician noise, gain."""
    x, y, rho = head.x, head.y, head.rho
    bias = 1 + rng.normal(0, 0.08) * x + rng.normal(0, 0.08) * y - rng.uniform(0, 0.15) * rho * rho
    image = np.clip(image * np.clip(bias, 0.5, 1.5), 0, 1) ** rng.uniform(0.85, 1.25)
    noise = rng.uniform(0.005, 0.018) * rng.standard_normal((2, *rho.shape), dtype=np.float32)
    image = rng.uniform(0.92, 1.08) * np.sqrt((image + noise[0]) ** 2 + noise[1] ** 2)
    return np.asarray(np.clip(image, 0, 1), np.float32)
