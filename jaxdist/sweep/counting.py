"""What all measurements of given networks share: ranges, and counts over networks, targets and splits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import xarray as xr

from jaxdist.compute import Examples, Show
from jaxdist.config import Options
from jaxdist.errors import InputError, MeaninglessError
from jaxdist.networks import Model, Targets
from jaxdist.perturbations import collapse_families, edits, families, ranges, rules
from jaxdist.sweep import doses, labels, metric, waves
from jaxdist.sweep.labels import Arrays, SweptKey
from jaxdist.sweep.metric import Metric
from jaxdist.sweep.metrics import chosen
from jaxdist.sweep.waves import Dosing, Subject
from jaxdist.types import Ranges

KeptOrComputed: TypeAlias = Callable[[str, Callable[[], tuple[Any, ...]]], tuple[Any, ...]]
"""Given what arrays are of, as `kept_as` says it, and what computes them, returns them, perhaps from earlier."""

Dosings: TypeAlias = Mapping[tuple[str, str], Dosing]
"""How doses are measured, by network and target."""

GRID = ("scale", "offset")
"""The families of the grid of two edits at once, in their order."""


LONGEST = 24
"""Characters of a target's name that progress shows, its last."""


class Context(NamedTuple):
    """What all measurements of a study share."""

    splits: Mapping[str, Examples]
    targets: Targets
    options: Options
    seeds: Sequence[int]
    show: Show
    kept_or_computed: KeptOrComputed
    numbers: Sequence[int] | None = None
    """The seeds' numbers that random draws depend on, where `seeds` are not their own."""
    grids: Mapping[str, np.ndarray] | None = None
    """Fractions of families that are swept at others than their own, as in a run that grows."""
    alone: Mapping[str, np.ndarray] | None = None
    """Fractions at which single units are edited, of families for which these are given."""
    classes: int = 0
    """Of the labels, where metrics are averaged."""
    sizes: Mapping[str, int] | None = None
    """Tokens of each split that have a label, where each token has one."""
    averaged: Sequence[str] = ()
    """The counted metrics that are averaged as well."""

    def grid(self, family: str) -> np.ndarray:
        """The fractions [P] that a family is swept at."""
        record = families.get(family)
        return record.grid() if self.grids is None or family not in self.grids else self.grids[family]

    @property
    def drawn(self) -> Sequence[int]:
        """The numbers that each seed's random draws depend on."""
        return self.seeds if self.numbers is None else self.numbers

    @property
    def counted_splits(self) -> tuple[str, ...]:
        """The splits that are counted on."""
        return tuple(split for split in self.options.sweep.splits if split in self.splits)

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site of every target, once."""
        return tuple(dict.fromkeys(itertools.chain(*self.targets.values())))

    @property
    def single(self) -> tuple[str, ...]:
        """The targets of one site."""
        return tuple(name for name, sites in self.targets.items() if len(sites) == 1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that are averaged at every point."""
        return chosen(self.options.sweep.metrics, self.averaged)

    @property
    def coords(self) -> dict[str, Any]:
        """The labels of a sweep's seeds and metrics."""
        named = [metric.name for metric in self.metrics]
        return {"seed": list(self.seeds), **({"metric": named} if named else {})}

    @property
    def totals(self) -> list[int]:
        """Images of each split that is counted on, or tokens that have a label."""
        return [self.sizes[split] if self.sizes else int(self.splits[split].total) for split in self.counted_splits]


def measure_ranges(subject: Subject, context: Context, name: str) -> dict[str, Ranges]:
    """The ranges [S, H] of every site, refused where a family's formula means nothing for them."""
    options, train, block = context.options, context.splits["train"], context.options.compute.block
    if subject.ranges is None:
        rule, side = rules.rule_of(options.ranges), options.ranges.measured_on
        measured = ranges.measure(
            subject.model, subject.params, train, context.sites, measured_on=side, rule=rule, block=block
        )
    else:
        measured = dict(subject.ranges)
        ranges.check_values(subject.model, subject.params, train, context.sites, block=block)
    checked: set[str] = set()
    used = dict.fromkeys([*options.sweep.families, *(GRID if options.sweep.grid else ())])
    for site, family in itertools.product(context.sites, used):
        where = f"network '{name}', site '{site}'"
        try:
            families.check_meaning(family, measured[site], options.sweep, where)
            if families.get(family).kind == "collapse" and site not in checked:
                collapse_families.check(subject.model, subject.params, train, site, f"{where}: {family}", block=block)
                checked.add(site)
        except InputError as error:
            raise MeaninglessError(str(error)) from None
    return measured


def identities(subjects: Mapping[str, Subject], context: Context) -> dict[str, float | None]:
    """Where each family edits nothing in any of the networks."""
    return {family: common_identity(family, subjects, context) for family in context.options.sweep.families}


def common_identity(family: str, subjects: Mapping[str, Subject], context: Context) -> float | None:
    """Where a family edits nothing in any of the networks, if anywhere."""
    options = context.options

    def holds_for_all(fact: Callable[[Model, str], bool]) -> bool:
        """Whether ranges are of the edited values themselves, or else this is known of all activations."""
        return options.ranges.measured_on == "pre" or all(
            fact(subject.model, site) for subject in subjects.values() for site in context.sites
        )

    reached, one_sided = holds_for_all(ranges.keeps_positive_values), holds_for_all(ranges.is_one_sided)
    return families.identity(family, options.sweep, options.ranges.rule, reached=reached, one_sided=one_sided)


def dosings(subjects: Mapping[str, Subject], context: Context) -> Dosings:
    """How doses are measured of every network and target of one site; of several sites together none are."""
    by_target = {}
    for name, subject in subjects.items():
        for target in context.single:
            (site,) = context.targets[target]
            watch, train = doses.watch(subject.model, site), context.splits["train"]
            by_target[name, target] = Dosing(watch, *doses.weights(subject.model, subject.params, site, watch, train))
    return by_target


def count_points(
    subjects: Mapping[str, Subject],
    edits_of: Callable[[str, str], Mapping[str, edits.Edit]],
    context: Context,
    *,
    job: str,
    dosings: Dosings | None = None,
) -> xr.Dataset:
    """The variables of `labels.OWN` of some edits, over all networks, targets and splits.

    Args:
      subjects: by network.
      edits_of: given a network and a target, returns the edits by site, leaves [S, P, H].
      context: what the study shares.
      job: what is shown and kept of it goes by this name.
      dosings: where there are any, doses are measured; NaN of networks and targets that they lack.

    Raises:
      InputError: if a site cannot be edited.
    """
    swept: dict[SweptKey, Arrays] = {}
    for name, subject in subjects.items():
        label = f"{job} {name}"
        parts = list(itertools.product(context.targets, context.counted_splits))
        total = len(parts) * len(context.seeds)
        context.show(label, 0, total, "")
        for k, (target, split) in enumerate(parts):

            def tell(
                done: int,
                label: str = label,
                total: int = total,
                before: int = k * len(context.seeds),
                where: str = f"{target[-LONGEST:]}, {split} images",
            ) -> None:
                context.show(label, before + done, total, where)

            def kept_or_computed(
                these: slice,
                wave: Callable[[], tuple[Any, ...]],
                kind: Sequence[str] = (job, name, target, split),
            ) -> tuple[Any, ...]:
                return context.kept_or_computed(kept_as(*kind, seeds=context.seeds[these]), wave)

            if k % len(context.counted_splits) == 0:  # the same for every split
                edit = edits_of(name, target)
            swept[name, target, split] = waves.in_waves(
                subject,
                edit,
                context.splits[split],
                tell,
                kept_or_computed,
                dosing=(dosings or {}).get((name, target)),
                dosed=bool(dosings),
                metrics=context.metrics,
                block=context.options.compute.block,
            )
    told: dict[str, Any] = {"metrics": metric.attribute(context.metrics, context.classes)} if context.metrics else {}
    told |= {"of": "tokens"} if context.sizes else {}
    return labels.dataset(swept, labels.OWN, context.coords).assign_attrs(told)


def parts(
    subjects: Mapping[str, Subject], targets: Sequence[str], context: Context, job: str
) -> Iterator[tuple[str, Subject, str, str]]:
    """Every network, target and split, with progress shown.

    Args:
      subjects: by network.
      targets: names of those that are measured.
      context: what the study shares.
      job: its name in the progress.
    """
    every = list(itertools.product(subjects, targets, context.counted_splits))
    for k, (name, target, split) in enumerate(every):
        context.show(job, k, len(every), f"{name}, {target[-LONGEST:]}, {split} images")
        yield name, subjects[name], target, split
    context.show(job, len(every), len(every), "")


def kept_as(*parts: str, seeds: Sequence[int] = ()) -> str:
    """What an array is of, as text that is the same for no other: its measurement, network, target and so on.

    With the seeds of a part of the networks, since on another number of devices the parts may be others.

    >>> kept_as("sweep", "relu", "dense0/pre", "train", seeds=range(20, 40))
    '["sweep", "relu", "dense0/pre", "train", "20-39"]'
    """
    return json.dumps([*parts, *([spans(seeds)] if len(seeds) else [])])


def spans(numbers: Sequence[int]) -> str:
    """Numbers as text, those that follow each other as the first and the last.

    >>> spans([0, 1, 2, 7, 9, 10])
    '0-2,7,9-10'
    """
    if not len(numbers):
        return ""
    breaks = [k for k in range(1, len(numbers)) if numbers[k] != numbers[k - 1] + 1]
    runs = [(numbers[a], numbers[b - 1]) for a, b in itertools.pairwise([0, *breaks, len(numbers)])]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
