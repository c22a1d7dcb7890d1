"""Data sets in the files that people have: read as what they hold, or refused with what to do."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from jaxdist import cli, data
from jaxdist.config import DataConfig
from jaxdist.data import pictures
from tests.data.support import STEMS, arrays, idx_bytes, load, put, refused

EMNIST = [f"emnist-letters-{s}-{k}" for s in ("train", "test") for k in ("images-idx3-ubyte", "labels-idx1-ubyte")]
QMNIST = [f"qmnist-{s}-{k}" for s in ("train", "test") for k in ("images-idx3-ubyte", "labels-idx2-int")]
KMNIST = [f"kmnist-{s}-{k}.npz" for s in ("train", "test") for k in ("imgs", "labels")]
PLAIN = ["train-images.idx", "train-labels.idx", "t10k-images.idx", "t10k-labels.idx"]
TEST = [stem.replace("t10k", "test") for stem in STEMS]
NUMPY = ["x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"]


def written(folder, names, parts, content=idx_bytes, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(names, parts, strict=True):
        body = content(part)
        (folder / f"{name}{'.gz' if gz else ''}").write_bytes(gzip.compress(body) if gz else body)
    return folder


def saved(*arguments, save=np.save, **named):
    file = io.BytesIO()
    save(file, *arguments, **named)
    return file.getvalue()


def same(dataset, parts):
    for ours, theirs in zip((*dataset.train, *dataset.test), parts, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("names", [EMNIST, PLAIN, TEST])
@pytest.mark.parametrize("gz", [False, True])
def test_idx_files_by_other_names(tmp_path, names, gz):
    parts = arrays()
    same(load(written(tmp_path / "files", names, parts, gz=gz)), parts)


def test_labels_of_qmnist_are_the_first_of_eight_columns(tmp_path):
    parts = arrays()
    columns = [part if part.ndim > 1 else np.int32(part)[:, None] * np.array([1, *[3] * 7], np.int32) for part in parts]
    same(load(written(tmp_path / "files", QMNIST, columns, gz=True)), parts)


@pytest.mark.parametrize("names", [NUMPY, KMNIST])
def test_arrays_of_numpy(tmp_path, names):
    parts = arrays()
    save = np.savez if names is KMNIST else np.save
    same(load(written(tmp_path / "files", names, parts, lambda part: saved(part, save=save))), parts)


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
    ],
)
def test_an_archive_of_arrays(tmp_path, keys):
    parts = arrays()
    archive = dict(zip(keys, parts, strict=True))
    if keys[0] == "train_images":  # as MedMNIST has them
        archive |= {"val_images": parts[2], "val_labels": parts[3]}
        archive |= {name: array[:, None] for name, array in archive.items() if name.endswith("labels")}
    path = tmp_path / "set.npz"
    np.savez(path, **archive)
    for place in (path, tmp_path):
        same(load(place), parts)
    assert ("Left out: val_images and val_labels." in load(path).source) == (keys[0] == "train_images")


def test_compression_is_told_by_content(tmp_path):
    parts = arrays()
    reference = load(put(tmp_path / "reference", parts)).digest
    twice = written(tmp_path / "twice", STEMS, parts, lambda part: gzip.compress(idx_bytes(part)), gz=True)
    packed = written(tmp_path / "packed", STEMS, parts, lambda part: gzip.compress(idx_bytes(part)))
    plain = written(tmp_path / "plain", [f"{stem}.gz" for stem in STEMS], parts)
    assert {load(folder).digest for folder in (twice, packed, plain)} == {reference}
    five = written(tmp_path / "five", STEMS, parts, lambda part: _compressed(idx_bytes(part), 5))
    refused(lambda: load(five), "decompress it, since it is compressed more than 3 times")


def _compressed(content, times):
    for _ in range(times):
        content = gzip.compress(content)
    return content


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y[:, None],
        lambda y: np.eye(10, dtype=np.uint8)[y],
        lambda y: np.float32(y),
        lambda y: np.eye(10)[y],
        lambda y: np.int32(y),
    ],
)
def test_labels_of_other_forms_that_mean_the_same(tmp_path, form):
    x, y, tx, ty = arrays()
    same(load(put(tmp_path / "files", [x, form(y), tx, form(ty)])), [x, y, tx, ty])


def test_labels_that_are_no_classes_are_refused(tmp_path):
    x, y, tx, ty = arrays()
    refused(lambda: load(put(tmp_path / "halves", [x, y / 2, tx, ty])), "is not a list of labels", "use a label file")
    two = np.c_[y, y]
    refused(lambda: load(put(tmp_path / "two", [x, two, tx, ty])), "save only the column with the classes")


def test_torchvisions_root_is_read_by_the_name(tmp_path):
    both = {"MNIST": arrays(), "FashionMNIST": [part + 1 if part.ndim > 2 else part for part in arrays()]}
    for name, parts in both.items():
        (tmp_path / name / "raw").mkdir(parents=True)
        put(tmp_path / name / "raw", parts)
    same(load(tmp_path, "mnist"), both["MNIST"])
    same(load(tmp_path, "fashion_mnist"), both["FashionMNIST"])
    refused(
        lambda: load(tmp_path, "mine"), "several data sets, in FashionMNIST/raw and MNIST/raw", "set data.dir to one"
    )


def test_of_several_sets_in_one_folder_that_of_the_name_is_read(tmp_path):
    letters, digits = arrays(), [part + 1 if part.ndim > 2 else part for part in arrays()]
    written(tmp_path, EMNIST, letters)
    written(tmp_path, [name.replace("letters", "digits") for name in EMNIST], digits)
    same(load(tmp_path, "emnist_digits"), digits)
    same(load(tmp_path, "emnist_letters"), letters)
    refused(lambda: load(tmp_path, "mine"), "several data sets (emnist-digits and emnist-letters)")


def test_half_of_a_data_set_is_refused(tmp_path):
    refused(
        lambda: load(written(tmp_path / "a", STEMS[:2], arrays()[:2])),
        "but no test images, such as t10k-images-idx3-ubyte and test labels, such",
    )


def frame(images, labels, header=True):
    names = ["label", *(f"pixel{k}" for k in range(images[0].size))]
    return pd.DataFrame(np.c_[labels, images.reshape(len(images), -1)], columns=names if header else None)


@pytest.mark.parametrize("kind", ["header", "no header", "two names", "parquet", "gz"])
def test_tables_of_pixels(tmp_path, kind):
    x, y, tx, ty = arrays((6, 6))
    for name, images, labels in (("mnist_train", x, y), ("mnist_test", tx, ty)):
        table = frame(images, labels)
        if kind == "parquet":
            table.to_parquet(tmp_path / f"{name}.parquet")
        elif kind == "two names":  # as some write them: the rest of the pixels has no name
            body = frame(images, labels).to_csv(header=False, index=False)
            (tmp_path / f"{name}.csv").write_text("label,pixels\n" + body)
        else:
            end = ".csv.gz" if kind == "gz" else ".csv"
            table.to_csv(tmp_path / f"{name}{end}", index=False, header=kind != "no header")
    flat = [x.reshape(len(x), -1), y, tx.reshape(len(tx), -1), ty]
    same(load(tmp_path), flat)


def test_a_table_without_a_test_split_holds_one_out(tmp_path):
    """As Kaggle's digit recogniser: the labels of its test.csv are not given."""
    x, y, tx, _ = arrays(train=200)
    frame(x, y).to_csv(tmp_path / "train.csv", index=False)
    frame(tx, np.zeros(len(tx))).drop(columns="label").to_csv(tmp_path / "test.csv", index=False)
    pd.DataFrame({"ImageId": range(len(tx)), "Label": 0}).to_csv(tmp_path / "sample_submission.csv", index=False)
    dataset = load(tmp_path)
    assert "test.csv has no labels and is left out" in dataset.source
    assert "Left out: sample_submission.csv." in dataset.source
    assert "a fifth of each class was held out" in dataset.source
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (160, 40)
    assert np.bincount(dataset.test.labels).tolist() == [4] * 10
    rows = {image.tobytes(): label for image, label in zip(x.reshape(200, -1), y, strict=True)}
    for split in (dataset.train, dataset.test):
        assert all(rows[image.tobytes()] == label for image, label in zip(split.images, split.labels, strict=True))
    together = {image.tobytes() for split in (dataset.train, dataset.test) for image in split.images}
    assert together == set(rows)
    assert load(tmp_path / "train.csv").digest == dataset.digest


def test_words_as_classes_and_fractions_as_inputs(tmp_path):
    rng = np.random.default_rng(0)
    species = np.repeat(["versicolor", "setosa", "virginica"], 20)
    table = pd.DataFrame(
        {"Id": range(60), "width": rng.normal(size=60), "length": rng.normal(size=60), "Species": species}
    )
    table.to_csv(tmp_path / "iris.csv", index=False)
    dataset = load(tmp_path / "iris.csv", "iris")
    assert dataset.train.images.shape == (48, 2)
    assert "Classes: 0 setosa, 1 versicolor, 2 virginica." in dataset.source
    np.testing.assert_allclose(dataset.train.images[0], table[["width", "length"]].iloc[0])
    assert dataset.train.labels[0] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.assign(colour="red"), "column 'colour' is not numbers"),
        (lambda table: table.assign(a=table.a.where(table.a.index != 3)), "row 3 has no value in column 'a'"),
        (lambda table: table.assign(label=table.label.where(table.label.index != 5)), "row 5 has no label"),
        (lambda table: table.rename(columns={"label": "kind_of"}), "has no column of labels"),
        (lambda table: table.assign(label=table.label / 3), "is not a list of labels"),
        (lambda table: table.iloc[:0], "cannot be read as a table"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, change, said):
    table = pd.DataFrame({"label": np.arange(40) % 2, "a": np.arange(40.0), "b": np.arange(40.0) ** 2})
    change(table).to_csv(tmp_path / "mine.csv", index=False)
    refused(lambda: load(tmp_path / "mine.csv", "mine"), said, "mine.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "cannot be read as a table"), (b"a\n1\n2\n", "single column"), (b"a,a\n1,2\n", "several columns 'a'")],
)
def test_broken_tables(tmp_path, content, said):
    (tmp_path / "mine.csv").write_bytes(content)
    refused(lambda: load(tmp_path / "mine.csv", "mine"), said)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_tables_of_pictures_as_hugging_face_exports_them(tmp_path):
    parts = arrays()
    (tmp_path / "data").mkdir()
    for name, images, labels in (("train", *parts[:2]), ("test", *parts[2:])):
        rows = {"image": [{"bytes": png(image), "path": None} for image in images], "label": labels}
        pd.DataFrame(rows).to_parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
    same(load(tmp_path), parts)


def drawn(folder, images, labels, name=str):
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / name(label) / f"{k:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))


def test_pictures_by_class(tmp_path):
    x, y, tx, ty = arrays()
    drawn(tmp_path / "training", x, y)
    drawn(tmp_path / "testing", tx, ty)
    order, test_order = np.argsort(y, kind="stable"), np.argsort(ty, kind="stable")
    dataset = load(tmp_path)
    same(dataset, [x[order], y[order], tx[test_order], ty[test_order]])
    assert "0 0, 1 1, 2 2" in dataset.source


def test_pictures_without_a_test_split(tmp_path):
    x, y, _, _ = arrays(train=100)
    drawn(tmp_path, x, y, lambda label: f"letter {'abcdefghij'[label]}")
    dataset = load(tmp_path, "letters")
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (80, 20)
    assert "0 letter a, 1 letter b" in dataset.source


def test_pictures_in_colour_and_grey(tmp_path):
    x, y, _, _ = arrays(train=40)
    colours = np.stack([x, x + 1, x + 2], axis=-1)
    assert pictures.decoded([("a", io.BytesIO(png(colours[0])))]).shape == (1, 6, 5, 3)
    assert pictures.decoded([("a", io.BytesIO(png(np.stack([x[0]] * 3, axis=-1))))]).shape == (1, 6, 5)
    both = pictures.decoded([("a", io.BytesIO(png(colours[0]))), ("b", io.BytesIO(png(x[1])))])
    np.testing.assert_array_equal(both[1], np.stack([x[1]] * 3, axis=-1))
    drawn(tmp_path, x[:39], y[:39])
    (tmp_path / "0" / "large.png").write_bytes(png(np.zeros((9, 9), np.uint8)))
    refused(lambda: load(tmp_path), "large.png: is 9x9 pixels, but", "resize them")
    (tmp_path / "0" / "large.png").write_bytes(b"no picture")
    refused(lambda: load(tmp_path), "large.png: not a picture that can be read")


def test_what_could_be_read_in_two_ways_is_refused(tmp_path):
    x, y, tx, ty = arrays()
    frame(x, y).to_csv(tmp_path / "train.csv", index=False)
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=tx, y_test=ty)
    refused(lambda: load(tmp_path), "an archive of arrays (set.npz) and tables (train.csv)", "set data.dir to the file")
    same(load(tmp_path / "set.npz"), [x, y, tx, ty])
    (tmp_path / "train.csv").unlink()
    np.savez(tmp_path / "other.npz", x_train=x, y_train=y, x_test=tx, y_test=ty)
    refused(lambda: load(tmp_path), "(other.npz) and an archive of arrays (set.npz)")
    for name in ("set.npz", "other.npz"):
        (tmp_path / name).unlink()
    written(tmp_path, NUMPY, [x, y, tx, ty], saved)
    same(load(tmp_path), [x, y, tx, ty])
    frame(x, y).to_csv(tmp_path / "train.csv", index=False)
    refused(lambda: load(tmp_path), "files of images and labels (x_train.npy) and tables (train.csv)")
    (tmp_path / "train.csv").unlink()
    written(tmp_path, EMNIST, [x, y, tx, ty])
    refused(lambda: load(tmp_path), "files of images and labels (emnist-letters-train-images-idx3-ubyte) and files of")


@pytest.mark.parametrize(
    ("keys", "said"),
    [(("a", "b"), "holds the arrays a and b; expected x_train"), (("x_train", "x_test"), "expected x_train, y_train")],
)
def test_archives_of_other_arrays(tmp_path, keys, said):
    np.savez(tmp_path / "set.npz", **dict.fromkeys(keys, arrays()[0]))
    refused(lambda: load(tmp_path), said)


def test_objects_in_arrays_are_not_executed(tmp_path):
    np.save(tmp_path / "x_train.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "y_train.npy", np.zeros(1, int))
    np.save(tmp_path / "x_test.npy", np.zeros((1, 2)))
    np.save(tmp_path / "y_test.npy", np.zeros(1, int))
    refused(lambda: load(tmp_path), "x_train.npy: not readable as arrays of NumPy")


def test_a_data_set_is_shown(tmp_path, capsys):
    x, y, tx, ty = arrays((8, 8), train=60)
    x[:, 0, 0], x[5], tx[2], tx[4] = 7, x[3], x[10], x[10]
    put(tmp_path / "idx", [x, y, tx, ty])
    picture = tmp_path / "examples.png"
    assert cli.main(["data", "show", str(tmp_path / "idx"), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "60 train and 12 test images of 8x8 (64 inputs), uint8, 10 classes" in out
    assert "1 of 64 the same in all train images" in out
    assert (
        "1 train and 1 test images equal an earlier one of their split, 2 test images (16.67 %) to a train image" in out
    )
    assert [line.split() for line in out.splitlines() if line.startswith("       3 ")] == [["3", "6", "1"]]
    assert f"unit: 0 to {x.max() / 255:g}, divided by 255, the most that its type holds" in out
    with Image.open(picture) as opened:
        assert min(opened.size) > 500
    assert cli.main(["data", "show", "digits"]) == 0
    assert "unit: 0 to 1, divided by 16, the largest pixel value" in capsys.readouterr().out
    put(tmp_path / "floats", [np.float32(part) if part.ndim > 1 else part for part in arrays()])
    assert cli.main(["data", "show", str(tmp_path / "floats")]) == 0
    assert "the largest pixel value" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nowhere"], "no data set 'nowhere' is prepared"),
        (["show", "digits", "--download"], "--download and --to are for 'prepare'"),
        (["show", "digits", "--picture", "x.doc"], "x.doc ends in '.doc'; expected .png, .svg, .pdf"),
        (["prepare", "mine"], "expected either --from FOLDER or --download, got neither"),
        (["prepare", "mine", "--from", ".", "--picture", "x.png"], "--picture: draws what 'data show' shows"),
    ],
)
def test_wrong_requests_for_data(arguments, said, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not Path("x.doc").exists()


def test_a_data_set_of_pictures_is_prepared_and_then_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    x, y, tx, ty = arrays()
    drawn(tmp_path / "pictures" / "train", x, y)
    drawn(tmp_path / "pictures" / "test", tx, ty)
    read = load(tmp_path / "pictures", "mine")
    data.prepare("mine", source=tmp_path / "pictures", data_dir=None, download=False, report=lambda line: None)
    assert data.load(DataConfig(name="mine")).digest == read.digest


def test_of_several_tables_those_of_the_name_are_read(tmp_path):
    letters, digits = arrays((6, 6)), [part + 1 if part.ndim > 2 else part for part in arrays((6, 6))]
    for kind, parts in (("letters", letters), ("digits", digits)):
        for split, images, labels in (("train", *parts[:2]), ("test", *parts[2:])):
            frame(images, labels).to_csv(tmp_path / f"emnist-{kind}-{split}.csv", index=False, header=False)
    flat = [part.reshape(len(part), -1) if part.ndim > 1 else part for part in digits]
    same(load(tmp_path, "emnist_digits"), flat)
    refused(lambda: load(tmp_path, "mine"), "holds the tables", "data.name to the one to read")


def test_validation_tables_and_shards(tmp_path):
    parts = arrays()
    (tmp_path / "data").mkdir()
    for split, images, labels in (("train", *parts[:2]), ("test", *parts[2:]), ("validation", *parts[2:])):
        rows = pd.DataFrame({"image": [{"bytes": png(image), "path": None} for image in images], "label": labels})
        half = len(rows) // 2
        for k, part in enumerate((rows.iloc[:half], rows.iloc[half:])):
            part.to_parquet(tmp_path / "data" / f"{split}-0000{k}-of-00002-9f2a{k}.parquet")
    same(load(tmp_path), parts)


@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: np.eye(10)[y]])
def test_labels_of_other_forms_are_held_out_too(tmp_path, form):
    x, y, _, _ = arrays(train=200)
    np.savez(tmp_path / "set.npz", x=x, y=form(y))
    dataset = load(tmp_path)
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (160, 40)
    np.savez(tmp_path / "set.npz", x=x[:0], y=y[:0])
    refused(lambda: load(tmp_path), "holds no images")


def test_of_every_class_at_least_one_is_held_out(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 4))
    np.savez(tmp_path / "set.npz", x=x, y=np.r_[np.zeros(98, int), 1, 1])
    assert np.bincount(load(tmp_path, "mine").test.labels).tolist() == [20, 1]


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("label,a,b\n0,1,2\n1,3,5\n0,5,9\n1,4,7\n", [[1, 2], [3, 5], [5, 9], [4, 7]]),
        (",label,a,b\n0,0,1,2\n1,1,3,5\n2,0,5,9\n3,1,4,7\n", [[1, 2], [3, 5], [5, 9], [4, 7]]),
        ("label,0,1\n0,1,2\n1,3,5\n0,5,9\n1,4,7\n", [[1, 2], [3, 5], [5, 9], [4, 7]]),
    ],
)
def test_what_is_an_input_of_a_table(tmp_path, text, inputs):
    (tmp_path / "mine.csv").write_text(text)
    dataset = load(tmp_path / "mine.csv", "mine")
    rows = {tuple(row) for split in (dataset.train, dataset.test) for row in split.images.tolist()}
    assert rows == {tuple(row) for row in inputs}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,27,1,0\n2,31,0,1\n3,30,1,0\n", "has no names of columns"),
        ("0.5,0.25,y\n1.5,2.25,n\n0.5,1.25,y\n", "has no names of columns"),
        ("x,y,category\n1,2,0\n3,4,1\n", "has the columns y and category, any of which may be that of the labels"),
        ("label,a,b\n1,0,0,0\n2,1,1,1\n", "it has 3 names for 4 columns"),
    ],
)
def test_tables_that_do_not_tell_their_labels(tmp_path, text, said):
    (tmp_path / "mine.csv").write_text(text)
    refused(lambda: load(tmp_path / "mine.csv", "mine"), said)


def test_columns_that_are_numbered_are_no_example(tmp_path):
    x, y, _, _ = arrays((6, 6))
    pd.DataFrame(np.c_[y, x.reshape(len(x), -1)]).to_csv(tmp_path / "mine.csv", index=False)
    dataset = load(tmp_path / "mine.csv")
    assert len(dataset.train.labels) + len(dataset.test.labels) == len(x)
    assert dataset.train.images.dtype == np.uint8


def test_tables_of_two_data_sets_are_never_joined(tmp_path):
    for k, name in enumerate(("mnist", "fashion_mnist")):
        (tmp_path / name).mkdir()
        for split, count in (("train", 60), ("test", 20)):
            table = pd.DataFrame(
                {"label": np.arange(count) % 10, "a": np.arange(count) + k, "b": 1.0 * np.arange(count)}
            )
            table.to_parquet(tmp_path / name / f"{split}-00000-of-00001.parquet")
    assert load(tmp_path, "fashion_mnist").train.images[0, 0] == 1
    assert len(load(tmp_path, "mnist").train.labels) == 60
    refused(lambda: load(tmp_path, "mine"), "holds the tables")
    table.to_csv(tmp_path / "train.csv", index=False)
    table.to_csv(tmp_path / "train_small.csv", index=False)
    refused(lambda: load(tmp_path, "mine"), "train.csv and train_small.csv, which may be the same split")


def test_pictures_that_would_be_changed_are_refused(tmp_path):
    x, y, _, _ = arrays(train=40)
    deep = np.uint16(x) * 200
    assert pictures.decoded([("a", io.BytesIO(png(deep[0])))]).dtype == np.uint16
    clear = np.dstack([x[0]] * 3 + [x[0]])
    for array, said in (
        (np.float32(x[0]), "mode 'F'"),
        (np.int32(x[0]) * 1000, "mode 'I'"),
        (clear, "transparent parts"),
    ):
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG" if array.ndim == 3 else "TIFF")
        refused(lambda file=file: pictures.decoded([("a", file)]), said)
    drawn(tmp_path / "test", x[:20], y[:20])
    drawn(tmp_path / "testing", x[:20], y[:20])
    drawn(tmp_path / "train", x, y)
    refused(lambda: load(tmp_path), "test and testing, which may be the same split")


def test_another_set_than_the_one_named_is_refused(tmp_path):
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    put(tmp_path / "FashionMNIST" / "raw", arrays())
    refused(lambda: load(tmp_path, "mnist"), "holds FashionMNIST/raw, not mnist")
    assert load(tmp_path, "fashion_mnist").classes == 10


def test_a_data_set_that_hugging_face_saved_to_disk(tmp_path):
    parts = arrays()
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", picture), ("label", pa.int64())])
    for name, images, labels in (("train", *parts[:2]), ("test", *parts[2:])):
        (tmp_path / name).mkdir()
        half = len(images) // 2
        for k, rows in enumerate((slice(half), slice(half, None))):
            columns = {"image": [{"bytes": png(image), "path": None} for image in images[rows]], "label": labels[rows]}
            path = tmp_path / name / f"data-{k:05}-of-00002.arrow"
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                writer.write_table(pa.table(columns, schema))
        (tmp_path / name / "state.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    same(load(tmp_path), parts)
