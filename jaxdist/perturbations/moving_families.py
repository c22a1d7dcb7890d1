"""Families that move a unit's values, as controls for the paper's offset; docs/method.md says what each is for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32, UInt32

from jaxdist.perturbations import edits
from jaxdist.perturbations.edits import Affine
from jaxdist.perturbations.family import Family
from jaxdist.perturbations.grids import both_ways, upward
from jaxdist.perturbations.paper_families import MOVES, NEAR, OFFSET_FORMULA, offset
from jaxdist.registry import FAMILIES
from jaxdist.types import PRNG, Ranges


def shifted(ranges: Ranges, fraction: Float[Array, ""]) -> Affine:
    """Offset with slope 1: the preactivation moves by p*r."""
    return edits.unedited(ranges.low.size)._replace(offset=fraction * (ranges.high - ranges.low))


def random_offset(ranges: Ranges, fraction: Float[Array, ""], reading: str, key: UInt32[Array, "..."]) -> Affine:
    """The offset, up or down at random for each unit.

    Args:
      ranges: of one network, [H].
      fraction: [] of each unit's range.
      reading: of the offset's formula.
      key: the data [2] of the key that signs are drawn from.
    """
    return offset(ranges, fraction * signs(key, ranges.low.size), reading)


def signs(key: UInt32[Array, "..."], units: int) -> Float32[Array, " H"]:
    """A random sign a unit, [H] of +-1, from the data of a key."""
    # Of a float32 probability, so that the draws are the same where JAX has 64 bits.
    up = jax.random.bernoulli(jax.random.wrap_key_data(key, impl=PRNG), jnp.float32(0.5), (units,))
    return jnp.where(up, 1.0, -1.0).astype(jnp.float32)


SHIFT = Family(
    name="shift",
    text=FAMILIES["shift"],
    edit=shifted,
    grid=both_ways,
    below="shifted down to",
    above="shifted up to",
    few=MOVES,
    signed=True,
    label="shift (slope kept)",
    effect="moved",
    dash="dashed",
    compared_at=NEAR,
)

RANDOM_OFFSET = Family(
    name="random_offset",
    text=FAMILIES["random_offset"],
    edit=random_offset,
    grid=upward(0.01, 2, 12),
    above="random offset to",
    random=True,
    signed=True,
    option=OFFSET_FORMULA,
    label="offset, random signs",
    effect="moved",
    dash="dotted",
)

RESTORED_OFFSET = Family(
    name="restored_offset",
    text=FAMILIES["restored_offset"],
    edit=offset,
    grid=both_ways,
    below="restored down to",
    above="restored up to",
    kind="restored",
    few=MOVES,
    signed=True,
    option=OFFSET_FORMULA,
    label="offset, mean logits restored",
    effect="moved",
    dash="mixed",
)
