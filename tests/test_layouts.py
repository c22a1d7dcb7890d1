"""Narrow products filled up: the same values, whatever surrounds them, and only where a CPU gains by it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import layouts

# It is about rounding.
pytestmark = pytest.mark.usefixtures("optimised")

ROWS = 48


def widths(fn, like):
    """The columns of every product in a traced function."""
    eqns = jax.make_jaxpr(fn)(like).jaxpr.eqns
    return [eqn.outvars[0].aval.shape[-1] for eqn in eqns if eqn.primitive.name == "dot_general"]


@pytest.fixture
def values():
    rng = np.random.default_rng(3)
    return {
        name: jnp.asarray(rng.normal(size=size), jnp.float32)
        for name, size in (("x", (ROWS, 6)), ("hidden", (6, 10)), ("wide", (10, 16)), ("head", (16, 12)), ("by", (10,)))
    }


def network(values, scale):
    """A path through two narrow products and a wide one, one around them, an inner jit and a loop."""
    skip = jax.nn.relu(values["x"] @ values["hidden"])
    h = jax.nn.relu(scale[None] * skip + values["by"][None])
    h = jax.lax.fori_loop(0, 2, lambda _, v: v * 0.5, h)
    return jnp.sin(h @ values["wide"]) @ values["head"] + (h + skip) @ values["wide"] @ values["head"]


def test_the_same_values_from_wider_products(values):
    scale = jnp.linspace(0.5, 2, 10)
    filled = layouts.filled(lambda scale: network(values, scale), scale)
    np.testing.assert_allclose(filled(scale), network(values, scale), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(filled(scale + 1), network(values, scale + 1), rtol=1e-5, atol=1e-5)
    assert sorted(widths(lambda scale: network(values, scale), scale)) == [10, 12, 12, 16, 16]
    assert sorted(widths(filled, scale)) == [16, 16, 16, 16]  # the first does not depend on the argument


def test_under_vmap_jit_and_map_as_well(values):
    scales = jnp.linspace(0.5, 2, 30).reshape(3, 10)

    def all_of(scales):
        filled = layouts.filled(lambda scale: network(values, scale), scales[0])
        return jax.lax.map(filled, scales)

    expected = jnp.stack([network(values, scale) for scale in scales])
    np.testing.assert_allclose(jax.jit(all_of)(scales), expected, rtol=1e-5, atol=1e-5)


def test_matrices_that_depend_on_the_argument_and_few_rows_are_left_alone(values):
    def depends(scale):
        return values["x"] @ (values["hidden"] * scale[None])

    scale = jnp.ones(10)
    assert widths(layouts.filled(depends, scale), scale) == [10]
    np.testing.assert_array_equal(layouts.filled(depends, scale)(scale), depends(scale))

    def few(scale):
        return (scale[None] * jnp.ones((3, 10))) @ jnp.ones((10, 10))

    assert layouts.filled(few, scale) is few


def test_elsewhere_than_on_a_cpu_nothing_changes(values, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")

    def fn(scale):
        return network(values, scale)

    assert layouts.filled(fn, jnp.ones(10)) is fn
