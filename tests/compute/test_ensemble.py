"""The driver of ensembles: a network's numbers are its own, whatever is measured beside it, and sums come out whole."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdist import config
from jaxdist.compute import Reducer, blocks, devices, ensemble, over_networks, tuning
from jaxdist.config import SweepConfig
from jaxdist.experiment import running
from jaxdist.networks import mlp, training
from jaxdist.perturbations import families, ranges, rules
from jaxdist.sweep import ensemble_sweep, restored, sensitivity, unedited, units
from jaxdist.sweep.kernel import Watch

SITE = "dense0/pre"
MODEL = mlp.model("abs")
SIZES = (64, 24, 10)


@pytest.fixture(scope="module")
def splits(digits):
    """Real images, laid out for an ensemble of so many networks."""
    data = {
        name: (split.images.reshape(len(split.images), -1)[:700].astype(np.float32), split.labels[:700])
        for name, split in (("train", digits.train), ("test", digits.test))
    }
    return functools.cache(lambda seeds: devices.place_splits(data, devices.make_mesh(seeds=seeds)))


@pytest.fixture(scope="module")
def networks():
    return jax.tree.map(np.asarray, mlp.init_ensemble(jax.random.key(3), range(7), SIZES))


def edits_of(params, examples):
    measured = ranges.measure(MODEL, params, examples, (SITE,))[SITE]
    grids = {"scale": np.array([0.3, 2.0]), "clip": np.array([0.2, 0.9]), "offset": np.array([-0.4, 0.1, 1.5])}
    return {SITE: families.joined(measured, grids, SweepConfig())}


def trained(params, splits):
    return training.train(MODEL, params, splits["train"], splits["test"], steps=25, optimizer=optax.sgd(0.003))


MEASUREMENTS = {
    "training": trained,
    "ranges": lambda p, s: ranges.measure(MODEL, p, s["train"], (SITE,)),
    "deviations": lambda p, s: ranges.measure(MODEL, p, s["train"], (SITE,), rule=rules.Rule("sd")),
    "quantiles": lambda p, s: ranges.measure(MODEL, p, s["train"], (SITE,), rule=rules.Rule("quantile", 0.05)),
    "counts": lambda p, s: ensemble_sweep.sweep(MODEL, p, edits_of(p, s["train"]), s["test"]),
    "moments": lambda p, s: ensemble_sweep.sweep_sums(
        MODEL, p, edits_of(p, s["train"]), s["train"], watch=Watch(SITE, jnp.abs)
    ),
    "units": lambda p, s: units.sweep(MODEL, p, SITE, edits_of(p, s["train"])[SITE], s["test"]).counts,
    "mean moves": lambda p, s: restored.moved(MODEL, p, edits_of(p, s["train"]), s["train"]),
    "derivatives": lambda p, s: sensitivity.measure(MODEL, p, s["train"], SITE),
    "classes": lambda p, s: unedited.measure(MODEL, p, s["train"])._replace(labels=np.zeros(len(p["dense0"]["bias"]))),
}


def of_seed(tree, seed, name):
    """One network's part of what a measurement gives; metrics have the seed behind the step."""
    if name == "training":
        metrics = jax.tree.map(lambda leaf: leaf[:, seed], tree.metrics)
        return jax.tree.map(lambda leaf: leaf[seed], tree.params), metrics
    return jax.tree.map(lambda leaf: leaf[seed], tree)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("training", "moments") else pytest.mark.slow) for name in MEASUREMENTS],
)
def test_a_network_has_the_same_bits_at_any_place_and_among_any_number(name, networks, splits):
    """With 1, 2, 5 and 7 networks, which lie on meshes of both shapes, in other orders."""
    measure = MEASUREMENTS[name]
    whole = measure(networks, splits(7))
    for chosen in ([4], [6, 4], [4, 1, 2, 3, 0]):
        some = measure(jax.tree.map(lambda leaf, k=chosen: leaf[k], networks), splits(len(chosen)))
        for place, seed in enumerate(chosen):
            one, other = of_seed(some, place, name), of_seed(whole, seed, name)
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
                np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=f"{chosen} {seed}")


@pytest.mark.parametrize("group", [1, 2, 3, 10])
def test_networks_that_run_together_are_counted_as_one_by_one(group, networks, splits):
    examples, made = splits(7)["test"], edits_of(networks, splits(7)["train"])
    alone = ensemble_sweep.sweep(MODEL, networks, made, examples)
    with tuning.using(networks=group, points=4):
        together = ensemble_sweep.sweep(MODEL, networks, made, examples)
        losses = training.train(MODEL, networks, *splits(7).values(), steps=3, optimizer=optax.sgd(0.003)).metrics.loss
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1)
    assert np.isfinite(losses).all()
    assert losses.shape == (4, 7)


@dataclasses.dataclass(frozen=True)
class Span(Reducer):
    """The largest pixel sum and how many examples have a label above `least`: two states of unlike merges."""

    least: int

    def init(self, params, given, x):
        return jnp.full((), -jnp.inf), jnp.int32(0)

    def update(self, state, params, given, block):
        sums = jnp.where(block.valid, (block.x * params).sum(1) + given, -jnp.inf)
        counted = jnp.sum(block.valid & (block.y > self.least), dtype=jnp.int32)
        return jnp.maximum(state[0], sums.max()), state[1] + counted

    def merge(self, first, second):
        return jnp.maximum(first[0], second[0]), first[1] + second[1]

    def result(self, state, total):
        return {"largest": state[0], "share": state[1] / total}


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("size", [64, 128, 10**6])
def test_a_reducer_of_ones_own_is_what_numpy_makes_of_all_examples(seeds, size, digits):
    x, y = digits.train.images.reshape(-1, 64)[:701].astype(np.float32), digits.train.labels[:701]
    examples = devices.place(x, y, devices.make_mesh(seeds=seeds))
    weights = np.arange(1, seeds + 1, dtype=np.float32)
    found = over_networks(Span(4), weights, -weights, examples, size=size)
    np.testing.assert_allclose(found["largest"], weights * x.sum(1).max() - weights, rtol=1e-6)
    np.testing.assert_allclose(found["share"], np.full(seeds, (y > 4).mean()), rtol=1e-6)


def test_several_reducers_take_one_walk(digits):
    """The blocks are read once, which the number of traces of an update shows; each has its own result."""
    x, y = digits.train.images.reshape(-1, 64)[:300].astype(np.float32), digits.train.labels[:300]
    examples = devices.place(x, y, devices.make_mesh(seeds=2))

    @dataclasses.dataclass(frozen=True)
    class Both:
        def __call__(self, params, given, examples, size):
            return ensemble.fold_blocks((Span(4), Span(8)), params, given, examples, size)

    weights = np.ones(2, np.float32)
    few, many = (over_networks(Both(), weights, 0 * weights, examples, size=64)[k]["share"] for k in (1, 0))
    np.testing.assert_allclose([few[0], many[0]], [(y > 8).mean(), (y > 4).mean()], rtol=1e-6)


@pytest.mark.parametrize(("seeds", "work", "expected"), [(20, None, 20), (5, None, 6), (20, 3e7, 2), (20, 9e6, 10)])
def test_calls_are_as_even_as_whole_rows_of_the_mesh_allow(seeds, work, expected):
    mesh = devices.make_mesh(jax.devices()[:2], seeds=2)
    assert ensemble.group(seeds, work, mesh) == expected


def test_each_call_is_told_its_networks_and_may_answer_for_it(networks, splits):
    seen = []

    def each(these, compute):
        seen.append(these)
        return compute() if these.start else np.zeros((these.stop, 7, 10), np.float32)

    examples = splits(7)["train"]
    made = edits_of(networks, examples)
    with tuning.using(evaluations=3 * 7 * 700.0):
        moves = restored.moved(MODEL, networks, made, examples, each=each)
    assert [(these.start, these.stop) for these in seen] == [(0, 3), (3, 6), (6, 7)]
    assert not moves[:3].any()
    np.testing.assert_array_equal(moves[3:], restored.moved(MODEL, networks, made, examples)[3:])


def test_what_is_changed_for_a_while_is_as_before_afterwards():
    before = tuning.current()
    with tuning.using(networks=3, points=None):
        assert tuning.current() == dataclasses.replace(before, networks=3)
        with pytest.raises(ValueError, match="inner"), tuning.using(points=5):
            raise ValueError("inner")
        assert tuning.current().points == before.points
    assert tuning.current() == before
    assert blocks.default_size(128) == before.values // 128 // before.tile * before.tile


def test_a_config_says_how_many_run_together(tmp_path, monkeypatch):
    """The option reaches whatever is compiled, and is over when the run is."""
    seen = []
    whole = ensemble.over_networks

    def over(*arguments, **options):
        seen.append((tuning.current().networks, tuning.current().points))
        return whole(*arguments, **options)

    for module in (ensemble_sweep, unedited, ranges):
        monkeypatch.setattr(module, "over_networks", over)
    monkeypatch.setattr(running.writing, "write", lambda *_: [])
    tree = {"out": str(tmp_path / "run"), "train": {"seeds": 3, "steps": 2}, "model": {"hidden": [8]}}
    running.run(config.from_dict(tree | {"compute": {"networks": 2, "points": 50}, "sweep": {"families": ["clip"]}}))
    assert set(seen) == {(2, 50)}
    assert tuning.current() == tuning.CPU
