"""Data sets: reading, checking, scaling and preparing."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.data import download as web
from jaxdist.data import idx, prepared, tfds_sets
from jaxdist.errors import InputError

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
TRAIN_IMAGES, TRAIN_LABELS = idx.STEMS["train"]
TEST_IMAGES, TEST_LABELS = idx.STEMS["test"]
STEMS = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No user folders, and no network but the loopback."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TFDS_DATA_DIR", str(home / "tfds"))
    monkeypatch.setattr(prepared, "_user_cache", lambda: home / "cache")
    monkeypatch.setenv("no_proxy", "*")
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", f"the network was tried: {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def arrays(shape: tuple[int, ...] = (6, 5), kind: str = "u1", train: int = 40, test: int = 12) -> list[np.ndarray]:
    """Images and labels of both splits; all ten labels occur in each."""
    rng = np.random.default_rng(0)
    return [
        part
        for count in (train, test)
        for part in ((rng.normal(size=(count, *shape)) * 70).astype(kind), np.arange(count, dtype=np.uint8) * 7 % 10)
    ]


def put(folder: Path, parts: list[np.ndarray], *, gz: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, part in zip(STEMS, parts, strict=True):
        content = idx_bytes(part)
        (folder / f"{stem}{'.gz' if gz else ''}").write_bytes(gzip.compress(content) if gz else content)
    return folder


def load(folder: Path, name: str = "mnist") -> data.Dataset:
    return data.load(DataConfig(name=name, dir=str(folder)))


def prepare(name: str, source: Path | None, data_dir: Path, *, download: bool = False) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return data.prepare(name, source=source, data_dir=data_dir, download=download, report=lines.append), lines


def refused(call: Callable[[], Any], *parts: object) -> str:
    """Check that `call` raises an `InputError` of one line that says every one of `parts`."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def official(name: str) -> Path:
    folder = SHARED / name
    if not idx.present(folder):
        pytest.skip(f"the official IDX files of {name} are not in {folder}")
    return folder


# Reading IDX files


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_an_idx_file_reads_back_as_written(tmp_path: Path, kind: str, name: str) -> None:
    written = arrays((3, 2, 4), kind)[0]
    content = idx_bytes(written)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = idx.read(tmp_path / name)
    assert found.dtype == np.dtype(kind)
    np.testing.assert_array_equal(found, written)
    assert idx.digest(tmp_path / name) == hashlib.sha256(content).hexdigest()


def test_all_spellings_of_the_names_are_one_data_set(tmp_path: Path) -> None:
    parts = arrays()
    plain, packed, dotted = (put(tmp_path / name, parts, gz=name == "packed") for name in ("plain", "packed", "dotted"))
    for stem in STEMS:
        (dotted / stem).rename(dotted / stem.replace("-idx", ".idx"))
    assert load(plain).digest == load(packed).digest == load(dotted).digest


def test_a_data_set_is_what_the_files_hold(tmp_path: Path) -> None:
    parts = arrays()
    found = load(put(tmp_path / "idx", parts))
    for ours, theirs in zip((*found.train, *found.test), parts, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert not ours.flags.writeable
    assert found.train.images.dtype == np.uint8
    assert found.train.labels.dtype == found.test.labels.dtype == np.int32
    assert (found.name, found.classes, found.largest) == ("mnist", 10, 255.0)
    assert str(tmp_path / "idx") in found.source


@pytest.mark.parametrize(
    ("shape", "stored"), [((6, 5, 1), (6, 5)), ((6, 5, 3), (6, 5, 3)), ((7, 1), (7, 1)), ((9,), (9,))]
)
def test_only_a_single_channel_is_dropped(tmp_path: Path, shape: tuple[int, ...], stored: tuple[int, ...]) -> None:
    assert load(put(tmp_path / "idx", arrays(shape))).train.images.shape == (40, *stored)


def test_classes_of_an_unknown_name_are_counted(tmp_path: Path) -> None:
    parts = arrays()
    parts[1], parts[3] = parts[1] % 4, parts[3] % 3
    assert load(put(tmp_path / "idx", parts), "letters").classes == 4


def test_largest_is_of_the_training_images_where_the_type_sets_no_limit(tmp_path: Path) -> None:
    parts = arrays(kind="f4")
    parts[2] *= 100
    assert load(put(tmp_path / "idx", parts)).largest == parts[0].max()


def test_the_digest_changes_with_any_change(tmp_path: Path) -> None:
    def digest(parts: list[np.ndarray]) -> str:
        return load(put(tmp_path / "idx", parts)).digest

    changed = []
    for part in range(4):
        parts = arrays()
        parts[part].flat[3] ^= 1
        changed.append(parts)
    base = arrays()
    changed += [arrays((5, 6)), [base[0].astype("i2"), base[1], base[2].astype("i2"), base[3]], base[2:] + base[:2]]
    digests = [digest(parts) for parts in (base, *changed)]
    assert len(set(digests)) == len(digests)
    assert digest(arrays()) == digests[0]


def test_digits_are_scikit_learns_in_its_order() -> None:
    from sklearn.datasets import load_digits

    found, bunch = data.load(DataConfig()), load_digits()
    np.testing.assert_array_equal(np.concatenate([found.train.images, found.test.images]), bunch.images)
    np.testing.assert_array_equal(np.concatenate([found.train.labels, found.test.labels]), bunch.target)
    assert (len(found.train.labels), len(found.test.labels)) == (1437, 360)
    assert found.train.images.dtype == np.uint8
    assert (found.classes, found.largest) == (10, 16.0)
    assert "load_digits" in found.source


@pytest.mark.parametrize(("name", "first"), [("mnist", [5, 0, 4, 1, 9]), ("fashion_mnist", [9, 0, 0, 3, 0])])
def test_the_official_files_are_the_official_data(name: str, first: list[int]) -> None:
    folder = official(name)
    found = load(folder, name)
    assert found.train.labels[:5].tolist() == first
    assert (found.train.images.shape, found.test.images.shape) == ((60000, 28, 28), (10000, 28, 28))
    for stem, expected in web.DIGESTS[name].items():
        assert idx.digest(folder / f"{stem}.gz") == expected


# Refusing bad input


def replaced(stem: str, change: Callable[[bytes], bytes], suffix: str = "") -> Callable[[Path], None]:
    """A spoiler that rewrites one file."""

    def spoil(folder: Path) -> None:
        content = change((folder / stem).read_bytes())
        (folder / stem).unlink()
        (folder / f"{stem}{suffix}").write_bytes(content)

    return spoil


def edited(part: int, change: Callable[[np.ndarray], np.ndarray], kind: str = "u1") -> Callable[[Path], None]:
    """A spoiler that changes one of the four arrays, given images of one type."""

    def spoil(folder: Path) -> None:
        parts = arrays(kind=kind)
        parts[part] = change(parts[part])
        put(folder, parts)

    return spoil


def with_value(index: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


BAD: dict[str, tuple[Any, ...]] = {
    "missing file": (lambda folder: (folder / TEST_LABELS).unlink(), "no file t10k-labels-idx1-ubyte", "the four IDX"),
    "folder for a file": (
        lambda folder: ((folder / TRAIN_IMAGES).unlink(), (folder / TRAIN_IMAGES).mkdir()),
        f"{TRAIN_IMAGES}: cannot be read (",
    ),
    "not gzip": (replaced(TRAIN_IMAGES, bytes, ".gz"), f"{TRAIN_IMAGES}.gz: not intact gzip data (Not a gzipped"),
    "cut gzip": (
        replaced(TRAIN_IMAGES, lambda old: gzip.compress(old)[:-20], ".gz"),
        f"{TRAIN_IMAGES}.gz: the gzip data is cut short",
    ),
    "corrupt gzip": (
        replaced(TRAIN_IMAGES, lambda old: gzip.compress(old)[:-8] + bytes(8), ".gz"),
        f"{TRAIN_IMAGES}.gz: not intact gzip data (CRC check failed",
    ),
    "damaged gzip": (
        replaced(TRAIN_IMAGES, lambda old: gzip.compress(old)[:10] + b"\xff" * 100, ".gz"),
        f"{TRAIN_IMAGES}.gz: not intact gzip data (Error -3 while decompressing",
    ),
    "empty gzip": (replaced(TRAIN_LABELS, lambda _: b"", ".gz"), f"{TRAIN_LABELS}.gz: starts with ''"),
    "gzip without its ending": (
        replaced(TRAIN_IMAGES, gzip.compress),
        f"{TRAIN_IMAGES}: starts with '1f 8b 08 00', which is not an IDX header",
        "end its name in .gz",
    ),
    "wrong magic": (
        replaced(TRAIN_IMAGES, lambda old: b"PNG!" + old[4:]),
        "starts with '50 4e 47 21'",
        "expected '00 00'",
    ),
    "unknown type": (replaced(TRAIN_IMAGES, lambda old: b"\0\0\x0a\3" + old[4:]), "starts with '00 00 0a 03'"),
    "no dimensions": (replaced(TRAIN_IMAGES, lambda old: b"\0\0\x08\0" + old[4:]), "starts with '00 00 08 00'"),
    "cut header": (replaced(TRAIN_IMAGES, lambda old: old[:9]), "ends inside its header; expected 3 dimensions"),
    "cut values": (
        replaced(TRAIN_IMAGES, lambda old: old[:-1]),
        "40 x 6 x 5 values",
        "expected 1,200 bytes",
        "only 1,199",
    ),
    "trailing bytes": (
        replaced(TEST_LABELS, lambda old: old + b"\0"),
        TEST_LABELS,
        "expected 12 bytes after it, got more",
    ),
    "huge header": (
        replaced(TRAIN_IMAGES, lambda old: old[:4] + b"\xff" * 12 + old[16:]),
        "declares 4294967295 x 4294967295 x 4294967295 values",
        "only 1,200",
    ),
    "counts": (
        edited(1, lambda labels: labels[:-1]),
        f"{TRAIN_IMAGES} holds 40 images but ",
        f"{TRAIN_LABELS} holds 39 labels; expected one label an image",
    ),
    "label above": (
        edited(3, with_value((4,), 10)),
        f"{TEST_LABELS}: label 10 at index 4 is not a class; expected 0 to 9",
    ),
    "label below": (
        edited(1, lambda labels: with_value((2,), -3)(labels.astype("i1"))),
        f"{TRAIN_LABELS}: label -3 at index 2 is not a class",
    ),
    "label type": (
        edited(1, lambda labels: labels.astype("f4")),
        f"{TRAIN_LABELS}: float32 of shape (40,) is not a list",
    ),
    "label shape": (edited(1, lambda labels: labels[:, None]), f"{TRAIN_LABELS}: uint8 of shape (40, 1) is not a list"),
    "image shape": (
        edited(0, lambda images: images[:, 0, 0]),
        f"{TRAIN_IMAGES}: uint8 of shape (40,) is not a list of im",
    ),
    "not a number": (
        edited(0, with_value((3, 2, 1), np.nan), "f4"),
        f"{TRAIN_IMAGES}: the pixel at [3, 2, 1] is nan; expected only finite float32 values",
    ),
    "infinite": (edited(2, with_value((0, 0, 4), -np.inf), "f8"), f"{TEST_IMAGES}: the pixel at [0, 0, 4] is -inf"),
    "beyond float32": (
        edited(0, with_value((0, 1, 0), 1e39), "f8"),
        f"{TRAIN_IMAGES}: the pixel at [0, 1, 0] is 1e+39",
    ),
    "no images": (edited(2, lambda images: images[:0]), f"{TEST_IMAGES}: an array of shape (0, 6, 5) holds no images"),
    "no pixels": (
        edited(0, lambda images: images[:, :0]),
        f"{TRAIN_IMAGES}: an array of shape (40, 0, 5) holds no images",
    ),
    "unlike shapes": (
        edited(2, lambda images: images[:, :4]),
        f"{TEST_IMAGES}: images of shape 4x5, but ",
        f"{TRAIN_IMAGES} has 6x5; expected the same in both splits",
    ),
    "unlike types": (
        edited(2, lambda images: images.astype("f4")),
        f"{TEST_IMAGES}: images of pixel type float32, but ",
        f"{TRAIN_IMAGES} has uint8",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_idx_file_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, *parts = BAD[case]
    folder = put(tmp_path / "idx", arrays())
    spoil(folder)
    refused(lambda: load(folder), folder, "expected", *parts)


def test_labels_of_an_unknown_name_are_checked_against_the_training_labels(tmp_path: Path) -> None:
    parts = arrays()
    folder = put(tmp_path / "idx", [parts[0], parts[1] % 4, *parts[2:]])
    refused(lambda: load(folder, "letters"), f"{TEST_LABELS}: label 7 at index 1 is not a class; expected 0 to 3")
    put(folder, [parts[0], parts[1] * 0, parts[2], parts[3] * 0])
    refused(lambda: load(folder, "letters"), TRAIN_LABELS, "no label is above 0; expected at least 2 classes")
    huge = np.full(40, np.iinfo(np.int32).max, "i4")
    put(folder, [parts[0], huge, *parts[2:]])
    refused(lambda: load(folder, "letters"), "label 2147483647 at index 0 is not a class")


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    refused(lambda: load(tmp_path), f"{tmp_path}: neither IDX files nor TFDS data", TRAIN_IMAGES, "'mnist'")
    refused(lambda: load(tmp_path / "none"), f"{tmp_path / 'none'}: no such folder", "correct data.dir")
    endless = tmp_path / ("a" * 300)
    refused(lambda: load(endless), endless, "cannot be used (File name too long)")
    refused(lambda: prepare("mnist", endless, tmp_path), endless, "cannot be used (File name too long)")


@pytest.mark.parametrize("name", ["", "MNIST", "../mnist", "fashion-mnist", "mnist/..", "mnist/", "a b"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    refused(lambda: data.load(DataConfig(name=name)), f"data.name: '{name}' is not the name of a data set")


def test_an_unprepared_name_fails_at_once_and_says_what_to_do() -> None:
    start = time.monotonic()
    place = os.environ["TFDS_DATA_DIR"]
    refused(
        lambda: data.load(DataConfig(name="mnist")),
        f"data.name: 'mnist' is not prepared in {place}",
        "'jaxdist data prepare mnist --from FOLDER'",
        "'jaxdist data prepare mnist --download'",
        "--data.dir FOLDER",
    )
    message = refused(
        lambda: data.load(DataConfig(name="fashon_mnist")),
        "no data set 'fashon_mnist'",
        "did you mean 'fashion_mnist'?",
    )
    assert "--download" not in message
    refused(lambda: data.load(DataConfig(name="cifar10")), "known: digits, mnist, fashion_mnist")
    assert time.monotonic() - start < 5


def test_the_default_place_is_tfds_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared.default_dir() == Path(os.environ["TFDS_DATA_DIR"])
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert prepared.default_dir() == Path.home() / "tensorflow_datasets"
    assert data.known_names() == ("digits", "mnist", "fashion_mnist")


def test_importing_imports_neither_tfds_nor_jax() -> None:
    code = "import sys, jaxdist.data; print({'jax', 'tensorflow_datasets', 'sklearn', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


# Scaling


def test_scaling_is_the_formula(tmp_path: Path) -> None:
    parts = arrays()
    found = load(put(tmp_path / "idx", parts))
    unit = [part.astype(np.float64) / 255 for part in (parts[0], parts[2])]
    expected = {
        DataConfig(normalisation="raw"): [part.astype(np.float64) for part in (parts[0], parts[2])],
        DataConfig(normalisation="unit"): unit,
        DataConfig(normalisation="standard"): [(part - unit[0].mean()) / unit[0].std() for part in unit],
        DataConfig(normalisation="standard", mean=0.1307, sd=0.3081): [(part - 0.1307) / 0.3081 for part in unit],
        DataConfig(normalisation="standard", mean=0.5): [(part - 0.5) / unit[0].std() for part in unit],
        DataConfig(normalisation="standard", sd=2.0): [(part - unit[0].mean()) / 2 for part in unit],
    }
    for config, both in expected.items():
        for ours, theirs in zip(data.scaled(found, config), both, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.train.images, parts[0])


def test_digits_are_divided_by_sixteen() -> None:
    train, test = data.scaled(data.load(DataConfig()), DataConfig(normalisation="unit"))
    assert train.max() == test.max() == 1


def test_scaling_that_means_nothing_is_refused(tmp_path: Path) -> None:
    found = load(put(tmp_path / "idx", arrays()))
    unused = {
        DataConfig(normalisation="raw", mean=0.5): "data.mean: used only with data.normalisation 'standard', got 'raw'",
        DataConfig(
            normalisation="unit", mean=0.5
        ): "data.mean: used only with data.normalisation 'standard', got 'unit'",
        DataConfig(normalisation="unit", sd=0.5): "data.sd: used only with data.normalisation 'standard', got 'unit'",
    }
    for config, message in unused.items():
        refused(functools.partial(data.scaled, found, config), message)
    refused(
        lambda: data.scaled(found, DataConfig(normalisation="standard", sd=0.0)), "data.sd", "is 0.0; expected one abo"
    )
    parts = arrays(kind="f4")
    flat = load(put(tmp_path / "flat", [np.ones_like(parts[0]), *parts[1:]]))
    refused(lambda: data.scaled(flat, DataConfig(normalisation="standard")), "the standard deviation of mnist is 0.0")
    dark = load(put(tmp_path / "dark", [np.zeros_like(parts[0]), *parts[1:]]))
    refused(
        lambda: data.scaled(dark, DataConfig(normalisation="unit")), "'unit' divides by the largest pixel", "is 0.0"
    )
    assert not data.scaled(dark, DataConfig(normalisation="raw"))[0].any()


# Prepared TFDS data sets


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("mnist", (28, 28), "u1"),
        ("fashion_mnist", (28, 28, 1), "u1"),
        ("colours", (6, 5, 3), "u1"),
        ("pairs", (6, 5, 2), "u1"),
        ("flat", (7,), "i2"),
        ("precise", (3, 2), "f8"),
    ],
)
def test_a_prepared_data_set_is_the_files_it_was_made_from(
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...],
    kind: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    source = put(tmp_path / "idx", arrays(shape, kind), gz=True)
    place, lines = prepare(name, source, tmp_path / "tfds")
    found, expected = load(tmp_path / "tfds", name), load(source, name)
    assert found.digest == expected.digest
    assert (found.classes, found.largest, found.name) == (expected.classes, expected.largest, expected.name)
    assert found.source.startswith(f"TFDS data set {name} {place.name} in {place}")
    assert lines[-2:] == [f"writing 40 train and 12 test images of {name}", f"{name} is prepared in {place}"]
    assert place.parent.parent == tmp_path / "tfds"
    assert sorted(path.name for path in (tmp_path / "tfds").iterdir()) == [name]
    assert not list(scratch.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_prepared_set_in_the_default_place_is_found(tmp_path: Path) -> None:
    source = put(tmp_path / "idx", arrays())
    place = data.prepare("mnist", source=source, data_dir=None, download=False, report=lambda _: None)
    assert place == prepared.default_dir() / "mnist" / "3.0.1"
    assert data.load(DataConfig(name="mnist")).digest == load(source).digest
    (prepared.default_dir() / "downloads").mkdir()
    refused(lambda: data.load(DataConfig(name="mmist2")), "did you mean 'mnist'?")
    data.prepare("letters", source=source, data_dir=None, download=False, report=lambda _: None)
    refused(lambda: data.load(DataConfig(name="leters")), "did you mean 'letters'?")
    refused(lambda: data.load(DataConfig(name="zzz")), "known: digits, mnist, fashion_mnist, letters")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_tfds_itself_reads_what_was_prepared(tmp_path: Path, name: str) -> None:
    import tensorflow_datasets as tfds

    parts = arrays((28, 28))
    place, _ = prepare(name, put(tmp_path / "idx", parts), tmp_path / "tfds")
    own = tfds.builder(name, data_dir=tmp_path / "none", file_format="array_record")
    ours = tfds.builder_from_directory(place)
    assert (ours.name, str(ours.version)) == (own.name, str(own.version)) == (name, "3.0.1")
    assert ours.info.features.to_json() == own.info.features.to_json()
    assert ours.info.features["label"].names == own.info.features["label"].names
    assert ours.info.supervised_keys == own.info.supervised_keys
    assert tfds.builder(name, data_dir=tmp_path / "tfds").is_prepared()
    decoders = {"image": tfds.decode.SkipDecoding()}
    examples = tfds.data_source(name, data_dir=tmp_path / "tfds", split="test", download=False, decoders=decoders)
    assert [int(example["label"]) for example in examples] == parts[3].tolist()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(examples[5]["image"]))), parts[2][5])


@pytest.mark.slow
def test_twenty_thousand_official_images_survive_preparing(tmp_path: Path) -> None:
    images, labels, *test = (idx.read(official("mnist") / f"{stem}.gz") for stem in STEMS)
    source = put(tmp_path / "idx", [images[:10000], labels[:10000], *test])
    prepare("mnist", source, tmp_path / "tfds")
    assert load(tmp_path / "tfds").digest == load(source).digest


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A prepared mnist, not decoded yet."""
    return prepare("mnist", put(tmp_path / "idx", arrays()), tmp_path / "tfds")[0]


def test_images_are_decoded_once_for_unchanged_files(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    decode = tfds_sets.decode

    def counted(folder: Path) -> tfds_sets.Arrays:
        calls.append(folder)
        return decode(folder)

    monkeypatch.setattr(tfds_sets, "decode", counted)
    root = ready.parents[1]
    first = load(root).digest
    assert load(root).digest == first
    assert len(calls) == 1
    cache = ready / ".jaxdist" / "decoded.npz"
    assert [path.name for path in cache.parent.iterdir()] == ["decoded.npz"]
    os.utime(next(ready.glob("*train.array_record*")), ns=(1, 1))
    assert load(root).digest == first
    assert len(calls) == 2
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    for damage in (b"", b"junk", cache.read_bytes()[:-500], single.getvalue()):
        cache.write_bytes(damage)
        assert load(root).digest == first
    assert len(calls) == 6
    assert load(root).digest == first
    assert len(calls) == 6


def test_a_cache_with_other_arrays_is_not_used(ready: Path) -> None:
    root = ready.parents[1]
    first = load(root).digest
    cache = ready / ".jaxdist" / "decoded.npz"
    with np.load(cache) as old:
        other = dict(old) | {"mark": np.array("of other files"), "train_images": old["train_images"] * 0}
    np.savez(cache, **other)
    assert load(root).digest == first
    np.savez(cache, allow_pickle=True, mark=np.array({"an": "object"}, dtype=object))
    assert load(root).digest == first


def test_without_a_place_beside_the_data_the_users_cache_is_used(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ready / ".jaxdist").write_text("a file where the folder would be")
    root = ready.parents[1]
    first = load(root).digest
    assert len(list(prepared._user_cache().glob("*.npz"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(tfds_sets, "decode", lambda _: pytest.fail("decoded again"))
        assert load(root).digest == first
    nowhere = ready / ".jaxdist" / "deeper"
    monkeypatch.setattr(prepared, "_user_cache", lambda: nowhere)
    assert load(root).digest == first


RUINS: dict[str, Callable[[Path], Any]] = {
    "cut records": lambda place: os.truncate(next(place.glob("*test.array_record*")), 70000),
    "empty records": lambda place: next(place.glob("*train.array_record*")).write_bytes(b""),
    "missing records": lambda place: next(place.glob("*train.array_record*")).unlink(),
    "bad info": lambda place: (place / "dataset_info.json").write_text("{"),
    "bad features": lambda place: (place / "features.json").write_text("[]"),
}


@pytest.mark.parametrize("ruin", RUINS)
def test_a_damaged_prepared_set_is_refused(ready: Path, ruin: str) -> None:
    load(ready.parents[1])
    RUINS[ruin](ready)
    refused(lambda: load(ready.parents[1]), f"{ready}: the prepared TFDS data set cannot be read (", "prepare it again")


def test_a_set_that_only_tensorflow_can_read_is_refused(ready: Path) -> None:
    for path in ready.glob("*array_record*"):
        path.rename(ready / path.name.replace("array_record", "tfrecord"))
    root = ready.parents[1]
    for call in (lambda: load(root), lambda: prepare("mnist", root, root)):
        refused(call, ready, "without array_record files", "prepare mnist in another data folder")


def test_the_newest_version_and_a_named_configuration_are_read(ready: Path) -> None:
    root = ready.parents[1]
    ready.rename(ready.parent / "3.0.9")
    (ready.parent / "3.0.10").mkdir()
    assert prepared.find(root, "mnist") == ready.parent / "3.0.9"
    shutil.copytree(ready.parent / "3.0.9", ready.parent / "3.0.10", dirs_exist_ok=True)
    assert prepared.find(root, "mnist") == ready.parent / "3.0.10"
    (root / "mnist").rename(root / "small")
    (root / "mnist").mkdir()
    (root / "small").rename(root / "mnist" / "small")
    refused(lambda: load(root), f"'mnist' is prepared in {root} only with a configuration; expected mnist/small")
    assert load(root, "mnist/small").digest == load(root.parent / "idx").digest


def tfds_set(folder: Path, features: dict[str, Any], splits: dict[str, list[dict[str, Any]]]) -> Path:
    """Write a prepared TFDS set named 'other' with any features, and return the data folder."""
    import tensorflow_datasets as tfds

    class Other(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]  # TFDS is untyped
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, _: Any) -> dict[str, Any]:
            return {name: enumerate(examples) for name, examples in splits.items()}

        def _generate_examples(self) -> None:
            """TFDS insists on it, though the generators are given above."""

    Other(data_dir=folder).download_and_prepare(file_format="array_record")
    return folder


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "palette"])
def test_pictures_of_every_kind_tfds_stores_are_read(tmp_path: Path, kind: str) -> None:
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(1)
    pixel = "uint8" if kind == "palette" else kind
    images = (rng.uniform(size=(8, 4, 3)) * 250).astype(pixel)
    stored = [image.view(np.uint8).reshape(4, 3, 4) if kind == "float32" else image for image in images]
    pictures = [encoded(image) for image in stored]
    if kind == "palette":
        file = io.BytesIO()
        reversed_greys = Image.fromarray(255 - images[0]).convert("P")
        reversed_greys.putpalette([255 - grey for grey in range(256) for _ in "RGB"])
        reversed_greys.save(file, "PNG")
        pictures[0] = file.getvalue()
    features = {
        "image": tfds.features.Image(shape=(4, 3, 1), dtype=getattr(np, pixel)),
        "label": tfds.features.ClassLabel(num_classes=2),
        "id": tfds.features.Text(),
    }
    # Only TensorFlow encodes float pictures; these are encoded above as it would encode them.
    features["image"].encode_example = bytes
    examples = [{"image": picture, "label": i % 2, "id": str(i)} for i, picture in enumerate(pictures)]
    found = load(tfds_set(tmp_path, features, {"train": examples[:5], "test": examples[5:]}), "other")
    np.testing.assert_array_equal(np.concatenate([found.train.images, found.test.images]), images)
    assert found.train.images.dtype == pixel
    assert found.largest == {"uint8": 255, "uint16": 65535, "float32": images[:5].max()}[pixel]


def test_tfds_sets_of_another_form_are_refused(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    picture, label, text = (
        tfds.features.Image(shape=(None, None, 1)),
        tfds.features.Scalar(np.int64),
        tfds.features.Text(),
    )
    small, large = encoded(np.zeros((4, 3), np.uint8)), encoded(np.zeros((4, 4), np.uint8))
    one = [{"image": small, "label": 0}]
    cases: dict[str, Any] = {
        "no test split, only train": ({"image": picture, "label": label}, {"train": one}),
        "its features are image, words": (
            {"image": picture, "words": text},
            {"train": [{"image": small, "words": "a"}], "test": [{"image": small, "words": "a"}]},
        ),
        "with image and label to be used": (
            {"image": text, "label": label},
            {"train": [{"image": "a", "label": 0}], "test": [{"image": "a", "label": 0}]},
        ),
        "its images are of several shapes": (
            {"image": picture, "label": label},
            {"train": [*one, {"image": large, "label": 0}], "test": one},
        ),
        "a picture of uint8, where uint16 is declared": (
            {"image": tfds.features.Image(shape=(4, 3, 1), dtype=np.uint16), "label": label},
            {"train": one, "test": one},
        ),
        "label -1 at index 0 is not a class": (
            {"image": picture, "label": label},
            {"train": [*one, {"image": small, "label": 1}], "test": [{"image": small, "label": -1}]},
        ),
    }
    for index, (part, (features, splits)) in enumerate(cases.items()):
        folder = tfds_set(tmp_path / str(index), features, splits)
        refused(functools.partial(load, folder, "other"), folder / "other" / "1.0.0", part, "expected")


# Preparing


def test_a_prepared_set_is_left_as_it_is(ready: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in ready.rglob("*")}
    place, lines = prepare("mnist", tmp_path / "idx", tmp_path / "tfds")
    assert (place, lines) == (ready, [f"mnist is already prepared in {ready}"])
    assert {path: path.stat().st_mtime_ns for path in ready.rglob("*")} == before


def test_files_that_are_not_the_official_ones_are_pointed_out(tmp_path: Path) -> None:
    source = put(tmp_path / "idx", arrays())
    assert prepare("mnist", source, tmp_path / "a")[1][0].startswith(
        f"note: the files in {source} are not the official"
    )
    assert not any("official" in line for line in prepare("letters", source, tmp_path / "a")[1])


@pytest.mark.parametrize(
    ("name", "given", "download", "parts"),
    [
        ("mnist", False, False, ["prepare mnist: expected either --from FOLDER or --download, got neither"]),
        ("mnist", True, True, ["prepare mnist: expected either --from FOLDER or --download, got both"]),
        ("digits", True, False, ["digits comes with scikit-learn and needs no preparing"]),
        ("letters", False, True, ["'letters' cannot be downloaded", "known: mnist, fashion_mnist", "--from FOLDER"]),
        ("Not A Name", True, False, ["'Not A Name' cannot be the name of a data set; expected lower_snake_case"]),
        ("../up", True, False, ["'../up' cannot be the name of a data set"]),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    tmp_path: Path, name: str, given: bool, download: bool, parts: list[str]
) -> None:
    source = put(tmp_path / "idx", arrays()) if given else None
    refused(lambda: prepare(name, source, tmp_path / "tfds", download=download), *parts)
    assert not (tmp_path / "tfds").exists()


def test_bad_files_leave_nothing_behind(tmp_path: Path) -> None:
    source = put(tmp_path / "idx", arrays())
    (source / TEST_IMAGES).unlink()
    refused(lambda: prepare("mnist", source, tmp_path / "tfds"), f"{source}: no file {TEST_IMAGES}")
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("disk full"), RuntimeError("writer failed")])
def test_an_interrupted_prepare_leaves_nothing_that_looks_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    source, encode, done = put(tmp_path / "idx", arrays()), tfds_sets._png, []

    def failing(pixels: np.ndarray) -> bytes:
        done.append(pixels)
        if len(done) == 45:  # in the middle of the test split
            raise failure
        return encode(pixels)

    monkeypatch.setattr(tfds_sets, "_png", failing)
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        prepare("mnist", source, tmp_path / "tfds")
    if not isinstance(failure, KeyboardInterrupt):
        assert f"mnist cannot be written there ({failure})" in str(caught.value)
    assert len(done) == 45
    assert list((tmp_path / "tfds").iterdir()) == []


def test_what_is_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    blocked = tmp_path / "tfds" / "mnist" / "3.0.1"
    blocked.mkdir(parents=True)
    (blocked / "precious").write_text("mine")
    source = put(tmp_path / "idx", arrays())
    refused(lambda: prepare("mnist", source, tmp_path / "tfds"), tmp_path / "tfds", "mnist cannot be written there")
    assert [path.name for path in blocked.iterdir()] == ["precious"]
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["mnist"]
    refused(lambda: prepare("mnist", source, source / TRAIN_IMAGES), "mnist cannot be written there")


# Downloading


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files; a path with 'cut' in it promises more bytes than it sends."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send_header(self, keyword: str, value: str) -> None:
        cut = keyword == "Content-Length" and "cut" in self.path
        super().send_header(keyword, "999999" if cut else value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on the loopback, of the folder tmp_path / 'web'."""
    (tmp_path / "web").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


@pytest.fixture
def mirror(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small gzip files that stands for the official mnist; returned to be spoilt."""
    parts = arrays()
    digests = {stem: hashlib.sha256(idx_bytes(part)).hexdigest() for stem, part in zip(STEMS, parts, strict=True)}
    monkeypatch.setitem(web.MIRRORS, "mnist", server)
    monkeypatch.setitem(web.DIGESTS, "mnist", digests)
    return put(tmp_path / "web", parts, gz=True)


def test_a_download_is_prepared(mirror: Path, server: str, tmp_path: Path) -> None:
    place, lines = prepare("mnist", None, tmp_path / "tfds", download=True)
    assert load(tmp_path / "tfds").digest == load(mirror).digest
    assert lines[:4] == [f"fetching {server}{stem}.gz" for stem in STEMS]
    assert lines[-1] == f"mnist is prepared in {place}"


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other data": (
        lambda path: path.write_bytes(gzip.compress(idx_bytes(arrays()[3][::-1]))),
        "not the official mnist file, whose SHA-256 is ",
    ),
    "not gzip": (lambda path: path.write_bytes(b"<html>log in first</html>"), "not the official mnist file"),
    "absent": (lambda path: path.unlink(), "cannot be fetched (HTTP Error 404: File not found)"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_download_of_anything_else_is_refused(mirror: Path, server: str, tmp_path: Path, case: str) -> None:
    spoil, part = SPOILT[case]
    spoil(mirror / f"{TEST_LABELS}.gz")
    refused(
        lambda: prepare("mnist", None, tmp_path / "tfds", download=True),
        f"{server}{TEST_LABELS}.gz: {part}",
        "run 'jaxdist data prepare mnist --from FOLDER', which needs no network",
    )
    assert not (tmp_path / "tfds").exists()


def test_a_download_cut_short_is_refused(server: str, tmp_path: Path) -> None:
    folder = put(tmp_path / "web" / "cut", arrays(), gz=True)
    digests = {TRAIN_IMAGES: idx.digest(folder / f"{TRAIN_IMAGES}.gz")}
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes((folder / f"{TRAIN_IMAGES}.gz").read_bytes()[:-30])
    fetch = functools.partial(web.fetch, "mnist", tmp_path, digests=digests, report=lambda _: None)
    refused(lambda: fetch(base_url=f"{server}cut/"), f"{server}cut/{TRAIN_IMAGES}.gz: ", "official mnist file")


def test_no_server_and_too_much_data_are_refused(
    mirror: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/"
    fetch = functools.partial(web.fetch, "mnist", tmp_path, digests=web.DIGESTS["mnist"], report=lambda _: None)
    refused(
        lambda: fetch(base_url=closed), f"{closed}{TRAIN_IMAGES}.gz: cannot be fetched (", "refused", "--from FOLDER"
    )
    monkeypatch.setattr(web, "_MOST", 100)
    refused(lambda: fetch(base_url=server), "cannot be fetched (more than 100 bytes)")
    assert idx.present(mirror)
