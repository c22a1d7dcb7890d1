"""The formulas of the families: one network's ranges and one fraction, and perhaps random numbers -> an edit.

Source of `scale`, `clip` and `offset`: Oursland 2024 (arXiv:2411.17932), section 4, and the code published with it;
where the two disagree, `SweepConfig` names both readings. The others are controls for them; docs/method.md says what
each is for.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxdist.config import SweepConfig
from jaxdist.perturbations import edits
from jaxdist.perturbations.edits import Affine, Fill, Noise
from jaxdist.types import AnyArray, Ranges

OTHERWISE = {"clip_formula": "code", "offset_formula": "intended"}
"""Of each option, the reading that always means something."""

_NEEDS_POSITIVE = {
    "clip": ("clip_formula", "caption"),
    **dict.fromkeys(("offset", "random_offset", "restored_offset"), ("offset_formula", "code")),
}
"""The readings that are multiples of a unit's largest value."""


def scale(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Intensity scale: every preactivation times p."""
    return _spare(_none(ranges)._replace(scale=jnp.full_like(ranges.low, fraction)), ranges.dead, options)


def clip(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Intensity clip: nothing above a fraction p of the unit's range passes.

    The code's ``low + p*r`` is written from the upper end, so that p = 1 clips at exactly the largest value.
    """
    low, high, dead = ranges
    ceiling = {
        "code": _within(ranges, fraction),
        "text": fraction * (high - low),
        "caption": fraction * high,
    }[options.clip_formula]
    # An infinite fraction is no clip, also where the range is 0.
    ceiling = jnp.where(jnp.isinf(fraction), fraction, ceiling)
    return _spare(_none(ranges)._replace(high=ceiling), dead | without_meaning("clip", ranges, options), options)


def clip_both(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Clip on both sides: no magnitude above a fraction p of the unit's largest passes, whatever the unit's sign."""
    largest = jnp.maximum(jnp.abs(ranges.low), jnp.abs(ranges.high))
    bound = jnp.where(jnp.isinf(fraction), fraction, fraction * largest)
    return _spare(_none(ranges)._replace(low=-bound, high=bound), ranges.dead, options)


def offset(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Distance offset: the preactivation moves by p*r, so that the decision boundary moves by -p*r over the slope.

    The code's slope (high - p*r)/high keeps h = high where it is; it is 0/0 for a unit whose largest value is 0.
    """
    low, high, dead = ranges
    moved = fraction * (high - low)
    slope = {
        "code": jnp.asarray((high - moved) / high),
        "intended": jnp.full_like(high, 1 - fraction),
        "literal": (1 - fraction) * (high - low),
    }[options.offset_formula]
    edit = _none(ranges)._replace(scale=slope, offset=moved)
    return _spare(edit, dead | without_meaning("offset", ranges, options), options)


def shift(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Offset with slope 1: the preactivation moves by p*r."""
    return _spare(_none(ranges)._replace(offset=fraction * (ranges.high - ranges.low)), ranges.dead, options)


def random_offset(ranges: Ranges, fraction: Array, options: SweepConfig, key: Array) -> Affine:
    """The offset, up or down at random for each unit."""
    return offset(ranges, fraction * signs(key, ranges.low.size), options)


def random_scale(ranges: Ranges, fraction: Array, options: SweepConfig, key: Array) -> Affine:
    """Every unit times exp(p*z), with z its own normal number."""
    factors = jnp.exp(fraction * jax.random.normal(jax.random.wrap_key_data(key), ranges.low.shape, jnp.float32))
    return _spare(_none(ranges)._replace(scale=factors), ranges.dead, options)


def noise(ranges: Ranges, fraction: Array, options: SweepConfig, key: Array) -> Noise:
    """Normal noise of standard deviation p*r, for each unit and example its own."""
    sd = fraction * (ranges.high - ranges.low)
    return Noise(jnp.where(_spared(ranges.dead, options), 0, sd), key, jnp.int32(0))


def floor(ranges: Ranges, fraction: Array, options: SweepConfig) -> Fill:
    """No activation below a fraction p of the unit's range: smaller ones are raised to it."""
    threshold = _above(ranges, fraction, options)
    return Fill(threshold, threshold)


def dead_zone(ranges: Ranges, fraction: Array, options: SweepConfig) -> Fill:
    """Activations up to a fraction p of the unit's range become 0."""
    threshold = _above(ranges, fraction, options)
    return Fill(threshold, jnp.zeros_like(threshold))


def signs(key: Array, units: int) -> Array:
    """A random sign a unit, [H] of +-1, from the data of a key."""
    # Of a float32 probability, so that the draws are the same where JAX has 64 bits.
    return jnp.where(jax.random.bernoulli(jax.random.wrap_key_data(key), jnp.float32(0.5), (units,)), 1.0, -1.0).astype(
        jnp.float32
    )


def _none(ranges: Ranges) -> Affine:
    return edits.unedited(ranges.low.size)


def _within(ranges: Ranges, fraction: Array) -> AnyArray:
    """low + p*r, exactly `high` at p = 1."""
    return ranges.high - (1 - fraction) * (ranges.high - ranges.low)


def _above(ranges: Ranges, fraction: Array, options: SweepConfig) -> Array:
    """The threshold below which small values are erased; none at a fraction of 0."""
    none = (fraction <= 0) | _spared(ranges.dead, options)
    return jnp.where(none, -jnp.inf, _within(ranges, fraction))


def option_of(family: str) -> str:
    """The option that names the readings of a family's formula, or "" where there is but one."""
    return _NEEDS_POSITIVE.get(family, ("", ""))[0]


def without_meaning(family: str, ranges: Ranges, options: SweepConfig) -> AnyArray:
    """Live units for which a family's formula means nothing, of the shape of the ranges; they follow the dead ones.

    The code's slope of the offset and the caption's clip are multiples of a unit's largest value, which has to be
    positive: behind gelu, say, some units' never is.
    """
    option, reading = _NEEDS_POSITIVE.get(family, ("", ""))
    return (option != "" and getattr(options, option) == reading) & (ranges.high <= 0) & ~ranges.dead


def _spared(dead: AnyArray, options: SweepConfig) -> AnyArray:
    """The units that are left as they are; where that is not the policy, none: the formula stands, 0/0 and all."""
    return dead & (options.dead_units == "identity")


def _spare(edit: Affine, dead: AnyArray, options: SweepConfig) -> Affine:
    spared = _spared(dead, options)
    return jax.tree.map(lambda kept, leaf: jnp.where(spared, kept, leaf), edits.unedited(dead.size), edit)
