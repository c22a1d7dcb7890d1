"""IDX files and the digits: reading, refusing, scaling."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.data import download as web
from jaxdist.data import idx, prepared
from tests.data.support import (
    CODES,
    ROOT,
    STEMS,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    arrays,
    idx_bytes,
    load,
    official,
    prepare,
    put,
    refused,
)

# Reading IDX files


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_an_idx_file_reads_back_as_written(tmp_path: Path, kind: str, name: str) -> None:
    written = arrays((3, 2, 4), kind)[0]
    content = idx_bytes(written)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = idx.read_array(tmp_path / name)
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
    "missing file": (
        lambda folder: (folder / TEST_LABELS).unlink(),
        "no test labels, such as t10k-labels-idx1-ubyte",
        "both splits",
    ),
    "folder for a file": (
        lambda folder: ((folder / TRAIN_IMAGES).unlink(), (folder / TRAIN_IMAGES).mkdir()),
        f"{TRAIN_IMAGES}: cannot be read (",
    ),
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
        f"{TRAIN_LABELS} holds 39 labels; expected one label per image",
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
        edited(1, lambda labels: labels.astype("f4") / 4),
        f"{TRAIN_LABELS}: float32 of shape (40,) is not a list",
    ),
    "label shape": (
        edited(1, lambda labels: np.stack([labels, labels + 1], 1)),
        f"{TRAIN_LABELS}: uint8 of shape (40, 2) is not",
    ),
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
    refused(lambda: load(tmp_path), f"{tmp_path}: no data set of a known kind; expected IDX or NumPy", "'mnist'")
    refused(lambda: load(tmp_path / "none"), f"{tmp_path / 'none'}: no such file or folder", "correct data.dir")
    endless = tmp_path / ("a" * 300)
    refused(lambda: load(endless), endless, "cannot be used (File name too long)")
    refused(lambda: prepare("mnist", endless, tmp_path), endless, "cannot be used (File name too long)")


@pytest.mark.parametrize("name", ["", "MNIST", "../mnist", "fashion-mnist", "mnist/..", "mnist/", "a b"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    refused(lambda: data.load(DataConfig(name=name)), f"data.name: '{name}' is not a valid data set name")


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
    refused(lambda: DataConfig(normalisation="standard", sd=0.0), "data.sd: expected a number above 0, got 0.0")
    parts = arrays(kind="f4")
    flat = load(put(tmp_path / "flat", [np.ones_like(parts[0]), *parts[1:]]))
    refused(lambda: data.scaled(flat, DataConfig(normalisation="standard")), "the standard deviation of mnist is 0.0")
    dark = load(put(tmp_path / "dark", [np.zeros_like(parts[0]), *parts[1:]]))
    refused(
        lambda: data.scaled(dark, DataConfig(normalisation="unit")), "'unit' divides by the largest pixel", "is 0.0"
    )
    assert not data.scaled(dark, DataConfig(normalisation="raw"))[0].any()


# Files and folders as people have them


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_a_folder_named_like_its_file_stands_for_it(tmp_path: Path, dotted: bool, gz: bool, beside: bool) -> None:
    plain = put(tmp_path / "plain", arrays(), gz=gz)
    nested = tmp_path / "nested"
    for stem in STEMS:
        name = stem.replace("-idx", ".idx") if dotted else stem
        (nested / name).mkdir(parents=True)
        for target in (
            (nested / name / name, nested / stem.replace("-idx", ".idx")) if beside else (nested / name / name,)
        ):
            if not target.is_dir():
                file = plain / f"{stem}.gz" if gz else plain / stem
                (target.with_name(f"{target.name}.gz") if gz else target).write_bytes(file.read_bytes())
    assert load(nested).digest == load(plain).digest


def test_two_files_of_one_name_must_be_the_same_data(tmp_path: Path) -> None:
    folder = put(put(tmp_path / "idx", arrays()), arrays(), gz=True)
    assert load(folder).digest == load(put(tmp_path / "plain", arrays())).digest
    (folder / TRAIN_LABELS).write_bytes(b"")
    refused(lambda: load(folder), f"{TRAIN_LABELS} (0 bytes) and {TRAIN_LABELS}.gz", "delete the wrong one")


WAYS_OUT: dict[str, tuple[Any, ...]] = {
    "web page": (replaced(TRAIN_IMAGES, lambda _: b"<!DOCTYPE html>"), "since this is a web page"),
    "web page as gzip": (replaced(TRAIN_IMAGES, lambda _: b"<html><head>", ".gz"), "since this is a web page"),
    "pointer": (replaced(TRAIN_LABELS, lambda _: b"version https://git-lfs.github.com/spec/v1\n"), "'git lfs pull'"),
    "pointer as gzip": (replaced(TRAIN_LABELS, lambda _: b"version https://git-lfs", ".gz"), "'git lfs pull'"),
    "little-endian sizes": (
        replaced(TRAIN_IMAGES, lambda old: old[:4] + b"".join(old[k : k + 4][::-1] for k in (4, 8, 12)) + old[16:]),
        "write its sizes big-endian",
    ),
    "little-endian header": (
        replaced(TRAIN_IMAGES, lambda old: old[:4][::-1] + old[4:]),
        "starts with '03 08 00 00'",
        "write its header big-endian",
    ),
    "a table of labels": (edited(1, lambda labels: np.stack([labels, labels + 1], 1)), "the column with the classes"),
    "labels with halves": (edited(1, lambda labels: labels.astype("f4") / 2), "use a label file"),
    "other classes": (edited(1, lambda labels: labels * 7), "or set data.name to something other than 'mnist'"),
    "tables": (
        lambda folder: [(folder / stem).rename(folder / f"{k}.csv") for k, stem in enumerate(STEMS)],
        "holds the tables 0.csv, 1.csv, 2.csv and 3.csv",
        "or names with train and test in them",
    ),
}


@pytest.mark.parametrize("case", WAYS_OUT)
def test_files_as_people_have_them_are_refused_with_what_to_do(tmp_path: Path, case: str) -> None:
    spoil, *parts = WAYS_OUT[case]
    folder = put(tmp_path / "idx", arrays())
    spoil(folder)
    refused(lambda: load(folder), folder, "expected", *parts)


def test_a_negative_label_is_of_no_other_data_set(tmp_path: Path) -> None:
    folder = put(tmp_path / "idx", [part.astype("i1") if part.ndim == 1 else part for part in arrays()])
    edited(1, lambda labels: with_value((2,), -1)(labels.astype("i1")))(folder)
    assert "another name" not in refused(lambda: load(folder), "label -1 at index 2 is not a class")
