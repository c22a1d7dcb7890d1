"""Where units are collapsed: sides by their definition, what they leave of the variance, and what is refused."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist import compute
from jaxdist.compute import mesh_of
from jaxdist.errors import InputError, MeaninglessError
from jaxdist.networks import mlp
from jaxdist.perturbations import collapse_families, edits
from jaxdist.perturbations.collapse_families import ends
from jaxdist.sweep import matched
from tests import oracle
from tests.conftest import place, to_numpy

SHARES = np.array([0.0, 2e-4, 0.01, 0.3, 0.7, 1.0])


@pytest.fixture(params=["relu", "abs", "ties", "skewed"])
def unit(request):
    rng = np.random.default_rng(3)
    normal = rng.normal(0.2, 1, 400)
    return {
        "relu": np.maximum(normal, 0),
        "abs": np.abs(normal),
        "ties": rng.integers(0, 4, 400).astype(float),
        "skewed": rng.exponential(size=400) ** 3,
    }[request.param].astype(np.float32)


def after(unit, share, large):
    """The unit's activations [N] behind the edit."""
    threshold, mean = ends(unit[:, None], np.array([[share]]), large=large)
    made = edits.Fill(jnp.asarray(threshold[0], jnp.float32), jnp.asarray(mean[0], jnp.float32), large=large)
    return np.asarray(made.apply(jnp.asarray(unit[:, None]), jnp.arange(len(unit)), -1))[:, 0]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("share", SHARES)
def test_the_side_is_the_least_whose_mean_erases_the_share(unit, share, large):
    edited, values = after(unit, share, large), unit.astype(float)
    if share == 0:
        np.testing.assert_array_equal(edited, unit)
        return
    ends = np.unique(values)[:: -1 if large else 1]
    sides = [values >= t if large else values <= t for t in ends]
    enough = share * len(values) * values.var() * (1 - 1e-12)
    expected = next(each for each in sides if each.sum() * values[each].var() >= enough)
    np.testing.assert_allclose(edited, np.where(expected, values[expected].mean(), values), rtol=1e-6)


@pytest.mark.parametrize("large", [False, True])
def test_what_is_erased_is_the_share_or_that_of_the_next_value(unit, large):
    values = unit.astype(float)
    erased = [1 - after(unit, share, large).astype(float).var() / values.var() for share in SHARES]
    assert (np.array(erased) >= SHARES - 1e-6).all()
    assert (np.diff(erased) >= 0).all()
    most = 0.3 if (values == 0).any() and large else 1.0  # then all zeros of ReLU come in at once
    if len(np.unique(unit)) > 100:  # one value more or less is little
        near = most >= SHARES
        np.testing.assert_allclose(np.array(erased)[near], SHARES[near], atol=0.08 if unit.max() > 20 else 0.02)
    np.testing.assert_allclose(after(unit, 1.0, large), values.mean(), rtol=1e-6)
    # What is put in place of a side is its mean, so the mean of all stays.
    assert after(unit, 0.3, large).mean(dtype=float) == pytest.approx(values.mean(), rel=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.5, np.nan])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(InputError, match="shares of variance: expected from 0 to 1, got"):
        ends(np.arange(4.0)[:, None], np.array([[0.5], [share]]), large=False)
    if not np.isnan(share):
        with pytest.raises(InputError, match="shares of variance: expected from 0 to 1, got"):
            probed(jax.nn.relu, post={"h": jax.nn.relu}, fractions={"collapse_small": sorted([0.5, share])})


@pytest.mark.parametrize("offset", [0, 1e6, 1e8])
def test_float64_stays_float64(offset):
    unit = np.random.default_rng(0).normal(size=200) ** 2 + offset
    threshold, mean = ends(unit[:, None], np.array([[0.5]]), large=False)
    side = unit <= threshold[0]
    assert threshold.dtype == mean.dtype == np.float64
    assert side.sum() * unit[side].var() == pytest.approx(0.5 * unit.size * unit.var(), rel=0.05)
    assert mean[0, 0] == pytest.approx(unit[side].mean(), rel=1e-15)


def test_neighbours_in_float32_stay_apart():
    step = np.float32(2**-23)
    unit = np.array([0.25, 1 + step, 1 + 2 * step, 3], np.float32)
    share = (1e-12 + 2 * unit[:2].astype(float).var()) / (4 * unit.astype(float).var())
    edited = after(unit, np.nextafter(share, 0) - 1e-9, large=False)
    assert (edited == unit).tolist() == [False, False, True, True]


def test_constant_units_are_not_edited():
    for large in (False, True):
        thresholds, _ = ends(np.full((50, 1), 2.5, np.float32), SHARES[:, None], large=large)
        assert (thresholds == (math.inf if large else -math.inf)).all()


X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
PARAMS = [np.random.default_rng(1).normal(size=size).astype(np.float32) for size in ((4, 6), (6, 2))]


def pixels(digits):
    return digits.train.images[:301].astype(np.float64)


def network(activation):
    def apply(params, x):
        hidden = activation(jaxdist.site("h", x @ params[0]))
        return jaxdist.site("a", hidden) @ params[1]

    return apply


def probed(activation, train=(X, Y), **options):
    families = ("collapse_small", "collapse_large")
    return jaxdist.probe(network(activation), PARAMS, train=train, families=families, **{"dose": True, **options})


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.abs])
def test_doses_are_those_of_a_projection_whichever_way_the_activation_is_given(activation):
    by_function = probed(activation, post={"h": activation})
    hidden = np.asarray(activation(X @ PARAMS[0])).astype(np.float64)
    weights = ((PARAMS[1] - PARAMS[1].mean(1, keepdims=True)).astype(np.float64) ** 2).sum(1)
    for family, large in (("collapse_small", False), ("collapse_large", True)):
        group = by_function[family].to_dataset().squeeze(drop=True)
        expected = []
        for share in group.fraction.to_numpy():
            columns = [after(unit, np.float32(share), large) for unit in hidden.T.astype(np.float32)]
            erased = hidden.var(0) - np.stack(columns, 1).astype(np.float64).var(0)
            expected.append(np.sqrt((weights * erased).sum() / (weights * (hidden**2).mean(0)).sum()))
        np.testing.assert_allclose(group.dose.to_numpy(), expected, atol=2e-4)
    by_site = probed(activation, post={"h": "a"})
    for family in ("collapse_small", "collapse_large"):
        np.testing.assert_array_equal(by_site[family].agree, by_function[family].agree)


def test_batches_that_are_read_again_are_refused():
    batches = [(X[:25], Y[:25]), (X[25:], Y[25:])]
    with pytest.raises(InputError, match="family 'collapse_small': needs all examples in memory; pass arrays instead"):
        probed(jax.nn.relu, batches, post={"h": jax.nn.relu}, dose=False)


def test_values_are_gathered_once_however_many_devices_there_are(digits, trained):
    """Each device's own rows: the thresholds are those of all values, and the state holds each value once."""
    for devices_used in (1, 2):
        examples = place(digits, 301, devices_used)
        params = jax.tree.map(lambda leaf: leaf[:1], trained["relu"])
        model = mlp.model("relu")
        hidden = np.maximum(oracle.hidden(to_numpy(jax.tree.map(lambda leaf: leaf[0], params)), pixels(digits)), 0)
        shares = np.full((1, 1, hidden.shape[1]), 0.3, np.float32)
        thresholds, means = collapse_families.measure(
            model, params, examples, "dense0/pre", shares, large=False, activation=jax.nn.relu
        )
        expected = ends(hidden.astype(np.float32), shares[0], large=False)
        np.testing.assert_allclose(thresholds[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(means[0], expected[1], rtol=1e-5)
        rows = -(-301 // mesh_of(examples).size) + 64
        gathered = collapse_families.Gathered(model, "dense0/pre", rows)
        values, valid, _ = compute.over_networks(gathered, params, None, examples, size=64)
        assert valid.sum() == 301
        assert values.shape[1] == rows * mesh_of(examples).size


@pytest.mark.parametrize("activation", [jax.nn.sigmoid, jnp.tanh, jax.nn.gelu, jax.nn.leaky_relu])
def test_activations_whose_small_values_are_not_near_the_boundary_are_refused(activation):
    with pytest.raises(InputError, match="that needs an activation which leaves 0 and positive values unchanged"):
        probed(activation, post={"h": activation})
    with pytest.raises(MeaninglessError, match="site 'h': collapse_small takes small activations for those near the "):
        probed(activation, post={"h": "a"})


@pytest.mark.parametrize("behind", ["a", jax.nn.relu])
def test_values_that_are_nan_are_refused(behind):
    def apply(params, x):
        hidden = jaxdist.site("h", jnp.where(x[:, :1] > 2, jnp.nan, x @ params[0]))
        return jnp.nan_to_num(jaxdist.site("a", jax.nn.relu(hidden))) @ params[1]

    x = np.clip(X, -1, 1)
    x[3, 0] = 3
    with pytest.raises(
        MeaninglessError,
        match="site 'h': some values are NaN, so that units have no range",
    ):
        jaxdist.probe(apply, PARAMS, train=(x, Y), families=("collapse_small",), post={"h": behind})


def test_a_dose_that_a_jump_passes_over_is_not_matched():
    def apply(params, x):
        far = jnp.where(jnp.abs(x @ params[0]) > 1.5, 5 + x @ params[0] / 10, -1)
        return jax.nn.relu(jaxdist.site("h", far)) @ params[1]

    levels = (0.102, 0.3, 0.75)
    result = jaxdist.probe(
        apply, PARAMS, train=(X, Y), families=("collapse_large",), post={"h": jax.nn.relu}, dose=True, matched=levels
    )
    group = result["matched_collapse_large"].to_dataset().squeeze(drop=True)
    swept = result["collapse_large"].dose
    assert (swept < levels[0]).any()
    assert (swept > levels[2]).any()
    # Where the last zero comes in, the dose leaps: nothing is erased before that but what differs among large values.
    assert group.fraction.notnull().to_numpy().tolist() == [True, False, False]
    assert float(group.dose[0]) == pytest.approx(levels[0], rel=matched.NEAR)


def test_more_values_than_can_be_sorted_are_refused(monkeypatch):
    monkeypatch.setattr(collapse_families, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"site 'h': its values for 60 examples take .* sort at most 0; leave these"):
        probed(jax.nn.relu, post={"h": jax.nn.relu})
