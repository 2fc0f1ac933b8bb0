"""What a table says of the rest of itself."""

import hashlib
from typing import Any

import numpy as np

from tumorbatch.infer.table import ABSENT, DUPLICATE, Duplicates


def test_duplicates_are_those_of_a_plain_search() -> None:
    """Over many batches, whose keys are merged into ever longer arrays."""
    random = np.random.default_rng(0)
    texts = [hashlib.sha256(b"%d" % number).hexdigest() for number in random.integers(0, 4000, 6000)]
    texts[7] = "00" * 32  # sorted first, and a text of bytes would end there
    texts[99] = "00" * 32
    rows: list[dict[str, Any]] = [{"sha256": text, "flags": []} for text in texts]
    rows[50] = {"sha256": None, "flags": None}  # not read
    seen: set[str | None] = set()
    expected = []
    for row in rows:
        expected.append(row["sha256"] in seen)
        seen.add(row["sha256"])
    duplicates, at, flagged = Duplicates(), 0, []
    while at < len(rows):
        size = int(random.integers(1, 40))
        flagged += duplicates.flag([([row], True) for row in rows[at : at + size]])
        at += size
    assert [DUPLICATE in (row["flags"] or ()) for (row,) in flagged] == expected
    assert 2000 < sum(expected) < 4000
    (gone,) = duplicates.flag([([{"sha256": texts[0], "flags": ["old"]}], False)])
    assert gone[0]["flags"] == [ABSENT, DUPLICATE, "old"]
