"""Versions of the shard set's format, and what may leak from one split into another in each."""

SCHEMA_VERSION = 2  # groups of copies in every orientation, and of altered ones
UPRIGHT_ONLY = 1  # groups of upright copies
READABLE = (UPRIGHT_ONLY, SCHEMA_VERSION)

LEAKY = "leaky"  # split by file, or the proof failed
LEAKY_ORIENTATION = "leaky-orientation"  # a set of the first version
UPGRADE = (
    "The set was made by an older version, which saw copies in one orientation only: mirrored, turned "
    "and altered ones may lie in two splits. `tumorbatch shard --overwrite --new-splits` makes it "
    "again, split by all copies."
)
