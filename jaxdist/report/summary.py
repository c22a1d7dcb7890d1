"""The summary of a swept result on the terminal, in at most 80 columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console, Group, RenderableType
from rich.text import Text

from jaxdist.analysis import breakdowns, dose_tables, dosed, metric_tables, tables, threshold_tables
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.formatting import counted, figures, fraction, listed, percent
from jaxdist.perturbations import families
from jaxdist.report import markdown, table, verdicts
from jaxdist.report.markdown import radius_of
from jaxdist.report.table import WIDTH, Column, Radius, Table
from jaxdist.sweep import fitness, results
from jaxdist.types import Ranges


def show(result: xr.DataTree, options: StatisticsConfig | None = None) -> None:
    """Print the summary of a swept result, by its own statistics unless others are given.

    Raises:
      InputError: for anything else, such as a path or one of a result's groups.
    """
    if not isinstance(result, xr.DataTree):
        raise InputError(f"show: expected a result, as run, probe and load return it, got {result!r}")
    if result.parent is not None or not result.children:
        name = f", {result.name!r}" if result.name else ""
        raise InputError(
            f"show: expected a whole result, got one group{name}; pass the result as run, probe and load return it, "
            "and read a group directly, as an xarray dataset"
        )
    answer = summary(result, options or results.options_of(result).statistics)
    Console(width=WIDTH, markup=False, emoji=False).print(answer)  # networks' names are no markup


def summary(result: xr.DataTree, options: StatisticsConfig) -> RenderableType:
    """The answer in at most 80 columns: how far each kind of edit goes before accuracy falls, for each network."""
    reach = tables.tolerance(result, options)
    notes: list[RenderableType] = [Text(line) for line in _notes(result, options)]
    moved = threshold_tables.thresholds(result, options=options)
    if not moved.empty:
        told = metric_tables.told(result)
        thresholds = markdown.moved_table(moved, told, "How far an edit goes before the mean of a metric has moved")
        notes = [table.terminal(thresholds), *notes]
    if reach.empty:
        return Group(*notes)
    reach = reach[reach.split == tables.main_split(reach)]
    networks, sites = list(reach.network.unique()), list(reach.site.unique())
    preactivations = all(site.endswith("/pre") or site == "all" for site in sites)
    radii: dict[tuple[object, ...], Radius] = {
        (r.site, r.family, r.side, r.network): radius_of(r) for r in reach.itertuples()
    }
    columns = [Column("preactivations" if preactivations else "values", least=16), *map(Column, networks)]
    rows: list[list[object]] = []
    for site, layer in reach.groupby("site", sort=False):
        if len(sites) > 1:
            rows.append([site])
        for (family, side, edit), _ in layer.groupby(["family", "side", "edit"], sort=False):
            label = ("  " if len(sites) > 1 else "") + str(edit)
            rows.append([label, *(radii.get((site, family, side, network), "") for network in networks)])
    tolerances = Table(
        title(reach, options),
        columns,
        rows,
        [f"{interval_words(reach, options)}, {_percent_words(result, reach, preactivations=preactivations)}"],
    )
    return Group(table.terminal(tolerances, framed=True), *notes)


def _percent_words(result: xr.DataTree, reach: pd.DataFrame, *, preactivations: bool) -> str:
    """What percent of each family's fractions are, in the order of the table."""
    records, of_unit = results.families_of(result), dict[str, list[str]]()
    for name in reach.family.unique():
        of_unit.setdefault(records[name].unit, []).append(name)
    words = {
        "value": f"of the {'preactivation' if preactivations else 'value'}",
        "range": "of each unit's range",
        "way": "of the way",
        "own": "of p",
    }
    # Ranges are what most families' fractions are of, and need no names.
    named = [words[unit] + ("" if unit == "range" else f" ({', '.join(names)})") for unit, names in of_unit.items()]
    return "in % " + (" or ".join(named) if len(named) < 3 else f"{', '.join(named[:-1])} or {named[-1]}")


def title(reach: pd.DataFrame, options: StatisticsConfig) -> str:
    """What tolerance radii are about."""
    lost = f"{percent(options.margin, 1)} points of {reach.split.iloc[0]} accuracy"
    return f"How far an edit goes before {lost} are lost"


def interval_words(reach: pd.DataFrame, options: StatisticsConfig) -> str:
    """What their intervals are over."""
    level, out = f"{percent(options.confidence, 0)} %", "; ".join(tables.left_out_notes(reach))
    if reach.seeds.max() == 0:
        return f"No radius: {out}"
    if tables.over_images(reach):
        return (
            f"{tables.only(reach)}: {level} interval over {'its' if reach.network.nunique() == 1 else 'their'} images"
        )
    over_seeds = reach[reach.over == "seeds"]
    seeds = int(over_seeds.seeds.max())
    words = f" (too few for a {level} interval)" if over_seeds.low.isna().all() else f" with {level} interval"
    alone = list(dict.fromkeys(reach[(reach.over == "images") & (reach.seeds > 0)].network))
    words += f", of {listed(alone)} {level} over images" if alone else ""
    return f"Median of {counted(seeds, 'seed')}{words}{f' ({out})' if out else ''}"


def _notes(result: xr.DataTree, options: StatisticsConfig) -> list[str]:
    notes = []
    swept = [result[name].to_dataset() for name in results.families_of(result)]
    if "training" in result.children:
        training = tables.training(result, options)
        for network, part in training.groupby("network", sort=False):
            mean = part.set_index("quantity")["mean"]
            notes.append(
                f"{network}: train accuracy {percent(mean['train_accuracy'])} %, "
                f"test {percent(mean['test_accuracy'])} %, loss {mean['loss']:.4f}"
            )
    elif swept and "unperturbed" in swept[0]:
        # Imported networks may have no history, but any family of their sweep has counted what they do unedited.
        counts = swept[0].unperturbed.where(swept[0].unperturbed != results.MISSING)
        accuracy = (counts / swept[0].total).mean("seed")
        for network, split in itertools.product(accuracy.network.to_numpy(), accuracy.split.to_numpy()):
            share = float(accuracy.sel(network=network, split=split))
            notes.append(f"{network}: {split} accuracy {percent(share)} % unedited")
    elif swept:
        notes += list(_metric_notes(result, options))
    notes += [f"data: {note}" for note in results.data_notes_of(result)]
    notes += [sentence] if (sentence := results.untrained(result)) else []
    notes += fitness.notes(result) + _dead_notes(result) + _unit_notes(result) + _snapshot_notes(result, options)
    if dosed.has_doses(result):
        notes += verdicts.sentences(result, dose_tables.outline(result, options))
    return notes


def _metric_notes(result: xr.DataTree, options: StatisticsConfig) -> Iterator[str]:
    """What metrics are unedited, of a result in which nothing is counted."""
    told, points = metric_tables.told(result), metric_tables.points(result, options)
    for (network, split, metric), part in points.groupby(["network", "split", "metric"], sort=False):
        yield f"{network}: {split} {told[str(metric)].words.lower()} {figures(part.unedited.iloc[0])} unedited"


def _dead_notes(result: xr.DataTree) -> list[str]:
    notes = []
    if "ranges" in result.children:
        measured = result["ranges"].to_dataset()
        dead = measured.dead
        policy = results.options_of(result).sweep.dead_units
        for network in dead.network.to_numpy():
            # A network that is not finite has no ranges.
            there = measured.low.sel(network=network).notnull().any(("site", "unit")) | dead.sel(network=network).any(
                ("site", "unit")
            )
            per_seed = dead.sel(network=network).sum(("site", "unit")).to_numpy()[there.to_numpy()]
            if per_seed.any():
                done = "left as they are" if policy == "identity" else "edited by the formula, NaN where it is 0/0"
                done = f"; such are {done}" if per_seed.sum() == 1 else f", {done}"
                affected = f"{np.count_nonzero(per_seed)} of {counted(len(per_seed), 'network')}"
                notes.append(f"{network}: {counted(per_seed.sum(), 'dead unit')} in {affected}{done}")
            notes += _meaningless_notes(str(network), measured.sel(network=network).isel(seed=there.to_numpy()), result)
    return notes


def _meaningless_notes(network: str, measured: xr.Dataset, result: xr.DataTree) -> list[str]:
    options = results.options_of(result).sweep
    ranges = Ranges(*(measured[name].to_numpy() for name in Ranges._fields))
    concerned: dict[str, list[str]] = {}  # families whose formulas one option names are concerned by the same units
    for family in (name for name in families.BUILT_IN if name in result.children):
        option = families.get(family).option
        if option is not None and np.any(families.without_meaning(family, ranges, options)):
            concerned.setdefault(option.name, []).append(family)
    notes = []
    for names in concerned.values():
        count, s = int(np.sum(families.without_meaning(names[0], ranges, options))), "s" if len(names) == 1 else ""
        them, are, is_ = ("it", "it is", "is") if count == 1 else ("them", "they are", "are")
        done = f"leave{s} {them} as {are}" if options.dead_units == "identity" else f"edit{s} {them} all the same"
        units = f"{count} of {counted((~ranges.dead).sum(), 'unit')} {is_} never positive"
        notes.append(f"{network}: {units}; {' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))} {done}")
    return notes


def _snapshot_notes(result: xr.DataTree, options: StatisticsConfig) -> list[str]:
    """Which networks' snapshots could not be swept, and which are at chance."""
    for name, group in result.children.items():
        if name.startswith("snapshots_"):
            refused = [f"not swept along training: {said}" for said in np.atleast_1d(group.attrs.get("refused", []))]
            points, _ = breakdowns.along_training(result, options)
            of_split = points if points.empty else points[points.split == tables.main_split(points)]
            return refused + ([] if of_split.empty else breakdowns.stage_notes(of_split))
    return []


def _unit_notes(result: xr.DataTree) -> list[str]:
    """How much the single most important unit matters."""
    units = breakdowns.units(result)
    if "flips" not in units:
        return []
    strongest = breakdowns.strongest(units[units.split == tables.main_split(units)])
    notes = []
    for network, part in strongest.groupby("network", sort=False):
        most, seeds = part.groupby("seed").flips.max(), part.seed.nunique()
        row = part.iloc[part.flips.to_numpy().argmax()]
        which = f"{row.family} at {fraction(row.fraction)}, unit {row.unit} of {row.site}"
        if seeds > 1:
            which = f"median of {counted(seeds, 'seed')}; at most {percent(row.flips)} %: {which} of seed {row.seed}"
        notes.append(
            f"{network}: the most important unit alone changes {percent(most.median())} % of predictions ({which})"
        )
    return notes
