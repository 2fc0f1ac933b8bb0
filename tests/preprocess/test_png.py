"""PNG whose compressed pixels are longer than its header says."""

import struct
import tracemalloc
import zlib

import pytest

from tests.preprocess.conftest import Build
from tumorbatch.preprocess.decode import decode
from tumorbatch.status import FileError, Status


def test_pixels_inflate_no_further_than_the_header_asks() -> None:
    """64 KB that would inflate to 64 MB, in an image of 16 x 16 pixels."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    data = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            Build.chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)),
            Build.chunk(b"IDAT", bomb),
            Build.chunk(b"IEND", b""),
        )
    )
    tracemalloc.start()
    try:
        with pytest.raises(
            FileError, match="bytes of pixels in a PNG; its header asks for 272"
        ) as caught:
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.status == Status.DECODE_ERROR
    assert peak < 8 << 20
