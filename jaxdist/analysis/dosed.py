"""What a result holds of families that were swept with their doses, series by series, and what it lacks for a verdict.

Arrays hold fractions. A *gauge* is how an even activation's units were signed: `as_is`, `averaged` over random signs,
or `absolute`, which edits the absolute value.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import xarray as xr

from jaxdist.analysis import preference
from jaxdist.analysis.preference import Path
from jaxdist.analysis.series import Series, series_of
from jaxdist.perturbations import families
from jaxdist.sweep import crossings, fitness, results
from jaxdist.types import Values

GAUGES = {"as_is": "", "averaged": "averaged_", "absolute": "absolute_"}
"""What the groups of each gauge begin with."""
NEEDED = ("clip", "offset", preference.NOISE, *preference.SMALL, preference.LARGE)
"""The families that verdict and rho are made of."""

UNSEEN = 1e-3
"""The largest dose of a family that no dose shows, which is 0 but for the rounding of sums in float32."""

Place: TypeAlias = tuple[str, str, str]
"""A network, a site and a split."""


class Swept(NamedTuple):
    """One family of a network at one site on one split, with its doses; arrays as in `Series`."""

    series: Series
    gauge: str
    weighted: bool  # by the outgoing weights; else every unit counts alike
    dose: Values  # [S, P] angular
    rms: Values  # [S, P] relative root mean square change
    rms_plain: Values  # [S, P] the same, unweighted
    flips: Values  # [S, P]
    flips_sd: Values  # [S, P] over draws, NaN of families without

    @property
    def place(self) -> Place:
        """Where it was measured."""
        return self.series.network, self.series.site, self.series.split

    @property
    def unseen(self) -> bool:
        """Whether the family has no dose wherever it goes, as one scale common to all units of a ReLU network.

        Most networks decide: a unit that is dead on the training images is spared, and may not be dead on others.
        """
        most = np.fmax.reduce(self.dose, axis=1)
        return bool(np.median(most[~np.isnan(most)] if (~np.isnan(most)).any() else np.inf) < UNSEEN)

    def paths(self) -> Iterator[tuple[str, Path]]:
        """The sides that have points, walking outward; none of a family that edits at every fraction."""
        series = self.series
        if series.identity is None:
            return
        for side in series.traits.sides:
            if len(crossings.outward(series.fraction, series.identity, side)):
                yield side, preference.path(series.fraction, self.dose, self.flips, identity=series.identity, side=side)


def has_doses(result: xr.DataTree) -> bool:
    """Whether any family was swept with its dose."""
    return any("dose" in result[name] for name in results.families_of(result))


def swept(result: xr.DataTree) -> list[Swept]:
    """Every family of a result that has doses, in each gauge."""
    sweeps, chances = [], fitness.chances(result)
    for (family, traits), (gauge, prefix) in itertools.product(results.families_of(result).items(), GAUGES.items()):
        if f"{prefix}{family}" not in result.children or "dose" not in result[family].data_vars:
            continue
        group = results.over_draws(result[f"{prefix}{family}"].to_dataset())
        for series in series_of(traits, group, chances):
            if series.flips is None:
                continue
            part = group.sel(network=series.network, site=series.site, split=series.split, seed=series.seeds)
            # Other gauges have counts, and doses only where they were measured too.
            unknown = np.full(series.flips.shape, np.nan)
            dose, rms, rms_plain = (
                part[name].to_numpy() if name in part else unknown for name in ("dose", "rms", "rms_plain")
            )
            sd = part.agree_sd.to_numpy() / series.total if "agree_sd" in part else unknown
            weighted = bool(part["weighted"]) if "weighted" in part else True
            sweeps.append(Swept(series, gauge, weighted, dose, rms, rms_plain, series.flips, sd))
    return sweeps


def chosen_split(found: Sequence[Swept]) -> str:
    """The split that verdicts and the figure show: test images where they were swept, which no network was fit to."""
    splits = {sweep.series.split for sweep in found}
    return "test" if "test" in splits else min(splits)


def lacking(result: xr.DataTree) -> list[str]:
    """The families that a verdict needs and the result has not been swept for with doses."""
    return [name for name in NEEDED if name not in result.children or "dose" not in result[name]]


def command(result: xr.DataTree, folder: object) -> str:
    """The command that adds what a verdict needs to what was swept."""
    options = results.options_of(result)
    parts = ["jaxdist sweep", shlex.quote(str(folder)), "--sweep.families", ",".join(_families_to_sweep(result))]
    parts.append("--sweep.dose true")
    # Small values are erased behind the activation, and several sites edited together have no dose.
    parts += ["--ranges.measured_on post"] if options.ranges.measured_on == "pre" else []
    parts += ["--sweep.layers each"] if options.sweep.layers == "all" else []
    return " ".join(parts)


def remedy(result: xr.DataTree, folder: object) -> str:
    """What to do for a verdict; of a network that was measured from Python, there is no command for it."""
    groups = [result[name] for name in results.families_of(result)]
    if any("correct" not in group or group.attrs.get("of") == "tokens" for group in groups):
        return "a verdict compares the class of each example, but this network gives none or several"
    if "config" in result.attrs:
        return f"measure them with '{command(result, folder)}'"
    return f"probe again with dose=True and families={_families_to_sweep(result)}"


def _families_to_sweep(result: xr.DataTree) -> tuple[str, ...]:
    """The families to sweep: those that were swept, as their config names them, and those that are needed."""
    own = [name for name in results.options_of(result).sweep.families if name not in families.BUILT_IN]
    return *(name for name in families.BUILT_IN if name in result.children or name in NEEDED), *own
