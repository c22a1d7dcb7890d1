"""The groups of a result that go beyond the families' own, labelled.

Group ``grid_scale_offset`` has counts over (network, seed, site, split, first, second); ``units_<family>`` over
(network, seed, site, split, fraction, unit), -1 where a narrower site has no such unit; ``snapshots_<family>`` over
(network, seed, threshold, site, split, fraction), -1 where training never passed that accuracy. ``sensitivity`` has
derivatives over (network, seed, site, split, unit).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from jaxdist.perturbations import families
from jaxdist.sweep import labels
from jaxdist.sweep.kernel import Counts
from jaxdist.sweep.labels import Arrays, SweptKey
from jaxdist.sweep.results import stage_provenance, with_totals
from jaxdist.sweep.sensitivity import Sensitivity


def grid(
    swept: xr.Dataset,
    grids: Mapping[str, np.ndarray],
    identities: Mapping[str, float | None],
    totals: Sequence[int],
) -> dict[str, xr.Dataset]:
    """Label a sweep of two families' edits at once.

    Args:
      swept: its points are pairs of fractions, the second family's fastest.
      grids: the fractions of both, by name, the first family's first.
      identities: where each family edits nothing, if anywhere.
      totals: the images of each split, or tokens that have a label.
    """
    (first, outer), (second, inner) = grids.items()
    pairs = labels.parted(swept, "point", ("first", "second"), len(inner))
    places = {"identity_first": identities[first], "identity_second": identities[second]}
    unedited = {name: place for name, place in places.items() if place is not None}
    group = with_totals(pairs, totals).assign_coords(first=outer, second=inner)
    return {
        f"grid_{first}_{second}": group.assign_attrs(first=first, second=second, **unedited, made=stage_provenance())
    }


def units(
    each: Mapping[SweptKey, Arrays], grids: Mapping[str, np.ndarray], coords: Mapping[str, Any], totals: Sequence[int]
) -> dict[str, xr.Dataset]:
    """Label what edits of single units change: one group a family.

    Args:
      each: by network, target and split, counts [S, P, H] and metrics [S, P, H, M].
      grids: the fractions of each family, whose points follow one another.
      coords: the labels of seeds and metrics.
      totals: the images of each split, or tokens that have a label.
    """
    own = {name: (*labels.OWN[name], *(("unit",) if labels.OWN[name] else ())) for name in Counts._fields}
    own |= dict.fromkeys(("metric_change", "metric_change_sd"), ("point", "unit", "metric"))
    swept = with_totals(labels.dataset(each, own, coords), totals)
    swept = swept.assign_coords(unit=np.arange(swept.sizes["unit"])).assign_attrs(made=stage_provenance())
    parts = labels.families_of_points(swept, grids, dict.fromkeys(grids, 1))
    return {f"units_{family}": part for family, part in parts}


def sensitivity(measured: Mapping[SweptKey, Sensitivity], coords: Mapping[str, Any]) -> xr.Dataset:
    """Label derivatives of the mean margin, [S, H], and the margin [S]."""
    own: dict[str, tuple[str, ...]] = {"offset": ("unit",), "log_scale": ("unit",), "margin": ()}
    group = labels.dataset({key: of._asdict() for key, of in measured.items()}, own, coords)
    return group.assign_coords(unit=np.arange(group.sizes["unit"])).assign_attrs(
        units="logits a unit of preactivation, logits a unit of log-scale, logits", made=stage_provenance()
    )


def matched(
    swept: xr.Dataset, fractions: np.ndarray, wanted: np.ndarray, family: str, totals: Sequence[int]
) -> xr.Dataset:
    """Label a family's sweep at fractions of each network's own that give some doses.

    Dimension `level` is the dose wanted; values are missing where the family never has it.

    Args:
      swept: the family's sweep.
      fractions: [network, seed, site, sides * D], NaN where the family never has the dose.
      wanted: doses [D].
      family: its name.
      totals: the images of each split, or tokens that have a label.
    """
    sides = families.get(family).sides
    group = swept.drop_vars("fraction").assign(at=(("network", "seed", "site", "fraction"), fractions))
    group = labels.parted(group, "fraction", ("side", "level"), len(wanted))
    group = blanked(group, group["at"].notnull()).rename(at="fraction")
    group = with_totals(group, totals).assign_coords(side=list(sides), level=wanted)
    return group.assign_attrs(draws=swept.sizes.get("draw", 1), made=stage_provenance())


def blanked(group: xr.Dataset, there: xr.DataArray) -> xr.Dataset:
    """A group with its values missing where they are not `there`, in all variables that have those dimensions."""

    def emptied(values: xr.DataArray) -> xr.DataArray:
        if not set(there.dims) <= set(values.dims):
            return values
        order = values.dims
        emptied = values.where(there, labels.missing(str(values.name), values.dtype)).astype(values.dtype)
        return emptied.transpose(*order)

    return group.assign({name: emptied(values) for name, values in group.data_vars.items()})


def snapshots(
    swept: Mapping[str, Mapping[str, xr.Dataset]],
    like: Mapping[str, xr.Dataset],
    steps: Mapping[str, np.ndarray],
    thresholds: Sequence[float],
    identities: Mapping[str, float | None],
    coords: Mapping[str, Any],
    totals: Sequence[int],
) -> dict[str, xr.Dataset]:
    """Label the sweeps of snapshots: one group a family.

    Args:
      swept: by network and family, with snapshots one after the other in place of seeds, S * K; nothing of a network
        whose snapshots could not be swept.
      like: by family the sweep of some network, whose shapes the others' have.
      steps: of each network when each snapshot was taken, [S, K], or -1, where values are missing too.
    """
    when = xr.DataArray(
        np.stack(list(steps.values())),
        dims=("network", "seed", "threshold"),
        coords={"network": list(steps), "seed": coords["seed"], "threshold": list(thresholds)},
    )

    def of_networks(family: str) -> Iterator[xr.Dataset]:
        for name in steps:
            network = swept[name].get(family, like[family]).assign_coords(network=[name])
            network = labels.parted(network.drop_vars("seed"), "seed", ("seed", "threshold"), len(thresholds))
            network = network.assign_coords({**coords, "threshold": list(thresholds)})
            there = when.sel(network=[name]) >= 0
            yield blanked(network, there if swept[name] else xr.zeros_like(there))

    groups = {}
    for family, identity in identities.items():
        group = xr.concat(list(of_networks(family)), "network", data_vars="minimal", coords="minimal", join="exact")
        attrs: dict[str, Any] = {} if identity is None else {"identity": identity}
        attrs |= {"draws": group.sizes.get("draw", 1), "made": stage_provenance()}
        groups[f"snapshots_{family}"] = with_totals(group.assign(step=when), totals).assign_attrs(attrs)
    return groups
