"""The labelled result of a run: its groups, its provenance, its file.

A result is an `xarray.DataTree`. Group ``training`` has `loss`, `train_accuracy` and `test_accuracy` over (network,
seed, step); entry k belongs to the weights after k updates. Each family's group, such as ``clip``, has the counts
`correct`, `agree` and `kept` (`jaxdist.sweep.kernel.Counts`) over (network, seed, site, split, fraction), `unperturbed`
over (network, seed, split) and `total` over (split); where a network lacks a seed that another has, `correct` is -1. A
random family's have a dimension `draw` before the fractions, which `over_draws` averages. With doses it has `dose`,
`rms` and `rms_plain` (`jaxdist.sweep.doses.Doses`), and `weighted` over (network, site). With further metrics it has
the variables of `jaxdist.sweep.labels.OWN` that begin with `metric`, along a dimension of that name; the attribute
`metrics` tells of each. Groups ``averaged_clip`` and so on are of other gauges. The site "all" edits all sites
together. Group ``ranges`` has `low`, `high` and `dead` over (network, seed, site, unit); `jaxdist.sweep.groups` tells
of further ones. Accuracies are fractions. The root's attributes hold the protocol: config, data digest, what is odd of
the data (`data_notes`), precision, timings, in `products` how each stage computed the first layer's, and of imported
networks their origin; of a user's own network, in place of the config, the options of the measurement. Each group's
attribute `made` says when, on what device and with which versions it was computed.
"""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from jaxdist import config as configs
from jaxdist.data import Dataset
from jaxdist.errors import InputError
from jaxdist.networks import Metrics
from jaxdist.perturbations import Traits, families, traits
from jaxdist.sweep import labels
from jaxdist.sweep.labels import MISSING as MISSING
from jaxdist.sweep.labels import over_draws as over_draws
from jaxdist.types import Ranges

UNKNOWN_DATA = ""
"""The data digest of networks that came without their data."""

_PACKAGES = ("jaxdist", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "xarray")


def provenance(config: configs.Config, dataset: Dataset | None) -> dict[str, Any]:
    """What a result is of, as attributes of plain types: its config and its data, None where they are not known."""
    return {
        "config": configs.to_toml(config),
        "data_name": dataset.name if dataset else config.data.name,
        "data_source": dataset.source if dataset else "not known",
        "data_digest": dataset.digest if dataset else UNKNOWN_DATA,
        "precision": config.compute.precision,
        **data_notes(dataset.notes if dataset else ()),
    }


def data_notes(notes: Sequence[str]) -> dict[str, list[str]]:
    """What is odd of a result's data, as the attribute that says so; no attribute where nothing is."""
    return {"data_notes": list(notes)} if notes else {}


def data_notes_of(result: xr.DataTree) -> list[str]:
    """The sentences on what is odd of a result's data."""
    return [str(note) for note in np.atleast_1d(result.attrs.get("data_notes", []))]


def config_of(result: xr.DataTree) -> configs.Config:
    """The config that a result carries; raises `InputError` for that of a user's own network, which has none."""
    if "config" not in result.attrs:
        raise InputError(
            "the result is of a network measured from Python, so it has no config; use a run folder that 'jaxdist "
            "run', 'train' or 'import-torch' has made"
        )
    return configs.from_toml(result.attrs["config"], kept=True)


def options_of(result: xr.DataTree) -> configs.Options:
    """How a result's networks were measured, whether it is of a run or of a user's own network."""
    if "config" in result.attrs:
        return config_of(result).options
    told = json.loads(result.attrs.get("options", "{}"))
    return configs.options_from_dict(told, where="the result's options", kept=True)


def families_of(*swept: xr.DataTree) -> dict[str, Traits]:
    """The families that a result was swept with, or several, by name, the built-in ones first.

    What is told of them is what the first such result says; of older ones, which say nothing, what is built in.
    """
    told: dict[str, Traits] = {}
    for name, group in (pair for result in swept for pair in result.children.items()):
        of = traits.read(group.attrs, name) or (families.get(name) if name in families.BUILT_IN else None)
        if of is not None:
            told.setdefault(name, of)
    return {name: told[name] for name in [*families.BUILT_IN, *told] if name in told}


def untrained(result: xr.DataTree) -> str | None:
    """A sentence on networks that no step has changed, None of others and of those whose training is not known."""
    unknown = json.loads(result.attrs.get("origin", "{}")).get("unknown", ())
    if "config" not in result.attrs or "train.steps" in unknown or config_of(result).train.steps:
        return None
    lacking = ", and no weights are kept along training" if config_of(result).train.snapshots else ""
    return f"untrained: train.steps is 0, so these networks are as their weights were drawn{lacking}"


def seeds_of(result: xr.DataTree) -> list[int]:
    """The numbers of a result's seeds: its config's but for imported networks, which keep those they came with."""
    numbers = config_of(result).train.numbers
    return [int(seed) for seed in np.atleast_1d(result.attrs.get("seeds", numbers))]


def stage_provenance() -> str:
    """When, where and with what a stage was computed, as JSON: the attribute `made` of its groups."""
    device = jax.devices()[0]
    return json.dumps(
        {
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": _versions(),
            "python": platform.python_version(),
            "platform": device.platform,
            "device": device.device_kind if device.platform != "cpu" else platform.processor() or platform.machine(),
            "devices": jax.device_count(),
        }
    )


@functools.cache  # reading them takes a third of the time of a small probe
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def training(metrics: Mapping[str, Metrics], seeds: Sequence[int]) -> xr.Dataset:
    """Label the training metrics [steps + 1, S] of each network."""
    dims = ("network", "seed", "step")
    values = {
        name: (dims, np.stack([np.asarray(getattr(m, name), np.float32).T for m in metrics.values()]))
        for name in Metrics._fields
    }
    steps = len(next(iter(metrics.values())).loss)
    return xr.Dataset(
        values,
        coords={"network": list(metrics), "seed": list(seeds), "step": np.arange(steps)},
        attrs={
            "step": "updates made when the entry was measured",
            "units": "loss in nats, accuracy as a fraction",
            "made": stage_provenance(),
        },
    )


def ranges(
    measured: Mapping[str, Mapping[str, Ranges]], seeds: Sequence[int], options: configs.RangesConfig
) -> xr.Dataset:
    """Label the ranges [S, H] by network and site; units that a narrower site lacks are NaN.

    The attributes say the side and the rule, with the rule's own number.
    """
    sites = list(next(iter(measured.values())))
    width = max(r.low.shape[-1] for by_site in measured.values() for r in by_site.values())

    def stacked(field: str, missing: float | bool) -> np.ndarray:
        def filled(values: Any) -> np.ndarray:
            values = np.asarray(values)
            return np.pad(values, ((0, 0), (0, width - values.shape[-1])), constant_values=missing)

        return np.stack([np.stack([filled(getattr(r[s], field)) for s in sites], 1) for r in measured.values()])

    dims = ("network", "seed", "site", "unit")
    names = {"minmax": (), "quantile": ("quantile",), "sd": ("deviations",)}
    number = {name: getattr(options, name) for name in names[options.rule]}
    return xr.Dataset(
        {
            "low": (dims, stacked("low", np.nan)),
            "high": (dims, stacked("high", np.nan)),
            "dead": (dims, stacked("dead", False)),
        },
        coords={"network": list(measured), "seed": list(seeds), "site": sites, "unit": np.arange(width)},
        attrs={"measured_on": options.measured_on, "rule": options.rule, **number, "made": stage_provenance()},
    )


def family(
    swept: xr.Dataset,
    of: Traits,
    identity: float | None,
    totals: Sequence[int],
    outgoing: Mapping[tuple[str, str], bool],
) -> xr.Dataset:
    """Say of a family's sweep what reports need to know, so that these need not know the family themselves.

    Args:
      swept: the family's sweep.
      of: the family's traits.
      identity: where it edits nothing, if anywhere.
      totals: the images of each split, or tokens that have a label.
      outgoing: by network and site, where doses were measured, whether they are weighted by the outgoing weights.
    """
    group = with_totals(swept, totals)
    if outgoing:
        pairs = [[outgoing.get((str(net), str(site)), False) for site in swept.site.data] for net in swept.network.data]
        group["weighted"] = ("network", "site"), np.asarray(pairs, np.int8)
    attrs = {} if identity is None else {"identity": identity}
    draws = swept.sizes.get("draw", 1)
    return group.assign_attrs({**traits.attributes(of), **attrs, "draws": draws, "made": stage_provenance()})


def with_totals(swept: xr.Dataset, totals: Sequence[int]) -> xr.Dataset:
    """A group of counts with the images of each split."""
    return swept.assign(total=("split", np.asarray(totals, np.int32)))


def tree(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> xr.DataTree:
    """Put groups and protocol together."""
    result = xr.DataTree.from_dict(dict(groups))
    result.attrs = dict(attrs)
    return result


def alike(members: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Groups of one name, of which those where nothing could be measured get the variables and draws of the others.

    Nothing can be where no network passed any training accuracy, at whose weights it would be.
    """

    def blank(member: xr.Dataset) -> bool:
        return "correct" in member and bool((member.correct == MISSING).all())

    full = next((member for member in members if not blank(member)), None)
    return [_like(member, full) if full is not None and blank(member) else member for member in members]


def _like(member: xr.Dataset, full: xr.Dataset) -> xr.Dataset:
    size = {axis: np.zeros(member.sizes[axis], int) for axis in ("network", "seed")}
    filled = full.isel(size).assign_coords({axis: member[axis] for axis in size})
    for name, values in filled.data_vars.items():
        if name in member and member[name].dims == values.dims:
            filled[name] = member[name]
        elif set(size) & set(values.dims):
            filled[name] = xr.full_like(values, labels.missing(str(name), values.dtype))
    own = {key: value for key, value in member.attrs.items() if key in ("made", "refused")}
    filled.attrs = {**full.attrs, **own}
    return filled


def attrs_of(main: xr.Dataset, others: Sequence[xr.Dataset]) -> dict[str, Any]:
    """The attributes of a group that is put together: those of one member, and what is known of the making of all."""

    def listed(name: str) -> list[str]:
        return [each for member in (*others, main) for each in np.atleast_1d(member.attrs.get(name, [])).tolist()]

    attrs = {str(name): value for name, value in main.attrs.items()}
    attrs["made_before"] = [*listed("made_before"), *(str(member.attrs["made"]) for member in others)]
    if any("refused" in member.attrs for member in (main, *others)):
        attrs["refused"] = list(dict.fromkeys(listed("refused")))
    return attrs


def timings(parts: Sequence[xr.DataTree]) -> str:
    """The attribute of that name of results that are put together: the seconds of each stage, added up."""
    times = [json.loads(part.attrs["timings"]) for part in parts]
    stages = dict.fromkeys(stage for time in times for stage in time)
    return json.dumps({stage: sum(time.get(stage, 0) for time in times) for stage in stages})


def joined(parts: Sequence[xr.DataTree], attrs: Mapping[str, Any]) -> xr.DataTree:
    """Put results of consecutive seeds together, under a protocol that holds for all; times add up.

    A group's `made` and the attribute `products` are the last part's; those of earlier parts are listed in
    `made_before` and `products_before`.
    """
    last = {str(name): value for name, value in parts[-1].attrs.items()}
    # Seeds are 0, 1, ... unless the networks came with numbers of their own.
    base = last if "origin" in last else {name: value for name, value in last.items() if name != "seeds"}
    if len(parts) == 1:
        return tree({str(name): child.to_dataset() for name, child in parts[0].children.items()}, {**base, **attrs})
    groups = {}
    for name in parts[-1].children:
        members = alike([part[name].to_dataset() for part in parts])
        if any("draw" not in member.dims for member in members):  # one of an earlier version has means alone
            members = [over_draws(member) for member in members]
        groups[name] = xr.concat(members, "seed", data_vars="minimal", coords="minimal", compat="equals", join="exact")
        groups[name].attrs = attrs_of(members[-1], members[:-1])
    merged = [entry for part in parts for entry in json.loads(part.attrs.get("merged", "[]"))]
    base |= {"merged": json.dumps(merged)} if merged else {}
    before = [str(part.attrs["products"]) for part in parts[:-1]]
    return tree(groups, {**base, **attrs, "timings": timings(parts), "products_before": before})
