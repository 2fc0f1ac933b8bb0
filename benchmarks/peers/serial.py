"""The report's own script: one image after another is read, equalised, resized and saved.

python serial.py DATA OUT
"""

import sys
from pathlib import Path

import cv2
from shared import equalised, image_paths, report

if __name__ == "__main__":
    data, out = sys.argv[1:3]
    paths = image_paths(data)
    for path in paths:
        target = Path(out, Path(path).relative_to(data))
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), equalised(path))  # noqa: TID251
    report(len(paths))
