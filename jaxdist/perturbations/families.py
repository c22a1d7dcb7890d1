"""The registry of families of edits: their records by name, and edits of whole ensembles made by them.

A family is one record, `family.Family`. Eighteen are built in, each in the file of its like; `register` adds another.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist import registry
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from jaxdist.perturbations import (
    collapse_families,
    edits,
    erasing_families,
    moving_families,
    paper_families,
    random_families,
    toward_families,
    traits,
)
from jaxdist.perturbations.edits import Affine, Edit, Fill, Noise, Then, Toward
from jaxdist.perturbations.family import Circumstances
from jaxdist.perturbations.family import Family as Family
from jaxdist.perturbations.family import Kind as Kind
from jaxdist.perturbations.grids import intensity_grid as intensity_grid
from jaxdist.perturbations.grids import offset_grid as offset_grid
from jaxdist.registry import PAPER as PAPER
from jaxdist.types import PRNG, AnyArray, Ranges

Gauge: TypeAlias = Literal["as_is", "averaged", "absolute"]

_RECORDS = (
    paper_families.SCALE,
    paper_families.CLIP,
    paper_families.OFFSET,
    moving_families.SHIFT,
    moving_families.RANDOM_OFFSET,
    moving_families.RESTORED_OFFSET,
    random_families.RANDOM_SCALE,
    random_families.NOISE,
    erasing_families.FLOOR,
    erasing_families.DEAD_ZONE,
    erasing_families.CLIP_BOTH,
    collapse_families.COLLAPSE_SMALL,
    collapse_families.COLLAPSE_LARGE,
    toward_families.ZERO,
    toward_families.MEAN,
    toward_families.MEAN_POSITION,
    toward_families.RESAMPLE,
    toward_families.PATCH,
)

_TAKEN = ("training", "ranges", "unedited", "sensitivity", "radii")
_STARTS = ("grid_", "units_", "matched_", "snapshots_", "averaged_", "absolute_")
"""Names, and beginnings of names, that other groups of a result have."""
MOST_LETTERS = 16
"""Of what a family does on a side of no edit."""
_EDITS: Mapping[Kind, type] = {
    "affine": Affine, "fill": Fill, "collapse": Fill, "noise": Noise, "restored": Affine, "mean": Affine,
    "toward": Toward,
}  # fmt: skip


def check_record(family: Family) -> None:
    """Refuse a record that cannot be used; raises `InputError` that starts with the family's name."""
    registry.check_name(family, Family, "jaxdist.perturbations.Family", "family", 24)
    if family.name in _TAKEN or family.name.startswith(_STARTS):
        raise InputError(f"family '{family.name}': another group of a result has this name; choose another")
    problem = _problem(family)
    if problem:
        raise InputError(f"family '{family.name}': {problem}")


def _problem(family: Family) -> str:
    """What is wrong with a record, empty if nothing is."""
    choices = {
        "spacing": traits.Spacing, "unit": traits.Unit, "effect": traits.Effect, "dash": traits.Dash, "kind": Kind
    }  # fmt: skip
    for name, kind in choices.items():
        if getattr(family, name) not in get_args(kind):
            return f"{name}: expected one of {', '.join(get_args(kind))}, got {getattr(family, name)!r}"
    if not family.text.strip() or "\n" in family.text:
        return f"text: expected one sentence, got {family.text!r}"
    if not isinstance(family.few, tuple) or not family.few or not np.isfinite(family.few).all():
        return f"few: expected a tuple of numbers, got {family.few!r}"
    if not family.sides:
        return "below, above: expected words for the sides on which it edits, got none"
    for side in family.sides:
        if len(family.outward(side)) > MOST_LETTERS:
            return f"{side}: expected at most {MOST_LETTERS} letters, got {family.outward(side)!r}"
    if not np.isfinite(family.identity):
        return f"identity: expected a number, got {family.identity}"
    grid = np.asarray(family.grid(), np.float64)
    if grid.ndim != 1 or not grid.size or not (np.diff(grid) > 0).all() or not np.isfinite(grid).all():
        return "grid: expected a function that gives increasing numbers"
    if family.spacing == "log" and not min(grid[0], family.identity) > 0:
        return "grid: expected positive fractions and identity for spacing 'log'"
    for side, beyond in (("below", grid < family.identity), ("above", grid > family.identity)):
        if side in family.sides and not beyond.any():
            return f"grid: expected fractions {side} {family.identity:g}, where it edits too"
    return _problem_of_edit(family)


def _problem_of_edit(family: Family) -> str:
    """What is wrong with the edit that a record's function gives, by its shapes."""
    units = 3
    try:
        tree = _shape_of_edit(family, units)
        expected = _EDITS.get(family.kind)
        if expected is not None and not isinstance(tree, expected):
            other = "; use kind='other' for your own edits" if hasattr(tree, "apply") else ""
            return f"edit: expected a {expected.__name__} for kind {family.kind!r}, got {registry.kind_of(tree)}{other}"
        if isinstance(tree, Toward):
            return ""
        if not hasattr(tree, "apply"):
            return f"edit: expected a pytree with a method apply, got {registry.kind_of(tree)}"
        value, index = jax.ShapeDtypeStruct((4, units), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.int32)
        edited = jax.eval_shape(lambda edit, *arguments: edit.apply(*arguments, -1), tree, value, index)
    except Exception as error:
        return f"edit: raises {type(error).__name__} for ranges of {units} units: {str(error).partition(chr(10))[0]}"
    if getattr(edited, "shape", None) != value.shape:
        return f"edit: expected apply to keep the value's shape {value.shape}, got {getattr(edited, 'shape', edited)}"
    return ""


def _shape_of_edit(family: Family, units: int = 1) -> Any:
    """What a record's function gives for ranges of so many units, without numbers."""
    ranges = jax.eval_shape(lambda: Ranges(jnp.zeros(units), jnp.ones(units), jnp.zeros(units, bool)))
    keys = (jax.ShapeDtypeStruct((2,), jnp.uint32),) if family.random else ()
    reading = family.option.otherwise if family.option else ""
    fraction = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.eval_shape(lambda *arguments: _one_point(family, reading, *arguments), ranges, fraction, *keys)


def target_of(name: str) -> edits.Target | None:
    """What a family leads values towards that is not known from ranges, if anything."""
    record = get(name)
    return _shape_of_edit(record).of if record.kind == "toward" else None


def coarse_grid(family: str, step: int = 5) -> np.ndarray:
    """Every so many points of a family's grid, the one without edit among them."""
    grid = get(family).grid()
    return grid[int(np.abs(grid - get(family).identity).argmin()) % step :: step]


REGISTER = registry.Register(
    "family", Family, "jaxdist.perturbations.Family", _RECORDS, registry.FAMILIES, check_record, function="edit"
)
"""All families that are known in this process."""
ALL = REGISTER.records
BUILT_IN = REGISTER.built_in
get = REGISTER.get


def register(family: Family) -> Family:
    """Make a family known in this process, by its name, to configs, `jaxdist.probe` and all that is told of results.

    Raises as `jaxdist.registry.Register.add` does.
    """
    return REGISTER.add(family)


def draws_of(name: str, draws: int) -> int:
    """How many draws of a family are averaged where a gauge takes so many, of all units' signs.

    Half as many of random numbers a unit, a quarter of noise, which is drawn for every image anyway; two at least.

    >>> draws_of("random_scale", 8), draws_of("noise", 8), draws_of("clip", 8)
    (4, 2, 1)
    """
    record = get(name)
    return max(2, draws // (4 if record.kind == "noise" else 2)) if record.random else 1


def slices(grids: Mapping[str, np.ndarray]) -> dict[str, slice]:
    """Where each family's points are among those of all grids concatenated."""
    ends = np.cumsum([len(grid) for grid in grids.values()]).tolist()
    return {family: slice(end - len(grid), end) for (family, grid), end in zip(grids.items(), ends, strict=True)}


def identity(
    family: str, options: SweepConfig, rule: str = "minmax", *, reached: bool = True, one_sided: bool = True
) -> float | None:
    """The fraction from which a family edits nothing on the training images, or None where it always edits.

    Args:
      family: its name.
      options: of the sweep, which may choose the reading of its formula.
      rule: of the ranges.
      reached, one_sided: as in `family.Circumstances`.

    Raises:
      InputError: for an unknown family.
    """
    record, reading = get(family), reading_of(family, options)
    if record.option is not None and reading == record.option.everywhere:
        return None
    if record.unedited_at is None:
        return record.identity
    return record.unedited_at(Circumstances(reading, rule, reached, one_sided))


def reading_of(family: str, options: SweepConfig) -> str:
    """The reading of a family's formula that the options choose, empty where there is but one."""
    option = get(family).option
    return "" if option is None else str(getattr(options, option.name))


def check_meaning(family: str, ranges: Ranges, options: SweepConfig, where: str = "ranges") -> None:
    """Refuse a family whose formula means nothing for all live units of a network.

    Args:
      family: its name.
      ranges: of a site, [H] or [S, H].
      options: of the sweep, which may choose the reading of its formula.
      where: the network and site, for messages.

    Raises:
      InputError: it starts with `where`.
    """
    fetched = Ranges(*(np.asarray(leaf) for leaf in ranges))
    if get(family).kind == "fill" and (fetched.low < 0)[~fetched.dead].any():
        raise InputError(
            f"{where}: {family} erases small values, which needs ranges that are never negative: those of an "
            "activation that is never negative, by its extremes or quantiles; use rule 'minmax' or 'quantile' with "
            "such an activation, or leave the family out"
        )
    _refuse_nan(family, fetched, options, where)
    _refuse_infinite(family, fetched, options, where)
    senseless, live = np.asarray(without_meaning(family, fetched, options)), ~fetched.dead
    option = get(family).option
    if option is not None and (live.any(-1) & (senseless == live).all(-1)).any():
        raise InputError(
            f"{where}: {option.name} '{getattr(options, option.name)}' needs units whose largest value is positive, "
            f"and there are none; use sweep.{option.name} '{option.otherwise}'"
        )


def _refuse_nan(family: str, ranges: Ranges, options: SweepConfig, where: str) -> None:
    """Refuse edits that would make NaN of all values of a unit some of whose values are NaN, which has no range."""
    record = get(family)
    unknown = (np.isnan(ranges.low) | np.isnan(ranges.high)) & ~ranges.dead
    others = record.kind == "toward" and target_of(family) != "mean"  # values of another input are what they are
    if not unknown.any() or others or record.kind == "other":
        return
    if record.kind == "affine":
        keys = np.zeros((*ranges.low.shape[:-1], 1, 2), np.uint32) if record.random else None
        edit = build(family, Ranges(*map(jnp.asarray, ranges)), record.grid(), options, keys)
        if not np.isnan(list(edit)).any():
            return
    raise InputError(
        f"{where}: some values are NaN, so that units have no range, mean or variance that {family} could go by; "
        "choose a site without NaN, or a family such as scale, resample or patch"
    )


def _refuse_infinite(family: str, ranges: Ranges, options: SweepConfig, where: str) -> None:
    """Refuse edits that make no numbers, or the same one, of a unit some of whose values are infinite."""
    record = get(family)
    infinite = (np.isinf(ranges.low) | np.isinf(ranges.high)) & ~ranges.dead
    if not infinite.any() or record.kind in ("toward", "other"):
        return
    if record.kind == "affine":
        keys = np.zeros((*ranges.low.shape[:-1], 1, 2), np.uint32) if record.random else None
        edit = build(family, Ranges(*map(jnp.asarray, ranges)), record.grid(), options, keys)
        scale, offset, low, high = (np.asarray(leaf, np.float64) for leaf in edit)
        with np.errstate(invalid="ignore"):
            ends = [scale * np.asarray(end)[..., None, :] + offset for end in (ranges.low, ranges.high)]
        broken = np.isnan([*ends, low, high]) | np.isinf(offset) | (low == np.inf) | (high == -np.inf)
        if not broken.any():
            return
    raise InputError(
        f"{where}: some values are infinite, such as masked attention scores, which {family} would turn into NaN or a "
        "constant; choose a site before the mask or after the softmax, or a family such as scale, resample or patch"
    )


def without_meaning(family: str, ranges: Ranges, options: SweepConfig) -> AnyArray:
    """Live units for which a family's formula means nothing, of the shape of the ranges; they follow the dead ones.

    The code's slope of the offset and the caption's clip are multiples of a unit's largest value, which has to be
    positive: behind gelu, say, some units' never is.
    """
    return _meaningless(get(family), reading_of(family, options), ranges)


def _meaningless(family: Family, reading: str, ranges: Ranges) -> AnyArray:
    concerned = family.option is not None and reading == family.option.needs_positive
    return concerned & (ranges.high <= 0) & ~ranges.dead


def build(
    family: str,
    ranges: Ranges,
    fractions: np.ndarray | Array,
    options: SweepConfig,
    keys: AnyArray | None = None,
) -> Any:
    """Make a family's edits, of its kind: leaves [P, H] from ranges [H], or [S, P, H] from ranges [S, H].

    Args:
      family: its name.
      ranges: of a site, [H] or [S, H].
      fractions: [P], or [S, P] to give each network of ranges [S, H] its own.
      options: the reading of its formula, and what becomes of dead units.
      keys: the data [K, 2] or [S, K, 2] of a random family's keys; the K * P points are then one draw's after
        another's.

    Raises:
      InputError: for an unknown family.
      ValueError: for fractions that do not fit the ranges, and for keys that are missing or not wanted.
    """
    if np.ndim(fractions) == 2 and (ranges.low.ndim != 2 or len(fractions) != len(ranges.low)):
        raise ValueError(f"fractions: expected [P] or one row a network, got {np.shape(fractions)}")
    record = get(family)
    if record.random != (keys is not None):
        raise ValueError(f"{family}: {'expected keys' if record.random else 'takes no keys'}")
    edit = _build(
        ranges,
        jnp.asarray(fractions, jnp.float32),
        None if keys is None else jnp.asarray(keys),
        family=record,
        reading=reading_of(family, options),
        spare=options.dead_units == "identity",
    )
    if isinstance(edit, Noise | Toward) and keys is not None:
        draws = np.shape(keys)[-2]
        of_points = jnp.repeat(jnp.arange(draws, dtype=jnp.int32), edit.which.shape[-1] // draws)
        which = jnp.broadcast_to(of_points, edit.which.shape)
        edit = dataclasses.replace(edit, which=which, draws=draws)
    return edit


@functools.partial(jax.jit, static_argnames=("family", "reading", "spare"))
def _build(
    ranges: Ranges,
    fractions: Array,
    keys: Array | None,
    *,
    family: Family,
    reading: str,
    spare: bool,
) -> Edit:
    def one_point(ranges: Ranges, fraction: Array, *key: Array) -> Edit:
        edit = _one_point(family, reading, ranges, fraction, *key)
        # Where that is not the policy, the formula stands for all units, 0/0 and all.
        return edits.sparing(edit, ranges.dead | _meaningless(family, reading, ranges)) if spare else edit

    def one_network(ranges: Ranges, fractions: Array, keys: Array | None) -> Edit:
        if keys is None:
            return jax.vmap(lambda fraction: one_point(ranges, fraction))(fractions)
        edit = jax.vmap(lambda key: jax.vmap(lambda fraction: one_point(ranges, fraction, key))(fractions))(keys)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), edit)

    if ranges.low.ndim == 1:
        return one_network(ranges, fractions, keys)
    axes = (0, 0 if fractions.ndim == 2 else None, None if keys is None else 0)
    return jax.vmap(one_network, axes)(ranges, fractions, keys)


def _one_point(family: Family, reading: str, ranges: Ranges, fraction: Array, *key: Array) -> Edit:
    """What a family's function gives; numbers that an affine edit has for all units are those of each."""
    edit = family.edit(ranges, fraction, *((reading,) if family.option else ()), *key)
    if isinstance(edit, Affine):
        return Affine(*(jnp.broadcast_to(leaf, ranges.low.shape) for leaf in edit))
    return edit


def keys(purpose: str, seeds: Sequence[int], draws: int) -> np.ndarray:
    """The data [S, K, 2] of the keys of each seed's draws: they depend on its number and the purpose alone."""
    start = jax.random.fold_in(jax.random.key(0, impl=PRNG), zlib.crc32(purpose.encode()))
    return np.asarray(_keys(start, jnp.asarray(list(seeds)), draws=draws))


@functools.partial(jax.jit, static_argnames="draws")
def _keys(start: Array, seeds: Array, draws: int) -> Array:
    def key(seed: Array, draw: Array) -> Array:
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(start, seed), draw))

    return jax.vmap(lambda seed: jax.vmap(lambda draw: key(seed, draw))(jnp.arange(draws)))(seeds)


def random_signs(keys: AnyArray, units: int) -> np.ndarray:
    """A random sign of every unit for each of the keys' data [S, K, 2]: [S, K, H] of +-1, float32."""
    return np.asarray(jax.vmap(jax.vmap(lambda key: moving_families.signs(key, units)))(jnp.asarray(keys)))


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
