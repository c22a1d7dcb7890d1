"""How far an edit goes before the mean of a metric has moved by a given amount, in the metric's own unit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist.analysis import metric_tables, statistics
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.perturbations import Traits
from jaxdist.sweep import crossings, results


def amounts_of(result: xr.DataTree) -> dict[str, float]:
    """How far each metric has to move, by name, as a result was measured for; nothing for most."""
    told: dict[str, float] = json.loads(result.attrs.get("thresholds", "{}"))
    return told


def thresholds(
    result: xr.DataTree, amounts: Mapping[str, float] | None = None, *, options: StatisticsConfig | None = None
) -> pd.DataFrame:
    """The first fraction at which a metric's mean has risen, or fallen, so far from the unedited network's.

    One row a metric, family, network, site, split and side of no edit: the `median` over seeds with its interval, `low`
    to `high`, as of tolerance radii; infinite where the metric has not moved so far by the end of the grid. Of a single
    network the interval is over its examples: from where the one end of the change's interval first has moved so far
    to where the other has. Families that edit at every fraction have no row.

    Args:
      result: as `probe` and `run` return it.
      amounts: by metric, in its own unit, how far it rises, or, below 0, falls; by default those that `probe` was given
        as `thresholds`.
      options: of statistics; by default the result's own.

    Raises:
      InputError: for a metric that was not averaged, and amounts of 0 or that are not finite.
    """
    chosen = results.options_of(result).statistics if options is None else options
    by_metric, told = amounts_of(result) if amounts is None else amounts, metric_tables.told(result)
    for name, amount in by_metric.items():
        if name not in told:
            raise InputError(
                f"thresholds: expected metrics that were averaged, {', '.join(told) or 'none'}, got {name!r}"
            )
        crossings.check_amount(name, amount)
    rows = [
        row
        for family, group in metric_tables.groups(result)
        for name, amount in by_metric.items()
        for place, curve in metric_tables.curves(group)
        if place["metric"] == name
        for row in _rows(family, place, curve, amount, chosen)
    ]
    return pd.DataFrame(rows)


def _rows(
    family: Traits, place: Mapping[str, str], curve: xr.Dataset, amount: float, options: StatisticsConfig
) -> Iterator[dict[str, Any]]:
    """The rows of one curve, one a side."""
    if "identity" not in curve.attrs:
        return
    fractions, change = curve.fraction.to_numpy(), curve.metric_change.to_numpy().astype(np.float64)
    moved = change / amount
    for side in family.sides:
        ways: Any = {"identity": curve.attrs["identity"], "coordinate": family.spacing, "side": side, "margin": 1.0}
        exits = crossings.first_exit(fractions, moved, **ways)
        middle = statistics.NO_MEDIAN
        if not np.isnan(exits.exit).any():  # where a metric is no number, how far it moved is not known
            middle = statistics.median_interval(exits.exit, options.confidence)
        if len(moved) == 1:
            half = metric_tables.half_width(curve, "metric_change", options.confidence) / abs(amount)
            middle = middle._replace(low=np.nan, high=np.nan)
            if not np.isnan(half).any():
                ends = crossings.first_exit(fractions, np.stack([moved[0] + half, moved[0] - half]), **ways).exit
                middle = middle._replace(low=float(min(ends)), high=float(max(ends)))
        yield {
            **place,
            "family": family.name,
            "side": side,
            "edit": family.outward(side),
            "amount": amount,
            **middle._asdict(),
            "grid_end": fractions[0 if side == "below" else -1],
            "seeds": len(moved),
            "censored": int(exits.censored.sum()),
            "over": "seeds" if len(moved) > 1 else "images",
        }
