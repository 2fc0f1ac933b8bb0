"""The key of keyed hashes: private, and long enough to be a secret."""

import os
import stat
from pathlib import Path

import pytest

from tumorbatch.errors import InputError
from tumorbatch.secret_key import create_key, read_key


def test_a_new_key_is_random_and_private(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        create_key(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        keys.append(read_key(tmp_path / name))
    assert [len(key) for key in keys] == [32, 32]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("content", [b"", b"short", bytes(15), bytes(33)])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(InputError, match="has not 16 to 32 bytes and hides nothing"):
        read_key(tmp_path / "key")


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o602])
def test_a_key_that_everybody_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    create_key(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(InputError, match=r"can be read by every user .* chmod 600"):
        read_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)  # a group's key is for the group to know
    assert len(read_key(tmp_path / "key")) == 32


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, words in (("fifo", "not a regular file"), ("missing", "No such file")):
        with pytest.raises(InputError, match=words):
            read_key(tmp_path / name)
