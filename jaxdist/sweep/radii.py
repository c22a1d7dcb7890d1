"""Tolerance radii finer than the grid: the bracket around each network's first exit, narrowed by the sweep's kernel.

A pass puts some points into every bracket and counts; all networks, sides and families run together in one compiled
program, the same for every pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from jaxdist import crossings
from jaxdist.compute import Examples, to_host
from jaxdist.config import SweepConfig
from jaxdist.crossings import Bracket
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import taps
from jaxdist.perturbations import edits, families
from jaxdist.sweep import ensemble_sweep
from jaxdist.types import Flags, Params, Ranges, Values

Side = Literal["below", "above"]

MOST_PASSES = 16
"""No more passes than this, by which every bracket is down to neighbouring float32 fractions."""


class Search(NamedTuple):
    """One family and side, with the bracket in which the grid found each network's first exit."""

    family: str
    side: Side
    bracket: Bracket  # [S] each, as `crossings.tolerance` gives it


class Radius(NamedTuple):
    """Where each network's accuracy has first dropped by the margin, as a fraction of the family, each [S]."""

    exit: Values  # between the bracket's ends, by linear interpolation of the drop; infinite where censored
    bracket: Bracket


def refine(
    model: taps.Model,
    params: Params,
    sites: Mapping[str, Ranges],
    searches: Sequence[Search],
    examples: Examples,
    options: SweepConfig,
    *,
    margin: float,
    tolerance: float = 1e-4,
    points: int = 15,
    precision: str = "float32",
    block: int | None = None,
) -> list[Radius]:
    """Narrow the brackets of an ensemble (stacked parameters) on some examples; one radius a search.

    `sites` are edited together, each by its ranges [S, H].

    A bracket is done when its width is at most `tolerance`, a fraction or, for a family with logarithmic spacing, a
    difference of logarithms; or when its ends' drops differ by one image at most. Each pass keeps the first of
    `points` subdivisions, walking outward, that is outside the margin (a fraction of accuracy). What is censored stays
    so. Each network's result is independent of the others'.

    Raises:
      InputError: for a margin, tolerance or number of points that is not positive, or brackets that do not fit.
    """
    seeds = jax.tree.leaves(params)[0].shape[0]
    _check(searches, seeds, margin, tolerance, points)
    if not searches:
        return []
    total = int(to_host(examples.total))
    found = [search.bracket for search in searches]
    known = [families.get(search.family) for search in searches]
    for _ in range(MOST_PASSES):
        undecided = [
            _undecided(bracket, family, total, tolerance) for bracket, family in zip(found, known, strict=True)
        ]
        if not np.any(undecided):
            break
        inner = [
            subdivided(bracket, family, points) for bracket, family in zip(found, known, strict=True)
        ]  # [S, points] each
        made = {
            site: edits.concatenate(
                [families.build(family.name, ranges, at, options) for family, at in zip(known, inner, strict=True)]
            )
            for site, ranges in sites.items()
        }
        counts = ensemble_sweep.sweep(model, params, made, examples, precision=precision, block=block)
        lost = np.asarray(counts.unperturbed, np.int64)[:, None] - np.asarray(counts.correct, np.int64)
        drops: Values = np.round(lost / total, crossings.DECIMALS)
        found = [
            narrowed(bracket, fractions, of_these, margin, open_)
            for bracket, fractions, of_these, open_ in zip(
                found, inner, np.split(drops, len(searches), axis=1), undecided, strict=True
            )
        ]
    return [
        Radius(_exit(bracket, family, search.side, margin), bracket)
        for bracket, family, search in zip(found, known, searches, strict=True)
    ]


def subdivided(bracket: Bracket, family: families.Family, points: int) -> Values:
    """Fractions [S, points] inside each bracket, evenly spaced in the family's coordinate, walking outward.

    Where there is no bracket they are the family's identity.
    """
    missing = np.isnan(bracket.inside)
    start, end = (np.where(missing, family.identity, ends)[:, None] for ends in (bracket.inside, bracket.outside))
    share = np.arange(1, points + 1) / (points + 1)
    between = _from(family, (1 - share) * _to(family, start) + share * _to(family, end))
    # Edits are built from float32 fractions; rounding must not lead out of the bracket.
    rounded = between.astype(np.float32).astype(np.float64)
    return np.clip(rounded, np.minimum(start, end), np.maximum(start, end))


def narrowed(bracket: Bracket, fractions: Values, drops: Values, margin: float, undecided: Flags) -> Bracket:
    """The part of each bracket from the last of its points before the first exit to that exit.

    `fractions` and `drops` are [S, points], walking outward; brackets that are not `undecided` stay as they are.
    """
    path = np.column_stack([bracket.inside, fractions, bracket.outside])
    along = np.column_stack([bracket.drop_inside, drops, bracket.drop_outside])
    # The bracket's own ends are inside and outside by definition.
    outside = along >= round(margin, crossings.DECIMALS)
    outside[:, 0], outside[:, -1] = False, True
    first, row = outside.argmax(axis=1), np.arange(len(path))
    ends = (path[row, first - 1], path[row, first], along[row, first - 1], along[row, first])
    return Bracket(*(np.where(undecided, new, old) for new, old in zip(ends, bracket, strict=True)))


def _undecided(bracket: Bracket, family: families.Family, total: int, tolerance: float) -> Flags:
    missing = np.isnan(bracket.inside)
    inside, outside = (np.where(missing, family.identity, ends) for ends in (bracket.inside, bracket.outside))
    wide = np.abs(_to(family, outside) - _to(family, inside)) > tolerance
    images = np.round((bracket.drop_outside - bracket.drop_inside) * total)
    return ~missing & wide & (images > 1) & (inside.astype(np.float32) != outside.astype(np.float32))


def _exit(bracket: Bracket, family: families.Family, side: Side, margin: float) -> Values:
    exits = np.full(len(bracket.inside), np.inf if side == "above" else -np.inf)
    here = ~np.isnan(bracket.inside)
    inside, outside, before, after = (values[here] for values in bracket)
    share = (margin - before) / (after - before)
    crossing = _from(family, _to(family, inside) + share * (_to(family, outside) - _to(family, inside)))
    exits[here] = np.clip(crossing, np.minimum(inside, outside), np.maximum(inside, outside))
    return exits


def _to(family: families.Family, fractions: Values) -> Values:
    """The coordinate in which a family's fractions are evenly spaced."""
    return np.log(fractions) if family.spacing == "log" else fractions


def _from(family: families.Family, coordinate: Values) -> Values:
    return np.exp(coordinate) if family.spacing == "log" else coordinate


def _check(searches: Sequence[Search], seeds: int, margin: float, tolerance: float, points: int) -> None:
    for name, number in (("margin", margin), ("tolerance", tolerance), ("points", points)):
        if not number > 0:
            raise InputError(f"{name}: expected a number above 0, got {number}")
    for search in searches:
        family = families.get(search.family)
        for name, values in search.bracket._asdict().items():
            if np.shape(values) != (seeds,):
                raise InputError(
                    f"{family.name}, {search.side}: expected {name} of {counted(seeds, 'network')}, got shape "
                    f"{np.shape(values)}"
                )
