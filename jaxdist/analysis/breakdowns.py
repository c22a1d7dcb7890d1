"""A result's further groups as tables: pairs of families, units one by one, networks along training.

Data frames hold fractions, as in `jaxdist.analysis.tables`; a group that a result does not have gives an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist import formatting
from jaxdist.analysis import tables
from jaxdist.analysis.series import series_of
from jaxdist.config import StatisticsConfig
from jaxdist.perturbations import Traits, families
from jaxdist.sweep import Chance, crossings, fitness, results

UNIT = ["network", "seed", "site", "split", "unit"]
RANKED = ["network", "seed", "site", "split", "family", "fraction"]
"""What stays the same where units are ranked."""


class Pair(NamedTuple):
    """Two families edited at once, on a grid of both fractions; without networks at chance, which have no margin."""

    first: str
    second: str
    identity: tuple[float | None, float | None]
    """Where neither edits anything, if there is such a point."""
    points: pd.DataFrame
    """One row a network, site, split and pair of fractions; `accuracy`, `drop` and `agree` are means over `seeds`."""


def pairs(result: xr.DataTree) -> Iterator[Pair]:
    """Every pair of families that was swept together."""
    for name in (name for name in result.children if name.startswith("grid_")):
        group = result[name].to_dataset()
        there = (group.correct != results.MISSING) & ~_left_out(group, fitness.chances(result))
        means = xr.Dataset(
            {
                "accuracy": (group.correct / group.total).where(there).mean("seed"),
                "drop": ((group.unperturbed - group.correct) / group.total).where(there).mean("seed"),
                "agree": (group.agree / group.total).where(there).mean("seed"),
                "seeds": there.sum("seed"),
            }
        )
        frame = means.to_dataframe(["network", "site", "split", "first", "second"]).reset_index()
        frame = frame[frame.seeds > 0]
        frame["drop"] = frame["drop"].round(crossings.DECIMALS)
        identity = (group.attrs.get("identity_first"), group.attrs.get("identity_second"))
        yield Pair(str(group.attrs["first"]), str(group.attrs["second"]), identity, frame)


def _left_out(group: xr.Dataset, chances: Mapping[tuple[str, str], Chance]) -> xr.DataArray:
    """Which networks of a group have no verdict of accuracy, bool over (network, seed, split)."""
    out = xr.zeros_like(group.unperturbed, bool)
    for (network, split), chance in chances.items():
        if not chance.control and network in group.network and split in group.split:
            out.loc[{"network": network, "split": split}] = chance.of(group.seed)
    return out


def _families(result: xr.DataTree, kind: str) -> dict[str, Traits]:
    """The families that a result has groups of a kind of."""
    every: dict[str, Traits] = {name: families.get(name) for name in families.BUILT_IN}
    every |= results.families_of(result)
    return {name: traits for name, traits in every.items() if f"{kind}_{name}" in result.children}


def units(result: xr.DataTree) -> pd.DataFrame:
    """One row a network, seed, site, split, family, fraction and unit, edited alone.

    `flips` is the share of images whose class changes, `drop` the accuracy lost, and `kl_change`, say, how far the
    metric's mean moves. `rank` begins at 1 with the unit of
    most flips, within one network and seed, since unit k of one seed is not unit k of another. Where sensitivities
    were measured they are joined as `sensitivity_offset` and `sensitivity_log_scale`; alone they are the whole table.
    """
    frames = []
    for family in _families(result, "units"):
        group = result[f"units_{family}"].to_dataset()
        there = group.correct != results.MISSING
        shares = xr.Dataset(
            {
                "flips": (1 - group.agree / group.total).where(there),
                "drop": ((group.unperturbed - group.correct) / group.total).where(there),
            }
        ).round(crossings.DECIMALS)
        changes = {
            f"{name}_change": group.metric_change.sel(metric=name, drop=True).where(there)
            for name in (group.metric.to_numpy() if "metric" in group.dims else ())
        }
        shares = shares.assign(changes)
        frame = shares.to_dataframe(["network", "seed", "site", "split", "fraction", "unit"]).dropna().reset_index()
        frames.append(frame.assign(family=family))
    table = pd.DataFrame(columns=UNIT)
    if frames:
        table = pd.concat(frames, ignore_index=True)
        table = table[["network", "site", "seed", "split", "family", "fraction", "unit", "flips", "drop", *changes]]
        ordered = table.sort_values(["flips", "drop"], ascending=False, kind="stable")
        table["rank"] = ordered.groupby(RANKED, sort=False).cumcount() + 1
        # Networks, sites and families stay in the result's order, which is not the alphabet's.
        place = table.groupby(RANKED, sort=False).ngroup()
        table = table.iloc[np.lexsort((table["rank"], place))].reset_index(drop=True)
    if "sensitivity" in result.children:
        measured = result["sensitivity"].to_dataset()[["offset", "log_scale"]].to_dataframe(UNIT).dropna().reset_index()
        measured = measured.rename(columns={name: f"sensitivity_{name}" for name in ("offset", "log_scale")})
        table = table.merge(measured, on=UNIT, how="left") if frames else measured
    return table


def matched(result: xr.DataTree) -> pd.DataFrame:
    """One row a network, seed, site, split, family, side and dose that was matched (`level`), where it is reached.

    With the `fraction` that gives it, the `dose` found there, `flips` and the accuracy lost (`drop`), all fractions.
    """
    frames = []
    for family in _families(result, "matched"):
        group = results.over_draws(result[f"matched_{family}"].to_dataset())
        values = xr.Dataset(
            {
                "fraction": group.fraction,
                "dose": group.dose,
                "flips": 1 - group.agree / group.total,
                "drop": (group.unperturbed - group.correct) / group.total,
            }
        ).where(group.fraction.notnull())
        keys = ["network", "site", "seed", "split", "side", "level"]
        frames.append(values.to_dataframe(keys).dropna().reset_index().assign(family=family))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def strongest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `units` at each family's strongest fraction: the one with most flips over all units of the table."""
    parts = []
    for _, part in frame.groupby("family", sort=False):
        parts.append(part[part.fraction == part.groupby("fraction").flips.mean().idxmax()])
    return pd.concat(parts, ignore_index=True)


def along_training(result: xr.DataTree, options: StatisticsConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Networks as they were when training first passed each threshold: points, and tolerance radii.

    The columns are those of `tables.tolerance` and, for points, the mean accuracy; both have the `threshold`, a
    fraction of training accuracy. Means and medians are over the `seeds` that passed it, `of` all that the network has;
    so many of them are `at_chance`, and count all the same.
    """
    points, reach, chances = [], [], fitness.chances(result)
    for family, traits in _families(result, "snapshots").items():
        group = results.over_draws(result[f"snapshots_{family}"].to_dataset())
        passed = group.step >= 0
        group = group.assign(correct=group.correct.where(passed, results.MISSING))
        trained = _trained(result, group)
        for threshold in group.threshold.to_numpy():
            for series in series_of(traits, group.sel(threshold=threshold), {}):
                chance = chances.get((series.network, series.split))
                low = 0
                if chance is not None:
                    low = int(fitness.at_chance(series.correct_unperturbed, chance.total, chance.largest).sum())
                added = {"threshold": float(threshold), "of": trained[series.network], "at_chance": low}
                columns = {
                    "fraction": series.fraction,
                    "accuracy": series.accuracy.mean(axis=0),
                    "seeds": len(series.seeds),
                }
                points.append(pd.DataFrame({**series.labels, **columns, **added}))
                reach += [{**row, **added} for row in tables.radii(series, options)]
    return pd.concat(points, ignore_index=True) if points else pd.DataFrame(), pd.DataFrame(reach)


def stage_notes(points: pd.DataFrame) -> list[str]:
    """Of how many snapshots in the points of `along_training` the accuracy is at chance, a sentence a network."""
    notes = []
    for (network, split), part in points[points.at_chance > 0].groupby(["network", "split"], sort=False):
        counts = part.groupby("threshold").at_chance.first()
        stages = formatting.listed(
            [f"{count} trained to {100 * float(str(stage)):g} %" for stage, count in counts.items()]
        )
        notes.append(f"{network}: snapshots at chance on {split} images, shown as they are: {stages}")
    return notes


def _trained(result: xr.DataTree, group: xr.Dataset) -> dict[str, int]:
    """How many seeds each network has: those with a history, or else all that the result numbers."""
    if "training" in result.children:
        there = result["training"].to_dataset().loss.notnull().any("step").sum("seed")
        return {str(name): int(there.sel(network=name)) for name in there.network.to_numpy()}
    return {str(name): group.sizes["seed"] for name in group.network.to_numpy()}
