"""The most confident errors, each with the regions that raised the score of the wrong answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.evaluation.answers import Answers, read_images
from tumorbatch.evaluation.gradcam import maps, panels, randomised, similarity
from tumorbatch.files import visible
from tumorbatch.labels import CLASS_NAMES, HEALTHY, TUMOR
from tumorbatch.report.html import Page, Picture
from tumorbatch.shardset import Dataset

_SIDE = 300  # pixels of each image in a picture, about


@dataclass(frozen=True, slots=True)
class GalleryPicture:
    """An error: its picture, and its entry in metrics.json."""

    png: bytes
    about: dict[str, Any]


def gallery_picture(
    image: NDArray[np.uint8],
    heat: NDArray[np.float32],
    control: NDArray[np.float32],
    about: dict[str, Any],
) -> GalleryPicture:
    """Draw an image, its Grad-CAM map, and that of random weights.

    Args:
        image: uint8 [height, width] or [height, width, channels], as the network sees it.
        heat: float32 [rows, columns] in [0, 1].
        control: Likewise, of the network with random weights.
        about: path, label, prob, logit, width, height, format, copies.
    """
    import cv2

    scale = max(1, round(_SIDE / image.shape[1]))
    picture = panels(image, heat, control, scale)
    encoded, data = cv2.imencode(".png", picture[..., ::-1])  # OpenCV: blue first
    if not encoded:
        raise ValueError("the picture cannot be encoded")
    alike = similarity(heat, control)
    seen = {
        "grad_cam": bool(heat.any()),
        "control_correlation": None if alike is None else round(alike, 3),
    }
    return GalleryPicture(data.tobytes(), about | seen)


def most_confident_errors(test: Answers, count: int) -> NDArray[np.int64]:
    """Return the indices of the most confident errors: furthest from the threshold in logits.

    Half of them Tumor called Healthy, half Healthy called Tumor, or more of the one kind where there
    are not so many of the other; in this order. One of each duplicate group, so that a gallery does not
    show one image many times.
    """
    wrong = np.flatnonzero(~test.decisions.right)
    ordered = wrong[np.argsort(-_distance(test)[wrong], kind="stable")]
    _, first = np.unique(test.groups[ordered], return_index=True)
    ordered = ordered[np.sort(first)]
    missed, alarms = (ordered[test.labels[ordered] == label] for label in (TUMOR, HEALTHY))
    half = max(count // 2, count - len(alarms))
    missed = missed[:half]
    return np.concatenate([missed, alarms[: count - len(missed)]])


def _distance(test: Answers) -> NDArray[np.float64]:
    """Return how far each logit lies from the threshold, float64 [n]."""
    threshold_logit = np.log(test.threshold / (1 - test.threshold)) * (test.temperature or 1.0)
    return np.asarray(np.abs(test.scores.astype(np.float64) - threshold_logit), np.float64)


def errors_gallery(
    network: Any, tfrecords: Path, dataset: Dataset, test: Answers, count: int
) -> list[GalleryPicture]:
    """Return pictures of the most confident errors, at most `count`.

    Raises:
        InputError: A record of theirs is damaged.
    """
    errors = most_confident_errors(test, count)
    if not len(errors):
        return []
    images = read_images(tfrecords, dataset, [test.images.paths[index] for index in errors])
    towards = 1 - test.labels[errors]  # the class that it was called
    heats = maps(network, images, towards)
    controls = maps(randomised(network), images, towards)
    return [
        gallery_picture(
            image,
            heat,
            control_map,
            {
                "path": test.images.paths[index],
                "label": int(test.labels[index]),
                "prob": float(prob),
                "logit": float(test.scores[index]),
                "width": int(test.images.widths[index]),
                "height": int(test.images.heights[index]),
                "format": test.images.formats[index],
                "copies": int((test.groups == test.groups[index]).sum()),
            },
        )
        for image, heat, control_map, index, prob in zip(
            images, heats, controls, errors, test.probabilities[errors], strict=True
        )
    ]


def add_errors(page: Page, about: Mapping[str, Any], gallery: Sequence[GalleryPicture]) -> None:
    """Build the report's section about errors."""
    counts = about["test"]["confusion"]
    n = about["test"]["n"]
    page.section("Most confident errors")
    if not counts["fp"] + counts["fn"]:
        page.paragraph(f"There is no error on the {n:,} test images at this threshold.")
        return
    page.paragraph(
        f"{counts['fp'] + counts['fn']:,} of {n:,} test images are wrong: {counts['fp']:,} Healthy "
        f"predicted Tumor, {counts['fn']:,} Tumor predicted Healthy. ",
        "Here are those furthest from the threshold, one of each group of copies. Left: the image as "
        "the network sees it. Middle: Grad-CAM, from purple (0) to yellow (1, the map's largest value) "
        "where the image raised the score of the wrong answer; the white line is at 0.5. Right, the "
        "control: the same map of the same network with random weights. A map that looks like its "
        "control says nothing about what was learned. The maps are coarse, and show where the score "
        "came from, not why."
        if gallery
        else "No image is shown (--gallery 0).",
    )
    for label in (TUMOR, HEALTHY):
        pictures = [picture for picture in gallery if picture.about["label"] == label]
        if pictures:
            names = f"{CLASS_NAMES[label]} predicted {CLASS_NAMES[1 - label]}"
            page.heading(f"{names}: {len(pictures)} shown")
            for picture in _pictures(pictures):
                page.figure(picture.png, picture.alt, picture.caption, photo=True)


def _pictures(gallery: Sequence[GalleryPicture]) -> list[Picture]:
    pictures = []
    for picture in gallery:
        about = picture.about
        true = CLASS_NAMES[about["label"]]
        predicted = CLASS_NAMES[1 - about["label"]]
        copies = f", {about['copies']} copies in this split" if about["copies"] > 1 else ""
        nothing = "" if about["grad_cam"] else " Grad-CAM finds no region that raised the score."
        alike = about.get("control_correlation")
        control = "" if alike is None else f" Correlation of the map with its control: {alike:.2f}."
        path = visible(about["path"])
        pictures.append(
            Picture(
                picture.png,
                f"{path}: {true}, predicted {predicted}; next to it the Grad-CAM maps",
                f"{true}, predicted {predicted}: probability of Tumor {about['prob']:.3f}. {path} "
                f"({about['width']} x {about['height']} {about['format']}{copies}).{nothing}{control}",
            )
        )
    return pictures
