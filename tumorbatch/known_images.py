"""The images that a model was trained and tuned on, as its bundle knows them: hashes and signatures.

`known_images.safetensors` in the bundle holds for each image of the training and validation split the
sha256 of its file (32 bytes), its signature (576 bytes, see `copies`), and the split. With it `infer`
flags rows, and `evaluate --external` leaves images out, without the shard set. Anyone who has the file
and an image can find out whether it was among them, so for DICOM sources it is written on request only.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.bundle_arrays import read_arrays
from tumorbatch.copies import ALTERED, BYTES, thumbnails
from tumorbatch.copy_alignment import SAME, similarity, similarity_in_place, structures
from tumorbatch.copy_candidates import CONTENT, WHOLE, Candidates, describe, nearest
from tumorbatch.copy_layers import SIDE
from tumorbatch.runtime import available_cores
from tumorbatch.shardset import Dataset

log = logging.getLogger(__name__)

SPLITS = ("train", "validation")
TRAINED_ON, VALIDATED_ON, COPY_OF_TRAINING = "trained-on", "validated-on", "copy-of-training"
FLAGS = (TRAINED_ON, VALIDATED_ON, COPY_OF_TRAINING)
# Of a search: more than these descriptors of known images would not fit into each worker.
MAX_SEARCHED = 200_000
_LOOKS = 8  # candidates of an image, by each descriptor
_ALIGNED = 4  # of these that are aligned with it
_ALIKE = (0.9, 0.6)  # likeness by `WHOLE` and by `CONTENT` below which none is aligned
_DIGEST = 32
_MAX_BYTES = 4 << 30  # six million images


@dataclass(frozen=True)
class KnownImages:
    """Images of the training and validation split.

    Attributes:
        sha256: uint8 [n, 32], of the files.
        pictures: uint8 [n, 24, 24], their signatures.
        validation: bool [n], whether they are of the validation split.
    """

    sha256: NDArray[np.uint8]
    pictures: NDArray[np.uint8]
    validation: NDArray[np.bool_]
    _described: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @classmethod
    def of_shard_set(cls, folder: Path, dataset: Dataset) -> "KnownImages":
        """Read them from a manifest.

        Raises:
            InputError: The manifest is missing or damaged.
            TryAgainError: Another run has replaced the set since `dataset` was read.
        """
        table = shardset.manifest(folder, dataset, "sha256", "signature", "split")
        rows = [
            table.filter(pc.equal(table["split"], split)).select(["sha256", "signature", "split"])
            for split in SPLITS
        ]
        hashes = [text for part in rows for text in part["sha256"].to_pylist()]
        signatures = [data for part in rows for data in part["signature"].to_pylist()]
        counts = [part.num_rows for part in rows]
        return cls(
            np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, _DIGEST),
            thumbnails(signatures),
            np.repeat([False, True], counts),
        )

    def to_bytes(self) -> bytes:
        """Return the content of the file in a bundle."""
        import safetensors.numpy

        data: bytes = safetensors.numpy.save(
            {
                "sha256": np.ascontiguousarray(self.sha256),
                "signature": np.ascontiguousarray(self.pictures),
                "validation": self.validation.astype(np.uint8),
            }
        )
        return data

    @classmethod
    def read(cls, path: Path, sha256: str) -> "KnownImages":
        """Read the file of a bundle.

        Args:
            path: The file.
            sha256: Of its content, hex, from model.json.

        Raises:
            InputError: It is missing, damaged or another one.
        """
        return read_arrays(path, sha256, _MAX_BYTES, cls._from_arrays)

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "KnownImages":
        count = len(arrays["validation"])
        expected = {
            "sha256": (count, _DIGEST), "signature": (count, SIDE, SIDE), "validation": (count,),
        }  # fmt: skip
        kinds = {name: (one.shape, one.dtype) for name, one in arrays.items()}
        if kinds != {name: (shape, np.dtype(np.uint8)) for name, shape in expected.items()}:
            raise ValueError("its arrays are not those of known images")
        return cls(arrays["sha256"], arrays["signature"], arrays["validation"] == 1)

    @classmethod
    def united(cls, several: "Sequence[KnownImages]") -> "KnownImages":
        """Return the images that any of several models knows, each file once.

        One that any of them was trained on counts as trained on.
        """
        joined = cls(
            np.concatenate([one.sha256 for one in several]),
            np.concatenate([one.pictures for one in several]),
            np.concatenate([one.validation for one in several]),
        )
        # Trained on before validated on: `unique` gives the first of equals.
        order = np.argsort(joined.validation, kind="stable")
        _, first = np.unique(joined.sha256[order], axis=0, return_index=True)
        kept = np.sort(order[first])
        return cls(joined.sha256[kept], joined.pictures[kept], joined.validation[kept])

    @cached_property
    def _splits(self) -> Mapping[bytes, bool]:
        """Whether a file is of the validation split, by its sha256."""
        hashes = [row.tobytes() for row in self.sha256]
        return dict(zip(hashes, self.validation.tolist(), strict=True))

    def flags(
        self, sha256: Sequence[str], signatures: Sequence[bytes], threads: Executor | None = None
    ) -> list[str]:
        """Return for each image the flag that says how the model knows it, or "".

        The very file was trained on, or validated on; or the image is a copy of one of those, in any
        orientation, mildly altered or not.

        Args:
            sha256: Of the images' files, hex.
            signatures: From `copies.signature`.
            threads: What aligns them; None: this thread, as in worker processes.
        """
        splits = [self._splits.get(bytes.fromhex(text)) for text in sha256]
        flags = [
            "" if validation is None else VALIDATED_ON if validation else TRAINED_ON
            for validation in splits
        ]
        unknown = [index for index, validation in enumerate(splits) if validation is None]
        if unknown:
            copies = self.copies(thumbnails([signatures[index] for index in unknown]), threads)
            for index, copy in zip(unknown, copies.tolist(), strict=True):
                flags[index] = COPY_OF_TRAINING if copy else ""
        return flags

    def kinds(
        self, paths: Sequence[str], sha256: Sequence[str], signatures: Sequence[bytes]
    ) -> dict[str, str]:
        """Return {path: how it is a copy, one of `copies.KINDS`} of the images that the model knows."""
        with ThreadPoolExecutor(available_cores()) as threads:
            flags = self.flags(sha256, signatures, threads)
        return {
            path: ALTERED if flag == COPY_OF_TRAINING else BYTES
            for path, flag in zip(paths, flags, strict=True)
            if flag
        }

    def copies(self, pictures: NDArray[np.uint8], threads: Executor | None = None) -> NDArray[np.bool_]:
        """Return whether images are copies of known ones, each judged by itself: bool [m].

        Above `MAX_SEARCHED` known images nothing is searched, and nothing is a copy.

        Args:
            pictures: uint8 [m, 24, 24].
            threads: What aligns them; None: this thread.
        """
        copy = np.zeros(len(pictures), np.bool_)
        if not len(pictures) or not 0 < len(self.pictures) <= MAX_SEARCHED:
            return copy
        candidates = [
            nearest(describe(pictures, number), self._descriptor(number), number, _LOOKS)
            for number in (WHOLE, CONTENT)
        ]
        pairs = Candidates(*map(np.concatenate, zip(*candidates, strict=True)))
        # Most copies are alike as they are, in one of the orientations: that costs little.
        compact = np.concatenate([structures(pictures), self._structures])
        moved = pairs._replace(second=len(pictures) + pairs.second)
        alike = similarity_in_place(compact, moved) >= SAME
        copy[pairs.first[alike]] = True
        aligned = moved.take(_worth_aligning(pairs, copy))
        distinct, place = np.unique(aligned.second, return_inverse=True)
        all_pictures = np.concatenate([pictures, self.pictures[distinct - len(pictures)]])
        moved = aligned._replace(second=len(pictures) + place.ravel())
        alike = similarity(all_pictures, moved, threads) >= SAME
        copy[aligned.first[alike]] = True
        return copy

    @cached_property
    def _structures(self) -> NDArray[np.int8]:
        return structures(self.pictures)

    def _descriptor(self, number: int) -> NDArray[np.float32]:
        if number not in self._described:
            self._described[number] = describe(self.pictures, number)
        return self._described[number]


def _worth_aligning(pairs: Candidates, copy: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return which pairs are aligned: of images that are not known as copies the most alike, int64 [k].

    An alignment costs time, and `infer` makes one for each of them; docs/leaks.md has the recall.
    """
    worth = ~copy[pairs.first] & (pairs.likeness >= np.array(_ALIKE)[pairs.descriptor])
    index = np.flatnonzero(worth)
    key = pairs.first[index] * 2 + pairs.descriptor[index]
    order = np.lexsort((-pairs.likeness[index], key))
    key = key[order]
    rank = np.arange(len(key)) - np.searchsorted(key, key)
    return np.asarray(index[order[rank < _ALIGNED]], np.int64)


def may_be_carried(folder: Path, dataset: Dataset) -> bool:
    """Return whether a bundle may carry what it was trained on without being asked: not of DICOM."""
    table = shardset.manifest(folder, dataset, "format", "split")
    rows = table.filter(pc.is_in(table["split"], pa.array(SPLITS, pa.string())))
    return "dicom" not in rows["format"].to_pylist()


def known_images_of(
    folder: Path, dataset: Dataset, carried: str, all_trained_on: bool = False
) -> bytes:
    """Return the content of a bundle's known_images.safetensors, or nothing where it has none.

    Args:
        folder: The shard set.
        dataset: Its description.
        carried: "on", "off", or "auto": not where one of the images is DICOM.
        all_trained_on: The validation split was trained on too.
    """
    if carried == "off" or not dataset.has_signatures:
        return b""
    if carried == "auto" and not may_be_carried(folder, dataset):
        log.info("the bundle does not name its images: some are DICOM (--known-images on names them)")
        return b""
    images = KnownImages.of_shard_set(folder, dataset)
    if all_trained_on:
        images = replace(images, validation=np.zeros_like(images.validation))
    return images.to_bytes()
