"""Frames as tables that can be sorted: fractions come in, percent are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from jaxdist.analysis import LEVELS, tables, verdicts
from jaxdist.config import StatisticsConfig
from jaxdist.report.pages.parts import Cell, Table, table

Columns = dict[str, Callable[[Any], Cell]]


def radii(reach: pd.DataFrame, caption: str, options: StatisticsConfig) -> Table:
    """Tolerance radii with their intervals."""
    columns: Columns = {
        "network": _word("label"),
        "site": _word("site"),
        "images": _word("split"),
        "edit": _word("edit"),
        "median": lambda r: Cell(radius(r), r.median),
        f"{tables.percent(options.confidence, 0)} % interval": lambda r: Cell(interval(r), r.low),
        "seeds to the end of the grid": lambda r: Cell(f"{r.censored} of {r.seeds}", r.censored / max(r.seeds, 1)),
        "re-entered": lambda r: Cell(str(r.reentered), r.reentered),
        **({"without seeds": lambda r: Cell(r.left_out or "–")} if (reach.left_out != "").any() else {}),
        **_over(reach),
    }
    return table(caption, reach, columns)


def radius(row: Any) -> str:
    """Where a row of tolerances ends."""
    if np.isnan(row.median):
        return "–"
    return tables.reach(row.median, row.grid_end, row.side)


def interval(row: Any) -> str:
    """The interval of a row of tolerances, where it has one."""
    if np.isnan(row.low) or (np.isinf(row.low) and np.isinf(row.high)):
        return "–"
    return " to ".join(tables.reach(value, row.grid_end, row.side) for value in (row.low, row.high))


def published(points: pd.DataFrame) -> Table:
    """The paper's own analysis."""
    columns: Columns = {
        **_place(),
        "accuracy %": lambda r: Cell(f"{tables.percent(r.accuracy)} ± {tables.percent(r.sd)}", r.accuracy),
        "t": lambda r: Cell(tables.number(r.published_t), r.published_t),
        "p": lambda r: Cell(tables.p_value(r.published_p), r.published_p),
    }
    return table("As published", points, columns)


def corrected(points: pd.DataFrame) -> Table:
    """Each network against its own unedited accuracy."""
    points = points.assign(over=points.tested_over)
    columns: Columns = {
        **_place(),
        "drop": lambda r: Cell(tables.drop(r._asdict()), r.drop),
        "p (Holm)": lambda r: Cell(tables.p_value(r.p_holm), r.p_holm),
        "d": lambda r: Cell(tables.number(getattr(r, "effect_size", np.nan)), getattr(r, "effect_size", np.nan)),
        "smallest margin": lambda r: Cell(tables.percent(r.smallest_margin), r.smallest_margin),
        "non-inferior": lambda r: Cell(tables.noninferior(r)),
        **_over(points),
    }
    return table("Corrected", points, columns)


def training(finals: pd.DataFrame) -> Table:
    """What training ended with."""

    def said(r: Any) -> Cell:
        digits, unit = (4, 1) if r.quantity == "loss" else (2, 100)
        return Cell(f"{unit * r.mean:.{digits}f} ± {unit * r.sd:.{digits}f}", r.mean)

    columns: Columns = {
        "network": _word("label"),
        "quantity": lambda r: Cell(r.quantity.replace("_", " ") + ("" if r.quantity == "loss" else " %")),
        "mean ± sd": said,
    }
    return table("At the last step", finals, columns)


def costs(frame: pd.DataFrame, options: StatisticsConfig, split: str) -> Table:
    """The dose that changes a share of predictions, an edit a row and a level a column."""
    shown = frame[(frame.split == split) & (frame.gauge == "as_is")] if not frame.empty else frame
    rows = []
    for (network, _, _, edit), one in shown.groupby(["network", "family", "side", "edit"], sort=False):
        by_level = {row.level: row for _, row in one.iterrows()}
        cells = [Cell(verdicts.dose(by_level[level], interval=True), by_level[level]["median"]) for level in LEVELS]
        rows.append([Cell(str(network)), Cell(str(edit)), *cells])
    level = tables.percent(options.confidence, 0)
    headers = ["network", "edit", *(f"{100 * share:g} % of predictions" for share in LEVELS)]
    return Table(
        f"Dose at which so many predictions change: median with {level} % interval",
        headers,
        rows,
        [False, False, *[True] * len(LEVELS)],
    )


def paper(cells: pd.DataFrame) -> Table:
    """Every published cell beside this run's."""

    def value(r: Any, name: str) -> Cell:
        number = getattr(r, name)
        return Cell(f"{number:.4f}" if r.quantity == "loss" else tables.percent(number), number)

    columns: Columns = {
        "table": _word("table"),
        "network": _word("network"),
        "row": _word("label"),
        "paper": lambda r: value(r, "paper"),
        "here": lambda r: value(r, "ours"),
        "z": lambda r: Cell(tables.number(r.z, 2), r.z),
    }
    return table("Every published cell: accuracies in percent, loss in nats", cells, columns)


def dead(frame: pd.DataFrame) -> Table:
    """Dead units over the seeds of each network and site."""
    rows = []
    for (name, site), one in frame.groupby(["label", "site"], sort=False):
        counts, units = one.dead[one.units > 0], int(one.units.max())
        some = int((counts > 0).sum())
        spread = f"{int(counts.min())} to {int(counts.max())}"
        rows.append(
            [
                Cell(str(name)),
                Cell(str(site)),
                Cell(str(units), units),
                Cell(f"{counts.mean():.1f}", float(counts.mean())),
                Cell(spread, float(counts.max())),
                Cell(f"{some} of {len(counts)}", some / max(len(counts), 1)),
            ]
        )
    headers = ["network", "site", "units", "mean dead", "least to most", "seeds with any"]
    return Table("Dead units", headers, rows, [False, False, True, True, True, True])


def _word(name: str) -> Callable[[Any], Cell]:
    return lambda r: Cell(str(getattr(r, name)))


def _over(frame: pd.DataFrame) -> Columns:
    """What a row's interval is over, where rows differ in that."""
    return {"over": _word("over")} if frame.over.nunique() > 1 else {}


def _place() -> Columns:
    return {
        "network": _word("label"),
        "edit": lambda r: Cell(str(r.family).replace("_", " ")),
        "point": lambda r: Cell("no edit" if r.unedited else f"{100 * r.fraction:.4g} %", r.fraction),
    }
