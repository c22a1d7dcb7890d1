"""Ranges: against a direct computation, whatever the blocks, and which units are dead."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import mlp, ranges, taps
from jaxdist.errors import InputError

SITE = "dense0/pre"


def direct(params, train_set, seed):
    x = np.asarray(train_set.x, np.float64)[:301].reshape(301, -1)
    layer = jax.tree.map(lambda leaf: np.asarray(leaf[seed], np.float64), params["dense0"])
    return x @ layer["weight"].T + layer["bias"]


@pytest.mark.parametrize("block", [None, 1, 100])
@pytest.mark.parametrize("activation", ["relu", "abs"])
@pytest.mark.parametrize("side", ["post", "pre"])
def test_ranges_equal_a_direct_computation(side, activation, block, trained, train_set):
    params = trained[activation]
    found = ranges.measure(mlp.model(activation), params, train_set, (SITE,), measured_on=side, block=block)[SITE]
    for seed in range(3):
        value = direct(params, train_set, seed)
        if side == "post":
            value = np.maximum(value, 0) if activation == "relu" else np.abs(value)
        np.testing.assert_allclose(found.low[seed], value.min(axis=0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.high[seed], value.max(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["post", "pre"])
def test_a_unit_is_dead_if_its_activation_is_always_zero(side, trained, train_set):
    params = jax.tree.map(jnp.array, trained["relu"])
    params["dense0"]["weight"] = params["dense0"]["weight"].at[1, 4].set(0.0)
    params["dense0"]["bias"] = params["dense0"]["bias"].at[1, 4].set(-2.0)
    dead = ranges.measure(mlp.model("relu"), params, train_set, (SITE,), measured_on=side)[SITE].dead
    for seed in range(3):
        np.testing.assert_array_equal(dead[seed], (direct(params, train_set, seed) <= 0).all(axis=0))
    assert dead[1, 4]
    params["dense0"]["bias"] = params["dense0"]["bias"].at[1, 4].set(2.0)
    alive = ranges.measure(mlp.model("relu"), params, train_set, (SITE,), measured_on=side)[SITE].dead
    assert not alive[1, 4], "a constant that is not zero still speaks"


def test_every_layer_is_measured_in_one_pass(train_set):
    params = mlp.init_ensemble(jax.random.key(0), range(2), (64, 9, 5, 10))
    found = ranges.measure(mlp.model("abs", 2), params, train_set, ("dense0/pre", "dense1/pre"))
    assert [found[site].low.shape for site in found] == [(2, 9), (2, 5)]


def test_a_site_without_a_declared_activation_is_refused(trained, train_set):
    model = taps.Model(mlp.model("relu").apply, unit_axis=0, class_axis=0)
    with pytest.raises(
        InputError, match=r"site 'dense0/pre': ranges need the activation that follows; give it as post="
    ):
        ranges.measure(model, trained["relu"], train_set, (SITE,))
