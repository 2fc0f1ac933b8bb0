"""The model card: a bundle's data, protocol, measures and limits in plain words."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tumorbatch.bundle import Bundle
from tumorbatch.evaluation import protocols
from tumorbatch.evaluation.baseline_tests import beyond_metadata
from tumorbatch.evaluation.choice import CAVEAT, ELSEWHERE, PLACES
from tumorbatch.evaluation.held_out import OUT_OF_FOLD_SPLIT
from tumorbatch.evaluation.protocols import Protocol
from tumorbatch.shardset import Dataset
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import headline
from tumorbatch.tta import LOOKS, NO_TTA

LIMITS = (
    "Not a medical device. Nothing here was tested on patients, prospectively or by a regulator.",
    "Patients are known only if the shards were made with a table of patients or from DICOM files. "
    "Otherwise images of one patient may be in several splits, unless they are copies of each other.",
    "In public collections the source of an image often predicts its class, and so do file size and "
    "format. The network may have learned where an image comes from rather than what a tumour looks "
    "like.",
    "This tool does not know who labelled the images, or how well. Wrong labels count as errors of "
    'the network. In the public set that the report used, Healthy means "not cancer": some Healthy '
    "images show lesions or malformations. Where about 2.5 % of the labels are in doubt, an accuracy "
    "above 97.5 % has no meaning; `tumorbatch evaluate` lists the label suspects.",
    "The intervals resample groups of copies, not patients. They do not cover another hospital, "
    "scanner or population.",
    "The share of Tumor in this set is not that of a clinic: see the predictive values.",
    "The input is one two-dimensional grey image: no volume, no second sequence, no history of the "
    "patient.",
    "The model answers Healthy or Tumor for any picture, even one that does not show a brain: look at "
    "the flag `unfamiliar`.",
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
    part, protocol = headline(test), protocols.dataset_protocol(dataset)
    lines = [
        *_front_matter(bundle, test, protocol),
        f"# {bundle.architecture} ({bundle.model_id})",
        "",
        "Classifies a brain image as Healthy or Tumor. **Not a medical device; not for diagnosis.**",
        "",
        *_test_split(bundle, test, protocol),
        *_both_splits(bundle, metrics),
        *_baselines(baselines, part),
        "## Threshold and calibration",
        "",
        *_choices(bundle, part),
        "",
        *_expected(bundle),
        *_predictive_values(part),
        *_data(bundle, dataset, protocol),
        *_unfamiliar(bundle),
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    return "\n".join(lines)


_HUB_METRICS = {"accuracy": "accuracy", "recall": "sensitivity", "f1": "f1", "roc_auc": "auc"}


def _front_matter(bundle: Bundle, test: Mapping[str, Any], protocol: Protocol) -> list[str]:
    """Return what the Hugging Face Hub reads of a card, as YAML; every text in it is quoted.

    There is no licence in it: who trains a model decides that.
    """
    figures = headline(test)["figures"]
    name = json.dumps(f"{bundle.architecture} ({bundle.model_id})")
    dataset = json.dumps(f"test split, {protocol.title}")
    lines = [
        "---",
        "library_name: keras",
        "pipeline_tag: image-classification",
        "tags: [medical-imaging, brain, mri, tumor, tumorbatch]",
        "model-index:",
        f"- name: {name}",
        "  results:",
        "  - task: {type: image-classification}",
        f"    dataset: {{type: image-folder, name: {dataset}}}",
        "    metrics:",
    ]
    for kind, measure in _HUB_METRICS.items():
        estimate = Estimate.from_dict(figures[measure])
        if estimate.value is not None:
            text = json.dumps(f"{measure}, each group of copies once: {_with_n(figures[measure])}")
            lines.append(f"    - {{type: {kind}, value: {estimate.value:.6f}, name: {text}}}")
    return [*lines, "---", ""]


def _test_split(bundle: Bundle, test: Mapping[str, Any], protocol: Protocol) -> list[str]:
    part = headline(test)
    replicates, seed = (test["bootstrap"][name] for name in ("replicates", "seed"))
    wilson = Estimate.from_dict(test["figures"]["accuracy"])
    rows = [
        f"| {title} | {_with_n(part['figures'][name])} | {_with_n(part['at_0.5']['figures'][name])} | "
        f"{_with_n(test['figures'][name])} |"
        for title, name in _ROWS
    ]
    return [
        "## Measures",
        "",
        f"Test split, {protocol.title}: {test['n']} images ({test['healthy']} Healthy, "
        f"{test['tumor']} Tumor) in {test['groups']} groups of copies. Positive class: Tumor. **Each "
        "group of copies is counted once**, so that an original with many copies weighs as much as one "
        "without. In brackets: n and 95 % interval over groups.",
        "",
        f"| test | threshold {bundle.threshold:g} (frozen) | threshold 0.5 | frozen, per image |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Intervals: bootstrap over groups of copies ({replicates:,} replicates, seed {seed}). "
        "Wilson's interval of the accuracy per image, which treats copies as independent images and is "
        f"too narrow: {wilson.interval()}. Weights, temperature and threshold are taken as given: the "
        "intervals do not include the variation between training runs. Weights and threshold were "
        "chosen on validation, so validation measures are too optimistic.",
        "",
    ]


def _both_splits(bundle: Bundle, metrics: Mapping[str, Any]) -> list[str]:
    lines = [
        "| split | n | accuracy (95 % interval) | sensitivity | specificity | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for key, per_image in metrics.items():
        split = OUT_OF_FOLD_SPLIT if key == "validation" and bundle.out_of_fold_sha256 else key
        for values, unit in ((headline(per_image), "groups"), (per_image, "images")):
            estimates = [
                Estimate.from_dict(values["figures"][name]).over_groups
                for name in ("accuracy", "sensitivity", "specificity", "auc")
            ]
            texts = " | ".join(estimate.text() for estimate in estimates)
            lines.append(f"| {split} | {estimates[0].n} {unit} | {texts} |")
    return [*lines, ""]


def _predictive_values(part: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Predictive values",
        "",
        "What an answer means depends on how common tumours are where the model is used. By Bayes' "
        "theorem from the sensitivity and specificity on the test split, each group counted once, with "
        "95 % intervals:",
        "",
        "| prevalence of Tumor | PPV: Tumor if predicted Tumor | NPV: Healthy if predicted Healthy |",
        "|---|---|---|",
    ]
    n = 0
    for row in part["predictive_values"]:
        ppv, npv = (Estimate.from_dict(row[name]) for name in ("ppv", "npv"))
        lines.append(f"| {row['prevalence']:.1%} | {ppv.text()} | {npv.text(4)} |")
        n = ppv.n
    return [
        *lines,
        "",
        f"n = {n:,} groups. The intervals combine the ends of both intervals and are too wide.",
        "",
    ]


def _data(bundle: Bundle, dataset: Dataset, protocol: Protocol) -> list[str]:
    counts = "; ".join(
        f"{split} " + ", ".join(f"{count} {name}" for name, count in classes.items())
        for split, classes in dataset.counts.items()
    )
    return [
        "## Data and protocol",
        "",
        f"{protocol.meaning} Images: {counts}. Split seed {dataset.seed}, dataset.json "
        f"{str(bundle.training.get('dataset_sha256'))[:12]}. Preprocessing "
        f"{bundle.preprocessing.fingerprint[:12]}{_channels(bundle)}.",
        "",
        *([f"Looks at each image: {LOOKS[bundle.tta]}.", ""] if bundle.tta != NO_TTA else []),
        *_networks(bundle),
        f"{bundle.training.get('epochs')} epochs, {bundle.training.get('parameters'):,} parameters, "
        f"weights {bundle.weights_sha256[:12]}; "
        + ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
        + ".",
        "",
    ]


def _channels(bundle: Bundle) -> str:
    """Name the variants that the network sees, where they are not the usual one."""
    if not bundle.preprocessing.variants:
        return ""
    return f" (input: {', '.join(bundle.preprocessing.channels)})"


def _unfamiliar(bundle: Bundle) -> list[str]:
    """Return how well the model notices what is no brain image, as lines."""
    if not bundle.familiarity_sha256:
        return []
    lines = [
        "## Unfamiliar images",
        "",
        "`infer` gives each image a number `unfamiliar` from 0 to 1, by the distance of its features "
        "from those of the training images, and a flag from 0.5 on. The limit is such that 1 in 100 "
        "held-out images of this set is flagged. A picture without the flag may show no brain either.",
        "",
    ]
    noticed = bundle.training.get("unfamiliar")
    if isinstance(noticed, Mapping):
        parts = "; ".join(
            f"{kind}: AUROC {row['auroc']:.3f}, {row['flagged']:.0%} flagged"
            for kind, row in noticed["pictures"].items()
        )
        lines += [f"Against pictures drawn by code: {parts}.", ""]
    return lines


def _networks(bundle: Bundle) -> list[str]:
    """Return what an ensemble is made of and costs, as lines; [] for a single network."""
    if not bundle.members:
        return []
    listed = "; ".join(
        f"{member.name}: {member.architecture}, {member.model_id}, weights "
        f"{member.weights_sha256[:12]}, share {member.weight:.3g}"
        for member in bundle.members
    )
    return [
        f"An ensemble: the logit is the weighted mean of those of {len(bundle.members)} networks "
        f"({listed}).{cost_of_ensemble(bundle)}",
        "",
    ]


def cost_of_ensemble(bundle: Bundle) -> str:
    """Return what the networks of an ensemble cost for an image, as a sentence; "" if not measured."""
    cost = bundle.training.get("cost")
    if not isinstance(cost, Mapping):
        return ""
    parts = ", ".join(f"{name} {time:g}" for name, time in cost["of_members"].items())
    return (
        f" The networks take {cost['milliseconds_per_image']:g} ms for an image where this was made "
        f"({parts}), in addition to decoding, which happens once."
    )


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
    raw_error = Estimate.from_dict(part["uncalibrated"]["ece"])
    error = Estimate.from_dict(part["figures"]["ece"])
    return [
        f"- A calibrated probability of at least {bundle.threshold:g} is a prediction of Tumor. "
        f"{threshold['note']} The test split was not used for it.",
        f"- Temperature {bundle.temperature:g}: logits are divided by it. {temperature['note']} The "
        f"calibration error on test is {raw_error.text()} without and {error.text()} with it.",
    ]


def _expected(bundle: Bundle) -> list[str]:
    """Return what the out-of-fold predictions let expect at home and elsewhere, as lines."""
    expected = bundle.calibration.get("expected")
    if not isinstance(expected, Mapping):
        return []
    lines = [
        "| at the threshold, on images that no network had seen | sensitivity | specificity | AUC |",
        "|---|---|---|---|",
    ]
    for place, words in PLACES.items():
        if place not in expected:
            lines.append(f"| {words} | not measured | not measured | not measured |")
            continue
        texts = " | ".join(
            _with_n(expected[place][name]) for name in ("sensitivity", "specificity", "auc")
        )
        lines.append(f"| {words} | {texts} |")
    return [
        *lines,
        "",
        "Out-of-fold predictions of single networks on all training and validation images, each group "
        "of copies counted once. The best epoch of each network was chosen on its fold, so they are "
        "slightly too good; the ensemble is usually better than its networks.",
        *(["", CAVEAT] if ELSEWHERE in expected else []),
        "",
    ]


def _baselines(baselines: Sequence[Mapping[str, Any]], part: Mapping[str, Any]) -> list[str]:
    head = ["## Comparison with simple baselines", ""]
    if not baselines:
        return [
            *head,
            "Not measured yet: the majority class, a random forest on the file's height, width and "
            "format, and the nearest thumbnail, on the same images. Run `tumorbatch evaluate`.",
            "",
        ]
    lines = [
        *head,
        "| baseline (each group counted once) | AUC on test | AUC difference | |",
        "|---|---|---|---|",
    ]
    for row in baselines:
        auc, difference = (
            Estimate.from_dict(headline(row)[name]) for name in ("auc", "auc_difference")
        )
        verdict = "beaten" if row["beaten"] else "**not beaten**"
        lines.append(f"| {row['name']} | {auc.text()} | {difference.text()} | {verdict} |")
    return [*lines, "", beyond_metadata(part["within_file_kinds"]), ""]
