"""NIfTI volumes: slices as a radiologist sees them, one window, and no image of a damaged file."""

import gzip
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch.files import FoundFile
from tumorbatch.infer.worker import Task, decode_files
from tumorbatch.preprocess.decode import decode, open_image
from tumorbatch.preprocess.image import WINDOW_PERCENTILES
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.status import FileError, Status

TYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768}
RAS = np.diag([1.0, 1.0, 1.0, 1.0])[:3]


def volume(
    voxels: NDArray[Any],
    affine: NDArray[np.float64] | None = RAS,
    slope: float = 1.0,
    order: str = "<",
    **changes: Any,
) -> bytes:
    """Return a NIfTI-1 file, byte by byte.

    Args:
        voxels: [i, j, k] or with more axes.
        affine: [3, 4], index to millimetres to the right, front and head; None: none is stated.
        slope: Of the stored values.
        order: "<" or ">".
        changes: datatype, bitpix, offset, dim.
    """
    kind = voxels.dtype.str[1:]
    dim = changes.get("dim", [voxels.ndim, *voxels.shape] + [1] * (7 - voxels.ndim))
    header = bytearray(348)
    pack = struct.pack_into
    pack(f"{order}i", header, 0, 348)
    pack(f"{order}8h", header, 40, *dim)
    pack(f"{order}2h", header, 70, changes.get("datatype", TYPES.get(kind, 2)),
         changes.get("bitpix", 8 * voxels.itemsize))  # fmt: skip
    pack(f"{order}8f", header, 76, *[1.0] * 8)
    pack(f"{order}3f", header, 108, changes.get("offset", 352.0), slope, 0.0)
    if affine is not None:
        pack(f"{order}2h", header, 252, 0, 2)
        pack(f"{order}12f", header, 280, *np.asarray(affine).ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(4) + voxels.astype(order + kind).tobytes(order="F")


def _ramp(*shape: int, kind: str = "i2") -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape, order="F").astype(kind)


def _refused(data: bytes, status: Status, word: str = "") -> None:
    pytest.importorskip("nibabel", reason="of the extra nifti")
    with pytest.raises(FileError) as caught:
        decode(data)
    assert caught.value.status == status
    assert word in caught.value.message


# --- what is read -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nibabel(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("nibabel", reason="of the extra nifti")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "f4", "f8"])
def test_slices_are_axial_with_the_front_on_top_and_the_right_on_the_left(
    kind: str, order: str
) -> None:
    voxels = (_ramp(16, 18, 3) % 101).astype(kind)
    file = open_image(volume(voxels, order=order))
    assert file.frames == 3
    low, high = np.percentile(voxels.astype(float), WINDOW_PERCENTILES)
    for index in range(3):
        decoded = file.decode(index)
        assert decoded.grey.shape == (18, 16)
        assert (decoded.header.format, decoded.header.pages) == ("nifti", 3)
        for x, y in ((0, 0), (15, 17), (3, 11)):
            expected = np.clip((float(voxels[x, y, index]) - low) / (high - low), 0, 1) * 255
            assert abs(int(decoded.grey[17 - y, 15 - x]) - expected) <= 0.5001
    wide = voxels.itemsize > 1
    assert file.decode().flags == (("16-bit", "multi-frame") if wide else ("multi-frame", "stretched"))
    assert (file.decode().grey == file.decode(1).grey).all()  # the middle one


def test_every_orientation_gives_the_same_slices() -> None:
    """As a scanner stores them: sagittal, turned, mirrored."""
    voxels = _ramp(17, 19, 16) % 251
    expected = [open_image(volume(voxels)).decode(k).grey for k in range(16)]
    left = np.array([[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    sagittal = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])  # i to the front, j up, k right
    for affine, stored in (
        (left, voxels[::-1]),
        (sagittal, voxels.transpose(1, 2, 0)),
    ):
        file = open_image(volume(np.ascontiguousarray(stored), affine))
        assert file.frames == 16
        assert all((file.decode(k).grey == expected[k]).all() for k in range(16))


def test_one_window_holds_for_all_slices() -> None:
    voxels = np.zeros((16, 16, 2), "i2")
    voxels[:, :, 0] = 10
    voxels[:8, :, 1] = 1000
    dark, bright = (open_image(volume(voxels)).decode(k).grey for k in range(2))
    assert dark.max() <= 3  # on its own it would have been stretched
    assert bright.max() == 255


def test_a_negative_slope_turns_the_grey_values_round() -> None:
    voxels = _ramp(16, 16, 1)
    plain, falling = (decode(volume(voxels, slope=slope)).grey for slope in (2.0, -2.0))
    assert (plain == 255 - falling).all()


def test_compressed_files_and_one_slice_and_a_constant_volume() -> None:
    voxels = _ramp(16, 20, 2)
    assert (decode(gzip.compress(volume(voxels))).grey == decode(volume(voxels)).grey).all()
    flat = decode(volume(np.full((16, 20), 7, "i2")))
    assert (flat.grey.shape, flat.header.pages, flat.grey.max()) == ((20, 16), 1, 0)


def test_of_a_series_of_volumes_the_first_is_used() -> None:
    voxels = _ramp(16, 16, 2, 3) % 500
    decoded = decode(volume(voxels))
    assert decoded.flags == ("16-bit", "first-volume", "multi-frame")
    assert (decoded.grey == decode(volume(voxels[..., 0])).grey).all()


def test_a_file_that_lacks_an_orientation_says_so() -> None:
    voxels = _ramp(16, 18, 2) % 97
    decoded = decode(volume(voxels, affine=None))
    assert "no-orientation" in decoded.flags
    mirrored = np.ascontiguousarray(voxels[::-1])  # taken to run from right to left
    assert (decoded.grey == decode(volume(mirrored)).grey).all()


def test_a_volume_is_a_row_a_slice(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(volume(_ramp(20, 20, 4) % 400)))
    task = Task(FoundFile(str(path), "a.nii.gz"))
    (done,) = decode_files([task], Preprocessing(size=32))
    assert [(row["frame"], row["status"], row["format"]) for row in done.rows] == [
        (k, "ok", "nifti") for k in range(1, 5)
    ]
    (limited,) = decode_files([task], Preprocessing(size=32), max_frames=3)
    assert [row["status"] for row in limited.rows] == [Status.TOO_LARGE]


# --- what is refused --------------------------------------------------------------------------------


def test_damaged_files_give_no_image() -> None:
    whole = volume(_ramp(16, 16, 2))
    packed = gzip.compress(whole)
    _refused(whole[:-1], Status.TRUNCATED, "bytes of voxels")
    _refused(whole[:352], Status.TRUNCATED)
    _refused(packed[:-9], Status.TRUNCATED)
    _refused(packed[:-6] + b"\0\0" + packed[-4:], Status.DECODE_ERROR, "gzip")
    _refused(packed + b"more", Status.DECODE_ERROR, "behind its gzip")
    for changed in (
        volume(_ramp(16, 16, 2), dim=[3, 16, 0, 2, 1, 1, 1, 1]),
        volume(_ramp(16, 16, 2), dim=[9, 16, 16, 2, 1, 1, 1, 1]),
        volume(_ramp(16, 16, 2), offset=8.0),
        volume(_ramp(16, 16, 2), affine=np.full((3, 4), np.nan)),
        volume(_ramp(16, 16, 2), affine=np.zeros((3, 4))),
        volume(np.full((16, 16, 2), np.nan, "f4")),
    ):
        _refused(changed, Status.DECODE_ERROR)


def test_headers_of_random_bytes_are_a_reason() -> None:
    rng = np.random.default_rng(0)
    whole = volume(_ramp(16, 16, 2))
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(4, 344, 6):
            data[at] = rng.integers(256)
        try:
            decode(bytes(data))
        except FileError:
            continue


def test_limits_on_size() -> None:
    _refused(volume(_ramp(15, 16, 2)), Status.TOO_SMALL)
    with pytest.raises(FileError, match="the limit is 100 pixels"):
        open_image(volume(_ramp(16, 16, 2)), max_pixels=100)
    huge = volume(_ramp(16, 16, 2), dim=[7, *[32767] * 7])
    _refused(huge, Status.TRUNCATED)
    bomb = gzip.compress(volume(np.zeros((256, 256, 300), "u1")))
    _refused(bomb, Status.TOO_LARGE, "when inflated")


def test_other_kinds_are_told_what_to_do() -> None:
    _refused(volume(_ramp(16, 16, 2), datatype=32, bitpix=64), Status.UNSUPPORTED, "voxels")
    _refused(volume(_ramp(16, 16, 2)).replace(b"n+1", b"ni1"), Status.UNSUPPORTED, "one .nii")
    _refused(b"NRRD0004\ntype: short\n", Status.UNSUPPORTED, "NIfTI (.nii.gz)")
    _refused(b"ObjectType = Image\nNDims = 3\n", Status.UNSUPPORTED, "NIfTI (.nii.gz)")
    _refused(gzip.compress(b"some text" * 100), Status.UNSUPPORTED, "not a JPEG")


def test_without_nibabel_a_row_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(FileError, match="pip install nibabel") as caught:
        decode(volume(_ramp(16, 16, 2)))
    assert caught.value.status == Status.UNSUPPORTED
