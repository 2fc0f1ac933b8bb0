"""The protocols by which a model is judged, in words: which images are kept out of training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tumorbatch.dataset_shape import GIVEN
from tumorbatch.leaks import LEAKY_ORIENTATION
from tumorbatch.shardset import Dataset


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol.

    Attributes:
        key: In metrics.json and in the footer of predictions.
        name: In tables and sentences.
        meaning: What the measures mean under it, in sentences.
        leaky: Whether copies of judged images were trained on.
    """

    key: str
    name: str
    meaning: str
    leaky: bool = False

    @property
    def title(self) -> str:
        """Return the name for headings, where a leak must not be overlooked."""
        return self.name.replace("leaky", "LEAKY", 1)

    @property
    def warning(self) -> str:
        """Return the sentence that goes with measures of a leaky protocol, or ""."""
        return "LEAKY: copies of test images were trained on; the measures are too good." * self.leaky


LEAKY, PROOF_FAILED, GROUP, SHAPE, EXTERNAL = "leaky", "leaky-proof", "group", "shape", "external"
LEAKY_GIVEN = "leaky-given"

PROTOCOLS = {
    protocol.key: protocol
    for protocol in (  # from the least to the most honest
        Protocol(
            LEAKY,
            "leaky (random by file)",
            "Leaky: the split was drawn file by file, so copies and near copies of test images were "
            "trained on. Most papers split this way; the measures are too good, and say nothing about "
            "new images.",
            leaky=True,
        ),
        Protocol(
            PROOF_FAILED,
            "leaky (the proof failed)",
            "Leaky: images or groups are in more than one split, although the split was made by group. "
            "The measures are too good. Make the shards again with `tumorbatch shard --overwrite`.",
            leaky=True,
        ),
        Protocol(
            LEAKY_ORIENTATION,
            "leaky-orientation (upright copies together)",
            "Leaky: the shard set is of an older version, which saw copies in one orientation only. "
            "Mirrored, turned and altered copies of test images were trained on, and the measures are "
            "too good. Make the shards again with `tumorbatch shard --overwrite --new-splits`.",
            leaky=True,
        ),
        Protocol(
            LEAKY_GIVEN,
            "leaky (given splits)",
            "Leaky: the splits are those of the source's folders, and copies of test images lie among "
            "the others, so they were trained on. The measures are too good. `tumorbatch shard` "
            "without --splits given makes a split without copies.",
            leaky=True,
        ),
        Protocol(
            GIVEN,
            "given splits (no copy in two)",
            "Given: the test images are those of the source's own test folder; no copy of them lies in "
            "the other splits. Whether patients do, only the source's authors know.",
        ),
        Protocol(
            GROUP,
            "grouped (duplicates together)",
            "Grouped: identical and nearly identical images stay in one split, so no copy of a test "
            "image was trained on. This is the headline.",
        ),
        Protocol(
            SHAPE,
            "held-out shapes",
            "Held-out shapes: no test image has a height and width that was trained on, which stands "
            "for other scanners and sources; copies stay in one split too. This is the stress test.",
        ),
        Protocol(
            EXTERNAL,
            "external set",
            "External: another shard set than the one that the model was trained on; all of its "
            "images, in any split. Nothing was chosen on it. That it shares no patient "
            "with the training data is what the person who started this evaluation said.",
        ),
    )
}
SPLIT_PROTOCOLS = {"file": PROTOCOLS[LEAKY]} | {key: PROTOCOLS[key] for key in (GROUP, SHAPE, GIVEN)}


def dataset_protocol(dataset: Dataset) -> Protocol:
    """Return the protocol of a shard set's own test split."""
    return training_protocol(
        {"split_by": dataset.split_by, "leaky": dataset.leaky, "leak": dataset.leak}
    )


def training_protocol(training: Mapping[str, Any]) -> Protocol:
    """Return the protocol of a bundle's own test split.

    Args:
        training: `Bundle.training`.

    Raises:
        ValueError: It does not say on which kind of split the model was trained.
    """
    split_by, leaky = training.get("split_by"), training.get("leaky")
    if split_by not in SPLIT_PROTOCOLS or not isinstance(leaky, bool):
        raise ValueError("it does not say on which kind of split the model was trained")
    # A bundle from before that does not say is of a set of the first version.
    if split_by != "file" and training.get("leak", LEAKY_ORIENTATION) == LEAKY_ORIENTATION:
        return PROTOCOLS[LEAKY_ORIENTATION]
    if leaky and split_by != "file":
        return PROTOCOLS[LEAKY_GIVEN if split_by == GIVEN else PROOF_FAILED]
    return SPLIT_PROTOCOLS[split_by]
