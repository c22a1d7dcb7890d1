"""The figure of the fair comparison: flips against angular dose, every family in one panel a network.

Curves arrive as fractions and are drawn in percent, but for the dose, which has no unit. Colours say what an edit does,
dashes which of its kind it is, so that the figure can be read in grey: the four colours differ in luminance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from jaxdist.analysis import FairComparison, Rho, Swept, dose_tables, dosed, preference
from jaxdist.config import StatisticsConfig
from jaxdist.formatting import TWO_SEEDS, counted, shortened
from jaxdist.perturbations import Traits
from jaxdist.report.figures import LOOKS, Values, new_figure, settle, style

LARGE, SMALL, MOVED, CONTROL, OTHER = "#084f9a", "#dc3b2f", "#56bd95", "#000000", "#f0b840"
"""Colours of edits that erase large values, that erase small ones, that move the boundary, of random controls, and of
others."""
COLOURS: Mapping[str, str] = {
    "small": SMALL,
    "large": LARGE,
    "control": CONTROL,
    "moved": MOVED,
    "other": OTHER,
    "scale": "0.55",
}
"""Of lines, by what an edit does, in the order of the legend."""
DASHES: Mapping[str, Any] = {
    "solid": "-",
    "dashed": (0, (5, 1.8)),
    "mixed": (0, (5, 1.5, 1, 1.5)),
    "dotted": (0, (1, 1.4)),
}
"""Of lines of one colour, in the order of the legend."""


class Line(NamedTuple):
    """How a family is drawn, and what it is called."""

    label: str
    colour: str
    dash: Any


def line(of: Traits) -> Line:
    """How a family is drawn."""
    return Line(of.label or of.words, COLOURS[of.effect], DASHES[of.dash])


def _place(of: Traits) -> tuple[int, int]:
    """Where a family stands in the legend: by what it does, then by its dash."""
    return list(COLOURS).index(of.effect), list(DASHES).index(of.dash)


CURVE_DOSES = np.linspace(0.02, 1, 200) ** 2
"""Where the figure's curves are evaluated, evenly on its axis."""
RHO_LEVELS = tuple(np.geomspace(0.005, 0.2, 13).tolist())
NAMED = (*preference.SMALL, preference.LARGE, preference.NOISE)
"""What the verdict is made of, whose bands are stronger."""
MARKERS = {"below": "v", "above": "^"}
"""On the lines of families that go to two sides."""


class DoseCurve(NamedTuple):
    """One side of a family: median flips over seeds with the least and the most, at doses common to them, each [D]."""

    traits: Traits
    side: str
    dose: Values
    flips: Values
    low: Values
    high: Values
    two_sided: bool

    @property
    def family(self) -> str:
        """The family's name."""
        return self.traits.name


class RhoCurve(NamedTuple):
    """Rho of one side of the offset with its interval at levels of flips, each [L]; NaN where it is not known."""

    side: str
    level: Values
    rho: Values
    low: Values
    high: Values


class DosePanel(NamedTuple):
    """One network's curves."""

    network: str
    curves: Sequence[DoseCurve]
    rhos: Sequence[RhoCurve]


def figure(found: FairComparison, options: StatisticsConfig) -> Figure:
    """The figure of one site: flips against dose, and rho against the level of flips."""
    sweeps, drawn = _drawn_sweeps(found), panels(found, options)
    seeds = max(len(sweep.series.seeds) for sweep in sweeps)
    over = f"median of {counted(seeds, 'seed')}, band from least to most" if seeds > 1 else "one seed"
    first = sweeps[0].series
    where = f"Edits of {shortened(first.site, 30)} at equal dose, {first.split} images"
    title = f"{where}: {over}" if len(drawn) > 1 else f"{where}\n{over}"
    if seeds == 2 and any(np.isfinite(rho.low).any() for panel in drawn for rho in panel.rhos):
        title += f"\nBand of ρ {TWO_SEEDS}"
    return draw(drawn, options.flips, resolution=1 / first.total, title=title)


def panels(found: FairComparison, options: StatisticsConfig) -> list[DosePanel]:
    """The curves of each network of one site, on the split that verdicts are of."""
    sweeps = _drawn_sweeps(found)
    rhos = list(dose_tables.rhos(sweeps, options, levels=RHO_LEVELS))
    return [
        DosePanel(
            name,
            [curve for sweep in sweeps if sweep.series.network == name for curve in _curves(sweep)],
            [_rho_curve(rhos, name, side) for side in ("below", "above")],
        )
        for name in dict.fromkeys(sweep.series.network for sweep in sweeps)
    ]


def _drawn_sweeps(comparison: FairComparison) -> list[Swept]:
    split = dosed.chosen_split(comparison.swept)
    sweeps = [sweep for sweep in comparison.swept if sweep.series.split == split and sweep.gauge == "as_is"]
    return [sweep for sweep in sweeps if not np.isnan(sweep.dose).all()]


def _curves(sweep: Swept) -> Iterator[DoseCurve]:
    sides = list(sweep.paths())
    for side, path in sides:
        traits = sweep.series.traits
        if sweep.unseen:  # at dose 0, whatever it flips
            most = np.median(path.flips.max(axis=1), keepdims=True)
            yield DoseCurve(traits, side, np.zeros(1), most, most, most, two_sided=False)
            continue
        flips = preference.flips_at(path, CURVE_DOSES)
        there = ~np.isnan(flips).any(axis=0)
        flips = flips[:, there]
        if flips.size:
            ends = (np.median(flips, axis=0), flips.min(axis=0), flips.max(axis=0))
            yield DoseCurve(traits, side, CURVE_DOSES[there], *ends, two_sided=len(sides) > 1)


def _rho_curve(rhos: Sequence[Rho], network: str, side: str) -> RhoCurve:
    """Rho along the level, where no seed is censored."""
    ratios = [rho.ratio for rho in rhos if (rho.network, rho.side, rho.against) == (network, side, "")]
    uncensored = [ratio.at_least == ratio.at_most for ratio in ratios]
    values = ([getattr(ratio, name) for ratio in ratios] for name in ("at_least", "low", "high"))
    levels = np.array(RHO_LEVELS[: len(ratios)])
    return RhoCurve(side, levels, *(np.where(uncensored, np.array(each), np.nan) for each in values))


def draw(panels: Sequence[DosePanel], margin: float, *, resolution: float, title: str | None = None) -> Figure:
    """Flips, logarithmic, against angular dose, a panel a network, rho against the flip level as an inset of each.

    A family that no dose shows, as a common scale, stands at dose 0 up to the most flips that it makes.

    Args:
      panels: at least one.
      margin: flips that matter, a fraction; a line stands there.
      resolution: the least share of flips there is, one image in all.
      title: above all panels, if any.
    """
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = math.ceil(len(panels) / columns)
    with style(11):
        figure = new_figure((max(5.4 * columns, 7.6), 4.4 * rows + 1.0))
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, panel in zip(axes.flat, panels, strict=False):
            _panel(ax, panel, margin, resolution)
        for ax in axes[:, 0]:
            ax.set_ylabel("Predictions changed (%)")
        seen = {curve.traits: bool(curve.dose.any()) for panel in panels for curve in panel.curves}
        sided = {curve.side for panel in panels for curve in panel.curves if curve.two_sided}
        handles = _handles(seen, sided, margin)
        wide = figure.get_figwidth() > 9
        figure.legend(handles=handles, loc="outside lower center", ncols=4 if wide else 3, handlelength=3.4)
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def _panel(ax: Axes, panel: DosePanel, margin: float, resolution: float) -> None:
    least = 100 * 10 ** math.floor(math.log10(resolution) + 1e-9)
    # By its square root, since much of what happens does so at little dose, and 0 has to be there.
    ax.set_xscale("function", functions=(lambda dose: np.sqrt(np.maximum(dose, 0)), np.square))
    ax.set(xlim=(0, 1), ylim=(least, 130), yscale="log", xlabel="Angular dose (square-root scale)")
    ax.xaxis.set_major_locator(FixedLocator([0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1]))
    ax.set_title(LOOKS[panel.network].label if panel.network in LOOKS else panel.network)
    _plain(ax)
    ax.grid(color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.axhline(100 * margin, color="0.35", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    # Later ones are drawn above: what the verdict is made of must not be covered.
    for curve in sorted(panel.curves, key=lambda drawn: _place(drawn.traits), reverse=True):
        _curve(ax, curve, least)
    rhos = [rho for rho in panel.rhos if np.isfinite(rho.rho).any()]
    if rhos:
        _rho(ax.inset_axes(_free(ax, panel)), rhos)


def _curve(ax: Axes, curve: DoseCurve, least: float) -> None:
    _, colour, dash = line(curve.traits)
    if not curve.dose.any():
        ax.plot([0, 0], [least, 100 * float(np.nanmax(curve.flips))], color=colour, linewidth=6, solid_capstyle="butt")
        return
    flips, low, high = (np.maximum(100 * values, least / 10) for values in (curve.flips, curve.low, curve.high))
    if not np.isfinite(flips).any():
        return
    ax.fill_between(curve.dose, low, high, color=colour, alpha=0.15 if curve.family in NAMED else 0.08, linewidth=0)
    marker = MARKERS[curve.side] if curve.two_sided else None
    every = (0.06 if curve.side == "below" else 0.11, 0.13) if marker else None
    ax.plot(curve.dose, flips, color=colour, linestyle=dash, marker=marker, markersize=4.5, markevery=every)


def _rho(ax: Axes, rhos: Sequence[RhoCurve]) -> None:
    """Rho against the level of flips; 1 is where both edits cost the same."""
    ax.set(xscale="log", yscale="log")
    ax.patch.set_alpha(0.92)
    ax.axhline(1, color="0.55", linewidth=0.8, linestyle=":")
    for curve in rhos:
        finite = np.isfinite(curve.rho)
        level, rho, low, high = (100 * curve.level[finite], curve.rho[finite], curve.low[finite], curve.high[finite])
        if np.isfinite(low).any():
            ax.fill_between(level, low, high, color=MOVED, alpha=0.18, linewidth=0)
        ax.plot(level, rho, color=MOVED, marker=MARKERS[curve.side], markersize=3.5, linewidth=1.0, markevery=(0, 3))
    every = np.concatenate([np.ravel(values)[np.isfinite(values)] for curve in rhos for values in curve[2:]])
    every = np.append(every[(every > 0) & (every < 1e3)], 1.0)
    ax.set_ylim(every.min() / 1.15, every.max() * 1.15)
    levels = np.concatenate([curve.level for curve in rhos])
    ax.set_xlim(100 * levels.min() / 1.1, 100 * levels.max() * 1.1)
    ax.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10, 20]))
    ax.yaxis.set_major_locator(FixedLocator(_round_ticks(every.min(), every.max())))
    _plain(ax)
    ax.tick_params(labelsize=7.5, length=2, pad=1.5)
    title = ax.set_title("ρ: dose of clip / dose of offset", fontsize=8.5, pad=3)
    title.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.92, "pad": 1})
    ax.set_xlabel("predictions changed (%)", fontsize=7.5, labelpad=1)


def _free(ax: Axes, panel: DosePanel) -> tuple[float, float, float, float]:
    """The corner for the inset that holds the fewest points of curves, as left, bottom, width and height."""
    width, height = 0.40, 0.27
    corners = ((0.575, 0.12), (0.575, 0.70), (0.10, 0.70), (0.10, 0.12))
    bottom, top = np.log10(ax.get_ylim())
    points = [
        (np.sqrt(curve.dose), (np.log10(np.maximum(100 * curve.flips, 1e-9)) - bottom) / (top - bottom))
        for curve in panel.curves
        if curve.dose.any()
    ]

    def covered(corner: tuple[float, float]) -> int:
        (x0, y0) = corner
        return sum(
            int(((x > x0 - 0.07) & (x < x0 + width) & (y > y0 - 0.1) & (y < y0 + height + 0.05)).sum())
            for x, y in points
        )

    return (*min(corners, key=covered), width, height)


def _round_ticks(low: float, high: float) -> list[float]:
    """Few round numbers for an axis from `low` to `high`, with 1 among them."""
    for steps in (
        (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0),
        (1.0, 2.0, 3.0, 5.0),
        (1.0, 2.0, 5.0),
        (1.0, 3.0),
        (1.0,),
    ):
        ticks = [10.0**power * step for power in range(-4, 4) for step in steps]
        ticks = [tick for tick in ticks if low / 1.01 <= tick <= high * 1.01]
        if len(ticks) <= 5:
            break
    return ticks


def _plain(ax: Axes) -> None:
    """Plain numbers on both axes, without labels between them."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _handles(seen: Mapping[Traits, bool], sided: set[str], margin: float) -> list[Line2D]:
    """The legend's, of families by whether any dose shows them."""
    handles = []
    for of in sorted(seen, key=_place):
        label, colour, dash = line(of)
        look = {"linestyle": dash, "label": label} if seen[of] else {"linewidth": 3, "label": f"{label}: dose 0"}
        handles.append(Line2D([], [], color=colour, **look))
    for side in ("above", "below"):
        if side in sided:
            words = {"above": "raised: fraction above 0", "below": "lowered: fraction below 0"}[side]
            handles.append(Line2D([], [], color=MOVED, linestyle="", marker=MARKERS[side], label=words))
    return [
        *handles,
        Line2D([], [], color="0.35", linewidth=0.8, linestyle=(0, (1, 2)), label=f"margin: {100 * margin:g} %"),
    ]
