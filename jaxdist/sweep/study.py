"""Everything that is measured of given networks, as labelled groups: ranges, the families' sweeps, and what is asked
for besides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from jaxdist.compute import Examples
from jaxdist.errors import MeaninglessError, TrainingDivergedError
from jaxdist.networks import NEVER, THRESHOLDS, Model, Passed
from jaxdist.perturbations import edits, families, rules
from jaxdist.sweep import (
    counting,
    family_sweeps,
    fitness,
    groups,
    labels,
    matched,
    results,
    sensitivity,
    unedited,
    units,
)
from jaxdist.sweep.counting import GRID, Context
from jaxdist.sweep.kernel import Counts
from jaxdist.sweep.labels import Arrays, SweptKey
from jaxdist.sweep.waves import Subject
from jaxdist.types import Ranges


def study(subjects: Mapping[str, Subject], context: Context) -> dict[str, xr.Dataset]:
    """Measure ranges on the training images and count at every point of every family, target and split.

    Returns the groups of `jaxdist.sweep.results`: ``unedited``, ``ranges``, the families', and those that the options
    ask for. Networks that are not finite are in the first alone.

    Raises:
      InputError: if a model does not reach a site or has no derivatives that are asked for, a rule or formula means
        nothing for a network, or all of a network's seeds are not finite.
    """
    for subject in subjects.values():
        family_sweeps.check_options(subject.model, context.targets, context.options, context.splits)
        for target in context.single if context.options.sweep.sensitivity else ():
            sensitivity.check_differentiable(
                subject.model, subject.params, context.splits["train"], *context.targets[target]
            )
    counted, subjects = _unedited_with_ranges(subjects, context)
    fit = fit_subjects(subjects, context, counted)
    measured = _measured(fit.subjects, fit.context)
    return {fitness.GROUP: counted} | {name: fit.masked(group) for name, group in measured.items()}


def _measured(subjects: Mapping[str, Subject], context: Context) -> dict[str, xr.Dataset]:
    """The groups of networks that are all fit to be measured."""
    sweep_options = context.options.sweep
    measured = {name: counting.measure_ranges(subject, context, name) for name, subject in subjects.items()}
    rule = context.options.ranges
    datasets = {"ranges": results.ranges(measured, context.seeds, rule)}
    datasets |= every_family(subjects, measured, context)
    if sweep_options.grid:
        datasets |= grid(subjects, measured, context)
    if sweep_options.units:
        datasets |= each_unit(subjects, measured, context)
    if sweep_options.sensitivity:
        datasets |= sensitivities(subjects, context)
    return datasets


def unedited_group(
    subjects: Mapping[str, Subject], splits: Mapping[str, Examples], seeds: Sequence[int], block: int | None
) -> xr.Dataset:
    """What networks say unedited on every split, and which are not finite: the group of `jaxdist.sweep.fitness`.

    Args:
      subjects: by network.
      splits: the examples by split.
      seeds: the numbers [S] of each subject's networks.
      block: examples a block; None: chosen by default.
    """
    counts = {
        name: {
            split: unedited.measure(subject.model, subject.params, examples, block=block)
            for split, examples in splits.items()
        }
        for name, subject in subjects.items()
    }
    return _group_of(counts, subjects, seeds)


def _unedited_with_ranges(subjects: Mapping[str, Subject], context: Context) -> tuple[xr.Dataset, dict[str, Subject]]:
    """The same group, and the subjects with the ranges that were measured in the same walks, where a rule takes one."""
    options = context.options
    counts: dict[str, dict[str, unedited.Unedited]] = {}
    ranged: dict[str, Subject] = {}
    for name, subject in subjects.items():
        counts[name], measured = unedited.measure_with_ranges(
            subject.model,
            subject.params,
            context.splits,
            context.sites,
            measured_on=options.ranges.measured_on,
            rule=rules.rule_of(options.ranges),
            block=options.compute.block,
        )
        ranged[name] = subject._replace(ranges=measured)
    return _group_of(counts, subjects, context.seeds), ranged


def _group_of(
    counts: Mapping[str, Mapping[str, unedited.Unedited]], subjects: Mapping[str, Subject], seeds: Sequence[int]
) -> xr.Dataset:
    weights = {name: unedited.not_finite_weights(subject.params) for name, subject in subjects.items()}
    return fitness.group(counts, weights, seeds)


class Fit(NamedTuple):
    """Ensembles without the networks that are not finite, whose places are taken where other networks have the seed."""

    subjects: dict[str, Subject]
    context: Context
    standing_in: dict[str, np.ndarray]
    """Of each network, which of the remaining seeds another stands in for, bool [S]."""

    def masked(self, group: xr.Dataset) -> xr.Dataset:
        """A measured group with nothing in the places of networks that are not finite."""
        if not any(places.any() for places in self.standing_in.values()):
            return group
        places = [self.standing_in[str(name)] for name in group.network.to_numpy()]
        return groups.blanked(group, xr.DataArray(~np.array(places), dims=("network", "seed")))


def fit_subjects(subjects: Mapping[str, Subject], context: Context, counted: xr.Dataset) -> Fit:
    """Take out the networks that are not finite, given their unedited counts.

    A seed that is so in every network is left out. Where only some networks have lost it, another of their seeds is
    measured in its place, so that all have as many and run one program; what is found of it is masked.

    Raises:
      TrainingDivergedError: if a network has no seed that is finite.
    """
    unfit = fitness.not_finite(counted).transpose("network", "seed").to_numpy()
    for name, lost in zip(subjects, unfit, strict=True):
        if lost.all():
            why = fitness.why_not_finite(counted.sel(network=name))
            raise TrainingDivergedError(
                f"network '{name}': {why}; expected the weights of a training that did not diverge; lower its "
                "learning rate; constants such as infinite masks belong in the function, not among its parameters"
            )
    remaining: list[int] = np.flatnonzero(~unfit.all(axis=0)).tolist()
    chosen: dict[str, Subject] = {}
    for name, lost in zip(subjects, unfit[:, remaining], strict=True):
        taken = np.where(lost, np.asarray(remaining)[~lost][0], remaining)
        chosen[name] = _take(subjects[name], taken)
    numbers = None if context.numbers is None else [context.numbers[k] for k in remaining]
    seeds = [context.seeds[k] for k in remaining]
    standing_in = dict(zip(subjects, unfit[:, remaining], strict=True))
    return Fit(chosen, context._replace(seeds=seeds, numbers=numbers), standing_in)


def _take(subject: Subject, seeds: np.ndarray) -> Subject:
    """Some of an ensemble's networks, the ensemble itself where that is all of them."""
    if np.array_equal(seeds, np.arange(jax.tree.leaves(subject.params)[0].shape[0])):
        return subject
    params, measured = jax.tree.map(lambda leaf: np.asarray(leaf)[seeds], (subject.params, subject.ranges))
    return Subject(subject.model, params, measured)


def every_family(
    subjects: Mapping[str, Subject], measured: Mapping[str, Mapping[str, Ranges]], context: Context
) -> dict[str, xr.Dataset]:
    """Every family at its grid, as it is and in other gauges that the options ask for: one group each."""
    options = context.options.sweep
    dosings = counting.dosings(subjects, context) if options.dose or options.matched else {}
    outgoing = {key: dosing.outgoing for key, dosing in dosings.items()}
    unedited = counting.identities(subjects, context)
    swept = family_sweeps.sweep(subjects, measured, context, dosings)
    labelled = {
        name: results.family(each, families.get(name), unedited[name], context.totals, outgoing)
        for name, each in swept.items()
    }
    if options.matched:
        labelled |= matched.match_dose(subjects, measured, swept, unedited, context, dosings)
    for (gauge, name), each in family_sweeps.gauges(subjects, measured, context).items():
        labelled[f"{gauge}_{name}"] = results.family(each, families.get(name), unedited[name], context.totals, {})
    return labelled


def grid(
    subjects: Mapping[str, Subject], measured: Mapping[str, Mapping[str, Ranges]], context: Context
) -> dict[str, xr.Dataset]:
    """Two families' edits at once, one after the other, at every pair of their coarse grids."""
    options = context.options.sweep
    grids: dict[str, np.ndarray] = {family: families.coarse_grid(family) for family in GRID}

    def edits_of(name: str, target: str) -> dict[str, edits.Then]:
        return {site: families.pairs(measured[name][site], grids, options) for site in context.targets[target]}

    swept = counting.count_points(subjects, edits_of, context, job="grid")
    unedited = {family: counting.common_identity(family, subjects, context) for family in GRID}
    return groups.grid(swept, grids, unedited, context.totals)


def each_unit(
    subjects: Mapping[str, Subject], measured: Mapping[str, Mapping[str, Ranges]], context: Context
) -> dict[str, xr.Dataset]:
    """Each unit edited alone, at a few fractions of every family."""
    options = context.options.sweep
    own = context.alone or {}
    grids: dict[str, np.ndarray] = {
        name: np.asarray(own.get(name, families.get(name).few)) for name in options.families if families.get(name).alone
    }
    if not grids:
        return {}
    swept: dict[SweptKey, Arrays] = {}
    for name, subject, target, split in counting.parts(subjects, context.single, context, "units"):
        (site,) = context.targets[target]
        edit = families.joined(measured[name][site], grids, options)

        def count(
            subject: Subject = subject, site: str = site, edit: edits.Affine = edit, split: str = split
        ) -> tuple[np.ndarray, ...]:
            alone = units.sweep(
                subject.model,
                subject.params,
                site,
                edit,
                context.splits[split],
                block=context.options.compute.block,
                measured=context.metrics,
            )
            change = alone.change
            return *alone.counts, *((change.value, np.asarray(change.sd)) if change else ())

        arrays = context.kept_or_computed(counting.kept_as("units", name, target, split), count)
        names = (*Counts._fields, "metric_change", "metric_change_sd")
        swept[name, target, split] = dict(zip(names, arrays, strict=False))
    return groups.units(swept, grids, context.coords, context.totals)


def sensitivities(subjects: Mapping[str, Subject], context: Context) -> dict[str, xr.Dataset]:
    """Derivatives of the mean margin by each unit's offset and log-scale, without a grid."""
    slopes = {}
    for name, subject, target, split in counting.parts(subjects, context.single, context, "sensitivity"):
        (site,) = context.targets[target]
        slopes[name, target, split] = sensitivity.measure(
            subject.model, subject.params, context.splits[split], site, block=context.options.compute.block
        )
    return {"sensitivity": groups.sensitivity(slopes, {"seed": list(context.seeds)})}


def along_training(kept: Mapping[str, tuple[Model, Passed]], context: Context) -> dict[str, xr.Dataset]:
    """The families' sweeps of the weights that were the first above each training accuracy, by their own ranges."""
    swept: dict[str, dict[str, xr.Dataset]] = {}
    subjects: dict[str, Subject] = {}
    refused: dict[str, str] = {}
    steps = {name: np.asarray(passed.step) for name, (_, passed) in kept.items()}
    for name, (model, passed) in kept.items():
        there, swept[name] = steps[name] != NEVER, {}
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
        swept[name] = family_sweeps.sweep({name: subjects[name]}, measured, these, {}, job="snapshots")
    like: Mapping[str, xr.Dataset] = next((of for of in swept.values() if of), {})
    if not like:
        count = next(iter(steps.values())).size
        like = {family: blank_sweep(context, count, context.grid(family)) for family in context.options.sweep.families}
    unedited = counting.identities(subjects, context)
    labelled = groups.snapshots(swept, like, steps, THRESHOLDS, unedited, context.coords, context.totals)
    for group in labelled.values():
        group.attrs["refused"] = [f"{name}: {sentence}" for name, sentence in refused.items()]
    return labelled


def blank_sweep(context: Context, seeds: int, grid: np.ndarray) -> xr.Dataset:
    """A sweep of one network of a family in which nothing could be measured."""
    nothing = {
        name: np.full((seeds, *(len(grid) for _ in labels.OWN[name])), labels.MISSING, np.int32)
        for name in labels.COUNTS
    }
    keys = itertools.product([""], context.targets, context.counted_splits)
    swept = labels.dataset(dict.fromkeys(keys, nothing), labels.OWN, {"seed": range(seeds)})
    return swept.rename(point="fraction").assign_coords(fraction=grid)
