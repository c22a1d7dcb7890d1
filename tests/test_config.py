"""Configs: round trips, overrides, and one sentence for everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxdist import config as configs
from jaxdist.config import Config
from jaxdist.errors import InputError

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
    with pytest.raises(InputError, match=r"--train.steps: expected an integer, got 'many'"):
        configs.override(Config(), {"train.steps": "many"})
    with pytest.raises(InputError, match=r"--sweep.grid: expected true or false, got 'yes'"):
        configs.override(Config(), {"sweep.grid": "yes"})
