"""Bounds, relu, leaky relu and argmax in the forms that compile to the fewest vector instructions.

``jnp.minimum`` and ``jnp.maximum`` return NaN whichever side has it, for which XLA's CPU compiler adds a comparison and
a selection to each. Here one comparison decides, a single instruction: a NaN of the value stays, a NaN as bound bounds
nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int32, Num

MOST_UNROLLED = 32
"""Classes up to which `argmax` is written out."""


def single(values: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
    """Values of half precision or less in float32, in which they add up; others as they are."""
    return values.astype(jnp.float32) if values.dtype.itemsize < 4 else values


def at_least(value: Float[Array, "..."], low: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """``maximum(value, low)``, or the value where `low` is NaN; broadcasts."""
    return jnp.where(low > value, low, value)


def at_most(value: Float[Array, "..."], high: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """``minimum(value, high)``, or the value where `high` is NaN; broadcasts."""
    return jnp.where(high < value, high, value)


@jax.custom_jvp
def relu(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``max(value, 0)``, with a derivative of 0 at 0, as PyTorch's and Flax's."""
    return at_least(value, 0.0)


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (value,), (tangent,) = primals, tangents
    return relu(value), jnp.where(value > 0, tangent, 0)


def leaky_relu(value: Float[Array, "*shape"], slope: Float[Array, "..."] | float) -> Float[Array, "*shape"]:
    """The value where it is above 0, else `slope` times it, by one comparison; the derivative at 0 is the slope."""
    return jnp.where(value > 0, value, slope * value)


def argmax(values: Float[Array, "..."], axis: int) -> Int32[Array, "..."]:
    """Index of the largest value along `axis`, int32; of the first among equals. NaN counts as -inf.

    XLA reduces pairs of value and index one lane at a time, so a few values are compared by whole rows instead.
    """
    if values.shape[axis] > MOST_UNROLLED:
        return jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values), axis).astype(jnp.int32)
    rows = jnp.moveaxis(values, axis, 0)
    largest = jnp.where(jnp.isnan(rows[0]), -jnp.inf, rows[0])
    index = jnp.zeros(rows.shape[1:], jnp.int32)
    for k in range(1, len(rows)):
        larger = rows[k] > largest
        largest, index = jnp.where(larger, rows[k], largest), jnp.where(larger, k, index)
    return index
