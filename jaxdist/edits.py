"""Edits of a site's value as data, and the families that make them from ranges and a grid.

An edit is a pytree of per-unit leaves with a leading P, so that a sweep is one map over it; a family is a function
from ranges and fractions to such a pytree. Source of the formulas: Oursland 2024 (arXiv:2411.17932), section 4, and
the code published with it; where the two disagree, `SweepConfig` names both readings.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist import elementwise
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError, nearest
from jaxdist.types import AnyArray, Ranges

Formula = Callable[[Ranges, Array, SweepConfig], "Affine"]
"""Maps one network's ranges [H] and a fraction to an edit with leaves [H]."""


class Edit(Protocol):
    """A pytree whose leaves are [H] for one point; stacked points have a leading P."""

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Return the edited value, of the same shape.

        `example_index` [n] numbers the block's examples within the whole split, so that a random edit does not
        depend on blocks or devices.
        """
        ...


class Affine(NamedTuple):
    """``y = clip(scale * h + offset, low, high)``, unit by unit; leaves [H]."""

    scale: Array
    offset: Array
    low: Array
    high: Array

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:  # noqa: ARG002  (Edit's form)
        """Apply to a value whose axis `unit_axis` has H entries."""
        others = [axis for axis in range(value.ndim) if axis != unit_axis % value.ndim]
        scale, offset, low, high = (jnp.expand_dims(leaf, others) for leaf in self)
        wide = value.astype(scale.dtype) if value.dtype.itemsize < scale.dtype.itemsize else value
        edited = elementwise.at_most(elementwise.at_least(scale * wide + offset, low), high)
        return edited.astype(value.dtype)  # what follows computes as it does without an edit


class Then(NamedTuple):
    """One edit after another; leaves as theirs."""

    first: Affine
    second: Affine

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply both, the second to what the first gives."""
        return self.second.apply(self.first.apply(value, example_index, unit_axis), example_index, unit_axis)


def unedited(units: int) -> Affine:
    """The edit of H units that changes nothing."""
    one = jnp.ones(units)
    return Affine(one, 0 * one, -jnp.inf * one, jnp.inf * one)


def concatenate(parts: Sequence[Affine]) -> Affine:
    """Join the points of several edits, so that all of them run through one program; leaves [..., P, H]."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-2), *parts)


def joined(ranges: Ranges, grids: Mapping[str, np.ndarray | Sequence[float]], options: SweepConfig) -> Affine:
    """Make every family's edits at its grid, concatenated in their order; leaves as `build` gives them."""
    return concatenate([build(family, ranges, np.asarray(grid), options) for family, grid in grids.items()])


def slices(grids: Mapping[str, np.ndarray]) -> dict[str, slice]:
    """Where each family's points are among those of all grids concatenated."""
    ends = np.cumsum([len(grid) for grid in grids.values()]).tolist()
    return {family: slice(end - len(grid), end) for (family, grid), end in zip(grids.items(), ends, strict=True)}


def scale(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Intensity scale: every preactivation times p."""
    return _spare(unedited(ranges.low.size)._replace(scale=jnp.full_like(ranges.low, fraction)), ranges.dead, options)


def clip(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Intensity clip: nothing above a fraction p of the unit's range passes.

    The code's ``low + p*r`` is written from the upper end, so that p = 1 clips at exactly the largest value.
    """
    low, high, _ = ranges
    ceiling = {
        "code": high - (1 - fraction) * (high - low),
        "text": fraction * (high - low),
        "caption": fraction * high,
    }[options.clip_formula]
    # An infinite fraction is no clip, also where the range is 0.
    ceiling = jnp.where(jnp.isinf(fraction), fraction, ceiling)
    return _spare(
        unedited(low.size)._replace(high=ceiling), ranges.dead | without_meaning("clip", ranges, options), options
    )


def offset(ranges: Ranges, fraction: Array, options: SweepConfig) -> Affine:
    """Distance offset: the preactivation moves by p*r, so that the decision boundary moves by -p*r over the slope.

    The code's slope (high - p*r)/high keeps h = high where it is; it is 0/0 for a unit whose largest value is 0.
    """
    low, high, dead = ranges
    shift = fraction * (high - low)
    slope = {
        "code": jnp.asarray((high - shift) / high),
        "intended": jnp.full_like(high, 1 - fraction),
        "literal": (1 - fraction) * (high - low),
    }[options.offset_formula]
    return _spare(
        unedited(low.size)._replace(scale=slope, offset=shift),
        dead | without_meaning("offset", ranges, options),
        options,
    )


def without_meaning(family: str, ranges: Ranges, options: SweepConfig) -> AnyArray:
    """Live units for which a family's formula means nothing, of the shape of the ranges; they follow the dead ones.

    The code's slope of the offset and the caption's clip are multiples of a unit's largest value, which has to be
    positive: behind gelu, say, some units' never is.
    """
    multiple_of_high = {"offset": options.offset_formula == "code", "clip": options.clip_formula == "caption"}
    return multiple_of_high.get(family, False) & (ranges.high <= 0) & ~ranges.dead


def _spare(edit: Affine, dead: AnyArray, options: SweepConfig) -> Affine:
    """Leave dead units as they are, where that is the policy; otherwise the formula stands, 0/0 and all."""
    if options.dead_units == "nan":
        return edit
    return jax.tree.map(lambda kept, leaf: jnp.where(dead, kept, leaf), unedited(dead.size), edit)


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of edit: its formula for one network and one fraction, its grid, and where on it nothing is edited."""

    name: str
    formula: Formula
    grid: Callable[[], np.ndarray]
    identity: float
    spacing: Literal["linear", "log"]
    few: tuple[float, ...]
    """Fractions that stand for the grid where there is room for few points."""
    sides: tuple[Literal["below", "above"], ...] = ("below", "above")
    """Where from the identity its points edit anything; above 1, a clip does not."""


def intensity_grid() -> np.ndarray:
    """The paper's 100 fractions from 0.01 to 10, evenly spaced in the logarithm; index 66 is exactly 1."""
    return np.logspace(np.log10(0.01), np.log10(10), 100)


def offset_grid() -> np.ndarray:
    """The paper's 125 fractions from -2 to 1, densest within 0.4 of no edit; index 72 is exactly 0."""
    parts = (
        np.linspace(-2, -0.4, 32, endpoint=False),
        np.linspace(-0.4, 0.4, 80, endpoint=False),
        np.linspace(0.4, 1, 13),
    )
    return np.unique(np.concatenate(parts))


FAMILIES = {
    family.name: family
    for family in (
        Family("scale", scale, intensity_grid, identity=1.0, spacing="log", few=(0.01, 0.25, 4.0)),
        Family("clip", clip, intensity_grid, identity=1.0, spacing="linear", few=(0.01, 0.1, 0.25), sides=("below",)),
        Family("offset", offset, offset_grid, identity=0.0, spacing="linear", few=(-1.0, -0.25, 0.25, 1.0)),
    )
}


def coarse_grid(family: str, step: int = 5) -> np.ndarray:
    """Every so many points of a family's grid, the one without edit among them."""
    grid = get(family).grid()
    return grid[int(np.abs(grid - get(family).identity).argmin()) % step :: step]


def get(name: str) -> Family:
    """Return the family of that name; raises `InputError` that names the nearest known one."""
    if name not in FAMILIES:
        raise InputError(f"unknown family '{name}'{nearest(name, FAMILIES)}")
    return FAMILIES[name]


def identity(family: str, options: SweepConfig, rule: str = "minmax", *, reached: bool = True) -> float | None:
    """The fraction from which a family edits nothing on the training images, or None where it always edits.

    The literal offset formula has no such point. The text's clip p*r reaches the largest value only at
    p = high/(high - low): the end of the grid stands for that, since a unit beyond it varies by less than a tenth.
    So it does where some training values lie above `high`: where the `rule` of the ranges is another than 'minmax', or
    the measured side's largest value is not known to be `reached` on the edited side.
    """
    if family == "offset" and options.offset_formula == "literal":
        return None
    if family == "clip" and (options.clip_formula == "text" or rule != "minmax" or not reached):
        return float(get(family).grid()[-1])
    return get(family).identity


def check(family: str, ranges: Ranges, options: SweepConfig, where: str = "ranges") -> None:
    """Refuse a family whose formula means nothing for all live units of a network, given ranges [H] or [S, H].

    Raises:
      InputError: it starts with `where`.
    """
    fetched = Ranges(*(np.asarray(leaf) for leaf in ranges))
    senseless, live = np.asarray(without_meaning(family, fetched, options)), ~fetched.dead
    if (live.any(-1) & (senseless == live).all(-1)).any():
        formula = f"{family}_formula"
        other = {"offset": "intended", "clip": "code"}[family]
        raise InputError(
            f"{where}: {formula} '{getattr(options, formula)}' needs units whose largest value is positive, and none's "
            f"is; use sweep.{formula} '{other}'"
        )


def build(family: str, ranges: Ranges, fractions: np.ndarray | Array, options: SweepConfig) -> Affine:
    """Make a family's edits at `fractions` [P]: leaves [P, H] from ranges [H], or [S, P, H] from ranges [S, H].

    Fractions [S, P] give each network of ranges [S, H] its own.
    """
    if np.ndim(fractions) == 2 and (ranges.low.ndim != 2 or len(fractions) != len(ranges.low)):
        raise ValueError(f"fractions: expected [P] or one row a network, got {np.shape(fractions)}")
    return _build(ranges, jnp.asarray(fractions, jnp.float32), formula=get(family).formula, options=options)


@functools.partial(jax.jit, static_argnames=("formula", "options"))
def _build(ranges: Ranges, fractions: Array, *, formula: Formula, options: SweepConfig) -> Affine:
    def one_network(ranges: Ranges, fractions: Array) -> Affine:
        return jax.vmap(lambda fraction: formula(ranges, fraction, options))(fractions)

    if ranges.low.ndim == 1:
        return one_network(ranges, fractions)
    return jax.vmap(one_network, (0, 0 if fractions.ndim == 2 else None))(ranges, fractions)


def pairs(ranges: Ranges, grids: Mapping[str, np.ndarray], options: SweepConfig) -> Then:
    """Make every pair of two families' edits, the first family's first; the second's fractions run fastest.

    Leaves as `build` gives them, with P = P1 * P2. Both families' edits are those of the unedited ranges.
    """
    (first, outer), (second, inner) = ((build(family, ranges, grid, options), grid) for family, grid in grids.items())
    return Then(
        jax.tree.map(lambda leaf: jnp.repeat(leaf, len(inner), axis=-2), first),
        jax.tree.map(lambda leaf: jnp.concatenate([leaf] * len(outer), axis=-2), second),
    )
