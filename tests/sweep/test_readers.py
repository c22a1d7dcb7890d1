"""What reads a layer: collapses, random signs, permuted weights and participation, each again by NumPy in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdist.networks import mlp
from jaxdist.perturbations import families
from jaxdist.perturbations.collapse_families import ends
from jaxdist.sweep import readers
from jaxdist.sweep.readers import Reader
from tests import conftest

FRACTIONS = np.geomspace(0.01, 1, 7)
SITES = ("dense0/pre", "dense0/post")
DRAWS, SEEDS = 3, [5, 9, 2]
MADE = {"relu": lambda h: np.maximum(h, 0), "abs": np.abs}


def as_float64(params, seed):
    return jax.tree.map(lambda leaf: np.asarray(leaf[seed], np.float64), params)


def signs(seed, examples, units):
    """The signs [DRAWS, N, H] that the networks of a number are given, by their definition."""
    keys = families.keys("signs of collapses", [seed], 1 + DRAWS)[0, 1:]

    def of(key, example):
        key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), example)
        return jax.random.rademacher(key, (units,), np.int8)

    return np.asarray(jax.vmap(lambda key: jax.vmap(lambda i: of(key, i))(np.arange(examples)))(keys), np.float64)


def expected(activation, params, seed, training, counted, large):
    """Flips, doses and participation [1 + DRAWS, P] of one network, by NumPy."""
    own = as_float64(params, seed)

    def activations(x):
        return MADE[activation](x @ own["dense0"]["weight"].T + own["dense0"]["bias"])

    before, known, out = activations(counted), activations(training), own["dense1"]["weight"]
    weights = ((out - out.mean(0)) ** 2).sum(0)
    logits = before @ out.T
    unedited = (logits + own["dense1"]["bias"]).argmax(1)
    result = np.zeros((3, 1 + DRAWS, len(FRACTIONS)))
    for k, share in enumerate(FRACTIONS):
        shares = np.full((1, before.shape[1]), share, np.float32)
        threshold, mean = (end[0].astype(np.float64) for end in ends(known.astype(np.float32), shares, large=large))
        chosen = before >= threshold if large else before <= threshold
        change = np.where(chosen, mean, before) - before
        for draw, sign in enumerate([1, *signs(SEEDS[seed], *before.shape)]):
            moved = sign * change
            after = before + moved
            flips = ((after @ out.T + own["dense1"]["bias"]).argmax(1) != unedited).mean()

            def product(a, b):
                return (weights * a * b).sum()

            cosine2 = product(before, after) ** 2 / (product(before, before) * product(after, after))
            each = (weights * moved**2).sum(1)
            squares = (each**2).sum()
            spread = each.sum() ** 2 / (len(each) * squares) if squares else np.nan
            result[:, draw, k] = flips, np.sqrt(max(1 - cosine2, 0)), spread
    return result


@pytest.fixture(scope="module")
def counted(digits):
    return conftest.place(digits, 500)


def pixels(digits, count):
    return digits.train.images[:count].reshape(count, -1).astype(np.float64)


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_every_curve_is_that_of_numpy(activation, trained, digits, train_set, counted):
    params = trained[activation]
    keys = families.keys("permuted readers", SEEDS, 2)
    shuffled = readers.permuted(params, "dense1", keys[:, 1])
    made = {"trained": Reader(params, "trained"), "permuted": Reader(shuffled, "trained")}
    told = []
    curves = readers.measure(
        mlp.model(activation), made, SITES, (train_set, counted), FRACTIONS, SEEDS, draws=DRAWS,
        tell=lambda *words: told.append(words),
    )  # fmt: skip
    assert told[-1] == (4, 4, "")
    for seed, (name, reader) in ((0, ("trained", made["trained"])), (2, ("permuted", made["permuted"]))):
        for k, large in enumerate((False, True)):
            flips, dose, spread = expected(
                activation, reader.params, seed, pixels(digits, 301), pixels(digits, 500), large
            )
            np.testing.assert_allclose(curves[name].flips[seed, k], flips, atol=1 / 500 + 1e-9)
            np.testing.assert_allclose(curves[name].dose[seed, k], dose, atol=1e-5)
            np.testing.assert_allclose(curves[name].participation[seed, k], spread, rtol=1e-5)
    assert (curves["trained"].flips[:, :, 0].max(-1) > 0.2).all()


def test_permuted_weights_are_the_same_numbers_put_to_other_units(trained):
    params = trained["relu"]
    keys = families.keys("permuted readers", SEEDS, 2)
    first, second = (readers.permuted(params, "dense1", keys[:, k]) for k in range(2))
    before, after = (np.asarray(each["dense1"]["weight"]) for each in (params, first))
    for seed in range(3):
        order = [int(np.flatnonzero((before[seed] == column[:, None]).all(0))[0]) for column in after[seed].T]
        assert sorted(order) == list(range(24))
        assert order != list(range(24))
    assert not np.array_equal(after, second["dense1"]["weight"])
    assert first["dense0"] is params["dense0"]
    np.testing.assert_array_equal(first["dense1"]["bias"], params["dense1"]["bias"])


def test_a_networks_curves_do_not_depend_on_its_place_in_the_ensemble(trained, train_set):
    def measured(some):
        params = jax.tree.map(lambda leaf: leaf[some], trained["relu"])
        numbers = [SEEDS[k] for k in some]
        return readers.measure(
            mlp.model("relu"), {"trained": Reader(params, "trained")}, SITES, (train_set, train_set), FRACTIONS,
            numbers, draws=2, tell=lambda *_: None,
        )["trained"]  # fmt: skip

    every, some = measured(np.array([0, 1, 2])), measured(np.array([2, 0]))
    for name in every._fields:
        np.testing.assert_array_equal(getattr(every, name)[[2, 0]], getattr(some, name))


def test_what_moves_one_example_alone_has_a_participation_of_one_in_all(train_set):
    """A unit that is large on a single example: erasing large values moves that one, and others not."""
    from jaxdist.perturbations import Fill
    from jaxdist.sweep import ensemble_sweep
    from jaxdist.sweep.kernel import Watch

    params = {
        "dense0": {"weight": np.zeros((1, 4, 64), np.float32), "bias": np.ones((1, 4), np.float32)},
        "dense1": {"weight": np.ones((1, 10, 4), np.float32), "bias": np.zeros((1, 10), np.float32)},
    }
    x = np.asarray(jax.device_get(train_set.x))
    pixel = int(np.unravel_index(x.reshape(len(x), -1).argmax(), (len(x), 64))[1])
    params["dense0"]["weight"][0, :, pixel] = 1
    values = np.maximum(x.reshape(len(x), -1)[:, pixel] + 1, 0)[:301]
    highest = values.max()
    edit = Fill(*(np.full((1, 1, 4), value, np.float32) for value in (highest - 0.5, 0)), large=True)
    sums = ensemble_sweep.sweep_sums(
        mlp.model("relu"), params, {"dense0/post": edit}, train_set, watch=Watch("dense0/post"),
        weights=np.ones((1, 4)),
    )  # fmt: skip
    total, squares = (np.asarray(leaf, np.float64) for leaf in sums.spread)
    many = (values == highest).sum()
    assert total[0, 0] == pytest.approx(many * 4 * highest**2, rel=1e-6)
    assert total[0, 0] ** 2 / squares[0, 0] == pytest.approx(many, rel=1e-6)
