"""The families' sweeps of given networks: their edits made and counted, kind by kind."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import xarray as xr

from jaxdist.compute import Examples
from jaxdist.config import Options
from jaxdist.errors import InputError
from jaxdist.formatting import listed
from jaxdist.networks import Model, Targets
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import Affine, Edit, Gauge, collapse_families, edits, families, ranges
from jaxdist.sweep import counting, ensemble_sweep, labels, means, restored
from jaxdist.sweep.counting import Context, Dosings
from jaxdist.sweep.waves import Subject
from jaxdist.types import Ranges

GAUGE_POINTS = 12
"""About so many points of a family's grid are swept in other gauges: enough to see how far apart they are."""


Own: TypeAlias = Mapping[tuple[str, str, str], np.ndarray]
"""Fractions [S, P] of a family, network and target, in place of the family's grid."""


class Task(NamedTuple):
    """What the sweep of a kind of families needs."""

    grids: Mapping[str, np.ndarray]
    subjects: Mapping[str, Subject]
    measured: Mapping[str, Mapping[str, Ranges]]
    """The ranges [S, H] of every network and site."""
    context: Context
    dosings: Dosings
    job: str
    own: Own | None = None

    def edits_of(self, name: str, target: str) -> dict[str, Any]:
        """Each site's edits [S, P, H] of one network, family after family, draw after draw."""
        return {
            site: edits.concatenate([self.built(family, name, target, site) for family in self.grids], axis=1)
            for site in self.context.targets[target]
        }

    def built(self, family: str, name: str, target: str, site: str) -> Any:
        """One family's edits at a site of one network, leaves [S, P, H], draw after draw.

        Args:
          family: its name.
          name: the network's.
          target: the one that the site is edited for, which may have fractions of its own.
          site: one of the target's.
        """
        grid = (self.own or {}).get((family, name, target), self.grids[family])
        draws = families.draws_of(family, self.context.options.sweep.draws)
        # Values of one other example are taken at all sites.
        purpose = family if families.get(family).kind == "toward" else f"{family} {site}"
        keys = families.keys(purpose, self.context.drawn, draws) if families.get(family).random else None
        return families.build(family, self.measured[name][site], grid, self.context.options.sweep, keys)

    def count_points(self, edits_of: Callable[[str, str], Mapping[str, Edit]]) -> xr.Dataset:
        """Count at the points that `edits_of` gives."""
        return counting.count_points(self.subjects, edits_of, self.context, job=self.job, dosings=self.dosings)

    def parted(self, swept: xr.Dataset, draws: int | None = None) -> dict[str, xr.Dataset]:
        """Each family's part of the points of all, in its own number of draws, or the same of every family."""
        each = {name: draws or families.draws_of(name, self.context.options.sweep.draws) for name in self.grids}
        return dict(labels.families_of_points(swept, self.grids, each))


def sweep(
    subjects: Mapping[str, Subject],
    measured: Mapping[str, Mapping[str, Ranges]],
    context: Context,
    dosings: Dosings,
    *,
    job: str = "sweep",
    grids: Mapping[str, np.ndarray] | None = None,
    own: Own | None = None,
) -> dict[str, xr.Dataset]:
    """The variables of `labels.OWN` of every family of the options at its grid, in the options' order.

    Args:
      subjects: by network.
      measured: the ranges [S, H] by network and site.
      context: what the study shares.
      dosings: how doses are measured; none are where it is empty.
      job: what is shown and kept of it goes by this name.
      grids: the families to sweep in place of the options', each at these fractions [P].
      own: fractions [S, P] of a family, network and target in place of its grid, as many as that has.

    Raises:
      InputError: for a family whose edits cannot be made at a site.
    """
    fractions: Mapping[str, np.ndarray] = (
        {name: context.grid(name) for name in context.options.sweep.families} if grids is None else grids
    )
    swept: dict[str, xr.Dataset] = {}
    for kind, names in by_kind(list(fractions)).items():
        # Edits of unlike forms, or with what the points of a family share, cannot run concatenated.
        unlike = kind in ("toward", "other", "noise", "collapse")
        for together in [[name] for name in names] if unlike else [names]:
            # What is kept goes by it, so it holds the kind, which may be called as a family is.
            label = job if kind == "affine" else " ".join([job, kind, *(together if unlike else ())])
            some = {name: fractions[name] for name in together}
            swept |= _KINDS[kind](Task(some, subjects, measured, context, dosings, label, own))
    return {name: swept[name] for name in fractions}


def by_kind(names: Sequence[str]) -> dict[families.Kind, list[str]]:
    """The families by their kind of edits; those of a kind run through one program."""
    ordered = sorted(names, key=lambda name: families.get(name).kind)
    return {kind: list(some) for kind, some in itertools.groupby(ordered, lambda name: families.get(name).kind)}


def _fill(task: Task) -> dict[str, xr.Dataset]:
    def edits_of(name: str, target: str) -> dict[str, Edit]:
        by_site: dict[str, Edit] = {}
        for site, edit in task.edits_of(name, target).items():
            where, activation = behind(
                task.subjects[name].model, site, task.context.options.ranges.measured_on, list(task.grids)
            )
            by_site[where] = dataclasses.replace(edit, activation=activation)
        return by_site

    return task.parted(task.count_points(edits_of))


def _collapsed(task: Task) -> dict[str, xr.Dataset]:
    (family,), context = task.grids, task.context
    train, block = context.splits["train"], context.options.compute.block

    def edits_of(name: str, target: str) -> dict[str, Edit]:
        by_site: dict[str, Edit] = {}
        model, params = task.subjects[name].model, task.subjects[name].params
        for site, edit in task.edits_of(name, target).items():
            where, activation = behind(model, site, "post", [family])
            # A unit that is to be left as it is has an infinite threshold in place of a share.
            spared = np.isinf(np.asarray(edit.threshold))
            thresholds, averages = collapse_families.measure(
                model,
                params,
                train,
                where,
                np.where(spared, 0, edit.threshold),
                large=edit.large,
                activation=activation,
                block=block,
            )
            by_site[where] = dataclasses.replace(edit, threshold=thresholds, fill=averages, activation=activation)
        return by_site

    return task.parted(task.count_points(edits_of))


def _as_made(task: Task) -> dict[str, xr.Dataset]:
    return task.parted(task.count_points(task.edits_of))


def _restored(task: Task) -> dict[str, xr.Dataset]:
    def edits_of(name: str, target: str) -> dict[str, Edit]:
        by_site: dict[str, Edit] = task.edits_of(name, target)
        return by_site | {networks_model.LOGITS: restored.undone(_moved(task, name, target, by_site))}

    extended = {name: s._replace(model=networks_model.with_logits(s.model)) for name, s in task.subjects.items()}
    return task.parted(task._replace(subjects=extended).count_points(edits_of))


def _moved(task: Task, name: str, target: str, by_site: Mapping[str, Edit]) -> np.ndarray:
    """How far edits move the mean logits of the training images, some networks at a time, each kept once it is done."""
    subject, context = task.subjects[name], task.context

    def wave(these: slice, compute: Callable[[], np.ndarray]) -> np.ndarray:
        what = counting.kept_as(f"{task.job} means", name, target, seeds=context.seeds[these])
        return context.kept_or_computed(what, lambda: (compute(),))[0]

    train, block = context.splits["train"], context.options.compute.block
    return restored.moved(subject.model, subject.params, by_site, train, block=block, each=wave)


def _to_means(task: Task) -> dict[str, xr.Dataset]:
    context, sites = task.context, tuple(task.context.sites)
    targets = {
        name: means.measure(s.model, s.params, context.splits["train"], sites, block=context.options.compute.block)
        for name, s in task.subjects.items()
    }

    def edits_of(name: str, target: str) -> dict[str, Edit]:
        built: dict[str, Affine] = task.edits_of(name, target)
        return {
            site: edit._replace(offset=(1 - edit.scale) * targets[name][site][:, None]) for site, edit in built.items()
        }

    return task.parted(task.count_points(edits_of))


def _toward(task: Task) -> dict[str, xr.Dataset]:
    (family,), context = task.grids, task.context
    if families.target_of(family) != "mean":
        return _as_made(task)
    targets = {
        name: means.of_positions(
            s.model, s.params, context.splits["train"], tuple(context.sites), block=context.options.compute.block
        )
        for name, s in task.subjects.items()
    }

    def edits_of(name: str, target: str) -> dict[str, Edit]:
        built: dict[str, Any] = task.edits_of(name, target)
        return {site: dataclasses.replace(edit, shared=targets[name][site]) for site, edit in built.items()}

    return task.parted(task.count_points(edits_of))


_KINDS: dict[families.Kind, Callable[[Task], dict[str, xr.Dataset]]] = {
    "affine": _as_made,
    "fill": _fill,
    "collapse": _collapsed,
    "noise": _as_made,
    "other": _as_made,
    "restored": _restored,
    "mean": _to_means,
    "toward": _toward,
}


def gauges(
    subjects: Mapping[str, Subject], measured: Mapping[str, Mapping[str, Ranges]], context: Context
) -> dict[tuple[Gauge, str], xr.Dataset]:
    """The sweeps of families that depend on a unit's sign in other gauges, of networks whose activations are even.

    (w, b) -> (-w, -b) does not change a network whose activation is even, but what the edits do to it: 'averaged'
    takes the mean over random signs of all units, 'absolute' edits |h| in place of h. By gauge and family.
    """
    options = context.options.sweep
    even = {
        name: subject
        for name, subject in subjects.items()
        if all(ranges.is_even(subject.model, site) for site in context.sites)
    }
    signed = [name for name in options.families if families.get(name).signed and families.get(name).alone]
    steps = {name: max(1, len(families.get(name).grid()) // GAUGE_POINTS) for name in signed}
    grids: dict[str, np.ndarray] = {name: families.coarse_grid(name, step) for name, step in steps.items()}
    sweeps: dict[tuple[Gauge, str], xr.Dataset] = {}
    for gauge in options.gauges:
        if gauge == "as_is" or not even or not grids:
            continue
        task = Task(grids, even, measured, context, {}, f"gauge {gauge}")
        counts = task.count_points(_averaged(task) if gauge == "averaged" else _absolute(task))
        draws = options.draws if gauge == "averaged" else 1
        sweeps |= {(gauge, family): swept for family, swept in task.parted(counts, draws).items()}
    return sweeps


def _absolute(task: Task) -> Callable[[str, str], dict[str, Edit]]:
    def edits_of(name: str, target: str) -> dict[str, Edit]:
        return {site: edits.OfMagnitude(edit) for site, edit in task.edits_of(name, target).items()}

    return edits_of


def _averaged(task: Task) -> Callable[[str, str], dict[str, Edit]]:
    options = task.context.options

    def site_edits(name: str, site: str) -> Affine:
        bounds = task.measured[name][site]
        keys = families.keys(f"gauge {site}", task.context.drawn, options.sweep.draws)
        signs = families.random_signs(keys, np.shape(bounds.low)[-1])  # [S, K, H]
        # Where ranges are in front of the activation, those of a unit whose sign is changed are mirrored.
        pre = options.ranges.measured_on == "pre"
        mirrored = bounds._replace(low=-np.asarray(bounds.high), high=-np.asarray(bounds.low)) if pre else bounds
        parts = []
        for family, grid in task.grids.items():
            as_is, turned = (families.build(family, each, grid, options.sweep) for each in (bounds, mirrored))
            for k in range(options.sweep.draws):
                chosen = signs[:, k, None]
                both = zip(as_is, turned.flipped(chosen), strict=True)
                parts.append(Affine(*(np.where(chosen > 0, a, b) for a, b in both)))
        return edits.concatenate(parts)

    return lambda name, target: {site: site_edits(name, site) for site in task.context.targets[target]}


def check_options(
    model: Model, targets: Targets, options: Options, splits: Mapping[str, Examples] | None = None
) -> None:
    """Refuse options that mean nothing for a model, before anything is measured of it.

    Args:
      model: the networks' function.
      targets: those that are edited.
      options: of the measurement.
      splits: the examples by split; without them there is no source, and other examples are taken to be there.

    Raises:
      InputError: for families that erase values behind an activation that does not allow it, or take values of a source
        or of another example where the `splits` have none; for a gauge that needs other ranges, or doses where sites
        are only edited together.
    """
    swept = options.sweep
    for name in swept.families:
        target, counted = families.target_of(name), {split: (splits or {}).get(split) for split in swept.splits}
        if target == "source" and any(examples is None or examples.source is None for examples in counted.values()):
            raise InputError(f"family '{name}': {ensemble_sweep.NO_SOURCE}")
        for split, examples in counted.items():
            if target == "example" and examples is not None and int(examples.total) == 1:
                raise InputError(f"family '{name}', {split} examples: {ensemble_sweep.NO_OTHER}")
    for kind, measured_on in (("fill", options.ranges.measured_on), ("collapse", "post")):
        filling = [name for name in swept.families if families.get(name).kind == kind]
        for site in dict.fromkeys(itertools.chain(*targets.values())) if filling else ():
            behind(model, site, measured_on, filling)
    if swept.units and not any(families.get(name).alone for name in swept.families):
        raise InputError(
            "units: single units are edited by families such as zero, scale, clip and offset, but not by "
            f"{', '.join(swept.families)}; add such a family, or leave units out"
        )
    if "absolute" in swept.gauges and options.ranges.measured_on == "pre":
        raise InputError(
            "sweep.gauges: 'absolute' edits magnitudes, whose ranges are measured after the activation; use "
            "ranges.measured_on 'post'"
        )
    if (swept.dose or swept.matched) and all(len(sites) > 1 for sites in targets.values()):
        raise InputError(
            "sweep.dose: doses are defined only for edits of a single site; use sweep.layers 'each' or 'both'"
        )


def behind(model: Model, site: str, measured_on: str, names: Sequence[str]) -> tuple[str, Any]:
    """The site at which activations are edited, and the function that gives them where they are at no site.

    Args:
      model: the networks' function.
      site: key of the preactivations.
      measured_on: on which side of the activation ranges are measured.
      names: of the families that want it.

    Raises:
      InputError: where the model does not say what follows, or it is none that these families can edit.
    """
    follows = model.after(site)
    problem = None
    if measured_on != "post":
        problem = "their fractions refer to ranges after the activation; use ranges.measured_on 'post'"
    elif follows is None:
        problem = f"the model does not say what that is; use post={{'{site}': activation}}"
    elif not isinstance(follows, str) and not (
        ranges.gives_back_positive_values(model, site) and ranges.is_one_sided(model, site)
    ):
        problem = (
            "that needs an activation which leaves 0 and positive values unchanged and returns nothing negative, such "
            f"as relu or abs; leave these families out, or name the site after it, post={{'{site}': 'its name'}}"
        )
    if problem:
        edit = "edits" if len(names) == 1 else "edit"
        raise InputError(f"site '{site}': {listed(names)} {edit} what follows it, and {problem}")
    assert follows is not None
    return (follows, None) if isinstance(follows, str) else (site, follows)
