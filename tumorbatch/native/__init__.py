"""The optional library in C: the same pixels as OpenCV's, in a third of the time.

setuptools builds it from the C files in this folder where there is a compiler. Where it is missing, or
its pixels differ from those of the OpenCV that is installed, OpenCV does the work.
"""

import ctypes
import functools
import itertools
import os
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

ENVIRONMENT = "TUMORBATCH_PIXELS"
CHOICES = ("auto", "opencv")
_FOLDER = Path(__file__).parent
_MOST_PIXELS = 1 << 30  # the library counts in 32 bits

_INT, _DOUBLE, _POINTER = ctypes.c_int, ctypes.c_double, ctypes.c_void_p
_FLOAT = ctypes.c_float
_SIGNATURES = {
    "can_shrink": [_INT] * 4,
    "equalize": [_INT, _POINTER, _INT, _INT, _DOUBLE, _INT, _POINTER],
    "equalize_and_shrink": [_INT, _POINTER, _INT, _INT, _DOUBLE, _INT, _POINTER, _INT, _INT],
    "warp": [_INT, _POINTER, _INT, _INT, _INT, _POINTER, _POINTER],
    "similarity": [_POINTER, _POINTER, _POINTER, _POINTER, _INT, _FLOAT, _POINTER],
    "shrink_rows": [_INT, _POINTER, _INT, _INT, _POINTER, _INT],
}


class Library:
    """The library's functions, compiled for one instruction set; other threads run meanwhile.

    Args:
        path: The library's file.
        variant: "portable", "sse4" or "avx2"; default: the fastest that this processor can run.

    Raises:
        OSError: The file is missing, or is not a library for this machine.
        AttributeError: It is another library.
        ValueError: There is no such variant, or this processor cannot run it.
    """

    def __init__(self, path: Path, variant: str | None = None) -> None:
        self._code = ctypes.CDLL(os.fspath(path))
        for function, arguments in _SIGNATURES.items():
            getattr(self._code, function).argtypes = arguments
        self._code.variant_name.argtypes, self._code.variant_name.restype = [_INT], ctypes.c_char_p
        names = itertools.takewhile(bool, map(self._code.variant_name, itertools.count()))
        self.variants = tuple(name.decode() for name in names)
        if variant is not None and variant not in self.variants:
            raise ValueError(f"variant must be one of {', '.join(self.variants)}. Received: {variant}.")
        self.variant = variant or self.variants[-1]
        self._index = self.variants.index(self.variant)

    def equalize(self, grey: NDArray[np.uint8], clip: float, grid: int) -> NDArray[np.uint8] | None:
        """Equalise with limited contrast (CLAHE), as `cv2.createCLAHE` does.

        Args:
            grey: uint8 [height, width].
            clip: Clip limit, in multiples of a flat histogram's bin, above 0.
            grid: Tiles along each side.

        Returns:
            uint8 [height, width]; None if this is OpenCV's work.
        """
        out = np.empty_like(grey, order="C")
        return self._call(self._code.equalize, grey, out, (clip, grid), ())

    def equalize_and_shrink(
        self, grey: NDArray[np.uint8], clip: float, grid: int, height: int, width: int
    ) -> NDArray[np.uint8] | None:
        """Equalise, then take the mean of each area, as `cv2.resize` with INTER_AREA does.

        Args:
            grey: uint8 [source height, source width].
            clip: See `equalize`.
            grid: See `equalize`; 0: no equalisation.
            height: Of the result.
            width: Of the result.

        Returns:
            uint8 [height, width]; None if this is OpenCV's work: where a side grows, and where both
            ratios are whole numbers.
        """
        if not self._code.can_shrink(*grey.shape, height, width):
            return None
        out = np.empty((height, width), np.uint8)
        return self._call(self._code.equalize_and_shrink, grey, out, (clip, grid), (height, width))

    def shrink_rows(self, grey: NDArray[np.uint8], height: int) -> NDArray[np.uint8] | None:
        """Take the mean of each area with the width unchanged; see `equalize_and_shrink`.

        Args:
            grey: uint8 [source height, width].
            height: Of the result.

        Returns:
            uint8 [height, width], or None.
        """
        if not self._code.can_shrink(*grey.shape, height, grey.shape[1]):
            return None
        out = np.empty((height, grey.shape[1]), np.uint8)
        return self._call(self._code.shrink_rows, grey, out, (), (height,))

    def warp(self, images: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Resample images at the places that affine maps give for the output's pixels; see warp.c.

        Args:
            images: uint8 [n, height, width], with pixels in them.
            maps: float32 [n, 2, 3]: output pixel (x, y) is the image's value at maps[i] @ (x, y, 1).

        Returns:
            uint8 [n, height, width].
        """
        images, maps = _in_rows(images), np.ascontiguousarray(maps, np.float32)
        out = np.empty_like(images)
        places = images.ctypes.data, maps.ctypes.data, out.ctypes.data
        if self._code.warp(self._index, places[0], *images.shape, *places[1:]):
            raise MemoryError
        return out

    def similarity(
        self,
        layers: NDArray[np.int16],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        orientation: NDArray[np.int8],
        same: float,
    ) -> NDArray[np.float32]:
        """Align pairs of pictures, and compare their local structure; see `copy_alignment`.

        Args:
            layers: int16 [n, 3, 24, 24], smoothed a lot and a little, and local structure.
            first: int64 [pairs], index of a picture.
            second: int64 [pairs], index of the other.
            orientation: int8 [pairs], of the first, 0 to 7.
            same: Similarity from which the second is not aligned with the first as well.

        Returns:
            float32 [pairs], -1 to 1.

        Raises:
            ValueError: Layers have another shape, or an index is not one of a picture.
        """
        indices = np.stack([first, second]).astype(np.int64)
        if layers.shape[1:] != (3, 24, 24) or layers.dtype != np.int16:
            raise ValueError(f"The layers must be int16 [n, 3, 24, 24]. Received: {layers.shape}.")
        if indices.size and not 0 <= indices.min() <= indices.max() < len(layers):
            raise ValueError("An index is not one of a picture.")
        layers, orientation = np.ascontiguousarray(layers), np.ascontiguousarray(orientation, np.int8)
        out = np.empty(indices.shape[1], np.float32)
        places = (array.ctypes.data for array in (layers, *indices, orientation))
        self._code.similarity(*places, len(out), same, out.ctypes.data)
        return out

    def _call(
        self,
        function: Callable[..., int],
        grey: NDArray[np.uint8],
        out: NDArray[np.uint8],
        before: tuple[float | int, ...],
        behind: tuple[int, ...],
    ) -> NDArray[np.uint8] | None:
        if not 0 < grey.size <= _MOST_PIXELS:
            return None
        grey = _in_rows(grey)
        failed = function(self._index, grey.ctypes.data, *grey.shape, *before, out.ctypes.data, *behind)
        if failed:
            raise MemoryError
        return out


def _in_rows(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the same pixels without gaps; the library would misread any other type."""
    if pixels.dtype != np.uint8:
        raise ValueError(f"The pixels must be uint8. Received: {pixels.dtype}.")
    return np.ascontiguousarray(pixels)


class Choice(NamedTuple):
    """Who computes the pixels.

    Attributes:
        library: The library in C, or None for OpenCV.
        reason: Which it is, and why, for the log.
    """

    library: Library | None
    reason: str


@functools.cache
def choose() -> Choice:
    """Return the library where it can be used, once a process.

    The environment variable TUMORBATCH_PIXELS=opencv forces OpenCV.
    """
    if is_opencv_forced():
        return _opencv("forced")
    path = find()
    if path is None:
        return _opencv("the library in C was not built; reinstall where there is a C compiler")
    try:
        library = Library(path)
    except (OSError, AttributeError) as error:
        return _opencv(f"the library in C cannot be loaded: {error}")
    if not agrees(library):
        return _opencv("the library in C gives other pixels than this OpenCV")
    return Choice(library, f"by the library in C ({library.variant})")


def is_opencv_forced() -> bool:
    """Return whether the environment excludes the library."""
    return os.environ.get(ENVIRONMENT) == "opencv"


def _opencv(why: str) -> Choice:
    return Choice(None, f"by OpenCV {cv2.__version__} ({why})")


def find() -> Path | None:
    """Return the library's file, or None if it was not built."""
    paths = (_FOLDER / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def agrees(library: Library) -> bool:
    """Return whether the library and the installed OpenCV give a small image the same pixels.

    Another OpenCV, or a compiler with rules of its own for float32, might round otherwise. Takes less
    than a millisecond.
    """
    grey = np.random.default_rng(0).integers(0, 256, (67, 93), np.uint8)
    grey[:, 40:] //= 8  # flat tiles, whose histograms are clipped
    clip, grid, height, width = 2.0, 16, 31, 37
    equalized = np.asarray(cv2.createCLAHE(clip, (grid, grid)).apply(grey), np.uint8)
    expected = (
        (library.equalize(grey, clip, grid), equalized),
        (
            library.equalize_and_shrink(grey, clip, grid, height, width),
            _shrink(equalized, height, width),
        ),
        (library.equalize_and_shrink(grey, clip, 0, height, width), _shrink(grey, height, width)),
        (library.shrink_rows(grey, height), _shrink(grey, height, grey.shape[1])),
    )
    return all(ours is not None and np.array_equal(ours, theirs) for ours, theirs in expected)


def _shrink(grey: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
