"""Draw the README's picture from what `make demo` made: `python docs/demo_picture.py demo FILE.svg`.

Images of demo/data/new, which no network has seen, beside their rows in demo/out.parquet.
"""

import base64
import sys
from html import escape
from pathlib import Path

import cv2

from tumorbatch.errors import TumorBatchError
from tumorbatch.files import FoundFile, read_file
from tumorbatch.infer.predictions import iterate_rows, read_metadata
from tumorbatch.preprocess.decode import decode
from tumorbatch.status import FileError

WIDTH, ROW, TOP, SIDE = 860, 84, 54, 72  # pixels
BAR = 170  # pixels of a probability of 1
STYLE = """
text { font: 14px system-ui, "DejaVu Sans", sans-serif; fill: #1b1b1b; }
.head { font-weight: 600; } .dim { fill: #555; } .mono { font: 13px "DejaVu Sans Mono", monospace;
  white-space: pre; }
.line { stroke: #b0b0b0; } .tumor { fill: #d55e00; } .healthy { fill: #0072b2; }
.mark { stroke: #1b1b1b; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e6e6; } .dim { fill: #a8a8a8; } .line { stroke: #4a5058; } .mark { stroke: #e6e6e6; }
  .tumor { fill: #e8813a; } .healthy { fill: #56b4e9; }
}
"""


def _rows(demo: Path) -> list[dict[str, object]]:
    """Two images of each class, sure and unsure, and a file without a prediction."""
    rows = [row for row in iterate_rows(demo / "out.parquet") if not row["flags"]]
    chosen = []
    for name in ("Brain Tumor", "Healthy"):
        good = [row for row in rows if row["path"].startswith(name) and row["status"] == "ok"]
        good.sort(key=lambda row: row["prob_tumor"])
        chosen += [good[-1], good[len(good) // 2]] if name == "Brain Tumor" else [good[0], good[-1]]
    every = iterate_rows(demo / "out.parquet")
    return [*chosen, next(row for row in every if row["status"] == "truncated")]


def _thumbnail(path: Path) -> str:
    try:
        grey = decode(read_file(FoundFile(str(path), path.name))[0]).grey
    except (FileError, TumorBatchError):
        return ""
    scale = 2 * SIDE / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    _, data = cv2.imencode(".jpg", cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
    text = base64.b64encode(data.tobytes()).decode()
    return f'href="data:image/jpeg;base64,{text}" width="{SIDE}" height="{SIDE}"'


def picture(demo: Path) -> str:
    """The SVG file."""
    threshold = float(read_metadata(demo / "out.parquet")["threshold"])
    rows = _rows(demo)
    height = TOP + ROW * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Synthetic head images on the left; on the right one row of the table for each: path, "
        "status, label, probability of Tumor</title>",
        f"<style>{STYLE}</style>",
    ]
    heads = (("a folder", 16), ("path", 110), ("status", 400), ("label", 500), ("prob_tumor", 590))
    parts += [f'<text class="head" x="{left}" y="30">{text}</text>' for text, left in heads]
    mark = 650 + BAR * threshold
    for number, row in enumerate(rows):
        top = TOP + ROW * number
        middle = top + SIDE / 2 + 5
        parts.append(f'<path class="line" d="M0 {top - 7}H{WIDTH}"/>')
        image = _thumbnail(demo / "data" / "new" / str(row["path"]))
        if image:
            parts.append(f'<image x="16" y="{top}" {image}/>')
        else:
            parts.append(
                f'<rect class="line" x="16" y="{top}" width="{SIDE}" height="{SIDE}" fill="none"/>'
                f'<text class="dim" x="32" y="{middle}">cut</text>'
            )
        path = escape(str(row["path"]))
        parts.append(f'<text class="mono" x="110" y="{middle}">{path}</text>')
        parts.append(f'<text x="400" y="{middle}">{row["status"]}</text>')
        if row["label"] is None:
            parts.append(f'<text class="dim" x="500" y="{middle}">{escape(str(row["error"]))}</text>')
            continue
        probability = float(str(row["prob_tumor"]))
        parts.append(f'<text x="500" y="{middle}">{row["label"]}</text>')
        parts.append(f'<text x="590" y="{middle}">{probability:.3f}</text>')
        kind = str(row["label"]).lower()
        width = max(1.0, BAR * probability)
        parts.append(
            f'<rect class="{kind}" x="650" y="{top + 26}" width="{width:.1f}" height="20"/>'
            f'<path class="mark" d="M{mark:.1f} {top + 20}v32"/>'
        )
    foot = (
        f"Synthetic images that the model was not trained on. Line: its threshold, {threshold:g}; the "
        "folder names are the truth."
    )
    parts += [f'<text class="dim" x="16" y="{height - 12}">{escape(foot)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(picture(Path(sys.argv[1])))
