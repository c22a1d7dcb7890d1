"""Results made up from what each image tolerates, with every group that a result may have."""

from __future__ import annotations

import numpy as np
import xarray as xr

from jaxdist import config
from jaxdist.perturbations import families
from jaxdist.sweep import results
from jaxdist.version import SCHEMA

LONG = "Block_0/MultiHeadDotProductAttention_0/query"
GRIDS = {"scale": np.geomspace(0.01, 10, 25), "clip": np.geomspace(0.01, 10, 25), "offset": np.linspace(-2, 1, 31)}
GRIDS = {name: np.unique(np.append(grid, families.ALL[name].identity)) for name, grid in GRIDS.items()}
TOTAL, THRESHOLDS = 800, (0.1, 0.5, 0.9, 0.99)


def made_up(networks=("relu", "abs"), seeds=6, sites=("dense0/pre",), *, kept=True, full=False, config_=True):
    """A swept result: every image is lost where an edit goes further than its own limit, and a few are won there."""
    rng = np.random.default_rng(3)
    dims = ("network", "seed", "site", "split", "fraction")
    coords = {"network": list(networks), "seed": np.arange(seeds), "site": list(sites), "split": ["train", "test"]}
    shape = tuple(len(values) for values in coords.values())
    unperturbed = rng.integers(700, 790, (shape[0], shape[1], shape[3]))
    # Later sites bear less, networks differ, seeds nearly do not.
    strength = np.exp(-0.5 * np.arange(shape[0]))[:, None, None, None] * np.exp(-0.2 * np.arange(shape[2]))[:, None]
    strength = strength * rng.uniform(0.9, 1.1, shape)
    groups, attrs = {}, {"schema": SCHEMA}
    labels = {"unperturbed": (("network", "seed", "split"), unperturbed), "total": ("split", [TOTAL, TOTAL])}
    before = unperturbed[:, :, None, :, None]

    def counts(distance):
        """Counts at an edit of this strength, [..., P]."""
        lost = np.round(before * (1 - np.exp(-(distance**2)))).astype(int)
        won = np.round((TOTAL - before) * (1 - np.exp(-(distance**2))) / 10).astype(int)
        return {"correct": before - lost + won, "agree": TOTAL - lost - 2 * won, "kept": before - lost}

    def distance(family, fraction):
        """How strong a family's edit is, by its fraction."""
        if family == "scale":
            return np.abs(np.log(fraction)) / 8
        if family == "clip":
            return np.maximum(0, 1 - fraction)
        return np.abs(fraction) * np.where(fraction > 0, 2.0, 1.0)

    for family, grid in GRIDS.items():
        found = counts(distance(family, grid) / strength[..., None])
        names = ("correct", "agree", "kept") if kept else ("correct", "agree")
        groups[family] = xr.Dataset(
            {name: (dims, found[name]) for name in names} | labels,
            {**coords, "fraction": grid},
            {"identity": families.ALL[family].identity, "made": "{}"},
        )
    width = 12
    ranges = np.ones((*shape[:3], width))
    dead = np.zeros(ranges.shape, bool)
    dead[0, 0, 0, 0] = True
    by_unit = ("network", "seed", "site", "unit")
    groups["ranges"] = xr.Dataset(
        {"low": (by_unit, 0 * ranges), "high": (by_unit, ranges), "dead": (by_unit, dead)},
        {**{name: coords[name] for name in by_unit[:3]}, "unit": np.arange(width)},
    )
    if full:
        groups |= _further(coords, counts, distance, strength, labels, rng)
    if config_:
        attrs["config"] = results.configs.to_toml(config.Config())
    else:
        attrs["options"] = '{"sweep": {"dead_units": "nan"}, "ranges": {}, "statistics": {}}'
    return results.tree(groups, attrs)


def _further(coords, counts, distance, strength, labels, rng):
    groups, width, shape = {}, 12, strength.shape
    by_point = ("network", "seed", "site", "split")
    # Units matter less and less, in an order of their own in every seed.
    importance = 0.4 * np.exp(-0.4 * rng.permuted(np.broadcast_to(np.arange(width), (*shape, width)), axis=-1))
    for family, fractions in (("scale", np.array([0.0, 2.0])), ("offset", np.array([-0.5, 0.5]))):
        by_fraction = np.array([1.0, 0.5])[:, None]
        found = counts((importance[..., None, :] * by_fraction / strength[..., None, None]).reshape(*shape, -1))
        found = {name: values.reshape(*shape, 2, width) for name, values in found.items()}
        for values in found.values():
            # The last site is narrower.
            values[:, :, -1, ..., 9:] = np.where(shape[2] > 1, results.MISSING, values[:, :, -1, ..., 9:])
        groups[f"units_{family}"] = xr.Dataset(
            {name: ((*by_point, "fraction", "unit"), values) for name, values in found.items()} | labels,
            {**coords, "fraction": fractions, "unit": np.arange(width)},
        )
    groups["sensitivity"] = xr.Dataset(
        dict.fromkeys(("offset", "log_scale"), ((*by_point, "unit"), importance)),
        {**coords, "unit": np.arange(width)},
    )
    first, second = np.geomspace(0.1, 10, 13), np.linspace(-0.5, 0.5, 11)
    both = np.hypot(distance("scale", first)[:, None], distance("offset", second)[None, :]) / strength[..., None, None]
    found = counts(both.reshape(*shape, -1))
    groups["grid_scale_offset"] = xr.Dataset(
        {n: ((*by_point, "first", "second"), v.reshape(*shape, 13, 11)) for n, v in found.items()} | labels,
        {**coords, "first": first, "second": second},
        {"first": "scale", "second": "offset", "identity_first": 1.0, "identity_second": 0.0},
    )
    ends = {"below": -np.inf, "above": np.inf}
    edges = [f"{family} {side}" for family in GRIDS for side in families.ALL[family].sides]
    exits = np.ones((*shape, 1)) * np.array([0.5, 1.5, 0.8, -0.1, 0.05]) * rng.uniform(0.9, 1.1, (*shape, 1))
    censored = np.zeros(exits.shape, bool)
    censored[..., 1] = True
    exits[..., 1] = ends["above"]
    groups["radii"] = xr.Dataset(
        {
            "exit": ((*by_point, "edge"), exits),
            "low": ((*by_point, "edge"), exits),
            "high": ((*by_point, "edge"), exits),
            "censored": ((*by_point, "edge"), censored),
        },
        {**coords, "edge": edges},
        {"margin": 0.01},
    )
    for family, grid in GRIDS.items():
        stages = {}
        for threshold, easier in zip(THRESHOLDS, (3.0, 2.0, 1.3, 1.0), strict=True):
            found = counts(distance(family, grid) / (easier * strength[..., None]))
            accuracy = {n: np.round(v * threshold).astype(int) for n, v in found.items()}
            stages[threshold] = xr.Dataset(
                {name: ((*by_point, "fraction"), values) for name, values in accuracy.items()}
                | {
                    "unperturbed": (
                        labels["unperturbed"][0],
                        np.round(labels["unperturbed"][1] * threshold).astype(int),
                    )
                },
                {**coords, "fraction": grid},
            )
        whole = xr.concat(stages.values(), xr.Variable("threshold", list(stages)))
        step = np.broadcast_to(np.arange(len(THRESHOLDS)) * 100, (shape[0], shape[1], len(THRESHOLDS))).copy()
        # The first network's last two seeds never get to the last threshold.
        if shape[1] > 2:
            step[0, -2:, -1] = -1
        whole = whole.assign(step=(("network", "seed", "threshold"), step), total=labels["total"])
        missing = whole.step < 0
        for name in ("correct", "agree", "kept", "unperturbed"):
            whole[name] = whole[name].where(~missing, results.MISSING)
        whole = whole.transpose("network", "seed", "threshold", "site", "split", "fraction", missing_dims="ignore")
        groups[f"snapshots_{family}"] = whole.assign_attrs(identity=families.ALL[family].identity)
    return groups
