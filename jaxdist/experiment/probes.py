"""A user's own network, measured as the paper's are: one call from a function and images to the labelled result."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from rich.console import Console

from jaxdist import config as configs
from jaxdist.compute import Examples, Show, blocks, devices, hosts, progress_display, silent, tuning
from jaxdist.config import Options, Task
from jaxdist.data import Given, own_labels
from jaxdist.errors import InputError
from jaxdist.experiment import own_examples, resolving
from jaxdist.formatting import counted
from jaxdist.networks import (
    Action,
    Model,
    Output,
    Sites,
    Where,
    independence,
    or_a_module,
    own_networks,
    rows,
    site_parts,
    sizes,
    targets_of,
)
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import families, toward_families
from jaxdist.storage import folders, manifests, result_files
from jaxdist.sweep import Context, Subject, metrics, results, study, tasks, unedited
from jaxdist.types import Apply, Params


@or_a_module
def probe(
    apply: Apply | Model,
    params: Params,
    *,
    train: Given,
    test: Given | None = None,
    sites: Sequence[str] | None = None,
    post: Mapping[str, Action | str] | None = None,
    stacked: bool = False,
    name: str = "network",
    unit_axis: int | Mapping[str, int] | None = None,
    only: Mapping[str, Where | Sequence[Where]] | None = None,
    class_axis: int | None = None,
    output: Output | None = None,
    task: Task | None = None,
    thresholds: Mapping[str, float] | None = None,
    fractions: Mapping[str, Sequence[float]] | None = None,
    source: Any = None,
    out: str | Path | None = None,
    show: Show | bool | None = None,
    **options: Any,
) -> xr.DataTree:
    """Sweep edits at sites of a network of your own, and return the labelled result of `jaxdist.sweep.results`.

    Args:
      apply: ``apply(params, x[n, ...]) -> logits [n, C]``, in which `jaxdist.site` names values; `jaxdist.from_linen`,
        `from_nnx`, `from_equinox` and `from_haiku` make one of a module. A third argument that must be given is called
        as `jaxdist.site`. Or a module of NNX or Equinox alone, without `params`, which it holds.
      params: its parameters, a pytree of arrays; with `stacked`, those of several seeds: with a leading S, or a list of
        each one's.
      train: inputs [N, ...] and labels [N], classes from 0 on, on which the ranges are measured, and counts made. Or
        batches (x, y) of them, in whatever can be iterated again, such as a list or a loader, or a function that makes
        an iterator: they are read in every pass, one at a time.
      test: the same, to count on as well.
      sites: which values to edit, each by itself and all together; by default those that `post` names. ``mlp`` is
        all calls of a site, ``mlp#1`` its second, ``layers/mlp@3`` iteration 3 of the loop around it; ``layers/*/up``
        stands for every site that it matches.
      post: what follows a site: its activation, a function, or the name of the site after it, by the same keys as in
        `sites`. The paper's ranges are measured there; without it, on the values themselves (``measured_on="pre"``).
      stacked: intervals are over seeds then; those of one network are over its images, and speak of it only.
      name: of the network, in tables and figures.
      unit_axis, class_axis: of a site's value and of the logits; by default the last. Where the units of some sites are
        on another axis, ``unit_axis={"blocks/*/attention": -2}``.
      only: edits some units, positions or channels and leaves the rest of a value as it is: by site the indices along
        axes, ``{"attention": {-2: [0, 3], 1: 4}}``, or a list of such parts. Each part is a site of the result.
      output: picks the logits where apply returns more: a key or an attribute's name, a position, a function.
      task: what the outputs answer, where shapes and types of outputs and labels leave that open: ``"classes"``, logits
        [n, C] and labels [n], or [n, C] with one 1 a row; ``"tokens"``, logits [n, T, C] and labels [n, T], of which
        -100 counts for nothing; ``"binary"``, one logit [n] or [n, 1] and labels 0 and 1; ``"regression"``, outputs and
        real targets [n] or [n, K], of which nothing is counted and the squared error is averaged.
      thresholds: how far the mean of a metric rises from the unedited network's, or, below 0, falls, by the metric's
        name, in its own unit: `jaxdist.thresholds` gives the fractions at which it first has.
      fractions: of families that are swept at others than their grids, increasing; single units as well.
      source: inputs [N, ...], one for each training example, or [1, ...], whose values the family `patch` puts in place
        of the examples' own; of two splits {"train": ..., "test": ...}, unless one stands for all.
      show: true for progress on stderr, false for none, or a function that is called with it; by default a terminal
        shows bars, and nothing else anything.
      out: new or empty folder to write the result, tables and figures to, if any.
      options: fields of a config's sections `ranges`, `sweep`, `statistics` and `compute` by their name alone, such as
        ``families=("offset",)``, ``grid=True``, ``rule="quantile"``; `ranges` is short for `rule`. Among `families`
        and `metrics` may be records of your own, `jaxdist.Family` and `jaxdist.Metric`, or functions: of (value,
        fraction), and of (outputs, labels).

    Raises:
      InputError: for a site that the network does not reach or that cannot be edited, labels or logits that do not
        fit, training inputs that are all the same, logits of an example that depend on others (`rows`), an unknown
        option, or a range rule that means nothing at a site.
    """
    model = own_networks.model(apply, post, unit_axis, class_axis, output)
    chosen = _options(options, test, "post" if model.post else "pre")
    splits = {"train": own_examples.split_of(train, "train")}
    if stacked:
        params = own_networks.as_stacked(model, params, splits["train"].x)
    params, seeds = own_networks.stacked(params, several=stacked)
    if test is not None:
        splits["test"] = own_examples.split_of(test, "test")
    own_examples.check_single_pass(splits, chosen)
    if source is not None:
        splits = own_examples.with_sources(splits, source)
    names: Sequence[str] = ()
    classes = 0
    plain, task = own_networks.without_task(model, own_labels.checked(task))
    for split, of in splits.items():
        traced = own_networks.traced(plain, params, of.x, split, several=stacked)
        each = own_networks.outputs_of_each(plain, *traced)
        if split == "train":
            task = task or own_labels.task_of(of.given, devices.count(of.x), each, split)
            model = dataclasses.replace(model, task=task)
        classes = own_networks.check_outputs(model, each, *traced)
        splits[split] = of.labelled(model.task, each)
        if split == "train":
            model = own_networks.with_post_of_each(model, traced[0].sites)
            names = own_networks.expanded(tuple(dict(model.post)) if sites is None else sites, traced[0].sites)
            own_networks.check_sites(model, names, traced)
            listed = traced[0].sites
            if only is not None:
                apart = chosen.sweep.layers == "each"
                for keys in targets_of(names, chosen.sweep.layers).values():
                    networks_model.check_together(listed, keys)
                model, names = site_parts.with_parts(model, names, only, listed, together=not apart)
                of_parts = own_networks.traced(model, params, of.x, split, several=stacked)
                own_networks.check_sites(model, names, of_parts)
                listed = of_parts[0].sites
    model = own_networks.laid_out(model)
    moved = tasks.thresholds_of(thresholds, chosen.sweep.metrics)
    chosen, averaged = tasks.measured(model.task, each, chosen, moved)
    odd = own_examples.notes(splits, classes if model.task in ("classes", "binary") else 0)
    tokens = {split: of.tokens() for split, of in splits.items()} if model.task == "tokens" else None
    targets = targets_of(names, chosen.sweep.layers)
    for together in targets.values():
        networks_model.check_together(listed, together)
    # Networks that are not finite are left out, so the mesh is that of the others.
    finite = [not array for array in unedited.not_finite_weights(params)]
    verdict = _rows_of(model, params, splits)
    if verdict.place:
        chosen, note = own_examples.at_once(splits, chosen, str(verdict))
        odd = (*odd, note)
    mesh = devices.make_mesh(jax.devices()[:1] if verdict.place else None, seeds=sum(finite) or seeds)
    laid_out = own_examples.placed(splits, mesh, apart=verdict.place)
    with tuning.using(**chosen.compute.together):
        _refuse_dependent(model, params, splits, laid_out, tuple(names), chosen, finite, verdict)

    def measured(show: Show) -> xr.DataTree:
        began = time.perf_counter()
        context = Context(laid_out, targets, chosen, range(seeds), show, _at_once, classes=classes, averaged=averaged)
        grids = _grids(fractions, chosen.sweep.families)
        context = context._replace(grids=grids, alone=grids, sizes=tokens)
        with tuning.using(**chosen.compute.together):
            groups = study.study({name: Subject(model, params)}, context)
        attrs = _attrs(chosen, splits, time.perf_counter() - began) | results.data_notes(odd)
        attrs |= {"thresholds": json.dumps(moved)} if moved else {}
        return results.tree(groups, attrs)

    bars = _bars(show)
    if out is None:
        with bars as tell:
            return measured(tell)
    with folders.held(Path(out), new=True) as folder:
        with bars as tell:
            result = measured(tell)
        if hosts.writes():
            with manifests.recording(folder):
                result_files.save(result, folder / result_files.FILE)
        from jaxdist.report import writing  # late: what draws takes as long to import as a probe to compute

        writing.write(result, chosen.statistics, folder)
    return result


def _grids(fractions: Mapping[str, Sequence[float]] | None, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The fractions of each family that are given.

    Raises:
      InputError: for a family that is not swept, and fractions that are no increasing numbers.
    """
    if fractions is not None and not isinstance(fractions, Mapping):
        raise InputError(f"fractions: expected a dict of increasing numbers by family, got {fractions!r}")
    grids: dict[str, np.ndarray] = {}
    for name, values in (fractions or {}).items():
        if name not in names:
            raise InputError(f"fractions: expected families that are swept, {', '.join(names)}, got {name!r}")
        try:
            grid = np.asarray(values, np.float64)
        except (TypeError, ValueError, OverflowError):  # names, or rows of unlike lengths
            grid = np.array([])
        if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all() or not (np.diff(grid) > 0).all():
            raise InputError(f"fractions: expected increasing numbers for '{name}', got {values!r}")
        if families.get(name).spacing == "log" and grid[0] <= 0:
            raise InputError(f"fractions: expected numbers above 0 for '{name}', a factor, got {values!r}")
        grids[name] = grid
    return grids


def _options(options: Mapping[str, Any], test: Given | None, measured_on: str) -> Options:
    options = {"measured_on": measured_on, **options}
    if "ranges" in options:
        options["rule"] = options.pop("ranges")
    if "splits" not in options:
        options["splits"] = ("train",) if test is None else ("train", "test")
    registers: dict[str, Any] = {
        "families": (families.REGISTER, toward_families.of_function),
        "metrics": (metrics.REGISTER, metrics.of_function),
    }
    for option, (register, of_function) in registers.items():
        if isinstance(options.get(option), tuple | list):
            for each in options[option]:
                if isinstance(each, functools.partial):
                    raise InputError(
                        f"{option}: a functools.partial has no name; wrap it in a function defined with def"
                    )
            records = [of_function(each) if inspect.isroutine(each) else each for each in options[option]]
            options[option] = [each if isinstance(each, str) else register.add(each).name for each in records]
    chosen = configs.options_by_name(options, where="probe")
    chosen = dataclasses.replace(chosen, sweep=resolving.named(chosen.sweep))
    if "test" in chosen.sweep.splits and test is None:
        raise InputError("probe: splits names 'test', but there are no test images; pass test=(x, y)")
    if chosen.compute.precision != "float32":
        raise InputError("probe: precision 'exact' works only for the perceptrons of a config; leave it out")
    return chosen


def _bars(show: Show | bool | None) -> contextlib.AbstractContextManager[Show]:
    console = Console(stderr=True)
    if show is True or (show is None and console.is_terminal):
        return progress_display(console)
    if show is None or show is False:
        return contextlib.nullcontext(silent)
    if not callable(show):
        raise InputError(
            f"show: expected true, false, or a function of a job, the amount done, the total and a note, got {show!r}"
        )
    return contextlib.nullcontext(show)


def _at_once(name: str, compute: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:  # noqa: ARG001  (`KeptOrComputed`)
    return compute()


def _rows_of(model: Model, params: Params, splits: own_examples.OwnSplits) -> rows.Independence:
    """Whether the program of one network keeps examples apart."""
    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    return rows.examine(model.logits, network, devices.rows(splits["train"].x, slice(0, 1)))


def _refuse_dependent(
    model: Model,
    params: Params,
    own_splits: Mapping[str, own_examples.OwnSplit],
    splits: Mapping[str, Examples],
    sites: tuple[str, ...],
    options: Options,
    finite: Sequence[bool],
    verdict: rows.Independence,
) -> None:
    """Refuse a network whose program does not keep examples apart, or else look at every one with finite weights.

    First of all, sites have to hold all examples of a block.

    These are looked at on every split, in the blocks that they are swept in; of batches the first stands for all.
    """
    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    inputs = {split: of.x for split, of in own_splits.items()}
    doses = options.sweep.dose or options.sweep.matched

    def swept_in(split: str, listed: Sites) -> set[int]:
        size = sizes.of_block(options.compute.block, listed)
        return {blocks.even_size(splits[split], size, rehearse=with_dose) for with_dose in {False, bool(doses)}}

    for split, x in inputs.items():
        listed = networks_model.trace(model, network, networks_model.shapes_of_one(x))
        for size in swept_in(split, listed):
            x_block = jax.tree.map(lambda leaf, size=size: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), x)
            own_networks.check_block(model, sites, listed, network, x_block)
    if verdict.independent or verdict.place:
        return
    if verdict.independent is False:
        raise InputError(
            "apply: the logits of an example depend on the other examples of its block, or on its place in it: "
            f"{verdict}; pass the network in evaluation mode, or without the part that couples examples"
        )
    networks = [jax.tree.map(lambda leaf, k=k: leaf[k], params) for k, is_finite in enumerate(finite) if is_finite]
    for split, x in inputs.items() if networks else ():
        for size in swept_in(split, networks_model.sites_for_one(model, params, x)):
            independence.check_each(model, networks, x, sites, size, split=split)


def _attrs(options: Options, splits: own_examples.OwnSplits, seconds: float) -> dict[str, Any]:
    counts = ", ".join(counted(of.total, f"{name} example") for name, of in splits.items())
    return {
        "options": json.dumps(configs.to_dict(options)),
        "data_name": "own",
        "data_source": f"{counts} given in Python",
        "data_digest": own_examples.digest(splits),
        "precision": options.compute.precision,
        "timings": json.dumps({"sweep_s": seconds}),
    }
