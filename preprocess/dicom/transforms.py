"""From stored DICOM values to displayed values: modality and VOI transforms.

`dicom.decode` states the rules. pydicom computes slope and intercept, and windows. Lookup tables
are read and applied here. pydicom's functions truncate fractions, where values must be rounded. They
wrap around far above the first value mapped: from the 257th entry of 8-bit tables on, and more than
32,767 above it for signed values. They do not read tables with two entries in a word, nor modality
tables of other than 8 or 16 bits.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_rescale, apply_windowing

from tumorbatch.preprocess.dicom.header import (
    LARGEST,
    DicomImage,
    broken,
    number_of,
    text_of,
    value_of,
)
from tumorbatch.status import FileError, Status

Values = NDArray[np.float64]
Transform = Callable[[Values], Values]

# FD in place of DS: numbers of any precision.
_TYPES = {
    "RescaleSlope": "FD", "RescaleIntercept": "FD", "WindowCenter": "FD", "WindowWidth": "FD",
    "VOILUTFunction": "CS", "PhotometricInterpretation": "CS", "BitsStored": "US",
    "PixelRepresentation": "US",
}  # fmt: skip
# Makes pydicom's window reach from 0 to 1: the range of one stored, unsigned bit.
_ONE_BIT: dict[str, float | str] = {
    "BitsStored": 1,
    "PixelRepresentation": 0,
    "PhotometricInterpretation": "MONOCHROME2",
}


def _attributes(**values: float | str) -> Dataset:
    """Return a data set of these attributes alone, by keyword, for pydicom's functions."""
    dataset = Dataset()
    for keyword, value in values.items():
        dataset.add(DataElement(tag_for_keyword(keyword) or 0, _TYPES[keyword], value))
    return dataset


def macro(dataset: Dataset, frame: int, keyword: str) -> Dataset:
    """Return the place of a frame's attributes: its functional group, the shared one, or the top."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = value_of(dataset, groups)
        item = items[frame if groups.startswith("Per") else 0] if items else None
        element = None if item is None else value_of(item, keyword)
        if element:
            return cast(Dataset, element[0])
    return dataset


def _pair(dataset: Dataset, *keywords: str) -> list[float] | None:
    """Return the first value of each of two attributes that belong together; None without both."""
    values = {keyword: value_of(dataset, keyword) for keyword in keywords}
    present = {keyword: value for keyword, value in values.items() if value not in (None, "")}
    if not present:
        return None
    numbers = [_first_number(keyword, value) for keyword, value in present.items()]
    if len(numbers) != len(keywords) or not max(map(abs, numbers)) < LARGEST:
        raise broken(f"{' and '.join(keywords)} are not two usable numbers")
    return numbers


def _first_number(keyword: str, value: Any) -> float:
    try:
        return float(np.atleast_1d(np.asarray(value, np.float64))[0])
    except (TypeError, ValueError, IndexError):
        raise broken(f"{keyword} is malformed: its value is not a number") from None


def padding_mask(
    dataset: Dataset, image: DicomImage, stored: NDArray[np.integer[Any]]
) -> NDArray[np.bool_] | None:
    """Return which stored values [Rows, Columns] are padding; None if none are.

    PixelPaddingValue and, for a range, PixelPaddingRangeLimit: PS3.3 C.7.5.1.1.2. They may be written
    as unsigned numbers for signed pixels.
    """
    if value_of(dataset, "PixelPaddingValue") is None:
        return None
    value = number_of(dataset, "PixelPaddingValue")
    ends = np.array([value, number_of(dataset, "PixelPaddingRangeLimit", default=value)])
    ends &= (1 << image.bits_stored) - 1
    if image.pixel_representation:
        ends -= (ends >> (image.bits_stored - 1)) << image.bits_stored
    mask = (stored >= ends.min()) & (stored <= ends.max())
    return mask if mask.any() and not mask.all() else None


def modality_transform(dataset: Dataset, image: DicomImage, frame: int) -> Transform | None:
    """Transform stored to modality values: PS3.3 C.11.1, for a frame C.7.6.16.2.9."""
    if tables := value_of(dataset, "ModalityLUTSequence"):
        entries, first, _ = _table(dataset, tables[0], image)
        return lambda values: _look_up(values, entries, first)
    rescale = _pair(
        macro(dataset, frame, "PixelValueTransformationSequence"), "RescaleSlope", "RescaleIntercept"
    )
    if rescale is None:
        return None
    slope, intercept = rescale
    if slope == 0:
        raise broken("RescaleSlope is 0")
    attributes = _attributes(RescaleSlope=slope, RescaleIntercept=intercept)
    return lambda values: apply_rescale(values, attributes)


def voi_transform(dataset: Dataset, image: DicomImage, frame: int) -> Transform | None:
    """Transform modality values to 0..1, to rounding: PS3.3 C.11.2, for a frame C.7.6.16.2.10."""
    if tables := value_of(dataset, "VOILUTSequence"):
        entries, first, bits = _table(dataset, tables[0], image)
        return lambda values: _look_up(values, entries, first) / (2**bits - 1)
    source = macro(dataset, frame, "FrameVOILUTSequence")
    window = _pair(source, "WindowCenter", "WindowWidth")
    if window is None:
        return None
    center, width = window
    function = text_of(source, "VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise FileError(Status.UNSUPPORTED, "a VOI LUT function that is not known")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise broken("WindowWidth is too small")
    attributes = _attributes(
        WindowCenter=center, WindowWidth=width, VOILUTFunction=function, **_ONE_BIT
    )
    return lambda values: apply_windowing(values, attributes)


def _table(dataset: Dataset, item: Dataset, image: DicomImage) -> tuple[Values, int, int]:
    """Return entries [count], first value mapped and bits of a LUT: PS3.3 C.11.1.1, C.11.2.1.1."""
    descriptor, data = (value_of(item, keyword) for keyword in ("LUTDescriptor", "LUTData"))
    if data is None or np.size(descriptor) != 3:
        raise broken("a lookup table without LUTDescriptor or LUTData")
    count, first, bits = (int(number) for number in descriptor)
    count = count % 0x10000 or 0x10000
    if image.pixel_representation and first > 0x7FFF:  # a negative one, written as unsigned
        first -= 0x10000
    if isinstance(data, bytes):
        order = "<u2" if dataset.original_encoding[1] else ">u2"
        entries = np.frombuffer(data, order).astype("<u2")
        if bits == 8 and entries.nbytes == count + count % 2:  # two entries a word
            entries = entries.view(np.uint8)[:count]
    else:
        entries = np.atleast_1d(np.asarray(data, np.uint16))
    if not 8 <= bits <= 16 or entries.size != count or entries.max() >> bits:
        raise broken("a lookup table is not what its descriptor says")
    return entries.astype(np.float64), first, bits


def _look_up(values: Values, entries: Values, first: int) -> Values:
    index = np.clip(np.rint(values) - first, 0, entries.size - 1).astype(np.intp)
    return np.asarray(entries[index])
