"""Files of one patient stay together, and nothing of the patient is written."""

import hashlib
import json
import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preprocess.dicom.test_decode import IMAGE, make
from tests.preprocess.sets import SIZE, by_path, content_of, image_files, small_config, write_file
from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.files import printable
from tumorbatch.preprocess import first_pass, verify
from tumorbatch.preprocess.patients import digest, read_patients, refuse_unmatched
from tumorbatch.preprocess.shard import run

if TYPE_CHECKING:
    from tests.conftest import Cli
    from tests.preprocess.conftest import Build

pytestmark = pytest.mark.usefixtures("in_process")

NAMES = ["Healthy/1.png", "Healthy/2, 3.png", "Tumor/ü.png"]


def _table(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    if path.suffix == ".csv":
        lines = [",".join('"' + str(cell or "") + '"' for cell in row) for row in rows]
        path.write_text("\ufeffpath,age,patient\n".replace("age,", "") + "\n".join(lines) + "\n")
    else:
        columns = zip(*rows, strict=True)
        pq.write_table(pa.table(dict(zip(("path", "patient"), columns, strict=True))), path)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_tables_are_read(tmp_path: Path, name: str) -> None:
    rows = [(NAMES[0], "7"), (NAMES[1], " 7 "), (NAMES[2], None), ("Healthy/gone.png", "8")]
    table = _table(tmp_path / name, rows)
    patients = read_patients(table, NAMES)
    assert patients.by_path == {NAMES[0]: "7", NAMES[1]: "7"}
    assert patients.without_file == ("Healthy/gone.png",)
    assert patients.without_patient == (NAMES[2],)
    with pytest.raises(ConfigError) as refused:
        refuse_unmatched(table, patients)
    assert "1 of its paths fit no file (such as 'Healthy/gone.png')" in str(refused.value)
    assert f"1 files have no patient in it (such as {NAMES[2]!r})" in str(refused.value)
    assert read_patients(table, NAMES, is_known=lambda name: name == NAMES[2]).without_patient == ()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_names_are_compared_in_one_unicode_form(tmp_path: Path, form: Any, other: Any) -> None:
    names = [unicodedata.normalize(form, name) for name in ("Tumor/Müller é.png", "Tumor/b.png")]
    listed = [unicodedata.normalize(other, name) for name in names]
    table = _table(tmp_path / "t.csv", [(name, "7") for name in listed])
    patients = read_patients(table, names)
    assert patients.by_path == dict.fromkeys(names, "7")
    assert (patients.without_file, patients.without_patient) == ((), ())
    refuse_unmatched(table, patients)


def test_a_name_in_both_forms_is_two_files(tmp_path: Path) -> None:
    both = [unicodedata.normalize(form, "Tumor/ü.png") for form in ("NFC", "NFD")]
    one = _table(tmp_path / "one.csv", [(both[0], "7")])
    assert read_patients(one, both).by_path == {both[0]: "7"}  # the one that was meant
    two = _table(tmp_path / "two.csv", [(both[0], "7"), (both[1], "8")])
    assert read_patients(two, both).by_path == {both[0]: "7", both[1]: "8"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_table_in_the_encodings_that_say_what_they_are(tmp_path: Path, encoding: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes("path,patient\r\nTumor/ü.png,7\r\n".encode(encoding))
    assert read_patients(table, ["Tumor/ü.png"]).by_path == {"Tumor/ü.png": "7"}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (None, InputError, "cannot be read"),
        (b"\xff\xfe\x00", InputError, "cannot be read"),
        ("path,patient\nTumor/ü.png,7\n".encode("latin-1"), InputError, "byte 20 is not UTF-8"),
        ("path,patient\na,7\n".encode("utf-16-le"), InputError, "UTF-16 without a byte order mark"),
        (b"path;patient\nTumor/a.png;7\n", ConfigError, "a comma between them"),
        (b"path,person\nHealthy/1.png,7\n", ConfigError, "no column 'patient'"),
        (b"", ConfigError, "no column 'path'"),
        (b"path,patient\nHealthy/1.png,7\nHealthy/1.png,8\n", ConfigError, "to two patients"),
        (b"path,patient\n/data/Healthy/1.png,7\n", ConfigError, "such as 'Healthy/1.png'"),
    ],
)
def test_bad_tables_are_refused(
    tmp_path: Path, text: bytes | None, error: type[Exception], words: str
) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(error, match=words):
        read_patients(tmp_path / "t.csv", NAMES)


def test_the_digest_is_about_who_belongs_together_alone() -> None:
    one = digest({"a": "Smith", "b": "Smith", "c": "Jones"})
    assert one == digest({"c": "1", "b": "2", "a": "2"})
    assert one != digest({"a": "Smith", "b": "Jones", "c": "Jones"})
    assert digest({}) is None
    text = "a\0a\0b\0a\0c\0c\0"
    assert one == hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def raw(build: "type[Build]", tmp_path: Path) -> Path:
    for name, data in image_files(build, 16).items():
        write_file(tmp_path / "raw" / name, data)
    return tmp_path / "raw"


def test_a_table_through_the_command(raw: Path, tmp_path: Path, command: "Cli") -> None:
    paths = ["Healthy/000.png", "Healthy/001.png", "Brain Tumor/000.png", "Brain Tumor/002.png"]
    table = _table(tmp_path / "who.csv", [(path, "Jane Doe") for path in paths])
    out = tmp_path / "out"
    arguments = ("shard", raw, out, "--size", SIZE, "--groups", table)
    done = command(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert "29 files have no patient in it (such as " in done.stderr
    assert not out.exists()
    done = command(*arguments, "--allow-unmatched")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "Known patients: 1; the files of each are one group." in done.stdout
    assert "NOT COVERED by the table: 29 files without a patient, 0 paths" in done.stdout
    kept = {"paths_without_file": 0, "files_without_patient": 29}
    assert json.loads((out / "dataset.json").read_bytes())["patient_table"] == kept
    rows = by_path(out)
    assert len({rows[path]["duplicate_group"] for path in paths}) == 1
    assert len({rows[path]["split"] for path in paths}) == 1
    assert not any(b"Jane Doe" in data for data in content_of(out).values())
    assert verify.run(out).problems == ()
    done = command("shard", raw, out, "--size", SIZE, "--groups", tmp_path / "none.csv")
    assert done.returncode == ExitCode.NO_INPUT
    assert "none.csv cannot be read" in done.stderr


def test_groups_that_are_torn_apart_are_seen(raw: Path, tmp_path: Path) -> None:
    """A table lets groups be larger than the hashes say, never smaller."""
    out = tmp_path / "out"
    table = _table(tmp_path / "t.csv", [("Healthy/000.png", "x"), ("Healthy/001.png", "x")])
    run(raw, out, small_config(patients=table, allow_unmatched=True))
    manifest = pq.read_table(out / "manifest.parquet")
    groups = manifest["duplicate_group"].to_pylist()
    twice = next(group for group in groups if group is not None and groups.count(group) == 2)
    groups[groups.index(twice)] = max(group for group in groups if group is not None) + 1
    at = manifest.column_names.index("duplicate_group")
    pq.write_table(
        manifest.set_column(at, "duplicate_group", pa.array(groups)), out / "manifest.parquet"
    )
    told = [str(problem) for problem in verify.run(out).problems]
    assert any("other duplicate groups or kinds of copies than its own hashes" in text for text in told)


def test_dicom_files_of_one_patient_go_together(
    raw: Path, tmp_path: Path, build: "type[Build]"
) -> None:
    for k in range(12):
        pixels = build.smooth(48, 48, 900 + k).astype("uint16")
        folder = ("Healthy", "Brain Tumor")[k % 2]
        data = make(pixels, 12, PatientID=f"Doe-{k % 3}")
        write_file(raw / folder / f"{k:02}", data)
    write_file(raw / "Healthy" / "nobody", make(IMAGE, 12, PatientID=""))
    out = tmp_path / "out"
    report = run(raw, out, small_config())
    assert report.dataset.groups["patients"] == 3
    rows = by_path(out)
    paths = [f"{('Healthy', 'Brain Tumor')[k % 2]}/{k:02}" for k in range(12)]
    of = [{rows[path]["duplicate_group"] for path in paths[patient::3]} for patient in range(3)]
    assert all(len(groups) == 1 for groups in of)
    assert len(set.union(*of)) == 3
    assert not any(b"Doe-" in data for data in content_of(out).values())
    assert verify.run(out).problems == ()
    # The secret is another one each time, and the bytes are not.
    run(raw, tmp_path / "again", small_config(workers=1))
    assert content_of(tmp_path / "again") == content_of(out)
    single = run(raw, tmp_path / "single", small_config(patient_id=False)).dataset
    assert (single.groups["patients"], single.groups["groups"]) == (
        0,
        report.dataset.groups["groups"] + 9,
    )
    # A new file of a known patient follows him.
    write_file(raw / "Healthy" / "late", make(build.smooth(48, 48, 77), 8, PatientID="Doe-1"))
    run(raw, out, small_config())
    after = by_path(out)
    assert after["Healthy/late"]["split"] == rows["Brain Tumor/01"]["split"]
    assert report.dataset.groups["patients"] == 3


def test_the_key_is_private_and_goes_with_the_work_area(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def stop(*_: Any) -> Any:
        modes.append((tmp_path / "out" / ".partial" / "patients.key").stat().st_mode & 0o777)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(first_pass, "ordered_map", stop)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path / "out", small_config())
    run(raw, tmp_path / "out", small_config())
    assert modes == [0o600]
    assert not list((tmp_path / "out").rglob("*.key"))


def test_dicom_files_that_name_their_patient_need_no_row(
    raw: Path, tmp_path: Path, build: "type[Build]"
) -> None:
    write_file(raw / "Healthy" / "scan", make(build.smooth(48, 48, 5).astype("uint16"), 12))
    images = [printable(os.path.relpath(path, raw)) for path in raw.rglob("*.*") if path.is_file()]
    table = _table(tmp_path / "t.csv", [(name, name) for name in images])
    with pytest.raises(ConfigError, match=r"1 files have no patient in it \(such as 'Healthy/scan'"):
        run(raw, tmp_path / "out", small_config(patients=table, patient_id=False))
    # PatientID covers it.
    run(raw, tmp_path / "out", small_config(patients=table))
