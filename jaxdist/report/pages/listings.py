"""What a page lists: frames as tables, which it sorts."""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd

from jaxdist.analysis import LEVELS
from jaxdist.config import StatisticsConfig
from jaxdist.formatting import fraction, loss, number, percent, share, spread
from jaxdist.report import markdown, table, verdicts
from jaxdist.report.compare import cell_tables
from jaxdist.report.table import Column, Otherwise, Table

LABEL = Column("network", take="label")
PLACE = (
    LABEL,
    Column("edit", take=lambda r: str(r.family).replace("_", " ")),
    Column("point", fraction, lambda r: Otherwise(r.fraction, lambda _: "no edit") if r.unedited else r.fraction),
)


def radii(reach: pd.DataFrame, caption: str) -> Table:
    """Tolerance radii with their intervals."""
    return table.of_rows(caption, reach.itertuples(), [LABEL, *markdown.radii(reach), *_over(reach)])


def published(points: pd.DataFrame) -> Table:
    """The paper's own analysis."""
    return table.of_rows("As published", points.itertuples(), [*PLACE, *markdown.PUBLISHED])


def corrected(points: pd.DataFrame) -> Table:
    """Each network against its own unedited accuracy."""
    points = points.assign(over=points.tested_over)
    return table.of_rows("Corrected", points.itertuples(), [*PLACE, *markdown.CORRECTED, *_over(points)])


def _over(frame: pd.DataFrame) -> list[Column]:
    """What a row's interval is over, where rows differ in that."""
    return [Column("over")] if frame.over.nunique() > 1 else []


def training(finals: pd.DataFrame) -> Table:
    """What training ended with."""

    def ended(r: Any) -> Any:
        ends = (r.mean, r.sd)
        return Otherwise(ends, functools.partial(spread, write=loss)) if r.quantity == "loss" else ends

    columns = [
        LABEL,
        Column("quantity", take=lambda r: r.quantity.replace("_", " ") + ("" if r.quantity == "loss" else " %")),
        Column("mean ± sd", spread, ended),
    ]
    return table.of_rows("At the last step", finals.itertuples(), columns)


def costs(frame: pd.DataFrame, options: StatisticsConfig, split: str) -> Table:
    """The dose that changes a share of predictions, an edit a row and a level a column."""
    of_split = frame[(frame.split == split) & (frame.gauge == "as_is")] if not frame.empty else frame
    rows = []
    for (network, _, _, edit), part in of_split.groupby(["network", "family", "side", "edit"], sort=False):
        by_level = {row.level: row for _, row in part.iterrows()}
        cells = [verdicts.dose_of(by_level[level]) for level in LEVELS]
        rows.append([network, edit, *cells])
    level = percent(options.confidence, 0)
    columns = [*map(Column, ("network", "edit")), *(Column(f"{fraction(share)} of predictions") for share in LEVELS)]
    return Table(f"Dose at which so many predictions change: median with {level} % interval", columns, rows)


def paper(cells: pd.DataFrame) -> Table:
    """Every published cell beside this run's."""
    columns = [
        Column("table"),
        Column("network"),
        Column("row", take="label"),
        cell_tables.mean("paper", "paper"),
        cell_tables.mean("ours", "ours"),
        Column("z", number),
    ]
    return table.of_rows("Every published cell: accuracies in percent, loss in nats", cells.itertuples(), columns)


def dead(frame: pd.DataFrame) -> Table:
    """Dead units over the seeds of each network and site."""
    rows = []
    for (name, site), part in frame.groupby(["label", "site"], sort=False):
        counts = part.dead[part.units > 0]
        ends, some = (counts.max(), counts.min()), (int((counts > 0).sum()), len(counts))
        rows.append([name, site, int(part.units.max()), counts.mean(), ends, some])
    columns = [*map(Column, ("network", "site", "units")), Column("mean dead", number)]
    columns += [Column("least to most", lambda ends: f"{ends[1]} to {ends[0]}"), Column("seeds with any", share)]
    return Table("Dead units", columns, rows)
