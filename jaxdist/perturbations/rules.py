"""What a unit's range is: its extremes, two of its quantiles, or its mean with standard deviations to either side.

Here is what one block gives and how that of several merges; `ranges` walks over blocks and devices. Values have
examples on their first axis, or on the second where units are on the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Float32, Int32, UInt32

from jaxdist.compute import blocks
from jaxdist.config import RangesConfig
from jaxdist.errors import InputError
from jaxdist.formatting import counted

BITS = 4
"""Bits of a quantile that one pass over the examples finds, by 2**BITS - 1 thresholds."""


class Rule(NamedTuple):
    """What a unit's range is; the fields are those of `RangesConfig`."""

    kind: Literal["minmax", "quantile", "sd"] = "minmax"
    quantile: float = 0.001
    deviations: float = 3.0


def rule_of(options: RangesConfig) -> Rule:
    """The rule that a config names."""
    return Rule(options.rule, options.quantile, options.deviations)


class Extremes(NamedTuple):
    """Smallest and largest value of each unit, [H]."""

    low: Float32[Array, " H"]
    high: Float32[Array, " H"]


class Moments(NamedTuple):
    """`number` of values a unit, their mean [H], and the sum of squared differences from it [H]."""

    number: Int32[Array, ""]
    mean: Float32[Array, " H"]
    squares: Float32[Array, " H"]


def extremes(value: Float[Array, "..."], valid: Bool[Array, " n"], unit_axis: int) -> Extremes:
    """Extremes of one block's values [n, ..., H] or [H, n, ...] over the rows that are `valid` [n]."""
    value, axes, rows = value.astype(jnp.float32), others(value, unit_axis), blocks.rows_of(valid, value, unit_axis)
    return Extremes(value.min(axes, where=rows, initial=jnp.inf), value.max(axes, where=rows, initial=-jnp.inf))


def wider(a: Extremes, b: Extremes) -> Extremes:
    """The extremes of both."""
    return Extremes(jnp.minimum(a.low, b.low), jnp.maximum(a.high, b.high))


def moments(value: Float[Array, "..."], valid: Bool[Array, " n"], unit_axis: int) -> Moments:
    """Moments of one block's values [n, ..., H] or [H, n, ...] over the rows that are `valid` [n]."""
    value, axes = value.astype(jnp.float32), others(value, unit_axis)
    rows = blocks.rows_of(valid, value, unit_axis)
    count = valid.sum(dtype=jnp.int32) * (value.size // value.shape[unit_axis] // len(valid))
    mean = jnp.where(rows, value, 0).sum(axes) / jnp.maximum(count, 1).astype(jnp.float32)
    apart = jnp.where(rows, value - jnp.expand_dims(mean, axes), 0)
    return Moments(count, mean, (apart * apart).sum(axes))


def pooled(a: Moments, b: Moments) -> Moments:
    """The moments of both together, without cancellation (Chan, Golub and LeVeque 1979)."""
    count, apart = a.number + b.number, b.mean - a.mean
    share = b.number.astype(jnp.float32) / jnp.maximum(count, 1).astype(jnp.float32)
    squares = a.squares + b.squares + apart * apart * (a.number.astype(jnp.float32) * share)
    return Moments(count, a.mean + apart * share, squares)


def others(value: Float[Array, "..."], unit_axis: int) -> tuple[int, ...]:
    """Every axis of a value but the unit axis."""
    return tuple(axis for axis in range(value.ndim) if axis != unit_axis % value.ndim)


def ordered(value: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Map float32 values to uint32 keys in the same order: equal counts below, so equal quantiles."""
    bits = lax.bitcast_convert_type(value.astype(jnp.float32), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))


def unordered(keys: UInt32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Undo `ordered`."""
    bits = jnp.where(keys >> 31 == 1, keys ^ np.uint32(1 << 31), ~keys)
    return lax.bitcast_convert_type(bits, jnp.float32)


def ranks(count: int, quantile: float) -> Int32[np.ndarray, 2]:
    """Positions [2], from 1, of the quantiles q and 1 - q among `count` sorted values: NumPy's method inverted_cdf."""
    positions = np.ceil(count * np.array([quantile, 1 - quantile]) - 1)
    return np.maximum(positions, 0).astype(np.int32) + np.int32(1)


def check(rule: Rule, counts: Mapping[str, int]) -> None:
    """Refuse a rule whose numbers are out of bounds, or more values of a unit than are counted, given those by site."""
    if not 0 < rule.quantile < 0.5:
        raise InputError(f"quantile: expected a fraction above 0 and below 0.5, got {rule.quantile}")
    if not (rule.deviations > 0 and math.isfinite(rule.deviations)):
        raise InputError(f"deviations: expected a number above 0, got {rule.deviations}")
    for site, count in counts.items():
        if rule.kind != "minmax" and count >= 2**31:
            raise InputError(
                f"site '{site}': each unit has {counted(count, 'value')}, expected fewer than 2**31 for the "
                f"rule '{rule.kind}'; use 'minmax', or fewer images"
            )


def empty(kind: str, units: int) -> Extremes | Moments:
    """What no block gives."""
    if kind == "sd":
        return Moments(jnp.int32(0), jnp.zeros(units, jnp.float32), jnp.zeros(units, jnp.float32))
    return Extremes(jnp.full(units, jnp.inf, jnp.float32), jnp.full(units, -jnp.inf, jnp.float32))


def at_most(
    value: Float[Array, "..."], thresholds: UInt32[Array, "K 2 H"], valid: Bool[Array, " n"], unit_axis: int
) -> Int32[Array, "K 2 H"]:
    """Count the values whose keys (`ordered`) are at most each threshold, for each unit.

    Args:
      value: of one block, [n, ..., H] or [H, n, ...].
      thresholds: keys [K, 2, H], K for each of two quantiles.
      valid: [n] which examples count.
      unit_axis: of `value`.
    """
    keys, axes, rows = ordered(value), others(value, unit_axis), blocks.rows_of(valid, value, unit_axis)

    def count_at_most(threshold: Array) -> Array:
        return ((keys <= jnp.expand_dims(threshold, axes)) & rows).sum(axes, dtype=jnp.int32)

    return jax.vmap(jax.vmap(count_at_most))(thresholds)
