"""The same perceptron as a plain function, in Flax Linen and NNX, in Equinox and in this package: the same counts."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdist.config import SweepConfig
from jaxdist.networks import mlp, modules
from jaxdist.networks.model import Model
from jaxdist.perturbations import families, ranges
from jaxdist.sweep import ensemble_sweep
from tests.conftest import traced_at_most

FAMILIES = tuple(families.PAPER)


def counts_at(model, params, examples, site, grids):
    """Ranges and counts at the grids' points."""
    measured = ranges.measure(model, params, examples, (site,))[site]
    made = families.joined(measured, grids, SweepConfig())
    return measured, ensemble_sweep.sweep(model, params, {site: made}, examples)


class LinenMLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(24)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


class NNXMLP(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 24, rngs=rngs)
        self.head = nnx.Linear(24, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def plain(params, x, tap):
    hidden, head = params
    h = tap("hidden", x.reshape(len(x), -1) @ hidden["kernel"] + hidden["bias"][None])
    return jnp.maximum(h, 0) @ head["kernel"] + head["bias"][None]


def as_flax(params):
    """Both layers of this package's stacked perceptron in Flax's layout."""
    return [
        {"kernel": jnp.swapaxes(layer["weight"], -1, -2), "bias": layer["bias"]}
        for layer in (params["dense0"], params["dense1"])
    ]


def in_linen(params):
    hidden, head = as_flax(params)
    return *modules.from_linen(LinenMLP(), {"params": {"Dense_0": hidden, "Dense_1": head}}), "Dense_0"


def in_nnx(params):
    hidden, head = as_flax(params)
    apply, _ = modules.from_nnx(NNXMLP(nnx.Rngs(0)))
    return apply, {"hidden": hidden, "head": head}, "hidden"


def in_equinox(params):
    eqx = pytest.importorskip("equinox")

    class EquinoxMLP(eqx.Module):
        hidden: eqx.nn.Linear
        head: eqx.nn.Linear

        def __call__(self, x, tap):
            h = tap("hidden", jax.vmap(self.hidden)(x.reshape(len(x), -1)))
            return jax.vmap(self.head)(jax.nn.relu(h))

    layers = [eqx.nn.Linear(*sizes, key=jax.random.key(0)) for sizes in ((64, 24), (24, 10))]
    arrays, static = eqx.partition(EquinoxMLP(*layers), eqx.is_array)
    names = ("dense0", "dense1")
    arrays = eqx.tree_at(
        lambda net: [net.hidden.weight, net.hidden.bias, net.head.weight, net.head.bias],
        arrays,
        [params[name][leaf] for name in names for leaf in ("weight", "bias")],
    )
    return (lambda arrays, x, tap: eqx.combine(arrays, static)(x, tap)), arrays, "hidden"


FORMS = {"plain": lambda params: (plain, as_flax(params), "hidden"), "linen": in_linen, "nnx": in_nnx}
FORMS["equinox"] = in_equinox


@pytest.fixture(scope="module")
def ours(trained, train_set):
    """Ranges and counts of this package's own perceptron at all 325 points."""
    grids = {name: families.get(name).grid() for name in FAMILIES}
    return counts_at(mlp.model("relu"), trained["relu"], train_set, "dense0/pre", grids)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_same_perceptron_in_any_form_has_the_same_counts_at_all_points(form, ours, trained, train_set):
    apply, params, site = FORMS[form](trained["relu"])
    grids = {name: families.get(name).grid() for name in FAMILIES}
    measured, counts = counts_at(Model(apply, post=((site, jax.nn.relu),)), params, train_set, site, grids)
    chex.assert_trees_all_close(measured, ours[0], rtol=1e-5, atol=1e-4)
    for found, expected in zip(counts, ours[1], strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2)
    assert len(np.unique(counts.correct)) > 50


@pytest.mark.parametrize("form", ["linen", "nnx"])
def test_a_second_use_with_an_equal_module_compiles_nothing(form, trained, train_set):
    relu = traced_at_most(jax.nn.relu, 8)  # five times by the first, three times by the second to see what it is

    def run():
        apply, params, site = FORMS[form](trained["relu"])
        model = Model(apply, post=((site, relu),))
        return apply, counts_at(model, params, train_set, site, {"scale": [0.5], "clip": [0.5]})[1]

    first, counts = run()
    second, again = run()
    assert first == second
    assert first is not second
    assert hash(first) == hash(second)
    chex.assert_trees_all_equal(counts, again)
