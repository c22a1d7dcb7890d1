"""Shapes that signatures state: they are checked in all tests, so those of this file only see that they are."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from jaxdist.networks import heads
from jaxdist.perturbations import rules

WEIGHTS = jnp.ones((3, 2))


@pytest.mark.parametrize("moved", [jnp.ones(3), jnp.ones((3, 4, 5)), jnp.ones((3, 4), jnp.int32)])
def test_a_shape_or_type_that_a_signature_does_not_state_is_refused(moved):
    assert heads.rise(WEIGHTS, jnp.ones((3, 4)), 0, 0).shape == (2, 4)
    with pytest.raises(TypeCheckError, match="moved"):
        heads.rise(WEIGHTS, moved, 0, 0)


def test_axes_of_one_name_are_of_one_size():
    values, rows = jnp.ones((4, 3)), jnp.ones(4, bool)
    thresholds = jnp.ones((2, 2, 3), jnp.uint32)
    assert rules.at_most(values, thresholds, rows, -1).shape == (2, 2, 3)
    with pytest.raises(TypeCheckError, match="thresholds"):
        rules.at_most(values, thresholds[:, :1], rows, -1)
