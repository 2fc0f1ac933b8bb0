"""The synthetic data set: what it holds, that it is reproducible, and what it refuses."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch import synthetic as module
from tumorbatch.errors import ConfigError, ExitCode, OutputError, TryAgainError
from tumorbatch.lock import output_lock
from tumorbatch.synthetic import CLASS_FOLDERS, Report, SampleConfig, phantom, run

IMAGES = 56  # the fewest with both kinds of near duplicate in both classes
PNG, JPEG, TIFF = b"\x89PNG", b"\xff\xd8\xff", b"II*\x00"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("sample") / "new" / "raw"
    return out, run(out, SampleConfig(images=IMAGES, seed=3))


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Black squares for heads, where the images do not matter: that is quicker."""
    monkeypatch.setattr(module, "phantom", lambda *_: np.zeros((16, 16), np.float32))


def content(out: Path) -> dict[str, bytes]:
    """All files but the hidden mark by which --overwrite knows a sample."""
    files = (p for p in sorted(out.rglob("*")) if p.is_file() and p.name != ".synthetic")
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def numbered(out: Path, folder: str) -> Iterator[Path]:
    """The readable images: `Cancer (12).jpg`. The broken ones have a word in the brackets."""
    for path in sorted((out / folder).iterdir()):
        if path.stem.partition("(")[2].rstrip(")").isdigit():
            yield path


def broken(out: Path) -> set[Path]:
    good = {path for folder in CLASS_FOLDERS for path in numbered(out, folder)}
    return {out / name for name in content(out)} - good


def decode(data: bytes) -> NDArray[np.generic]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return np.asarray(pixels)


def thumbnail(data: bytes) -> NDArray[np.float64]:
    """(32 * 32,), mean 0 and length 1, so that a dot product is the correlation."""
    pixels = decode(data).astype(np.float32)
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    small -= small.mean()
    return np.asarray(small / np.linalg.norm(small))


# What it holds


def test_report_counts_what_was_written(made: tuple[Path, Report]) -> None:
    out, report = made
    assert report.healthy == len(list(numbered(out, "Healthy"))) == IMAGES // 2
    assert report.tumor == len(list(numbered(out, "Brain Tumor"))) == IMAGES // 2
    assert report.broken == len(broken(out)) == 5
    assert report.bytes == sum(map(len, content(out).values()))
    assert report.seconds > 0
    assert sorted(path.name for path in out.iterdir()) == ["Brain Tumor", "Healthy"]


def test_odd_number_of_images(tmp_path: Path, blank: None) -> None:
    report = run(tmp_path, SampleConfig(images=25))
    assert (report.healthy, report.tumor) == (13, 12)
    assert len(list(numbered(tmp_path, "Healthy"))) == 13


def test_names_are_those_of_the_public_data_set(made: tuple[Path, Report]) -> None:
    out, _ = made
    assert {p.stem for p in numbered(out, "Healthy")} == {
        f"Not Cancer  ({n})" for n in range(1, IMAGES // 2 + 1)
    }
    assert {p.stem for p in numbered(out, "Brain Tumor")} == {
        f"Cancer ({n})" for n in range(1, IMAGES // 2 + 1)
    }


def test_every_kind_of_file_in_both_classes(tmp_path: Path, blank: None) -> None:
    run(tmp_path, SampleConfig(images=24))
    for folder in CLASS_FOLDERS:
        kinds = set()
        for path in numbered(tmp_path, folder):
            data = path.read_bytes()
            pixels = decode(data)
            kinds.add((data[:3], path.suffix, pixels.dtype.name, pixels.ndim))
        assert (
            kinds
            == {
                (JPEG[:3], ".jpg", "uint8", 2),
                (JPEG[:3], ".jpg", "uint8", 3),
                (JPEG[:3], ".JPG", "uint8", 2),
                (PNG[:3], ".png", "uint8", 2),
                (PNG[:3], ".png", "uint16", 2),
                (PNG[:3], ".jpg", "uint8", 2),  # misnamed
                (TIFF[:3], ".tif", "uint8", 2),
                (TIFF[:3], ".tif", "uint16", 2),
            }
        )


def test_sixteen_bit_files_hold_twelve_bits(made: tuple[Path, Report]) -> None:
    out, _ = made
    peaks = [
        int(pixels.max())
        for folder in CLASS_FOLDERS
        for path in numbered(out, folder)
        if (pixels := decode(path.read_bytes())).dtype == np.uint16
    ]
    assert len(peaks) >= 8
    assert all(255 < peak <= 4095 for peak in peaks)


def test_misnamed_files_are_counted(made: tuple[Path, Report]) -> None:
    out, report = made
    misnamed = [p for p in out.rglob("*.jpg") if p.read_bytes().startswith(PNG)]
    assert len(misnamed) == report.misnamed == 2


def test_neither_shape_nor_format_tells_the_class(made: tuple[Path, Report]) -> None:
    out, _ = made
    healthy, tumor = (
        Counter((decode(p.read_bytes()).shape, p.suffix) for p in numbered(out, folder))
        for folder in CLASS_FOLDERS
    )
    assert healthy == tumor
    shapes = {shape[:2] for shape, _ in healthy}
    assert len(shapes) >= 7
    assert min(min(shape) for shape in shapes) < 150 < 512 <= max(max(shape) for shape in shapes)


def test_duplicates_are_of_the_same_class(made: tuple[Path, Report]) -> None:
    out, report = made
    files = [(folder, p.read_bytes()) for folder in CLASS_FOLDERS for p in numbered(out, folder)]
    small = [thumbnail(data) for _, data in files]
    exact, near, resized = 0, 0, 0
    for a, b in combinations(range(len(files)), 2):
        same_bytes = files[a][1] == files[b][1]
        alike = same_bytes or float(small[a] @ small[b]) > 0.995
        if alike:
            assert files[a][0] == files[b][0]
            exact += same_bytes
            near += not same_bytes
            resized += decode(files[a][1]).shape[:2] != decode(files[b][1]).shape[:2]
    assert exact == report.exact_duplicates == 4
    assert near == report.near_duplicates == 4
    assert resized == 2


def test_broken_files(made: tuple[Path, Report]) -> None:
    out, _ = made
    files = {path.name: path.read_bytes() for path in broken(out)}
    assert {path.parent.name for path in broken(out)} == set(CLASS_FOLDERS)
    assert files["Not Cancer  (empty).jpg"] == b""
    png, jpeg = files["Not Cancer  (truncated).png"], files["Cancer (truncated).jpg"]
    assert png.startswith(PNG)
    assert b"IEND" not in png
    assert jpeg.startswith(JPEG)
    assert b"\xff\xd9" not in jpeg
    assert files["Cancer (text).jpg"].isascii()
    assert "no diagnostic value" in files["notes.txt"].decode()


# Reproducible


def test_another_seed_gives_other_images_under_the_same_names(
    made: tuple[Path, Report], tmp_path: Path
) -> None:
    run(tmp_path, SampleConfig(images=24, seed=4))
    ours, theirs = content(tmp_path), content(made[0])
    same = {name for name in ours if ours[name] == theirs.get(name)}
    assert same == {
        "Healthy/Not Cancer  (empty).jpg",
        "Brain Tumor/Cancer (text).jpg",
        "Brain Tumor/notes.txt",
    }


def test_same_seed_gives_the_same_bytes_and_more_images_only_add_files(
    made: tuple[Path, Report], tmp_path: Path
) -> None:
    run(tmp_path, SampleConfig(images=24, seed=3))
    assert content(tmp_path).items() < content(made[0]).items()


GOLDEN = {  # (index, tumor): means over 5 x 5 blocks, in grey levels
    (0, False): [
        [5.5, 26.9, 43.6, 25.4, 4.4],
        [18.3, 52.2, 58.8, 61.2, 15.8],
        [30.1, 55.8, 46.8, 66.8, 28.3],
        [23.7, 55.9, 60.8, 62.2, 20.5],
        [8.3, 31.2, 45.4, 29.3, 4.9],
    ],
    (1, True): [
        [1.7, 17.5, 39.7, 8.9, 1.7],
        [7.8, 73.1, 87.7, 66.6, 4.0],
        [17.5, 80.0, 169.2, 98.2, 22.6],
        [5.6, 75.1, 151.9, 88.2, 14.2],
        [1.7, 16.7, 44.2, 19.5, 1.7],
    ],
}


@pytest.mark.parametrize(("index", "tumor"), GOLDEN)
def test_golden_phantoms(index: int, tumor: bool) -> None:
    # No hash: the last bit of exp and cos, and the encoders' bytes, differ between machines.
    image = phantom(0, index, (150, 150), tumor)
    means = cv2.resize(image * 255, (5, 5), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(means, GOLDEN[index, tumor], atol=0.5)


# The phantoms


def test_phantom_dtype_shape_and_range() -> None:
    image = phantom(0, 5, (60, 91), True)
    assert image.dtype == np.float32
    assert image.shape == (60, 91)
    assert image.min() >= 0
    assert image.max() <= 1


def test_lesion_is_visible_compact_and_inside_the_head() -> None:
    shape = (150, 150)
    for index in range(12):
        without, having = (phantom(1, index, shape, tumor) for tumor in (False, True))
        change = cv2.GaussianBlur(having - without, (0, 0), 2)
        assert change.max() > 0.2  # of the whole grey scale
        assert 0.005 < np.mean(change > 0.15) < 0.15  # of the area
        corners = np.r_[change[:8, :8], change[:8, -8:], change[-8:, :8], change[-8:, -8:]]
        assert np.abs(corners).max() < 0.01
        for where in np.nonzero(change > 0.15):
            assert np.diff(np.quantile(where, [0.1, 0.9])) < 65


def test_files_of_the_tumor_class_hold_a_large_bright_area(made: tuple[Path, Report]) -> None:
    def brightest_area(path: Path) -> float:
        pixels = decode(path.read_bytes())
        grey = pixels if pixels.ndim == 2 else pixels[:, :, 0]
        grey = grey.astype(np.float32) / (4095 if grey.dtype == np.uint16 else 255)
        small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA)
        return float(cv2.blur(small, (7, 7))[16:48, 16:48].max())  # without the skull

    healthy, tumor = (
        np.array([brightest_area(path) for path in numbered(made[0], folder)])
        for folder in CLASS_FOLDERS
    )
    assert np.mean(tumor[:, None] > healthy[None, :]) > 0.9  # the area under the ROC curve


def test_no_two_heads_are_alike() -> None:
    small = np.stack([phantom(0, i, (64, 64), i % 2 == 1).ravel() for i in range(40)])
    correlation = np.corrcoef(small)
    assert np.max(correlation - np.eye(len(small))) < 0.98


# Refusals and failures


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SampleConfig(images=23), r"images must be at least 24.*Received: 23\."),
        (lambda: SampleConfig(seed=-1), r"seed must be between 0 and 4294967295\. Received: -1\."),
    ],
)
def test_bad_config(make: Callable[[], SampleConfig], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("name", ["Healthy", "something.txt"])
def test_refuses_an_output_that_holds_something(tmp_path: Path, name: str, blank: None) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"Choose another folder, or give --overwrite") as caught:
        run(tmp_path, SampleConfig(images=24))
    assert name in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE
    assert content(tmp_path) == {name: b"mine"}


def test_hidden_files_and_litter_do_not_count(tmp_path: Path, blank: None) -> None:
    for name in (".gitignore", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"*")
    run(tmp_path, SampleConfig(images=24))
    for name in (".gitignore", "Thumbs.db"):
        assert (tmp_path / name).read_bytes() == b"*"


def test_overwrite_replaces_the_class_folders_only(tmp_path: Path, blank: None) -> None:
    run(tmp_path, SampleConfig(images=26))
    (tmp_path / "Third class").mkdir()
    (tmp_path / "Third class" / "mine.jpg").write_bytes(b"mine")
    run(tmp_path, SampleConfig(images=24, overwrite=True))
    assert content(tmp_path / "Third class") == {"mine.jpg": b"mine"}
    assert len(list(numbered(tmp_path, "Brain Tumor"))) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"Brain Tumor", "Healthy", "Third class"}


@pytest.mark.parametrize("linked", [False, True])
def test_overwrite_never_takes_real_data_for_a_sample(tmp_path: Path, linked: bool) -> None:
    real = tmp_path / "elsewhere" if linked else tmp_path / "out" / "Healthy"
    real.mkdir(parents=True)
    (real / "patient.jpg").write_bytes(b"real")
    if linked:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "Healthy").symlink_to(real)
    with pytest.raises(ConfigError, match="may be real data"):
        run(tmp_path / "out", SampleConfig(images=24, overwrite=True))
    assert content(real) == {"patient.jpg": b"real"}


@pytest.mark.parametrize("below", ["", "folder"])
def test_output_that_cannot_be_written(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"^Cannot write .*file") as caught:
        run(file / below, SampleConfig(images=24))
    assert caught.value.exit_code == ExitCode.CANNOT_WRITE
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("error", "seen"),
    [(OSError(28, "No space left on device"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_failure_leaves_everything_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    seen: type[BaseException],
) -> None:
    (tmp_path / "Healthy").mkdir()
    (tmp_path / "Healthy" / ".synthetic").touch()
    (tmp_path / "Healthy" / "mine.jpg").write_bytes(b"mine")
    before = content(tmp_path)
    calls = 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise error
        return phantom(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "phantom", failing)
    with pytest.raises(seen):
        run(tmp_path, SampleConfig(images=24, overwrite=True))
    assert calls == 15
    assert content(tmp_path) == before


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_failure_between_the_last_renames_is_undone(
    tmp_path: Path, blank: None, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    run(tmp_path, SampleConfig(images=24))
    (tmp_path / "Healthy" / "mine.jpg").write_bytes(b"mine")
    before = content(tmp_path)
    rename, calls = Path.rename, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="What was at that path before is unchanged"):
        run(tmp_path, SampleConfig(images=25, overwrite=True))
    assert content(tmp_path) == before


def test_a_killed_run_leaves_nothing_visible_and_the_next_one_clears_up(
    tmp_path: Path, blank: None
) -> None:
    left = tmp_path / ".sample.tmp-1" / "Healthy"
    left.mkdir(parents=True)
    (left / "Not Cancer  (1).jpg").write_bytes(b"half")
    run(tmp_path, SampleConfig(images=24))
    assert {path.name for path in tmp_path.iterdir()} == {"Brain Tumor", "Healthy"}


def test_two_runs_at_once(tmp_path: Path) -> None:
    with (
        output_lock(tmp_path, tmp_path / ".lock"),
        pytest.raises(TryAgainError, match="in use by process"),
    ):
        run(tmp_path, SampleConfig(images=24))
