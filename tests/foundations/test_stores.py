"""Objects in stores: names, listing, reading, publishing, copies; a folder plays the store."""

import json
import shutil
from pathlib import Path

import pytest
from pyarrow import fs

from tests.bundles import write_bundle, write_ensemble
from tumorbatch import staging, store_connection, stores
from tumorbatch.errors import ConfigError, ExitCode, InputError, TryAgainError
from tumorbatch.files import MAX_BYTES, FoundFile, check_folder, find_files, read_file
from tumorbatch.infer.listing import Selection, list_files
from tumorbatch.infer.target import Target
from tumorbatch.object_path import ObjectPath, identity, is_uri, location
from tumorbatch.preprocess.classes import find_sources
from tumorbatch.status import FileError, Status


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the bucket `b`."""
    folder = tmp_path / "store" / "b"
    folder.mkdir(parents=True)
    system = fs.SubTreeFileSystem(str(folder.parent), fs.LocalFileSystem())
    monkeypatch.setattr(stores, "connection", lambda path: system)
    return folder


def _put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_names() -> None:
    path = ObjectPath.parse("S3://b/scans/a b?.png")
    assert (str(path), path.path, path.name) == (
        "s3://b/scans/a b?.png",
        "b/scans/a b?.png",
        "a b?.png",
    )
    assert str(path.beside("x")) == "s3://b/scans/x"
    assert str(ObjectPath.parse("gs://b") / "x") == "gs://b/x"
    azure = ObjectPath.parse("abfs://c@lab.dfs.core.windows.net/x")
    assert (azure.path, azure.account) == ("c/x", "lab")
    assert location("s3:/b/x") == Path("s3:/b/x")
    assert not is_uri("scans/s3://x")
    assert identity("s3://b/x") == "s3://b/x"
    for wrong in ("s3://", "s3:///x"):
        with pytest.raises(ConfigError, match="names no bucket"):
            ObjectPath.parse(wrong)


def test_a_listing_is_that_of_a_folder(bucket: Path) -> None:
    _put(
        bucket, "scans/b.png", "scans/a/z.png", "scans/a/.hidden/x.png", "scans/a.png",
        "scans/a-b/c.png", "scans/Thumbs.db", "scans/__MACOSX/a.png", "scans/__MACOSX/b.png",
        "scans/é.png", "other/x.png",
    )  # fmt: skip
    litter: list[str] = []
    files = find_files(ObjectPath.parse("s3://b/scans/"), litter)
    local = find_files(bucket / "scans")
    assert [file.name for file in files] == [file.name for file in local]
    assert [file.size for file in files] == [file.size for file in local]
    assert files[0].path == "s3://b/scans/a-b/c.png"
    assert sorted(litter) == ["Thumbs.db", "__MACOSX"]
    data, state = read_file(files[-1])
    assert (data, state.size) == ("scans/é.png".encode(), len(data))


def test_only_images_are_predicted_and_a_list_names_keys(bucket: Path, tmp_path: Path) -> None:
    _put(bucket, "scans/a.png", "scans/notes.txt", "scans/odd")
    (bucket / "scans/slice").write_bytes(b"\0" * 128 + b"DICM")
    root, listed = ObjectPath.parse("s3://b/scans"), tmp_path / "list"
    own = frozenset({"s3://b/scans/a.png"})
    assert [file.name for file in list_files(root, Selection(), own, None).files] == ["slice"]
    listed.write_text("a.png\ns3://b/scans/gone.png\n")
    files = list_files(root, Selection(listed=str(listed)), frozenset(), None).files
    assert [file.name for file in files] == ["a.png", "gone.png"]
    with pytest.raises(FileError) as error:
        read_file(files[1])
    assert error.value.status == Status.VANISHED
    listed.write_text("s3://other/a.png")
    with pytest.raises(InputError, match=r"Line 1 of the list, s3://other/a.png, is not below"):
        list_files(root, Selection(listed=str(listed)), frozenset(), None)
    with pytest.raises(InputError, match="s3://b/nothing does not exist"):
        check_folder(ObjectPath.parse("s3://b/nothing"))


def test_the_folders_of_classes(bucket: Path) -> None:
    _put(bucket, "raw/Healthy/a.png", "raw/Brain Tumor/b.png", "raw/.x/c.png")
    sources = find_sources(ObjectPath.parse("s3://b/raw"), {})
    assert [(one.file.name, one.label) for one in sources] == [
        ("Brain Tumor/b.png", 1),
        ("Healthy/a.png", 0),
    ]


def test_objects_are_read_ahead_in_order(bucket: Path) -> None:
    names = [f"{number:03}.png" for number in range(40)]
    _put(bucket, *names)
    files = [FoundFile(f"s3://b/{name}", name, size=7) for name in [*names, "gone.png"]]
    stores.begin_reading(files)
    assert [stores.read_object(file.path, MAX_BYTES) for file in files[:-1]] == [
        name.encode() for name in names
    ]
    with pytest.raises(FileError, match="gone"):
        stores.read_object(files[-1].path, MAX_BYTES)
    for content, limit, status in ((b"", 9, Status.EMPTY), (b"0123456789", 9, Status.TOO_LARGE)):
        (bucket / "x").write_bytes(content)
        with pytest.raises(FileError) as error:
            stores.read_object("s3://b/x", limit)
        assert error.value.status == status


def test_a_bundle_or_set_is_copied_once_and_checked(
    bucket: Path, shard_set: Path, tmp_path: Path
) -> None:
    shutil.copytree(shard_set, bucket / "set")
    place, cache = ObjectPath.parse("s3://b/set"), tmp_path / "cache"
    copy = staging.shard_folder(place, cache)
    names = {path.name for path in copy.iterdir()}
    assert {"dataset.json", "manifest.parquet"} < names
    assert all((copy / name).read_bytes() == (shard_set / name).read_bytes() for name in names)
    shard = next(copy.glob("train-*"))
    shard.write_bytes(b"cut off")  # a copy that is not what it was is made again
    (bucket / "set" / next(copy.glob("test-*")).name).unlink()  # one that is, is not
    assert staging.shard_folder(place, cache) == copy
    assert shard.read_bytes() == (shard_set / shard.name).read_bytes()
    with pytest.raises(TryAgainError, match="is not there: was it replaced"):
        staging.shard_folder(place, tmp_path / "other")
    described = json.loads((bucket / "set/dataset.json").read_text())
    (bucket / "set/dataset.json").write_text(json.dumps(described | {"manifest_sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"manifest.parquet is damaged"):
        staging.shard_folder(place, cache)
    with pytest.raises(InputError, match=r"s3://b/none has no dataset.json"):
        staging.shard_folder(ObjectPath.parse("s3://b/none"), cache)


def test_the_copy_of_a_bundle_has_all_that_infer_reads(bucket: Path, tmp_path: Path) -> None:
    single, several = write_bundle(bucket / "cnn1"), write_ensemble(bucket / "both")
    for folder in (single, several):
        copy = staging.bundle_folder(ObjectPath.parse(f"s3://b/{folder.name}"), tmp_path)
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
            path.name: path.read_bytes() for path in folder.iterdir()
        }
    (several / "familiarity.safetensors").write_bytes(b"another's")
    with pytest.raises(InputError, match=r"familiarity.safetensors is damaged"):
        staging.bundle_folder(ObjectPath.parse("s3://b/both"), tmp_path / "other")


def test_an_output_in_a_store_needs_a_work_folder(tmp_path: Path) -> None:
    out = ObjectPath.parse("s3://b/out.parquet")
    target = Target.choose(out, "auto", tmp_path)
    assert (target.shown, target.path.name, target.path.parent.parent) == (
        str(out),
        "out.parquet",
        tmp_path,
    )
    other = Target.choose(ObjectPath.parse("s3://c/out.parquet"), "auto", tmp_path)
    assert other.path != target.path
    for path, format, work, text in (
        (out, "auto", None, "Give --work DIR"),
        (out, "dataset", tmp_path, "would be a folder"),
        (tmp_path / "out.parquet", "auto", tmp_path, "leave it out"),
    ):
        with pytest.raises(ConfigError, match=text):
            Target.choose(path, format, work)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("NO_SUCH_BUCKET during ListObjectsV2 operation: not there", 66, "has no bucket b"),
        (
            "NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect to server; "
            "Details: Failed", 75, "(Could not connect to server)",
        ),
        ("INVALID_ACCESS_KEY_ID during ListObjectsV2 operation: no", 2, "not accept the credentials"),
        ("ACCESS_DENIED during HeadObject operation: No response body.", 66, "refuses access"),
        ("SLOW_DOWN during PutObject operation: less", 75, "failed (SLOW_DOWN at PutObject)"),
    ],
)  # fmt: skip
def test_answers_of_a_store_have_exit_codes(
    answer: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    path = ObjectPath.parse("s3://b/x")
    met = OSError(f"When listing objects under key 'x/' in bucket 'b': AWS Error {answer}")
    error = store_connection.explained(met, path)
    assert (error.exit_code, words in str(error)) == (code, True), str(error)
    if code == ExitCode.NO_INPUT:
        writing = store_connection.explained(met, path, writing=True)
        assert writing.exit_code == ExitCode.CANNOT_WRITE
