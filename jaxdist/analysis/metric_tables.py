"""Metrics of a result as a table: their means at every point, and what each edit changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from jaxdist.analysis import statistics
from jaxdist.config import StatisticsConfig
from jaxdist.perturbations import Traits
from jaxdist.sweep import metric, results
from jaxdist.types import Values


def told(result: xr.DataTree) -> dict[str, metric.Told]:
    """What a result tells of the metrics that it was swept with, by name."""
    every: dict[str, metric.Told] = {}
    for name in results.families_of(result):
        every |= metric.read(result[name].attrs)
    return every


def points(result: xr.DataTree, options: StatisticsConfig) -> pd.DataFrame:
    """One row a metric, network, site, split, family and fraction; empty where no metric was swept.

    `mean` is over examples, then seeds; `change` that of the difference from the unedited network, example by example.
    Intervals are over the seeds or, as the column `over` says, over the examples of a single network, whose `sd` is
    over them too; there is none where a metric weights its examples unequally. All in the metric's own unit.
    """
    frames = []
    for family, group in _groups(result):
        axes = (map(str, group[name].data) for name in ("metric", "network", "site", "split"))
        for name, network, site, split in itertools.product(*axes):
            place = {"metric": name, "family": family.name, "network": network, "site": site, "split": split}
            frames.append(_frame(group, place, options))
    return pd.concat([frame for frame in frames if frame is not None], ignore_index=True) if frames else pd.DataFrame()


def _groups(result: xr.DataTree) -> Iterator[tuple[Traits, xr.Dataset]]:
    for name, family in results.families_of(result).items():
        group = results.over_draws(result[name].to_dataset())
        if "metric" in group.dims:
            yield family, group


def _frame(group: xr.Dataset, place: Mapping[str, str], options: StatisticsConfig) -> pd.DataFrame | None:
    curve = group.sel({axis: label for axis, label in place.items() if axis != "family"})
    curve = curve.isel(seed=curve.correct.to_numpy()[:, 0] != results.MISSING)
    seeds = curve.sizes["seed"]
    if seeds == 0:
        return None
    unedited = curve.metric_unedited.to_numpy()
    columns = {
        "fraction": curve.fraction.to_numpy(),
        "unedited_point": curve.fraction.to_numpy() == curve.attrs.get("identity"),
        "seeds": seeds,
        **_spread(curve, "metric_mean", "metric_sd", ("mean", "low", "high"), options),
        "sd": curve.metric_sd.to_numpy().mean(axis=0),
        "unedited": unedited.mean(),
        **_spread(curve, "metric_change", "metric_change_sd", ("change", "change_low", "change_high"), options),
        "over": "seeds" if seeds > 1 else "images",
    }
    return pd.DataFrame({**place, **columns})


def _spread(
    curve: xr.Dataset, mean: str, sd: str, names: tuple[str, str, str], options: StatisticsConfig
) -> dict[str, Values]:
    """A mean with its interval at every point, over seeds or over the examples of a single network."""
    values = curve[mean].to_numpy().astype(np.float64)
    if len(values) > 1:
        middle, low, high, _ = statistics.mean_interval(values, options.confidence)
        return dict(zip(names, (middle, low, high), strict=True))
    count, weight = int(curve.total), float(curve.metric_weight[0])
    half = np.full(values.shape[1], np.nan)
    if weight == count and count > 1:
        error = curve[sd].to_numpy()[0] / np.sqrt(count - 1)
        half = float(stats.t.ppf((1 + options.confidence) / 2, count - 1)) * error
    return dict(zip(names, (values[0], values[0] - half, values[0] + half), strict=True))
