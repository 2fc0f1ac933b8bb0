"""The model card: a bundle's data, protocol, figures and limits in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from tumorbatch.bundle import Bundle
from tumorbatch.evaluation import protocols
from tumorbatch.evaluation.baseline_tests import beyond_metadata
from tumorbatch.shardset import Dataset
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import headline

LIMITS = (
    "Not a medical device. Nothing here was tested on patients, prospectively or by a regulator.",
    "Patients are not known to this tool unless the shards were made with a table of them or from "
    "DICOM: images of one patient may be in several splits, unless they look nearly the same.",
    "In public collections the source of an image and its class go together, and file size and format "
    "often give the class away; a network may have learned where an image comes from rather than what "
    "a tumour looks like.",
    "Who labelled the images, and how well, is not known to this tool; wrong labels count as errors of "
    'the network. In the public set that the report used, Healthy means "not cancer": lesions and '
    "malformations lie among the Healthy images. Where some 2.5 % of the labels are in doubt, an "
    "accuracy above 97.5 % says nothing; `tumorbatch evaluate` lists the label suspects.",
    "The intervals resample groups of copies, and know nothing of patients. None covers another "
    "hospital, scanner or population.",
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


def model_card(
    bundle: Bundle,
    dataset: Dataset,
    metrics: Mapping[str, Any],
    baselines: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the Markdown text of model_card.md.

    Args:
        bundle: The model.
        dataset: What it was trained on.
        metrics: {"validation": ..., "test": ...}, each as `split_metrics.split_metrics` returns it.
        baselines: As `baseline_tests.measure_baselines` returns them, or none.
    """
    test = metrics["test"]
    counts = "; ".join(
        f"{split} " + ", ".join(f"{number} {name}" for name, number in of.items())
        for split, of in dataset.counts.items()
    )
    part, protocol = headline(test), protocols.of_dataset(dataset)
    lines = [
        f"# {bundle.architecture} ({bundle.model_id})",
        "",
        "Classifies a brain image as Healthy or Tumor. **Not a medical device; not for diagnosis.**",
        "",
        "## Figures",
        "",
        f"Test split, {protocol.title}: {test['n']} images ({test['healthy']} Healthy, "
        f"{test['tumor']} Tumor) in {test['groups']} groups of copies. Positive class: Tumor. **Each "
        "group of copies is counted once**, so that an original with many copies weighs as much as one "
        "without. In brackets: n and 95 % interval over groups.",
        "",
        f"| test | threshold {bundle.threshold:g} (frozen) | threshold 0.5 | frozen, per image |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {title} | {_with_n(part['figures'][name])} | {_with_n(part['at_0.5']['figures'][name])} | "
        f"{_with_n(test['figures'][name])} |"
        for title, name in _ROWS
    ]
    replicates, seed = (test["bootstrap"][name] for name in ("replicates", "seed"))
    wilson = Estimate.from_dict(test["figures"]["accuracy"])
    lines += [
        "",
        f"Intervals: bootstrap over groups of copies ({replicates:,} replicates, seed {seed}). "
        "Wilson's interval of the accuracy per image, which takes copies as independent images and is "
        f"too narrow: {wilson.interval()}. Weights, temperature and threshold are taken as given: the "
        "intervals do not include the variation between training runs. Weights and threshold were "
        "chosen on validation, so validation figures are too optimistic.",
        "",
        "| split | n | accuracy (95 % interval) | sensitivity | specificity | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for split, values in metrics.items():
        for of, unit in ((headline(values), "groups"), (values, "images")):
            estimates = [
                Estimate.from_dict(of["figures"][name]).over_groups
                for name in ("accuracy", "sensitivity", "specificity", "auc")
            ]
            lines.append(
                f"| {split} | {estimates[0].n} {unit} | "
                f"{' | '.join(estimate.text() for estimate in estimates)} |"
            )
    lines += [
        "",
        *_baselines(baselines, part),
        "## Threshold and calibration",
        "",
        *_choices(bundle, part),
    ]
    lines += [
        "",
        "## Predictive values",
        "",
        "How to read an answer depends on how common tumours are where it is used. By Bayes' theorem "
        "from the test split's sensitivity and specificity, each group counted once, with 95 % "
        "intervals:",
        "",
        "| prevalence of Tumor | PPV: Tumor, when it says Tumor | NPV: Healthy, when it says Healthy |",
        "|---|---|---|",
    ]
    for row in part["predictive_values"]:
        ppv, npv = (Estimate.from_dict(row[name]) for name in ("ppv", "npv"))
        lines.append(f"| {row['prevalence']:.1%} | {ppv.text()} | {npv.text(4)} |")
    lines += [
        "",
        f"n = {ppv.n:,} groups. The intervals are made of the ends of those of both, and too wide.",
    ]
    lines += [
        "",
        "## Data and protocol",
        "",
        f"{protocol.meaning} Images: {counts}. Split seed {dataset.seed}, dataset.json "
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


def _with_n(value: Mapping[str, Any]) -> str:
    estimate = Estimate.from_dict(value).over_groups
    if estimate.value is None:
        return "undefined"
    return f"{estimate.value:.3f} (n = {estimate.n}; {estimate.interval()})"


def _choices(bundle: Bundle, part: Mapping[str, Any]) -> list[str]:
    if not bundle.calibration:
        return [
            f"Threshold on the probability: {bundle.threshold:g}. Neither it nor the temperature was "
            "chosen on data: the probabilities are not calibrated."
        ]
    threshold, temperature = (bundle.calibration[name] for name in ("threshold", "temperature"))
    before = Estimate.from_dict(part["uncalibrated"]["ece"])
    after = Estimate.from_dict(part["figures"]["ece"])
    return [
        f"- A calibrated probability of at least {bundle.threshold:g} is called Tumor. "
        f"{threshold['note']} The test split had no part in it.",
        f"- Temperature {bundle.temperature:g}: logits are divided by it. {temperature['note']} The "
        f"test split's calibration error is {before.text()} without and {after.text()} with it.",
    ]


def _baselines(baselines: Sequence[Mapping[str, Any]], part: Mapping[str, Any]) -> list[str]:
    head = ["## Beside simple baselines", ""]
    if not baselines:
        return [
            *head,
            "There are none yet: what the majority class, a random forest on the file's height, width "
            "and format, and the nearest thumbnail reach on the same images is not known. Run "
            "`tumorbatch evaluate` to compare them.",
            "",
        ]
    lines = [
        *head,
        "| baseline (each group counted once) | its AUC on test | AUC difference | |",
        "|---|---|---|---|",
    ]
    for row in baselines:
        auc, difference = (
            Estimate.from_dict(headline(row)[name]) for name in ("auc", "auc_difference")
        )
        verdict = "beaten" if row["beaten"] else "**not beaten**"
        lines.append(f"| {row['name']} | {auc.text()} | {difference.text()} | {verdict} |")
    return [*lines, "", beyond_metadata(part["within_file_kinds"]), ""]
