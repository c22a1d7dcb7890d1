"""Modules in place of (apply, params): what functions of a network give is what they give of the two."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxdist
from jaxdist.errors import InputError

X = np.asarray(jax.random.normal(jax.random.key(1), (32, 6)))
Y = np.arange(32) % 3


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.drop = nnx.Linear(6, 8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(jax.nn.relu(self.first(x))))


def an_equinox_module():
    equinox = pytest.importorskip("equinox")
    return equinox.nn.MLP(6, 3, 8, 1, key=jax.random.key(0)), jaxdist.from_equinox


MADE = {"nnx": lambda: (Network(nnx.Rngs(0)), jaxdist.from_nnx), "equinox": an_equinox_module}


@pytest.fixture(params=MADE)
def both(request):
    """A module and the function and parameters of it."""
    module, make = MADE[request.param]()
    return module, make(module)


def test_sites_values_and_edits_are_those_of_the_two(both):
    module, pair = both
    listed = jaxdist.sites(module, X)
    assert listed == jaxdist.sites(*pair, X)
    assert len(listed) > 1
    name = listed[0].name
    for given, expected in (
        (jaxdist.read(module, X, [name]), jaxdist.read(*pair, X, [name])),
        (jaxdist.edit(module, X, {name: jnp.negative}), jaxdist.edit(*pair, X, {name: jnp.negative})),
        (jaxdist.edit(module, x=X, edits={name: jnp.negative}), jaxdist.edit(*pair, X, {name: jnp.negative})),
    ):
        jax.tree.map(np.testing.assert_array_equal, given, expected)
    assert not np.array_equal(jaxdist.edit(module, X, {name: jnp.negative}), module_output(module))


def module_output(module):
    return jaxdist.edit(module, X, {})


def test_a_probe_of_a_module_counts_what_that_of_the_two_counts(both):
    module, pair = both
    site = jaxdist.sites(module, X)[0].name
    options = {"train": (X, Y), "sites": [site], "families": ("scale",)}
    given, expected = jaxdist.probe(module, **options), jaxdist.probe(*pair, **options)
    np.testing.assert_array_equal(given["scale"].correct, expected["scale"].correct)


def test_derivatives_go_through_a_module():
    module = Network(nnx.Rngs(0))

    def total(module):
        return jaxdist.edit(module, X, {"first": lambda value: 2 * value}).sum()

    slope = nnx.grad(total)(module)
    # The last bias is added once for each example, whatever the edit.
    np.testing.assert_allclose(slope["last"]["bias"][...], len(X), rtol=1e-6)


def test_what_is_wrong_is_said_in_a_sentence():
    module = Network(nnx.Rngs(0))
    with pytest.raises(InputError, match=re.escape("sites: Network already holds its parameters; leave params out")):
        jaxdist.sites(module, nnx.state(module), X)
    with pytest.raises(InputError, match="read: a Linen module does not hold its parameters"):
        jaxdist.read(linen.Dense(3), X, ["a"])
    with pytest.raises(TypeError, match="keys"):
        jaxdist.read(module, X)


def test_a_function_that_equinox_has_wrapped_is_a_function():
    equinox = pytest.importorskip("equinox")

    def network(params, x):
        return jaxdist.site("hidden", x @ params)

    wrapped = equinox.filter_jit(network)
    params = jnp.ones((6, 3))
    assert [each.name for each in jaxdist.sites(wrapped, params, X)] == ["hidden"]
