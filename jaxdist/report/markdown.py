"""Tables for people, in Markdown and percent, made from the data frames of `jaxdist.analysis`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from jaxdist.analysis import breakdowns, tables
from jaxdist.config import StatisticsConfig

MOST_SEEDS, MOST_UNITS = 3, 10
"""Single units are listed for networks of at most so many seeds, and so many of them."""

_NO_EDIT = (
    "'No edit' is meant of the training images: a clip there still cuts test values above the training images' largest."
)


def _alone(frame: pd.DataFrame) -> str:
    its = "its" if frame.network.nunique() == 1 else "each one's"
    return (
        f"**{tables.only(frame)}**: intervals and tests are over {its} images. They say nothing of a network trained "
        "in the same way from another seed. "
    )


def published(points: pd.DataFrame, training: pd.DataFrame | None, options: StatisticsConfig) -> str:
    """The paper's tables for this run: its rows, its baseline, its population standard deviation."""
    parts = [
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
        quantities = {"train_accuracy": "train accuracy %", "test_accuracy": "test accuracy %", "loss": "loss"}
        rows = [
            [network]
            + [
                f"{one['mean']:.4f} ± {one['sd']:.4f}" if key == "loss" else _pm(one["mean"], one["sd"])
                for key in quantities
                for one in part[part.quantity == key].to_dict("records")
            ]
            for network, part in training.groupby("network", sort=False)
        ]
        parts += ["## After training", grid(rows, ["network", *quantities.values()])]
    parts += left_out(points, "t and p are")
    columns: dict[str, Callable[[pd.Series], str]] = {
        "accuracy %": lambda r: _pm(r.accuracy, r.sd),
        "t": lambda r: tables.number(r.published_t),
        "p": lambda r: tables.p_value(r.published_p),
    }
    return "\n\n".join(parts + _by_family(points, columns)) + "\n"


def corrected(points: pd.DataFrame, options: StatisticsConfig) -> str:
    """The same rows against each network's own unedited accuracy."""
    points = points.assign(over=points.tested_over)
    level, margin = tables.percent(options.confidence, 0), tables.percent(options.margin)
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
            _alone(points[points.over == "images"])
            + "The images that a network is right on with the edit and without are paired: the drop is in percentage "
            f"points with its {level} % adjusted Wald interval (Bonett and Price 2012), p is McNemar's exact test, "
            "Holm-corrected over the points of the family; there is no d. " + noninferior
        )
    parts += left_out(points, "All of it is")
    parts += tables.cautions(points, "p")
    columns: dict[str, Callable[[pd.Series], str]] = {
        "drop": tables.drop,
        "p (Holm)": lambda r: tables.p_value(r.p_holm),
        "d": lambda r: tables.number(r.effect_size),
        "smallest margin": lambda r: tables.percent(r.smallest_margin),
        "non-inferior": tables.noninferior,
    }
    if tables.over_images(points):
        columns.pop("d")
    return "\n\n".join(parts + _by_family(points, columns)) + "\n"


def tolerance(reach: pd.DataFrame, options: StatisticsConfig, flips: pd.DataFrame | None = None) -> str:
    """How far each kind of edit goes before the margin of accuracy is lost, and before that of predictions changes."""
    level = tables.percent(options.confidence, 0)
    parts = [
        "# Tolerance",
        f"The fraction at which {tables.percent(options.margin)} points of accuracy are lost"
        + (f", or {tables.percent(options.flips)} % of predictions changed" if flips is not None else "")
        + ", walking outward from no edit to the first exit, linear between points (for scale in its logarithm). A > "
        "or < marks the end of the grid. Re-entered: seeds that come back within the margin further out.",
    ]
    if (reach.over == "seeds").any():
        parts.append(
            f"Median over seeds with its {level} % order-statistic interval, which needs at least 6 seeds at 95 %."
        )
    if (reach.over == "images").any():
        parts.append(
            _alone(reach[reach.over == "images"])
            + f"A single network's radius has a {level} % interval: from where the upper bound of the drop's paired "
            "interval first reaches the margin to where its lower bound does."
        )
    parts += left_out(reach, "Radii are")
    if flips is None:
        return "\n\n".join([*parts, _radii(reach)]) + "\n"
    return "\n\n".join([*parts, "## Accuracy", _radii(reach), "## Flips", _radii(flips)]) + "\n"


def left_out(frame: pd.DataFrame, what: str) -> list[str]:
    """A paragraph that names the seeds at chance which a table's numbers are without; nothing where there are none."""
    notes = "; ".join(tables.left_out_notes(frame))
    return [f"**Note**: {what} without networks at chance, which have nothing to lose: {notes}."] if notes else []


def with_notes(text: str, notes: Sequence[str]) -> str:
    """A document with notes below its title, if there are any."""
    title, rest = text.split("\n\n", 1)
    return "\n\n".join([title, *(f"**Note**: {note}." for note in notes), rest])


def _radii(reach: pd.DataFrame) -> str:
    some_out = (reach.left_out != "").any()
    rows = []
    for r in reach.itertuples():
        row = [r.network, r.site, r.split, r.edit, *radius(r)]
        rows.append([*row, f"{r.censored}/{r.seeds}", r.reentered, *([r.left_out or "–"] if some_out else [])])
    headers = ["network", "site", "split", "edit", "median", "interval"]
    headers += ["to end of grid", "re-entered", *(["without seeds"] if some_out else [])]
    return grid(rows, headers)


def units(frame: pd.DataFrame) -> str:
    """The most important single units of each network and seed, where there are few seeds and units were edited."""
    split = tables.main_split(frame)
    shown = breakdowns.strongest(frame[frame.split == split])
    shown = shown[shown["rank"] <= MOST_UNITS]
    parts = [
        "# Units",
        f"Each unit edited alone, on the {split} images, at each family's strongest fraction: the one at which most "
        "predictions change over all units. Flips are the percentage of images whose class changes; drops are "
        "percentage points. Ranks are within one network, seed and site: unit k of one seed is not unit k of another.",
    ]
    for (network, seed, site), part in shown.groupby(["network", "seed", "site"], sort=False):
        families = list(part.family.unique())
        rows = []
        for rank in range(1, 1 + int(part["rank"].max())):
            cells = []
            for family in families:
                one = part[(part.family == family) & (part["rank"] == rank)].to_dict("records")
                cells += [one[0]["unit"], *map(tables.percent, (one[0]["flips"], one[0]["drop"]))] if one else ["–"] * 3
            rows.append([rank, *cells])
        fractions = part.groupby("family", sort=False).fraction.first()
        names = [f"{family} at {100 * fractions[family]:.4g} %" for family in families]
        headers = ["rank", *(text for name in names for text in (f"{name}: unit", "flips", "drop"))]
        parts += [f"## {network}, seed {seed}, {site}", grid(rows, headers)]
    return "\n\n".join(parts) + "\n"


def radius(row: object, *names: str) -> tuple[str, str]:
    """A median of a tolerance row and its interval, as text; `names` are their columns, `median`, `low`, `high`."""
    median, low, high = (getattr(row, name) for name in names or ("median", "low", "high"))
    end, side = (getattr(row, name) for name in ("grid_end", "side"))
    bounds = [tables.reach(value, end, side).removesuffix(" %") for value in (low, high)]
    interval = "" if np.isnan(low) or (np.isinf(low) and np.isinf(high)) else f"[{bounds[0]}, {bounds[1]}]"
    return "–" if np.isnan(median) else tables.reach(median, end, side), interval


def _by_family(points: pd.DataFrame, columns: dict[str, Callable[[pd.Series], str]]) -> list[str]:
    """One table a split, site and family, the networks side by side."""
    parts = []
    for (split, site, family), part in tables.at_paper_rows(points).groupby(["split", "site", "family"], sort=False):
        networks = list(part.network.unique())
        rows = []
        for row, same in part.groupby("row", sort=False):
            cells = [fn(one) for _, one in same.iterrows() for fn in columns.values()]
            label = "no edit" if same.unedited.iloc[0] else f"{100 * float(str(row)):g} %"
            rows.append([label, f"{100 * same.fraction.iloc[0]:.4g} %", *cells])
        headers = ["row", "point", *(f"{network} {name}" for network in networks for name in columns)]
        parts += [f"## {str(family).capitalize()} of {site}, {split} images", grid(rows, headers)]
    return parts


def _pm(mean: float, sd: float) -> str:
    return f"{tables.percent(mean)} ± {tables.percent(sd)}"


def grid(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Rows as a Markdown table."""
    frame = pd.DataFrame(rows, columns=list(headers))
    return str(frame.to_markdown(index=False, disable_numparse=True))
