"""Pictures of tables: tolerance radii layer by layer, and accuracy over two families edited at once.

Tables hold fractions; what is drawn is percent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from jaxdist.analysis import Pair
from jaxdist.formatting import counted, percent, shortened
from jaxdist.perturbations import Traits, families
from jaxdist.report.figures import FEW, Look, Values, looks, new_figure, settle, style
from jaxdist.sweep import MetricTraits

MAP = "viridis"
"""Perceptually uniform, and as readable in grey."""

_HALO = [patheffects.withStroke(linewidth=2.2, foreground="black")]


def layers(reach: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Tolerance radii of every site (a row) under every kind of edit (a column), networks side by side in a row.

    `reach` is one split of `tables.tolerance`, its sites in the network's order. Lines are intervals; an open marker
    with an arrow stands at the end of the grid where the accuracy is kept to there, as an arrow does for an interval.
    """
    sites, look = list(reach.site.unique()), looks(reach.network.unique())
    columns = list(dict.fromkeys(zip(reach.family, reach.side, strict=True)))
    names = [_broken(site) for site in sites]
    lines = max(1.0, len(look) / 2, *(0.75 * (1 + name.count("\n")) for name in names))
    with style(9):
        name_width = 0.075 * max(len(line) for name in names for line in name.split("\n"))
        figure = new_figure((name_width + 0.6 + 1.75 * len(columns), 1.5 + 0.34 * lines * len(sites)))
        # As it is saved, since the names of sites are wider there than at the dots of a screen.
        figure.set_dpi(200)
        axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for ax, (family, side) in zip(axes, columns, strict=True):
            part = reach[(reach.family == family) & (reach.side == side)]
            _edge(ax, part, family, side)
            for row in part.itertuples():
                _radius(
                    ax, row, sites.index(str(row.site)) + _beside(list(look).index(str(row.network)), len(look)), look
                )
        axes[0].set_yticks(range(len(sites)), names)
        axes[0].set_ylim(len(sites) - 0.5, -0.5)
        for ax in axes:
            ax.tick_params(axis="y", length=0)
            for y in range(1, len(sites)):
                # "all" is not one more layer.
                apart = sites[y] == "all"
                ax.axhline(y - 0.5, color="0.3" if apart else "0.88", linewidth=0.9 if apart else 0.6, zorder=1)
        handles = [
            Line2D([], [], color=entry.colour, marker=entry.marker, label=entry.label) for entry in look.values()
        ]
        if np.isinf(reach["median"]).any():
            open_: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": "0.3"}
            handles.append(Line2D([], [], linestyle="none", label="not lost to the end of the grid", **open_))
        handles.append(Line2D([], [], color="0.55", linewidth=0.8, linestyle=":", label="unedited"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def further(points: pd.DataFrame, edits: Mapping[str, Traits], *, title: str | None = None) -> Figure:
    """Accuracy against the fraction of each family, a panel each, with the interval of each network; as Figure 1.

    `points` are of one site and split; `edits` are the families by name.
    """
    in_percent = points.assign(**{name: 100 * points[name] for name in ("accuracy", "low", "high")})
    in_percent = in_percent.assign(low=in_percent.low.clip(0, 100), high=in_percent.high.clip(0, 100))

    def percent_axis(ax: Axes) -> None:
        ax.set(ylim=(0, 102), yticks=range(0, 101, 20))

    return _panels(in_percent, edits, "accuracy", "Accuracy (%)", percent_axis, title=title)


def metric(
    points: pd.DataFrame, told: MetricTraits, edits: Mapping[str, Traits], *, title: str | None = None
) -> Figure:
    """A metric against the fraction of each family, drawn as in `further`; a line marks chance where that is near.

    Args:
      points: those of `metric_tables.points` of one metric, site and split.
      told: what the result tells of the metric.
      edits: the families by name.
      title: above all panels, if any.
    """
    low, high = points["mean"].min(), points["mean"].max()
    middle, half = (low + high) / 2, 0.55 * (high - low) or 1.0

    def near(ax: Axes) -> None:
        if np.isfinite(half):
            ax.set_ylim(middle - half, middle + half)
        if named and told.chance is not None:
            ax.axhline(told.chance, color="0.4", linewidth=0.8, linestyle="--", zorder=1)

    named = {"chance": "0.4"} if told.chance is not None and abs(told.chance - middle) < half else {}
    return _panels(points, edits, "mean", told.words, near, lines=named, title=title)


def _panels(
    points: pd.DataFrame,
    edits: Mapping[str, Traits],
    value: str,
    label: str,
    finish: Callable[[Axes], None],
    *,
    lines: Mapping[str, str] = MappingProxyType({}),
    title: str | None = None,
) -> Figure:
    """A value with its interval, `low` to `high`, against the fraction of each family: a panel each, a line a network.

    `finish` sets the vertical axis; `lines` are further, dashed ones that the legend names, with their colours.
    """
    names, look = list(points.family.unique()), looks(points.network.unique())
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    with style(10):
        figure = new_figure((max(1.2 + 2.9 * columns, 4.6), 1.2 + 2.6 * rows))
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for ax in axes.flat[len(names) :]:
            ax.set_axis_off()
        for ax, name in zip(axes.flat, names, strict=False):
            of, part = edits[name], points[points.family == name]
            for network, curve in part.groupby("network", sort=False):
                line, x = look[str(network)], 100 * curve.fraction.to_numpy(float)
                low, high = (curve[end].to_numpy(float) for end in ("low", "high"))
                if np.isfinite(low).any():
                    ax.fill_between(x, low, high, color=line.colour, alpha=0.2, linewidth=0)
                start = 0.02 + 0.05 * list(look).index(str(network))
                every = (start, 0.1) if len(x) > FEW and np.isfinite(curve[value]).any() else None
                ax.plot(x, curve[value], color=line.colour, marker=line.marker, markevery=every)
            ends = 100 * np.array([part.fraction.min(), part.fraction.max()])
            _axis(ax, "x", ends, of.spacing == "log")
            if of.spacing == "linear":  # some go on where nothing happens
                margin = 0.05 * float(np.ptp(np.clip(ends, -200, 300)))
                ax.set_xlim(max(ends[0], -200) - margin, min(ends[1], 300) + margin)
            ax.set(title=of.words.capitalize(), xlabel=of.axis_label)
            finish(ax)
            ax.grid(color="0.92", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.axvline(100 * of.identity, color="0.55", linewidth=0.8, linestyle=":", zorder=1)
        for ax in axes[:, 0]:
            ax.set_ylabel(label)
        handles = [
            Line2D([], [], color=entry.colour, marker=entry.marker, label=entry.label) for entry in look.values()
        ]
        handles.append(Line2D([], [], color="0.55", linewidth=0.8, linestyle=":", label="unedited"))
        for text, colour in lines.items():
            handles.append(Line2D([], [], color=colour, linewidth=0.8, linestyle="--", label=text))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def heat_map(pair: Pair, margin: float, *, title: str | None = None) -> Figure:
    """Accuracy over both fractions of a pair of families, a panel a network; `pair.points` are of one site and split.

    A cross marks the unedited point, a line surrounds it where `margin` of accuracy is lost on the mean.
    """
    networks = list(pair.points.network.unique())
    with style(10):
        figure = new_figure((1.4 + 3.6 * len(networks), 4.3))
        axes = figure.subplots(1, len(networks), sharex=True, sharey=True, squeeze=False)[0]
        # One scale for all panels, down to what is there.
        least = 10 * np.floor(10 * float(pair.points.accuracy.min()))
        for ax, network in zip(axes, networks, strict=True):
            part = pair.points[pair.points.network == network]
            grid, drop = (part.pivot(index="second", columns="first", values=name) for name in ("accuracy", "drop"))
            x, y = 100 * grid.columns.to_numpy(float), 100 * grid.index.to_numpy(float)
            log = [families.get(family).spacing == "log" for family in (pair.first, pair.second)]
            mesh = ax.pcolormesh(
                _edges(x, log[0]), _edges(y, log[1]), 100 * grid.to_numpy(), cmap=MAP, vmin=min(least, 90), vmax=100
            )
            lost = drop.to_numpy() - margin
            if min(lost.shape) > 1 and lost.min() < 0 <= lost.max():
                line = ax.contour(x, y, lost, levels=[0], colors="white", linewidths=1.0)
                line.set_path_effects(_HALO)
            _axis(ax, "x", x, log[0])
            _axis(ax, "y", y, log[1])
            if None not in pair.identity:
                ax.plot(*(100 * np.array(pair.identity, float)), **_CROSS)
            seeds = int(part.seeds.max())
            ax.set_title(f"{looks(networks)[network].label}, {counted(seeds, 'seed')}")
            ax.set_xlabel(families.get(pair.first).axis_label)
        axes[0].set_ylabel(families.get(pair.second).axis_label)
        figure.colorbar(mesh, ax=list(axes), label="Accuracy (%)", aspect=25)
        contour = Line2D(
            [],
            [],
            color="white",
            linewidth=1.0,
            path_effects=_HALO,
            label=f"{percent(margin, 1)} points of accuracy lost",
        )
        cross = Line2D([], [], linestyle="none", label="unedited", **_CROSS)
        figure.legend(handles=[contour, cross], loc="outside lower center", ncols=2)
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


_CROSS: dict[str, Any] = {
    "marker": "P",
    "markersize": 9,
    "color": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 1.0,
}


def _edge(ax: Axes, part: pd.DataFrame, family: str, side: str) -> None:
    """The axis of one kind of edit, from no edit to the farthest that any network goes, with room for arrows there."""
    unedited, end = 100 * families.get(family).identity, 100 * float(part.grid_end.iloc[0])
    farthest = 100 * part[["median", "low", "high"]].to_numpy(float)
    if not np.isinf(farthest).any():
        end = float(np.nanmin(farthest) if side == "below" else np.nanmax(farthest))
    ends = sorted((unedited, end))
    _axis(ax, "x", np.array(ends), log := families.get(family).spacing == "log")
    position = np.log(ends) if log else np.array(ends)
    room = 0.12 * (position[1] - position[0])
    limits = position + np.array([-room, room]) * ([1, 0.35] if side == "below" else [0.35, 1])
    ax.set_xlim(*(np.exp(limits) if log else limits))
    ax.grid(axis="x", color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.axvline(unedited, color="0.55", linewidth=0.8, linestyle=":", zorder=1)
    ax.set(title=part["edit"].iloc[0], xlabel=families.get(family).percent)


def _radius(ax: Axes, row: Any, y: float, look: dict[str, Look]) -> None:
    """One network's radius at one site, with its interval."""
    line, end = look[row.network], 100 * row.grid_end
    outward = -1 if row.side == "below" else 1
    interval = np.array([row.low, row.high])
    if not np.isnan(interval).any():
        ends = np.where(np.isinf(interval), end, 100 * interval)
        ax.plot(ends, [y, y], color=line.colour, linewidth=1.6, zorder=2)
    censored = np.isinf(row.median)
    if censored or np.isinf(interval).any():
        arrow: dict[str, Any] = {
            "arrowstyle": "<|-",
            "color": line.colour,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 7,
        }
        out: dict[str, Any] = {"xytext": (11 * outward, 0), "textcoords": "offset points"}
        ax.annotate("", xy=(end, y), arrowprops=arrow, **out)
    mark: dict[str, Any] = {"marker": line.marker, "markersize": 4.8, "linestyle": "none", "zorder": 3}
    if censored:
        ax.plot([end], [y], **mark, markerfacecolor="white", markeredgecolor=line.colour, markeredgewidth=1.2)
    else:
        ax.plot([100 * row.median], [y], **mark, color=line.colour)


def _beside(k: int, count: int) -> float:
    """Where network k of so many lies in its row."""
    return 0.0 if count == 1 else float(np.linspace(-0.28, 0.28, count)[k])


def _broken(site: str) -> str:
    """A long site on two lines, broken at the slash nearest its middle, each line shortened in its middle."""
    if len(site) <= 26 or "/" not in site:
        return shortened(site, 30)
    cut = 1 + min((k for k, letter in enumerate(site) if letter == "/"), key=lambda k: abs(k - len(site) / 2))
    return "\n".join(shortened(part, 30) for part in (site[:cut], site[cut:]))


def _axis(ax: Axes, which: str, values: Values, log: bool) -> None:
    """Linear or logarithmic, with plain numbers at a few round values."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    if log:
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
        low, high = values.min() * (1 - 1e-9), values.max() * (1 + 1e-9)
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        steps: Sequence[int] = (1, 3) if high / low < 30 else (1,)
        ticks = [step * 10.0**decade for decade, step in itertools.product(decades, steps)]
        within = FixedLocator([tick for tick in ticks if low <= tick <= high])
        axis.set_major_locator(within if high / low > 4 else MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(plain)


def plain(value: float, _: object = None) -> str:
    """A tick's number without powers of ten."""
    return f"{value:g}".replace("-", "−")


def _edges(centres: Values, log: bool) -> Values:
    """The borders of cells around increasing centres, halfway between them."""
    position = np.log(centres) if log else np.asarray(centres, float)
    step = np.diff(position) if len(position) > 1 else np.ones(1)
    inner = (position[1:] + position[:-1]) / 2
    edges = np.concatenate([[position[0] - step[0] / 2], inner, [position[-1] + step[-1] / 2]])
    return np.exp(edges) if log else edges
