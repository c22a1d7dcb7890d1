"""Configs: round trips, overrides, and one sentence for everything that is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import jax
import jsonschema
import numpy as np
import pytest
import tomli_w

from jaxdist import config as configs
from jaxdist import fields
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.fields import Call

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_survives_the_round_trip(path):
    config = configs.load(path)
    assert configs.from_toml(configs.to_toml(config)) == config


def test_the_quickstart_file_is_the_default_config():
    assert configs.load(CONFIGS / "quickstart.toml") == Config()


def test_the_paper_config_is_the_paper_as_run():
    paper = configs.load(CONFIGS / "paper.toml")
    assert (paper.data.name, paper.data.normalisation) == ("mnist", "raw")
    assert (paper.model.activations, paper.model.hidden, paper.model.init) == (("relu", "abs"), (128,), "pytorch")
    assert paper.train == configs.TrainConfig(seeds=20, seed=0, steps=5000, optimizer="sgd", learning_rate=0.001)
    assert (paper.ranges.measured_on, paper.sweep.clip_formula, paper.sweep.offset_formula) == ("post", "code", "code")
    assert paper.sweep.dead_units == "nan"


def test_the_described_config_differs_in_what_the_text_says_differently():
    described = configs.load(CONFIGS / "paper-as-described.toml")
    assert described.data.normalisation == "standard"
    assert (described.data.mean, described.data.sd) == (0.1307, 0.3081)
    assert (described.sweep.clip_formula, described.sweep.offset_formula) == ("text", "intended")


def test_every_field_can_be_overridden_as_text():
    changes = {
        "train.steps": "200",
        "train.learning_rate": "1e-2",
        "model.hidden": "64, 32",
        "model.activations": "abs",
        "data.mean": "0.5",
        "compute.block": "7",
        "sweep.grid": "true",
        "out": "somewhere",
    }
    config = configs.override(Config(), changes)
    assert (config.train.steps, config.train.learning_rate, config.model.hidden) == (200, 0.01, (64, 32))
    assert (config.model.activations, config.data.mean, config.compute.block) == (("abs",), 0.5, 7)
    assert config.out == "somewhere"
    assert config.sweep == configs.SweepConfig(grid=True)
    assert set(configs.field_help()) == set(configs.field_types())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nleaning_rate = 1", "unknown key 'train.leaning_rate'; did you mean 'learning_rate'?"),
        ("[trian]\nsteps = 1", "unknown key 'trian'; did you mean 'train'?"),
        ("[train]\nsteps = -1", "train.steps: expected an integer at least 0 and below 1000000000, got -1"),
        ("[train]\nsteps = 1.5", "train.steps: expected an integer at least 0 and below 1000000000, got 1.5"),
        ("[train]\nsteps = true", "train.steps: expected an integer at least 0 and below 1000000000, got true"),
        ("[train]\nlearning_rate = nan", "train.learning_rate: expected a number above 0, got NaN"),
        ("[train]\nlearning_rate = 'fast'", 'train.learning_rate: expected a number above 0, got "fast"'),
        ("train = 3", "train must be a table of options, got 3"),
        ("[data]\nnormalisation = 'z'", 'data.normalisation: expected one of raw, unit, standard, got "z"'),
        ("[model]\nactivations = []", "model.activations: expected a list of at least one, without repeats"),
        (
            "[model]\nactivations = ['abs', 'abs']",
            "model.activations: expected a list of at least one, without repeats",
        ),
        ("[model]\nhidden = [128, 0]", "model.hidden: expected an integer at least 1, got 0"),
        ("[sweep]\nfamilies = ['scale', 'shear']", "sweep.families: expected one of scale, clip, offset"),
        ("[statistics]\nmargin = 1", "statistics.margin: expected a number above 0 and below 1, got 1"),
        ("[sweep]\ngrid = 1", "sweep.grid: expected true or false, got 1"),
        ("[sweep]\nrefine = true", "sweep.refine: this option has been removed; leave it out"),
        ("[sweep]\nscale_shortcut = 1", "sweep.scale_shortcut: this option has been removed"),
        ("[statistics\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_the_file(text, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        configs.load(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_bad_overrides_are_said(tmp_path):
    with pytest.raises(InputError, match="no such config file"):
        configs.load(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"command line: train.optimizer: expected a table as TOML writes it"):
        configs.override(Config(), {"train.optimizer": "{name = adam}"})


BEYOND: dict[str, list[Any]] = {
    "data.mean": [],
    "data.sd": [0, -1.0],
    "model.hidden": [0, -3],
    "train.seeds": [0, -1],
    "train.seed": [-1, 2**32],
    "train.steps": [-1, 10**9],
    "train.learning_rate": [0, -0.1],
    "train.save_every": [-0.5],
    "ranges.quantile": [0, 0.5],
    "ranges.deviations": [0, -3.0],
    "sweep.matched": [0, 1, 1.5],
    "sweep.draws": [1, 0],
    "statistics.confidence": [0.5, 1],
    "statistics.margin": [0, 1],
    "statistics.flips": [0, 1],
    "statistics.published_baseline_index": [-1, 100],
    "compute.block": [0, -1],
    "compute.networks": [0],
    "compute.points": [0],
}
"""The nearest numbers that are out of bounds, of every field that holds any."""

UNKNOWN_NAMES = {"sweep.families": "shear", "sweep.metrics": "volume"}


def _wrong(kind: Any) -> list[Any]:
    """Values of no such type, as TOML can have them."""
    if get_origin(kind) is tuple:
        return [[], "relu,abs", 3, {"a": 1}, *([value] for value in _wrong(get_args(kind)[0]))]
    if get_origin(kind) is Literal:
        return ["neither", 3, True, ["raw"]]
    if kind is bool:
        return [1, 0.0, "maybe", [True]]
    numbers: list[Any] = ["many", True, [1], math.nan, math.inf, -math.inf]
    if kind is int:
        return [*numbers, 1.5, 2.0]
    return numbers if kind in (float, float | fields.Call) else [3, 1.5, True, ["a"]]


def _cases() -> Iterator[tuple[str, Any]]:
    for key, kind in configs.field_types().items():
        of_many = get_origin(kind) is tuple
        yield from ((key, value) for value in _wrong(kind))
        yield from ((key, [value] if of_many else value) for value in BEYOND.get(key, ()))
        if key in UNKNOWN_NAMES:
            yield key, [UNKNOWN_NAMES[key]]
    for key in ("model.activations", "sweep.families", "sweep.metrics", "sweep.gauges", "sweep.splits"):
        valid = {"gauges": "averaged", "splits": "test"}.get(key.partition(".")[2], "a:b")
        yield key, [valid, valid]
    yield "sweep.matched", [0.5, 0.25, 0.5]
    for key in ("train.optimizer", "train.learning_rate"):
        yield from ((key, value) for value in ({}, {"name": 3}, {"nme": "adam"}, {"name": "adam", "b1": math.nan}))


CASES = list(_cases())


def _typed(value: Any, kind: Any) -> str | None:
    """A value as one would type it, where the command line can tell it from others."""
    if get_origin(kind) is tuple:
        items = [_typed(item, get_args(kind)[0]) for item in value] if isinstance(value, list) else [None]
        return ",".join(map(str, items)) if None not in items else None
    if isinstance(value, str):
        return value
    is_text = any(get_origin(each) is Literal or each is str for each in (kind, *get_args(kind)))
    return None if is_text or isinstance(value, list | dict) else str(value).lower()


def test_every_number_has_its_bounds_tried():
    numbers = {int, float, tuple[int, ...], tuple[float, ...], float | fields.Call}
    assert {key for key, kind in configs.field_types().items() if kind in numbers} == BEYOND.keys()
    assert all(configs.field_types()[key] == tuple[str, ...] for key in UNKNOWN_NAMES)


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{key}={value!r:.30}" for key, value in CASES])
def test_a_mistake_is_one_sentence_the_same_from_python_a_file_and_the_command_line(key, value):
    section, _, name = key.rpartition(".")
    sections = {field.name: field.default_factory for field in dataclasses.fields(Config)}
    tree = {section: {name: value}} if section else {name: value}

    def sentence(attempt: Callable[[], Any]) -> str:
        with pytest.raises(InputError) as caught:
            attempt()
        assert type(caught.value) is InputError
        return str(caught.value)

    said = sentence(lambda: (sections[section] if section else Config)(**{name: value}))
    assert said.startswith(key)
    assert ": expected " in said
    assert "\n" not in said
    # A value that is in a list, or is an argument, is named alone.
    assert any(said.endswith(f"got {json.dumps(each)}") for each in (value, *_within(value)))
    assert sentence(lambda: Config(**tree)) == said
    assert sentence(lambda: configs.from_toml(tomli_w.dumps(tree), where="c.toml")) == f"c.toml: {said}"
    if (
        section
        and section in {field.name for field in dataclasses.fields(configs.Options)}
        and not isinstance(value, dict)
    ):
        assert sentence(lambda: configs.options_by_name({name: value}, where="probe")) == f"probe: {said}"
    typed = _typed(value, configs.field_types()[key])
    if typed is not None:
        assert sentence(lambda: configs.override(Config(), {key: typed})) == f"command line: {said}"


def _within(value: Any) -> list[Any]:
    """The items of a list; of an argument, as it is printed."""
    if isinstance(value, dict):
        return [value, *value.values()]
    return list(value) if isinstance(value, list) else []


@pytest.fixture(scope="module")
def by_schema() -> Any:
    kept = json.loads((CONFIGS / "config.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(kept)
    return jsonschema.Draft202012Validator(kept)


def test_the_schema_beside_the_configs_is_the_one_that_the_command_writes(by_schema, tmp_path):
    # In a process of its own, where no test has registered anything.
    command = [sys.executable, "-m", "jaxdist", "schema"]
    subprocess.run([*command, tmp_path / "a.json"], check=True)
    assert (tmp_path / "a.json").read_text() == (CONFIGS / "config.schema.json").read_text()
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(printed.stdout) == by_schema.schema


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_names_the_schema_and_fits_it(path, by_schema):
    assert path.read_text().startswith("#:schema config.schema.json\n")
    by_schema.validate(tomllib.loads(path.read_text()))
    by_schema.validate(configs.to_dict(configs.load(path)))


def test_an_editor_marks_by_the_schema_what_a_run_would_refuse(by_schema):
    """But for what JSON has no word for: it has no NaN, and 2.0 is an integer."""
    for key, value in CASES:
        section, _, name = key.rpartition(".")
        tree = {section: {name: value}} if section else {name: value}
        items = [value, *_within(value)]
        if any(isinstance(item, float) and (item == 2 or not math.isfinite(item)) for item in items):
            continue
        assert not by_schema.is_valid(tree), (key, value)
    assert not by_schema.is_valid({"train": {"leaning_rate": 1}})
    assert by_schema.is_valid({"sweep": {"families": ["mine.edits:squeeze", "clip"]}})


def test_what_python_has_in_place_of_what_toml_has_is_taken():
    model = configs.ModelConfig(hidden=[np.int64(64), 32], activations=["relu"])
    assert model == configs.ModelConfig(hidden=(64, 32), activations=("relu",))
    assert hash(model) == hash(configs.ModelConfig(hidden=np.array([64, 32]), activations=("relu",)))
    config = Config(out=Path("runs") / "mine", train={"steps": np.int32(7), "learning_rate": np.float32(0.5)})
    assert (config.out, config.train) == (str(Path("runs/mine")), configs.TrainConfig(steps=7, learning_rate=0.5))
    assert configs.from_toml(configs.to_toml(config)) == config
    call = {"name": "adamw", "weight_decay": 1e-4}
    assert configs.TrainConfig(optimizer=call).optimizer == fields.Call("adamw", (("weight_decay", 1e-4),))


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: Config(train=3), "train must be a table of options, got 3"),
        (lambda: Config(train={"steps": -1}), "train.steps: expected an integer at least 0"),
        (lambda: configs.TrainConfig(sed=1), "unknown key 'train.sed'; did you mean 'seed'?"),
        (lambda: Config("runs/a", 3), "data must be a table of options, got 3"),
        (lambda: configs.StatisticsConfig(0.9, 0.01, 0.01, 50, 7), "StatisticsConfig: expected options by name"),
        (
            lambda: configs.SweepConfig(("clip",), families=("clip",)),
            "SweepConfig: expected options by name, each once",
        ),
        (
            lambda: configs.TrainConfig(seeds=10**19),
            "train.seeds: expected an integer of at most 18 digits, got one of 19",
        ),
        (
            lambda: configs.TrainConfig(steps=-(10**5000)),
            "train.steps: expected an integer of at most 18 digits, got one",
        ),
        (lambda: configs.ModelConfig(hidden={(1, 2): 3}), "model.hidden: expected a list of at least one"),
        (lambda: configs.TrainConfig(seeds=jax.ShapeDtypeStruct((), "int32")), "train.seeds: expected an integer at"),
        (lambda: configs.TrainConfig(optimizer=Call("")), "train.optimizer: expected a table with a name"),
        (lambda: configs.TrainConfig(optimizer=Call("a", (("b", math.nan),))), "train.optimizer.b: expected a number"),
        (lambda: configs.TrainConfig(optimizer=Call("a", (("name", 1),))), "train.optimizer: expected arguments by"),
        (lambda: configs.TrainConfig(optimizer={"name": "a", "b": "\n"}), "train.optimizer.b: expected text without"),
        (lambda: configs.from_dict({"a\x1b\n": 3}), "config: unknown key 'a\\u001b\\n'; known: out"),
        (lambda: configs.from_dict({3: 4}), "config: unknown key '3'"),
        (lambda: configs.from_dict([1]), "config: the config must be a table of options, got [1]"),
        (lambda: Config(out="x\udcff"), 'out: expected text without control characters, got "x\\udcff"'),
        (
            lambda: configs.ModelConfig(activations={"relu", "abs"}),
            "model.activations: expected a list of at least one",
        ),
        (lambda: dataclasses.replace(configs.TrainConfig(), seeds=0), "train.seeds: expected an integer at least 1"),
    ],
)
def test_what_is_wrong_in_python_is_said_in_one_sentence(attempt, message):
    with pytest.raises(InputError) as caught:
        attempt()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"steps": 3}, "unknown key 'steps'; did you mean 'train.steps'?"),
        ({"train": {"hidden": [3]}}, "unknown key 'train.hidden'; did you mean 'model.hidden'?"),
        ({"out": "a\0b"}, 'out: expected text without control characters, got "a\\u0000b"'),
        (
            {"data": {"name": "\x1b[31mred"}},
            'data.name: expected text without control characters, got "\\u001b[31mred"',
        ),
        ({"train": {"optimizer": "a\nb"}}, 'train.optimizer: expected text without control characters, got "a\\nb"'),
    ],
)
def test_a_field_in_the_wrong_place_and_text_that_is_none_are_named(tree, message):
    with pytest.raises(InputError) as caught:
        configs.from_dict(tree, where="c.toml")
    assert str(caught.value) == f"c.toml: {message}"


def test_a_byte_order_mark_is_read_over_and_another_encoding_named(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('out = "ünder"\n', encoding="utf-8-sig")
    assert configs.load(path).out == "ünder"
    path.write_text('out = "a"\n', encoding="utf-16")
    with pytest.raises(InputError, match=r"c\.toml: is UTF-16; save it as UTF-8"):
        configs.load(path)


def test_calls_are_equal_where_the_same_is_written():
    calls = [Call("a", (("b", value),)) for value in (1, 1.0, True)]
    assert len(set(calls)) == 3
    assert Call("a", (("c", 2), ("b", 1))) == Call("a", (("b", 1), ("c", 2)))
    made = configs.TrainConfig(optimizer=Call("adam", (("b1", [0.9]),)))
    assert made == configs.TrainConfig(optimizer={"name": "adam", "b1": [0.9]})
    assert hash(made)


def test_names_that_are_not_changed_may_be_those_of_nobody_here():
    """A run's config may name a family that another process has registered."""
    kept = configs.from_dict({"sweep": {"families": ["theirs", "clip"]}}, kept=True)
    changed = configs.override(kept, {"sweep.metrics": "top_5"})
    assert (changed.sweep.families, changed.sweep.metrics) == (("theirs", "clip"), ("top_5",))
    with pytest.raises(InputError, match=r"command line: sweep\.families: expected one of scale"):
        configs.override(kept, {"sweep.families": "theirs"})


@pytest.mark.parametrize(
    "text",
    ['{name="adam", b1=' + "9" * 5000 + "}", "{name='a', b=" + "[" * 3000, '{name="adam"}\nx=3'],
    ids=["digits", "depth", "more"],
)
def test_what_is_no_table_on_the_command_line_is_said(text):
    with pytest.raises(
        InputError, match=r"^command line: train\.optimizer: expected a table as TOML writes it"
    ) as caught:
        configs.override(Config(), {"train.optimizer": text})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 20000 + "]" * 20000], ids=["digits", "depth"])
def test_toml_that_no_parser_takes_is_said(text):
    with pytest.raises(InputError, match=r"^c\.toml: not valid TOML: ") as caught:
        configs.from_toml(text, where="c.toml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
