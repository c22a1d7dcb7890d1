"""What a run measures of networks with several layers, and what it refuses before and after their training."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdist import cli, experiment, folders, results, study, weights
from jaxdist import config as configs
from tests import oracle

DEEP = {
    "model": {"hidden": [12, 8], "activations": ["relu"]},
    "train": {"seeds": 2, "steps": 60},
    "sweep": {"splits": ["train"], "units": True, "sensitivity": True},
}


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(experiment.report, "write", lambda *_: [])


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "deep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.report, "write", lambda *_: [])
        experiment.run(configs.from_dict(DEEP | {"out": str(folder)}))
    return folder


def layers(params, x):
    """Preactivations of both layers, [N, H] each, and their ranges behind ReLU."""
    first = x @ params["dense0"]["weight"].T + params["dense0"]["bias"]
    second = np.maximum(first, 0) @ params["dense1"]["weight"].T + params["dense1"]["bias"]
    found = []
    for h in (first, second):
        a = np.maximum(h, 0)
        found.append((a.min(0), a.max(0), (a == 0).all(0)))
    return first, found


@pytest.mark.parametrize(("family", "fraction"), [("scale", 0.1), ("clip", 0.2477), ("offset", -0.4), ("offset", 0.25)])
def test_all_sites_together_are_edited_by_their_own_unedited_ranges(deep, digits, family, fraction):
    group = results.load(deep)[family].sel(network="relu", site="all", split="train", seed=1)
    point = group.sel(fraction=fraction, method="nearest")
    p = float(point.fraction)
    params = jax.tree.map(lambda leaf: leaf[1].astype(np.float64), weights.load(folders.weights_path(deep, "relu")))
    x, y = digits.train.images.reshape(-1, 64).astype(np.float64), digits.train.labels
    first, (one, two) = layers(params, x)
    edited = np.maximum(oracle.edited(family, p, first, *one), 0)
    second = edited @ params["dense1"]["weight"].T + params["dense1"]["bias"]
    last = np.maximum(oracle.edited(family, p, second, *two), 0)
    logits = last @ params["dense2"]["weight"].T + params["dense2"]["bias"]
    assert abs(int(point.correct) - (logits.argmax(1) == y).sum()) <= 2


def test_narrower_layers_lack_the_units_they_do_not_have(deep):
    result = results.load(deep)
    units = result["units_offset"].to_dataset().sel(network="relu", split="train")
    assert list(units.site.values) == ["dense0/pre", "dense1/pre"]
    assert (units.correct.sel(site="dense1/pre").isel(unit=slice(8, 12)) == results.MISSING).all()
    assert (units.correct.sel(site="dense1/pre").isel(unit=slice(8)) >= 0).all()
    slopes = result["sensitivity"].offset.sel(network="relu", split="train")
    assert np.isnan(slopes.sel(site="dense1/pre").isel(unit=slice(8, 12))).all()
    assert np.isfinite(slopes.sel(site="dense0/pre")).all()


def test_targets_are_each_site_all_of_them_or_both():
    assert study.targets_of(["a", "b"], "each") == {"a": ("a",), "b": ("b",)}
    assert study.targets_of(["a", "b"], "all") == {"all": ("a", "b")}
    assert study.targets_of(["a"], "all") == study.targets_of(["a"], "both") == {"a": ("a",)}


TANH = ["--model.activations", "tanh", "--train.seeds", "2", "--train.steps", "30", "--model.hidden", "16"]


@pytest.mark.usefixtures("in_an_empty_folder", "no_pictures")
def test_what_means_nothing_is_refused_before_training_where_that_is_known(capsys):
    assert cli.main(["run", "--out", "tanh", *TANH]) == 2
    assert "network 'tanh', site 'dense0/pre': its activation changes large values" in capsys.readouterr().err
    assert not folders.Path("tanh").exists()


@pytest.mark.usefixtures("in_an_empty_folder", "no_pictures")
def test_and_after_training_without_losing_the_networks(capsys):
    assert cli.main(["run", "--out", "tanh", *TANH, "--ranges.measured_on", "pre"]) == 2
    said = capsys.readouterr().err
    assert "use offset_formula 'intended'; the trained networks are kept" in said
    assert said.count("\n") == 1
    assert cli.main(["sweep", "tanh", "--sweep.offset_formula", "literal", "--sweep.clip_formula", "caption"]) == 2
    assert cli.main(["sweep", "tanh", "--sweep.offset_formula", "intended"]) == 0
    assert results.load("tanh")["offset"].correct.shape == (1, 2, 1, 2, 125)
