"""A comparison on the terminal, in at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxdist.analysis import paper_cells, tables
from jaxdist.formatting import counted
from jaxdist.report.compare import cell_tables
from jaxdist.report.compare.comparison import Comparison
from jaxdist.report.compare.pairs import by_series
from jaxdist.report.summary import WIDTH

SHOWN = 12
"""Points named on the terminal; the JSON file has all."""


def rendered(comparison: Comparison) -> RenderableType:
    """The whole comparison but for its `conclusion`: sides, protocol, points or cells, verdicts, notes."""
    parts: list[RenderableType] = [
        Text(f"A  {comparison.a}"),
        Text(f"B  {comparison.b}"),
        Text(f"Networks: {comparison.relation}"),
        _protocol(comparison),
    ]
    if comparison.mode == "published":
        parts += _cells(comparison.points)
        parts += [Text(sentence) for sentence in cell_tables.cautions(comparison.points)]
    elif comparison.mode == "shared":
        parts += _beyond(comparison)
    verdicts = _filled("Verdicts", ("what", "verdict", "found"), comparison.verdicts)
    parts += [verdicts, *(Text(f"Note: {note}") for note in comparison.notes)]
    return Group(*parts)


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
    one = judged.iloc[at]
    difference = counted(f"{100 * apart[at]:+.3g}", "point")
    return f"{words}; most {one.table} {one.network} {one.label}, ours - paper {difference}"


def _parts(comparison: Comparison) -> str:
    """How many series have the verdict, and the one of them that is farthest apart."""
    there = {one.what for one in comparison.verdicts if one.verdict == comparison.verdict}
    largest = {
        what: part.difference.iloc[int(part.difference.abs().to_numpy().argmax())]
        for what, part in by_series(comparison.points)
        if what in there
    }
    most = max(largest, key=lambda what: abs(largest[what]))
    shared = comparison.mode == "shared"
    apart = counted(f"{largest[most]:+g}", "image") if shared else counted(f"{100 * largest[most]:+.3g}", "point")
    return f"{len(there)} of {counted(len(comparison.verdicts), 'part')}; most {most}, {apart}"


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, width=WIDTH, padding=(0, 1, 0, 0), pad_edge=False
    )


def _protocol(comparison: Comparison) -> RenderableType:
    if not comparison.protocol:
        return Text("Protocols: the same")
    return _filled("Protocols differ in", ("field", "A", "B"), comparison.protocol)


def _filled(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = _table(title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _beyond(comparison: Comparison) -> Iterator[RenderableType]:
    """The points at which counts of shared networks differ by more than they may, the worst first."""
    frame = comparison.points
    beyond = frame[frame.difference.abs() > comparison.images]
    if beyond.empty:
        return
    worst = beyond.reindex(beyond.difference.abs().sort_values(ascending=False, kind="stable").index)
    table = _table(
        f"Beyond {counted(comparison.images, 'image')} at {len(beyond)} of {counted(len(frame), 'point')}"
        + _first(len(beyond))
    )
    table.add_column("point")
    for heading in ("seed", "A", "B", "B - A"):
        table.add_column(heading, justify="right")
    for one in worst.head(SHOWN).itertuples():
        place = f"{one.site} {one.split}" if frame.site.nunique() > 1 else str(one.split)
        point = f"{one.family} {one.network} {place} {100 * float(str(one.fraction)):.4g} %"
        counts = (float(str(count)) for count in (one.a, one.b))
        table.add_row(point, str(one.seed), *(f"{count:.8g}" for count in counts), f"{float(str(one.difference)):+.8g}")
    yield table


def _first(count: int) -> str:
    return f", the {SHOWN} largest" if count > SHOWN else ""


def _cells(frame: pd.DataFrame) -> Iterator[RenderableType]:
    """Every published cell; one table for the trained networks, then one a family and network."""
    trained = frame[frame.table == "trained"]
    if len(trained):
        table = _table("After training (loss and train accuracy before the last update)")
        for heading in ("", "paper", "ours", "seeds", "(ours - paper)/SE"):
            table.add_column(heading, justify="right" if heading else "left")
        for one in trained.to_dict("records"):
            say = (lambda v: tables.number(v, 4)) if one["quantity"] == "loss" else tables.percent
            unit = "" if one["quantity"] == "loss" else " %"
            table.add_row(
                f"{one['network']} {one['label']}{unit}",
                say(one["paper"]),
                say(one["ours"]),
                str(one["seeds"]),
                tables.number(one["z"]),
            )
        yield table
    for title, part in paper_cells.by_table(frame):
        table = _table(f"{title}: train accuracy %, and the paper's own test (t, p)")
        for heading in ("row", "point %", "paper", "ours", "ours - paper (SE)", "t paper", "ours", "p paper", "ours"):
            table.add_column(heading, justify="left" if heading == "row" else "right")
        for one in part.to_dict("records"):
            table.add_row(
                one["label"],
                f"{100 * one['fraction']:.4g}",
                tables.percent(one["paper"]),
                tables.percent(one["ours"]),
                tables.number(one["z"]),
                tables.number(one["paper_t"]),
                tables.number(one["t"]),
                tables.p_value(one["paper_p"]),
                tables.p_value(one["p"]),
            )
        yield table
