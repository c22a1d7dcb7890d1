"""The main numbers of a result as one document of plain values, for scripts: what ``--json`` prints.

Accuracies, radii and margins are fractions; what is undefined or infinite is None. docs/scripts.md tells of every key.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from jaxdist.analysis import FairComparison, dose_tables, dosed, every_series, tables
from jaxdist.config import StatisticsConfig
from jaxdist.report import verdicts
from jaxdist.report.table import plain
from jaxdist.sweep import fitness, results
from jaxdist.version import __version__


def main_numbers(result: xr.DataTree, options: StatisticsConfig, found: FairComparison | None = None) -> dict[str, Any]:
    """What the summary on the terminal says, of all splits; `found` is the result's fair comparison, if known."""
    swept = bool(results.families_of(result))
    if found is None and dosed.has_doses(result):
        found = dose_tables.outline(result, options)
    groups = [child.to_dataset() for child in result.children.values()]
    unknown = json.loads(result.attrs.get("origin", "{}")).get("unknown", [])
    told = "config" in result.attrs and "train.steps" not in unknown
    return {
        "jaxdist": __version__,
        "made": max((json.loads(group.attrs.get("made", "{}")).get("at", "") for group in groups), default=""),
        "state": "swept" if swept else "trained",
        "data": {
            "name": result.attrs.get("data_name"),
            "digest": result.attrs.get("data_digest"),
            "notes": results.data_notes_of(result),
        },
        "seeds": max((group.sizes.get("seed", 0) for group in groups), default=0),
        "steps": results.config_of(result).train.steps if told else None,
        "unknown": list(unknown),
        "margin": options.margin,
        "confidence": options.confidence,
        "networks": _networks(result, options),
        "tolerance": _tolerance(result, options),
        "verdicts": [] if found is None else _verdicts(result, found),
        "notes": fitness.notes(result),
    }


def _networks(result: xr.DataTree, options: StatisticsConfig) -> dict[str, dict[str, Any]]:
    """Means over seeds: of the last step, or, of networks without a history, of what the sweep counted unedited."""
    means: dict[str, dict[str, Any]] = {}
    if "training" in result.children:
        for row in tables.training(result, options).to_dict("records"):
            means.setdefault(row["network"], {})[row["quantity"]] = plain(row["mean"])
    else:
        for series in every_series(result):
            accuracies = means.setdefault(series.network, {})
            accuracies.setdefault(f"{series.split}_accuracy", plain(series.unperturbed.mean()))
    if "ranges" in result.children:
        dead = result["ranges"].to_dataset().dead.sum(("site", "unit"))
        for name in dead.network.to_numpy():
            each = dead.sel(network=name).to_numpy()
            units = {"dead_units": int(each.sum()), "networks_with_dead_units": int(np.count_nonzero(each))}
            means.setdefault(str(name), {}).update(units)
    return means


def _tolerance(result: xr.DataTree, options: StatisticsConfig) -> list[dict[str, Any]]:
    reach = tables.tolerance(result, options)
    places, numbers = ("network", "site", "split", "family", "side"), ("low", "high", "grid_end")
    return [
        {name: str(row[name]) for name in places}
        | {"radius": plain(row["median"]), **{name: plain(row[name]) for name in numbers}}
        | {"censored": bool(np.isinf(row["median"])), "censored_seeds": int(row["censored"])}
        | {"seeds": int(row["seeds"]), "interval_over": str(row["over"]), "left_out": _seeds(row["left_out"])}
        for row in reach.to_dict("records")
    ]


def _seeds(numbers: str) -> list[int]:
    return [int(number) for number in numbers.split(", ") if number]


def _verdicts(result: xr.DataTree, comparison: FairComparison) -> list[dict[str, Any]]:
    split = dosed.chosen_split(comparison.swept)
    return [
        {
            **{name: getattr(finding, name) for name in ("network", "site", "split")},
            "answer": finding.verdict.answer if finding.verdict.comparisons else None,
            "sentence": verdicts.sentence(result, comparison, finding),
        }
        for finding in comparison.findings
        if finding.split == split
    ]
