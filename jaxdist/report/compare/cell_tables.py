"""Every published cell beside a run's as Markdown: the accuracies, then the tests, as printed and corrected."""

from __future__ import annotations

import pandas as pd

from jaxdist import formatting
from jaxdist.analysis import by_table, near, tables
from jaxdist.report.compare.comparison import Comparison
from jaxdist.report.markdown import grid
from jaxdist.storage import BASELINE_INDEX, SEEDS


def markdown(comparison: Comparison) -> str:
    """The whole document; accuracies, differences and drops in percent, z in standard errors."""
    frame, verdict = comparison.points, comparison.verdicts[0]
    within, drops = near(frame.drop_z)
    of_drops = f" Of the drops, {within} of {drops} are." if drops and verdict.verdict != "cannot judge" else ""
    parts = [
        "# Beside the published tables",
        f"{comparison.a}; the paper's means are over {SEEDS} seeds. Accuracies are percent of the training images, but "
        "for the test accuracy of the first table, and their differences points; the loss is in nats. SE is the "
        "standard error of the difference, the rounding of what is printed included, and z the difference in standard "
        "errors. The paper prints no standard deviation for its edited rows: there this run's stands for the paper's "
        "too.",
        "The drop is from the unedited row: it is free of differences in the accuracy that the networks were trained "
        "to, but not of what training does to the cost of an edit.",
        f"{verdict.verdict.capitalize()}: {verdict.words}.{of_drops}",
        *(f"{one.field} is {one.a} here, {one.b} in the paper." for one in comparison.protocol),
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
    for title, part in by_table(frame):
        parts += [f"## {title}", _cells(part)]
    parts += [
        "## Tests",
        f"The paper's t compares each point with index {BASELINE_INDEX} of its grid, 32.7 % of scale and clip and "
        "-22 % of offset, instead of the unedited network, and is positive where accuracy is below that. Here it is "
        "beside the same test of this run and the test against no edit: its t, its p after Holm's correction over the "
        "family's points, the drop in points with its interval, and whether the drop is shown to be below "
        f"{tables.percent(comparison.margin)} points (non-inferior).",
        f"SD is the standard deviation over seeds of the difference to index {BASELINE_INDEX}. The paper does not "
        f"print its own: it is √{SEEDS} times the difference over t. Its accuracy at index {BASELINE_INDEX} is not "
        "printed either, and taken from this run's curve, shifted to the printed rows on both sides; – stands where "
        "that and the printed digits leave more than a third of the difference in doubt.",
        *cautions(frame),
    ]
    for title, part in by_table(frame):
        parts += [f"### {title}: tests", _tests(part)]
    return "\n\n".join(parts) + "\n"


def cautions(cells: pd.DataFrame) -> list[str]:
    """What is to be said of this run's tests of the published cells."""
    of_edits = cells[cells.table != "trained"]
    untested = of_edits[["t", "corrected_t"]].isna().any(axis=1)
    return formatting.cautions(of_edits.seeds[~untested], of_edits.seeds[untested])


def _trained(frame: pd.DataFrame) -> str:
    rows = []
    for one in frame.to_dict("records"):
        loss = one["quantity"] == "loss"
        difference = one["ours"] - one["paper"]
        paper, ours, se, paper_sd, sd = (
            tables.number(one[name], 4) if loss else tables.percent(one[name], 3 if name == "se" else 2)
            for name in ("paper", "ours", "se", "paper_sd", "sd")
        )
        said = tables.signed(difference, 4) if loss else tables.signed(100 * difference)
        rows.append([one["network"], one["label"], paper, ours, said, se, tables.number(one["z"]), paper_sd, sd])
    return grid(rows, ["network", "", "paper", "ours", "ours - paper", "SE", "z", "SD, paper", "SD, ours"])


def _cells(frame: pd.DataFrame) -> str:
    rows = [
        [
            one["label"],
            f"{100 * one['fraction']:.4g}",
            tables.percent(one["paper"]),
            tables.percent(one["ours"]),
            tables.signed(100 * (one["ours"] - one["paper"])),
            tables.percent(one["se"], 3),
            tables.number(one["z"]),
            tables.percent(one["paper_drop"]),
            tables.percent(one["drop"]),
            tables.number(one["drop_z"]),
        ]
        for one in frame.to_dict("records")
    ]
    headers = ["row", "point %", "paper", "ours", "ours - paper", "SE", "z", "drop, paper", "drop, ours", "z of drops"]
    return grid(rows, headers)


def _tests(frame: pd.DataFrame) -> str:
    rows = []
    for one in frame.to_dict("records"):
        rows.append(
            [
                one["label"],
                tables.number(one["paper_t"]),
                tables.number(one["t"]),
                tables.number(one["corrected_t"]),
                tables.p_value(one["p_holm"]),
                tables.drop(one),
                tables.noninferior(pd.Series(one)),
                tables.percent(one["paper_spread"]),
                tables.percent(one["spread"]),
            ]
        )
    headers = ["row", "t, paper", "t, same test", "t, against no edit", "p (Holm)", "drop", "non-inferior"]
    headers += ["SD, paper", "SD, ours"]
    return grid(rows, headers)
