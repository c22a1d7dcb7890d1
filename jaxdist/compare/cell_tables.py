"""Every published cell beside a run's as Markdown: the accuracies, then the tests, as printed and corrected."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from jaxdist import markdown as tables_as_markdown
from jaxdist import tables
from jaxdist.compare.comparison import Comparison
from jaxdist.paper_cells import NEAR
from jaxdist.published import SEEDS


def markdown(comparison: Comparison) -> str:
    """The whole document; accuracies, differences and drops in percent, z in standard errors."""
    frame = comparison.points
    parts = [
        "# Beside the published tables",
        f"{comparison.a}; the paper's means are over {SEEDS} seeds. Accuracies are percent of the training images, but "
        "for the test accuracy of the first table, and their differences points; the loss is in nats. SE is the "
        "standard error of the difference, and z the difference in standard errors. The paper prints no standard "
        "deviation for its edited rows: there this run's stands for the paper's too.",
        "The drop is from the unedited row; it leaves out the level to which the networks were trained, which all rows "
        "of a network share, not what training does to the cost of an edit.",
        f"{comparison.verdicts[0].verdict.capitalize()}: {comparison.verdicts[0].words}. Of the drops, {_near(frame)}.",
    ]
    trained = frame[frame.table == "trained"]
    if len(trained):
        parts += ["## After training", _trained(trained)]
    edited = frame[frame.table != "trained"]
    for title, part in _by_table(edited):
        parts += [f"## {title}", _cells(part)]
    parts += [
        "## Tests",
        "The paper's t compares each point with index 50 of its grid, 32.7 % of scale and clip and -22 % of offset, "
        "instead of the unedited network, and is positive where accuracy is below that. Here it is beside the same "
        "test of this run (`statistics.published_baseline_index`) and the test against no edit: its t, its p after "
        "Holm's correction over the family's points, the drop in points with its interval, and whether the drop is "
        f"shown to be below {tables.percent(comparison.margin)} points (non-inferior). SD is the standard deviation "
        "over seeds of the difference to index 50, which the paper does not print: about what its t implies.",
    ]
    for title, part in _by_table(edited):
        parts += [f"### {title}: tests", _tests(part)]
    return "\n\n".join(parts) + "\n"


def _near(frame: pd.DataFrame) -> str:
    z = frame.drop_z.dropna()
    return f"{int((z.abs() <= NEAR).sum())} of {len(z)} are"


def _by_table(edited: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for (family, network), part in edited.groupby(["table", "network"], sort=False):
        yield f"{str(family).capitalize()}, {network}", part


def _trained(frame: pd.DataFrame) -> str:
    rows = []
    for one in frame.to_dict("records"):
        loss = one["quantity"] == "loss"
        values = [
            tables.number(one[name], 4) if loss else tables.percent(one[name], 3 if name == "se" else 2)
            for name in ("paper", "ours", "se")
        ]
        difference = one["ours"] - one["paper"]
        said = f"{difference:+.4f}" if loss else f"{100 * difference:+.2f}"
        rows.append([one["network"], one["label"], *values[:2], said, values[2], tables.number(one["z"])])
    return tables_as_markdown.grid(rows, ["network", "", "paper", "ours", "ours - paper", "SE", "z"])


def _cells(frame: pd.DataFrame) -> str:
    rows = [
        [
            one["label"],
            f"{100 * one['fraction']:.4g} %",
            tables.percent(one["paper"]),
            tables.percent(one["ours"]),
            f"{100 * (one['ours'] - one['paper']):+.2f}",
            tables.percent(one["se"], 3),
            tables.number(one["z"]),
            tables.percent(one["paper_drop"]),
            tables.percent(one["drop"]),
            tables.number(one["drop_z"]),
        ]
        for one in frame.to_dict("records")
    ]
    headers = ["row", "point", "paper", "ours", "ours - paper", "SE", "z", "drop, paper", "drop, ours", "z of drops"]
    return tables_as_markdown.grid(rows, headers)


def _tests(frame: pd.DataFrame) -> str:
    rows = []
    for one in frame.to_dict("records"):
        drop, low, high = (tables.percent(one[name]) for name in ("drop", "drop_low", "drop_high"))
        rows.append(
            [
                one["label"],
                tables.number(one["paper_t"]),
                tables.number(one["t"]),
                tables.number(one["corrected_t"]),
                tables.p_value(one["p_holm"]),
                f"{drop} [{low}, {high}]",
                "yes" if one["noninferior"] else "no",
                tables.percent(one["paper_spread"]),
                tables.percent(one["spread"]),
            ]
        )
    headers = ["row", "t, paper", "t, same test", "t, against no edit", "p (Holm)", "drop", "non-inferior"]
    headers += ["SD, paper", "SD, ours"]
    return tables_as_markdown.grid(rows, headers)
