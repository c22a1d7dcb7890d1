"""The three families of the paper.

Source: Oursland 2024 (arXiv:2411.17932), section 4, and the code published with it; where the two disagree,
`SweepConfig` names both readings.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxdist.perturbations import edits
from jaxdist.perturbations.edits import Affine
from jaxdist.perturbations.family import Circumstances, Family, Option
from jaxdist.perturbations.grids import intensity_grid, offset_grid
from jaxdist.registry import FAMILIES
from jaxdist.types import AnyArray, Ranges

OFFSET_FORMULA = Option("offset_formula", needs_positive="code", otherwise="intended", everywhere="literal")
CLIP_FORMULA = Option("clip_formula", needs_positive="caption", otherwise="code")

MOVES = (-1.0, -0.25, 0.25, 1.0)
"""Few fractions of what moves to both sides."""
NEAR = (-0.5, -0.1, 0.1, 0.5)
"""Fractions of the same at which gauges are compared."""


def scaled(ranges: Ranges, fraction: Float[Array, ""]) -> Affine:
    """Intensity scale: every preactivation times p."""
    return edits.unedited(ranges.low.size)._replace(scale=jnp.full_like(ranges.low, fraction))


def clipped(ranges: Ranges, fraction: Float[Array, ""], reading: str) -> Affine:
    """Intensity clip: nothing above a fraction p of the unit's range passes.

    The code's ``low + p*r`` is written from the upper end, so that p = 1 clips at exactly the largest value.
    """
    low, high, _ = ranges
    ceiling = {
        "code": within(ranges, fraction),
        "text": fraction * (high - low),
        "caption": fraction * high,
    }[reading]
    # An infinite fraction is no clip, also where the range is 0.
    return edits.unedited(low.size)._replace(high=jnp.where(jnp.isinf(fraction), fraction, ceiling))


def within(ranges: Ranges, fraction: Float[Array, ""]) -> Float[AnyArray, " H"]:
    """low + p*r, exactly `high` at p = 1."""
    return ranges.high - (1 - fraction) * (ranges.high - ranges.low)


def offset(ranges: Ranges, fraction: Float[Array, "*H"], reading: str) -> Affine:
    """Distance offset: the preactivation moves by p*r, so that the decision boundary moves by -p*r over the slope.

    The code's slope (high - p*r)/high keeps h = high where it is; it is 0/0 for a unit whose largest value is 0.
    """
    low, high, _ = ranges
    moved = fraction * (high - low)
    slope = {
        "code": jnp.asarray((high - moved) / high),
        "intended": jnp.full_like(high, 1 - fraction),
        "literal": (1 - fraction) * (high - low),
    }[reading]
    return edits.unedited(low.size)._replace(scale=slope, offset=moved)


def _clip_edits_nothing(where: Circumstances) -> float:
    """The text's clip p*r reaches the largest value only at p = high/(high - low): the end of the grid stands for that,
    since a unit beyond it varies by less than a tenth. So it does where some training values lie above `high`."""
    if where.reading == "text" or where.rule != "minmax" or not where.reached:
        return float(intensity_grid()[-1])
    return 1.0


SCALE = Family(
    name="scale",
    text=FAMILIES["scale"],
    edit=scaled,
    grid=intensity_grid,
    below="scaled down to",
    above="scaled up to",
    identity=1.0,
    spacing="log",
    few=(0.01, 0.25, 4.0),
    unit="value",
    label="common scale",
    axis="Scale (% of original)",
    effect="scale",
)

CLIP = Family(
    name="clip",
    text=FAMILIES["clip"],
    edit=clipped,
    grid=intensity_grid,
    below="clipped at",
    identity=1.0,
    few=(0.01, 0.1, 0.25),
    signed=True,
    option=CLIP_FORMULA,
    unedited_at=_clip_edits_nothing,
    label="clip: large preactivations cut",
    effect="large",
    dash="dashed",
    compared_at=(0.75, 0.5, 0.25, 0.1),
)

OFFSET = Family(
    name="offset",
    text=FAMILIES["offset"],
    edit=offset,
    grid=offset_grid,
    below="offset down to",
    above="offset up to",
    few=MOVES,
    signed=True,
    option=OFFSET_FORMULA,
    axis="Distance offset (% of activation range)",
    effect="moved",
    compared_at=NEAR,
)
