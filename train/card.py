"""The model card: a bundle's figures and limits in plain words."""

from typing import Any

from tumorbatch.bundle import Bundle
from tumorbatch.shardset import Dataset


def model_card(bundle: Bundle, dataset: Dataset, metrics: dict[str, Any]) -> str:
    """Markdown text of model_card.md.

    Args:
        bundle: The model.
        dataset: What it was trained on.
        metrics: {"validation": ..., "test": ...}, each as `metrics.binary_metrics` gives it.
    """
    if dataset.leaky:
        protocol = (
            "**Leaky.** The split was made by file: copies and near copies of test images were "
            "trained on. The test figures are too good and say nothing about new images."
        )
    else:
        protocol = (
            "Grouped: byte-identical, pixel-identical and nearly identical images stay in one split."
        )
    lines = [
        f"# {bundle.architecture} ({bundle.model_id})",
        "",
        "Classifies a brain image as Healthy or Tumor. **Not a medical device; not for diagnosis.**",
        "",
        "## Figures",
        "",
        "| split | n | accuracy (95 % interval) | precision | recall | F1 | AUC |",
        "|---|---|---|---|---|---|---|",
    ]
    for split, of in metrics.items():
        low, high = of["accuracy_95"]
        lines.append(
            f"| {split} | {of['n']} | {of['accuracy']:.3f} ({low:.3f} to {high:.3f}) "
            f"| {of['precision']:.3f} | {of['recall']:.3f} | {of['f1']:.3f} | {of['auc']:.3f} |"
        )
    counts = "; ".join(
        f"{split} " + ", ".join(f"{number} {name}" for name, number in of.items())
        for split, of in dataset.counts.items()
    )
    lines += [
        "",
        f"Positive class: Tumor. Threshold on the probability: {bundle.threshold:g}. "
        + (
            "The probabilities are not calibrated."
            if bundle.temperature == 1
            else f"Calibrated with temperature {bundle.temperature:.3f}."
        ),
        "",
        "## Data and protocol",
        "",
        f"{protocol} Images: {counts}.",
        "",
        "## Limits",
        "",
        "- Patients are not known to this tool: images of one patient may lie in several splits, "
        "unless they look nearly the same.",
        "- In public collections the file's size and format often give the class away; a network "
        "may have learned the source of an image rather than the tumour.",
        "- The intervals count images, not patients, and are too narrow where images repeat.",
        "- It answers Healthy or Tumor for any picture, also for one that shows no brain.",
        "",
    ]
    return "\n".join(lines)
