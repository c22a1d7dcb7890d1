"""Weighted means and standard deviations over examples, made block by block and merged without losing digits.

A mean is kept in two words of float32, whose sum it is, so that thousands of blocks round it no more than one does;
deviations are squared about each block's own mean (Chan, Golub and LeVeque 1979, Updating formulae and a pairwise
algorithm for computing sample variances).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist.types import AnyArray


class Averages(NamedTuple):
    """Of some examples, all of one shape, float32."""

    weight: AnyArray
    """The sum of the weights."""
    mean: AnyArray
    rest: AnyArray
    """To be added to the mean."""
    squares: AnyArray
    """The weighted sum of squared deviations from the mean."""

    @property
    def value(self) -> AnyArray:
        """The mean, float32: both words, of which one alone is a plain sum's."""
        return self.mean + self.rest

    @property
    def sd(self) -> AnyArray:
        """The standard deviation over the examples (their own, not one of a population's that they stand for)."""
        return jnp.sqrt(self.squares / self.weight)


def none(shape: tuple[int, ...]) -> Averages:
    """Of no example."""
    return Averages(*[jnp.zeros(shape, jnp.float32)] * 4)


def of_values(values: Array, weights: Array) -> Averages:
    """Of examples along the last axis, of which those with a weight of 0 may hold anything."""
    values = jnp.where(weights != 0, values, 0)
    weight = pairwise_sum(weights)
    divisor = jnp.where(weight > 0, weight, 1)
    mean = pairwise_sum(weights * values) / divisor
    apart = values - mean[..., None]
    # Once more about the rounded mean, which makes it exact to a last place however large the values are.
    rest = jnp.where(jnp.isfinite(mean), pairwise_sum(weights * apart) / divisor, 0)
    apart = apart - rest[..., None]
    return Averages(weight, mean, rest, pairwise_sum(weights * apart * apart))


def merged(first: Averages, second: Averages) -> Averages:
    """Of both."""
    weight = first.weight + second.weight
    share = second.weight / jnp.where(weight > 0, weight, 1)
    apart, rest_apart = second.mean - first.mean, second.rest - first.rest
    step = apart * share
    mean = first.mean + step
    # What the sum rounded away.
    back = mean - first.mean
    lost = (first.mean - (mean - back)) + (step - back)
    squares = first.squares + second.squares + jnp.square(apart + rest_apart) * share * first.weight
    finite = jnp.isfinite(apart)
    # What is not finite is so in whatever order parts are merged.
    mean = jnp.where(finite, mean, first.mean + second.mean)
    return Averages(weight, mean, jnp.where(finite, first.rest + rest_apart * share + lost, 0), squares)


def error(of: Averages, squared: Averages, examples: AnyArray) -> np.ndarray:
    """The standard error of a weighted mean over independent examples, by linearisation; on the host, in float64.

    Where all weights are 1 it is sd / sqrt(n - 1); where they are numbers of tokens it takes the tokens of an example
    to depend on each other as they may (Cochran 1977, Sampling Techniques, section 6.3). NaN of fewer than two.

    Args:
      squared: of the same examples by the squares of their weights.
      examples: how many have a weight; it broadcasts.
    """
    apart = _exact(squared.mean) + _exact(squared.rest) - _exact(of.mean) - _exact(of.rest)
    total = _exact(squared.squares) + _exact(squared.weight) * apart**2
    count = _exact(examples)
    share = np.divide(count, count - 1, out=np.full(count.shape, np.nan), where=count > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt(total * share) / _exact(of.weight))


def _exact(values: AnyArray) -> np.ndarray:
    return np.asarray(values, np.float64)


def pairwise_sum(values: Array) -> Array:
    """The sum along the last axis, of pairs, then of pairs of these, and so on: rounding grows by its logarithm."""
    while (count := values.shape[-1]) > 1:
        half = count // 2
        paired = values[..., :half] + values[..., half : 2 * half]
        values = jnp.concatenate([paired, values[..., 2 * half :]], -1) if count % 2 else paired
    return values[..., 0]
