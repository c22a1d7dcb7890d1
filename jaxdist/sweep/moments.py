"""Sums over images of what an edit does to the activations behind a site: what doses are made of.

The edited activation a' is compared with a multiple c of the unedited a that is close to the nearest one. The rest
r = a' - c*a is small where the edit is, so that its squares lose no digits; c times a, which rounding would spoil, is
never summed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Float32

from jaxdist.compute import tuning
from jaxdist.types import AnyArray

TINY = 1e-30
"""Stands for the size of activations that are all 0, of which any multiple is as near."""


class DoseMoments(NamedTuple):
    """Sums over images and positions, float32, of an ensemble's units at every point."""

    factor: Float32[AnyArray, "*S P"]  # c, the same for all units
    rest: Float32[AnyArray, "*S P H"]  # of (a' - c*a)^2
    overlap: Float32[AnyArray, "*S P H"]  # of a*(a' - c*a)
    power: Float32[AnyArray, "*S H"]  # of a^2


class Spread(NamedTuple):
    """Sums over examples of what an edit moves of each, ``e = sum_j w_j (a'_j - a_j)^2``, float32, at every point."""

    total: Float32[AnyArray, "*S P"]  # of e
    squares: Float32[AnyArray, "*S P"]  # of e^2


def moved(
    before: Float[Array, "*shape"],
    after: Float[Array, "*shape"],
    weights: Float32[Array, " H"],
    rows: Bool[Array, " n"],
    unit_axis: int,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """`Spread` of one point on a block.

    Args:
      before: the unedited activations [n, ..., H] or [H, n, ...].
      after: the edited ones, of that shape.
      weights: of the units.
      rows: which examples count.
      unit_axis: of the activations.
    """
    change = jnp.moveaxis(after - before, unit_axis, 0)
    squares = jnp.tensordot(weights, change * change, axes=1).reshape(len(rows), -1).sum(1)
    each = jnp.where(rows, squares, 0)
    return each.sum(), (each * each).sum()


def none(points: int, units: int) -> DoseMoments:
    """Of one network, before any image."""
    zeros = jnp.zeros((points, units), jnp.float32)
    return DoseMoments(jnp.zeros(points, jnp.float32), zeros, zeros, jnp.zeros(units, jnp.float32))


def of_point(
    before: Float[Array, "*shape"],
    after: Float[Array, "*shape"],
    factor: Float32[Array, ""],
    rows: Float32[Array, "..."],
    unit_axis: int,
) -> tuple[Float32[Array, " H"], Float32[Array, " H"]]:
    """`rest` and `overlap` [H] of one point on a block.

    Args:
      before: the unedited activations [n, ..., H] or [H, n, ...].
      after: the edited ones, of that shape.
      factor: [] by which `before` is multiplied.
      rows: broadcasts to that shape; 0 for examples that do not count, else 1.
      unit_axis: of the activations.
    """
    axis = 1 if unit_axis % before.ndim == 0 else 0
    size = before.shape[axis]
    lanes = tuning.current().lanes or size
    step = lanes if size % lanes == 0 else size

    # In a loop, since XLA would else make the edited activations anew for every part.
    def add(so_far: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
        a, edited, counts = (lax.dynamic_slice_in_dim(array, start, step, axis=axis) for array in (before, after, rows))
        rest = (edited - factor * a) * counts
        return (so_far[0] + rest * rest, so_far[1] + a * rest), None

    first = lax.slice_in_dim(after, 0, step, axis=axis)
    zeros = jnp.where(first == first, jnp.float32(0), 0)  # of a kind with what is added, also within ``shard_map``
    (rest, overlap), _ = lax.scan(add, (zeros, zeros), jnp.arange(0, size, step))
    return _sum(rest, unit_axis), _sum(overlap, unit_axis)


def of_block(before: Float[Array, "..."], rows: Float32[Array, "..."], unit_axis: int) -> Float32[Array, " H"]:
    """`power` [H] of a block."""
    return _sum(before * before * rows, unit_axis)


def _sum(values: Array, unit_axis: int) -> Array:
    """Sum over everything but the units, as a product, which is faster on a CPU than a sum."""
    units_first = jnp.moveaxis(values, unit_axis, 0)
    flat = units_first.reshape(len(units_first), -1)
    return flat @ jnp.ones(flat.shape[1], flat.dtype)


def merged(first: DoseMoments, second: DoseMoments) -> DoseMoments:
    """The moments of both, whose factors are each their own; of one network."""
    factor = (first.factor + second.factor) / 2

    def about(moments: DoseMoments) -> DoseMoments:
        apart, power = (moments.factor - factor)[:, None], moments.power[None]
        # Small, so that this loses no digits either.
        rest = moments.rest + 2 * apart * moments.overlap + apart * apart * power
        return DoseMoments(factor, rest, moments.overlap + apart * power, moments.power)

    return DoseMoments(factor, *map(jnp.add, about(first)[1:], about(second)[1:]))


def added(so_far: DoseMoments, found: DoseMoments, counted: Bool[Array, ""]) -> DoseMoments:
    """Add a block's moments of one network; a rehearsal's only choose the factors, the nearest to its edits."""
    nearest = found.overlap.sum(-1) / jnp.maximum(found.power.sum(), TINY)
    factor = jnp.where(counted, so_far.factor, so_far.factor + nearest)
    rest, overlap, power = (jnp.where(counted, a + b, a) for a, b in zip(so_far[1:], found[1:], strict=True))
    return DoseMoments(factor, rest, overlap, power)
