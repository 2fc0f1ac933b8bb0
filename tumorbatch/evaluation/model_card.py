"""The model card: a bundle's data, protocol, figures and limits in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from tumorbatch.bundle import Bundle
from tumorbatch.evaluation.baseline_tests import beyond_metadata
from tumorbatch.shardset import Dataset
from tumorbatch.statistics.intervals import Estimate

PROTOCOLS = {
    "leaky": "**Leaky.** The split was made by file: copies and near copies of test images were "
    "trained on. The test figures are too good and say nothing about new images.",
    "group": "Grouped: byte-identical, pixel-identical and nearly identical images stay in one split.",
    "shape": "Grouped, with shapes held out: no image of the test set has a height and width that was "
    "trained on, which stands for other scanners and sources; copies stay in one split too.",
}

LIMITS = (
    "Not a medical device. Nothing here was tested on patients, prospectively or by a regulator.",
    "Patients are not known to this tool unless the shards were made with a table of them or from "
    "DICOM: images of one patient may lie in several splits, unless they look nearly the same.",
    "In public collections the source of an image and its class go together, and file size and format "
    "often give the class away; a network may have learned where an image comes from rather than what "
    "a tumour looks like.",
    "Who labelled the images, and how well, is not known to this tool; wrong labels count as errors of "
    "the network.",
    "Wilson's intervals count images as independent and are too narrow where images repeat; those over "
    "duplicate groups are better, and still know nothing of patients. None covers another hospital, "
    "scanner or population.",
    "The share of Tumor in this set is not that of any clinic: see the predictive values.",
    "Single two-dimensional images, grey: no volume, no second sequence, no history of the patient.",
    "It answers Healthy or Tumor for any picture, also for one that shows no brain.",
)

_ROWS = (
    ("accuracy", "accuracy"), ("sensitivity (recall)", "sensitivity"), ("specificity", "specificity"),
    ("precision (PPV in this set)", "precision"), ("F1", "f1"), ("AUC", "auc"),
    ("average precision", "average_precision"), ("Brier score", "brier"),
    ("log loss (nats)", "log_loss"), ("calibration error (ECE, 15 equal-width bins)", "ece"),
)  # fmt: skip


def protocol(dataset: Dataset) -> str:
    """Key of `PROTOCOLS`."""
    return "leaky" if dataset.leaky else dataset.split_by


def model_card(
    bundle: Bundle,
    dataset: Dataset,
    metrics: Mapping[str, Any],
    baselines: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Markdown text of model_card.md.

    Args:
        bundle: The model.
        dataset: What it was trained on.
        metrics: {"validation": ..., "test": ...}, each as `split_metrics.split_metrics` gives it.
        baselines: As `beside.stand_beside` gives them, or none.
    """
    test = metrics["test"]
    counts = "; ".join(
        f"{split} " + ", ".join(f"{number} {name}" for name, number in of.items())
        for split, of in dataset.counts.items()
    )
    leaky = "LEAKY, " if dataset.leaky else ""
    lines = [
        f"# {bundle.architecture} ({bundle.model_id})",
        "",
        "Classifies a brain image as Healthy or Tumor. **Not a medical device; not for diagnosis.**",
        "",
        "## Figures",
        "",
        f"Test split: {leaky}{test['n']} images ({test['healthy']} Healthy, {test['tumor']} Tumor) in "
        f"{test['groups']} groups of copies. In brackets: n and 95 % interval. Positive class: Tumor.",
        "",
        f"| test | threshold {bundle.threshold:g} (frozen) | threshold 0.5 |",
        "|---|---|---|",
    ]
    lines += [
        f"| {title} | {_told(test['figures'][name])} | {_told(test['at_0.5']['figures'][name])} |"
        for title, name in _ROWS
    ]
    lines += [
        "",
        "Accuracy, sensitivity, specificity and precision: Wilson's interval. The others: bootstrap "
        f"over groups of copies ({test['bootstrap']['replicates']:,} replicates, seed "
        f"{test['bootstrap']['seed']}). Weights, temperature and threshold are taken as given: what "
        "another training would give is in no interval. Weights and threshold were chosen on "
        "validation, so its figures flatter.",
        "",
        "| split | n | accuracy (95 % interval) | sensitivity | specificity | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for split, of in metrics.items():
        named = (Estimate.from_dict(of["figures"][name]) for name in (
            "accuracy", "sensitivity", "specificity", "auc"
        ))  # fmt: skip
        lines.append(f"| {split} | {of['n']} | {' | '.join(figure.text() for figure in named)} |")
    lines += [
        "",
        *_baselines(baselines, test),
        "## Threshold and calibration",
        "",
        *_choices(bundle, test),
    ]
    lines += [
        "",
        "## Predictive values",
        "",
        "What an answer means hangs on how common tumours are where it is used. By Bayes' theorem "
        "from the test split's sensitivity and specificity, with 95 % intervals:",
        "",
        "| prevalence of Tumor | PPV: Tumor, when it says Tumor | NPV: Healthy, when it says Healthy |",
        "|---|---|---|",
    ]
    for row in test["predictive_values"]:
        ppv, npv = (Estimate.from_dict(row[name]) for name in ("ppv", "npv"))
        lines.append(f"| {row['prevalence']:.1%} | {ppv.text()} | {npv.text(4)} |")
    lines += ["", f"n = {ppv.n:,}. The intervals are made of the ends of those of both, and too wide."]
    lines += [
        "",
        "## Data and protocol",
        "",
        f"{PROTOCOLS[protocol(dataset)]} Images: {counts}. Split seed {dataset.seed}, dataset.json "
        f"{str(bundle.training.get('dataset_sha256'))[:12]}. Preprocessing "
        f"{bundle.preprocessing.fingerprint[:12]}.",
        "",
        f"{bundle.training.get('epochs')} epochs, {bundle.training.get('parameters'):,} parameters, "
        f"weights {bundle.weights_sha256[:12]}; "
        + ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
        + ".",
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    return "\n".join(lines)


def _told(value: Mapping[str, Any]) -> str:
    figure = Estimate.from_dict(value)
    if figure.value is None:
        return "undefined"
    return f"{figure.value:.3f} (n = {figure.n}; {figure.interval()})"


def _choices(bundle: Bundle, test: Mapping[str, Any]) -> list[str]:
    if not bundle.calibration:
        return [
            f"Threshold on the probability: {bundle.threshold:g}. Neither it nor the temperature was "
            "chosen on data: the probabilities are not calibrated."
        ]
    threshold, temperature = (bundle.calibration[name] for name in ("threshold", "temperature"))
    before = Estimate.from_dict(test["uncalibrated"]["ece"])
    after = Estimate.from_dict(test["figures"]["ece"])
    return [
        f"- A calibrated probability of at least {bundle.threshold:g} is called Tumor. "
        f"{threshold['note']} The test split had no part in it.",
        f"- Temperature {bundle.temperature:g}: logits are divided by it. {temperature['note']} The "
        f"test split's calibration error is {before.text()} without and {after.text()} with it.",
    ]


def _baselines(baselines: Sequence[Mapping[str, Any]], test: Mapping[str, Any]) -> list[str]:
    head = ["## Beside simple baselines", ""]
    if not baselines:
        return [
            *head,
            "None stand here yet: what the majority class, a random forest on the file's height, width "
            "and format, and the nearest thumbnail reach on the same images is not known. `tumorbatch "
            "evaluate` says it, and whether this model is better.",
            "",
        ]
    lines = [
        *head,
        "| baseline | its AUC on test | AUC of the model minus its | |",
        "|---|---|---|---|",
    ]
    for of in baselines:
        auc, difference = (Estimate.from_dict(of[name]) for name in ("auc", "auc_difference"))
        verdict = "beaten" if of["beaten"] else "**not beaten**"
        lines.append(f"| {of['name']} | {auc.text()} | {difference.text()} | {verdict} |")
    return [*lines, "", beyond_metadata(test["within_file_kinds"]), ""]
