"""Recall of copies by alteration, precision by class, and the time to group many images.

    python benchmarks/bench_copies.py FOLDER [--images 100] [--among 1000] [--out FILE] [--sheet FILE]
    python benchmarks/bench_copies.py --many 1000000

FOLDER holds images in class folders, as for `tumorbatch shard`. Of some of them copies are made,
altered and in one of the eight orientations in turn; counted is how many are found to belong to their
original's group, among --among images of the folder. Pairs of different classes are certainly different
images: how many of those that the second look was asked about does it join?

--sheet writes pictures of pairs that were just alike enough: the weakest links that hold the groups
together. Look at it before you believe that a threshold suits another folder.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.copies import Pairs, components, matches, pairs, signature, thumbnails
from tumorbatch.copy_alignment import SAME, similarity
from tumorbatch.copy_candidates import CONTENT, WHOLE, find_candidates
from tumorbatch.copy_layers import SIDE
from tumorbatch.orientation import orient
from tumorbatch.preprocess.classes import find_sources
from tumorbatch.preprocess.decode import decode
from tumorbatch.status import FileError

Grey = NDArray[np.uint8]
Alteration = Callable[[Grey, np.random.Generator], Grey]


def _curve(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Alteration:
    """Return an alteration of grey values 0 to 1."""
    table = np.clip(np.rint(change(np.arange(256) / 255) * 255), 0, 255).astype(np.uint8)
    return lambda grey, _: table[grey]


def _sharpen(grey: Grey, _: np.random.Generator) -> Grey:
    blurred = cv2.GaussianBlur(grey, (0, 0), 0.008 * min(grey.shape))
    return np.asarray(cv2.addWeighted(grey, 3, blurred, -2, 0), np.uint8)


def _blur(grey: Grey, _: np.random.Generator) -> Grey:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.008 * min(grey.shape)), np.uint8)


def _noise(grey: Grey, random: np.random.Generator) -> Grey:
    return np.clip(grey + random.normal(0, 15, grey.shape), 0, 255).astype(np.uint8)


def _jpeg(grey: Grey, _: np.random.Generator) -> Grey:
    data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def _resize(across: float, down: float) -> Alteration:
    return lambda grey, _: np.asarray(
        cv2.resize(grey, None, fx=across, fy=down, interpolation=cv2.INTER_AREA), np.uint8
    )


def _border(share: float, value: int) -> Alteration:
    def add(grey: Grey, _: np.random.Generator) -> Grey:
        rows, columns = (int(share * side) for side in grey.shape)
        framed = cv2.copyMakeBorder(grey, rows, rows, columns, columns, 0, value=(value,))
        return np.asarray(framed, np.uint8)

    return add


def _crop(grey: Grey, random: np.random.Generator) -> Grey:
    """Cut a tenth of each side off, from both ends together."""
    rows, columns = (int(0.1 * side) for side in grey.shape)
    top, left = random.integers(0, rows + 1), random.integers(0, columns + 1)
    return grey[top : len(grey) - (rows - top), left : grey.shape[1] - (columns - left)]


def _warp(degrees: float = 0, zoom: float = 1) -> Alteration:
    def warp(grey: Grey, _: np.random.Generator) -> Grey:
        height, width = grey.shape
        move = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, zoom)
        return np.asarray(cv2.warpAffine(grey, move, (width, height)), np.uint8)

    return warp


def _text(grey: Grey, random: np.random.Generator) -> Grey:
    """Write two captions of eight letters, one at the top and one at the bottom."""
    marked, scale = grey.copy(), grey.shape[0] / 500
    for share in (0.07, 0.97):
        text = "".join(random.choice(list("ABCDEFLR0123456789"), 8))
        place = (int(random.uniform(0, 0.6) * grey.shape[1]), int(share * len(grey)))
        cv2.putText(marked, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, int(2 * scale)))
    return marked


ALTERATIONS: dict[str, Alteration] = {
    "none": lambda grey, _: grey,
    "brighter by 30 %": _curve(lambda grey: grey * 1.3),
    "darker by 30 of 255": _curve(lambda grey: grey - 30 / 255),
    "contrast x 1.4": _curve(lambda grey: (grey - 0.5) * 1.4 + 0.5),
    "contrast x 0.7": _curve(lambda grey: (grey - 0.5) * 0.7 + 0.5),
    "gamma 0.7": _curve(lambda grey: grey**0.7),
    "gamma 1.5": _curve(lambda grey: grey**1.5),
    "sharpened": _sharpen,
    "blurred": _blur,
    "noise": _noise,
    "JPEG, quality 20": _jpeg,
    "half as large": _resize(0.5, 0.5),
    "other ratio of the sides": _resize(1.0, 0.8),
    "black border, 5 %": _border(0.05, 0),
    "black border, 10 %": _border(0.1, 0),
    "white border, 5 %": _border(0.05, 255),
    "cropped by 10 %": _crop,
    "zoomed in by 10 %": _warp(zoom=1.1),
    "zoomed out by 10 %": _warp(zoom=0.9),
    "turned by 5 degrees": _warp(degrees=5),
    "turned by 10 degrees": _warp(degrees=10),
    "burnt-in text": _text,
}


def _read(folder: Path) -> tuple[list[Path], NDArray[np.int64], Grey]:
    """Return paths, labels and signatures of the images that can be read."""
    paths, labels, signatures = [], [], []
    for source in find_sources(folder, {}):
        path = Path(source.file.path)
        try:
            signatures.append(signature(decode(path.read_bytes()).grey))
        except FileError:
            continue
        paths.append(path)
        labels.append(source.label)
    return paths, np.array(labels, np.int64), thumbnails(signatures)


def measure(folder: Path, images: int, among: int) -> dict[str, object]:
    """Return recall by alteration among some images, precision by class, and the groups of a folder."""
    paths, labels, known = _read(folder)
    started = time.perf_counter()
    found = pairs(known)
    seconds = time.perf_counter() - started
    groups = components(found.first, found.second, len(known))
    sizes = np.bincount(groups)
    random = np.random.default_rng(0)
    others = np.sort(random.choice(len(paths), min(among, len(paths)), replace=False))
    chosen = np.sort(random.choice(others, min(images, len(others)), replace=False))
    originals = [decode(paths[index].read_bytes()).grey for index in chosen]
    recall = {}
    for name, alter in ALTERATIONS.items():
        copies = [
            signature(np.ascontiguousarray(orient(alter(original, random), number % 8)))
            for number, original in enumerate(originals)
        ]
        match = matches(thumbnails(copies), known[others])
        recall[name] = float(np.mean((match >= 0) & (groups[others[match]] == groups[chosen])))
        print(f"{name:28s} {recall[name]:.3f}", flush=True)
    candidates = find_candidates(known, (WHOLE, CONTENT), 24)
    different = candidates.take(np.flatnonzero(labels[candidates.first] != labels[candidates.second]))
    likeness = similarity(known, different)
    apart = groups[different.first] != groups[different.second]
    joined = np.flatnonzero(likeness >= SAME)
    mixed = {
        str(paths[different.first[index]].name): str(paths[different.second[index]].name)
        for index in joined
    }
    return {
        "images": len(paths),
        "copies_made": len(chosen),
        "among": len(others),
        "seconds_to_group": round(seconds, 2),
        "groups": len(sizes),
        "largest_groups": np.sort(sizes)[::-1][:10].tolist(),
        "images_with_a_copy": int(sizes[sizes > 1].sum()),
        "recall": recall,
        "candidates_of_different_classes": len(different.first),
        "of_these_joined": len(joined),
        "most_alike_of_other_groups": float(likeness[apart].max(initial=-1)),
        "joined": mixed,
    }


def weakest_links(found: Pairs, count: int) -> list[int]:
    """Return which pairs hold groups together, the least alike first."""
    order = np.argsort(-found.similarity, kind="stable")
    parent = list(range(count))

    def root(image: int) -> int:
        while parent[image] != image:
            parent[image] = image = parent[parent[image]]
        return image

    links = []
    for index in order.tolist():
        first, second = root(int(found.first[index])), root(int(found.second[index]))
        if first != second:
            parent[first] = second
            links.append(index)
    return links[::-1]


def draw_sheet(folder: Path, out: Path, side: int = 150, rows: int = 9, columns: int = 4) -> None:
    """Write a picture of the pairs that were just alike enough to be joined, with their similarity."""
    paths, _, known = _read(folder)
    found = pairs(known)
    tiles = []
    for index in weakest_links(found, len(known))[: rows * columns]:
        tile = []
        for image, turn in (
            (found.first[index], int(found.orientation[index])),
            (found.second[index], 0),
        ):
            grey = np.ascontiguousarray(orient(decode(paths[image].read_bytes()).grey, turn))
            tile.append(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA))
        pair = np.pad(np.hstack(tile), 3, constant_values=128)
        label = f"{found.similarity[index]:.3f}"
        tiles.append(cv2.putText(pair, label, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,), 1))
    lines = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    picture = np.vstack([line for line in lines if line.shape == lines[0].shape])
    out.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def many(count: int) -> dict[str, float]:
    """Return the seconds to group random pictures, a quarter of them copies, some of them blank."""
    random = np.random.default_rng(0)
    pictures = np.empty((count, SIDE, SIDE), np.uint8)
    for at in range(0, count, 1 << 14):
        some = pictures[at : at + (1 << 14)]
        smooth = random.normal(0, 1, (len(some), 6, 6)).astype(np.float32)
        for picture, coarse in zip(some, smooth, strict=True):
            fine = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            picture[:] = np.clip(128 + 50 * fine, 0, 255)
    copied = count // 4
    pictures[-copied:] = np.clip(pictures[:copied, :, ::-1].astype(np.int16) + 9, 0, 255)
    pictures[copied : copied + count // 50] = 7
    started = time.perf_counter()
    found = pairs(pictures)
    seconds = time.perf_counter() - started
    groups = components(found.first, found.second, count)
    hit = groups[:copied] == groups[-copied:]
    return {"images": count, "seconds": round(seconds, 1), "copies_found": float(hit.mean())}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--among", type=int, default=1000, help="images that copies are sought in")
    parser.add_argument("--many", type=int)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    parser.add_argument("--sheet", type=Path, help="PNG file of the pairs that are just alike enough")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.many:
        result: dict[str, object] = dict(many(arguments.many))
    elif arguments.folder:
        result = measure(arguments.folder, arguments.images, arguments.among)
        if arguments.sheet:
            draw_sheet(arguments.folder, arguments.sheet)
    else:
        parser.error("give a folder, or --many")
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
