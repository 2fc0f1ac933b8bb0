"""Files that are broken, lie, or are not files at all: what a folder of a hospital may hold, and worse.

`CORPUS` has one builder a kind: bytes, or a function that makes something else at a path. Each kind
comes with the status that its row must have.
"""

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.preprocess.dicom.test_decode import make
from tests.preprocess.test_bmp_webp import bmp, chunk, extended, webp
from tumorbatch.status import Status

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

Maker = Callable[[Path], None]


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("image.png", b"x" * 100)
    return stream.getvalue()


def _patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def _png_of(width: int, height: int, rows: bytes, build: "type[Build]") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        build.chunk(name, data)
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(600 << 20)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _parent(path: Path) -> None:
    path.symlink_to("..")


def corpus(build: "type[Build]") -> dict[str, tuple[bytes | Maker, Status]]:
    """{file name: (content or maker, status)}; the names say the kind."""
    grey, colour = build.smooth(64, 72, 1), build.colour(64, 72, 2)
    jpeg, png = build.encode(".jpg", colour), build.png(grey)
    tiff, deep = build.tiff(grey), make(grey.astype(np.uint16) * 16, 12)
    scan = jpeg.index(b"\xff\xda")
    idat = png.index(b"IDAT")
    bad = Status.DECODE_ERROR
    cut, no, large = Status.TRUNCATED, Status.UNSUPPORTED, Status.TOO_LARGE
    return {
        # nothing, or no image
        "empty.png": (b"", Status.EMPTY),
        "one byte.jpg": (b"\xff", cut),
        "text.jpg": (b"Please find the scan attached.\n", no),
        "html.png": (b"<!doctype html><title>404 Not Found</title>", no),
        "zip.jpg": (_zip(), no),
        "pdf.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(500), no),
        "gif.png": (b"GIF89a" + bytes(300), no),
        "elf.jpg": (b"\x7fELF" + bytes(500), no),
        "zeros.jpg": (bytes(4096), no),
        "ones.tif": (b"\xff" * 4096, no),
        "utf-16.png": ("\ufeffno image".encode("utf-16"), no),
        "lfs pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", no),
        "jpeg 2000.jpg": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), no),
        "heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(200), no),
        "bigtiff.tif": (b"II+\0\x08\0\0\0" + bytes(200), no),
        "sparse 600 MB.png": (_sparse, large),
        # JPEG
        "jpeg cut in its header.jpg": (jpeg[:30], cut),
        "jpeg cut in its scan.jpg": (jpeg[: scan + 200], cut),
        "jpeg without end mark.jpg": (jpeg[:-2], cut),
        "jpeg with a tail of zeros.jpg": (jpeg[: len(jpeg) // 2] + bytes(len(jpeg)), cut),
        "jpeg of 65500 x 65500.jpg": (
            _patched(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", 65_500, 65_500), large,
        ),
        "jpeg of no height.jpg": (
            _patched(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", 0, 72), Status.TOO_SMALL,
        ),
        "jpeg without tables.jpg": (jpeg[:2] + jpeg[scan:], bad),
        "jpeg of 7 components.jpg": (_patched(jpeg, jpeg.index(b"\xff\xc0") + 9, ">B", 7), bad),
        "jpeg of 8 x 8.jpg": (build.encode(".jpg", grey[:8, :8]), Status.TOO_SMALL),
        # PNG
        "png cut.png": (png[: len(png) // 2], cut),
        "png without end.png": (png[:-12], cut),
        "png with a bad checksum.png": (_patched(png, len(png) - 20, ">B", 1), bad),
        "png flipped bit.png": (_patched(png, idat + 40, ">B", png[idat + 40] ^ 8), bad),
        "png bomb 30000 x 30000.png": (_png_of(30_000, 30_000, bytes(1000), build), large),
        "png of 2^31.png": (_png_of(2**31 - 1, 2**31 - 1, b"", build), large),
        "png with too few rows.png": (_png_of(72, 64, bytes(73 * 20), build), bad),
        "png of colour type 5.png": (_patched(png, 25, ">B", 5), bad),
        "png without pixels.png": (png[: idat - 4] + png[-12:], bad),
        "png line ends converted.png": (png.replace(b"\r\n", b"\n", 1), no),
        # TIFF
        "tiff cut.tif": (tiff[:-500], cut),
        "tiff directory beyond the end.tif": (_patched(tiff, 4, "<I", 1 << 30), cut),
        "tiff directory in a circle.tif": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", bad),
        "tiff of 65535 tags.tif": (_patched(tiff, 8, "<H", 65_535), cut),
        "tiff of 4 billion.tif": (
            build.tiff(grey, tags={256: (4, [2**32 - 1]), 257: (4, [2**32 - 1])}), large,
        ),
        "tiff strip beyond the end.tif": (build.tiff(grey, tags={273: (4, [1 << 31])}), cut),
        "tiff of unknown compression.tif": (build.tiff(grey, tags={259: (3, [65_000])}), no),
        "tiff without a width.tif": (build.tiff(grey, tags={256: None}), bad),
        "tiff of nothing but infinity.tif": (build.tiff(np.full((64, 72), np.inf, "<f4")), bad),
        # BMP and WebP
        "bmp cut.bmp": (bmp(colour, 24)[:-100], cut),
        "bmp compressed.bmp": (bmp(grey, 8, bytes(1024), compression=1), no),
        "bmp of 2^31.bmp": (_patched(bmp(colour, 24), 18, "<ii", 2**31 - 1, 2**31 - 1), cut),
        "webp cut.webp": (webp(colour)[:-100], cut),
        "webp size lies.webp": (_patched(webp(colour), 4, "<I", 20), cut),
        "webp canvas lies.webp": (extended(webp(colour), 80, 80, 0), bad),
        "webp junk.webp": (b"RIFF\x20\0\0\0WEBP" + chunk(b"VP8 ", b"\0\0\0" + bytes(17)), bad),
        # DICOM
        "dicom cut.dcm": (deep[:-200], cut),
        "dicom header alone": (bytes(128) + b"DICM", cut),
        "dicom without pixels": (make(grey, PixelData=None), cut),
        "dicom too few pixels.dcm": (make(grey, Rows=4000), cut),
        "dicom of 65535 x 65535.dcm": (make(grey, Rows=65_535, Columns=65_535), large),
        "dicom of 3 bits.dcm": (make(grey, BitsAllocated=3), no),
        "dicom of an unknown syntax.dcm": (
            make(grey).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"), no,
        ),
        # no files
        "folder.png": (Path.mkdir, Status.OK),  # an empty folder is no file: no row
        "fifo.png": (lambda path: os.mkfifo(path), no),
        "socket.png": (_socket, no),
        "device.png": (lambda path: path.symlink_to("/dev/zero"), no),
        "dangling link.png": (lambda path: path.symlink_to("nowhere"), Status.VANISHED),
        "loop.png": (_loop, no),
        "parent.png": (_parent, no),
        # odd names, broken content
        "new\nline.png": (png[:40], cut),
        "\u202egnp.rtl.png": (png[:40], cut),
        os.fsdecode(b"not utf-8 \xff\xfe.png"): (png[:40], cut),
        "-rf.png": (png[:40], cut),
        "x" * 250 + ".png": (png[:40], cut),
    }  # fmt: skip


def write_corpus(folder: Path, build: "type[Build]") -> dict[str, Status]:
    """Build all of it in `folder`; gives {name as tables have it: status}."""
    expected = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, status) in corpus(build).items():
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        if content is not Path.mkdir:
            expected[os.fsencode(name).decode("utf-8", "backslashreplace")] = status
    return expected
