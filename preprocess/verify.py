"""Whether a shard set is still what `shard` wrote: every byte, every record, every row, the proof.

TensorFlow's reader takes a cut at a record boundary, a cut inside a record's header and an empty file
for a clean end, and Parquet gives a flipped bit back as a wrong value. So nothing is taken on trust
here but dataset.json, which says what must be there, and it is held against itself first.

    dataset.json      readable; counts that add up; the fingerprint that its settings have
    manifest.parquet  sha256, page checksums; counts, groups and places as dataset.json has them
    each shard        there, size, sha256, record checksums, number of records; each record decodes
                      and agrees with its row of the manifest
    other shards      none
    the proof         counted again: what is in more than one split
"""

import hashlib
import re
import stat
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tumorbatch import shardset
from tumorbatch import tfrecord as records
from tumorbatch.dataset_shape import GIVEN
from tumorbatch.errors import InputError
from tumorbatch.preprocess.shard_writer import count_shared
from tumorbatch.preprocess.verify_index import (
    Findings,
    Manifest,
    Problem,
    check_manifest,
    read_dataset,
    read_manifest,
)
from tumorbatch.progress import Progress
from tumorbatch.shardset import DATASET, MANIFEST, SHARD_NAME, WORK, Dataset, Shard
from tumorbatch.tfrecord import ImageRecord

_MOVE_AWAY = "Move it to another folder: programs that read *.tfrecord would take it for a part."
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        shards: Shards that dataset.json lists.
        records: Records read, good or bad.
        bytes: Size of the listed shards that are there.
        seconds: Wall time.
        problems: All of them; empty when the set is sound.
        leak: Of `Dataset.leak`; None if there is none, or dataset.json cannot be read.
    """

    shards: int
    records: int
    bytes: int
    seconds: float
    problems: tuple[Problem, ...]
    leak: str | None = None


class _Checked(NamedTuple):
    """What was read of a shard; `sound`: the right file, and at one with the manifest throughout."""

    records: int = 0
    bytes: int = 0
    sound: bool = False


def run(tfrecords: Path) -> Report:
    """Check a finished shard set, without writing anything.

    Each shard is read once for checksums, hash and records, and the sound ones once more for the
    proof. Memory holds the manifest and a few hashes a record, and the pixels of one record.

    Args:
        tfrecords: The folder of the shard set.

    Returns:
        The receipt, with all problems; the check does not end at the first. Only after a
        dataset.json that cannot be understood there is nothing more to check.

    Raises:
        InputError: The folder or its dataset.json is missing.
    """
    started = time.monotonic()
    if not (tfrecords / DATASET).is_file():
        shardset.load(tfrecords)  # raises: it has the sentence for each way to be missing
    problems = Findings(tfrecords)
    checked: list[_Checked] = []
    dataset = read_dataset(tfrecords, problems)
    if dataset is not None:
        manifest = read_manifest(tfrecords, dataset, problems)
        total = sum(shard.records for shard in dataset.shards)
        with Progress("verify", "records", total) as progress:
            for shard in dataset.shards:
                checked.append(_check_shard(tfrecords, shard, dataset, manifest, problems))
                progress.advance(checked[-1].records)
        listed = {shard.name for shard in dataset.shards}
        # A run that was killed at its commit left shards of its own; the next one removes them.
        interrupted = (tfrecords / WORK).is_dir()
        for path in sorted(tfrecords.glob("*.tfrecord")):
            if path.name in listed or path.name.startswith("."):
                continue
            if not (interrupted and SHARD_NAME.fullmatch(path.name)):
                problems.add(path.name, "does not belong to this shard set.", _MOVE_AWAY)
        if manifest is not None:
            check_manifest(manifest, dataset, problems)
            sound = [
                shard for shard, result in zip(dataset.shards, checked, strict=True) if result.sound
            ]
            _check_proof(tfrecords, dataset, sound, manifest, problems)
    return Report(
        shards=len(checked),
        records=sum(result.records for result in checked),
        bytes=sum(result.bytes for result in checked),
        seconds=time.monotonic() - started,
        problems=tuple(problems.problems),
        leak=None if dataset is None else dataset.leak,
    )


def _check_shard(
    folder: Path, shard: Shard, dataset: Dataset, manifest: Manifest | None, problems: Findings
) -> _Checked:
    path = folder / shard.name
    rows = None if manifest is None else _rows_of(shard, manifest, problems)
    before = len(problems.problems)
    try:
        info = path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        problems.add(shard.name, "is missing." if missing else f"cannot be read: {error.strerror}.")
        return _Checked()
    if not stat.S_ISREG(info.st_mode):
        problems.add(shard.name, "is not a regular file.")
        return _Checked()
    if info.st_size != shard.bytes:
        problems.add(
            shard.name,
            f"has {info.st_size:,} bytes and should have {shard.bytes:,}: it was cut off or replaced.",
        )
    digest = hashlib.sha256()
    faults: dict[str, list[int]] = defaultdict(list)  # {what: positions}
    differences: dict[str, list[int]] = defaultdict(list)
    count = 0
    try:
        for data in records.read(path):
            # The file is its records' frames, checksums included, and nothing else: one read.
            digest.update(records.frame(data))
            record = _decode(data, dataset)
            if isinstance(record, str):
                faults[record].append(count)
            elif rows is not None:
                for difference in _differing_columns(record, shard, dataset, rows.get(count)):
                    differences[difference].append(count)
            count += 1
    except InputError as error:
        problems.add(shard.name, str(error).removeprefix(f"{path} "))
    except OSError as error:
        problems.add(shard.name, f"cannot be read to its end: {error.strerror}.")
    else:
        if count != shard.records:
            problems.add(shard.name, f"holds {count:,} records and should hold {shard.records:,}.")
        if info.st_size == shard.bytes and digest.hexdigest() != shard.sha256:
            problems.add(
                shard.name, "has the right size and another sha256: it was changed or replaced."
            )
    described = len(problems.problems) == before
    for fault, positions in faults.items():
        problems.add(shard.name, f"holds {_format_positions(positions)} {fault}.")
    # Of two files that do not agree, the one that dataset.json does not describe is to blame.
    if manifest is not None and (described or not manifest.intact):
        blamed, other = MANIFEST, shard.name
    else:
        blamed, other = shard.name, MANIFEST
    for difference, positions in differences.items():
        problems.add(
            blamed,
            f"does not agree with {other} on the {difference} of {_format_positions(positions)}.",
        )
    return _Checked(count, info.st_size, len(problems.problems) == before)


def _format_positions(positions: list[int]) -> str:
    if len(positions) == 1:
        return f"1 record (position {positions[0]})"
    return f"{len(positions):,} records (the first at position {positions[0]})"


def _rows_of(shard: Shard, manifest: Manifest, problems: Findings) -> dict[int, dict[str, Any]]:
    """Return {position: row of the manifest} of one shard; report impossible positions."""
    listed = manifest.table.take(pa.array(manifest.rows.get(shard.name, []), pa.int64())).to_pylist()
    rows = {row["position"]: row for row in listed}
    if len(rows) < len(listed):
        problems.add(MANIFEST, f"puts two images at one position of {shard.name}.")
    outside = [position for position in rows if position not in range(shard.records)]
    if outside:
        problems.add(
            MANIFEST, f"names positions of {shard.name} that do not exist, such as {outside[0]}."
        )
    return rows


def _decode(data: bytes, dataset: Dataset) -> ImageRecord | str:
    """Decode the record, or return what is wrong with it."""
    try:
        record = ImageRecord.decode(data)
    except ValueError as error:
        return f"that cannot be decoded ({error})"
    size = dataset.preprocessing.size
    others = {len(pixels) for _, pixels in record.others} or {size * size}
    if (record.height, record.width, len(record.pixels)) != (size, size, size * size):
        return f"of other than {size} x {size} pixels"
    if record.variants != tuple(sorted(dataset.available[1:])) or others != {size * size}:
        return f"of other variants than {', '.join(dataset.available)}"
    if not 0 <= record.label < len(dataset.classes):
        return f"with a label that is none of {', '.join(dataset.classes)}"
    if not _SHA256.fullmatch(record.sha256):
        return "without the sha256 of a file"
    return record


def _differing_columns(
    record: ImageRecord, shard: Shard, dataset: Dataset, row: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yield the differences between record and manifest."""
    if row is None:
        yield "existence"
        return
    stated = {
        "path": record.filename,
        "sha256": record.sha256,
        "class": dataset.classes[record.label],
        "split": shard.split,
    }
    for column, value in stated.items():
        if row[column] != value:
            yield column


def _check_proof(
    folder: Path, dataset: Dataset, sound: list[Shard], manifest: Manifest, problems: Findings
) -> None:
    """Count what is in two splits, in the intact shards: exactly, or at least."""
    counted = count_shared(folder, sound, manifest.table, dataset.split_by)
    if not manifest.intact:
        for name in ("groups", "copies"):  # the records do not have them, the manifest alone does
            counted.pop(name, None)
    complete = len(sound) == len(dataset.shards)
    for name, count in counted.items():
        stated = dataset.shared.get(name)
        if stated is None or (stated != count if complete else stated < count):
            problems.add(
                DATASET,
                f"says that {stated} {name} are in more than one split; the records say {count}.",
            )
    if dataset.split_by not in ("file", GIVEN) and any(counted.values()):
        problems.add(
            DATASET,
            f"promises a split by {dataset.split_by}, and the same images are in more than one split "
            f"({counted}): test figures would be too good.",
        )
