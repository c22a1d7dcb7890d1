"""Where the mean of a metric has moved by an amount: against a search by hand, with intervals."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxdist
from jaxdist.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(101, 4)).astype(np.float32)
SEEDS = 6
PARAMS = {
    "w": RNG.normal(size=(SEEDS, 4, 6)).astype(np.float32),
    "v": RNG.normal(size=(SEEDS, 6, 3)).astype(np.float32),
}
Y = RNG.integers(0, 3, 101)
GRID = np.linspace(-1, 1, 21)
FRACTIONS = {"shift": GRID.tolist()}


def network(params, x):
    return jnp.tanh(jaxdist.site("h", x @ params["w"])) @ params["v"]


def first(outputs, labels):
    """The first output."""
    return outputs[:, 0]


@pytest.fixture(scope="module")
def one():
    params = {name: leaf[0] for name, leaf in PARAMS.items()}
    return jaxdist.probe(
        network,
        params,
        train=(X, Y),
        sites=["h"],
        families=("shift",),
        fractions=FRACTIONS,
        metrics=(first, "cross_entropy"),
        thresholds={"first": 0.2, "flips": 0.05},
    )


def outputs(seed: int, fraction: float) -> np.ndarray:
    """In float64: each unit moved by a fraction of its range."""
    w, v = (PARAMS[name][seed].astype(np.float64) for name in "wv")
    h = X.astype(np.float64) @ w
    return np.tanh(h + fraction * np.ptp(h, axis=0)) @ v


def crossing(values: np.ndarray, amount: float, step: int) -> float:
    """By hand: outward from 0, linear between two points, infinite where it is never reached."""
    at, before = 10, 0.0
    while 0 <= at + step < 21:
        at += step
        if values[at] >= amount:
            share = (amount - before) / (values[at] - before)
            return GRID[at - step] + share * (GRID[at] - GRID[at - step])
        before = values[at]
    return step * np.inf


@pytest.mark.parametrize(("side", "step"), [("below", -1), ("above", 1)])
def test_the_first_fraction_at_which_a_mean_has_moved(side, step, one):
    change = np.stack([outputs(0, fraction)[:, 0] - outputs(0, 0)[:, 0] for fraction in GRID])
    half = stats.t.ppf(0.975, 100) * change.std(1, ddof=1) / np.sqrt(101)
    reached = []
    for sign in (1, -1):
        row = jaxdist.thresholds(one, {"first": sign * 0.2}).set_index("side").loc[side]
        moved = sign * change.mean(1)
        reached.append(crossing(moved, 0.2, step))
        assert row["median"] == pytest.approx(reached[-1], rel=1e-4)
        ends = sorted(crossing(values, 0.2, step) for values in (moved + half, moved - half))
        np.testing.assert_allclose([row.low, row.high], ends, rtol=1e-3)
        assert (row.over, row.seeds, row.amount, row.grid_end) == ("images", 1, sign * 0.2, step)
    assert len(set(reached)) == 2, "it rises elsewhere than it falls"


def test_flips_are_averaged_where_a_threshold_names_them(one):
    table = jaxdist.thresholds(one)
    row = table[(table.metric == "flips") & (table.side == "above")].iloc[0]
    named = outputs(0, 0).argmax(1)
    flips = np.array([(outputs(0, fraction).argmax(1) != named).mean() for fraction in GRID])
    assert row["median"] == pytest.approx(crossing(flips, 0.05, 1), rel=1e-4)
    np.testing.assert_allclose(
        one["shift"].to_dataset().metric_mean.sel(metric="flips").squeeze(), flips, rtol=1e-6, atol=1e-7
    )


def test_other_amounts_are_asked_of_the_result(one):
    table = jaxdist.thresholds(one, {"cross_entropy": 0.05})
    assert set(table.metric) == {"cross_entropy"}
    assert (table.amount == 0.05).all()
    far = jaxdist.thresholds(one, {"cross_entropy": 1e6})
    assert np.isinf(far["median"]).all()
    assert (far.censored == 1).all()
    for amounts, sentence in (
        ({"kl": 0.1}, "thresholds: expected metrics that were averaged, flips, first, cross_entropy, got 'kl'"),
        ({"first": 0}, r"thresholds: expected how far 'first' rises \(above 0\) or falls .* in its own unit, got 0"),
    ):
        with pytest.raises(InputError, match=sentence):
            jaxdist.thresholds(one, amounts)


def test_of_several_seeds_the_median_has_an_interval_over_them():
    result = jaxdist.probe(
        network,
        PARAMS,
        train=(X, Y),
        stacked=True,
        sites=["h"],
        families=("shift",),
        fractions=FRACTIONS,
        metrics=(first,),
    )
    row = jaxdist.thresholds(result, {"first": 0.3}).iloc[1]
    moved = [[outputs(k, f)[:, 0].mean() - outputs(k, 0)[:, 0].mean() for f in GRID] for k in range(SEEDS)]
    each = np.sort([crossing(np.array(values), 0.3, 1) for values in moved])
    assert row.side == "above"
    np.testing.assert_allclose(row["median"], (each[2] + each[3]) / 2, rtol=1e-4)
    np.testing.assert_allclose([row.low, row.high], [each[0], each[-1]], rtol=1e-4)
    assert row.over == "seeds"


def test_a_result_without_thresholds_has_an_empty_table():
    params = {name: leaf[0] for name, leaf in PARAMS.items()}
    result = jaxdist.probe(network, params, train=(X, Y), sites=["h"], families=("shift",), fractions=FRACTIONS)
    assert jaxdist.thresholds(result).empty
