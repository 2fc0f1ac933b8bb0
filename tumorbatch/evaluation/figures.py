"""The figures of an evaluation: how well it separates the classes, how exact its probabilities are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.selective import curve
from tumorbatch.labels import CLASS_NAMES, HEALTHY, TUMOR
from tumorbatch.report import charts, style
from tumorbatch.statistics.auc import roc_band
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import Weighting

_HISTOGRAM_BINS = 20
_BAND_REPLICATES = 500  # of the band: its width does not change visibly with more


@style.style()
def confusion(parts: Sequence[tuple[str, Mapping[str, int]]]) -> Any:
    """Return confusion matrices side by side: images, and their share of the true class.

    Args:
        parts: (title, {tn, fp, fn, tp}) of each.
    """
    figure, axes = style.subplots(4.6 * len(parts), 3.9, 1, len(parts), squeeze=False)
    for at, (title, counts) in zip(axes[0], parts, strict=True):
        image = charts.matrix(
            at, np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], np.int64)
        )
        at.set(xlabel="predicted class", ylabel="true class", title=title)
    bar = figure.colorbar(image, ax=axes[0], shrink=0.8)
    bar.set_label("share of the true class")
    return figure


def _points(
    axes: Any, points: Sequence[tuple[str, float, float, tuple[float, float, float, float]]]
) -> None:
    """Return operating points with their 95 % intervals: (label, x, y, ends of x, ends of y)."""
    for (label, x, y, (x_low, x_high, y_low, y_high)), color, marker in zip(
        points, (style.VERMILLION, style.BLACK), ("D", "s"), strict=False
    ):
        axes.errorbar(
            x, y, xerr=[[max(0, x - x_low)], [max(0, x_high - x)]],
            yerr=[[max(0, y - y_low)], [max(0, y_high - y)]],
            color=color, marker=marker, markersize=7, capsize=3, linestyle="none",
            label=label, zorder=4, clip_on=False,
        )  # fmt: skip


def _legend(axes: Any, place: str) -> None:
    """Add a legend of the markers alone: error bars would hide their shapes."""
    from matplotlib.container import ErrorbarContainer
    from matplotlib.legend_handler import HandlerErrorbar

    plain = HandlerErrorbar(xerr_size=0.0, yerr_size=0.0)
    axes.legend(loc=place, handler_map={ErrorbarContainer: plain})


@style.style()
def roc(test: Answers, part: Mapping[str, Any]) -> Any:
    """Return the receiver operating characteristic, with the two operating points.

    Args:
        test: Answers on images of both classes; each group of copies is counted once.
        part: `weighting.headline` of the split's values.
    """
    from sklearn.metrics import roc_curve

    weighting = Weighting(test.groups, per_group=True)
    false_positive_rate, true_positive_rate, _ = roc_curve(
        test.labels, test.scores, drop_intermediate=False, sample_weight=weighting.weights
    )
    figure, axes = style.subplots(6.2, 5.9)
    auc = Estimate.from_dict(part["figures"]["auc"])
    rates = np.linspace(0, 1, 201)
    low, high = roc_band(test.scores, test.labels, weighting, rates, _BAND_REPLICATES)
    axes.fill_between(
        rates, low, high, color=style.SKY, alpha=0.3, linewidth=0, label="95 % interval, at each place"
    )
    axes.plot(
        false_positive_rate, true_positive_rate, color=style.BLUE, clip_on=False,
        label=f"AUC {auc.text()}",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=style.GREY, linestyle=":", label="chance")
    points = []
    for title, at in (("chosen threshold", part), ("threshold", part["at_0.5"])):
        sensitivity, specificity = (
            Estimate.from_dict(at["figures"][name]) for name in ("sensitivity", "specificity")
        )
        points.append(
            (
                f"{title} {at['threshold']:g}",
                *_one_minus(specificity)[:1],
                sensitivity.value or 0.0,
                (*_one_minus(specificity)[1:], sensitivity.low or 0.0, sensitivity.high or 0.0),
            )
        )
    _points(axes, points)
    axes.set(
        xlabel="1 - specificity (share of Healthy predicted Tumor)",
        ylabel="sensitivity (share of Tumor found)",
        title=f"ROC, n = {weighting.count():,} groups, each once",
        xlim=(0, 1), ylim=(0, 1), aspect="equal",
    )  # fmt: skip
    _legend(axes, "lower right")
    return figure


def _one_minus(figure: Estimate) -> tuple[float, float, float]:
    return 1 - (figure.value or 0.0), 1 - (figure.high or 0.0), 1 - (figure.low or 0.0)


@style.style()
def selective(test: Answers, measured: Mapping[str, Any]) -> Any:
    """Return the share of errors over the share of images that are answered, the certain ones first.

    Args:
        test: Answers at their threshold; each group of copies is counted once.
        measured: From `selective.selective`.
    """
    coverage, risk = curve(test)
    figure, axes = style.subplots(6.2, 4.6)
    axes.plot(coverage, risk, color=style.BLUE, label="the most certain first")
    axes.axhline(risk[-1], color=style.GREY, linestyle=":", label="all, or any share at random")
    for row in measured["rows"]:
        accuracy = Estimate.from_dict(row["accuracy"])
        value, low, high = accuracy.value, accuracy.low, accuracy.high
        if value is not None and low is not None and high is not None:
            axes.errorbar(
                row["coverage"], 1 - value, yerr=[[max(0, high - value)], [max(0, value - low)]],
                color=style.VERMILLION, marker="D", markersize=5, capsize=3, linestyle="none",
            )  # fmt: skip
    axes.set(
        xlabel="coverage (share of groups that is answered)",
        ylabel="risk (share of errors among them)",
        title=f"Risk against coverage, n = {accuracy.n:,} groups, each once",
        xlim=(-0.02, 1.02),
    )
    axes.legend(loc="upper left")
    return figure


@style.style()
def precision_recall(test: Answers, part: Mapping[str, Any]) -> Any:
    """Return precision over recall, with the two operating points; arguments as for `roc`."""
    from sklearn.metrics import precision_recall_curve

    weighting = Weighting(test.groups, per_group=True)
    precision, recall, _ = precision_recall_curve(
        test.labels, test.scores, sample_weight=weighting.weights
    )
    figure, axes = style.subplots(6.2, 5.6)
    average = Estimate.from_dict(part["figures"]["average_precision"])
    axes.plot(
        recall, precision, color=style.BLUE, drawstyle="steps-post", clip_on=False,
        label=f"average precision {average.text()}",
    )  # fmt: skip
    share = float(np.average(test.labels, weights=weighting.weights))
    axes.axhline(share, color=style.GREY, linestyle=":", label=f"chance: share of Tumor, {share:.3f}")
    points = []
    for title, at in (("chosen threshold", part), ("threshold", part["at_0.5"])):
        x, y = (Estimate.from_dict(at["figures"][name]) for name in ("sensitivity", "precision"))
        if x.value is not None and y.value is not None:
            ends = (x.low or 0.0, x.high or 0.0, y.low or 0.0, y.high or 0.0)
            points.append((f"{title} {at['threshold']:g}", x.value, y.value, ends))
    _points(axes, points)
    axes.set(
        xlabel="recall = sensitivity (share of Tumor found)",
        ylabel="precision (share of Tumor among those predicted so)",
        title=f"Precision and recall, n = {weighting.count():,} groups, each once",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
    _legend(axes, "lower left")
    return figure


@style.style()
def scores(probabilities: NDArray[np.floating], labels: NDArray[np.int64], threshold: float) -> Any:
    """Return histograms of the calibrated probability of Tumor, one panel a class.

    Args:
        probabilities: float32 [n].
        labels: int64 [n].
        threshold: Marked by a line.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = style.subplots(8, 5, 2, 1, sharex=True, sharey=True)
    # The threshold ends a bin: all of a bar is then predicted alike.
    edges = np.union1d(np.linspace(0, 1, _HISTOGRAM_BINS + 1), [threshold])
    for at, label in zip(axes, (HEALTHY, TUMOR), strict=True):
        look = style.CLASS_STYLES[label]
        inside = probabilities[labels == label]
        at.hist(inside, bins=edges, color=look.color, hatch=look.hatch, edgecolor="white", alpha=0.9)
        for place, line, name in (
            (threshold, "-", f"threshold {threshold:g}"), (0.5, ":", "0.5"),
        ):  # fmt: skip
            at.axvline(place, color=style.BLACK, linestyle=line, linewidth=1.2, label=name)
        at.set_title(f"{CLASS_NAMES[label]}, n = {len(inside):,}", loc="left")
        at.set(ylabel="images", xlim=(0, 1))
        at.yaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend_above(figure, axes[0])
    axes[1].set_xlabel(
        f"calibrated probability of Tumor ({_HISTOGRAM_BINS} bins, one divided by the threshold)"
    )
    return figure


@style.style()
def reliability(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    errors: tuple[Estimate, Estimate],
    temperature: float,
) -> Any:
    """Return reliability diagrams before and after the temperature, with images in each bin.

    Args:
        before: Rows of `calibration.reliability`.
        after: Likewise.
        errors: ECE before and after.
        temperature: In the right one's title.
    """
    figure, axes = style.subplots(9, 5.6, 2, 2, sharex=True, sharey="row", height_ratios=[3, 1.1])
    highest = 1
    for column, (rows, ece, title) in enumerate(
        (
            (before, errors[0], "before: temperature 1"),
            (after, errors[1], f"after: temperature {temperature:g}"),
        )
    ):
        upper, lower = axes[:, column]
        predicted = np.array([row["predicted"] for row in rows])
        observed = np.array([row["observed"] for row in rows])
        ends = np.array([[row["low"], row["high"]] for row in rows])
        around = np.abs(ends.T - observed)
        upper.plot([0, 1], [0, 1], color=style.GREY, linestyle=":", label="perfect")
        upper.errorbar(
            predicted, observed, yerr=around, color=style.BLUE, marker="o", capsize=2.5,
            linewidth=1.1, label="observed, 95 % (Wilson)",
        )  # fmt: skip
        upper.set(ylim=(-0.03, 1.03), title=f"{title}\nECE {ece.text()}")
        lefts, rights = ([row[end] for row in rows] for end in ("from", "to"))
        counts = [row["n"] for row in rows]
        lower.bar(
            lefts, counts, width=np.subtract(rights, lefts), align="edge", color=style.SKY,
            edgecolor="white",
        )  # fmt: skip
        for left, right, count in zip(lefts, rights, counts, strict=True):
            lower.annotate(
                f"{count:,}", ((left + right) / 2, count), ha="center", va="bottom", fontsize=8,
                xytext=(0, 1), textcoords="offset points",
            )  # fmt: skip
        lower.set(xlim=(0, 1), xlabel="predicted probability of Tumor")
        highest = max(highest, *counts)
    axes[1, 0].set_ylim(0, 1.25 * highest)
    axes[0, 0].set_ylabel("observed share of Tumor")
    axes[1, 0].set_ylabel("images in the bin")
    style.legend_above(figure, axes[0, 0])
    return figure
