"""JPEG streams to pixels; damage is an error, as it is in `djpeg`.

libjpeg continues after damage, makes pixels up, and prints a warning. `simplejpeg` (libjpeg-turbo)
raises at the first warning and reports only that one. So the cause of a harmless warning is removed
from the stream, which is then decoded again.

libjpeg-turbo has two readers of Huffman codes. The fast one takes an invalid code for a zero; the other
one, which serves streams with restart markers, warns. It takes no more time, so it is used: see
`_for_careful_reader`.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from tumorbatch.preprocess.complaints import complaints
from tumorbatch.preprocess.exif import orientation_of
from tumorbatch.preprocess.image import Header, luma
from tumorbatch.status import FileError, Status

Pixels = NDArray[np.uint8]

MAGIC = b"\xff\xd8\xff"

_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}  # by components
# Frames that are read: baseline, extended and progressive, each also with arithmetic coding.
_READ = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_FRAMES = _READ | {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
# Every marker but padding, restarts and those without a length; none occurs in compressed data.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_JFIF, _EXIF, _ADOBE, _SOS, _EOI, _DRI = 0xE0, 0xE1, 0xEE, 0xDA, 0xD9, 0xDD
_SEQUENTIAL = frozenset({0xC0, 0xC1})  # with Huffman codes: only these have a fast reader
_LONGEST_INTERVAL = 0xFFFF  # between two restart markers, in minimum coded units
_DECISIVE = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDD}  # with the tables of codes and of quantisation, restarts
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
# A writer's padding is short. A scan with a hole in it ends thousands of bytes too early.
_MOST_EXTRANEOUS = 64
_REVISION = "unknown JFIF revision number"
# TurboJPEG knows the usual ratios of colour to luma resolution only; OpenCV's libjpeg knows all.
_UNUSUAL_SAMPLING = "Could not determine subsampling level"


class Frame(NamedTuple):
    """What a frame header says (ITU-T T.81 B.2.2)."""

    marker: int
    bits: int
    height: int
    width: int
    components: int


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, and where its segment begins and ends, up to the end mark, across the scans.

    A decoder takes the zero bytes that may stand in the place of a lost tail for pixels; here they have
    no end mark.
    """
    at = 2
    while match := _MARKER.search(data, at):
        marker = match[0][1]
        if marker == _EOI:
            yield marker, match.start(), match.end()
            return
        (length,) = struct.unpack_from(">H", data, match.end())
        if length < 2:
            raise ValueError("JPEG segment with an impossible length")
        at = match.end() + length
        yield marker, match.start(), at
    raise FileError(Status.TRUNCATED, "the JPEG ends before its end mark")


def read_frame(data: bytes) -> Frame:
    """Read the frame header of a JPEG that has an end mark.

    Raises:
        FileError: `truncated` without an end mark; `unsupported` for lossless and hierarchical
            coding, and for more than 8 bits.
        ValueError: There is no frame header, or a segment without a length.
        struct.error: It ends inside a segment.
    """
    return _frame(data, list(_segments(data)))


def _frame(data: bytes, segments: list[tuple[int, int, int]]) -> Frame:
    """Do what `read_frame` does, once the segments are known."""
    start = next((start for marker, start, _ in segments if marker in _FRAMES), None)
    if start is None:
        raise ValueError("JPEG without a frame header")
    frame = Frame(data[start + 1], *struct.unpack_from(">BHHB", data, start + 4))
    if frame.marker not in _READ or frame.bits != 8:
        kind = (
            f"of {frame.bits} bits" if frame.marker in _READ else "with lossless or hierarchical coding"
        )
        raise FileError(Status.UNSUPPORTED, f"a JPEG {kind}")
    return frame


def read_header(data: bytes) -> Header:
    """Read what a JPEG file says of itself; see `read_frame` for what is raised."""
    segments = list(_segments(data))
    frame = _frame(data, segments)
    orientation = None
    for marker, start, end in segments:
        if marker == _EXIF and data[start + 4 : start + 10] == b"Exif\0\0" and orientation is None:
            orientation = orientation_of(data[start + 10 : end])
    return Header(
        "jpeg", frame.width, frame.height, frame.bits, frame.components, orientation=orientation or 1
    )


def with_colour_transform(data: bytes, ycbcr: bool) -> bytes:
    """Say in the stream itself whether three components are YCbCr or RGB, whatever it said before."""
    segments, at = [data[:2]], 2
    for marker, start, end in _segments(data):
        if marker == _SOS:
            break
        segments.append(data[at : start if marker in (_JFIF, _ADOBE) else end])
        at = end
    adobe = b"\xff\xee\0\x0eAdobe" + struct.pack(">HHHB", 100, 0, 0, ycbcr)
    return b"".join(segments) + adobe + data[at:]


def decode_jpeg(data: bytes, components: int, grey: bool = True) -> tuple[Pixels, bool]:
    """Decode a JPEG of 8 bits a sample, not turned by any Exif orientation.

    Args:
        data: From its start mark to its end mark; what follows is ignored.
        components: As in its frame header: 1, 3 or 4.
        grey: Give luma where there are three components, instead of RGB.

    Returns:
        uint8 [height, width], or with `grey` off and three components RGB [height, width, 3]; and
        whether there were odd bytes that no pixel needed, between segments or before the end mark.
        They may be a writer's, or left over by damage: a scan that came to its end too early.

    Raises:
        FileError: `decode_error`, with libjpeg's first warning or error; `unsupported`.
    """
    if components not in _COLORSPACES:
        raise FileError(Status.DECODE_ERROR, f"a JPEG of {components} components")
    space = "GRAY" if grey and components == 3 else _COLORSPACES[components]
    reason, extraneous = "", False
    data = _for_careful_reader(data)
    for _ in range(4):  # as it is; without each of the three harmless oddities
        try:
            pixels = simplejpeg.decode_jpeg(data, space)
        except ValueError as error:
            reason = str(error)
            if _UNUSUAL_SAMPLING in reason and components == 3:
                return _decode_unusual(data, grey), extraneous
            repaired, odd_bytes = _without_oddity(data, reason)
            if repaired == data:
                break
            data, extraneous = repaired, extraneous or odd_bytes
        else:
            pixels = _grey_of_cmyk(pixels) if components == 4 else pixels
            return (pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), extraneous
    raise FileError(Status.DECODE_ERROR, f"its JPEG is damaged: {reason}")


def _for_careful_reader(data: bytes) -> bytes:
    """Declare restart markers where there are none, further apart than any scan is long.

    No pixel changes, and libjpeg-turbo does not use its fast reader. A scan of more than 65,535 units
    (4.2 megapixels, where a unit is one block of 8 x 8) is left to that one.
    """
    units, interval, first_scan = 1, 0, len(data)
    blocks = most = 0
    for marker, start, _ in _segments(data):
        if marker in _FRAMES:
            if marker not in _SEQUENTIAL:
                return data
            height, width, components = struct.unpack_from(">HHB", data, start + 5)
            sampling = data[start + 11 : start + 10 + 3 * components : 3]
            across = 8 * max((value >> 4 for value in sampling), default=1)
            down = 8 * max((value & 15 for value in sampling), default=1)
            blocks = -(-width // 8) * -(-height // 8)
            units = -(-width // max(across, 1)) * -(-height // max(down, 1))
        elif marker == _DRI and first_scan == len(data):
            (interval,) = struct.unpack_from(">H", data, start + 4)
        elif marker == _SOS:
            first_scan = min(first_scan, start)
            most = max(most, blocks if data[start + 4] == 1 else units)
    if interval or most > _LONGEST_INTERVAL:
        return data
    declared = struct.pack(">BBHH", 0xFF, _DRI, 4, _LONGEST_INTERVAL)
    return data[:first_scan] + declared + data[first_scan:]


def _grey_of_cmyk(inks: Pixels) -> Pixels:
    """Return luma of CMYK [height, width, 4] as Adobe stores it (255: no ink): RGB = CMY * K / 255."""
    luminance = luma(inks[..., :3].astype(np.float64) * inks[..., 3:] / 255)
    return np.asarray(np.rint(luminance), np.uint8)


def _decode_unusual(data: bytes, grey: bool) -> Pixels:
    """Decode three components with a sampling that TurboJPEG does not know; see `decode_jpeg`."""
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    with complaints() as printed:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or printed():
        raise FileError(Status.DECODE_ERROR, f"its JPEG is damaged: {printed() or 'no pixels'}".strip())
    return np.asarray(image if grey else image[..., ::-1], np.uint8)


def is_extraneous(complaint: str) -> bool:
    """Return whether libjpeg's only complaint is about a few extra bytes before the end mark."""
    match = _EXTRANEOUS.search(complaint)
    return match is not None and int(match[1]) <= _MOST_EXTRANEOUS and int(match[2], 16) == _EOI


def _without_oddity(data: bytes, reason: str) -> tuple[bytes, bool]:
    """Take out of a stream what libjpeg complains of, if it is harmless.

    Returns:
        The stream, unchanged if the complaint means damage; and whether bytes were taken away.
    """
    if _REVISION in reason:
        at = data.find(b"JFIF\0")
        return data[: at + 5] + b"\x01\x01" + data[at + 7 :], False
    match = _EXTRANEOUS.search(reason)
    if match is None:
        return data, False
    if is_extraneous(reason):
        end = next(start for marker, start, _ in _segments(data) if marker == _EOI)
        return data[: end - int(match[1])] + data[end:], True
    # Before a restart marker they are what a damaged interval left over, and between the scans of a
    # progressive image no reader can know where a scan should have ended.
    return _without_gaps(data), True


def _without_gaps(data: bytes) -> bytes:
    """Take out what lies between the segments in front of the first scan.

    After a table or frame header it may be the end of that one, moved by bytes that got into it: then
    the stream is returned unchanged.
    """
    segments, at, previous = [data[:2]], 2, 0
    for marker, start, end in _segments(data):
        if previous in _DECISIVE and data[at:start].strip(b"\xff"):  # FF fills are allowed
            return data
        previous = marker
        segments.append(data[start:end])
        at = end
        if marker == _SOS:
            break
    return b"".join(segments) + data[at:]
