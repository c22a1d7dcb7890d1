"""Families that erase small values, or large ones; docs/method.md says what they are compared for."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxdist.perturbations import edits
from jaxdist.perturbations.edits import Affine, Fill
from jaxdist.perturbations.family import Circumstances, Family
from jaxdist.perturbations.grids import intensity_grid, upward
from jaxdist.perturbations.paper_families import within
from jaxdist.registry import FAMILIES
from jaxdist.types import Ranges

# Not up to 1: there the largest value is erased or not by how it was rounded.
_grid = upward(0.005, 0.98, 24)


def floor(ranges: Ranges, fraction: Float[Array, ""]) -> Fill:
    """No activation below a fraction p of the unit's range: smaller ones are raised to it."""
    threshold = _threshold(ranges, fraction)
    return Fill(threshold, threshold)


def dead_zone(ranges: Ranges, fraction: Float[Array, ""]) -> Fill:
    """Activations up to a fraction p of the unit's range become 0."""
    threshold = _threshold(ranges, fraction)
    return Fill(threshold, jnp.zeros_like(threshold))


def _threshold(ranges: Ranges, fraction: Float[Array, ""]) -> Float[Array, " H"]:
    """What small values are at most; none are at a fraction of 0."""
    return jnp.where(fraction <= 0, -jnp.inf, within(ranges, fraction))


def clip_both(ranges: Ranges, fraction: Float[Array, ""]) -> Affine:
    """Clip on both sides: no magnitude above a fraction p of the unit's largest passes, whatever the unit's sign."""
    largest = jnp.maximum(jnp.abs(ranges.low), jnp.abs(ranges.high))
    bound = jnp.where(jnp.isinf(fraction), fraction, fraction * largest)
    return edits.unedited(ranges.low.size)._replace(low=-bound, high=bound)


def _clip_both_edits_nothing(where: Circumstances) -> float:
    """The end of the grid where some training values lie beyond the range, or may have an effect on its other side."""
    if where.rule != "minmax" or not where.reached or not where.one_sided:
        return float(intensity_grid()[-1])
    return 1.0


FLOOR = Family(
    name="floor",
    text=FAMILIES["floor"],
    edit=floor,
    grid=_grid,
    above="raised to",
    kind="fill",
    label="floor: small values raised",
    effect="small",
)

DEAD_ZONE = Family(
    name="dead_zone",
    text=FAMILIES["dead_zone"],
    edit=dead_zone,
    grid=_grid,
    above="dead zone up to",
    kind="fill",
    label="dead zone: small values zeroed",
    effect="small",
    dash="dashed",
)

CLIP_BOTH = Family(
    name="clip_both",
    text=FAMILIES["clip_both"],
    edit=clip_both,
    grid=intensity_grid,
    below="clipped both at",
    identity=1.0,
    few=(0.01, 0.1, 0.25),
    unedited_at=_clip_both_edits_nothing,
    label="clip both: large values cut",
    effect="large",
)
