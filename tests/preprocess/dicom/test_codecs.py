"""DICOM with JPEG, JPEG-LS and JPEG 2000, by the extra `dicom`."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from tumorbatch.preprocess.dicom.decode import decode_dicom
from tumorbatch.status import FileError, Status

gdcm = pytest.importorskip("gdcm", reason="python-gdcm, of the extra dicom, is not installed")

LIMIT = 1_000_000
LOSSLESS = ("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm")
LOSSY = (
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm",
)
SAMPLES = (*LOSSLESS, *LOSSY, "SC_rgb_jls_lossy_line.dcm", "JPEG2000.dcm", "693_J2KI.dcm")


def bundled(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom does not bundle {name}")
    return Path(str(path)).read_bytes()


def stream_of(data: bytes) -> tuple[Dataset, bytes]:
    dataset = pydicom.dcmread(io.BytesIO(data))
    return dataset, next(generate_frames(dataset.PixelData, number_of_frames=1))


def with_streams(dataset: Dataset, *streams: bytes) -> bytes:
    dataset.PixelData = encapsulate(list(streams))
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def refused(data: bytes, status: Status | None = None) -> None:
    with pytest.raises(FileError) as caught:
        decode_dicom(data, LIMIT)
    assert status in (None, caught.value.status), caught.value.message


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_twins(name: str) -> None:
    twin = "SC_rgb_rle.dcm" if name.startswith("SC") else "MR_small.dcm"
    one, two = (decode_dicom(bundled(file), LIMIT) for file in (name, twin))
    np.testing.assert_array_equal(one.grey, two.grey)
    assert one.header == two.header
    assert one.flags == two.flags


@pytest.mark.parametrize(
    "syntax", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless"]
)
@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm"])
def test_lossless_copies(name: str, syntax: str, tmp_path: Path) -> None:
    original, copy = tmp_path / "original.dcm", tmp_path / "copy.dcm"
    original.write_bytes(bundled(name))
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
    one, two = (decode_dicom(path.read_bytes(), LIMIT) for path in (original, copy))
    np.testing.assert_array_equal(one.grey, two.grey)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_jpeg_as_opencv_reads_it(name: str) -> None:
    data = bundled(name)
    _, stream = stream_of(data)
    seen = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(decode_dicom(data, LIMIT).grey - expected).max() <= 2


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cut_sample_gives_no_pixels(name: str) -> None:
    data = bundled(name)
    decode_dicom(data, LIMIT)
    for part in [data[: len(data) * k // 11] for k in range(1, 11)] + [data[:-1], data[:-9]]:
        refused(part)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cut_stream_in_a_whole_file_gives_no_pixels(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bundled(name)
    dataset, stream = stream_of(data)
    np.testing.assert_array_equal(
        decode_dicom(with_streams(dataset, stream), LIMIT).grey, decode_dicom(data, LIMIT).grey
    )
    for k in range(1, 11):
        part = stream[: len(stream) * k // 11]
        decode_dicom(data, LIMIT)  # its pixels must not come back
        refused(with_streams(dataset, part), Status.TRUNCATED)
        refused(with_streams(dataset, part + b"\xff\xd9"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SAMPLES)
def test_streams_of_another_size_or_number(name: str) -> None:
    dataset, stream = stream_of(bundled(name))
    refused(with_streams(dataset, stream, stream), Status.DECODE_ERROR)
    for keyword in ("Rows", "Columns"):
        before = dataset[keyword].value
        for value in (before + 1, before - 1, 2 * before):
            dataset[keyword].value = value
            refused(with_streams(dataset, stream))
        dataset[keyword].value = before
    dataset.NumberOfFrames = 3
    refused(with_streams(dataset, stream), Status.DECODE_ERROR)
    dataset.NumberOfFrames = 2
    two = decode_dicom(with_streams(dataset, stream, stream), LIMIT)
    np.testing.assert_array_equal(two.grey, decode_dicom(bundled(name), LIMIT).grey)


@pytest.mark.parametrize("name", SAMPLES)
def test_bits_that_the_stream_does_not_have(name: str) -> None:
    dataset, stream = stream_of(bundled(name))
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 24 - allocated, 8, 7
    if allocated == 8 and dataset.SamplesPerPixel == 3:
        dataset.BitsStored, dataset.HighBit = 16, 15
    refused(with_streams(dataset, stream), Status.DECODE_ERROR)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
    decode_dicom(with_streams(dataset, stream), LIMIT)


@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", *(name for name in SAMPLES if "rgb" in name)])
def test_compressed_planes_lie_as_their_codec_lays_them(name: str) -> None:
    dataset, stream = stream_of(bundled(name))
    grey = []
    for planar in (0, 1):
        dataset.PlanarConfiguration = planar
        grey.append(decode_dicom(with_streams(dataset, stream), LIMIT).grey)
    np.testing.assert_array_equal(*grey)


def test_a_stream_in_many_fragments() -> None:
    data = bundled("MR_small_jp2klossless.dcm")
    dataset, stream = stream_of(data)
    dataset.PixelData = encapsulate([stream], fragments_per_frame=4)
    file = io.BytesIO()
    dataset.save_as(file)
    np.testing.assert_array_equal(
        decode_dicom(file.getvalue(), LIMIT).grey, decode_dicom(data, LIMIT).grey
    )


def test_jpeg_of_12_bits() -> None:
    refused(bundled("JPEG-lossy.dcm"), Status.UNSUPPORTED)


def test_flipped_bits_give_pixels_or_a_reason() -> None:
    # In its own process: these decoders are C.
    source = """
import sys
import numpy as np
from tumorbatch.preprocess.dicom.decode import decode_dicom
from tumorbatch.status import FileError
random = np.random.default_rng(0)
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    for _ in range(25):
        damaged = bytearray(data)
        for _ in range(random.integers(1, 4)):
            damaged[int(random.integers(128, len(data)))] ^= 1 << int(random.integers(8))
        try:
            decoded = decode_dicom(bytes(damaged), 1_000_000)
            assert decoded.grey.shape == (decoded.header.height, decoded.header.width)
        except FileError:
            pass
"""
    paths = [str(get_testdata_file(name, download=False)) for name in SAMPLES[:-2]]
    done = subprocess.run(
        [sys.executable, "-c", source, *paths],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
