"""explore.json and the figures as one HTML page."""

from collections.abc import Mapping
from typing import Any

from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocess.explore import figures as pictures
from tumorbatch.preprocess.explore.metadata import interval_to_tell
from tumorbatch.preprocess.explore.page_statistics import (
    STAGE_NAMES,
    STATISTICS,
    metadata,
    percent,
    percent_range,
    statistics,
    statistics_columns,
    tests,
)
from tumorbatch.preprocess.explore.survey import STAGES
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


def page(found: Mapping[str, Any], png: Mapping[str, bytes]) -> str:
    """Return the page's HTML.

    Args:
        found: The content of explore.json.
        png: {file name: PNG file}, from `draw`.
    """
    images = sum(found["classes"].values())
    made = Page(
        f"What is in {found['settings']['source']}",
        f"{images:,} readable images: ",
        " and ".join(f"{count:,} {name}" for name, count in found["classes"].items()),
        f". {_bad(found)} {_headline(found)}",
    )
    made.paragraph(
        "Every image was checked and decoded to grey values as ",
        Code("tumorbatch shard"),
        " does it. ",
        "A look at the data is no evaluation of a model, and nothing here is for diagnosis.",
    )
    _classes(made, found, png)
    _sizes(made, found, png)
    _samples(made, png)
    _grey_values(made, found, png)
    tests(made, found, png)
    _duplicates(made, found, png)
    metadata(made, found)
    _bad_files(made, found)
    _how(made, found)
    return made.html()


def _bad(found: Mapping[str, Any]) -> str:
    bad = len(found["bad_files"])
    if not bad:
        return "Every file could be read."
    return f"{bad:,} more {'files' if bad > 1 else 'file'} could not be read."


def _headline(found: Mapping[str, Any]) -> str:
    of, grouped = found["duplicates"], found["metadata"]["grouped"]
    text = f"{of['images_with_a_copy']:,} images have an identical or nearly identical copy in the set."
    if grouped:
        text += (
            f" Height, width and file format alone tell the class of {percent(grouped['accuracy'])} of "
            f"the images (95 % interval {percent_range(interval_to_tell(grouped))}); always "
            f"answering with the more frequent class, "
            f"{percent(found['metadata']['majority']['accuracy'])}."
        )
    return text


def _class_rows(table: Mapping[str, Mapping[str, int]]) -> list[list[Cell]]:
    return [
        [value, *(of[name] for name in CLASS_NAMES), sum(of.values())] for value, of in table.items()
    ]


def _classes(made: Page, found: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    made.section("Classes")
    splits = found["splits"]
    counts = pictures.class_counts(found)
    made.figure(png[pictures.CLASSES], "Bars: number of images of each class, overall and per split")
    made.table(
        ["split", *_CLASS_COLUMNS, Column("both (images)", True)], _class_rows(counts),
        "Images of each class, overall and per split.",
    )  # fmt: skip
    if splits is None:
        made.paragraph("There was no shard set, so nothing is said of splits.")
        return
    known, gone = splits["source_images_in_it"], splits["its_images_not_in_source"]
    images = sum(found["classes"].values())
    told: list[Text] = [
        "Splits: shard set ", Code(splits["folder"]), f", split by {splits['split_by']}. Of the images "
        f"here {known:,} are in it, under the same name and with the same bytes; {gone:,} of its "
        "images are not here.",
    ]  # fmt: skip
    if not known:
        made.warning(*told, " It was made of other images: splits are not shown.")
        return
    if known < images or gone:
        made.warning(
            *told, " It was made before the images changed: run ", Code("tumorbatch shard"), "."
        )
    else:
        made.paragraph(*told)
    if splits["leaky"]:
        made.warning(
            f"This split is leaky: {splits['shared_groups']:,} groups of copies lie in more than one "
            "split, and figures from its test set are too good."
        )


def _sizes(made: Page, found: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    of = found["images"]
    made.section("Sizes and formats")
    made.figure(
        png[pictures.SIZES],
        "Scatter plot of image width and height, one panel for each class",
        "One mark for each size; its area grows with the number of images. Both axes are logarithmic.",
    )
    made.table(
        ["side", *(Column(f"{name.replace('_', ' ')} (pixels)", True) for name in STATISTICS)],
        [[side, *statistics(of[side])] for side in ("width", "height")],
        f"Width and height of the images; {of['sizes']:,} different sizes.",
    )
    made.table(
        [Column("width x height (pixels)"), *_CLASS_COLUMNS],
        [
            [f"{row['width']} x {row['height']}", *(row[name] for name in CLASS_NAMES)]
            for row in of["most_frequent_sizes"]
        ],
        "The most frequent sizes. One that nearly only one class has gives that class away.",
    )
    for name, head, caption in (
        ("format", "format", "File formats, by their first bytes."),
        ("bit_depth", "bits a sample", "Bit depth of the files."),
        ("channels", "channels", "Channels of the files, an alpha channel included."),
        (
            "flags",
            "rule",
            "Rules that were applied in decoding; docs/formats.md of the project explains each.",
        ),
    ):
        made.table(
            [head, *_CLASS_COLUMNS, Column("both (images)", True)], _class_rows(of[name]), caption
        )


def _samples(made: Page, png: Mapping[str, bytes]) -> None:
    made.section("Sample images")
    for label, name in enumerate(CLASS_NAMES):
        if pictures.SAMPLES[label] in png:
            made.figure(
                png[pictures.SAMPLES[label]],
                f"Grid of sample images of the class {name}",
                f"{name}: drawn by chance (seeded), before CLAHE, each in its own proportions.",
            )
    if pictures.CLAHE in png:
        made.figure(
            png[pictures.CLAHE],
            "The same images before and after CLAHE",
            "What CLAHE (contrast-limited adaptive histogram equalisation) does, at native size.",
        )


def _grey_values(made: Page, found: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    made.section("Grey values of all pixels")
    made.figure(
        png[pictures.GREY],
        "Histograms of the grey values of each class, before and after CLAHE",
        "All pixels of all images, at the images' own size: large images count more than small ones. "
        "The vertical axis is logarithmic.",
    )
    made.table(
        ["class", "when", Column("pixels", True), *statistics_columns("grey level")],
        [
            [name, STAGE_NAMES[stage], of["pixels"], *statistics(of)]
            for stage in STAGES
            for name, of in found["grey_values"][stage].items()
        ],
        "Exact, from the histograms; grey levels 0 (black) to 255 (white). The standard deviation is "
        "that of the population (divided by n).",
    )


def _duplicates(made: Page, found: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    of = found["duplicates"]
    images = sum(found["classes"].values())
    made.section("Duplicates")
    made.paragraph(
        f"{of['images_with_a_copy']:,} of {images:,} images have a copy or near copy here; all are in "
        f"{of['groups']:,} groups, an image without copies being a group of its own. Superfluous are "
        f"{of['byte_identical']:,} files as byte-identical to another, {of['pixel_identical']:,} as "
        f"pixel-identical, {of['near_duplicate']:,} in all. By the surest way in which an image is a "
        f"copy of another: {of['copies_bytes']:,} equal files, {of['copies_pixels']:,} equal pixels, "
        f"{of['copies_turned']:,} mirrored or turned, {of['copies_altered']:,} altered."
    )
    _conflicts(made, of)
    if pictures.DUPLICATES in png:
        made.figure(
            png[pictures.DUPLICATES],
            "Grid of images of the largest group of copies",
            "The largest group, or its first images by name. Are these one picture?",
        )
    if of["largest"]:
        made.table(_GROUP_COLUMNS, map(_group_row, of["largest"]), "The largest groups.")
    counts = {int(size): count for size, count in of["groups_of_each_size"].items()}
    made.table(
        [Column("images in a group", True), Column("groups", True)],
        [
            [
                str(low) if low == high else f"{low} to {high}" if high else f"{low} or more",
                sum(count for size, count in counts.items() if low <= size <= (high or size)),
            ]
            for low, high in _GROUP_SIZES
        ],
        "How large the groups are.",
    )


def _conflicts(made: Page, of: Mapping[str, Any]) -> None:
    same, near = of["pixel_identical_under_both_classes"], of["groups_with_both_classes"]
    if not near:
        return
    told = f"{same:,} images lie under both classes; shard leaves them out. " if same else ""
    made.warning(f"{told}{near:,} groups of copies or near copies hold both classes: look at them.")
    made.table(_GROUP_COLUMNS, map(_group_row, of["with_both_classes"]), "Groups with both classes.")


def _group_row(group: Mapping[str, Any]) -> list[Cell]:
    first = (group["first"][name] for name in CLASS_NAMES)
    return [
        group["images"],
        group["different_files"],
        *(group[name] for name in CLASS_NAMES),
        *(None if path is None else Code(path) for path in first),
    ]


def _bad_files(made: Page, found: Mapping[str, Any]) -> None:
    bad = found["bad_files"]
    if not bad:
        return
    made.section("Files that cannot be read")
    counts = {name: count for name, count in found["files"].items() if name not in ("found", Status.OK)}
    made.paragraph(", ".join(f"{count:,} {name}" for name, count in counts.items()) + ".")
    made.table(
        ["file", "class", "status", "reason"],
        [
            [Code(row["path"]), row["class"], row["status"], row["error"]]
            for row in bad[:BAD_FILES_SHOWN]
        ],
        "All of them."
        if len(bad) <= BAD_FILES_SHOWN
        else f"The first {BAD_FILES_SHOWN}; all are in explore.json.",
    )


def _how(made: Page, found: Mapping[str, Any]) -> None:
    made.section("How this was made")
    settings = found["settings"]
    clahe = settings["preprocessing"]
    made.listing(
        [
            ["Images: ", Code(settings["source"])],
            f"CLAHE: clip limit {clahe['clahe_clip']:g}, {clahe['clahe_grid']} x {clahe['clahe_grid']} "
            "tiles, at the images' own size",
            f"Seed: {settings['seed']}",
            "Versions: " + ", ".join(f"{name} {of}" for name, of in found["versions"].items()),
        ]
    )
