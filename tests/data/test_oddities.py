"""What is odd of data: refused where nothing can be told from it, otherwise noted in the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxdist
from jaxdist import cli, data
from jaxdist.compute import devices
from jaxdist.config import Config, DataConfig, StatisticsConfig
from jaxdist.data import oddities
from jaxdist.data.inputs import load_inputs
from jaxdist.report import documents, summary
from jaxdist.report.pages import protocol
from jaxdist.sweep import results
from tests.data.support import arrays, load, official, put, refused


def splits(change: Any = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Nothing is odd of these, unless `change` of the four arrays makes it so."""
    parts = arrays(train=60, test=30)
    parts = change(*parts) if change else parts
    return {"train": (parts[0], parts[1]), "test": (parts[2], parts[3])}


def test_nothing_is_odd_of_the_digits_and_of_ordinary_images() -> None:
    assert data.load(DataConfig()).notes == ()
    assert oddities.notes(splits(), 10) == ()
    standard, labels = splits()["train"]
    assert oddities.notes({"train": (standard.astype(np.float32) / 9 - 3, labels)}, 10) == ()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_nothing_is_odd_of_the_official_data(name: str) -> None:
    assert load(official(name), name).notes == ()


def few(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    return [np.resize(x[:7], x.shape), y, u, v]


def few_in_test(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    return [x, y, np.resize(u[:1], u.shape), v]


def mostly_constant(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    x[:, 1:] = 5
    return [x, y, u, v]


def marked(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    x[:, 2, 3] = 200
    return [x, y, u, v]


def background(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    x[:, 2] = 0
    return [x, y, u, v]


NOTED = {
    "repeated": (few, ["only 7 of the 60 train images are distinct"]),
    "repeated in test": (few_in_test, ["only 1 of the 30 test images is distinct"]),
    "mostly constant": (mostly_constant, ["25 of the 30 pixels are the same in all train images"]),
    "marked": (marked, ["1 of the 30 pixels is the same in all train images, and is no background"]),
    "background": (background, []),
    "from 1": (
        lambda x, y, u, v: [x, y.clip(1), u, v.clip(1)],
        ["class 0 of the 10 classes, counted from 0, never occurs"],
    ),
    "gaps": (
        lambda x, y, u, v: [x, y // 4 * 4, u, v // 4 * 4],
        ["classes 1, 2, 3, 5, 6, 7, 9 of the 10 classes, counted from 0, never occur"],
    ),
    "only in test": (
        lambda x, y, u, v: [x, y % 8, u, v],
        ["classes 8, 9 of the 10 classes occur among the test images only"],
    ),
    "only in train": (
        lambda x, y, u, v: [x, y, u, v.clip(1)],
        ["class 0 of the 10 classes occurs among the train images only"],
    ),
    "one class in test": (
        lambda x, y, u, v: [x, y % 2, u, v * 0],
        [
            "every test label is 0",
            "classes 2, 3, 4, 5, 6, 7, 8, 9 of the 10 classes, counted from 0, never occur",
            "class 1 of the 10 classes occurs among the train images only",
        ],
    ),
    "one image in test": (
        lambda x, y, u, v: [x, y % 1 + y % 2, u[:1], v[:1]],
        [
            "test is a single example",
            "every test label is 0",
            "classes 2, 3, 4, 5, 6, 7, 8, 9 of the 10 classes, counted from 0, never occur",
            "class 1 of the 10 classes occurs among the train images only",
        ],
    ),
}


@pytest.mark.parametrize("case", NOTED)
@pytest.mark.parametrize("kind", ["u1", "f4", "i4"])
def test_what_is_odd_is_noted(tmp_path: Path, case: str, kind: str) -> None:
    change, expected = NOTED[case]
    odd = splits(change)
    assert oddities.notes(odd, 10) == tuple(expected)
    parts = [part.astype(kind) if part.ndim > 1 else part for pair in odd.values() for part in pair]
    assert load(put(tmp_path / "idx", parts)).notes == tuple(expected)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("what", ["images", "examples"])
def test_verbs_follow_their_counts(count: int, what: str) -> None:
    inputs, verb = {"images": "pixels", "examples": "inputs"}[what], "is" if count == 1 else "are"
    x, y, u, v = arrays(train=60, test=30)
    x.reshape(60, -1)[:, 5 : 5 + count] = 200
    notes = oddities.notes({"train": (x, y), "test": (np.resize(u[:count], u.shape), v)}, 10, what=what)
    assert notes == (
        f"only {count} of the 30 test {what} {verb} distinct",
        f"{count} of the 30 {inputs} {verb} the same in all train {what}, and {verb} no background",
    )


@pytest.mark.parametrize(("size", "count", "verb"), [(1, 1, "is"), (3, 2, "are")])
def test_verbs_follow_the_count_of_inputs_most_of_which_never_change(size: int, count: int, verb: str) -> None:
    x = np.arange(12.0).repeat(size).reshape(12, size)
    x[:, :count] = 0
    inputs = oddities._constant(x, "examples")
    assert list(inputs) == [
        f"{count} of the {size} {'input' if size == 1 else 'inputs'} {verb} the same in all train examples"
    ]


def test_many_classes_are_counted_not_listed() -> None:
    assert oddities.notes(splits(), 5000) == ("4,990 of the 5,000 classes, counted from 0, never occur",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, u, v: [x, y * 0 + 3, u, v], "train-labels-idx1-ubyte: every label is 3"),
        (lambda x, y, u, v: [x, y * 0, u, v * 0], "train-labels-idx1-ubyte: every label is 0"),
        (lambda x, y, u, v: [x[:1], y[:1], u, v], "train-labels-idx1-ubyte: every label is 0"),
        (lambda x, y, u, v: [np.full_like(x, 7), y, u, v], "train-images-idx3-ubyte: all 60 images are identical"),
        (lambda x, y, u, v: [np.resize(x[:1], x.shape), y, u, v], "train-images-idx3-ubyte: all 60 images are identic"),
        (lambda x, y, u, v: [x * 0, y, u * 0, v], "Every pixel of every image is 0"),
    ],
)
def test_images_of_which_nothing_can_be_told_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = put(tmp_path / "idx", [part for pair in splits(change).values() for part in pair])
    refused(lambda: load_inputs(Config(data=DataConfig(name="mnist", dir=str(folder)))), message, "expected")


def test_pixels_too_small_for_float32_are_refused_with_what_to_do(tmp_path: Path) -> None:
    x, y, u, v = arrays(kind="f4")
    folder = put(tmp_path / "idx", [np.abs(x) * 1e-42, y, np.abs(u) * 1e-42, v])
    settings = DataConfig(name="mnist", dir=str(folder))
    refused(lambda: load_inputs(Config(data=settings)), "counts as 0 in float32", "data.normalisation 'unit'")
    load_inputs(Config(data=DataConfig(name="mnist", dir=str(folder), normalisation="unit")))


@pytest.mark.parametrize("count", [1, 2, 3, 49, 50, 51, 100])
def test_distinct_examples_are_counted_up_to_half(count: int) -> None:
    x = np.random.default_rng(0).permutation(np.resize(np.arange(count * 3).reshape(count, 3), (100, 3)))
    assert oddities.count_distinct(x) == min(count, 50)
    assert oddities.count_distinct(x.astype(np.float32)) == min(count, 50)


RUN = ("--train.steps", "2", "--train.seeds", "1", "--model.hidden", "8", "--model.activations", "relu", "--quiet")


def test_notes_stand_in_the_result_the_summary_the_page_and_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "use_all_cores", lambda: None)
    odd = splits(lambda x, y, u, v: few(x, y % 8, u, v % 8))
    folder = put(tmp_path / "idx", [part for pair in odd.values() for part in pair])
    out = tmp_path / "run"
    where = ("--data.name", "mnist", "--data.dir", str(folder), "--out", str(out), "--sweep.families", "scale")
    assert cli.main(["run", *where, *RUN]) == 0
    notes = [
        "only 7 of the 60 train images are distinct",
        "classes 8, 9 of the 10 classes, counted from 0, never occur",
    ]
    result = jaxdist.load(out)
    assert results.data_notes_of(result) == notes
    assert [f"data: {note}" for note in notes] == [
        line for line in summary._notes(result, StatisticsConfig()) if line.startswith("data: ")
    ]
    assert json.loads((out / "tables" / "summary.json").read_text())["data"]["notes"] == notes
    rows = [row for section in protocol.sections("run", result, out) for table in section.tables for row in table.rows]
    assert [row[1] for row in rows if row[0] == "note on the data"] == notes
    assert all(note in (out / "report.html").read_text() for note in ("7 of the 60 train images",))


def test_a_network_of_ones_own_carries_notes_on_its_examples() -> None:
    x, y = (np.asarray(part) for part in splits()["train"])
    x = x.reshape(len(x), -1).astype(np.float32)

    def apply(params: Any, x: Any, tap: Any) -> Any:
        return tap("h", x @ params["first"]) @ params["second"]

    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(size=size).astype(np.float32) for name, size in (("first", (30, 4)), ("second", (4, 12)))
    }
    options = {"measured_on": "pre", "families": ("scale",)}
    result = jaxdist.probe(apply, params, train=(x, y * 0), sites=("h",), **options)
    assert results.data_notes_of(result) == [
        "every train label is 0",
        "11 of the 12 classes, counted from 0, never occur",
    ]
    assert documents.main_numbers(result, StatisticsConfig())["data"]["notes"] == results.data_notes_of(result)
    refused(
        lambda: jaxdist.probe(apply, params, train=(x * 0 + 3, y), sites=("h",), **options),
        "train: all 60 examples are identical",
    )
    full = jaxdist.probe(apply, params | {"second": params["second"][:, :10]}, train=(x, y), sites=("h",), **options)
    assert "data_notes" not in full.attrs
