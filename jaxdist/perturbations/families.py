"""The families of edits by name: formulas with their grids, and edits of whole ensembles made by them."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist.config import SweepConfig
from jaxdist.errors import InputError, nearest
from jaxdist.perturbations import edits, formulas
from jaxdist.perturbations.edits import Affine, Edit, Noise, Then
from jaxdist.types import AnyArray, Ranges

Formula: TypeAlias = Callable[[Ranges, Array, SweepConfig], Edit]
"""Maps one network's ranges [H] and a fraction to an edit with leaves [H]."""

RandomFormula: TypeAlias = Callable[[Ranges, Array, SweepConfig, Array], Edit]
"""The same, given the data of a key [2]."""

Kind = Literal["affine", "fill", "noise", "restored"]
"""What a family's edits are: `edits.Affine`, `Fill`, `Noise`, or `Affine` with the mean logits restored behind it."""

Gauge = Literal["as_is", "averaged", "absolute"]

Side = Literal["below", "above"]

PAPER = ("scale", "clip", "offset")
"""The families of the paper."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of edit: its formula for one network and one fraction, its grid, and where on it nothing is edited."""

    name: str
    formula: Formula | RandomFormula
    grid: Callable[[], np.ndarray]
    identity: float = 0.0
    spacing: Literal["linear", "log"] = "linear"
    few: tuple[float, ...] = (0.1, 0.25, 1.0)
    """Fractions that stand for the grid where there is room for few points."""
    sides: tuple[Side, ...] = ("below", "above")
    """Where from the identity its points edit anything; above 1, a clip does not."""
    kind: Kind = "affine"
    random: bool = False
    """Whether it takes random numbers, several draws of which are averaged."""
    signed: bool = False
    """Whether it edits a unit of an even activation otherwise if the unit's sign is changed."""

    @property
    def alone(self) -> bool:
        """Whether a point is one affine edit of the site, and nothing else."""
        return self.kind == "affine" and not self.random


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


def _both_ways() -> np.ndarray:
    """A grid over the paper's -2 to 1, evenly spaced in the logarithm to both sides of no edit."""
    return np.concatenate([-np.geomspace(2, 0.005, 13), [0.0], np.geomspace(0.005, 1, 12)])


def _upward(low: float, high: float, points: int) -> Callable[[], np.ndarray]:
    """A grid from no edit at 0, then evenly spaced in the logarithm."""
    return lambda: np.concatenate([[0.0], np.geomspace(low, high, points)])


# Not up to 1: there the largest value is erased or not by how it was rounded.
_erasing = _upward(0.005, 0.98, 24)
_DOWN: tuple[Side, ...] = ("below",)
_UP: tuple[Side, ...] = ("above",)
_MOVES = (-1.0, -0.25, 0.25, 1.0)

ALL = {
    family.name: family
    for family in (
        Family("scale", formulas.scale, intensity_grid, identity=1.0, spacing="log", few=(0.01, 0.25, 4.0)),
        Family("clip", formulas.clip, intensity_grid, identity=1.0, few=(0.01, 0.1, 0.25), sides=_DOWN, signed=True),
        Family("offset", formulas.offset, offset_grid, few=_MOVES, signed=True),
        Family("shift", formulas.shift, _both_ways, few=_MOVES, signed=True),
        Family("random_offset", formulas.random_offset, _upward(0.01, 2, 12), sides=_UP, random=True, signed=True),
        Family("restored_offset", formulas.offset, _both_ways, kind="restored", few=_MOVES, signed=True),
        Family("random_scale", formulas.random_scale, _upward(0.03, 3, 10), sides=_UP, random=True),
        Family("noise", formulas.noise, _upward(0.005, 3, 15), sides=_UP, kind="noise", random=True),
        Family("floor", formulas.floor, _erasing, sides=_UP, kind="fill"),
        Family("dead_zone", formulas.dead_zone, _erasing, sides=_UP, kind="fill"),
        Family("clip_both", formulas.clip_both, intensity_grid, identity=1.0, few=(0.01, 0.1, 0.25), sides=_DOWN),
    )
}


def coarse_grid(family: str, step: int = 5) -> np.ndarray:
    """Every so many points of a family's grid, the one without edit among them."""
    grid = get(family).grid()
    return grid[int(np.abs(grid - get(family).identity).argmin()) % step :: step]


def get(name: str) -> Family:
    """Return the family of that name; raises `InputError` that names the nearest known one."""
    if name not in ALL:
        raise InputError(f"unknown family '{name}'{nearest(name, ALL)}")
    return ALL[name]


def draws_of(name: str, draws: int) -> int:
    """How many draws of a family are averaged where a gauge takes so many, of all units' signs.

    Half as many of random numbers a unit, a quarter of noise, which is drawn for every image anyway; two at least.

    >>> draws_of("random_scale", 8), draws_of("noise", 8), draws_of("clip", 8)
    (4, 2, 1)
    """
    known = get(name)
    return max(2, draws // (4 if known.kind == "noise" else 2)) if known.random else 1


def slices(grids: Mapping[str, np.ndarray]) -> dict[str, slice]:
    """Where each family's points are among those of all grids concatenated."""
    ends = np.cumsum([len(grid) for grid in grids.values()]).tolist()
    return {family: slice(end - len(grid), end) for (family, grid), end in zip(grids.items(), ends, strict=True)}


def identity(
    family: str, options: SweepConfig, rule: str = "minmax", *, reached: bool = True, one_sided: bool = True
) -> float | None:
    """The fraction from which a family edits nothing on the training images, or None where it always edits.

    The literal offset formula has no such point. The text's clip p*r reaches the largest value only at
    p = high/(high - low): the end of the grid stands for that, since a unit beyond it varies by less than a tenth.
    So it does where some training values lie above `high`: where the `rule` of the ranges is another than 'minmax', or
    the measured side's largest value is not known to be `reached` on the edited side. For the clip on both sides, so
    does it where not all that an activation makes of negative values is known to be nothing or what it makes of
    positive ones (`one_sided`).
    """
    if formulas.option_of(family) == "offset_formula" and options.offset_formula == "literal":
        return None
    clips = {"clip": options.clip_formula == "text", "clip_both": not one_sided}
    if family in clips and (clips[family] or rule != "minmax" or not reached):
        return float(get(family).grid()[-1])
    return get(family).identity


def check(family: str, ranges: Ranges, options: SweepConfig, where: str = "ranges") -> None:
    """Refuse a family whose formula means nothing for all live units of a network, given ranges [H] or [S, H].

    Raises:
      InputError: it starts with `where`.
    """
    fetched = Ranges(*(np.asarray(leaf) for leaf in ranges))
    if get(family).kind == "fill" and (fetched.low < 0)[~fetched.dead].any():
        raise InputError(f"{where}: {family} erases small values, which needs activations that are never negative")
    senseless, live = np.asarray(formulas.without_meaning(family, fetched, options)), ~fetched.dead
    if (live.any(-1) & (senseless == live).all(-1)).any():
        option = formulas.option_of(family)
        raise InputError(
            f"{where}: {option} '{getattr(options, option)}' needs units whose largest value is positive, and none's "
            f"is; use sweep.{option} '{formulas.OTHERWISE[option]}'"
        )


def build(
    family: str,
    ranges: Ranges,
    fractions: np.ndarray | Array,
    options: SweepConfig,
    keys: AnyArray | None = None,
) -> Any:
    """Make a family's edits at `fractions` [P]: leaves [P, H] from ranges [H], or [S, P, H] from ranges [S, H].

    Fractions [S, P] give each network of ranges [S, H] its own. A random family needs the data of `keys` [K, 2], or
    [S, K, 2]; its points are then those of one draw after another, K * P. The kind of edit is the family's.
    """
    if np.ndim(fractions) == 2 and (ranges.low.ndim != 2 or len(fractions) != len(ranges.low)):
        raise ValueError(f"fractions: expected [P] or one row a network, got {np.shape(fractions)}")
    known = get(family)
    if known.random != (keys is not None):
        raise ValueError(f"{family}: {'expected keys' if known.random else 'takes no keys'}")
    made = _build(
        ranges,
        jnp.asarray(fractions, jnp.float32),
        None if keys is None else jnp.asarray(keys),
        formula=known.formula,
        options=options,
    )
    if isinstance(made, Noise) and keys is not None:
        draws = np.shape(keys)[-2]
        of_points = jnp.repeat(jnp.arange(draws, dtype=jnp.int32), made.which.shape[-1] // draws)
        which = jnp.broadcast_to(of_points, made.which.shape)
        made = dataclasses.replace(made, which=which, draws=draws)
    return made


@functools.partial(jax.jit, static_argnames=("formula", "options"))
def _build(
    ranges: Ranges,
    fractions: Array,
    keys: Array | None,
    *,
    formula: Callable[..., Edit],
    options: SweepConfig,
) -> Edit:
    def one_network(ranges: Ranges, fractions: Array, keys: Array | None) -> Edit:
        if keys is None:
            return jax.vmap(lambda fraction: formula(ranges, fraction, options))(fractions)
        made = jax.vmap(lambda key: jax.vmap(lambda fraction: formula(ranges, fraction, options, key))(fractions))(keys)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), made)

    if ranges.low.ndim == 1:
        return one_network(ranges, fractions, keys)
    axes = (0, 0 if fractions.ndim == 2 else None, None if keys is None else 0)
    return jax.vmap(one_network, axes)(ranges, fractions, keys)


def keys(purpose: str, seeds: Sequence[int], draws: int) -> np.ndarray:
    """The data [S, K, 2] of the keys of each seed's draws: they depend on its number and the purpose alone."""
    start = jax.random.fold_in(jax.random.key(0), zlib.crc32(purpose.encode()))
    return np.asarray(_keys(start, jnp.asarray(list(seeds)), draws=draws))


@functools.partial(jax.jit, static_argnames="draws")
def _keys(start: Array, seeds: Array, draws: int) -> Array:
    def key(seed: Array, draw: Array) -> Array:
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(start, seed), draw))

    return jax.vmap(lambda seed: jax.vmap(lambda draw: key(seed, draw))(jnp.arange(draws)))(seeds)


def random_signs(keys: AnyArray, units: int) -> np.ndarray:
    """A random sign of every unit for each of the keys' data [S, K, 2]: [S, K, H] of +-1, float32."""
    return np.asarray(jax.vmap(jax.vmap(lambda key: formulas.signs(key, units)))(jnp.asarray(keys)))


def joined(ranges: Ranges, grids: Mapping[str, np.ndarray | Sequence[float]], options: SweepConfig) -> Affine:
    """Make every family's edits at its grid, concatenated in their order; leaves as `build` gives them.

    The families are affine and take no random numbers.
    """
    return edits.concatenate([build(family, ranges, np.asarray(grid), options) for family, grid in grids.items()])


def pairs(ranges: Ranges, grids: Mapping[str, np.ndarray], options: SweepConfig) -> Then:
    """Make every pair of two families' edits, the first family's first; the second's fractions run fastest.

    Leaves as `build` gives them, with P = P1 * P2. Both families' edits are those of the unedited ranges.
    """
    (first, outer), (second, inner) = ((build(family, ranges, grid, options), grid) for family, grid in grids.items())
    return Then(
        jax.tree.map(lambda leaf: jnp.repeat(leaf, len(inner), axis=-2), first),
        jax.tree.map(lambda leaf: jnp.concatenate([leaf] * len(outer), axis=-2), second),
    )
