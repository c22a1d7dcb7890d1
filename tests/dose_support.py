"""Results with doses whose answers are known: every family flips 1 % of predictions at a dose that is given."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from jaxdist import config
from jaxdist.analysis import dose_tables, dosed
from jaxdist.perturbations import families
from jaxdist.sweep import results
from jaxdist.version import SCHEMA

TOTAL, OPTIONS = 10_000, config.StatisticsConfig()
DISTANCE = {"floor": 0.03, "dead_zone": 0.04, "clip_both": 0.25, "clip": 0.2, "noise": 0.1}
INTENSITY = {"floor": 0.25, "dead_zone": 0.2, "clip_both": 0.03, "clip": 0.02, "noise": 0.1}
NEITHER = {"floor": 0.1, "dead_zone": 0.1, "clip_both": 0.1, "clip": 0.1, "noise": 0.1}
OTHERS = {
    "offset": 0.05, "shift": 0.07, "random_offset": 0.06, "restored_offset": 0.12, "random_scale": 0.15, "scale": np.inf
}  # fmt: skip
FAMILIES = tuple(name for name in families.ALL if name in OTHERS | DISTANCE)
"""Those that the fair comparison is about."""
RANDOM = tuple(name for name in FAMILIES if families.get(name).random)


def grid(family, points=24):
    """From no edit outward to every side of the family, no edit among them."""
    one = families.get(family)
    if family == "scale":
        return np.geomspace(0.1, 10, 2 * points + 1)
    steps = np.geomspace(0.01, 1, points)
    beyond = {"above": one.identity + steps, "below": one.identity - np.minimum(steps, 0.999)}
    return np.unique(np.concatenate([[one.identity], *(beyond[side] for side in one.sides)]))


def dose(family, fraction):
    """The dose of a fraction, 0.9 at the grid's end; 0 for the common scale."""
    if family == "scale":
        return np.zeros(len(fraction))
    return 0.9 * np.abs(fraction - families.get(family).identity)


def flips(at, cost):
    """Flips that reach 1 % at dose `cost`, and 10 % at the root of 10 times that."""
    return np.minimum(0.9, 0.01 * (at / cost) ** 2)


def made_up(
    networks=None,
    *,
    seeds=6,
    sites=("dense0/pre",),
    splits=("train", "test"),
    spread=0.1,
    left_out=(),
    even=(),
    **attrs,
):
    """A swept result of networks, each given by its families' costs; seeds differ by factors of `spread`."""
    networks = {"relu": DISTANCE, "abs": INTENSITY} if networks is None else networks
    rng = np.random.default_rng(5)
    coords = {"network": list(networks), "seed": np.arange(seeds), "site": list(sites), "split": list(splits)}
    shape = tuple(map(len, coords.values()))
    factor = np.exp(spread * rng.standard_normal((*shape[:2], len(FAMILIES))))
    groups = {}
    for k, family in enumerate(FAMILIES):
        if family in left_out:
            continue
        for gauge in dosed.GAUGES if even and family in ("clip", "offset", "shift") else ["as_is"]:
            costs = np.array([(OTHERS | one)[family] for one in networks.values()])
            costs = costs[:, None] * factor[..., k] * {"as_is": 1.0, "averaged": 1.1, "absolute": 1.3}[gauge]
            group = _group(family, costs, shape, coords, draws=family in RANDOM or gauge == "averaged")
            if gauge != "as_is":  # at some points of the grid only
                group = group.isel(fraction=slice(1, None, 3)).drop_vars(["dose", "rms", "rms_plain"])
                odd = xr.DataArray([name not in even for name in networks], dims="network")
                for name in ("correct", "agree", "kept"):
                    group[name] = group[name].where(~odd, results.MISSING)
            groups[dosed.GAUGES[gauge] + family] = group
    options = config.Config()
    return results.tree(groups, {"schema": SCHEMA, "config": config.to_toml(options), "data_name": "mnist"} | attrs)


def _group(family, costs, shape, coords, *, draws):
    fraction = grid(family)
    at = dose(family, fraction)
    flipped = np.round(TOTAL * flips(at, costs[..., None]))[:, :, None, None]
    if family == "scale":
        flipped = flipped + np.round(30 * np.abs(np.log(fraction)))
    flipped = np.broadcast_to(flipped, (*shape, len(fraction)))
    unperturbed = np.full((shape[0], shape[1], shape[3]), 9_500)
    lost = np.round(0.8 * flipped)
    counts = {"correct": 9_500 - lost, "agree": TOTAL - flipped, "kept": 9_500 - lost}
    if draws:  # means of draws
        counts = {name: values.astype(float) for name, values in counts.items()}
        counts |= {"correct_sd": 0.1 * lost, "agree_sd": 0.1 * flipped}
    else:
        counts = {name: values.astype(np.int32) for name, values in counts.items()}
    doses = np.broadcast_to(at, flipped.shape)
    dims = ("network", "seed", "site", "split", "fraction")
    measured = counts | {"dose": doses, "rms": 1.2 * doses, "rms_plain": 1.4 * doses}
    return xr.Dataset(
        {name: (dims, np.array(values)) for name, values in measured.items()}
        | {
            "unperturbed": (("network", "seed", "split"), unperturbed),
            "total": ("split", np.full(shape[3], TOTAL, np.int32)),
            "weighted": (("network", "site"), np.ones((shape[0], shape[2]), np.int8)),
        },
        {**coords, "fraction": fraction},
        {"identity": families.get(family).identity, "draws": 8 if draws else 1, "made": "{}"},
    )


@pytest.fixture(scope="module")
def result():
    """A result in which abs networks have other gauges too."""
    return made_up(even=("abs",))


@pytest.fixture(scope="module")
def found(result):
    """What is compared in it."""
    return dose_tables.compare(result, OPTIONS)
