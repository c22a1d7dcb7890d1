"""The paper's network as a Flax module is the function that the package computes with."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdist
from jaxdist.config import SweepConfig
from jaxdist.networks import flax_mlp, mlp, training
from jaxdist.networks.model import Model
from jaxdist.perturbations import families, ranges
from jaxdist.sweep import ensemble_sweep

FUNCTIONS = {"relu": jax.nn.relu, "abs": jnp.abs}


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("hidden", [(24,), (16, 12)])
def test_its_logits_are_those_of_the_function(activation, hidden):
    params = mlp.init(jax.random.key(1), (64, *hidden, 10), activation=activation)
    module = flax_mlp.Perceptron(hidden, 10, FUNCTIONS[activation])
    x = np.random.default_rng(0).integers(0, 17, (50, 8, 8)).astype(np.float32)
    given = flax_mlp.variables(params)
    chex.assert_trees_all_equal_shapes(given, module.init(jax.random.key(0), x))
    expected = mlp.apply(params, x, activation=activation).T
    np.testing.assert_allclose(module.apply(given, x), expected, rtol=1e-5, atol=1e-4)
    chex.assert_trees_all_equal(flax_mlp.params(given), params)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_it_is_swept_to_the_same_counts_as_the_function(activation, trained, train_set):
    params = trained[activation]
    apply, stacked = jaxdist.from_linen(
        flax_mlp.Perceptron((24,), 10, FUNCTIONS[activation]), flax_mlp.variables(params)
    )
    flax = Model(apply, post=(("dense0", FUNCTIONS[activation]),))
    grids = {name: families.get(name).grid()[::6] for name in families.PAPER}

    def counted(model, weights, site):
        measured = ranges.measure(model, weights, train_set, (site,))[site]
        made = families.joined(measured, grids, SweepConfig())
        return ensemble_sweep.sweep(model, weights, {site: made}, train_set)

    ours, theirs = counted(mlp.model(activation), params, "dense0/pre"), counted(flax, stacked, "dense0")
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1)
    assert len(set(np.ravel(ours.correct).tolist())) > 20


def test_it_learns_what_the_function_learns(train_set):
    start = mlp.init_ensemble(jax.random.key(2), range(2), (64, 24, 10))
    apply, stacked = jaxdist.from_linen(flax_mlp.Perceptron((24,), 10), flax_mlp.variables(start))
    options = {"steps": 20, "optimizer": optax.sgd(0.01)}
    ours = training.train(mlp.model("relu"), start, train_set, train_set, **options)
    theirs = training.train(Model(apply), stacked, train_set, train_set, **options)
    np.testing.assert_allclose(ours.metrics.loss, theirs.metrics.loss, rtol=1e-3)
    chex.assert_trees_all_close(flax_mlp.params(theirs.params), ours.params, rtol=1e-2, atol=1e-3)
