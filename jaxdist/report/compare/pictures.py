"""A comparison as a picture: both sides in one frame, and their difference below; the paper's Figure 1 of both.

The difference is B minus A; beside the published tables the run's minus the paper's, as in the table of cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxdist import files
from jaxdist.analysis import paper_cells
from jaxdist.formatting import TWO_SEEDS, counted
from jaxdist.report import figures
from jaxdist.report.compare.comparison import Comparison
from jaxdist.storage import published

_MARKS = {family: "x" for panel in (figures.INTENSITY, figures.DISTANCE) for family in panel.families[1:]}
"""Of families that share a panel with another, which has its networks' markers."""
_SHARED = {
    family for panel in (figures.INTENSITY, figures.DISTANCE) for family in panel.families[len(panel.families) < 2 :]
}


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the picture of each site and split as SVG, PNG and PDF; returns the files.

    Beside the published tables Figure 1 of both comes first.
    """
    written = []
    frame = comparison.points
    if comparison.mode == "published":
        written += figures.save(figure1(comparison), folder, "figure1-published")
        cells = paper_cells.edited(frame)
        groups = [("published", cells.assign(a=cells.ours, b=cells.paper, site=paper_cells.SITE, split="train"))]
    else:
        places = files.parts([str(site) for site in frame.site.unique()])
        groups = [
            ("-".join([comparison.stem, str(split), *([places[str(site)]] if len(places) > 1 else [])]), part)
            for (site, split), part in frame.groupby(["site", "split"], sort=False)
        ]
    for stem, part in groups:
        written += figures.save(picture(part, comparison), folder, stem)
    return written


def figure1(comparison: Comparison) -> Figure:
    """The paper's Figure 1 as its tables have it, and the same of the run, with its bands."""
    ours = comparison.curves.rename(columns={"a": "mean"})
    ours = ours[(ours.site == paper_cells.SITE) & (ours.split == "train")]
    cells = paper_cells.edited(comparison.points)
    order = list(ours.network.unique())
    paper = cells.assign(mean=cells.paper, low=np.nan, high=np.nan).sort_values(
        "network", key=lambda names: names.map(order.index), kind="stable"
    )
    fewest, most = cells.seeds.min(), cells.seeds.max()
    seeds = counted(fewest, "seed") if fewest == most else f"{fewest} to {counted(most, 'seed')}"
    sides = {f"the paper's tables, {published.SEEDS} seeds": paper, f"this run, {seeds}": ours}
    title = figures.TWO_SEEDS_BAND.capitalize() if (cells.seeds == 2).any() else None
    return figures.figure1_beside({name: figures.curves_of(frame) for name, frame in sides.items()}, title=title)


def picture(points: pd.DataFrame, comparison: Comparison) -> Figure:
    """Accuracy of both sides (A a line, B open markers) above, the difference below; intensity left, distance right."""
    look = figures.looks(points.network.unique())
    with figures.style(10):
        figure = figures.new_figure((10.0, 6.0))
        axes = figure.subplots(2, 2, sharex="col", height_ratios=(3, 1.6))
        for column, panel in enumerate((figures.INTENSITY, figures.DISTANCE)):
            above, below = axes[:, column]
            figures.frame(above, panel)
            above.set(xlabel="", title=f"({'ab'[column]}) {panel.title}")
            of_panel = points[points.family.isin(panel.families)]
            series = list(of_panel.groupby(["family", "network"], sort=False))
            width = panel.limits[1] - panel.limits[0]
            if comparison.mode == "published":
                # Rows stand at both ends.
                above.set_xlim(panel.limits[0] - 0.015 * width, panel.limits[1] + 0.015 * width)
            for k, ((family, network), part) in enumerate(series):
                aside = 0.006 * width * (k - (len(series) - 1) / 2)
                _draw(above, below, part, figures.DASHES[str(family)], look[str(network)], comparison, aside)
            below.axhline(0, color="0.55", linewidth=0.8)
            below.grid(color="0.92", linewidth=0.6)
            below.set_axisbelow(True)
            below.margins(y=0.15)
            limit = {"shared": comparison.images, "independent": 100 * comparison.margin}.get(comparison.mode)
            if limit is not None:
                # What the verdict allows, always in the picture.
                below.axhspan(-limit, limit, color="0.9", linewidth=0)
                most = max(abs(bound) for bound in (*below.get_ylim(), 1.5 * limit))
                below.set_ylim(-most, most)
            if comparison.mode == "shared":
                below.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
            below.set(xlabel=panel.xlabel, ylabel=_unit(comparison))
        figure.legend(handles=_legend(look, points), loc="outside lower center", ncols=6)
        figure.suptitle(_title(comparison), fontsize="large")
        return figures.settle(figure)


def _draw(
    above: Axes,
    below: Axes,
    part: pd.DataFrame,
    dash: str,
    look: figures.Look,
    comparison: Comparison,
    aside: float,
) -> None:
    """One family and network: means over seeds above; the difference below, every seed of shared networks by itself.

    `aside` is how far, in percent, bars are moved so that those of other series do not hide them.
    """
    same = ["family", "network", "site", "split"]
    curve = comparison.curves.merge(part[same].drop_duplicates(), on=same)
    b = part.b / part.total if comparison.mode == "shared" else part.b
    mean = b.groupby(part.fraction).mean()
    marks: dict[str, Any] = {
        "marker": _MARKS.get(str(part.family.iloc[0]), look.marker),
        "linestyle": "none",
        "markerfacecolor": "none",
        "markeredgecolor": look.colour,
    }
    every = None if comparison.mode == "published" else 0.06
    above.plot(100 * curve.fraction, 100 * curve.a, color=look.colour, linestyle=dash)
    above.plot(100 * mean.index, 100 * mean, **marks, markeredgewidth=1.0, markevery=every)
    share = 100 * part.fraction
    if comparison.mode == "independent":
        # Intervals of few seeds reach beyond what a difference of accuracies can be.
        low, high = (100 * part[end].clip(-1, 1) for end in ("low", "high"))
        below.fill_between(share, low, high, color=look.colour, alpha=0.2, linewidth=0)
        below.plot(share, 100 * part.difference, color=look.colour, linestyle=dash)
    elif comparison.mode == "shared":
        # A difference of a few images is a matter of single points, which a line would only join.
        below.plot(share, part.difference, **(marks | {"markersize": 3.5}))
    else:
        error = 100 * paper_cells.NEAR * np.nan_to_num(part.se.to_numpy(float))
        below.errorbar(
            share + aside,
            100 * (part.ours - part.paper),
            error,
            color=look.colour,
            fmt=marks["marker"],
            markersize=4,
            markerfacecolor="none",
            markeredgecolor=look.colour,
            elinewidth=1,
        )


def _unit(comparison: Comparison) -> str:
    return {"shared": "B - A (images)", "independent": "B - A (points)", "published": "ours - paper (points)"}[
        comparison.mode
    ]


def _title(comparison: Comparison) -> str:
    below = {"shared": "grey: as many images as may differ", "independent": "grey: the margin"}.get(comparison.mode)
    if comparison.mode == "published" and comparison.points.se.notna().any():
        below = f"bars: {paper_cells.NEAR:g} standard errors"
    if comparison.mode == "independent" and (comparison.points.seeds == 2).any():
        below = f"{below}\nBands, on a side, {TWO_SEEDS}"
    first, second = (side.split(":")[0] for side in (comparison.a, comparison.b))
    return f"A (lines): {first}    B (markers): {second}" + (f"    below, {below}" if below else "")


def _legend(look: dict[str, figures.Look], points: pd.DataFrame) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=entry.colour,
            marker=entry.marker,
            markerfacecolor="none",
            markeredgecolor=entry.colour,
            label=entry.label,
        )
        for entry in look.values()
    ]
    for family in (name for name in points.family.unique() if name in figures.DASHES):
        mark = _MARKS.get(str(family), "")
        dash = figures.DASHES[str(family)]
        if family in _SHARED:
            handles.append(
                Line2D([], [], color="0.3", linestyle=dash, marker=mark, markeredgecolor="0.3", label=str(family))
            )
    return [*handles, Line2D([], [], color="0.55", linewidth=0.8, linestyle=":", label="unedited")]
