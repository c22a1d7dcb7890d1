"""Every family at fractions of its own that give one dose, so that points share an axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr

from jaxdist.perturbations import families
from jaxdist.sweep import crossings, family_sweeps, groups, labels
from jaxdist.sweep.counting import Context, Dosings
from jaxdist.sweep.crossings import Bracket
from jaxdist.sweep.waves import Subject
from jaxdist.types import Ranges, Values

PASSES = 3
"""Sweeps of one point an edge and dose that narrow what the grid found."""

NEAR = 0.05
"""How far from what was wanted a dose may be, as a share of that."""

Place = tuple[str, str, str]
"""A family, a network, a target."""


class Search:
    """The fractions [S, sides * D] of one family, network and target that are to give the doses [D] on each side."""

    def __init__(self, family: str, identity: float, grid: Values, dose: Values, wanted: Values) -> None:
        self.family, self.identity, self.wanted = families.get(family), identity, wanted
        # A network that somewhere has no dose, as where dead units make an edit 0/0, is never matched.
        dose = np.where(np.isnan(dose).any(1, keepdims=True), 0, dose)
        self.brackets = [
            crossings.first_exit(
                grid,
                dose,
                identity=identity,
                coordinate=self.family.spacing,
                side=side,
                margin=float(level),
            ).bracket
            for side in self.family.sides
            for level in wanted
        ]

    @property
    def levels(self) -> Values:
        """The dose wanted of each fraction, [sides * D]."""
        return np.tile(self.wanted, len(self.family.sides))

    @property
    def reached(self) -> np.ndarray:
        """Whether the family's grid reaches the dose, [S, sides * D]."""
        return ~np.isnan(np.stack([bracket.inside for bracket in self.brackets], 1))

    def met(self, dose: Values) -> np.ndarray:
        """Whether the doses at `fractions` are those wanted, [S, sides * D]; where values are alike, doses jump."""
        return self.reached & (np.abs(dose - self.levels) <= NEAR * self.levels)

    def fractions(self) -> Values:
        """Where the dose is as wanted if it is linear within each bracket; no edit where it is never reached."""
        positions = [_within(bracket, level) for bracket, level in zip(self.brackets, self.levels, strict=True)]
        return np.where(self.reached, np.stack(positions, 1), self.identity)

    def narrow(self, dose: Values) -> None:
        """Go on from the doses that were found at `fractions`."""
        at = self.fractions()
        self.brackets = [
            _narrowed(bracket, at[:, k], dose[:, k], self.levels[k]) for k, bracket in enumerate(self.brackets)
        ]


def _within(bracket: Bracket, level: float) -> Values:
    drops, fractions = (np.stack(ends, axis=-1) for ends in (bracket[2:], bracket[:2]))
    return crossings.first_crossing(drops, np.full(len(drops), level)).along(fractions)


def _narrowed(bracket: Bracket, fraction: Values, dose: Values, level: float) -> Bracket:
    """The part of a bracket that holds the level."""
    # A dose that rounding puts outside the bracket's own ends narrows nothing.
    inside = (dose > bracket.drop_inside) & (dose < bracket.drop_outside)
    low, high = inside & (dose < level), inside & (dose >= level)
    return Bracket(
        np.where(low, fraction, bracket.inside),
        np.where(high, fraction, bracket.outside),
        np.where(low, dose, bracket.drop_inside),
        np.where(high, dose, bracket.drop_outside),
    )


def match_dose(
    subjects: Mapping[str, Subject],
    measured: Mapping[str, Mapping[str, Ranges]],
    swept: Mapping[str, xr.Dataset],
    identities: Mapping[str, float | None],
    context: Context,
    dosings: Dosings,
) -> dict[str, xr.Dataset]:
    """Solve every family's fraction for the options' doses, network by network, and count there: a group each.

    Doses are those on the training images where these are counted on, else on the first split; the fractions are then
    the same on every split. A family that edits everywhere has no side to walk, and a common scale no dose.

    Args:
      subjects: by network.
      measured: the ranges [S, H] by network and site.
      swept: by family, its sweep at its grid, with doses.
      identities: where each family edits nothing, if anywhere.
      context: what the study shares.
      dosings: how doses are measured, of every network and target of one site.

    Raises:
      InputError: as `family_sweeps.sweep` does.
    """
    levels = np.asarray(context.options.sweep.matched, np.float64)
    context = context._replace(targets={target: context.targets[target] for target in context.single})
    split = min(context.counted_splits, key=lambda name: name != "train")
    searches: dict[Place, Search] = {}
    for family, group in swept.items():
        identity = identities[family]
        if families.get(family).effect == "scale" or identity is None:
            continue
        doses = _doses(group, split)
        for name, target in dosings:
            dose = doses.sel(network=name, site=target).to_numpy()
            searches[family, name, target] = Search(family, identity, group.fraction.to_numpy(), dose, levels)

    if not searches:
        return {}

    def swept_at(job: str, context: Context) -> dict[str, xr.Dataset]:
        own = {place: search.fractions() for place, search in searches.items()}
        grids = {place[0]: np.zeros(fractions.shape[1]) for place, fractions in own.items()}
        return family_sweeps.sweep(subjects, measured, context, dosings, job=job, grids=grids, own=own)

    chosen = tuple(name for name in context.options.sweep.splits if name == split)
    only = dataclasses.replace(context.options.sweep, splits=chosen)
    narrowing = context._replace(options=dataclasses.replace(context.options, sweep=only))
    for k in range(PASSES):
        doses_at = {family: _doses(group, split) for family, group in swept_at(f"match {k + 1}", narrowing).items()}
        for (family, name, target), search in searches.items():
            search.narrow(doses_at[family].sel(network=name, site=target).to_numpy())
    final = swept_at("matched", context)
    fractions = {
        family: xr.full_like(group.unperturbed.isel(split=0), np.nan, float)
        .expand_dims({"site": group.site, "fraction": group.sizes["fraction"]}, (2, 3))
        .copy()
        for family, group in final.items()
    }
    for (family, name, target), search in searches.items():
        place = {"network": name, "site": target}
        met = search.met(_doses(final[family], split).sel(network=name, site=target).to_numpy())
        fractions[family].loc[place] = np.where(met, search.fractions(), np.nan)
    return {
        f"matched_{family}": groups.matched(group, fractions[family].to_numpy(), levels, family, context.totals)
        for family, group in final.items()
    }


def _doses(swept: xr.Dataset, split: str) -> xr.DataArray:
    """The angular doses of a sweep on one split, over the draws, (network, seed, site, fraction)."""
    return labels.over_draws(swept).dose.sel(split=split)
