"""The model that is judged and the shard set on which: loaded, and checked to belong together."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tumorbatch import bundle as bundles
from tumorbatch import shardset
from tumorbatch.bundle import Bundle
from tumorbatch.checks import format_changes
from tumorbatch.errors import ConfigError
from tumorbatch.evaluation.config import Patients
from tumorbatch.files import printable
from tumorbatch.shardset import DATASET, Dataset


class Subject(NamedTuple):
    """A bundle and a shard set that belong together.

    Attributes:
        model: Folder of the bundle.
        tfrecords: Folder of the shard set.
        bundle: The content of model.json.
        dataset: The content of dataset.json.
        dataset_sha256: Of dataset.json, hex.
    """

    model: Path
    tfrecords: Path
    bundle: Bundle
    dataset: Dataset
    dataset_sha256: str

    @classmethod
    def load(cls, model: Path, tfrecords: Path, external: bool) -> "Subject":
        """Read both.

        Args:
            model: Folder of the bundle.
            tfrecords: Folder of the shard set.
            external: The shard set is another one than the model was trained on, on purpose.

        Raises:
            InputError: One of them is missing, unfinished or damaged.
            ConfigError: The images were prepared differently; or the shard set is not the model's own,
                and not declared external: its test images may have been trained on.
        """
        bundle, dataset = bundles.load(model), shardset.load(tfrecords)
        if dataset.variants:
            dataset = dataset.select(bundle.preprocessing.channels)
        sha256 = shardset.file_sha256(tfrecords / DATASET)
        subject = cls(model, tfrecords, bundle, dataset, sha256)
        subject._refuse_other_preprocessing()
        subject._refuse_other_set(external)
        return subject

    @property
    def name(self) -> str:
        """Return the name of the bundle's folder."""
        return printable(self.model.resolve().name)

    def _refuse_other_preprocessing(self) -> None:
        model, shards = (
            {**value.to_dict(), "variants": ",".join(value.channels)}
            for value in (self.bundle.preprocessing, self.dataset.preprocessing)
        )
        changes = format_changes(model, shards, "in the model", "in the shards")
        if changes:
            raise ConfigError(
                f"{self.model} was trained on images that were prepared differently from those in "
                f"{self.tfrecords} ({changes}). Give the shard set that it was trained on."
            )

    def _refuse_other_set(self, external: bool) -> None:
        own = self.bundle.training.get("dataset_sha256") == self.dataset_sha256
        if own and external:
            raise ConfigError(
                f"{self.tfrecords} is what {self.model} was trained on: leave out --external."
            )
        if not own and not external:
            raise ConfigError(
                f"{self.model} was trained on another shard set than {self.tfrecords}: the model may "
                "have been trained on its test images, and the measures would have no meaning. Give "
                "the shard set that it was trained on; or --external, if you know that the two share "
                "no patient."
            )

    def about_model(self, chosen: Bundle, freeze: bool) -> dict[str, Any]:
        """Return what metrics.json says of the model.

        Args:
            chosen: The bundle, at the threshold and temperature of the measures.
            freeze: Whether `chosen` is written into the bundle's folder.
        """
        return {
            "name": self.name,
            "model_id": chosen.model_id,
            "architecture": chosen.architecture,
            "weights_sha256": chosen.weights_sha256,
            "preprocessing_fingerprint": chosen.preprocessing.fingerprint,
            "threshold": chosen.threshold,
            "temperature": chosen.temperature,
            "tta": chosen.tta,
            "calibration": chosen.calibration,
            # False: `infer` decides by the bundle as it was.
            "frozen": freeze or chosen == self.bundle,
            "bundle_model_id": chosen.model_id if freeze else self.bundle.model_id,
            "parameters": chosen.training.get("parameters"),
            "epochs": chosen.training.get("epochs"),
            "seed": chosen.training.get("schedule", {}).get("seed"),
            "trained_on_leaky_split": bool(chosen.training.get("leaky")),
            **({"out_of_fold": True} if chosen.out_of_fold_sha256 else {}),
            **({"members": [asdict(member) for member in chosen.members]} if chosen.members else {}),
        }

    def about_dataset(self, patients: Patients | None) -> dict[str, Any]:
        """Return what metrics.json says of the shard set.

        Args:
            patients: The groups of an external set by a table of patients, if there is one.
        """
        dataset = self.dataset
        return {
            "name": printable(self.tfrecords.resolve().name),
            "sha256": self.dataset_sha256,
            "split_by": dataset.split_by,
            "leaky": dataset.leaky,
            "seed": dataset.seed,
            "counts": dataset.counts,
            "shared_between_splits": dataset.shared,
            "patients_known": patients.known if patients else dataset.groups.get("patients", 0),
            "patient_table": dict(patients.table if patients else dataset.patient_table),
        }
