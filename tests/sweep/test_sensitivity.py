"""Derivatives of the margin: in closed form, by finite differences, whatever the blocks, and with positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.networks.model import Model
from jaxdist.sweep import sensitivity
from tests import oracle
from tests.conftest import place, to_numpy

SITE = "dense0/pre"


def margins(logits, y):
    """[N] in float64."""
    own = logits[np.arange(len(y)), y]
    others = logits.copy()
    others[np.arange(len(y)), y] = -np.inf
    return own - others.max(axis=1), others.argmax(axis=1)


@pytest.mark.parametrize("block", [None, 100])
@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_derivatives_equal_their_closed_form(activation, block, trained, train_set):
    """The margin's slope by h_j is act'(h_j) times the difference of two outgoing weights."""
    params = trained[activation]
    found = sensitivity.measure(mlp.model(activation), params, train_set, SITE, block=block)
    x, y = np.asarray(train_set.x, np.float64)[:301], np.asarray(train_set.y)[:301]
    for seed in range(3):
        one = jax.tree.map(lambda leaf, k=seed: leaf[k], to_numpy(params))
        h, weights = oracle.hidden(one, x), one["dense1"]["weight"]
        margin, rival = margins(oracle.ACTIVATIONS[activation](h) @ weights.T + one["dense1"]["bias"], y)
        slope = (h > 0) if activation == "relu" else np.sign(h)
        by_h = slope * (weights[y] - weights[rival])
        scale = np.abs(by_h).max()
        np.testing.assert_allclose(found.margin[seed], margin.mean(), rtol=1e-4)
        np.testing.assert_allclose(found.offset[seed], by_h.mean(axis=0), rtol=1e-3, atol=1e-4 * scale)
        by_scale = by_h * h
        np.testing.assert_allclose(
            found.log_scale[seed], by_scale.mean(axis=0), rtol=1e-3, atol=1e-4 * np.abs(by_scale).max()
        )


def smooth(params, x, tap):
    """Flax's layout, a site [n, positions, H], nothing linear behind it."""
    h = tap("h", x[..., None] * params["in"][None, None, None] / 16)
    return jnp.tanh(h.mean(axis=1).reshape(len(x), -1)) @ params["out"]


def test_a_site_with_positions_sums_over_them(digits):
    """Central differences in float64 of one offset and one log-scale a unit, for all positions together."""
    rng = np.random.default_rng(2)
    params = {"in": rng.normal(size=(2, 3)).astype(np.float32), "out": rng.normal(size=(2, 24, 10)).astype(np.float32)}
    examples = place(digits, 90)
    found = sensitivity.measure(Model(smooth), params, examples, "h")
    alone = sensitivity.measure(Model(smooth), params, place(digits, 90, devices_used=1), "h", block=64)
    x, y = np.asarray(examples.x, np.float64)[:90], np.asarray(examples.y)[:90]
    for seed in range(2):
        inner, outer = params["in"][seed].astype(np.float64), params["out"][seed].astype(np.float64)

        def mean_margin(offset, log_scale, inner=inner, outer=outer):
            h = np.exp(log_scale) * (x[..., None] * inner / 16) + offset
            return margins(np.tanh(h.mean(axis=1).reshape(90, -1)) @ outer, y)[0].mean()

        np.testing.assert_allclose(found.margin[seed], mean_margin(0, 0), rtol=1e-4)
        for j in range(3):
            step = 1e-5 * np.eye(3)[j]
            slope = (mean_margin(step, 0) - mean_margin(-step, 0)) / 2e-5
            np.testing.assert_allclose(found.offset[seed, j], slope, rtol=1e-3, atol=1e-4)
            slope = (mean_margin(0, step) - mean_margin(0, -step)) / 2e-5
            np.testing.assert_allclose(found.log_scale[seed, j], slope, rtol=1e-3, atol=1e-4)
    for a, b in zip(found, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_dead_unit_has_no_effect(trained, train_set):
    params = jax.tree.map(jnp.array, trained["relu"])
    params["dense0"] = jax.tree.map(lambda leaf: leaf.at[:, 3].set(-1.0), params["dense0"])
    found = sensitivity.measure(mlp.model("relu"), params, train_set, SITE)
    assert (found.offset[:, 3] == 0).all()
    assert (found.log_scale[:, 3] == 0).all()
    assert (np.abs(found.offset).max(axis=1) > 0).all()


def test_a_site_that_is_not_there_is_refused(trained, train_set):
    with pytest.raises(InputError, match=r"'dense9/pre': the network has no such site; .* its sites are dense0/pre"):
        sensitivity.measure(mlp.model("relu"), trained["relu"], train_set, "dense9/pre")
