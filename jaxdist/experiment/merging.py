"""Runs of parts of an experiment, put together as if they had been one: other seeds, other activations, or both.

A network depends on its own seed and activation alone, not on which others were trained with it, so parts that were
made on any machines, with no connection between them, are one run.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from jaxdist import config as configs
from jaxdist import files
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.experiment.running import is_swept
from jaxdist.formatting import counted, listed
from jaxdist.networks import Passed
from jaxdist.storage import folders, manifests, result_files, unfinished
from jaxdist.sweep import results
from jaxdist.types import Params


class Part(NamedTuple):
    """A run that is to be a part of another."""

    folder: Path
    config: Config
    result: xr.DataTree
    networks: dict[str, Params]  # leading S
    passed: dict[str, Passed]
    sha256: str = ""
    """Of the result's file; none of several put together."""

    @property
    def seeds(self) -> range:
        """Their numbers."""
        return self.config.train.numbers


def merge_folders(given: Sequence[Path], out: Path) -> xr.DataTree:
    """Put runs together in the new folder `out`, and return the result; they themselves stay as they are.

    Args:
      given: run folders of one protocol and the same images, all swept or none. Of each set of activations they must
        hold the same seeds, without gaps or repeats.
      out: a folder that holds nothing yet.

    Raises:
      InputError: for runs that are no parts of one, with what differs. Nothing is written then.
    """
    if len(given) < 2:
        raise InputError("merge: expected at least two runs; name the folders of all parts")
    places = [folders.with_result(folder) for folder in given]
    for folder in places:
        if sum(folder.resolve() == other.resolve() for other in places) > 1:
            raise InputError(f"{folder}: is named twice; name each run once")
        if files.expanded(out).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"--out: {out} lies in {folder}, a part, which stays as it is; choose another folder")
        if (folder / unfinished.FOLDER).exists():
            raise InputError(f"{folder}: holds unfinished work; repeat the command that began it, then merge")
    parts = [_read(folder) for folder in places]
    for part in parts[1:]:
        _refuse_other(parts[0], part)
    by_activations: dict[tuple[str, ...], list[Part]] = {}
    for part in parts:
        # In whatever order: the first part's is that of the run.
        same = next((names for names in by_activations if set(names) == set(part.config.model.activations)), None)
        by_activations.setdefault(same or part.config.model.activations, []).append(part)
    joined = [_of_all_seeds(same) for same in by_activations.values()]
    _refuse_gaps(joined)
    whole = _of_all_networks(joined)
    # What changes no counts, as statistics do not, is that of the run that is named first.
    free = parts[0].config
    config = dataclasses.replace(
        _with(whole.config, save_every=free.train.save_every), out=str(out), data=free.data, statistics=free.statistics
    )
    result = results.tree(
        {str(name): child.to_dataset() for name, child in whole.result.children.items()}, _attrs(parts, whole, config)
    )
    with folders.held(out, new=True) as folder:
        folders.save(folder, config, result, whole.networks, whole.passed)
    return result


def _read(folder: Path) -> Part:
    result = result_files.load(folder)
    if "origin" in result.attrs or "config" not in result.attrs:
        raise InputError(f"{folder}: holds networks that were not trained from a config; only such runs are merged")
    sha256 = manifests.content_of(folder / result_files.FILE).sha256
    config = results.config_of(result)
    seeds = len(results.seeds_of(result))
    networks = folders.load_networks(config, folder, seeds)
    passed = folders.load_passed(config, folder, seeds) if config.train.keeps_snapshots else {}
    for name, params in networks.items():
        if any(len(leaf) != seeds for leaf in jax.tree.leaves(params)):
            raise InputError(
                f"{folders.weights_path(folder, name)}: expected the weights of {counted(seeds, 'network')}, as the "
                "result has"
            )
    kept = {name: Passed(**fields) for name, fields in passed.items()}
    return Part(folder, config, result, networks, kept, sha256)


_OF_GAUGES = ("averaged_", "absolute_")
"""How groups of gauges begin (`results`)."""

_PART_OF = ("train.seeds", "model.activations")
"""Fields in which parts of a run may differ, besides those that change no counts."""


def _refuse_other(first: Part, other: Part) -> None:
    """Refuse runs of other protocols, images or code."""
    differing = {
        key: pair for key, pair in unfinished.differences(first.config, other.config).items() if key not in _PART_OF
    }
    if differing:
        raise InputError(
            f"{first.folder}: was made with {unfinished.in_words(differing)} as {other.folder}; "
            "parts of a run have one protocol"
        )
    for name, what in (("data_digest", "images"), ("code", "code of your own")):
        if first.result.attrs.get(name) != other.result.attrs.get(name):
            raise InputError(
                f"{other.folder}: was made with other {what} than {first.folder}; parts of a run have the same"
            )
    swept = [is_swept(part.result) for part in (first, other)]
    if swept[0] != swept[1]:
        lacking = other if swept[0] else first
        raise InputError(f"{lacking.folder}: is not swept, as others are; run 'jaxdist sweep {lacking.folder}' first")
    groups = [{str(name) for name in part.result.children} for part in (first, other)]
    # Gauges are of activations that are even, and so of some parts alone.
    unlike = sorted(name for name in groups[0] ^ groups[1] if not name.startswith(_OF_GAUGES))
    if unlike:
        lacking = first if unlike[0] in groups[1] else other
        raise InputError(
            f"{lacking.folder}: lacks {listed(unlike)}, which another part has, as of another version; sweep it again "
            f"with 'jaxdist sweep {lacking.folder}'"
        )


def _of_all_seeds(parts: Sequence[Part]) -> Part:
    """One part with the seeds of several, which have the same activations; the first part's order is that of all."""
    activations = parts[0].config.model.activations
    ordered = sorted(parts, key=lambda part: part.seeds.start)
    for before, after in itertools.pairwise(ordered):
        if before.seeds.stop != after.seeds.start:
            gap = before.seeds.stop < after.seeds.start
            start, stop = sorted((before.seeds.stop, after.seeds.start))
            numbers = range(start, stop if gap else min(stop, after.seeds.stop))
            several = len(numbers) > 1
            span = f"seeds {numbers.start} to {numbers.stop - 1}" if several else f"seed {numbers.start}"
            names = listed(before.config.model.activations)
            what = f"{'are' if several else 'is'} {'missing between' if gap else 'in both'}"
            raise InputError(
                f"merge: {span} of {names} {what} {before.folder} and {after.folder}; a run has each seed once"
            )
    first = ordered[0]
    for part in ordered[1:]:
        for name, params in part.networks.items():
            if _shapes(params) != _shapes(first.networks[name]):
                raise InputError(f"{part.folder}: has '{name}' weights of other shapes than {first.folder}")
    count = sum(len(part.seeds) for part in ordered)
    networks, passed = (
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)
        for each in zip(*((part.networks, part.passed) for part in ordered), strict=True)
    )
    try:
        result = results.joined([_in_order(part.result, activations) for part in ordered], {})
    except ValueError as error:  # other grids, as of another version
        raise InputError(f"{first.folder}: cannot be put together with the other parts ({error})") from None
    config = _with(first.config, seeds=f"{first.seeds.start}:{first.seeds.start + count}")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, activations=activations))
    return Part(first.folder, config, result, networks, passed)


def _in_order(result: xr.DataTree, names: Sequence[str]) -> xr.DataTree:
    """The same result, its networks in this order."""
    groups = {str(name): child.to_dataset() for name, child in result.children.items()}
    ordered = {
        name: group.sel(network=[each for each in names if each in group.network]) if "network" in group.dims else group
        for name, group in groups.items()
    }
    return results.tree(ordered, {str(name): value for name, value in result.attrs.items()})


def _shapes(params: Params) -> Any:
    """Those of one network's arrays, by their names."""
    return jax.tree.map(lambda leaf: leaf.shape[1:], params)


def _with(config: Config, **train: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


def _refuse_gaps(parts: Sequence[Part]) -> None:
    """Refuse activations that are in two parts, or that have other seeds than the rest."""

    def seeds(part: Part) -> str:
        return f"seeds {part.seeds.start} to {part.seeds.stop - 1} of {listed(part.config.model.activations)}"

    for first, other in itertools.combinations(parts, 2):
        both = set(first.config.model.activations) & set(other.config.model.activations)
        if both:
            raise InputError(
                f"{first.folder} and {other.folder}: both hold {listed(sorted(both))}, beside different others; parts "
                "have the same activations or none in common"
            )
        if first.seeds != other.seeds:
            raise InputError(
                f"{other.folder}: all parts together have {seeds(other)}, but {seeds(first)}; a run has the same of "
                "each"
            )


def _of_all_networks(parts: Sequence[Part]) -> Part:
    """One part with the activations of several, which have the same seeds."""
    first = parts[0]
    groups: dict[str, list[xr.Dataset]] = {}
    for part in parts:
        for name, child in part.result.children.items():
            groups.setdefault(str(name), []).append(child.to_dataset())
    try:
        merged = {name: _beside(results.alike(members)) for name, members in groups.items()}
    except ValueError as error:
        raise InputError(f"{first.folder}: cannot be put together with the other parts ({error})") from None
    activations = tuple(name for part in parts for name in part.config.model.activations)
    attrs = {str(name): value for name, value in first.result.attrs.items()}
    return Part(
        first.folder,
        dataclasses.replace(first.config, model=dataclasses.replace(first.config.model, activations=activations)),
        results.tree(merged, attrs),
        {name: params for part in parts for name, params in part.networks.items()},
        {name: kept for part in parts for name, kept in part.passed.items()},
    )


def _beside(members: Sequence[xr.Dataset]) -> xr.Dataset:
    """A group with the networks of several."""
    if len(members) == 1:
        return members[0]
    beside = xr.concat(members, "network", data_vars="minimal", coords="minimal", compat="equals", join="exact")
    beside.attrs = results.attrs_of(members[0], members[1:])
    return beside


def _attrs(parts: Sequence[Part], whole: Part, config: Config) -> dict[str, Any]:
    """What is known of the making of all: the config, what it was merged of, and times added up."""
    merged: list[dict[str, Any]] = []
    for part in parts:
        own = {"activations": part.config.model.activations, "seeds": [part.seeds.start, part.seeds.stop]}
        merged += json.loads(part.result.attrs.get("merged", "[]")) or [{**own, "sha256": part.sha256}]
    return {
        **{str(name): value for name, value in whole.result.attrs.items()},
        "config": configs.to_toml(config),
        "timings": results.timings([part.result for part in parts]),
        "merged": json.dumps(merged),
    }
