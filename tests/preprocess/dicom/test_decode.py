"""DICOM: pixels against an independent computation, broken files, hostile files, patients' data."""

import io
import logging
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from tumorbatch.preprocess.dicom import header as dicom_header
from tumorbatch.preprocess.dicom import stored_values
from tumorbatch.preprocess.dicom.decode import decode_dicom, patient_key
from tumorbatch.preprocess.image import Decoded
from tumorbatch.status import FileError, Status

Array = NDArray[Any]

LIMIT = 1_000_000
NAME, ID, SECRETS = "DOE^JANE", "MRN-4711-X", ("DOE", "JANE", "4711")
SAMPLES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "ExplVR_BigEnd.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "image_dfl.dcm",
)
SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "RLE": uid.RLELossless,
}


def bundled(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom does not bundle {name}")
    return Path(str(path)).read_bytes()


def item(**values: Any) -> list[Dataset]:
    """A sequence of one item."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return [dataset]


def table(first: int, bits: int, data: list[int] | bytes, count: int | None = None) -> list[Dataset]:
    """A LUT, as a sequence of one item."""
    lut = Dataset()
    number = len(data) if count is None else count
    if isinstance(data, list) and number > 1000:
        data = np.array(data, "<u2").tobytes()
    lut.add_new("LUTDescriptor", "SS" if first < 0 else "US", [number, first, bits])
    lut.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return [lut]


def make(
    stored: Array,
    bits: int | None = None,
    photometric: str = "MONOCHROME2",
    syntax: uid.UID = uid.ExplicitVRLittleEndian,
    **values: Any,
) -> bytes:
    """A DICOM file of stored values, [rows, columns] or for RGB [rows, columns, 3].

    `values` are attributes; None removes one. `Frames=n` takes an axis of frames in front.
    """
    frames = values.pop("Frames", None)
    shape = stored.shape if frames is None else stored.shape[1:]
    allocated = 8 * stored.dtype.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.MRImageStorage, "1.2.3.4"
    dataset.PatientName, dataset.PatientID = NAME, ID
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = 1 if len(shape) == 2 else 3
    dataset.BitsAllocated, dataset.BitsStored = allocated, bits or allocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    if frames is not None:
        dataset.NumberOfFrames = frames
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    big = syntax == uid.ExplicitVRBigEndian
    raw = stored.astype(stored.dtype.newbyteorder("><"[not big])).tobytes()
    dataset.add_new("PixelData", "OW" if allocated == 16 else "OB", raw + bytes(len(raw) % 2))
    if syntax == uid.RLELossless:
        dataset.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of these files are wrong on purpose
        for keyword, value in values.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        return written(dataset)


def written(dataset: Dataset) -> bytes:
    syntax = dataset.file_meta.TransferSyntaxUID
    stream = io.BytesIO()
    pydicom.dcmwrite(
        stream,
        dataset,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )
    return stream.getvalue()


def values_of(bits: int, signed: bool, shape: tuple[int, ...] = (20, 24), seed: int = 0) -> Array:
    """Stored values over the whole range, both ends of it included."""
    low = -(2 ** (bits - 1)) if signed else 0
    width = 8 if bits == 8 else 16
    stored = np.random.default_rng(seed).integers(low, low + 2**bits, shape)
    stored.flat[0], stored.flat[1] = low, low + 2**bits - 1
    return stored.astype(f"{'iu'[not signed]}{width // 8}")


def refused(data: bytes, status: Status | None = None, **options: Any) -> FileError:
    with pytest.raises(FileError) as caught:
        decode_dicom(data, LIMIT, **options)
    error = caught.value
    assert status in (None, error.status), error.message
    assert not any(secret in error.message for secret in SECRETS), error.message
    assert error.__cause__ is None  # its text could hold values
    return error


# ---- pixels

RESCALES: dict[str, Any] = {
    "stored": None,
    "hounsfield": (1.0, -1024.0),
    "fraction": (0.125, 3.5),
    "falling": (-2.0, 100.0),
    "table": "table",
}
VOIS: dict[str, Any] = {
    "percentiles": None,
    "LINEAR": (0.4, 0.5),  # center and width, as parts of the range
    "LINEAR_EXACT": (0.6, 0.3),
    "SIGMOID": (0.5, 0.4),
    "table": "table",
}
Table = tuple[int, list[int]]  # first value mapped, entries


def curve(low: float, high: float, bits: int) -> Table:
    """A table for the middle of a range, as far as a descriptor and a short test reach."""
    first = int(np.clip(low + 0.1 * (high - low), -32768, 32767))
    count = int(min(0.8 * (high - low), 20_000))
    return first, [int((2**bits - 1) * (n / (count - 1)) ** 2) for n in range(count)]


def looked_up(x: Array, lut: Table) -> Array:
    first, entries = lut
    found = [entries[min(max(round(v) - first, 0), len(entries) - 1)] for v in x.flat]
    return np.array(found, np.float64).reshape(x.shape)


def oracle(stored: Array, rescale: Any, voi: Any) -> Array:
    """The grey image by the words of PS3.3 C.11.1 and C.11.2."""
    x = stored.astype(np.float64)
    if rescale and isinstance(rescale[1], list):
        x = looked_up(x, rescale)
    elif rescale:
        x = rescale[0] * x + rescale[1]
    if voi is None:
        a, b = np.percentile(x, 0.5), np.percentile(x, 99.5)
        return np.rint(255 * (np.minimum(np.maximum(x, a), b) - a) / (b - a))
    if isinstance(voi[1], list):
        return np.rint(255 * (looked_up(x, voi) / 4095))
    function, c, w = voi
    if function == "SIGMOID":
        y = 1 / (1 + np.exp(-4 * (x - c) / w))
    elif function == "LINEAR_EXACT":
        y = np.select([x <= c - w / 2, x > c + w / 2], [0, 1], (x - c) / w + 0.5)
    else:
        low, high = c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2
        y = np.select([x <= low, x > high], [0, 1], (x - (c - 0.5)) / (w - 1) + 0.5)
    return np.rint(255 * y)


@pytest.mark.parametrize("voi", VOIS)
@pytest.mark.parametrize("rescale", RESCALES)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_matrix(signed: bool, bits: int, rescale: str, voi: str) -> None:
    stored = values_of(bits, signed)
    how, window = RESCALES[rescale], VOIS[voi]
    values: dict[str, Any] = {}
    low, high = float(stored.min()), float(stored.max())
    if how == "table":
        how = curve(low, high, 16)
        values["ModalityLUTSequence"] = table(how[0], 16, how[1])
        low, high = 0, 65535
    elif how:
        values["RescaleSlope"], values["RescaleIntercept"] = how
        low, high = sorted(how[0] * end + how[1] for end in (low, high))
    if window == "table":
        window = curve(low, high, 12)
        values["VOILUTSequence"] = table(window[0], 12, window[1])
    elif window:
        window = (voi, round(low + window[0] * (high - low), 2), round(window[1] * (high - low), 2))
        values["VOILUTFunction"], values["WindowCenter"], values["WindowWidth"] = window
    expected = oracle(stored, how, window)
    assert len(np.unique(expected)) > 8
    for inverted in (False, True):
        decoded = decode_dicom(make(stored, bits, f"MONOCHROME{2 - inverted}", **values), LIMIT)
        assert decoded.grey.dtype == np.uint8
        np.testing.assert_array_equal(decoded.grey, 255 - expected if inverted else expected)
        flags = {
            "16-bit": bits > 8,
            "inverted": inverted,
            "stretched": bits == 8 and window is None,
            "voi-window": window is not None,
        }
        assert decoded.flags == tuple(flag for flag, applies in flags.items() if applies)


def test_a_window_is_linear_unless_it_says_something_else() -> None:
    stored = values_of(12, True)
    data = make(stored, 12, WindowCenter=40, WindowWidth=400)
    expected = oracle(stored, None, ("LINEAR", 40, 400))
    np.testing.assert_array_equal(decode_dicom(data, LIMIT).grey, expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("signed", [False, True])
def test_windows_agree_with_pydicom(signed: bool, function: str) -> None:
    stored = values_of(12, signed)
    data = make(
        stored,
        12,
        RescaleSlope=0.5,
        RescaleIntercept=-7,
        WindowCenter=[400, 1],
        WindowWidth=[900, 2],
        VOILUTFunction=function,
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    low = (-2048 if signed else 0) * 0.5 - 7
    expected = 255 * (shown - low) / (4095 * 0.5)
    assert np.abs(decode_dicom(data, LIMIT).grey - expected).max() < 0.5001


@pytest.mark.parametrize(
    ("keyword", "apply"),
    [("ModalityLUTSequence", apply_modality_lut), ("VOILUTSequence", apply_voi_lut)],
)
def test_lookup_tables_agree_with_pydicom(keyword: str, apply: Any) -> None:
    entries = np.random.default_rng(0).integers(0, 1 << 16, 3000).tolist()
    stored = values_of(12, signed=False)
    whole = {"WindowCenter": 32768, "WindowWidth": 65536}  # from 0 to 65,535
    window = whole if keyword == "ModalityLUTSequence" else {}
    data = make(stored, 12, **window, **{keyword: table(200, 16, entries)})
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown = apply(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(decode_dicom(data, LIMIT).grey, np.rint(shown / 65535 * 255))


def test_an_image_of_more_levels_than_pixels_is_shown_alike() -> None:
    stored = values_of(16, signed=True)
    window = {"WindowCenter": -100, "WindowWidth": 30_000}
    grey = decode_dicom(make(stored, **window), LIMIT).grey
    many = np.tile(stored, (60, 60))  # every value many times: more pixels than levels
    assert stored.size < np.ptp(stored.astype(int)) < many.size
    np.testing.assert_array_equal(
        decode_dicom(make(many, **window), 1 << 24).grey[:20, :20], grey[:20, :20]
    )


def test_signed_values_far_above_the_first_one_mapped_do_not_wrap_around() -> None:
    stored = values_of(16, signed=True)
    data = make(stored, VOILUTSequence=table(-32768, 16, list(range(0, 60000, 2))))
    place = np.clip(stored.astype(int) + 32768, 0, 29999)
    np.testing.assert_array_equal(decode_dicom(data, LIMIT).grey, np.rint(place * 2 / 65535 * 255))


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
@pytest.mark.parametrize("count", [4096, 4095])
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_8_bits(syntax: str, count: int, packed: bool) -> None:
    entries = np.arange(count) // 16
    order = ">" if syntax == "big endian" else "<"
    if packed:  # two entries a word, the first one in its lower half
        pairs = np.append(entries, [0] * (count % 2)).astype(np.uint8).view("<u2")
        data = pairs.astype(order + "u2").tobytes()
    else:
        data = entries.astype(order + "u2").tobytes()
    stored = values_of(12, signed=False)
    made = make(stored, 12, syntax=SYNTAXES[syntax], VOILUTSequence=table(0, 8, data, count))
    expected = entries[np.minimum(stored, count - 1)]
    np.testing.assert_array_equal(decode_dicom(made, LIMIT).grey, expected)


def test_a_table_of_65536_entries_says_0() -> None:
    stored = values_of(16, signed=False)
    entries = np.arange(65535, -1, -1).astype("<u2")
    made = make(
        stored,
        ModalityLUTSequence=table(0, 16, entries.tobytes(), 0),
        WindowCenter=32768,
        WindowWidth=65536,
    )
    expected = np.rint((65535 - stored.astype(float)) / 65535 * 255)
    np.testing.assert_array_equal(decode_dicom(made, LIMIT).grey, expected)


def test_implicit_syntax_tells_the_sign_of_a_table_by_the_pixels() -> None:
    stored = values_of(12, signed=True)
    lut = table(-100, 12, list(range(4096)))
    one, two = (
        decode_dicom(make(stored, 12, syntax=SYNTAXES[name], ModalityLUTSequence=lut), LIMIT)
        for name in ("explicit", "implicit")
    )
    np.testing.assert_array_equal(one.grey, two.grey)
    unsigned = table(65536 - 100, 12, list(range(4096)))  # as some writers put it
    three = decode_dicom(make(stored, 12, ModalityLUTSequence=unsigned), LIMIT)
    np.testing.assert_array_equal(one.grey, three.grey)


def test_the_narrowest_window_is_a_threshold() -> None:
    stored = values_of(8, signed=False)
    for function, width in (("LINEAR", 1), ("LINEAR_EXACT", "1E-300"), ("SIGMOID", "1E-300")):
        data = make(stored, WindowCenter=100.5, WindowWidth=width, VOILUTFunction=function)
        np.testing.assert_array_equal(decode_dicom(data, LIMIT).grey, np.where(stored > 100, 255, 0))


@pytest.mark.parametrize("inverted", [False, True])
def test_a_constant_image_is_black_or_white(inverted: bool) -> None:
    data = make(np.full((20, 20), 7, np.uint16), 12, f"MONOCHROME{2 - inverted}")
    assert np.unique(decode_dicom(data, LIMIT).grey).tolist() == [255 if inverted else 0]


def test_bits_above_those_stored_are_ignored() -> None:
    stored = values_of(12, signed=False)
    overlay = stored | np.uint16(0x8000)  # an old overlay plane in the highest bit
    one, two = (decode_dicom(make(image, 12), LIMIT) for image in (stored, overlay))
    np.testing.assert_array_equal(one.grey, two.grey)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_all_syntaxes_give_the_same_pixels(syntax: str, bits: int, signed: bool) -> None:
    stored = values_of(bits, signed, (17, 19))  # an odd number of bytes for 8 bits
    plain = decode_dicom(make(stored, bits), LIMIT)
    other = decode_dicom(make(stored, bits, syntax=SYNTAXES[syntax]), LIMIT)
    np.testing.assert_array_equal(plain.grey, other.grey)
    assert plain.header == other.header
    assert plain.flags == other.flags


@pytest.mark.parametrize("frame", range(3))
def test_big_endian_8_bit_words_are_swapped(frame: int) -> None:
    stored = values_of(8, False, (3, 17, 19))
    raw = np.frombuffer(stored.tobytes() + b"\0", "<u2").astype(">u2").tobytes()
    data = make(stored, syntax=uid.ExplicitVRBigEndian, Frames=3)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset["PixelData"].VR = "OW"
    dataset["PixelData"].value = raw
    expected = decode_dicom(make(stored[frame]), LIMIT).grey
    np.testing.assert_array_equal(decode_dicom(written(dataset), LIMIT, frame).grey, expected)


@pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit"])
def test_bundled_twins(name: str) -> None:
    one, two = (decode_dicom(bundled(f"MR_small{tail}.dcm"), LIMIT) for tail in ("", f"_{name}"))
    np.testing.assert_array_equal(one.grey, two.grey)


# ---- colour


def luma(rgb: Array) -> Array:
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_rgb_becomes_luma(syntax: str) -> None:
    rgb = values_of(8, False, (20, 24, 3))
    decoded = decode_dicom(make(rgb, 8, "RGB", SYNTAXES[syntax]), LIMIT)
    assert np.abs(decoded.grey - luma(rgb)).max() < 0.51
    assert decoded.flags == ("colour",)
    assert decoded.header.channels == 3


def test_planes_one_after_the_other() -> None:
    rgb = values_of(8, False, (20, 24, 3))
    one = make(rgb, 8, "RGB")
    planes = rgb.transpose(2, 0, 1).tobytes()
    two = make(rgb, 8, "RGB", PlanarConfiguration=1, PixelData=planes)
    np.testing.assert_array_equal(decode_dicom(one, LIMIT).grey, decode_dicom(two, LIMIT).grey)


def test_16_bit_colour_is_stretched_like_grey() -> None:
    grey = values_of(16, False)
    decoded = decode_dicom(make(np.dstack([grey] * 3), 16, "RGB"), LIMIT)
    assert np.abs(decoded.grey.astype(int) - decode_dicom(make(grey), LIMIT).grey).max() <= 1
    assert decoded.flags == ("16-bit", "colour")


@pytest.mark.parametrize("subsampled", [False, True])
def test_ybr_becomes_the_luma_of_its_rgb(subsampled: bool) -> None:
    y = np.random.default_rng(0).integers(90, 160, (20, 24)).astype(np.uint8)
    blue, red = np.full_like(y, 120), np.full_like(y, 140)
    ybr = np.dstack([y, blue, red])
    expected = luma(np.dstack([y + 1.402 * 12, y - 0.344136 * -8 - 0.714136 * 12, y + 1.772 * -8]))
    data = make(ybr, 8, "YBR_FULL")
    if subsampled:
        pairs = np.stack([y[:, ::2], y[:, 1::2], blue[:, ::2], red[:, ::2]], axis=-1)
        data = make(ybr, 8, "YBR_FULL_422", PixelData=pairs.tobytes())
    assert np.abs(decode_dicom(data, LIMIT).grey - expected).max() < 1.1


# ---- frames


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_middle_frame_or_the_one_that_is_asked_for(syntax: str, count: int) -> None:
    stored = values_of(16, False, (count, 18, 17))
    data = make(stored, syntax=SYNTAXES[syntax], Frames=count)
    grey = [decode_dicom(make(frame), LIMIT).grey for frame in stored]
    decoded = decode_dicom(data, LIMIT)
    np.testing.assert_array_equal(decoded.grey, grey[count // 2])
    assert decoded.header.pages == count
    assert ("multi-frame" in decoded.flags) == (count > 1)
    for index in range(count):
        np.testing.assert_array_equal(decode_dicom(data, LIMIT, index).grey, grey[index])
    for index in (-1, count, 10**9):
        refused(data, Status.DECODE_ERROR, frame=index)


def test_enhanced_images_have_slope_and_window_in_their_functional_groups() -> None:
    stored = values_of(12, False, (2, 18, 17))
    shared = item(
        PixelValueTransformationSequence=item(RescaleSlope=2, RescaleIntercept=-100),
        FrameVOILUTSequence=item(WindowCenter=1, WindowWidth=2),
    )
    own = [
        item(FrameVOILUTSequence=item(WindowCenter=c, WindowWidth=3000, VOILUTFunction="LINEAR_EXACT"))
        for c in (3000, 5000)
    ]
    data = make(
        stored,
        12,
        Frames=2,
        SharedFunctionalGroupsSequence=shared,
        PerFrameFunctionalGroupsSequence=[*own[0], *own[1]],
        WindowCenter=5,
        WindowWidth=10,
    )
    for index, c in enumerate((3000, 5000)):
        expected = oracle(stored[index], (2, -100), ("LINEAR_EXACT", c, 3000))
        np.testing.assert_array_equal(decode_dicom(data, LIMIT, index).grey, expected)


def test_header() -> None:
    decoded = decode_dicom(make(values_of(12, True, (20, 24)), 12), LIMIT)
    header = decoded.header
    assert (header.format, header.width, header.height) == ("dicom", 24, 20)
    assert (header.bit_depth, header.channels, header.pages) == (12, 1, 1)
    assert (header.alpha, header.orientation) == (False, 1)
    assert decoded.grey.shape == (20, 24)
    assert decoded.grey.flags.c_contiguous


# ---- broken files


def cuts(data: bytes) -> list[bytes]:
    # Two bytes at the end: the last one may be the padding of deflated content.
    return [data[: len(data) * k // 11] for k in range(1, 11)] + [data[:-2]]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cut_sample_gives_no_pixels(name: str) -> None:
    data = bundled(name)
    decode_dicom(data, LIMIT)
    for part in cuts(data):
        refused(part)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_file_cut_anywhere_gives_no_pixels(syntax: str) -> None:
    stored = np.random.default_rng(0).integers(0, 9, (2, 16, 16)).astype(np.uint16)
    data = make(stored, syntax=SYNTAXES[syntax], Frames=2, WindowCenter=4, WindowWidth=9)
    decode_dicom(data, LIMIT)
    for end in range(0, len(data) - 1, 7):
        assert refused(data[:end]).status in (
            Status.TRUNCATED,
            Status.UNSUPPORTED,
            Status.DECODE_ERROR,
        )
    for end in range(len(data) - 600, len(data), 5):  # in the pixels
        if syntax in ("implicit", "explicit", "big endian"):
            refused(data[:end], Status.TRUNCATED)


def test_a_sequence_behind_the_pixels_may_be_cut_as_little() -> None:
    stored = values_of(8, False)
    data = make(stored, DigitalSignaturesSequence=item(MACIDNumber=1))
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset["DigitalSignaturesSequence"].is_undefined_length = True
    undefined = written(dataset)
    for whole in (data, undefined):
        np.testing.assert_array_equal(
            decode_dicom(whole, LIMIT).grey, decode_dicom(make(stored), LIMIT).grey
        )
        for lost in range(1, 24):
            refused(whole[:-lost])


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_pixel_of_the_file_before(syntax: str) -> None:
    window = {"WindowCenter": 1000, "WindowWidth": 2001, "VOILUTFunction": "LINEAR_EXACT"}
    first = make(np.full((64, 64), 1111, np.uint16), syntax=SYNTAXES[syntax], **window)
    second = make(np.full((64, 64), 7, np.uint16), syntax=SYNTAXES[syntax], **window)
    level = [int(decode_dicom(data, LIMIT).grey[0, 0]) for data in (first, second)]
    assert level[0] != level[1]
    for part in cuts(second):
        decode_dicom(first, LIMIT)
        refused(part)
        assert np.unique(decode_dicom(second, LIMIT).grey).tolist() == [level[1]]


@pytest.mark.parametrize("name", SAMPLES)
def test_flipped_bits_give_pixels_or_a_reason(name: str) -> None:
    data = bundled(name)
    random = np.random.default_rng(0)
    refusals = 0
    for _ in range(35):
        damaged = bytearray(data)
        for _ in range(random.integers(1, 4)):
            damaged[int(random.integers(128, 2000))] ^= 1 << int(random.integers(8))
        try:
            decoded = decode_dicom(bytes(damaged), LIMIT)
        except FileError:
            refusals += 1
        else:
            assert isinstance(decoded, Decoded)
            assert decoded.grey.shape == (decoded.header.height, decoded.header.width)
    assert refusals > 0


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "lie",
    [
        {"Rows": 25},
        {"Rows": 16},
        {"Columns": 23},
        {"Columns": 48},
        {"NumberOfFrames": 3},
        {"NumberOfFrames": 2**31 - 1},
        {"NumberOfFrames": 0},
        {"NumberOfFrames": -1},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"SamplesPerPixel": 3},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
    ],
    ids=str,
)
def test_pixels_that_do_not_fit_the_header(syntax: str, lie: dict[str, Any]) -> None:
    refused(make(values_of(16, False), syntax=SYNTAXES[syntax], **lie))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_more_frames_than_the_header_says(syntax: str) -> None:
    stored = values_of(16, False, (3, 20, 20))
    for count in (1, 2, 4):
        data = make(stored, syntax=SYNTAXES[syntax], Frames=3, NumberOfFrames=count)
        refused(data)
        refused(data, frame=0)
    refused(make(stored, syntax=SYNTAXES[syntax], Frames=3, NumberOfFrames=None))


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian", "deflated"])
def test_too_few_and_too_many_bytes_of_pixels(syntax: str) -> None:
    stored = values_of(8, False, (17, 17))
    raw = stored.tobytes()
    for extra in (b"", b"\0"):  # the padding to an even length is the only excess
        assert decode_dicom(make(stored, syntax=SYNTAXES[syntax], PixelData=raw + extra), LIMIT)
    refused(make(stored, syntax=SYNTAXES[syntax], PixelData=raw[:-1]), Status.TRUNCATED)
    refused(make(stored, syntax=SYNTAXES[syntax], PixelData=raw + b"\0\0\0"), Status.DECODE_ERROR)
    refused(make(stored, syntax=SYNTAXES[syntax], PixelData=raw * 2 + b"\0"), Status.DECODE_ERROR)
    refused(make(stored, syntax=SYNTAXES[syntax], PixelData=b""), Status.TRUNCATED)


def test_zero_bytes_behind_the_end_are_padding_and_others_are_not() -> None:
    data = make(values_of(8, False))
    grey = decode_dicom(data, LIMIT).grey
    for count in (1, 7, 8, 512, 1001):
        np.testing.assert_array_equal(decode_dicom(data + bytes(count), LIMIT).grey, grey)
    for rest in (b"x", b"\0\0\0x", b"garbage that is no element", data):
        refused(data + rest)


def test_rle_that_would_fill_the_memory() -> None:
    stored = np.zeros((20, 20), np.uint8)
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    for runs in (5, 1000, 400_000):
        stream = header + b"\x81\0" * runs  # 128 zeros each
        data = make(stored, syntax=uid.RLELossless, PixelData=encapsulate([stream]))
        tracemalloc.start()
        refused(data, Status.DECODE_ERROR)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000_000


def test_fragments_that_are_no_fragments() -> None:
    data = make(values_of(16, False), syntax=uid.RLELossless)
    good = pydicom.dcmread(io.BytesIO(data)).PixelData
    assert data.count(good) == 1
    stream = next(generate_frames(good, number_of_frames=1))
    half = len(stream) // 4 * 2
    for value in (
        b"",
        good[8:],  # no offset table
        good[:8],  # nothing else
        encapsulate([stream, stream]),
        encapsulate([stream], fragments_per_frame=2),
        encapsulate([stream[:half]]),
        encapsulate([stream[:64]]),
        encapsulate([stream + stream]),
        good + b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
        good + b"\xfe\xff\x00\xe0\xff\x00\x00\x00",
        b"\xfe\xff\x00\xe0\x04\0\0\0\xff\xff\xff\x7f" + good[8:],
        values_of(16, False).tobytes(),
    ):
        refused(data.replace(good, value))


def test_deflated_content(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.zeros((300, 300), np.uint16)
    data = make(stored, syntax=SYNTAXES["deflated"])
    assert len(data) < 2000
    decode_dicom(data, LIMIT)
    start = data.index(b"\x02\x00\x13\x00")  # ImplementationVersionName, the last of the file meta
    start += 8 + struct.unpack_from("<H", data, start + 6)[0]
    refused(data[:start] + zlib.compress(bytes(100)))
    monkeypatch.setattr(dicom_header, "MAX_BYTES", 100_000)
    assert "100,000 bytes" in refused(data, Status.TOO_LARGE).message


# ---- refused files


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("reportsi.dcm", Status.NOT_AN_IMAGE),
        ("DICOMDIR", Status.NOT_AN_IMAGE),
        ("test-SR.dcm", Status.NOT_AN_IMAGE),
        ("waveform_ecg.dcm", Status.NOT_AN_IMAGE),
        ("rtdose.dcm", Status.NOT_AN_IMAGE),
        ("liver_1frame.dcm", Status.NOT_AN_IMAGE),
        ("examples_palette.dcm", Status.UNSUPPORTED),
        ("SC_rgb_rle_32bit.dcm", Status.UNSUPPORTED),
        ("no_meta.dcm", Status.UNSUPPORTED),
        ("meta_missing_tsyntax.dcm", Status.UNSUPPORTED),
        ("MR_truncated.dcm", Status.TRUNCATED),
        ("rtplan_truncated.dcm", Status.TRUNCATED),
        ("MR_small_padded.dcm", Status.DECODE_ERROR),
        ("SC_rgb_small_odd.dcm", Status.TOO_SMALL),
    ],
)
def test_bundled_files_that_are_refused(name: str, status: Status) -> None:
    refused(bundled(name), status)


def test_the_kind_of_a_file_without_pixels_is_named() -> None:
    assert "Basic Text SR Storage" in refused(bundled("reportsi.dcm")).message


@pytest.mark.parametrize(
    ("keyword", "is_image"),
    [
        ("MRImageStorage", True), ("EnhancedMRImageStorage", True), ("CTImageStorage", True),
        ("SecondaryCaptureImageStorage", True), ("RTImageStorage", True),
        ("EnhancedRTImageStorage", True), ("PositronEmissionTomographyImageStorage", True),
        ("SegmentationStorage", False), ("RTDoseStorage", False), ("RTPlanStorage", False),
        ("RTStructureSetStorage", False), ("EncapsulatedPDFStorage", False),
        ("GrayscaleSoftcopyPresentationStateStorage", False), ("RawDataStorage", False),
        ("KeyObjectSelectionDocumentStorage", False), ("BasicTextSRStorage", False),
        ("TwelveLeadECGWaveformStorage", False), ("SpatialRegistrationStorage", False),
        ("MediaStorageDirectoryStorage", False), ("MRSpectroscopyStorage", False),
    ],
)  # fmt: skip
def test_objects_without_an_image_by_their_sop_class(keyword: str, is_image: bool) -> None:
    """By what the object is, not by what it lacks: a segmentation has pixels, and they are no image."""
    data = make(IMAGE, 12, SOPClassUID=getattr(uid, keyword))
    if is_image:
        decode_dicom(data, LIMIT)
    else:
        assert "holds no image by design" in refused(data, Status.NOT_AN_IMAGE).message


IMAGE = values_of(12, False)


@pytest.mark.parametrize(
    ("status", "values"),
    [
        (Status.DECODE_ERROR, {"BitsStored": 12, "HighBit": 15}),
        (Status.DECODE_ERROR, {"BitsStored": 17, "HighBit": 16}),
        (Status.UNSUPPORTED, {"BitsStored": 7, "HighBit": 6}),
        (Status.UNSUPPORTED, {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}),
        (Status.UNSUPPORTED, {"BitsAllocated": 32}),
        (Status.UNSUPPORTED, {"BitsAllocated": 12}),
        (Status.DECODE_ERROR, {"PixelRepresentation": 2}),
        (Status.DECODE_ERROR, {"PixelRepresentation": None}),
        (Status.DECODE_ERROR, {"HighBit": None}),
        (Status.DECODE_ERROR, {"Rows": None}),
        (Status.DECODE_ERROR, {"Rows": [20, 20]}),
        (Status.UNSUPPORTED, {"PhotometricInterpretation": "PALETTE COLOR"}),
        (Status.UNSUPPORTED, {"PhotometricInterpretation": NAME}),
        (Status.UNSUPPORTED, {"PhotometricInterpretation": None}),
        (Status.DECODE_ERROR, {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}),
        (Status.DECODE_ERROR, {"RescaleSlope": 1}),
        (Status.DECODE_ERROR, {"RescaleIntercept": 1}),
        (Status.DECODE_ERROR, {"RescaleSlope": 0, "RescaleIntercept": 1}),
        (Status.DECODE_ERROR, {"RescaleSlope": "1E300", "RescaleIntercept": 1}),
        (Status.DECODE_ERROR, {"WindowCenter": 1}),
        (Status.DECODE_ERROR, {"WindowCenter": 1, "WindowWidth": 0.5}),
        (Status.DECODE_ERROR, {"WindowCenter": 1, "WindowWidth": -3}),
        (Status.DECODE_ERROR, {"WindowCenter": 1, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}),
        (Status.UNSUPPORTED, {"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "JANE"}),
        (Status.DECODE_ERROR, {"VOILUTSequence": table(0, 12, [1, 2, 3], 4)}),
        (Status.DECODE_ERROR, {"VOILUTSequence": table(0, 12, [1, 2, 3], 2)}),
        (Status.DECODE_ERROR, {"VOILUTSequence": table(0, 12, [1, 2, 4096])}),
        (Status.DECODE_ERROR, {"VOILUTSequence": table(0, 7, [1, 2, 3])}),
        (Status.DECODE_ERROR, {"VOILUTSequence": table(0, 17, [1, 2, 3])}),
        (Status.DECODE_ERROR, {"VOILUTSequence": item(LUTExplanation=NAME)}),
        (Status.DECODE_ERROR, {"ModalityLUTSequence": table(0, 16, b"\1\0\2\0", 3)}),
        (Status.TRUNCATED, {"PixelData": None}),
        (Status.NOT_AN_IMAGE, {"SOPClassUID": uid.SegmentationStorage}),
        (Status.NOT_AN_IMAGE, {"SOPClassUID": uid.RTDoseStorage}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value,
)
def test_inconsistent_headers(status: Status, values: dict[str, Any]) -> None:
    refused(make(IMAGE, 12, **values), status)


@pytest.mark.parametrize("number", [b"nan ", b"inf ", b"-inf", b"1e99", b"JANE", b"1\\NA", b"0x10"])
def test_numbers_that_are_none(number: bytes) -> None:
    data = make(IMAGE, 12, RescaleSlope="2.25", RescaleIntercept=1)
    assert data.count(b"2.25") == 1
    refused(data.replace(b"2.25", number), Status.DECODE_ERROR)


def test_empty_attributes_are_none() -> None:
    plain = decode_dicom(make(IMAGE, 12), LIMIT)
    empty = {"WindowCenter": "", "WindowWidth": "", "RescaleSlope": "", "RescaleIntercept": ""}
    other = decode_dicom(make(IMAGE, 12, **empty, NumberOfFrames="", VOILUTSequence=[]), LIMIT)
    np.testing.assert_array_equal(plain.grey, other.grey)
    assert other.flags == ("16-bit",)


def test_limits_are_checked_before_the_pixels() -> None:
    data = make(IMAGE, 12)  # 20 x 24
    assert decode_dicom(data, 480)
    with pytest.raises(FileError, match="479") as caught:
        decode_dicom(data, 479)
    assert caught.value.status is Status.TOO_LARGE
    huge = make(np.zeros((16, 16), np.uint8), Rows=65535, Columns=65535)
    refused(huge, Status.TOO_LARGE)
    refused(make(np.zeros((16, 15), np.uint8)), Status.TOO_SMALL)


def test_bytes_that_are_no_dicom_file() -> None:
    data = make(IMAGE, 12)
    for other in (b"", b"DICM", bytes(132), bytes(128) + b"DICN" + data[132:], data[132:]):
        refused(other, Status.UNSUPPORTED)
    refused(data[:132])


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.90.1", uid.MPEG2MPML, uid.HTJ2K])
def test_other_transfer_syntaxes(syntax: str) -> None:
    meta = make(IMAGE, 12)
    at = meta.index(b"\x02\0\x10\0UI")
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    changed = b"\x02\0\x10\0UI" + struct.pack("<H", len(value)) + value
    refused(meta[:at] + changed + meta[at + 8 + meta[at + 6] :], Status.UNSUPPORTED)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        available_plugins = ()

    monkeypatch.setattr(stored_values, "get_decoder", lambda _: Nothing)
    data = bundled("MR_small_jp2klossless.dcm")
    assert "pip install python-gdcm" in refused(data, Status.UNSUPPORTED).message


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(dicom_header, "read_dataset", fail)
    with pytest.raises(MemoryError):  # the machine's fault: no status of the file
        decode_dicom(make(IMAGE, 12), 10**6)


# ---- patients' data


def hostile() -> list[bytes]:
    """Files whose every text is the patient's name, broken in many ways."""
    name = f"{NAME} {ID}"
    good = make(
        IMAGE, 12, SeriesDescription=name, StudyID=ID, Modality="DOE", WindowCenter=1, WindowWidth=2
    )
    files = [good[:end] for end in range(130, len(good), 41)]
    files += [
        good.replace(b"1.2.840.10008.1.2.1\0", b"DOE^JANE MRN-4711-X\0"),
        good.replace(uid.MRImageStorage.encode(), b"DOE^JANE MRN-4711-X.4.12"[:25].ljust(25)),
        make(IMAGE, 12, PhotometricInterpretation=name),
        make(IMAGE, 12, VOILUTFunction=name, WindowCenter=1, WindowWidth=2),
        make(IMAGE, 12, RescaleSlope="1.5", RescaleIntercept=0).replace(b"1.5 ", b"DOE "),
        make(IMAGE, 12, NumberOfFrames=1234).replace(b"1234", b"JANE"),
        make(IMAGE, 12, SpecificCharacterSet="ISO_IR 100").replace(b"ISO_IR 100", b"DOE^JANE!!"),
        make(IMAGE, 12).replace(b"PN\x08\0", b"PN\x09\0"),
        make(IMAGE, 12).replace(b"LO\x0a\0", b"SQ\x0a\0"),
        make(IMAGE, 12).replace(b"PN\x08\0", b"DS\x08\0"),
    ]
    return files


def test_nothing_of_the_patient_in_messages_logs_or_warnings(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    files = hostile()
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in files:
            for call in (lambda d: decode_dicom(d, LIMIT), lambda d: patient_key(d, b"secret")):
                try:
                    call(data)
                except FileError as error:
                    messages.append(error.message)
    assert len(messages) > 40
    for message in messages:
        assert not any(secret in message for secret in SECRETS), message
        assert re.fullmatch(r"[\x20-\x7e]{5,120}", message), message
    assert not caught
    assert not caplog.records
    out, err = capfd.readouterr()
    assert not out
    assert not err


def test_pydicom_stays_as_loud_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    decode_dicom(make(IMAGE, 12), LIMIT)
    logging.getLogger("pydicom").warning("one")
    logging.getLogger("pydicom.pixels.decoders.base").warning("two")
    assert caplog.messages == ["one", "two"]
    with pytest.warns(UserWarning, match="three"):
        warnings.warn("three", UserWarning, stacklevel=1)


def test_patient_key() -> None:
    key = patient_key(make(IMAGE, 12), b"site key")
    assert key is not None
    assert re.fullmatch("[0-9a-f]{64}", key)
    # An HMAC by another hand: RFC 2104 over ISSUER "\" ID.
    import hashlib

    def pad(byte: int) -> bytes:
        return bytes(b ^ byte for b in b"site key".ljust(64, b"\0"))

    inner = hashlib.sha256(pad(0x36) + b"\\" + ID.encode()).digest()
    assert key == hashlib.sha256(pad(0x5C) + inner).hexdigest()


def test_equal_patients_have_equal_keys() -> None:
    key = patient_key(make(IMAGE, 12), b"k")
    same = [make(IMAGE + 1, 12, syntax=syntax, PatientName="OTHER") for syntax in SYNTAXES.values()]
    same += [make(IMAGE, 12, PatientID=f" {ID} "), make(IMAGE, 12, IssuerOfPatientID="")]
    same += [make(IMAGE, 12)[:-100]]  # the header is enough
    assert {patient_key(data, b"k") for data in same} == {key}


def test_other_patients_and_secrets_have_other_keys() -> None:
    files = [
        make(IMAGE, 12),
        make(IMAGE, 12, PatientID=ID + "1"),
        make(IMAGE, 12, PatientID=ID.lower()),
        make(IMAGE, 12, IssuerOfPatientID="A"),
        make(IMAGE, 12, PatientID="A" + ID),
        make(IMAGE, 12, IssuerOfPatientID="AM", PatientID=ID[1:]),
    ]
    keys = {patient_key(data, secret) for data in files for secret in (b"one", b"two")}
    assert len(keys) == 12
    assert not any(key is None or ID in key for key in keys)


def test_patients_without_an_id_have_no_key() -> None:
    for value in (None, "", " ", "\0"):
        assert patient_key(make(IMAGE, 12, PatientID=value, IssuerOfPatientID="A"), b"k") is None
    with pytest.raises(ValueError, match="secret"):
        patient_key(make(IMAGE, 12), b"")


def test_a_cut_id_is_no_id() -> None:
    data = make(IMAGE, 12)
    at = data.index(ID.encode())
    for end in (at - 3, at, at + 2, at + len(ID)):
        with pytest.raises(FileError):
            patient_key(data[:end], b"k")
    for other in (b"", bytes(200)):
        with pytest.raises(FileError):
            patient_key(other, b"k")


def test_tensorflow_is_not_loaded() -> None:
    source = "import sys, tumorbatch.preprocess.dicom.decode; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", source], cwd=root).returncode == 0
