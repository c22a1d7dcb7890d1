"""Prepared TFDS data sets: reading, refusing, preparing."""

from __future__ import annotations

import functools
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.data import idx, prepared, tfds_sets
from jaxdist.errors import InputError
from tests.data.support import (
    STEMS,
    TEST_IMAGES,
    TRAIN_IMAGES,
    arrays,
    load,
    official,
    prepare,
    put,
    refused,
)

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
    images, labels, *test = (idx.read_array(official("mnist") / f"{stem}.gz") for stem in STEMS)
    source = put(tmp_path / "idx", [images[:10000], labels[:10000], *test])
    prepare("mnist", source, tmp_path / "tfds")
    assert load(tmp_path / "tfds").digest == load(source).digest


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
    for no_place in (nowhere, None):
        monkeypatch.setattr(prepared, "_user_cache", lambda no_place=no_place: no_place)
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
        refused(call, ready, "has no array_record files", "prepare mnist in another data folder")


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
        "of which image and label are to be used": (
            {"image": text, "label": label},
            {"train": [{"image": "a", "label": 0}], "test": [{"image": "a", "label": 0}]},
        ),
        "its images have several shapes": (
            {"image": picture, "label": label},
            {"train": [*one, {"image": large, "label": 0}], "test": one},
        ),
        "a picture has type uint8, but uint16 is declared": (
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
        ("digits", True, False, ["digits comes with scikit-learn and needs no preparation"]),
        ("letters", False, True, ["'letters' cannot be downloaded", "known: mnist, fashion_mnist", "--from FOLDER"]),
        ("Not A Name", True, False, ["'Not A Name' is not a valid data set name; expected lower_snake_case"]),
        ("../up", True, False, ["'../up' is not a valid data set name"]),
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
    refused(
        lambda: prepare("mnist", source, tmp_path / "tfds"),
        f"{source}: holds",
        f"no test images, such as {TEST_IMAGES}",
    )
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
