"""DICOM: bits above those stored, padding, odd containers, malformed values, bare data sets."""

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from tests.preprocess.conftest import Build
from tests.preprocess.dicom.test_decode import make, refused
from tumorbatch.files import is_dicom
from tumorbatch.infer.listing import Selection, list_files
from tumorbatch.preprocess.decode import decode
from tumorbatch.preprocess.dicom.decode import decode_dicom
from tumorbatch.preprocess.dicom.header import DicomImage
from tumorbatch.preprocess.dicom.stored_values import _within_stored_bits
from tumorbatch.status import Status

LIMIT = 1_000_000
HEIGHT, WIDTH = 32, 40


def _with_stream(native: bytes, syntax: uid.UID, stream: bytes, **values: Any) -> bytes:
    """The file with a compressed stream in place of its pixels."""
    dataset = pydicom.dcmread(io.BytesIO(native))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _stream_of(native: bytes, syntax: str, folder: Path) -> bytes:
    """The code stream that gdcm makes of an uncompressed file's pixels."""
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm, of the extra dicom, is not installed")
    original, copy = folder / "original.dcm", folder / "copy.dcm"
    original.write_bytes(native)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(original))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(copy))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return next(generate_frames(pydicom.dcmread(copy).PixelData, number_of_frames=1))


@pytest.mark.parametrize("high", [0, 0xF000, 0x5000])
@pytest.mark.parametrize("given", [np.uint16, np.int16])
def test_bits_above_those_stored(high: int, given: type) -> None:
    words = (np.array([0, 1, 0x7FF, 0x800, 0xFFF], np.uint16) | np.uint16(high)).view(given)
    described = {"rows": 1, "columns": 5, "samples_per_pixel": 1, "bits_allocated": 16}
    described |= {"number_of_frames": 1, "planar_configuration": 0}
    for signed, bits, expected in (
        (0, 12, [0, 1, 2047, 2048, 4095]),
        (1, 12, [0, 1, 2047, -2048, -1]),
        (0, 16, words.view(np.uint16)),
        (1, 16, words.view(np.int16)),
    ):
        image = DicomImage(
            **described,
            bits_stored=bits,
            pixel_representation=signed,
            photometric_interpretation="MONOCHROME2",
        )
        np.testing.assert_array_equal(_within_stored_bits(words, image), expected)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("JPEGLSLossless", uid.JPEGLSLossless),
        ("JPEG2000Lossless", uid.JPEG2000Lossless),
        ("JPEGLosslessProcess14_1", uid.JPEGLosslessSV1),
    ],
)
def test_high_bits_that_a_codec_hands_over(
    name: str, syntax: uid.UID, signed: bool, tmp_path: Path
) -> None:
    """As dcmtk's dcmcjpls writes 12 bits: precision 16, whatever lies in the upper bits coded too."""
    values = Build.smooth(HEIGHT, WIDTH).astype(np.int16) * 10 - (1000 if signed else 0)
    plain = make(values if signed else values.astype(np.uint16), 12)
    for high in (0, 0x3000):
        words = values.view(np.uint16) & 0xFFF | high
        stream = _stream_of(make(words.astype(np.uint16), 16), name, tmp_path)
        done = decode_dicom(_with_stream(plain, syntax, stream), LIMIT)
        np.testing.assert_array_equal(done.grey, decode_dicom(plain, LIMIT).grey)


def test_8_bits_of_jpeg_in_16_allocated() -> None:
    pytest.importorskip("gdcm", reason="python-gdcm, of the extra dicom, is not installed")
    pixels = Build.smooth(HEIGHT, WIDTH)
    jpeg = Build.encode(".jpg", pixels)
    native = make(pixels.astype(np.uint16), 8)
    seen = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    done = decode_dicom(_with_stream(native, uid.JPEGBaseline8Bit, jpeg), LIMIT)
    np.testing.assert_array_equal(done.grey, decode_dicom(make(seen), LIMIT).grey)
    twelve = make(pixels.astype(np.uint16), 12)
    error = refused(_with_stream(twelve, uid.JPEGBaseline8Bit, jpeg), Status.DECODE_ERROR)
    assert "BitsStored 12" in error.message


def test_jpeg_2000_in_a_file_of_its_own(tmp_path: Path) -> None:
    native = make(Build.smooth(HEIGHT, WIDTH).astype(np.uint16) * 16, 12)
    stream = _stream_of(native, "JPEG2000Lossless", tmp_path)
    start = struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A)
    kind = struct.pack(">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ")
    for box in (
        struct.pack(">I4s", 8 + len(stream), b"jp2c"),
        struct.pack(">I4s", 0, b"jp2c"),
        struct.pack(">I4sQ", 1, b"jp2c", 16 + len(stream)),
    ):
        data = _with_stream(native, uid.JPEG2000Lossless, start + kind + box + stream)
        np.testing.assert_array_equal(decode_dicom(data, LIMIT).grey, decode_dicom(native, LIMIT).grey)
    for empty in (start + kind, start + kind + b"\0\0\0\4jp2c"):
        error = refused(_with_stream(native, uid.JPEG2000Lossless, empty), Status.DECODE_ERROR)
        assert "JP2" in error.message


def test_odd_bytes_before_the_end_mark_of_a_jpeg() -> None:
    pytest.importorskip("gdcm", reason="python-gdcm, of the extra dicom, is not installed")
    pixels = Build.smooth(HEIGHT, WIDTH)
    jpeg = Build.encode(".jpg", pixels)
    good = decode_dicom(_with_stream(make(pixels), uid.JPEGBaseline8Bit, jpeg), LIMIT)
    odd = jpeg[:-2] + b"\x12\x34\x56" * 5 + jpeg[-2:]
    done = decode_dicom(_with_stream(make(pixels), uid.JPEGBaseline8Bit, odd), LIMIT)
    np.testing.assert_array_equal(done.grey, good.grey)
    assert done.flags == ("extraneous-bytes", "stretched")


# --- padding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("padding", "attributes"),
    [
        (-32768, {"PixelPaddingValue": -32768}),
        (-2000, {"PixelPaddingValue": -2000}),
        (32767, {"PixelPaddingValue": 32767}),
        (-2000, {"PixelPaddingValue": -2100, "PixelPaddingRangeLimit": -1900}),
        (-2000, {"PixelPaddingValue": -1900, "PixelPaddingRangeLimit": -2100}),
    ],
)
def test_padding_has_no_part_in_the_grey_levels(
    padding: int, attributes: dict[str, int], photometric: str
) -> None:
    grey = Build.smooth(HEIGHT, WIDTH).astype(np.int16) * 4
    inside = np.zeros(grey.shape, bool)
    inside[6:-6, 8:-8] = True
    done = decode_dicom(
        make(np.where(inside, grey, padding).astype(np.int16), 16, photometric, **attributes), LIMIT
    )
    low, high = np.percentile(grey[inside], [0.5, 99.5])
    expected = np.clip((grey - low) / (high - low), 0, 1) * 255
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.abs(done.grey - expected)[inside].max() <= 1
    assert not done.grey[~inside].any()


def test_padding_written_as_unsigned_and_nothing_but_padding() -> None:
    grey = Build.smooth(HEIGHT, WIDTH).astype(np.int16) * 4
    grey[:5] = -2000
    signed = make(grey, 16, PixelPaddingValue=-2000)
    dataset = pydicom.dcmread(io.BytesIO(signed))
    del dataset.PixelPaddingValue
    dataset.add_new(0x00280120, "US", 65536 - 2000)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    np.testing.assert_array_equal(
        decode_dicom(stream.getvalue(), LIMIT).grey, decode_dicom(signed, LIMIT).grey
    )
    empty = make(np.full((HEIGHT, WIDTH), -2000, np.int16), 16, PixelPaddingValue=-2000)
    assert not decode_dicom(empty, LIMIT).grey.any()


def test_its_own_window_decides_over_padding() -> None:
    grey = Build.smooth(HEIGHT, WIDTH).astype(np.int16) * 4
    window = {"WindowCenter": 400, "WindowWidth": 500}
    with_padding, without = (
        decode_dicom(make(grey, 16, **window, **more), LIMIT).grey
        for more in ({"PixelPaddingValue": int(grey[0, 0])}, {})
    )
    np.testing.assert_array_equal(with_padding, without)


# --- what is wrong is named -------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"])
def test_a_decimal_comma_is_named(keyword: str) -> None:
    numbers = {"WindowCenter": "201.5", "WindowWidth": "402.5", "RescaleSlope": "1.5"}
    numbers |= {"RescaleIntercept": "-99.5"}
    data = make(Build.smooth(HEIGHT, WIDTH).astype(np.uint16) * 16, 12, **numbers)
    decode_dicom(data, LIMIT)
    text = numbers[keyword].encode()
    error = refused(data.replace(text, text.replace(b".", b",")), Status.DECODE_ERROR)
    assert keyword in error.message


@pytest.mark.parametrize(("photometric", "samples"), [("MONOCHROME2", 3), ("RGB", 1), ("YBR_FULL", 1)])
def test_samples_that_contradict_the_photometric_interpretation(photometric: str, samples: int) -> None:
    shape = (HEIGHT, WIDTH, 3) if samples == 3 else (HEIGHT, WIDTH)
    data = make(np.zeros(shape, np.uint8), 8, photometric, PlanarConfiguration=0)
    error = refused(data, Status.DECODE_ERROR)
    assert "SamplesPerPixel" in error.message
    assert photometric in error.message


# --- without preamble -------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("meta", [False, True])
def test_a_data_set_without_preamble_gets_its_row(tmp_path: Path, syntax: uid.UID, meta: bool) -> None:
    data = make(Build.smooth(HEIGHT, WIDTH).astype(np.uint16), 12, syntax=syntax)
    order = "<" if syntax.is_little_endian else ">"
    bare = data[132:] if meta else data[data.index(struct.pack(order + "HH", 8, 0x16)) :]
    assert is_dicom(bare)
    error = refused(bare, Status.UNSUPPORTED)
    assert "preamble" in error.message
    (tmp_path / "MR.1.2.3.4").write_bytes(bare)
    (tmp_path / "notes").write_text("8 patients")
    (tmp_path / "numbers").write_bytes(struct.pack("<4I", 8, 8, 8, 8) + bytes(200))
    listed = list_files(tmp_path, Selection(), frozenset(), None)
    assert [file.name for file in listed.files] == ["MR.1.2.3.4"]


def test_other_formats_are_not_taken_for_bare_data_sets() -> None:
    pixels = Build.smooth(HEIGHT, WIDTH)
    for suffix in (".jpg", ".png", ".tif", ".bmp", ".webp"):
        data = Build.encode(suffix, pixels)
        assert not is_dicom(data)
        decode(data)
