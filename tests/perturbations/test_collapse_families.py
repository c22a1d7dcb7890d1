"""Where units are collapsed: sides by their definition, what they leave of the variance, and what is refused."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.errors import InputError
from jaxdist.perturbations import collapse_families, edits
from jaxdist.perturbations.collapse_families import ends

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
def test_the_side_is_the_least_that_holds_the_share(unit, share, large):
    edited, held = after(unit, share, large), (unit.astype(float) - unit.mean(dtype=float)) ** 2
    side = edited != unit
    if share == 0:
        assert not side.any()
        return
    values = np.unique(unit.astype(float))[:: -1 if large else 1]
    sides = [unit >= t if large else unit <= t for t in values]
    expected = next(each for each in sides if held[each].sum() >= share * held.sum() * (1 - 1e-12))
    np.testing.assert_allclose(edited, np.where(expected, unit[expected].mean(dtype=float), unit), rtol=1e-6)


@pytest.mark.parametrize("large", [False, True])
def test_the_whole_variance_is_the_mean_and_more_erases_more(unit, large):
    assert after(unit, 1.0, large) == pytest.approx(unit.mean(dtype=float), rel=1e-6)
    erased = [((after(unit, share, large) - unit.astype(float)) ** 2).sum() for share in SHARES]
    assert (np.diff(erased) >= 0).all()
    # What is put in place of a side is its mean, so the mean of all stays.
    assert after(unit, 0.3, large).mean(dtype=float) == pytest.approx(unit.mean(dtype=float), rel=1e-5)


def test_constant_units_are_not_edited():
    for large in (False, True):
        thresholds, _ = ends(np.full((50, 1), 2.5, np.float32), SHARES[:, None], large=large)
        assert (thresholds == (math.inf if large else -math.inf)).all()


X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
PARAMS = [np.random.default_rng(1).normal(size=size).astype(np.float32) for size in ((4, 6), (6, 2))]


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
    streamed = probed(activation, [(X[:25], Y[:25]), (X[25:], Y[25:])], post={"h": activation}, dose=False)
    for other in (by_site, streamed):
        for family in ("collapse_small", "collapse_large"):
            np.testing.assert_array_equal(other[family].agree, by_function[family].agree)


@pytest.mark.parametrize("activation", [jax.nn.sigmoid, jnp.tanh, jax.nn.gelu, jax.nn.leaky_relu])
def test_activations_whose_small_values_are_not_near_the_boundary_are_refused(activation):
    with pytest.raises(InputError, match="that needs an activation which leaves 0 and positive values unchanged"):
        probed(activation, post={"h": activation})
    with pytest.raises(InputError, match="site 'h': collapse_small takes small activations for those near the bound"):
        probed(activation, post={"h": "a"})


def test_more_values_than_can_be_sorted_are_refused(monkeypatch):
    monkeypatch.setattr(collapse_families, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"site 'h': its values for 60 examples take .* sort at most 0; leave these"):
        probed(jax.nn.relu, post={"h": jax.nn.relu})
