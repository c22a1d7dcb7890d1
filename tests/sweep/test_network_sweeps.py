"""Sweeps of every network that a config may name, against the float64 oracle."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdist.config import SweepConfig
from jaxdist.networks import forms, mlp
from jaxdist.perturbations import families, ranges
from jaxdist.sweep import ensemble_sweep
from tests import oracle
from tests.conftest import to_numpy

FLAT = ("tanh", "sigmoid", "sine")
"""Activations whose values say nothing of how far the preactivations reach."""


def shapes_of(name, sizes):
    """The parameters' shapes, with a leading S of one."""
    shapes = jax.eval_shape(lambda: mlp.init(jax.random.key(0), sizes, activation=name))
    return jax.tree.map(lambda leaf: (1, *leaf.shape), shapes)


def network(name, trained):
    """One network with the trained weights, as far as this form has their place; what else it has is drawn.

    The weights of the Abs network, whose units take both signs: a unit that is never above 0 has an activation of 0 in
    float32, but not in float64, behind GELU. Smaller ones where the activation saturates.
    """
    source, rng = trained["relu" if name.startswith("relu") else "abs"], np.random.default_rng(0)
    draw = {
        "slope": lambda shape: rng.uniform(0.1, 0.4, shape),
        "alpha": lambda shape: rng.uniform(0.5, 1.5, shape),
        "offset": lambda shape: rng.normal(0, 5, shape),
    }
    params = {}
    for layer, shapes in shapes_of(name, (64, 24, 10)).items():
        shrink = 0.3 if name in FLAT and layer == "dense0" else 1
        leaves = {
            leaf: draw[leaf](s) if leaf in draw else shrink * source[layer][leaf][:1] for leaf, s in shapes.items()
        }
        params[layer] = {leaf: np.asarray(value, np.float32) for leaf, value in leaves.items()}
    return params


def assert_agrees(model, name, params, examples, digits, k=0):
    """All families' counts at hidden layer k are the oracle's, two images apart at most; returns those that agree."""
    site, measured_on = f"dense{k}/pre", "pre" if name in FLAT else "post"
    # Measured before the activation, a unit's largest value may be near 0, where the code's slope is ill-conditioned.
    options = SweepConfig(offset_formula="intended" if name in FLAT else "code")
    measured = ranges.measure(model, params, examples, (site,), measured_on=measured_on)[site]
    grids = {family: families.get(family).grid() for family in families.PAPER}
    counts = ensemble_sweep.sweep(model, params, {site: families.joined(measured, grids, options)}, examples)
    one = jax.tree.map(lambda leaf: leaf[0], to_numpy(params))
    x, y = digits.train.images[:301].astype(np.float64), digits.train.labels[:301]
    expected = oracle.sweep(one, name, x, y, k=k, measured_on=measured_on, offset=options.offset_formula)
    for family, here in families.slices(grids).items():
        for found, wanted in zip((counts.correct, counts.agree, counts.kept), expected[family], strict=True):
            np.testing.assert_allclose(found[0, here], wanted, atol=2, err_msg=f"{name} {family}")
    for family in ("clip", "offset"):
        assert len(set(expected[family][1].tolist())) > 10, f"{family} hardly changes anything"
    return {family: counts.agree[0, here] for family, here in families.slices(grids).items()}


@pytest.mark.parametrize("name", forms.names())
def test_a_sweep_of_every_network_counts_what_the_oracle_counts(name, trained, train_set, digits):
    agree = assert_agrees(mlp.model(name), name, network(name, trained), train_set, digits)
    if oracle.FORMS.get(name, ("", "", 1))[1] == "2":
        # Without a last bias, one scale multiplies all logits: the class stays, but for rounding.
        assert agree["scale"].min() >= 300


@pytest.mark.parametrize(("name", "k"), [("abs_l2_neg", 0), ("prelu", 1)])
def test_two_hidden_layers_are_swept_in_every_form(name, k, train_set, digits):
    rng = np.random.default_rng(0)
    shapes = shapes_of(name, (64, 24, 16, 10))
    params = {
        layer: {leaf: rng.uniform(-0.4, 0.6, shape).astype(np.float32) for leaf, shape in leaves.items()}
        for layer, leaves in shapes.items()
    }
    assert_agrees(mlp.model(name, 2), name, params, train_set, digits, k)
