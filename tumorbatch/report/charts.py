"""What the report draws, from numbers and pixels: each function returns a matplotlib figure.

`tumorbatch.plots` has the same figures from folders and bundles. Figures are 7 inches wide where they
can be, so that their letters are still read on a narrow screen.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.labels import CLASS_NAMES, HEALTHY, TUMOR
from tumorbatch.report import style
from tumorbatch.statistics.intervals import proportion

_WIDTH = 7.0  # inches
_GAP = 0.12  # inches between the titles of neighbours
_DARK = 0.47  # share below which the colour map cividis is dark
_LINE = 1.25 / 72  # inches of a line, for each point of its letters
_TITLE_SIZE = 12.0  # points, of what stands above a whole figure
_TRAINING = {"color": style.BLUE, "linestyle": "-", "label": "training (augmented)"}
_VALIDATION = {"color": style.VERMILLION, "linestyle": "--", "label": "validation"}
_AUC = {"color": style.GREEN, "linestyle": ":", "label": "validation AUC"}


@style.style()
def class_counts(counts: Mapping[str, Mapping[str, int]], title: str = "Images of each class") -> Any:
    """Draw bars of the number of images: {"all" or a split: {class name: images}}."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = style.subplots(_WIDTH, 3.2)
    places = np.arange(len(counts))
    for label, name in enumerate(CLASS_NAMES):
        look = style.CLASS_STYLES[label]
        bars = axes.bar(
            places + (label - 0.5) * 0.4,
            [counts_of_split[name] for counts_of_split in counts.values()],
            0.38, color=look.color, hatch=look.hatch, edgecolor="white", label=name,
        )  # fmt: skip
        axes.bar_label(
            bars,
            labels=[f"{counts_of_split[name]:,}" for counts_of_split in counts.values()],
            padding=2,
        )
    axes.set_xticks(
        places,
        [
            f"{name}\n{sum(counts_of_split.values()):,} images"
            for name, counts_of_split in counts.items()
        ],
    )
    axes.set_ylabel("images")
    axes.set_title(style.plain(title), loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")
    style.legend_above(figure, axes)
    return figure


@style.style()
def image_sizes(
    heights: NDArray[np.int64], widths: NDArray[np.int64], labels: NDArray[np.int64]
) -> Any:
    """Draw width against height, one panel per class; a mark's area grows with the images.

    Args:
        heights: int64 [n], pixels.
        widths: int64 [n], pixels.
        labels: int64 [n].
    """
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, panels = style.subplots(_WIDTH, 4.4, 1, 2, sharex=True, sharey=True)
    shapes, inverse = np.unique(np.stack([widths, heights]), axis=1, return_inverse=True)
    most = 0  # images of one class and size
    for label, axes in enumerate(panels):
        look = style.CLASS_STYLES[label]
        counts = np.bincount(inverse.ravel()[labels == label], minlength=shapes.shape[1])
        occurs, most = counts > 0, max(most, int(counts.max(initial=0)))
        axes.scatter(
            *shapes[:, occurs], _area(counts[occurs], len(labels)),
            color=look.color, marker=look.marker, alpha=0.55, linewidths=0,
        )  # fmt: skip
        axes.set(
            title=f"{CLASS_NAMES[label]}: {counts.sum():,} images, {occurs.sum():,} sizes",
            xlabel="width (pixels)", xscale="log", yscale="log",
        )  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
    # Room for the largest mark: 1500 square points are about 40 points across, of 200 of an axis.
    low, high = (shapes.min() / 1.3, shapes.max() * 1.3) if shapes.size else (100, 1000)
    ticks = [tick for tick in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192) if low < tick < high]
    if len(ticks) < 2 and shapes.size:  # all of nearly one size
        ticks = np.unique([shapes.min(), shapes.max()]).tolist()
    panels[0].set(ylabel="height (pixels)", xlim=(low, high), ylim=(low, high))
    panels[0].set(xticks=ticks, yticks=ticks)
    _size_legend(figure, most, len(labels))
    return figure


def _area(count: Any, images: int) -> Any:
    """Return the area of a mark for `count` of all images, square points."""
    return 6 + 1500 * count / max(1, images)


def _size_legend(figure: Any, most: int, images: int) -> None:
    """Add what the area of a mark says, below the figure: for one image, and for up to `most`."""
    from matplotlib.lines import Line2D

    shown = sorted({1, max(1, round(math.sqrt(most))), max(1, most)})
    marks = [
        Line2D(
            [], [], marker="o", linestyle="none", markersize=math.sqrt(_area(count, images)),
            color=style.GREY, alpha=0.55, markeredgewidth=0,
            label=f"{count:,} {'image' if count == 1 else 'images'} of this size",
        )
        for count in shown
    ]  # fmt: skip
    figure.legend(
        handles=marks, loc="outside lower center", ncols=len(marks), frameon=False,
        handletextpad=1.6, columnspacing=3.5, borderpad=1.2,
    )  # fmt: skip


@style.style()
def pixel_intensity(histograms: Mapping[str, NDArray[np.int64]]) -> Any:
    """Draw the share of pixels of each class with each grey value, one panel for each title.

    Args:
        histograms: {panel's title: int64 [class, 256], pixels}.
    """
    figure, panels = style.subplots(
        _WIDTH, 0.6 + 2.6 * len(histograms), len(histograms), 1, sharex=True, sharey=True, squeeze=False
    )
    for axes, (title, counts) in zip(panels[:, 0], histograms.items(), strict=True):
        for label, name in enumerate(CLASS_NAMES):
            look = style.CLASS_STYLES[label]
            share = 100 * counts[label] / max(1, counts[label].sum())
            # A value that no pixel has is a gap: a logarithm of 0 would draw a line to the bottom.
            positive = np.where(share > 0, share, np.nan)
            axes.plot(positive, color=look.color, linestyle=look.line, linewidth=1.2, label=name)
        axes.set_title(title, loc="left")
        axes.set(ylabel="pixels of the class (%)", yscale="log", xlim=(0, 255))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    style.legend_above(figure, panels[0, 0])
    panels[-1, 0].set(xlabel="grey value (0 black to 255 white)")
    return figure


@style.style()
def image_means(means: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64]) -> Any:
    """Draw the distribution of the images' mean grey values, one panel for each title.

    Args:
        means: {panel's title: float64 [n], 0 to 255}.
        labels: int64 [n].
    """
    figure, panels = style.subplots(
        _WIDTH, 0.6 + 2.3 * len(means), len(means), 1, sharex=True, sharey=True, squeeze=False
    )
    edges = np.arange(0, 261, 5)
    for axes, (title, values) in zip(panels[:, 0], means.items(), strict=True):
        for label, name in enumerate(CLASS_NAMES):
            look = style.CLASS_STYLES[label]
            class_values = values[labels == label]
            share = 100 * np.histogram(class_values, edges)[0] / max(1, len(class_values))
            axes.stairs(share, edges, color=look.color, linestyle=look.line, linewidth=1.6, label=name)
            if len(class_values):
                axes.axvline(
                    np.median(class_values), color=look.color, linestyle=look.line, linewidth=0.8
                )
        axes.set_title(title, loc="left")
        axes.set(ylabel="images of the class (%)", ylim=(0, None))
    style.legend_above(figure, panels[0, 0])
    last = max((float(values.max()) for values in means.values() if len(values)), default=255)
    panels[-1, 0].set(
        xlabel="mean grey value of an image, 0 to 255; thin lines: medians", xlim=(0, last + 10)
    )
    return figure


@style.style()
def image_grid(
    images: Sequence[NDArray[np.uint8]], titles: Sequence[str] = (), columns: int = 6, title: str = ""
) -> Any:
    """Draw images side by side, each in its own proportions, on black as a viewer shows them.

    Args:
        images: uint8 [height, width] each, 0 black to 255 white; or [height, width, 3] (R, G, B).
        titles: One above each; none: no titles. Long ones take several lines.
        columns: In a row.
        title: Above all.

    Raises:
        ValueError: There are no images.
    """
    if not images:
        raise ValueError("There are no images to show.")
    columns = max(1, min(columns, len(images)))
    rows = math.ceil(len(images) / columns)
    width = _WIDTH if columns > 2 else 2.4 * columns + 0.6
    size = 9 if columns < 5 else 7
    names = [style.wrapped(name, width / columns - _GAP, size) for name in titles]
    lines = max((name.count("\n") + 1 for name in names), default=0)
    height = rows * (width / columns + 0.1 + lines * _LINE * size) + (0.4 if title else 0)
    figure, panels = style.subplots(width, height, rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])  # the layout would measure them, though they are not drawn
        axes.set_axis_off()
        axes.set_anchor("N")  # so that the titles of a row stand at one height
    for at, (axes, image) in enumerate(zip(panels.flat, images, strict=False)):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        if names:
            axes.set_title(style.plain_lines(names[at]), fontsize=size, pad=3, color="white")
    if title:
        text = style.plain_lines(style.wrapped(title, width - _GAP, _TITLE_SIZE))
        figure.suptitle(text, color="white")
    figure.set_facecolor(style.VIEWER)
    return figure


@style.style()
def training_history(
    history: Mapping[str, Sequence[float]], phases: Mapping[str, int], best_epoch: int, title: str
) -> Any:
    """Draw loss and accuracy over the epochs.

    Args:
        history: {name: one value an epoch}, with loss, accuracy, val_loss, val_accuracy, val_auc.
        phases: {name: epochs}, in order; a line parts them.
        best_epoch: Whose weights were kept, from 1.
        title: Above.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (loss, accuracy) = style.subplots(10, 4.4, 1, 2)
    highest_auc = history["val_auc"][best_epoch - 1]
    why = f"Kept: the weights of epoch {best_epoch}, whose validation AUC is the highest"
    title = style.wrapped(f"{title}\n{why} ({highest_auc:.3f})", 10 - _GAP, _TITLE_SIZE)
    figure.suptitle(style.plain_lines(title))
    epochs = range(1, len(history["loss"]) + 1)
    marker = "o" if len(epochs) < 3 else ""  # a line of one point would not be seen
    for axes, name, unit in (
        (loss, "loss", "binary cross-entropy (nats)"), (accuracy, "accuracy", "share, or AUC"),
    ):  # fmt: skip
        axes.plot(epochs, history[name], marker=marker, **_TRAINING)
        axes.plot(epochs, history[f"val_{name}"], marker=marker, **_VALIDATION)
        if name == "accuracy":
            axes.plot(epochs, history["val_auc"], marker=marker, **_AUC)
        axes.axvline(best_epoch, color="0.5", linewidth=0.8, label=f"epoch {best_epoch}, kept")
        for before, after in pairwise(_ends(phases)):
            if before and after > before:
                axes.axvline(
                    before + 0.5, color="0.3", linestyle="-.", linewidth=0.8, label=list(phases)[1]
                )
        axes.set(xlabel="epoch", ylabel=unit, title=name if axes is loss else "accuracy and AUC")
        axes.set_xlim(*((1, len(epochs)) if len(epochs) > 1 else (0.5, 1.5)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    losses = np.array([*history["loss"], *history["val_loss"]], np.float64)
    highest = losses[np.isfinite(losses)].max(initial=0)
    loss.set_ylim(0, 1.05 * highest or 1)
    return figure


def _ends(phases: Mapping[str, int]) -> list[int]:
    ends = [0]
    for epochs in phases.values():
        ends.append(ends[-1] + epochs)
    return ends


@style.style()
def confusion_matrix(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], title: str = "Confusion matrix"
) -> Any:
    """Draw counts and shares of each truth and prediction, above scikit-learn's report and
    the accuracy with its 95 % interval (Wilson).

    Args:
        truth: int64 [n], labels.
        predicted: int64 [n], labels.
        title: Above; the number of images is added.

    Raises:
        ValueError: There are no images, or the two differ in length.
    """
    from sklearn.metrics import classification_report
    from sklearn.metrics import confusion_matrix as count

    if not len(truth):
        raise ValueError("There are no predictions to count.")
    labels = [HEALTHY, TUMOR]
    counts = count(truth, predicted, labels=labels)
    figure, (axes, below) = style.subplots(5.2, 5.9, 2, 1, gridspec_kw={"height_ratios": [3.4, 1.6]})
    matrix(axes, counts)
    title = style.fitted(title, 3.2, 11)
    title = f"{style.plain(title)} (n = {len(truth):,} images)"
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    below.set_axis_off()
    report = classification_report(
        truth, predicted, labels=labels, target_names=CLASS_NAMES, digits=3, zero_division=0.0
    )
    accuracy = proportion(int(np.trace(counts)), len(truth))
    caption = f"{report.rstrip()}\n\naccuracy, 95 % interval: {accuracy.text()}, n = {accuracy.n:,}"
    below.text(
        0.5, 1, caption, ha="center", va="top", family="DejaVu Sans Mono", fontsize=8,
        transform=below.transAxes,
    )  # fmt: skip
    return figure


def matrix(axes: Any, counts: NDArray[np.int64]) -> Any:
    """Draw a confusion matrix: images, and their share of the true class; gives the coloured image.

    Args:
        axes: Of matplotlib.
        counts: int64 [truth, answer], Healthy first.
    """
    totals = counts.sum(axis=1)
    shares = np.divide(counts, totals[:, np.newaxis], out=np.zeros(counts.shape), where=counts > 0)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        share_text = f"{share:.1%} of {CLASS_NAMES[row]}" if totals[row] else ""
        # Both are then read with a contrast of 4.5 at least (WCAG 2.2, 1.4.3).
        look = {"ha": "center", "color": "white" if share < _DARK else "black"}
        axes.text(column, row - 0.02, f"{counts[row, column]:,}", va="bottom", fontsize=17, **look)
        axes.text(column, row + 0.06, share_text, va="top", fontsize=9, **look)
    labels = (HEALTHY, TUMOR)
    names = [f"{CLASS_NAMES[label]}\n(n = {totals[label]:,})" for label in labels]
    axes.set_xticks(labels, CLASS_NAMES)
    axes.set_yticks(labels, names)
    axes.grid(visible=False)
    return image
