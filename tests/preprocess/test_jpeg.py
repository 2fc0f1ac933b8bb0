"""JPEG that OpenCV cannot write."""

import base64

import cv2
import numpy as np

from tests.preprocess.conftest import Build
from tumorbatch.preprocess.decode import decode

# Of `Build.smooth(24, 20, 3)`, quality 60, by jpegtran -arithmetic, which changes no coefficient.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
    "UlNSMj5aYVpQYEpRUk//yQALCAAYABQBAREA/8wABgAQEAX/2gAIAQEAAD8ArVByo3/ImtROMS+Ngajb72TJNhyPh31xU4OieblrYT"
    "HCje4bdcXXzio0ZUFfqDHkkBt08DgX21B1CZHzgCVjUAa462YXyy7WM+P6FM6J2vclWX25p7YpZwwowM+eu7uN5SpgQP/Z"
)


def test_arithmetic_coding_gives_the_pixels_of_huffman_coding() -> None:
    huffman = Build.encode(".jpg", Build.smooth(24, 20, 3), cv2.IMWRITE_JPEG_QUALITY, 60)
    done = decode(ARITHMETIC)
    assert (done.header.format, done.flags) == ("jpeg", ())
    # Another libjpeg may round another way.
    difference = done.grey.astype(int) - decode(huffman).grey
    assert np.abs(difference).max() <= 1
