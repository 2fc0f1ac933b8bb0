"""What a TIFF says of one of its pages, checked (TIFF 6.0, technical note 2, supplement 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tumorbatch.preprocess.exif import ORIENTATION
from tumorbatch.preprocess.image import Header
from tumorbatch.preprocess.tiff import fax
from tumorbatch.preprocess.tiff.directory import Tags, read_directory
from tumorbatch.status import FileError, Status

MAGICS = (b"II*\0", b"MM\0*")
JPEG = 7
# None, CCITT's, LZW, JPEG, deflate, PackBits, deflate (old).
_COMPRESSIONS = {1, 5, JPEG, 8, 32773, 32946, *fax.COMPRESSIONS}
_WITH_PREDICTOR = {5, 8, 32946}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_SAMPLES = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
_BITS = {"u": {1, 2, 4, 8, 16, 32}, "i": {8, 16, 32}, "f": {16, 32, 64}}
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # by SampleFormat; 4 is "undefined"
_T4_OPTIONS, _COEFFICIENTS, _SUBSAMPLING, _REFERENCES = 292, 529, 530, 532
# YCbCr as JPEG and ITU-R BT.601 have it: shares of red, green and blue in luma; black and white levels.
_USUAL_COEFFICIENTS = (0.299, 0.587, 0.114)
_USUAL_REFERENCES = (0, 255, 128, 255, 128, 255)
_TAGS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 332, 338, 339}
    | {_T4_OPTIONS, _COEFFICIENTS, _SUBSAMPLING, _REFERENCES, 347, ORIENTATION}
)
_LARGEST_TILE = 1 << 26  # pixels


@dataclass(frozen=True, slots=True)
class Page:
    """One image of a TIFF.

    Attributes:
        order: `struct`'s sign for the byte order.
        width: Pixels, as stored.
        height: Pixels, as stored.
        dtype: Of the samples; unsigned bytes where a sample has fewer than 8 bits.
        bits: Bits a sample.
        samples: Samples a pixel, those of transparency included.
        photometric: What the samples mean, PhotometricInterpretation.
        compression: Compression, of which only known ones are let through.
        planes: Whether each sample has its own plane.
        predictor: 1 for none, 2 for differences, 3 for differences of a float's bytes.
        lowest_bit_first: The order of bits in a byte, FillOrder.
        both_ways: Whether rows of Group 3 may be coded by the row above.
        unit: Pixels down and across that share their colour, in YCbCr that is not JPEG; else (1, 1).
        segment: Height and width of a strip or tile; the last strip may have fewer rows.
        offsets: Where the strips or tiles begin, row by row, plane by plane.
        counts: Bytes of each strip or tile, 0 for one that was never written.
        colours: A palette's red, green and blue values, 0 to 65535.
        tables: JPEG tables that the strips share.
        alpha: Whether there are more samples than the colours need.
        orientation: 1 (upright) to 8.
    """

    order: Literal["<", ">"]
    width: int
    height: int
    dtype: np.dtype[np.generic]
    bits: int
    samples: int
    photometric: int
    compression: int
    planes: bool
    predictor: int
    lowest_bit_first: bool
    both_ways: bool
    unit: tuple[int, int]
    segment: tuple[int, int]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    colours: tuple[int, ...]
    tables: bytes
    alpha: bool
    orientation: int

    @property
    def white_is_zero(self) -> bool:
        """Return whether small values are bright."""
        return self.photometric == _WHITE_IS_ZERO


def read_header(data: bytes, pages: Sequence[int], index: int = 0) -> tuple[Header, Page]:
    """Read what a TIFF says of a page.

    Args:
        data: The file's content.
        pages: Where its directories lie, by `directories`.
        index: Of the page, from 0.

    Raises:
        FileError: `truncated` where pixels would lie beyond the end; `unsupported` with what it is that
            is not read; `decode_error` where there is no such page.
        ValueError: It contradicts itself.
        IndexError: Values lie beyond its end.
        struct.error: It ends inside its directory.
    """
    if not 0 <= index < len(pages):
        raise FileError(Status.DECODE_ERROR, f"it has no page {index + 1}")
    tags, _ = read_directory(data, pages[index], _TAGS)
    page = _page(tags, "<" if data[:2] == b"II" else ">", len(data))
    header = Header(
        "tiff",
        page.width,
        page.height,
        page.bits,
        page.samples,
        alpha=page.alpha,
        orientation=page.orientation,
        pages=len(pages),
    )
    return header, page


def _first(tags: Tags, tag: int, default: int) -> int:
    return (tags.get(tag) or (default,))[0]


def _unsupported(feature: str) -> FileError:
    return FileError(Status.UNSUPPORTED, f"a TIFF {feature}")


def _page(tags: Tags, order: Literal["<", ">"], size: int) -> Page:
    width, height = _first(tags, 256, 0), _first(tags, 257, 0)
    if width <= 0 or height <= 0:
        raise ValueError("TIFF without a width or height")
    compression = _first(tags, 259, 1)
    if compression not in _COMPRESSIONS:
        raise _unsupported(f"with compression {compression}: save it with LZW or as PNG")
    samples = _first(tags, 277, 1)
    kind, bits = _numbers(tags, samples)
    photometric = _first(tags, 262, RGB if samples > 2 else _BLACK_IS_ZERO)
    _check_colours(photometric, samples, bits, compression, tags)
    predictor = _first(tags, 317, 1) if compression in _WITH_PREDICTOR else 1
    if predictor not in (1, 2, 3) or (predictor > 1 and bits < 8) or (predictor == 3 and kind != "f"):
        raise _unsupported(f"with predictor {predictor} for {bits} bits")
    is_ycbcr = photometric == YCBCR and compression != JPEG
    if is_ycbcr and predictor != 1:
        raise _unsupported("in YCbCr with a predictor: save it as RGB or PNG")
    segment, offsets, counts = _segments(tags, (height, width), size)
    orientation = _first(tags, ORIENTATION, 1)
    return Page(
        order=order,
        width=width,
        height=height,
        dtype=np.dtype(f"{kind}{max(bits, 8) // 8}"),
        bits=bits,
        samples=samples,
        photometric=photometric,
        compression=compression,
        planes=_first(tags, 284, 1) == 2 and samples > 1,
        predictor=predictor,
        lowest_bit_first=_first(tags, 266, 1) == 2,
        both_ways=bool(_first(tags, _T4_OPTIONS, 0) & 1),
        unit=_unit(tags, bits, samples) if is_ycbcr else (1, 1),
        segment=segment,
        offsets=offsets,
        counts=counts,
        colours=tags.get(320, ()),
        tables=bytes(value & 0xFF for value in tags.get(347, ())),
        alpha=samples > _SAMPLES[photometric],
        orientation=orientation if 1 <= orientation <= 8 else 1,
    )


def _numbers(tags: Tags, samples: int) -> tuple[str, int]:
    """Return kind and bits of the samples, which must be equal: "u", "i" or "f"."""
    depths, formats = set(tags.get(258) or (1,)), set(tags.get(339) or (1,))
    if len(depths) > 1 or len(formats) > 1 or not 1 <= samples <= 64:
        raise _unsupported("whose samples are not alike")
    bits, kind = depths.pop(), _KINDS.get(formats.pop(), "")
    if bits not in _BITS.get(kind, ()):
        names = {"u": "unsigned", "i": "signed", "f": "float"}
        raise _unsupported(f"of {bits} bits a sample, {names.get(kind, 'of another kind')}")
    return kind, bits


def _check_colours(photometric: int, samples: int, bits: int, compression: int, tags: Tags) -> None:
    if photometric not in _SAMPLES:
        raise _unsupported(f"with photometric interpretation {photometric}: save it as PNG")
    extra = samples - _SAMPLES[photometric]
    if extra < 0:
        raise ValueError(f"TIFF of {samples} samples a pixel with photometric {photometric}")
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and extra and (extra > 1 or not tags.get(338)):
        raise _unsupported(
            f"of {samples} samples a pixel that is called grey: colour, or {samples} images? "
            "Save it as RGB, or each one alone"
        )
    if bits < 8 and samples > 1:
        raise _unsupported(f"of {samples} samples with {bits} bits each: save it as PNG")
    if (photometric == PALETTE and bits > 8) or (photometric == CMYK and bits != 8):
        raise _unsupported(
            f"of {bits} bits with photometric interpretation {photometric}: save it as PNG"
        )
    if compression in fax.COMPRESSIONS and (
        bits > 1 or samples > 1 or photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    ):
        raise _unsupported("with CCITT's coding of other pixels than black and white ones")
    if compression == JPEG and (bits != 8 or photometric in (PALETTE, CMYK) or extra):
        raise _unsupported("with JPEG of another kind than 8-bit grey or colour")


def _unit(tags: Tags, bits: int, samples: int) -> tuple[int, int]:
    """Return how many pixels down and across share their colour in YCbCr."""
    across, down = (tags.get(_SUBSAMPLING) or (2, 2))[:2]
    if bits != 8 or samples != 3 or _first(tags, 284, 1) != 1 or not {across, down} <= {1, 2, 4}:
        raise _unsupported("in YCbCr of other than three samples of 8 bits: save it as RGB or PNG")
    for tag, usual in ((_COEFFICIENTS, _USUAL_COEFFICIENTS), (_REFERENCES, _USUAL_REFERENCES)):
        values = tags.get(tag, ())
        fractions = [
            over / max(under, 1) for over, under in zip(values[::2], values[1::2], strict=True)
        ]
        if fractions and not np.allclose(fractions, usual, atol=1e-3):
            raise _unsupported("in YCbCr with levels of its own: save it as RGB or PNG")
    return down, across


def _segments(
    tags: Tags, image: tuple[int, int], size: int
) -> tuple[tuple[int, int], tuple[int, ...], tuple[int, ...]]:
    """Return size, offsets and byte counts of strips or tiles, which must be within the file."""
    tiled = 322 in tags or 324 in tags
    offsets = (tags.get(324) or tags.get(273, ())) if tiled else tags.get(273, ())
    counts = (tags.get(325) or tags.get(279, ())) if tiled else tags.get(279, ())
    if not offsets:
        raise ValueError("TIFF without strips or tiles")
    for start, length in zip(offsets, counts, strict=False):
        if start + length > size:
            raise FileError(Status.TRUNCATED, "the TIFF ends before its pixels do")
    if tiled:
        segment = _first(tags, 323, 0), _first(tags, 322, 0)
        if min(segment) <= 0 or segment[0] * segment[1] > _LARGEST_TILE:
            raise ValueError("TIFF with impossible tiles")
    else:
        rows = _first(tags, 278, image[0])
        if rows == 0:
            raise ValueError("TIFF with strips of no rows")
        segment = (min(rows, image[0]) if rows > 0 else image[0]), image[1]
    return segment, offsets, counts


def byte_size(page: Page, rows: int, columns: int) -> int:
    """Return the bytes of decoded samples in so many rows of a strip or tile."""
    if page.photometric == YCBCR:
        down, across = page.unit
        return -(-rows // down) * -(-columns // across) * (down * across + 2)
    return rows * ((columns * (1 if page.planes else page.samples) * page.bits + 7) // 8)
