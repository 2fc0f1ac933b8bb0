"""NIfTI volumes (.nii, .nii.gz) as axial slices: grey uint8 images, one a slice.

nibabel, of the extra `nifti`, reads header and orientation. The voxels are taken from the bytes here:
their number, type and place are checked first, and a file that ends too early gives no image.

    slices       axial (across the canonical z axis), the lowest first; each as a radiologist's viewer
                 shows it: the front of the head on top, the patient's right on the left
    grey values  the values between the 0.5th and 99.5th percentile of the whole volume are stretched
                 over 0..255, with one window for all slices
    4 and more   the first volume is used (flag `first-volume`)
    dimensions
    no qform, no sform: the axes are taken to run from right to left, back to front, feet to head, which
                 is ANALYZE's custom and nibabel's (flag `no-orientation`)

Refused are complex and colour voxels, and pairs of .hdr and .img. Sources: NIfTI-1 and NIfTI-2 data
formats, nifti1.h and nifti2.h of the NIfTI working group.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch import machine
from tumorbatch.files import MAX_BYTES
from tumorbatch.preprocess.image import MIN_SIDE, WINDOW_PERCENTILES, Decoded, Header
from tumorbatch.status import FileError, Status

GZIP = b"\x1f\x8b"
_SINGLE = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}  # header size: place, magic of one file
_PAIR = {348: (344, b"ni1\0"), 540: (4, b"ni2\0\r\n\x1a\n")}  # voxels in another file
_HEAD = 544  # bytes that tell a NIfTI file
# Bytes that any file may inflate to, and how many times its size: as for deflated DICOM files.
_INFLATED, _MOST_INFLATION = 16 << 20, 100
_FLOAT32 = np.finfo(np.float32)


def is_nifti(data: bytes) -> bool:
    """Return whether bytes are those of a NIfTI file, compressed or not, also of a pair's header."""
    head = data[:_HEAD]
    if head.startswith(GZIP):
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data[: 4 * _HEAD], _HEAD)
    return _matches(head, _SINGLE) or _matches(head, _PAIR)


def _matches(head: bytes, magics: dict[int, tuple[int, bytes]]) -> bool:
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    places = (magics[size] for size in sizes & magics.keys())
    return any(head[at : at + len(magic)] == magic for at, magic in places)


class NiftiFile:
    """A NIfTI volume whose header is read, once for all of its slices.

    Attributes:
        frames: Number of axial slices.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        """Read the header and the window.

        Args:
            data: A file's content.
            max_pixels: Slices of more pixels are refused.

        Raises:
            FileError: `truncated`, `decode_error`, `too_large`, `too_small`; `unsupported`, also where
                nibabel is missing.
        """
        data = _inflated(data) if data.startswith(GZIP) else data
        header, orientations = _nibabel(data)
        with _described():
            raw, self._flags = _first_volume(data, header)
            self._volume = _canonical(raw, header, orientations)
            slope, _ = header.get_slope_inter()
        self._falling = slope is not None and slope < 0
        width, height, self.frames = self._volume.shape
        size = f"{width} x {height} pixels a slice"
        if width * height > max_pixels:
            raise FileError(Status.TOO_LARGE, f"{size}; the limit is {max_pixels:,} pixels")
        if min(width, height) < MIN_SIDE:
            raise FileError(Status.TOO_SMALL, f"{size}; the least is {MIN_SIDE} a side")
        with machine.believed(2 * raw.nbytes):
            self._low, self._high = _window(raw)

    def decode(self, frame: int | None = None) -> Decoded:
        """Decode a slice, from 0; by default the middle one."""
        index = self.frames // 2 if frame is None else frame
        if not 0 <= index < self.frames:
            raise FileError(Status.DECODE_ERROR, f"it has no slice {index + 1}")
        # [x, y] with x to the patient's right and y to the front becomes rows from the front on.
        values = self._volume[::-1, ::-1, index].T.astype(np.float64)
        span = self._high - self._low
        grey: NDArray[np.uint8] = np.zeros(values.shape, np.uint8)
        if span >= _FLOAT32.smallest_subnormal:
            scaled = (np.clip(values, self._low, self._high) - self._low) * (255.0 / span)
            grey = np.rint(scaled).astype(np.uint8)
        if self._falling:
            grey = 255 - grey
        height, width = grey.shape
        depth = 8 * self._volume.dtype.itemsize
        flags = {
            "16-bit": depth > 8,
            "first-volume": "first-volume" in self._flags,
            "multi-frame": self.frames > 1,
            "no-orientation": "no-orientation" in self._flags,
            "stretched": depth <= 8,
        }
        header = Header("nifti", width, height, depth, 1, pages=self.frames)
        applied = tuple(name for name, is_applied in flags.items() if is_applied)
        return Decoded(np.ascontiguousarray(grey), header, applied)


def _inflated(data: bytes) -> bytes:
    """Undo gzip (RFC 1952), within limits; its checksum is verified."""
    most = min(MAX_BYTES, max(_INFLATED, _MOST_INFLATION * len(data)))
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = inflater.decompress(data, most)
        # All is there, and the last bytes of the stream, its checksum, are not read yet.
        content += inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error:
        raise FileError(Status.DECODE_ERROR, "its gzip stream is damaged") from None
    if len(content) > most or inflater.unconsumed_tail:
        raise FileError(Status.TOO_LARGE, f"more than {most:,} bytes when inflated")
    if not inflater.eof:
        raise FileError(Status.TRUNCATED, "its gzip stream ends too early")
    if inflater.unused_data.strip(b"\0"):
        raise FileError(Status.DECODE_ERROR, "there is more behind its gzip stream")
    return content


def _nibabel(data: bytes) -> tuple[Any, Any]:
    """Return the header, checked by nibabel, and nibabel's functions on orientations."""
    if _matches(data, _PAIR):
        raise FileError(
            Status.UNSUPPORTED, "a NIfTI header whose voxels are in another file: save both as one .nii"
        )
    try:
        import nibabel
        from nibabel import imageglobals, orientations
    except ImportError as error:
        if machine.is_machines(error):
            raise
        raise FileError(Status.UNSUPPORTED, "NIfTI needs nibabel: pip install nibabel") from None
    newer = 540 in (int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big"))
    kind = nibabel.Nifti2Header if newer else nibabel.Nifti1Header
    # No extensions: they decide no voxel, and may be of any size.
    with _described(), imageglobals.LoggingOutputSuppressor():
        return kind.from_fileobj(io.BytesIO(data[: 540 if newer else 348])), orientations


@contextlib.contextmanager
def _described() -> Iterator[None]:
    """Turn whatever nibabel and NumPy raise for a hostile header into a reason."""
    try:
        yield
    except (FileError, MemoryError):
        raise
    except Exception as error:
        if machine.is_machines(error):
            raise
        if isinstance(error, struct.error):
            raise FileError(Status.TRUNCATED, "the file ends inside its header") from None
        raise FileError(Status.DECODE_ERROR, f"not valid NIfTI ({type(error).__name__})") from None


def _first_volume(data: bytes, header: Any) -> tuple[NDArray[Any], set[str]]:
    """Return the stored values of the first volume, [i, j, k], without a copy; and flags."""
    dtype = np.dtype(header.get_data_dtype())
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(Status.UNSUPPORTED, "its voxels are not single whole or floating-point numbers")
    shape = tuple(int(side) for side in header.get_data_shape())
    if len(shape) < 2 or min(shape) < 1:
        raise FileError(Status.DECODE_ERROR, "its dimensions are not those of an image")
    total = 1
    for side in shape:
        total *= side
    start = int(header.get_data_offset())
    if start < int(header.sizeof_hdr):
        raise FileError(Status.DECODE_ERROR, "its voxels begin inside its header")
    if len(data) - start < total * dtype.itemsize:
        raise FileError(
            Status.TRUNCATED,
            f"{max(0, len(data) - start):,} bytes of voxels; its header asks for "
            f"{total * dtype.itemsize:,}",
        )
    volume = (*shape, 1)[:3]
    count = volume[0] * volume[1] * volume[2]
    values: NDArray[Any] = np.frombuffer(data, dtype, count, start).reshape(volume, order="F")
    flags = {"first-volume"} if total > count else set()
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        flags.add("no-orientation")
    return values, flags


def _canonical(raw: NDArray[Any], header: Any, orientations: Any) -> NDArray[Any]:
    """Return a view of [i, j, k] with axes to the patient's right, front and head."""
    affine = np.asarray(header.get_best_affine(), np.float64)
    if not np.isfinite(affine).all():
        raise FileError(Status.DECODE_ERROR, "its orientation is not made of finite numbers")
    found = orientations.io_orientation(affine)
    if np.isnan(found).any():
        raise FileError(Status.DECODE_ERROR, "its orientation has an axis without a direction")
    turned: NDArray[Any] = orientations.apply_orientation(raw, found)
    return turned


def _window(raw: NDArray[Any]) -> tuple[float, float]:
    """Return the two percentiles of a volume, or its extremes where it is nearly constant."""
    values = raw.reshape(-1, order="F").astype(raw.dtype.newbyteorder("="))
    least, most = float(values.min()), float(values.max())
    # Not a number compares as false.
    if not (-_FLOAT32.max <= least and most <= _FLOAT32.max):
        raise FileError(Status.DECODE_ERROR, "some voxel values are infinite or not numbers")
    low, high = (float(value) for value in np.percentile(values, WINDOW_PERCENTILES))
    return (low, high) if high > low else (least, most)
