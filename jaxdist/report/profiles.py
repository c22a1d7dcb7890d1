"""Pictures of tables: units by their importance, and networks along training.

Tables hold fractions; what is drawn is percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxdist.analysis import breakdowns
from jaxdist.perturbations import families as records
from jaxdist.report import figures
from jaxdist.report.figures import looks, new_figure, settle, style
from jaxdist.report.pictures import plain

MAP = "viridis_r"
"""From light to dark as training goes on; its lightest part is left out."""

PANELS = {family: panel for panel in (figures.INTENSITY, figures.DISTANCE) for family in panel.families}


def units(frame: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Flips of single units in falling order, a panel a family at its strongest fraction, a curve a network.

    `frame` is one site and split of `breakdowns.units`. Units are ranked within each seed; the line is the median over
    seeds at each rank, the band reaches from the smallest to the largest.
    """
    strongest, look = breakdowns.strongest(frame), looks(frame.network.unique())
    families = list(strongest.family.unique())
    with style(10):
        figure = new_figure((1.0 + 3.2 * len(families), 3.7))
        axes = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
        for ax, family in zip(axes, families, strict=True):
            part = strongest[strongest.family == family]
            for network, rows in part.groupby("network", sort=False):
                # A unit that only some seeds have, as where widths differ, is none of the others' zeros.
                flips = 100 * rows.pivot(index="rank", columns="seed", values="flips").dropna()
                line, rank = look[str(network)], flips.index.to_numpy(float)
                if flips.shape[1] > 1:
                    band = (flips.min(axis=1), flips.max(axis=1))
                    ax.fill_between(rank, *band, color=line.colour, alpha=0.2, linewidth=0)
                start = 0.02 + 0.05 * list(look).index(str(network))
                every = (start, 0.1) if len(rank) > 12 else None
                ax.plot(rank, flips.median(axis=1), color=line.colour, marker=line.marker, markevery=every)
            if part["rank"].max() > 12:
                ax.set_xscale("log")
                ax.xaxis.set_major_formatter(plain)
            else:
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(color="0.92", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.set_xlim(left=0.9)
            ax.set(title=f"{family} at {100 * part.fraction.iloc[0]:.4g} %", xlabel="Rank of the unit")
        axes[0].set_ylabel("Images that change class (%)")
        axes[0].set_ylim(bottom=0)
        handles = [
            Line2D([], [], color=entry.colour, marker=entry.marker, label=entry.label) for entry in look.values()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def snapshots(points: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Curves along training, light early and dark late: a row a network, a column a family.

    `points` is one site and split of `breakdowns.along_training`; the legend of a row says how many seeds passed each
    training accuracy, over which its curves are means.
    """
    networks, families = list(points.network.unique()), list(points.family.unique())
    colours = _colours(points.threshold.unique().tolist())
    with style(10):
        figure = new_figure((2.2 + 3.0 * len(families), 1.0 + 2.7 * len(networks)))
        axes = figure.subplots(len(networks), len(families), sharex="col", sharey=True, squeeze=False)
        for network, row in zip(networks, axes, strict=True):
            for family, ax in zip(families, row, strict=True):
                part = points[(points.network == network) & (points.family == family)]
                figures.frame(ax, PANELS[family])
                ax.set(xlabel=records.get(family).axis_label if ax in axes[-1] else "", ylabel="")
                ax.set_title(f"{looks(networks)[network].label}, {family}")
                for threshold, colour in colours.items():
                    stage = part[part.threshold == threshold]
                    ax.plot(100 * stage.fraction, 100 * stage.accuracy, color=colour, linewidth=1.3)
            row[0].set_ylabel("Accuracy (%)")
            passed = points[points.network == network].groupby("threshold")[["seeds", "of"]].first()
            handles = [
                Line2D([], [], color=colours[threshold], linewidth=2.2, label=_passed(threshold, *counts))
                for threshold, counts in zip(passed.index.to_numpy(float), passed.to_numpy(int), strict=True)
            ]
            # Beside the row, in its own order from top to bottom.
            row[-1].legend(
                handles=handles[::-1],
                loc="center left",
                bbox_to_anchor=(1.02, 0.5),
                title="trained to (seeds)" if passed.of.max() > 1 else "trained to",
                title_fontsize="small",
                alignment="left",
                labelspacing=0.15,
            )
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def radii_along_training(reach: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Tolerance radius against the training accuracy first passed: a panel a kind of edit, a curve a network.

    `reach` is one site and split of `breakdowns.along_training`: medians over the seeds that passed, with intervals.
    An open marker stands at the end of the grid where the accuracy is kept to there.
    """
    columns, look = list(dict.fromkeys(zip(reach.family, reach.side, strict=True))), looks(reach.network.unique())
    with style(10):
        figure = new_figure((0.6 + 2.5 * len(columns), 3.4))
        axes = figure.subplots(1, len(columns), squeeze=False)[0]
        for ax, (family, side) in zip(axes, columns, strict=True):
            part = reach[(reach.family == family) & (reach.side == side)]
            for network, stages in part.groupby("network", sort=False):
                _course(ax, stages.sort_values("threshold"), look[str(network)])
            if records.get(family).spacing == "log":
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(plain)
                ax.yaxis.set_minor_formatter("")
            ax.axhline(100 * records.get(family).identity, color="0.55", linewidth=0.8, linestyle=":", zorder=1)
            ax.grid(color="0.92", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.set(title=part["edit"].iloc[0], xlabel="Training accuracy (%)")
            ax.set(ylabel=records.get(family).percent, xlim=(0, 103))
            ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        handles = [
            Line2D([], [], color=entry.colour, marker=entry.marker, label=entry.label) for entry in look.values()
        ]
        open_: dict[str, Any] = {
            "marker": "o",
            "markerfacecolor": "white",
            "markeredgecolor": "0.3",
            "markeredgewidth": 1.2,
        }
        handles.append(Line2D([], [], linestyle="none", label="not lost to the end of the grid", **open_))
        handles.append(Line2D([], [], color="0.55", linewidth=0.8, linestyle=":", label="unedited"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def _course(ax: Axes, stages: pd.DataFrame, look: figures.Look) -> None:
    """One network's median radius along training, with intervals and open markers where it is censored."""
    x, end = 100 * stages.threshold.to_numpy(), 100 * stages.grid_end.to_numpy()

    def drawn(values: pd.Series) -> np.ndarray:
        return np.where(np.isinf(values), end, 100 * values)

    ax.fill_between(x, drawn(stages.low), drawn(stages.high), color=look.colour, alpha=0.2, linewidth=0)
    ax.plot(x, drawn(stages["median"]), color=look.colour)
    censored = np.isinf(stages["median"].to_numpy())
    ax.plot(x[~censored], drawn(stages["median"])[~censored], color=look.colour, marker=look.marker, linestyle="none")
    hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": look.colour, "markeredgewidth": 1.2}
    ax.plot(x[censored], drawn(stages["median"])[censored], marker=look.marker, linestyle="none", zorder=3, **hollow)


def _colours(thresholds: Sequence[float]) -> dict[float, tuple[float, float, float, float]]:
    """A colour of each threshold, evenly spaced in their order."""
    ordered = sorted(thresholds)
    places = np.linspace(0.08, 1, len(ordered)) if len(ordered) > 1 else [1.0]
    return {threshold: matplotlib.colormaps[MAP](place) for threshold, place in zip(ordered, places, strict=True)}


def _passed(threshold: float, seeds: int, of: int) -> str:
    """Say a training accuracy and how many seeds, of several, passed it."""
    counts = "" if of == 1 else f" ({seeds})" if seeds == of else f" ({seeds} of {of})"
    return f"{100 * threshold:g} %{counts}"
