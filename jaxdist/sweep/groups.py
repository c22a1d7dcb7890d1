"""The groups of a result that go beyond the families' own: their arrays, labelled.

Group ``grid_scale_offset`` has counts over (network, seed, site, split, first, second); ``units_<family>`` over
(network, seed, site, split, fraction, unit), -1 where a narrower site has no such unit; ``snapshots_<family>`` over
(network, seed, threshold, site, split, fraction), -1 where training never passed that accuracy. ``sensitivity`` has
derivatives over (network, seed, site, split, unit).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from jaxdist.perturbations import families
from jaxdist.sweep import results
from jaxdist.sweep.kernel import Counts
from jaxdist.sweep.results import Swept, made
from jaxdist.sweep.sensitivity import Sensitivity

DIMS = ("network", "seed", "site", "split")

Coords = Mapping[str, Sequence[Any]]


def _counts(counts: Counts, dims: Sequence[str], totals: Sequence[int]) -> dict[str, Any]:
    """The variables that every group of counts has; what does not depend on the edit is the same at every site."""
    each = {name: ((*DIMS, *dims), getattr(counts, name)) for name in ("correct", "agree", "kept")}
    unperturbed = (("network", "seed", "split"), np.asarray(counts.unperturbed)[:, :, 0])
    return {**each, "unperturbed": unperturbed, "total": ("split", np.asarray(totals, np.int32))}


def _mapped(counts: Counts, change: Callable[[np.ndarray], np.ndarray]) -> Counts:
    """Change what depends on the edit."""
    correct, agree, kept = (change(np.asarray(leaf)) for leaf in counts[:3])
    return Counts(correct, agree, kept, counts.unperturbed)


def _points(here: slice, leaf: np.ndarray) -> np.ndarray:
    return leaf[..., here, :]


def grid(
    counts: Counts,
    grids: Mapping[str, np.ndarray],
    identities: Mapping[str, float | None],
    coords: Coords,
    totals: Sequence[int],
) -> dict[str, xr.Dataset]:
    """Label the counts [network, seed, site, split, P1 * P2] of two families' edits at once."""
    (first, outer), (second, inner) = grids.items()
    shape = (len(outer), len(inner))
    shaped = _mapped(counts, lambda leaf: np.reshape(leaf, (*leaf.shape[:4], *shape)))
    places = {"identity_first": identities[first], "identity_second": identities[second]}
    unedited = {name: place for name, place in places.items() if place is not None}
    group = xr.Dataset(
        _counts(shaped, ("first", "second"), totals),
        coords={**coords, "first": outer, "second": inner},
        attrs={"first": first, "second": second, **unedited, "made": made()},
    )
    return {f"grid_{first}_{second}": group}


def units(
    counts: Counts, grids: Mapping[str, np.ndarray], coords: Coords, totals: Sequence[int]
) -> dict[str, xr.Dataset]:
    """Label the counts [network, seed, site, split, P, H] of each unit edited alone: one group a family."""
    found = {}
    for family, here in families.slices(grids).items():
        part = _mapped(counts, functools.partial(_points, here))
        found[f"units_{family}"] = xr.Dataset(
            _counts(part, ("fraction", "unit"), totals),
            coords={**coords, "fraction": grids[family], "unit": np.arange(counts.correct.shape[-1])},
            attrs={"made": made()},
        )
    return found


def sensitivity(found: Sensitivity, coords: Coords) -> xr.Dataset:
    """Label derivatives of the mean margin, [network, seed, site, split, H]."""
    dims = (*DIMS, "unit")
    return xr.Dataset(
        {"offset": (dims, found.offset), "log_scale": (dims, found.log_scale), "margin": (DIMS, found.margin)},
        coords={**coords, "unit": np.arange(found.offset.shape[-1])},
        attrs={"units": "logits a unit of preactivation, logits a unit of log-scale, logits", "made": made()},
    )


def matched(
    swept: Swept, fractions: np.ndarray, wanted: np.ndarray, family: str, coords: Coords, totals: Sequence[int]
) -> xr.Dataset:
    """Label what a family finds at `fractions` [network, seed, site, sides * D] that give the doses `wanted` [D].

    Dimension `level` is the dose wanted; NaN, and -1 in counts, where the family never has it.
    """
    sides, missing = families.get(family).sides, np.isnan(fractions)[:, :, :, None]
    shape = (len(sides), len(wanted))

    def shaped(values: np.ndarray) -> np.ndarray:
        return np.reshape(values, (*values.shape[:-1], *shape))

    dims = (*DIMS, "side", "level")
    counts = {
        name: (dims, shaped(np.where(missing, results.MISSING, getattr(swept.found, name))))
        for name in ("correct", "agree", "kept")
    }
    doses = {
        name: (dims, shaped(np.where(missing, np.nan, getattr(swept.found, field))))
        for name, field in results.DOSES.items()
    }
    return xr.Dataset(
        {
            **counts,
            **doses,
            "fraction": (("network", "seed", "site", "side", "level"), shaped(fractions)),
            "unperturbed": (("network", "seed", "split"), np.asarray(swept.found.unperturbed)[:, :, 0]),
            "total": ("split", np.asarray(totals, np.int32)),
        },
        coords={**coords, "side": list(sides), "level": wanted},
        attrs={"draws": swept.draws, "made": made()},
    )


def snapshots(
    swept: Mapping[str, Mapping[str, Swept]],
    steps: Mapping[str, np.ndarray],
    thresholds: Sequence[float],
    identities: Mapping[str, float | None],
    coords: Coords,
    totals: Sequence[int],
    grid: Callable[[str], np.ndarray],
) -> dict[str, xr.Dataset]:
    """Label the counts of snapshots: one group a family, at the fractions of its `grid` where nothing was swept.

    What was swept of a network, if anything, has snapshots one after the other in place of seeds, [1, S * K, site,
    split, P]; `steps` [S, K] says when each was taken, or -1, which also fills the counts where there is none.
    """
    when = np.stack(list(steps.values()))  # [network, S, K]
    axes = (*when.shape, len(coords["site"]), len(coords["split"]))
    dims = ("network", "seed", "threshold")
    labelled = {}
    for family, identity in identities.items():
        known = {name: by_family[family] for name, by_family in swept.items() if by_family}
        fraction = next(iter(known.values())).fraction if known else grid(family)

        def whole(field: str, size: tuple[int, ...], known: Mapping[str, Swept] = known) -> np.ndarray:
            found = {name: np.asarray(getattr(each.found, field)) for name, each in known.items()}
            kind = np.result_type(np.int32, *(values.dtype for values in found.values()))
            filled = np.full((*axes, *size), -1, kind)
            for k, name in enumerate(steps):
                if name in found:
                    filled[k, when[k] >= 0] = found[name][0][when[k].ravel() >= 0]
            return filled

        points = (len(fraction),)
        counts = {
            name: ((*dims, "site", "split", "fraction"), whole(name, points)) for name in ("correct", "agree", "kept")
        }
        labelled[f"snapshots_{family}"] = xr.Dataset(
            {
                "step": (dims, when),
                **counts,
                "unperturbed": ((*dims, "split"), whole("unperturbed", ())[:, :, :, 0]),
                "total": ("split", np.asarray(totals, np.int32)),
            },
            coords={**coords, "threshold": list(thresholds), "fraction": fraction},
            attrs={
                **({} if identity is None else {"identity": identity}),
                "draws": next(iter(known.values())).draws if known else 1,
                "made": made(),
            },
        )
    return labelled
