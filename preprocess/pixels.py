"""The pixel path: from a file's bytes to the tensor that the network sees.

`shard` and `infer` both call `process`, so training and serving cannot drift apart. The library in C
(`tumorbatch.native`) computes the pixels where it can, OpenCV elsewhere; their bits are the same.
"""

import functools
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch import copies, native
from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.preprocess.decode import MAX_PIXELS, open_image
from tumorbatch.preprocess.image import Decoded
from tumorbatch.preprocess.normalised import normalise
from tumorbatch.preprocessing_config import NORMALISED, Preprocessing

_INTERPOLATION = {"area": cv2.INTER_AREA}


@dataclass(frozen=True, slots=True)
class Processed:
    """One image, ready for the network.

    Attributes:
        pixels: uint8 [size, size]; [size, size, channels] where the preprocessing has several.
        decoded: The image before equalisation, at its own resolution; `decoded.header.pages` says
            how many pages or frames there are.
        flags: Rules that were applied to it, sorted; "low-res" where a side was enlarged.
    """

    pixels: NDArray[np.uint8]
    decoded: Decoded
    flags: tuple[str, ...]


@functools.lru_cache(maxsize=4)
def _clahe(clip: float, grid: int) -> cv2.CLAHE:
    return cv2.createCLAHE(clipLimit=clip, tileGridSize=(grid, grid))


def equalize(grey: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Equalise with limited contrast (CLAHE) at native size.

    Args:
        grey: uint8 [height, width].
        preprocessing: Gives clip limit, grid, and whether there is anything to do.

    Returns:
        uint8 [height, width]; the input itself when CLAHE is off.

    References:
        K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994.
    """
    if not preprocessing.clahe:
        return grey
    clip, grid = preprocessing.clahe_clip, preprocessing.clahe_grid
    library = native.choose().library
    if library is not None and (equalized := library.equalize(grey, clip, grid)) is not None:
        return equalized
    out = _clahe(clip, grid).apply(grey)
    return np.asarray(out, np.uint8)


def resize(grey: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resample uint8 [height, width] to uint8 [size, size]; the aspect ratio is not kept."""
    size = (preprocessing.size, preprocessing.size)
    out = cv2.resize(grey, size, interpolation=_INTERPOLATION[preprocessing.interpolation])
    return np.asarray(out, np.uint8)


def equalize_and_resize(grey: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return `resize(equalize(grey))`, in one step if the library in C can do it.

    Args:
        grey: uint8 [height, width].
        preprocessing: What is done to it.

    Returns:
        uint8 [size, size].
    """
    library, size = native.choose().library, preprocessing.size
    if library is not None:
        grid = preprocessing.clahe_grid if preprocessing.clahe else 0
        pixels = library.equalize_and_shrink(grey, preprocessing.clahe_clip, grid, size, size)
        if pixels is not None:
            return pixels
    return resize(equalize(grey, preprocessing), preprocessing)


def compute_variants(
    grey: NDArray[np.uint8], preprocessing: Preprocessing, variants: Sequence[str]
) -> dict[str, NDArray[np.uint8]]:
    """Return some variants of one decoded image, each computed once.

    Args:
        grey: uint8 [height, width], from `Decoded.grey`.
        preprocessing: Size and CLAHE settings; its own variants do not count.
        variants: Of `preprocessing_config.VARIANTS`.

    Returns:
        {variant: uint8 [size, size]}, the tensors that `shard` writes and `infer` computes.
    """
    return {
        variant: equalize_and_resize(
            normalise(grey) if variant == NORMALISED else grey, preprocessing.select([variant])
        )
        for variant in variants
    }


def network_input(grey: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return what a network sees of one decoded image.

    Args:
        grey: uint8 [height, width].
        preprocessing: What is done to it.

    Returns:
        uint8 of `preprocessing.shape`: [size, size], or [size, size, channels].
    """
    channels = preprocessing.channels
    images = compute_variants(grey, preprocessing, channels)
    return images[channels[0]] if len(channels) == 1 else np.stack(list(images.values()), axis=-1)


def process(
    data: bytes,
    preprocessing: Preprocessing,
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
    formats: Collection[str] = IMAGE_FORMATS,
) -> Processed:
    """Run the whole path: bytes -> checks -> decode -> grey -> CLAHE at native size -> resize.

    With other variants, what each of them needs is computed from the same grey values.

    Args:
        data: A file's content.
        preprocessing: What is done to it.
        max_pixels: Larger images are refused.
        frame: Which page or frame, from 0; see `decode`.
        formats: Of `IMAGE_FORMATS`: the decoders that may run.

    Raises:
        FileError: With the status and reason for the file's row.
    """
    return Frames(data, preprocessing, max_pixels, formats).process(frame)


class Frames:
    """A file whose header is read, once for all of its pages or frames.

    Attributes:
        count: How many pages or frames it has that are images of their own.
    """

    def __init__(
        self,
        data: bytes,
        preprocessing: Preprocessing,
        max_pixels: int = MAX_PIXELS,
        formats: Collection[str] = IMAGE_FORMATS,
    ) -> None:
        """Read what the file says of itself; for arguments and what is raised see `process`."""
        self._image, self._preprocessing = open_image(data, max_pixels, formats), preprocessing
        self.count = self._image.frames

    def process(self, frame: int | None = None) -> Processed:
        """Take one page or frame the whole path; see the function `process`."""
        return _finished(self._image.decode(frame), self._preprocessing)

    def identity(self, frame: int, key: bytes | None) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return columns and flags of whose image it is, for DICOM; see `dicom.identity`.

        Args:
            frame: From 0.
            key: Of the keyed hashes, or None.
        """
        ask = getattr(self._image, "identity", None)  # only DICOM files have it
        return ({}, ()) if ask is None else ask(frame, key)


def is_blank(grey: NDArray[np.uint8]) -> bool:
    """Return whether an image shows nothing: 99 of 100 pixels within 8 grey levels of each other.

    Args:
        grey: uint8 [height, width]; every fourth row and column is looked at.
    """
    counts = np.bincount(grey[::4, ::4].ravel(), minlength=256)
    within = np.convolve(counts, np.ones(9, np.int64))
    return bool(within.max() >= 0.99 * counts.sum())


def _finished(decoded: Decoded, preprocessing: Preprocessing) -> Processed:
    # Equalised before it is made smaller: the report's order, and the tiles then have enough pixels.
    pixels = network_input(decoded.grey, preprocessing)
    flags = decoded.flags
    if min(decoded.grey.shape) < preprocessing.size:
        flags = tuple(sorted((*flags, "low-res")))
    return Processed(pixels, decoded, flags)


def pixel_hash(grey: NDArray[np.uint8]) -> str:
    """Return the sha256 (hex) of shape and pixels: equal for one image saved as PNG and as TIFF.

    Args:
        grey: uint8 [height, width].
    """
    digest = hashlib.sha256(f"{grey.shape[0]}x{grey.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(grey).data)
    return digest.hexdigest()


def turned_hash(grey: NDArray[np.uint8]) -> str:
    """Return the sha256 (hex) of shape and pixels in a canonical orientation.

    Equal for one image and for itself mirrored, or turned by a multiple of 90 degrees.

    Args:
        grey: uint8 [height, width].
    """
    return min(pixel_hash(turned) for turned in copies.canonical_orientations(grey))


def describe(decoded: Decoded) -> dict[str, Any]:
    """Return what the manifest says of a decoded image: its hashes and properties."""
    grey, header = decoded.grey, decoded.header
    return {
        "pixel_hash": pixel_hash(grey),
        "turned_hash": turned_hash(grey),
        "signature": copies.signature(grey),
        "width": grey.shape[1],
        "height": grey.shape[0],
        "format": header.format,
        "bit_depth": header.bit_depth,
        "channels": header.channels,
    }
