"""Every published cell beside a run's as Markdown: the accuracies, then the tests, as printed and corrected."""

from __future__ import annotations

import functools
import operator
from typing import Any

import pandas as pd

from jaxdist import formatting
from jaxdist.analysis import by_table, near
from jaxdist.formatting import fraction, loss, number, percent, points, signed
from jaxdist.report import table
from jaxdist.report.compare import sameness
from jaxdist.report.compare.comparison import Comparison
from jaxdist.report.markdown import DROP, NONINFERIOR, P_HOLM
from jaxdist.report.table import Column, Otherwise, Table, Write
from jaxdist.storage import BASELINE_INDEX, SEEDS


def mean(heading: str, name: str, write: Write = percent) -> Column:
    """A column of cells' accuracies, or losses among them."""
    value = operator.attrgetter(name)
    return Column(heading, write, lambda r: Otherwise(value(r), loss) if r.quantity == "loss" else value(r))


ROW = (
    Column("row", take="label"),
    Column("point %", functools.partial(fraction, unit=""), "fraction"),
    Column("paper", percent),
    Column("ours", percent),
)
"""Of an edited cell: which it is, and the accuracy of both sides."""
_EXACT = functools.partial(percent, digits=3)


def markdown(comparison: Comparison) -> str:
    """The whole document; accuracies, differences and drops in percent, z in standard errors."""
    frame, verdict = comparison.points, comparison.verdicts[0]
    within, drops = near(frame.drop_z)
    of_drops = f" Of the drops, {within} of {drops} are." if drops and verdict.verdict != "cannot judge" else ""
    parts: list[str | Table] = [
        "# Beside the published tables",
        f"{comparison.a}; the paper's means are over {SEEDS} seeds. Accuracies are percent of the training images, but "
        "for the test accuracy of the first table, and their differences points; the loss is in nats. SE is the "
        "standard error of the difference, the rounding of what is printed included, and z the difference in standard "
        "errors. The paper prints no standard deviation for its edited rows: there this run's stands for the paper's "
        "too.",
        "The drop is from the unedited row: it is free of differences in the accuracy that the networks were trained "
        "to, but not of what training does to the cost of an edit.",
        f"{verdict.verdict.capitalize()}: {verdict.words}.{of_drops}",
        *(
            f"{difference.field} is {difference.a} here, {difference.b} in the paper."
            for difference in comparison.protocol
        ),
        *(f"Note: {note}." for note in comparison.notes),
    ]
    trained = frame[frame.table == "trained"]
    if len(trained):
        parts += [
            "## After training",
            "Loss and train accuracy are of the weights before the last update. SD is over seeds, with ddof 0 "
            "in the paper and 1 here.",
        ]
        parts.append(_trained(trained))
    parts += [_cells(title, part) for title, part in by_table(frame)]
    parts += [f"## {sameness.TITLE}", sameness.EXPLAINED, sameness.tabled(comparison.same, title="")]
    parts += sameness.sentences(comparison.same)
    parts += [
        "## Tests",
        f"The paper's t compares each point with index {BASELINE_INDEX} of its grid, 32.7 % of scale and clip and "
        "-22 % of offset, instead of the unedited network, and is positive where accuracy is below that. Here it is "
        "beside the same test of this run and the test against no edit: its t, its p after Holm's correction over the "
        "family's points, the drop in points with its interval, and whether the drop is shown to be below "
        f"{percent(comparison.margin)} points (non-inferior).",
        f"SD is the standard deviation over seeds of the difference to index {BASELINE_INDEX}. The paper does not "
        f"print its own: it is √{SEEDS} times the difference over t. Its accuracy at index {BASELINE_INDEX} is not "
        "printed either, and taken from this run's curve, shifted to the printed rows on both sides; – stands where "
        "that and the printed digits leave more than a third of the difference in doubt.",
        *cautions(frame),
    ]
    for title, part in by_table(frame):
        parts += [f"### {title}: tests", _tests(part)]
    return table.markdown(*parts)


def cautions(cells: pd.DataFrame) -> list[str]:
    """What is to be said of this run's tests of the published cells."""
    of_edits = cells[cells.table != "trained"]
    untested = of_edits[["t", "corrected_t"]].isna().any(axis=1)
    return formatting.cautions(of_edits.seeds[~untested], of_edits.seeds[untested])


def _trained(frame: pd.DataFrame) -> Table:
    columns = [
        Column("network"),
        Column("", take="label"),
        mean("paper", "paper"),
        mean("ours", "ours"),
        Column("ours - paper", points, _difference),
        mean("SE", "se", _EXACT),
        Column("z", number),
        mean("SD, paper", "paper_sd"),
        mean("SD, ours", "sd"),
    ]
    return table.of_rows("", frame.itertuples(), columns)


def _difference(row: Any) -> Any:
    difference = row.ours - row.paper
    return Otherwise(difference, functools.partial(signed, digits=4)) if row.quantity == "loss" else difference


def _cells(title: str, frame: pd.DataFrame) -> Table:
    columns = [
        *ROW,
        Column("ours - paper", points, lambda r: r.ours - r.paper),
        Column("SE", _EXACT, "se"),
        Column("z", number),
        Column("drop, paper", percent, "paper_drop"),
        Column("drop, ours", percent, "drop"),
        Column("z of drops", number, "drop_z"),
    ]
    return table.of_rows(title, frame.itertuples(), columns)


def _tests(frame: pd.DataFrame) -> Table:
    columns = [
        ROW[0],
        Column("t, paper", number, "paper_t"),
        Column("t, same test", number, "t"),
        Column("t, against no edit", number, "corrected_t"),
        P_HOLM,
        DROP,
        NONINFERIOR,
        Column("SD, paper", percent, "paper_spread"),
        Column("SD, ours", percent, "spread"),
    ]
    return table.of_rows("", frame.itertuples(), columns)
