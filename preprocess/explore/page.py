"""explore.json and the figures as one HTML page."""

from collections.abc import Mapping
from typing import Any

from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocess.explore import figures as pictures
from tumorbatch.preprocess.explore.metadata import interval_to_tell
from tumorbatch.preprocess.explore.page_statistics import (
    STATISTICS,
    VERSION_NAMES,
    metadata,
    percent,
    percent_range,
    statistics,
    statistics_columns,
    tests,
)
from tumorbatch.preprocess.explore.survey import VERSIONS
from tumorbatch.report.html import Cell, Code, Column, Page, Text
from tumorbatch.status import Status

BAD_FILES_SHOWN = 100
_CLASS_COLUMNS = [Column(f"{name} (images)", True) for name in CLASS_NAMES]
# Of tables of groups of copies.
_GROUP_COLUMNS: list[Column | str] = [
    Column("images", True),
    Column("different files", True),
    *_CLASS_COLUMNS,
    *(f"first {name} by name" for name in CLASS_NAMES),
]
_GROUP_SIZES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, None))


def page(results: Mapping[str, Any], png: Mapping[str, bytes]) -> str:
    """Return the page's HTML.

    Args:
        results: The content of explore.json.
        png: {file name: PNG file}, from `draw`.
    """
    images = sum(results["classes"].values())
    document = Page(
        f"What is in {results['settings']['source']}",
        f"{images:,} readable images: ",
        " and ".join(f"{count:,} {name}" for name, count in results["classes"].items()),
        f". {_bad(results)} {_headline(results)}",
    )
    document.paragraph(
        "Every image was checked and decoded to grey values as ",
        Code("tumorbatch shard"),
        " does it. ",
        "A look at the data is not an evaluation of a model, and nothing here is for diagnosis.",
    )
    _classes(document, results, png)
    _sizes(document, results, png)
    _samples(document, png)
    _grey_values(document, results, png)
    tests(document, results, png)
    _duplicates(document, results, png)
    metadata(document, results)
    _bad_files(document, results)
    _how(document, results)
    return document.html()


def _bad(results: Mapping[str, Any]) -> str:
    bad = len(results["bad_files"])
    if not bad:
        return "Every file could be read."
    return f"{bad:,} more {'files' if bad > 1 else 'file'} could not be read."


def _headline(results: Mapping[str, Any]) -> str:
    duplicates, grouped = results["duplicates"], results["metadata"]["grouped"]
    copies = duplicates["images_with_a_copy"]
    text = f"{copies:,} images have an identical or nearly identical copy in the set."
    if grouped:
        text += (
            f" Height, width and file format alone predict the class of "
            f"{percent(grouped['accuracy'])} of the images (95 % interval "
            f"{percent_range(interval_to_tell(grouped))}); always answering with the more frequent "
            f"class: {percent(results['metadata']['majority']['accuracy'])}."
        )
    return text


def _class_rows(table: Mapping[str, Mapping[str, int]]) -> list[list[Cell]]:
    return [
        [value, *(counts[name] for name in CLASS_NAMES), sum(counts.values())]
        for value, counts in table.items()
    ]


def _classes(document: Page, results: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    document.section("Classes")
    splits = results["splits"]
    counts = pictures.class_counts(results)
    document.figure(
        png[pictures.CLASSES], "Bars: number of images of each class, overall and per split"
    )
    document.table(
        ["split", *_CLASS_COLUMNS, Column("both (images)", True)], _class_rows(counts),
        "Images of each class, overall and per split.",
    )  # fmt: skip
    if "subclasses" in results:
        document.table(
            ["subclass", *_CLASS_COLUMNS, Column("both (images)", True)],
            _class_rows(results["subclasses"]),
            "Images of each folder: several folders are joined to one class.",
        )
    if splits is None:
        document.paragraph("There was no shard set, so splits are not shown.")
        return
    included, absent = splits["source_images_in_it"], splits["its_images_not_in_source"]
    images = sum(results["classes"].values())
    sentences: list[Text] = [
        "Splits: shard set ", Code(splits["folder"]), f", split by {splits['split_by']}. Of the images "
        f"here {included:,} are in it, with the same name and the same bytes; {absent:,} of its images "
        "are not here.",
    ]  # fmt: skip
    if not included:
        document.warning(*sentences, " It was made of other images: splits are not shown.")
        return
    if included < images or absent:
        document.warning(
            *sentences, " It was made before the images changed: run ", Code("tumorbatch shard"), "."
        )
    else:
        document.paragraph(*sentences)
    if splits["leaky"]:
        document.warning(
            f"This split is leaky: {splits['shared_groups']:,} groups of copies are in more than one "
            "split, and metrics from its test set are too good."
        )


def _sizes(document: Page, results: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    images = results["images"]
    document.section("Sizes and formats")
    document.figure(
        png[pictures.SIZES],
        "Scatter plot of image width and height, one panel for each class",
        "One mark for each size; its area grows with the number of images. Both axes are logarithmic.",
    )
    document.table(
        ["side", *(Column(f"{name.replace('_', ' ')} (pixels)", True) for name in STATISTICS)],
        [[side, *statistics(images[side])] for side in ("width", "height")],
        f"Width and height of the images; {images['sizes']:,} different sizes.",
    )
    document.table(
        [Column("width x height (pixels)"), *_CLASS_COLUMNS],
        [
            [f"{row['width']} x {row['height']}", *(row[name] for name in CLASS_NAMES)]
            for row in images["most_frequent_sizes"]
        ],
        "The most frequent sizes. A size that occurs almost only in one class reveals that class.",
    )
    for name, head, caption in (
        ("format", "format", "File formats, by their first bytes."),
        ("bit_depth", "bits a sample", "Bit depth of the files."),
        ("channels", "channels", "Channels of the files, an alpha channel included."),
        (
            "flags",
            "rule",
            "Rules applied in decoding; docs/formats.md of the project explains each.",
        ),
    ):
        document.table(
            [head, *_CLASS_COLUMNS, Column("both (images)", True)], _class_rows(images[name]), caption
        )


def _samples(document: Page, png: Mapping[str, bytes]) -> None:
    document.section("Sample images")
    for label, name in enumerate(CLASS_NAMES):
        if pictures.SAMPLES[label] in png:
            document.figure(
                png[pictures.SAMPLES[label]],
                f"Grid of sample images of the class {name}",
                f"{name}: a random sample (seeded), before CLAHE, each in its own proportions.",
                photo=True,
            )
    if pictures.CLAHE in png:
        document.figure(
            png[pictures.CLAHE],
            "The same images before and after CLAHE",
            "The effect of CLAHE (contrast-limited adaptive histogram equalisation), at native size.",
            photo=True,
        )


def _grey_values(document: Page, results: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    document.section("Grey values of all pixels")
    document.figure(
        png[pictures.GREY],
        "Histograms of the grey values of each class, before and after CLAHE",
        "All pixels of all images, at the images' own size: large images count more than small ones. "
        "The vertical axis is logarithmic.",
    )
    document.table(
        ["class", "when", Column("pixels", True), *statistics_columns("grey level")],
        [
            [name, VERSION_NAMES[version], values["pixels"], *statistics(values)]
            for version in VERSIONS
            for name, values in results["grey_values"][version].items()
        ],
        "Exact, from the histograms; grey levels 0 (black) to 255 (white). The standard deviation is "
        "that of the population (divided by n).",
    )


def _duplicates(document: Page, results: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    duplicates = results["duplicates"]
    images = sum(results["classes"].values())
    document.section("Duplicates")
    document.paragraph(
        f"{duplicates['images_with_a_copy']:,} of {images:,} images have a copy or near copy here. The "
        f"images form {duplicates['groups']:,} groups; an image without copies is its own group. "
        f"{duplicates['near_duplicate']:,} files are superfluous, {duplicates['byte_identical']:,} of "
        f"them byte-identical and {duplicates['pixel_identical']:,} pixel-identical to another. By the "
        f"strongest evidence that an image is a copy: {duplicates['copies_bytes']:,} equal files, "
        f"{duplicates['copies_pixels']:,} equal pixels, {duplicates['copies_turned']:,} mirrored or "
        f"turned, {duplicates['copies_altered']:,} altered."
    )
    _conflicts(document, duplicates)
    if pictures.COPIES in png:
        document.figure(
            png[pictures.COPIES],
            "Pairs of images that are mirrored, turned or altered copies",
            "Pairs of copies, as different as their groups have them. Is each pair one picture?",
            photo=True,
        )
    if pictures.DUPLICATES in png:
        document.figure(
            png[pictures.DUPLICATES],
            "Grid of images of the largest group of copies",
            "The largest group, or its first images by name. Are these the same picture?",
            photo=True,
        )
    if duplicates["largest"]:
        document.table(_GROUP_COLUMNS, map(_group_row, duplicates["largest"]), "The largest groups.")
    counts = {int(size): count for size, count in duplicates["groups_of_each_size"].items()}
    document.table(
        [Column("images in a group", True), Column("groups", True)],
        [
            [
                str(low) if low == high else f"{low} to {high}" if high else f"{low} or more",
                sum(count for size, count in counts.items() if low <= size <= (high or size)),
            ]
            for low, high in _GROUP_SIZES
        ],
        "Sizes of the groups.",
    )


def _conflicts(document: Page, duplicates: Mapping[str, Any]) -> None:
    identical, near = (
        duplicates["pixel_identical_under_both_classes"],
        duplicates["groups_with_both_classes"],
    )
    if not near:
        return
    sentence = f"{identical:,} images are in both classes; shard leaves them out. " if identical else ""
    document.warning(
        f"{sentence}{near:,} groups of copies or near copies contain both classes: check them."
    )
    document.table(
        _GROUP_COLUMNS, map(_group_row, duplicates["with_both_classes"]), "Groups with both classes."
    )


def _group_row(group: Mapping[str, Any]) -> list[Cell]:
    first = (group["first"][name] for name in CLASS_NAMES)
    return [
        group["images"],
        group["different_files"],
        *(group[name] for name in CLASS_NAMES),
        *(None if path is None else Code(path) for path in first),
    ]


def _bad_files(document: Page, results: Mapping[str, Any]) -> None:
    bad = results["bad_files"]
    if not bad:
        return
    document.section("Files that cannot be read")
    counts = {
        name: count for name, count in results["files"].items() if name not in ("found", Status.OK)
    }
    document.paragraph(", ".join(f"{count:,} {name}" for name, count in counts.items()) + ".")
    document.table(
        ["file", "class", "status", "reason"],
        [
            [Code(row["path"]), row["class"], row["status"], row["error"]]
            for row in bad[:BAD_FILES_SHOWN]
        ],
        "All of them."
        if len(bad) <= BAD_FILES_SHOWN
        else f"The first {BAD_FILES_SHOWN}; all are in explore.json.",
    )


def _how(document: Page, results: Mapping[str, Any]) -> None:
    document.section("How this was made")
    settings = results["settings"]
    clahe = settings["preprocessing"]
    document.listing(
        [
            ["Images: ", Code(settings["source"])],
            f"CLAHE: clip limit {clahe['clahe_clip']:g}, {clahe['clahe_grid']} x {clahe['clahe_grid']} "
            "tiles, at the images' own size",
            f"Seed: {settings['seed']}",
            "Versions: "
            + ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        ]
    )
