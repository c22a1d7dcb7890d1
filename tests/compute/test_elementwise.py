"""Bounds, relu, leaky relu and argmax against JAX's own, where they must agree and where they promise more."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.compute import elementwise

# It is about rounding.
pytestmark = pytest.mark.usefixtures("optimised")

VALUES = jnp.array([-jnp.inf, -2.0, -0.0, 0.0, 1e-30, 0.5, 3.0, jnp.inf])


def test_bounds_equal_minimum_and_maximum():
    for bound in (-1.0, 0.0, 0.5, jnp.inf, -jnp.inf):
        np.testing.assert_array_equal(elementwise.at_least(VALUES, bound), jnp.maximum(VALUES, bound))
        np.testing.assert_array_equal(elementwise.at_most(VALUES, bound), jnp.minimum(VALUES, bound))


@pytest.mark.parametrize("compile", [False, True])
def test_a_value_that_is_nan_stays_nan(compile):
    def all_of_them(v):
        bounded = elementwise.at_least(v, 0.0), elementwise.at_most(v, 0.0)
        return *bounded, elementwise.relu(v), elementwise.leaky_relu(v, 0.1)

    assert jnp.isnan(jnp.stack((jax.jit(all_of_them) if compile else all_of_them)(jnp.full(100, jnp.nan)))).all()


def test_relu_and_its_derivative_are_those_of_jax_with_0_at_0():
    np.testing.assert_array_equal(elementwise.relu(VALUES), jax.nn.relu(VALUES))
    found, expected = (jax.vmap(jax.grad(fn))(VALUES) for fn in (elementwise.relu, jax.nn.relu))
    np.testing.assert_array_equal(found, expected)
    assert found[2] == found[3] == 0


def test_leaky_relu_is_jaxs_with_the_slope_as_derivative_at_0():
    np.testing.assert_array_equal(elementwise.leaky_relu(VALUES, 0.01), jax.nn.leaky_relu(VALUES))
    found = jax.vmap(jax.grad(lambda value: elementwise.leaky_relu(value, 0.25)))(VALUES)
    np.testing.assert_array_equal(found, np.where(VALUES > 0, 1, np.float32(0.25)))


@pytest.mark.parametrize("classes", [1, 2, 10, elementwise.MOST_UNROLLED, elementwise.MOST_UNROLLED + 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_argmax_is_the_first_of_the_largest(classes, axis):
    # Integers of a small range, so that there are many ties.
    values = np.random.default_rng(classes).integers(0, 4, (classes, 300)).astype(np.float32)
    found = elementwise.argmax(jnp.asarray(values if axis == 0 else values.T), axis)
    np.testing.assert_array_equal(found, values.argmax(axis=0))
    assert found.dtype == jnp.int32


@pytest.mark.parametrize("classes", [3, elementwise.MOST_UNROLLED + 1])
def test_argmax_takes_a_value_before_nan_and_class_0_where_all_are_nan(classes):
    logits = np.full((classes, 4), np.nan, np.float32)
    logits[2, 0] = logits[1, 1] = logits[0, 2] = -5.0
    np.testing.assert_array_equal(elementwise.argmax(jnp.asarray(logits), 0), [2, 1, 0, 0])
