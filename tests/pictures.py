"""Pictures with as much structure as a slice of a head has."""

import cv2
import numpy as np
from numpy.typing import NDArray


def head(seed: int, side: int = 160) -> NDArray[np.uint8]:
    """A bright ring on black, filled with blobs: as much structure as a slice of a head has."""
    random = np.random.default_rng(seed)
    picture = np.zeros((side, side), np.float32)
    axes = (int(side * random.uniform(0.33, 0.4)), int(side * random.uniform(0.38, 0.44)))
    centre = (side // 2, side // 2)
    cv2.ellipse(picture, centre, axes, 0, 0, 360, 90, -1)
    inside = picture > 0
    for _ in range(30):
        x, y = random.integers(side // 5, side - side // 5, 2)
        radius = int(random.integers(side // 30, side // 10))
        cv2.circle(picture, (int(x), int(y)), radius, float(random.uniform(20, 200)), -1)
    picture *= inside
    cv2.ellipse(picture, centre, axes, 0, 0, 360, 220, side // 40)
    return np.rint(cv2.GaussianBlur(picture, (0, 0), 1.5)).astype(np.uint8)
