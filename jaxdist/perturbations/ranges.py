"""Per-unit ranges of a site's values over the training images, block by block.

A rule (`rules`) says what a unit's range is. None keeps values: extremes and moments merge, and a quantile is found
digit by digit from counts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdist.compute import (
    SEED,
    Examples,
    Reducer,
    blocks,
    fold_blocks,
    over_networks,
    to_host,
)
from jaxdist.errors import InputError
from jaxdist.networks import Action, Model, Sites, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import rules
from jaxdist.perturbations.rules import Rule
from jaxdist.types import Params, Ranges

Side = Literal["pre", "post"]
Values: TypeAlias = "dict[str, tuple[Array, Array | None]]"
"""By site: one block's values on the measured side, and those behind the activation where the model says which."""

MINMAX = Rule()

LARGE = (1e2, 1e3)
"""Values that an activation has to pass nearly unchanged if ranges behind it are to mean anything in front of it."""


def passes_large_values(action: Action, shape: tuple[int, ...]) -> bool:
    """Whether a function gives large positive values of that shape back nearly unchanged, as relu does."""
    for large in LARGE:
        value = jnp.full(shape, large, jnp.float32)
        result = np.asarray(action(value), np.float32)
        if result.shape != shape or not np.allclose(result, large, rtol=1e-2):
            return False
    return True


def _function_behind(model: Model, site: str) -> Callable[[Array], Array] | None:
    follows = model.after(site)
    return None if isinstance(follows, str) else follows


def _made_of(function: Callable[[Array], Array], values: np.ndarray) -> np.ndarray:
    return np.asarray(function(jnp.asarray(values, jnp.float32)), np.float32)


_SIZES = np.geomspace(1e-3, 1e3, 61).astype(np.float32)
"""Sizes at which an activation is looked at; what it does between them is taken to be alike."""


def is_even(model: Model, site: str) -> bool:
    """Whether the activation behind a site is known to give the same for h and -h."""
    function = _function_behind(model, site)
    return function is not None and np.array_equal(_made_of(function, _SIZES), _made_of(function, -_SIZES))


def gives_back_positive_values(model: Model, site: str) -> bool:
    """Whether the activation behind a site is known to leave 0 and positive values as they are, as relu and abs do."""
    function, values = _function_behind(model, site), np.append(np.float32(0), _SIZES)
    return function is not None and np.array_equal(_made_of(function, values), values)


def is_one_sided(model: Model, site: str) -> bool:
    """Whether the activation is known to make 0 of negative values, or of a value what it makes of minus that."""
    function = _function_behind(model, site)
    return function is not None and (is_even(model, site) or not _made_of(function, -_SIZES).any())


def keeps_positive_values(model: Model, site: str) -> bool:
    """Whether the activation behind a site is known to make no positive value smaller, as relu does and gelu does not.

    A clip at the largest value behind such an activation cuts nothing in front of it.
    """
    function = _function_behind(model, site)
    return function is not None and bool((_made_of(function, _SIZES) >= _SIZES).all())


def check(model: Model, listed: Sites, sites: tuple[str, ...], measured_on: Side) -> None:
    """Refuse ranges behind an activation where they cannot be measured, or mean nothing in front of it.

    What another site holds cannot be evaluated by itself, so an activation that is given as a site is accepted.

    Args:
      model: it says what follows each site.
      listed: the model's sites, as `model.sites_for_one` lists them.
      sites: keys of those to measure.
      measured_on: the side of the activation; with "pre" nothing is refused.

    Raises:
      InputError: for the first of `sites` behind which nothing is known, or large values are changed, with 'post'.
    """
    if measured_on == "pre":
        return
    for site in sites:
        follows = model.after(site)
        if follows is None:
            raise InputError(
                f"site '{site}': ranges after the activation need post={{'{site}': fn}}; pass that, or use "
                "measured_on 'pre'"
            )
        if not isinstance(follows, str) and not passes_large_values(follows, listed.shape(site)):
            raise InputError(
                f"site '{site}': its activation changes large values, so ranges measured after it do not apply to the "
                "values before it, which are edited; use measured_on 'pre'"
            )


class Prepared(NamedTuple):
    """What measures the ranges of one network, and what it is given."""

    measure: Extent | Quantiles
    given: dict[str, np.ndarray]
    """By site, a leading S."""
    size: int
    """Examples a block."""


def prepared(
    model: Model,
    params: Params,
    examples: Examples,
    sites: tuple[str, ...],
    *,
    measured_on: Side = "post",
    rule: Rule = MINMAX,
    block: int | None = None,
) -> Prepared:
    """What `measure` runs for the same arguments.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of the split to measure on.
      sites: keys of the values to measure.
      measured_on: the side of the activation.
      rule: what a unit's range is.
      block: examples a block; chosen by default.

    Raises:
      InputError: as `measure` does, but for `check_values`.
    """
    listed = networks_model.sites_for_one(model, params, examples.x, sites)
    check(model, listed, sites, measured_on)
    network, x = _shapes_of_one(params, examples)
    shapes = jax.eval_shape(Sides(model, sites, measured_on), network, x)
    images = int(to_host(examples.total))
    counts = {
        site: images * (math.prod(measured.shape) // measured.shape[model.axis_of(site)])
        for site, (measured, _) in shapes.items()
    }
    rules.check(rule, counts)
    ranked = rule.kind == "quantile"
    ranks_by_site = {site: rules.ranks(count, rule.quantile) for site, count in counts.items()} if ranked else {}
    seeds = jax.tree.leaves(params)[0].shape[0]
    tiled = {site: np.tile(ranks, (seeds, 1)) for site, ranks in ranks_by_site.items()}
    sides = Sides(model, sites, measured_on)
    deviations = rule.deviations if rule.kind == "sd" else 0.0
    chosen = Quantiles(sides) if ranked else Extent(sides, rule.kind, deviations)
    return Prepared(chosen, tiled, sizes.of_block(block, listed))


def measure(
    model: Model,
    params: Params,
    examples: Examples,
    sites: tuple[str, ...],
    *,
    measured_on: Side = "post",
    rule: Rule = MINMAX,
    precision: str = "float32",
    block: int | None = None,
) -> dict[str, Ranges]:
    """Measure the ranges [S, H] of each site over all examples, and fetch them.

    Dead units are always those whose activation stays 0, and none where the model does not say what follows the site.
    Values have examples on their first axis, or on the second where units are on the first.

    Args:
      model, params, examples, sites, measured_on, rule, block: as in `prepared`.
      precision: of matrix products.

    Raises:
      InputError: if the model does not reach a site, `check` or `check_values` refuses it, or the rule's numbers are
        out of bounds.
    """
    how = prepared(model, params, examples, sites, measured_on=measured_on, rule=rule, block=block)
    measured: dict[str, Ranges] = over_networks(
        how.measure, params, how.given, examples, size=how.size, precision=precision
    )
    check_values(model, params, examples, sites, block=block)
    return measured


def check_values(
    model: Model, params: Params, examples: Examples, sites: tuple[str, ...], *, block: int | None = None
) -> None:
    """Refuse sites whose own values, or those of what follows, are NaN because a branch around them is not taken.

    An activation may make numbers of NaN, so it is the values themselves that are looked at.

    Args:
      model: the networks' function.
      params: stacked, with a leading S, all finite.
      examples: of the split that ranges are measured on.
      sites: keys of the values.
      block: examples a block; chosen by default.

    Raises:
      InputError: for the first of `sites` that is so.
    """
    listed = networks_model.sites_for_one(model, params, examples.x, sites)
    behind = {site: follows for site in sites if isinstance(follows := model.after(site), str)}
    branched = [
        key
        for key in dict.fromkeys((*sites, *behind.values()))
        if any("cond" in each.inside for each in listed.of(key))
    ]
    if not branched:
        return
    reads = Extent(Sides(dataclasses.replace(model, post=()), tuple(branched), "pre"), "minmax", 0.0)
    extremes = over_networks(reads, params, {}, examples, size=sizes.of_block(block, listed))
    missing = {key for key in branched if not (extremes[key].low <= extremes[key].high).all()}
    for site in sites:
        if not missing.isdisjoint({site, behind.get(site)}):
            raise InputError(
                f"site '{site}': it is in a branch of jax.lax.cond or switch that is not always taken, so it does not "
                "always have values and its ranges are undefined; name a call ('#1') or an iteration ('@0') that is "
                "taken, or a site outside the branches"
            )


def _shapes_of_one(params: Params, examples: Examples) -> tuple[Params, Any]:
    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    return network, networks_model.shapes_of_one(examples.x)


@dataclasses.dataclass(frozen=True)
class Sides:
    """What is measured of a block, and what decides whether a unit is dead."""

    model: Model
    sites: tuple[str, ...]
    measured_on: Side

    def __call__(self, params: Params, x: Array) -> Values:
        return self.with_logits(params, x)[1]

    def with_logits(self, params: Params, x: Array) -> tuple[Array, Values]:
        """The logits too, of the same evaluation."""
        logits, values, behind = networks_model.read_after(self.model, params, x, self.sites)
        post = self.measured_on == "post"
        return logits, {site: (behind[site] if post else pre, behind.get(site)) for site, pre in values.items()}

    def units(self, params: Params, x: Array) -> dict[str, int]:
        """How many units each site has."""
        shapes = jax.eval_shape(self, params, x)
        return {site: measured.shape[self.model.axis_of(site)] for site, (measured, _) in shapes.items()}


@dataclasses.dataclass(frozen=True)
class Summary(Reducer):
    """Extremes or moments of each site's units, and which units never showed anything."""

    sides: Sides
    kind: str

    def init(self, params: Params, given: Any, x: Array) -> dict[str, Any]:
        # Where the model does not say what follows a site, no unit is known to be dead.
        has_post = {site: post is not None for site, (_, post) in jax.eval_shape(self.sides, params, x).items()}
        units = self.sides.units(params, x)
        return {site: (rules.empty(self.kind, units[site]), jnp.full(units[site], has_post[site])) for site in has_post}

    def update(self, state: dict[str, Any], params: Params, given: Any, block: blocks.Block) -> dict[str, Any]:
        return self.added(state, block.with_inputs(functools.partial(self.sides, params)), block)

    def added(self, state: dict[str, Any], values: Values, block: blocks.Block) -> dict[str, Any]:
        """The state with a block's values."""
        summary: Callable[..., Any] = rules.moments if self.kind == "sd" else rules.extremes
        result = {}
        for site, (measured, post) in values.items():
            (so_far, idle), axis = state[site], self.sides.model.axis_of(site)
            if post is not None:
                counted = blocks.rows_of(block.valid, post, axis)
                idle = idle & ((post == 0) | ~counted).all(rules.others(post, axis))
            result[site] = self._merged(so_far, summary(measured, block.valid, axis)), idle
        return result

    def merge(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        return {site: (self._merged(a, second[site][0]), idle & second[site][1]) for site, (a, idle) in first.items()}

    def _merged(self, first: Any, second: Any) -> Any:
        merge: Callable[..., Any] = rules.pooled if self.kind == "sd" else rules.wider
        return merge(first, second)


@dataclasses.dataclass(frozen=True)
class AtMost(Reducer):
    """How many of each unit's values are at most each threshold, by site; the thresholds [K, 2, H] are given."""

    sides: Sides

    def init(self, params: Params, given: dict[str, Array], x: Array) -> dict[str, Array]:
        return {site: jnp.zeros(thresholds.shape, jnp.int32) for site, thresholds in given.items()}

    def update(
        self, state: dict[str, Array], params: Params, given: dict[str, Array], block: blocks.Block
    ) -> dict[str, Array]:
        values, model = block.with_inputs(functools.partial(self.sides, params)), self.sides.model
        return {
            site: counts + rules.at_most(values[site][0], given[site], block.valid, model.axis_of(site))
            for site, counts in state.items()
        }


@dataclasses.dataclass(frozen=True)
class Extent(Summary):
    """The ranges [H] of one network's sites, of extremes or moments."""

    deviations: float

    def result(self, state: dict[str, Any], total: Array) -> dict[str, Ranges]:
        result = {}
        for site, (summary, idle) in state.items():
            if isinstance(summary, rules.Moments):
                around = self.deviations * jnp.sqrt(summary.squares / summary.number.astype(jnp.float32))
                result[site] = Ranges(summary.mean - around, summary.mean + around, idle)
            else:
                result[site] = Ranges(summary.low, summary.high, idle)
        return result


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """The ranges [H] of one network's sites between two quantiles, given their ranks [2]; it walks several times."""

    sides: Sides

    def __call__(self, params: Params, given: dict[str, Array], examples: Examples, size: int) -> dict[str, Ranges]:
        (summaries,) = fold_blocks((Summary(self.sides, "quantile"),), params, given, examples, size)
        quantiles = self._select(params, given, examples, size)
        result = {}
        for site, (extremes, idle) in summaries.items():
            # Among sorted values NaN would count as the largest.
            undefined = jnp.isnan(extremes.low) | jnp.isnan(extremes.high)
            low, high = (jnp.where(undefined, jnp.nan, quantile) for quantile in quantiles[site])
            result[site] = Ranges(low, high, idle)
        return result

    def _select(self, params: Params, ranks: dict[str, Array], examples: Examples, size: int) -> dict[str, Array]:
        """Find the values [2, H] of the wanted ranks [2] by site, some bits of their keys a pass, the highest first.

        Counts are integers, so the result is a value that occurs, the same whatever the blocks and devices.
        """
        units = self.sides.units(params, networks_model.shapes_of_one(examples.x))

        def narrow(prefixes: dict[str, Array], shift: Array) -> tuple[dict[str, Array], None]:
            steps = jnp.arange(2**rules.BITS - 1, dtype=jnp.uint32)[:, None, None] << shift
            thresholds = {site: f[None] | steps | ((jnp.uint32(1) << shift) - 1) for site, f in prefixes.items()}
            (counts,) = fold_blocks((AtMost(self.sides),), params, thresholds, examples, size)
            digits = {site: (counts[site] < ranks[site][None, :, None]).sum(0, dtype=jnp.uint32) for site in prefixes}
            return {site: prefixes[site] | (digits[site] << shift) for site in prefixes}, None

        start = {site: blocks.varying(jnp.zeros((2, units[site]), jnp.uint32), SEED) for site in ranks}
        keys, _ = lax.scan(narrow, start, jnp.arange(32 - rules.BITS, -1, -rules.BITS, dtype=jnp.uint32))
        return {site: rules.unordered(key) for site, key in keys.items()}
