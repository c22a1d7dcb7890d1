"""Weights kept along training: which they are, that killing and growing a run changes none, and how they are swept."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdist import config as configs
from jaxdist.analysis import breakdowns
from jaxdist.config import StatisticsConfig
from jaxdist.experiment import running
from jaxdist.networks import mlp, training
from jaxdist.storage import folders, result_files, weights
from jaxdist.sweep import results, study
from tests import oracle
from tests.storage.test_unfinished import Killed

KEY, SIZES, STEPS = jax.random.key(11), (64, 24, 10), 60
OPTIMIZER = training.optimizer("sgd", 0.01)


def start(steps=STEPS, **kwargs):
    return training.start(mlp.init_ensemble(KEY, range(3), SIZES), steps, OPTIMIZER, **kwargs)


def advance(train_set, begin):
    return training.advance(mlp.model("relu"), begin, train_set, train_set, optimizer=OPTIMIZER)


def train(train_set, steps=STEPS):
    *_, last = advance(train_set, start(steps))
    return last.trained()


@pytest.fixture(scope="module")
def trained_with_snapshots(train_set):
    kept = []
    for now in advance(train_set, start(snapshots=True)):
        kept.append(jax.tree.map(np.array, now.snapshot()))
    return now.trained(), kept


def test_each_is_the_first_above_its_accuracy(trained_with_snapshots):
    found, _ = trained_with_snapshots
    accuracy = found.metrics.train_accuracy
    assert 0.5 < accuracy.max() < 1
    for seed in range(3):
        for k, threshold in enumerate(training.THRESHOLDS):
            above = np.flatnonzero(accuracy[:, seed] > np.float32(threshold))
            assert found.passed.step[seed, k] == (above[0] if above.size else training.NEVER)
    assert (found.passed.step[:, -1] == training.NEVER).all()
    assert not found.passed.params["dense0"]["weight"][:, -1].any()


def test_the_weights_are_those_of_a_training_that_ends_there(trained_with_snapshots, train_set):
    found, _ = trained_with_snapshots
    seed, k = 1, 4
    ended = train(train_set, steps=int(found.passed.step[seed, k]))
    jax.tree.map(
        lambda whole, end: np.testing.assert_array_equal(whole[seed, k], end[seed]), found.passed.params, ended.params
    )
    assert ended.passed is None


def test_to_keep_them_changes_no_weight_and_to_go_on_changes_none_of_them(trained_with_snapshots, train_set):
    found, kept = trained_with_snapshots
    plain = train(train_set)
    jax.tree.map(np.testing.assert_array_equal, plain.params, found.params)
    middle = next(one for one in kept if int(one.state.step) > 5)
    *_, again = (now.trained() for now in advance(train_set, middle))
    jax.tree.map(np.testing.assert_array_equal, again.passed, found.passed)


SMALL = {
    "model": {"hidden": [8], "activations": ["relu", "abs"]},
    "train": {"seeds": 2, "steps": 40, "save_every": 0.0, "snapshots": True},
    "sweep": {"families": ["clip"], "splits": ["test"]},
}


def config(out, **train):
    return configs.from_dict(SMALL | {"out": str(out), "train": SMALL["train"] | train})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.writing, "write", lambda *_: [])
        running.run(config(folder))
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(running.writing, "write", lambda *_: [])


@pytest.mark.slow
def test_they_are_swept_by_their_own_ranges(run, digits):
    group = result_files.load(run)["snapshots_clip"].to_dataset()
    assert group["correct"].dims == ("network", "seed", "threshold", "site", "split", "fraction")
    passed = weights.load(folders.passed_path(run, "abs"))
    np.testing.assert_array_equal(group["step"].sel(network="abs"), passed["step"])
    there = passed["step"] != training.NEVER
    assert 2 < there.sum() < there.size
    counts = group.sel(network="abs", site="dense0/pre", split="test")
    assert (counts["correct"].to_numpy()[~there] == results.MISSING).all()
    one_more = counts["agree"].sel(fraction=10.0, method="nearest").to_numpy()
    assert (one_more[there] == 360).all()
    seed, k = np.argwhere(there)[-1]
    params = jax.tree.map(lambda leaf: leaf[seed, k].astype(np.float64), passed["params"])
    train_x, test_x = (s.images.reshape(-1, 64).astype(np.float64) for s in (digits.train, digits.test))
    expected = oracle.sweep(params, "abs", test_x, digits.test.labels, ranges_x=train_x)["clip"]
    found = counts.isel(seed=seed, threshold=k)
    for name, values in zip(("correct", "agree", "kept"), expected, strict=True):
        assert np.abs(found[name].to_numpy() - values).max() <= 2
    points, reach = breakdowns.along_training(result_files.load(run), StatisticsConfig())
    assert set(points.network) == {"relu", "abs"}
    assert reach.threshold.between(0.1, 0.99).all()


def test_a_killed_run_and_a_second_sweep_give_the_same(run, tmp_path, monkeypatch, no_pictures):
    expected = result_files.load(run)["snapshots_clip"].to_dataset().drop_attrs()
    with monkeypatch.context() as patch:
        patch.setattr(study, "along_training", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            running.run(config(tmp_path / "again"))
    running.run(config(tmp_path / "again"))
    assert result_files.load(tmp_path / "again")["snapshots_clip"].to_dataset().drop_attrs().identical(expected)
    running.sweep_folder(tmp_path / "again")
    assert result_files.load(tmp_path / "again")["snapshots_clip"].to_dataset().drop_attrs().identical(expected)


@pytest.mark.slow
def test_a_run_that_grows_keeps_those_it_has(run, tmp_path, no_pictures):
    before = result_files.load(run)["snapshots_clip"].to_dataset()
    running.run(config(tmp_path / "more"))
    grown = running.run(config(tmp_path / "more", seeds=3))["snapshots_clip"].to_dataset()
    assert grown.sizes["seed"] == 3
    np.testing.assert_array_equal(grown["correct"].isel(seed=slice(2)), before["correct"])
    assert weights.load(folders.passed_path(tmp_path / "more", "relu"))["step"].shape == (3, len(training.THRESHOLDS))


def test_networks_that_pass_nothing_are_labelled_so(tmp_path, no_pictures):
    found = running.run(config(tmp_path / "short", steps=1, learning_rate=1e-9))["snapshots_clip"]
    nothing = found["step"].to_numpy() == training.NEVER
    assert nothing[..., 3:].all()
    assert (found["correct"].to_numpy()[nothing] == results.MISSING).all()
