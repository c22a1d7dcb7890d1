"""A comparison on the terminal, in at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from jaxdist.analysis import paper_cells
from jaxdist.formatting import counted, fraction, number, p_value
from jaxdist.report import table
from jaxdist.report.compare import cell_tables, claim_tables, sameness
from jaxdist.report.compare.comparison import Comparison
from jaxdist.report.compare.pairs import by_series
from jaxdist.report.table import Column, Table

SHOWN = 12
"""Points named on the terminal; the JSON file has all."""


def rendered(comparison: Comparison) -> RenderableType:
    """The whole comparison but for its `conclusion`: sides, protocol, points or cells, verdicts, notes."""
    parts: list[Text | Table] = [
        Text(f"A  {comparison.a}"),
        Text(f"B  {comparison.b}"),
        Text(f"Networks: {comparison.relation}"),
    ]
    if comparison.protocol:
        parts.append(Table("Protocols differ in", [*map(Column, ("field", "A", "B"))], comparison.protocol))
    else:
        parts.append(Text("Protocols: the same"))
    if comparison.mode == "published":
        parts += _cells(comparison.points)
        parts += [sameness.tabled(comparison.same), *map(Text, sameness.sentences(comparison.same))]
        parts += [Text(sentence) for sentence in cell_tables.cautions(comparison.points)]
        parts += [claim_tables.short(comparison)] if comparison.claims else []
    elif comparison.mode == "shared":
        parts += _beyond(comparison)
    parts.append(Table("Verdicts", [*map(Column, ("what", "verdict", "found"))], comparison.verdicts))
    parts += [Text(f"Note: {note}") for note in comparison.notes]
    return Group(*(table.terminal(part) if isinstance(part, Table) else part for part in parts))


def conclusion(comparison: Comparison) -> str:
    """The verdict in a sentence, with how much of the comparison it rests on and the worst of it."""
    verdict = comparison.verdict
    if verdict == "agree":
        return "They agree."
    rests_on = _of_cells(comparison) if comparison.mode == "published" else _parts(comparison)
    if verdict == "differ":
        return f"They differ: {rests_on}."
    if verdict == "cannot judge":
        return f"They cannot be judged: {rests_on}."
    return f"They are not shown to agree: {rests_on}; more seeds may tell."


def _of_cells(comparison: Comparison) -> str:
    """What was found of all published cells and, where they differ, the accuracy that is farthest from the paper's."""
    words = comparison.verdicts[0].words
    if comparison.verdict != "differ":
        return words
    judged = comparison.points[comparison.points.quantity != "loss"]
    apart = (judged.ours - judged.paper).to_numpy(float)
    at = int(np.abs(np.nan_to_num(apart)).argmax())
    cell = judged.iloc[at]
    difference = counted(f"{100 * apart[at]:+.3g}", "point")
    return f"{words}; most {cell.table} {cell.network} {cell.label}, ours - paper {difference}"


def _parts(comparison: Comparison) -> str:
    """How many series have the verdict, and the one of them that is farthest apart."""
    there = {verdict.what for verdict in comparison.verdicts if verdict.verdict == comparison.verdict}
    largest = {
        what: part.difference.iloc[int(part.difference.abs().to_numpy().argmax())]
        for what, part in by_series(comparison.points)
        if what in there
    }
    most = max(largest, key=lambda what: abs(largest[what]))
    shared = comparison.mode == "shared"
    apart = counted(f"{largest[most]:+g}", "image") if shared else counted(f"{100 * largest[most]:+.3g}", "point")
    return f"{len(there)} of {counted(len(comparison.verdicts), 'part')}; most {most}, {apart}"


def _beyond(comparison: Comparison) -> Iterator[Table]:
    """The points at which counts of shared networks differ by more than they may, the worst first."""
    frame = comparison.points
    beyond = frame[frame.difference.abs() > comparison.images]
    if beyond.empty:
        return
    worst = beyond.reindex(beyond.difference.abs().sort_values(ascending=False, kind="stable").index)
    sites = frame.site.nunique() > 1

    def place(r: Any) -> str:
        return f"{r.family} {r.network} {f'{r.site} ' if sites else ''}{r.split} {fraction(r.fraction)}"

    yield table.of_rows(
        f"Beyond {counted(comparison.images, 'image')} at {len(beyond)} of {counted(len(frame), 'point')}"
        + (f", the {SHOWN} largest" if len(beyond) > SHOWN else ""),
        worst.head(SHOWN).itertuples(),
        [
            Column("point", take=place),
            Column("seed"),
            Column("A", "{:.8g}".format, "a"),
            Column("B", "{:.8g}".format, "b"),
            Column("B - A", "{:+.8g}".format, "difference"),
        ],
    )


def _cells(frame: pd.DataFrame) -> Iterator[Table]:
    """Every published cell; one table for the trained networks, then one a family and network."""
    trained = frame[frame.table == "trained"]
    if len(trained):
        yield table.of_rows(
            "After training (loss and train accuracy before the last update)",
            trained.itertuples(),
            [
                Column("", take=lambda r: f"{r.network} {r.label}{'' if r.quantity == 'loss' else ' %'}"),
                cell_tables.mean("paper", "paper"),
                cell_tables.mean("ours", "ours"),
                Column("seeds"),
                Column("(ours - paper)/SE", number, "z"),
            ],
        )
    for title, part in paper_cells.by_table(frame):
        yield table.of_rows(
            f"{title}: train accuracy %, and the paper's own test (t, p)",
            part.itertuples(),
            [
                *cell_tables.ROW,
                Column("ours - paper (SE)", number, "z"),
                Column("t paper", number, "paper_t"),
                Column("ours", number, "t"),
                Column("p paper", p_value, "paper_p"),
                Column("ours", p_value, "p"),
            ],
        )
