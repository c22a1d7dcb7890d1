"""Sums over images of what an edit does to the activations behind a site: what doses are made of.

The edited activation a' is compared with a multiple c of the unedited a that is close to the nearest one. The rest
r = a' - c*a is small where the edit is, so that its squares lose no digits; c times a, which rounding would spoil, is
never summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdist.devices import DATA
from jaxdist.types import AnyArray

TINY = 1e-30
"""Stands for the size of activations that are all 0, of which any multiple is as near."""


class Moments(NamedTuple):
    """Sums over images and positions, float32, of an ensemble's units at every point."""

    factor: AnyArray  # [S, P] c, the same for all units
    rest: AnyArray  # [S, P, H] of (a' - c*a)^2
    overlap: AnyArray  # [S, P, H] of a*(a' - c*a)
    power: AnyArray  # [S, H] of a^2


def none(points: int, units: int) -> Moments:
    """Of one network, before any image."""
    zeros = jnp.zeros((points, units))
    return Moments(zeros[:, 0], zeros, zeros, zeros[0])


def of_point(before: Array, after: Array, factor: Array, rows: Array, unit_axis: int) -> tuple[Array, Array]:
    """`rest` and `overlap` [H] of one point on a block; `rows` broadcasts, 0 for examples that do not count."""
    rest = (after.astype(jnp.float32) - factor * before) * rows
    return _sum(rest * rest, unit_axis), _sum(before * rest, unit_axis)


def of_block(before: Array, rows: Array, unit_axis: int) -> Array:
    """`power` [H] of a block."""
    return _sum(before * before * rows, unit_axis)


def _sum(values: Array, unit_axis: int) -> Array:
    return values.sum([axis for axis in range(values.ndim) if axis != unit_axis % values.ndim])


def of_all_devices(found: Moments) -> Moments:
    """Add up what the devices of a row have found, each with factors of its own; of one network."""
    factor = lax.pmean(found.factor, DATA)
    apart = (found.factor - factor)[:, None]  # small, so that this loses no digits either
    power = found.power[None]
    rest = found.rest + 2 * apart * found.overlap + apart * apart * power
    overlap = found.overlap + apart * power
    return Moments(factor, lax.psum(rest, DATA), lax.psum(overlap, DATA), lax.psum(found.power, DATA))


def added(so_far: Moments, found: Moments, counted: Array) -> Moments:
    """Add a block's moments of one network; a rehearsal's only choose the factors, the nearest to its edits."""
    nearest = found.overlap.sum(-1) / jnp.maximum(found.power.sum(), TINY)
    factor = jnp.where(counted, so_far.factor, so_far.factor + nearest)
    rest, overlap, power = (jnp.where(counted, a + b, a) for a, b in zip(so_far[1:], found[1:], strict=True))
    return Moments(factor, rest, overlap, power)


def of_scales(scales: AnyArray, power: AnyArray) -> Moments:
    """What factors [Q] common to all units do to the activations: exactly themselves; `power` is [S, H]."""
    seeds, units = np.shape(power)
    zeros = np.zeros((seeds, len(scales), units), np.float32)
    return Moments(np.broadcast_to(np.asarray(scales, np.float32), zeros.shape[:2]), zeros, zeros, power)


def joined(parts: Sequence[Moments]) -> Moments:
    """The moments of points that were swept apart, one after the other; `power` is the same of all."""
    factor, rest, overlap = (np.concatenate(leaves, axis=1) for leaves in list(zip(*parts, strict=True))[:3])
    return Moments(factor, rest, overlap, parts[0].power)
