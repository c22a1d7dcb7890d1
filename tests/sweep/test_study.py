"""What a run measures of networks with several layers, and what it refuses before and after their training."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdist import cli
from jaxdist import config as configs
from jaxdist.errors import InputError
from jaxdist.experiment import running
from jaxdist.networks import targets
from jaxdist.perturbations import families
from jaxdist.storage import folders, result_files, weights
from jaxdist.sweep import results
from tests import oracle

DEEP = {
    "model": {"hidden": [12, 8], "activations": ["relu"]},
    "train": {"seeds": 2, "steps": 60},
    "sweep": {"splits": ["train"], "units": True, "sensitivity": True},
}


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(running.writing, "write", lambda *_: [])


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "deep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.writing, "write", lambda *_: [])
        running.run(configs.from_dict(DEEP | {"out": str(folder)}))
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


@pytest.mark.slow
@pytest.mark.parametrize(("family", "fraction"), [("scale", 0.1), ("clip", 0.2477), ("offset", -0.4), ("offset", 0.25)])
def test_all_sites_together_are_edited_by_their_own_unedited_ranges(deep, digits, family, fraction):
    group = result_files.load(deep)[family].sel(network="relu", site="all", split="train", seed=1)
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
    result = result_files.load(deep)
    units = result["units_offset"].to_dataset().sel(network="relu", split="train")
    assert list(units.site.values) == ["dense0/pre", "dense1/pre"]
    assert (units.correct.sel(site="dense1/pre").isel(unit=slice(8, 12)) == results.MISSING).all()
    assert (units.correct.sel(site="dense1/pre").isel(unit=slice(8)) >= 0).all()
    slopes = result["sensitivity"].offset.sel(network="relu", split="train")
    assert np.isnan(slopes.sel(site="dense1/pre").isel(unit=slice(8, 12))).all()
    assert np.isfinite(slopes.sel(site="dense0/pre")).all()


def test_targets_are_each_site_all_of_them_or_both():
    assert targets.targets_of(["a", "b"], "each") == {"a": ("a",), "b": ("b",)}
    assert targets.targets_of(["a", "b"], "all") == {"all": ("a", "b")}
    assert targets.targets_of(["a"], "all") == targets.targets_of(["a"], "both") == {"a": ("a",)}


TANH = ["--model.activations", "tanh", "--train.seeds", "2", "--train.steps", "30", "--model.hidden", "16"]


@pytest.mark.usefixtures("in_an_empty_folder", "no_pictures")
def test_what_means_nothing_is_refused_before_training_where_that_is_known(capsys):
    assert cli.main(["run", "--out", "tanh", *TANH]) == 2
    assert "network 'tanh', site 'dense0/pre': its activation changes large values" in capsys.readouterr().err
    assert not folders.Path("tanh").exists()


@pytest.mark.usefixtures("in_an_empty_folder", "no_pictures")
def test_and_after_training_without_losing_the_networks(capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(families, "check_meaning", lambda *_: (_ for _ in ()).throw(InputError("it means nothing")))
        assert cli.main(["run", "--out", "tanh", *TANH, "--ranges.measured_on", "pre"]) == 2
        assert cli.main(["sweep", "tanh", "--sweep.clip_formula", "caption"]) == 2
    said = capsys.readouterr().err
    assert "it means nothing; the trained networks are kept, so pass that to 'jaxdist sweep tanh'" in said
    assert said.count("\n") == 2
    assert cli.main(["sweep", "tanh", "--sweep.offset_formula", "intended"]) == 0
    assert result_files.load("tanh")["offset"].correct.shape == (1, 2, 1, 2, 125)


ALL = {
    "model": {"hidden": [8], "activations": ["relu"]},
    "train": {"steps": 60, "snapshots": True},
    "sweep": {"families": ["clip"], "splits": ["test"], "grid": True, "units": True},
}


def everything(out, seeds, margin=0.01):
    train, margins = {**ALL["train"], "seeds": seeds}, {"margin": margin}
    return configs.from_dict(ALL | {"out": str(out), "train": train, "statistics": margins})


@pytest.mark.slow
def test_a_run_that_grows_before_it_is_swept_is_the_run_of_all_seeds(tmp_path, no_pictures):
    """The parts of a run are swept one after the other: none of a part's numbers may stand for another's."""
    running.train(everything(tmp_path / "grown", 2))
    grown, whole = running.run(everything(tmp_path / "grown", 4)), running.run(everything(tmp_path / "whole", 4))
    assert set(grown.children) == set(whole.children)
    for name in whole.children:
        for variable, values in whole[name].data_vars.items():
            assert grown[name][variable].dims == values.dims
            np.testing.assert_array_equal(grown[name][variable], values, err_msg=f"{name} {variable}")
    new, old = (grown["units_clip"].correct.isel(seed=seeds).to_numpy() for seeds in (slice(2, 4), slice(2)))
    assert (new != old).mean() > 0.3


def test_a_snapshot_that_cannot_be_swept(tmp_path, monkeypatch, no_pictures):
    """It does not lose what else was measured."""
    alone = {**ALL, "sweep": {"families": ["scale"], "splits": ["test"]}}
    checked, sites = families.check_meaning, []

    def check(family, ranges, *_):
        sites.append(family)
        if len(ranges.high) > 2:
            raise InputError("too many")
        checked(family, ranges, *_)

    monkeypatch.setattr(families, "check_meaning", check)
    train = {**ALL["train"], "seeds": 2}
    result = running.run(configs.from_dict(alone | {"out": str(tmp_path / "run"), "train": train}))
    assert (result["scale"].agree.sel(fraction=1, method="nearest") == 360).all()
    assert "too many" in "".join(np.atleast_1d(result["snapshots_scale"].attrs["refused"]))
    assert (result["snapshots_scale"].correct == results.MISSING).all()
    assert len(sites) == 2
