"""Everything that is measured of given networks, as labelled groups: ranges, the families' sweeps, and what is asked
for besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr

from jaxdist import (
    counting,
    edits,
    families,
    family_sweeps,
    groups,
    matched,
    radii,
    results,
    sensitivity,
    statistics,
    units,
)
from jaxdist.counting import GRID, Context, Key
from jaxdist.errors import MeaninglessError
from jaxdist.kernel import Counts
from jaxdist.results import Swept
from jaxdist.taps import Model
from jaxdist.training import NEVER, THRESHOLDS, Passed
from jaxdist.types import Ranges
from jaxdist.waves import Subject


def study(subjects: Mapping[str, Subject], context: Context) -> dict[str, xr.Dataset]:
    """Measure ranges on the training images and count at every point of every family, target and split.

    Returns the groups of `jaxdist.results`: ``ranges``, the families', and those that the options ask for.

    Raises:
      InputError: if a model does not reach a site, or a rule or formula means nothing for a network.
    """
    sweep_options = context.options.sweep
    for subject in subjects.values():
        family_sweeps.check(subject.model, context.targets, context.options)
    measured = {name: counting.measure_ranges(subject, context, name) for name, subject in subjects.items()}
    rule = context.options.ranges
    found = {"ranges": results.ranges(measured, context.seeds, rule)}
    found |= every_family(subjects, measured, context)
    if sweep_options.grid:
        found |= grid(subjects, measured, context)
    if sweep_options.units:
        found |= each_unit(subjects, measured, context)
    if sweep_options.sensitivity:
        found |= sensitivities(subjects, context)
    if sweep_options.refine:
        found |= refined(subjects, measured, found, context)
    return found


def every_family(
    subjects: Mapping[str, Subject], measured: Mapping[str, Mapping[str, Ranges]], context: Context
) -> dict[str, xr.Dataset]:
    """Every family at its grid, as it is and in other gauges that the options ask for: one group each."""
    options = context.options.sweep
    dosings = counting.dosings(subjects, context) if options.dose or options.matched else {}
    outgoing = {key: dosing.outgoing for key, dosing in dosings.items()}
    unedited, coords = counting.identities(subjects, context), context.coords(subjects)
    swept = family_sweeps.sweep(subjects, measured, context, dosings)
    found = {
        name: results.family(each, unedited[name], coords, context.totals, outgoing) for name, each in swept.items()
    }
    if options.matched:
        found |= matched.match_dose(subjects, measured, swept, unedited, context, dosings)
    turned, even = family_sweeps.gauges(subjects, measured, context)
    for (gauge, name), each in turned.items():
        labels = context.coords(dict.fromkeys(even))
        found[f"{gauge}_{name}"] = results.family(each, unedited[name], labels, context.totals, {})
    return found


def grid(
    subjects: Mapping[str, Subject], measured: Mapping[str, Mapping[str, Ranges]], context: Context
) -> dict[str, xr.Dataset]:
    """Two families' edits at once, one after the other, at every pair of their coarse grids."""
    options = context.options.sweep
    grids: dict[str, np.ndarray] = {family: families.coarse_grid(family) for family in GRID}

    def made(name: str, target: str) -> dict[str, edits.Then]:
        return {site: families.pairs(measured[name][site], grids, options) for site in context.targets[target]}

    counts = Counts(*counting.counted(subjects, made, context, job="grid")[:4])
    unedited = {family: counting.identity(family, subjects, context) for family in GRID}
    return groups.grid(counts, grids, unedited, context.coords(subjects), context.totals)


def each_unit(
    subjects: Mapping[str, Subject], measured: Mapping[str, Mapping[str, Ranges]], context: Context
) -> dict[str, xr.Dataset]:
    """Each unit edited alone, at a few fractions of every family."""
    options = context.options.sweep
    grids: dict[str, np.ndarray] = {
        name: np.asarray(families.get(name).few) for name in options.families if families.get(name).alone
    }
    if not grids:
        return {}
    found: dict[Key, Counts] = {}
    for name, subject, target, split in counting.parts(subjects, context.single, context, "units"):
        (site,) = context.targets[target]
        made = families.joined(measured[name][site], grids, options)

        def count(
            subject: Subject = subject, site: str = site, made: edits.Affine = made, split: str = split
        ) -> Counts:
            return units.sweep(
                subject.model, subject.params, site, made, context.splits[split], block=context.options.compute.block
            )

        found[name, target, split] = Counts(*context.once(f"units-{name}-{counting.plain(target)}-{split}", count))
    return groups.units(counting.stacked(found), grids, context.coords(subjects, context.single), context.totals)


def sensitivities(subjects: Mapping[str, Subject], context: Context) -> dict[str, xr.Dataset]:
    """Derivatives of the mean margin by each unit's offset and log-scale, without a grid."""
    found = {}
    for name, subject, target, split in counting.parts(subjects, context.single, context, "sensitivity"):
        (site,) = context.targets[target]
        found[name, target, split] = sensitivity.measure(
            subject.model, subject.params, context.splits[split], site, block=context.options.compute.block
        )
    return {"sensitivity": groups.sensitivity(counting.stacked(found), context.coords(subjects, context.single))}


def refined(
    subjects: Mapping[str, Subject],
    measured: Mapping[str, Mapping[str, Ranges]],
    swept: Mapping[str, xr.Dataset],
    context: Context,
) -> dict[str, xr.Dataset]:
    """Tolerance radii narrowed inside the brackets that the families' grids found."""
    options = context.options
    found: dict[Key, groups.Radii] = {}
    edges: list[str] = []
    for name, subject, target, split in counting.parts(subjects, list(context.targets), context, "radii"):
        searches = []
        for family in (name for name in options.sweep.families if families.get(name).alone):
            series = swept[family].sel(network=name, site=target, split=split)
            if "identity" in series.attrs:
                searches += [
                    _search(series, family, side, options.statistics.margin) for side in families.get(family).sides
                ]

        def narrow(
            subject: Subject = subject,
            sites: Mapping[str, Ranges] = {site: measured[name][site] for site in context.targets[target]},
            searches: list[radii.Search] = searches,
            split: str = split,
        ) -> tuple[np.ndarray, ...]:
            exits = radii.refine(
                subject.model,
                subject.params,
                sites,
                searches,
                context.splits[split],
                options.sweep,
                margin=options.statistics.margin,
                block=options.compute.block,
            )
            return groups.Radii(
                *(np.stack(each, axis=1) for each in zip(*((r.exit, *r.bracket[:2]) for r in exits), strict=True)),
            )

        edges = [f"{search.family} {search.side}" for search in searches]
        if not edges:
            continue
        found[name, target, split] = groups.Radii(
            *context.once(f"radii-{name}-{counting.plain(target)}-{split}", narrow)
        )
    if not edges:  # no family edits nothing anywhere, so there is no edge to look for
        return {}
    coords = {**context.coords(subjects), "edge": edges}
    return {"radii": groups.radii(counting.stacked(found), coords, options.statistics.margin)}


def _search(series: xr.Dataset, family: str, side: radii.Side, margin: float) -> radii.Search:
    tolerance = statistics.tolerance(
        series.fraction.to_numpy(),
        series.correct.to_numpy() / int(series.total),
        series.unperturbed.to_numpy() / int(series.total),
        identity=series.attrs["identity"],
        coordinate=families.get(family).spacing,
        side=side,
        margin=margin,
    )
    return radii.Search(family, side, tolerance.bracket)


def along_training(kept: Mapping[str, tuple[Model, Passed]], context: Context) -> dict[str, xr.Dataset]:
    """The families' sweeps of the weights that were the first above each training accuracy, by their own ranges."""
    found: dict[str, dict[str, Swept]] = {}
    subjects: dict[str, Subject] = {}
    refused: dict[str, str] = {}
    steps = {name: np.asarray(passed.step) for name, (_, passed) in kept.items()}
    for name, (model, passed) in kept.items():
        there, found[name] = steps[name] != NEVER, {}
        if not there.any():
            continue
        # One after the other, as if each were a seed. One that was taken stands for those that were not, so that every
        # training gives as many, which run the same program; what is counted of it there is not kept.
        taken = np.where(there, np.arange(there.size).reshape(there.shape), np.flatnonzero(there)[0]).ravel()

        def flat(leaf: Any, taken: np.ndarray = taken) -> np.ndarray:
            return np.asarray(leaf).reshape(-1, *leaf.shape[2:])[taken]

        subjects[name] = Subject(model, jax.tree.map(flat, passed.params))
        # Draws are those of each snapshot's seed, whatever the others are.
        numbers = np.repeat(np.asarray(context.seeds), there.shape[1]).tolist()
        these = context._replace(seeds=range(there.size), numbers=numbers)
        try:
            measured = {name: counting.measure_ranges(subjects[name], these, name)}
        except MeaninglessError as error:  # the trained networks' sweep is not lost with it
            refused[name] = str(error)
            continue
        found[name] = family_sweeps.sweep({name: subjects[name]}, measured, these, {}, job="snapshots")
    coords, unedited = context.coords(kept), counting.identities(subjects, context)
    labelled = groups.snapshots(found, steps, THRESHOLDS, unedited, coords, context.totals)
    for group in labelled.values():
        group.attrs["refused"] = [f"{name}: {sentence}" for name, sentence in refused.items()]
    return labelled
