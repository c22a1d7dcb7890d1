"""Metrics of a result as a table: their means at every point, and what each edit changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from jaxdist.analysis import statistics
from jaxdist.config import StatisticsConfig
from jaxdist.perturbations import Traits
from jaxdist.sweep import metric, results
from jaxdist.types import Values


def told(result: xr.DataTree) -> dict[str, metric.MetricTraits]:
    """What a result tells of the metrics that it was swept with, by name."""
    every: dict[str, metric.MetricTraits] = {}
    for name in results.families_of(result):
        every |= metric.traits_of(result[name].attrs)
    return every


def points(result: xr.DataTree, options: StatisticsConfig) -> pd.DataFrame:
    """One row a metric, network, site, split, family and fraction; empty where no metric was swept.

    `mean` is over examples, then seeds; `change` that of the difference from the unedited network, example by example.
    Intervals are over the seeds or, as the column `over` says, over the examples of a single network, whose `sd` is
    over them too; where examples have weights, as numbers of tokens, a ratio's of sums. All in the metric's unit.
    """
    frames = [
        _frame(curve, {"metric": place["metric"], "family": family.name, **place}, options)
        for family, group in groups(result)
        for place, curve in curves(group)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def groups(result: xr.DataTree) -> Iterator[tuple[Traits, xr.Dataset]]:
    """The families of a result that were swept with metrics, each with its group."""
    for name, family in results.families_of(result).items():
        group = results.over_draws(result[name].to_dataset())
        if "metric" in group.dims:
            yield family, group


def curves(group: xr.Dataset) -> Iterator[tuple[dict[str, str], xr.Dataset]]:
    """Each metric, network, site and split of a family's group with its curve, over the seeds that there are."""
    axes = ("metric", "network", "site", "split")
    for names in itertools.product(*(map(str, group[name].data) for name in axes)):
        place = dict(zip(axes, names, strict=True))
        curve = group.sel(place)
        missing = curve.correct[:, 0] == results.MISSING if "correct" in curve else curve.metric_unedited.isnull()
        curve = curve.isel(seed=~missing.to_numpy())
        if curve.sizes["seed"]:
            yield place, curve


def _frame(curve: xr.Dataset, place: Mapping[str, str], options: StatisticsConfig) -> pd.DataFrame:
    seeds = curve.sizes["seed"]
    unedited = curve.metric_unedited.to_numpy()
    columns = {
        "fraction": curve.fraction.to_numpy(),
        "unedited_point": curve.fraction.to_numpy() == curve.attrs.get("identity"),
        "seeds": seeds,
        **_spread(curve, "metric_mean", ("mean", "low", "high"), options),
        "sd": curve.metric_sd.to_numpy().mean(axis=0),
        "unedited": unedited.mean(),
        **_spread(curve, "metric_change", ("change", "change_low", "change_high"), options),
        "over": "seeds" if seeds > 1 else "images",
    }
    return pd.DataFrame({**place, **columns})


def half_width(curve: xr.Dataset, mean: str, confidence: float) -> Values:
    """Half the width [P] of the interval of a single network's mean over its examples, of one metric; NaN for none.

    `mean` is ``metric_mean`` or ``metric_change``. Student's t, of as many examples as have a weight.
    """
    error = mean.replace("_mean", "") + "_error"
    count = int(curve.total if error not in curve else curve.metric_examples[0])
    if count < 2 or (error not in curve and float(curve.metric_weight[0]) != count):
        return np.full(curve.sizes["fraction"], np.nan)
    # An earlier version's result has no errors: there all weights have to be 1.
    sd = mean.replace("_mean", "") + "_sd"
    errors = curve[error].to_numpy()[0] if error in curve else curve[sd].to_numpy()[0] / np.sqrt(count - 1)
    half: Values = float(scipy.stats.t.ppf((1 + confidence) / 2, count - 1)) * errors.astype(np.float64)
    return half


def _spread(curve: xr.Dataset, mean: str, names: tuple[str, str, str], options: StatisticsConfig) -> dict[str, Values]:
    """A mean with its interval at every point, over seeds or over the examples of a single network."""
    values = curve[mean].to_numpy().astype(np.float64)
    if len(values) > 1:
        middle, low, high, _ = statistics.mean_interval(values, options.confidence)
        return dict(zip(names, (middle, low, high), strict=True))
    half = half_width(curve, mean, options.confidence)
    return dict(zip(names, (values[0], values[0] - half, values[0] + half), strict=True))
