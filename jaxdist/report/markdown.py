"""Tables for people, in Markdown and percent, made from the data frames of `jaxdist.analysis`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxdist.analysis import breakdowns, tables
from jaxdist.config import StatisticsConfig
from jaxdist.formatting import MISSING, figures, fraction, interval, loss, number, p_value, percent, share, spread
from jaxdist.report import table
from jaxdist.report.table import Column, Otherwise, Radius, Table
from jaxdist.sweep import MetricTraits

MOST_SEEDS, MOST_UNITS = 3, 10
"""Single units are listed for networks of at most so many seeds, and so many of them."""

_NO_EDIT = (
    "'No edit' is meant of the training images: a clip there still cuts test values above the training images' largest."
)

PUBLISHED = (
    Column("accuracy %", spread, lambda r: (r.accuracy, r.sd)),
    Column("t", number, "published_t"),
    Column("p", p_value, "published_p"),
)
"""What the paper's own analysis says of a point."""
DROP = Column("drop", interval, lambda r: (r.drop, r.drop_low, r.drop_high))
P_HOLM = Column("p (Holm)", p_value, "p_holm")
NONINFERIOR = Column(
    "non-inferior", take=lambda r: None if np.isnan(r.smallest_margin) else "yes" if r.noninferior else "no"
)
EFFECT = Column("d", number, "effect_size")
CORRECTED = (DROP, P_HOLM, EFFECT, Column("smallest margin", percent, "smallest_margin"), NONINFERIOR)
"""What is said of a point against the network's own unedited accuracy."""


def _single_network_note(frame: pd.DataFrame) -> str:
    its = "its" if frame.network.nunique() == 1 else "each one's"
    return (
        f"**{tables.only(frame)}**: intervals and tests are over {its} images. They say nothing of a network trained "
        "in the same way from another seed. "
    )


def published(points: pd.DataFrame, training: pd.DataFrame | None, options: StatisticsConfig) -> str:
    """The paper's tables for this run: its rows, its baseline, its population standard deviation."""
    parts: list[str | Table] = [
        "# As published",
        "The paper's own analysis: the paired t test of each point is against grid index "
        f"{options.published_baseline_index} of its family, not against the unedited network; t is positive where "
        "accuracy is below that baseline, and nothing is corrected for the number of points. Standard deviations are "
        "over the population (ddof 0). Accuracies are percent; the point is the grid point nearest to the row. "
        + _NO_EDIT,
    ]
    if (points.seeds == 1).any():
        parts.append("This analysis needs several seeds: of a single one there is neither t nor p.")
    # A grid of the user's own may be too short for the baseline, and then nothing on it is tested.
    with_baseline = points.groupby(["family", "network", "site", "split"]).published_p.transform("count") > 0
    parts += tables.cautions(points[with_baseline], "published_p")
    if training is not None:
        names = {"train_accuracy": "train accuracy %", "test_accuracy": "test accuracy %", "loss": "loss"}
        columns = [Column("network"), *(Column(name, spread) for name in names.values())]
        columns[-1] = columns[-1]._replace(write=functools.partial(spread, write=loss))
        rows = []
        for network, part in training.groupby("network", sort=False):
            ends = part.set_index("quantity").reindex(list(names))
            rows.append([network, *zip(ends["mean"], ends["sd"], strict=True)])
        parts.append(Table("After training", columns, rows))
    parts += left_out(points, "t and p are")
    return table.markdown(*parts, *_by_family(points, PUBLISHED))


def corrected(points: pd.DataFrame, options: StatisticsConfig) -> str:
    """The same rows against each network's own unedited accuracy."""
    points = points.assign(over=points.tested_over)
    level, margin = percent(options.confidence, 0), percent(options.margin)
    noninferior = (
        f"Non-inferior means that the one-sided {level} % bound of the drop, the smallest margin that passes, is below "
        f"{margin} points. " + _NO_EDIT
    )
    parts = ["# Corrected"]
    if (points.over == "seeds").any():
        parts.append(
            "Each network against its own unedited accuracy, paired over seeds. The drop is in percentage points with "
            f"its {level} % Student t interval; p is Holm-corrected over the points of the family; d is Cohen's d_z. "
            + noninferior
        )
    if (points.over == "images").any():
        parts.append(
            _single_network_note(points[points.over == "images"])
            + "The images that a network is right on with the edit and without are paired: the drop is in percentage "
            f"points with its {level} % adjusted Wald interval (Bonett and Price 2012), p is McNemar's exact test, "
            "Holm-corrected over the points of the family; there is no d. " + noninferior
        )
    parts += left_out(points, "All of it is")
    parts += tables.cautions(points, "p")
    columns = [column for column in CORRECTED if column != EFFECT or not tables.over_images(points)]
    return table.markdown(*parts, *_by_family(points, columns))


def tolerance(reach: pd.DataFrame, options: StatisticsConfig, flips: pd.DataFrame | None = None) -> str:
    """How far each kind of edit goes before the margin of accuracy is lost, and before that of predictions changes."""
    level = percent(options.confidence, 0)
    parts = [
        "# Tolerance",
        f"The fraction at which {percent(options.margin)} points of accuracy are lost"
        + (f", or {percent(options.flips)} % of predictions changed" if flips is not None else "")
        + ", walking outward from no edit to the first exit, linear between points (for scale in its logarithm). A > "
        "or < marks the end of the grid. Re-entered: seeds that come back within the margin further out.",
    ]
    if (reach.over == "seeds").any():
        parts.append(
            f"Median over seeds with its {level} % order-statistic interval, which needs at least 6 seeds at 95 %."
        )
    if (reach.over == "images").any():
        parts.append(
            _single_network_note(reach[reach.over == "images"])
            + f"A single network's radius has a {level} % interval: from where the upper bound of the drop's paired "
            "interval first reaches the margin to where its lower bound does."
        )
    parts += left_out(reach, "Radii are")
    if flips is None:
        return table.markdown(*parts, _radii(reach))
    return table.markdown(*parts, "## Accuracy", _radii(reach), "## Flips", _radii(flips))


def left_out(frame: pd.DataFrame, what: str) -> list[str]:
    """A paragraph that names the seeds at chance which a table's numbers are without; nothing where there are none."""
    notes = "; ".join(tables.left_out_notes(frame))
    return [f"**Note**: {what} without networks at chance, which have nothing to lose: {notes}."] if notes else []


def with_notes(text: str, notes: Sequence[str]) -> str:
    """A document with notes below its title, if there are any."""
    title, rest = text.split("\n\n", 1)
    return "\n\n".join([title, *(f"**Note**: {note}." for note in notes), rest])


def radii(reach: pd.DataFrame) -> list[Column]:
    """What is said of tolerance radii: the median with its interval, and how many seeds have none."""
    columns = [
        Column("site"),
        Column("split"),
        Column("edit"),
        Column("median", lambda radius: radius.middle, radius_of),
        Column("interval", take=lambda r: Otherwise(r.low, lambda _: radius_of(r).ends or MISSING)),
    ]
    columns += [
        Column("to end of grid", share, lambda r: (r.censored, r.seeds)),
        Column("re-entered", take="reentered"),
    ]
    if (reach.left_out != "").any():
        columns.append(Column("without seeds", take=lambda r: r.left_out or None))
    return columns


def _radii(reach: pd.DataFrame) -> Table:
    return table.of_rows("", reach.itertuples(), [Column("network"), *radii(reach)])


def units(frame: pd.DataFrame) -> str:
    """The most important single units of each network and seed, where there are few seeds and units were edited."""
    split = tables.main_split(frame)
    strongest = breakdowns.strongest(frame[frame.split == split])
    strongest = strongest[strongest["rank"] <= MOST_UNITS]
    parts: list[str | Table] = [
        "# Units",
        f"Each unit edited alone, on the {split} images, at each family's strongest fraction: the one at which most "
        "predictions change over all units. Flips are the percentage of images whose class changes; drops are "
        "percentage points. Ranks are within one network, seed and site: unit k of one seed is not unit k of another.",
    ]
    for (network, seed, site), part in strongest.groupby(["network", "seed", "site"], sort=False):
        columns, cells = [Column("rank")], []
        for family, own in part.groupby("family", sort=False):
            at = f"{family} at {fraction(own.fraction.iloc[0])}"
            columns += [Column(f"{at}: unit"), Column("flips", percent), Column("drop", percent)]
            cells.append({r.rank: (r.unit, r.flips, r.drop) for r in own.itertuples()})
        ranks = range(1, 1 + int(part["rank"].max()))
        rows = [[rank, *(value for own in cells for value in own.get(rank, (None,) * 3))] for rank in ranks]
        parts.append(Table(f"{network}, seed {seed}, {site}", columns, rows))
    return table.markdown(*parts)


def metrics(points: pd.DataFrame, told: Mapping[str, MetricTraits], options: StatisticsConfig) -> str:
    """What each family's strongest edits change of every metric."""
    level, parts = percent(options.confidence, 0), ["# Metrics"]
    parts.append(
        "The mean of each metric over the images without an edit, and the mean of its change, image by image, at the "
        "ends of each family's grid; `metrics.csv` has every point. "
        + (f"Intervals ({level} %) are over seeds. " if (points.over == "seeds").any() else "")
        + (_single_network_note(points[points.over == "images"]) if (points.over == "images").any() else "")
    )
    documents: list[str | Table] = [part.strip() for part in parts]
    for (metric, split), part in points.groupby(["metric", "split"], sort=False):
        of = told[str(metric)]
        documents.append(f"## {of.words}, {split} images")
        better = {"higher": " Higher is better.", "lower": " Lower is better.", "": ""}[of.better]
        chance = "" if of.chance is None else f" A network that has learned nothing has {figures(of.chance)}."
        documents.append(f"{of.text[:1].upper()}{of.text[1:]}.{better}{chance}")
        ends = part[part.groupby(["family", "network", "site"]).cumcount().eq(0) | _is_last(part)]
        columns = [
            Column("family"),
            Column("network"),
            Column("site"),
            Column("fraction", fraction, "fraction"),
            Column("unedited", figures, "unedited"),
            Column("edited", figures, "mean"),
            Column("change", _change, lambda r: (r.change, r.change_low, r.change_high)),
        ]
        documents.append(table.of_rows("", ends[~ends.unedited_point].itertuples(), columns))
    return table.markdown(*documents)


def moved(frame: pd.DataFrame, told: Mapping[str, MetricTraits], options: StatisticsConfig) -> str:
    """How far each kind of edit goes before the metrics have moved by the amounts that were asked for."""
    level = percent(options.confidence, 0)
    over = "its images" if (frame.over == "images").all() else "seeds"
    return table.markdown(
        "# Thresholds",
        "The first fraction, walking outward from no edit, at which the mean of a metric has risen so far from the "
        "unedited network's, or, below 0, fallen, linear between points (for scale in its logarithm), with "
        f"{level} % interval over {over}. A > or < marks the end of the grid.",
        moved_table(frame, told),
    )


def moved_table(frame: pd.DataFrame, told: Mapping[str, MetricTraits], title: str = "") -> Table:
    """The rows of `threshold_tables.thresholds` as a table."""
    columns = [
        *map(Column, ("network", "site", "split")),
        Column("edit", least=16),
        Column("metric", take=lambda r: told[r.metric].words, least=12),
        Column("moved by", figures, "amount"),
        Column("fraction", take=lambda r: str(radius_of(r))),
    ]
    columns = [each for each in columns if each.heading not in ("network", "site") or frame[each.heading].nunique() > 1]
    return table.of_rows(title, frame.itertuples(), columns)


def _is_last(points: pd.DataFrame) -> pd.Series:
    return points.groupby(["family", "network", "site"]).cumcount(ascending=False).eq(0)


def _change(values: tuple[float, float, float]) -> str:
    middle, low, high = values
    return figures(middle) if np.isnan(low) else f"{figures(middle)} [{figures(low)}, {figures(high)}]"


def radius_of(row: Any, names: Sequence[str] = ("median", "low", "high")) -> Radius:
    """The radius in a row of tolerances, from the columns of these names."""
    median, low, high = (getattr(row, name) for name in names)
    return Radius(median, low, high, row.grid_end, row.side)


def _by_family(points: pd.DataFrame, taken: Sequence[Column]) -> list[Table]:
    """One table a split, site and family, the networks side by side."""
    blocks = []
    for (split, site, family), part in tables.at_paper_rows(points).groupby(["split", "site", "family"], sort=False):
        rows = []
        for row, same in part.groupby("row", sort=False):
            label = "no edit" if same.unedited.iloc[0] else f"{100 * float(str(row)):g} %"
            cells = [column.of(point) for point in same.itertuples() for column in taken]
            rows.append([label, fraction(same.fraction.iloc[0]), *cells])
        columns = [Column("row"), Column("point")]
        columns += [
            column._replace(heading=f"{name} {column.heading}") for name in part.network.unique() for column in taken
        ]
        blocks.append(Table(f"{str(family).capitalize()} of {site}, {split} images", columns, rows))
    return blocks
