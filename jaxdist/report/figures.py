"""Figure 1: accuracy under intensity and distance edits, from curves that somebody else computed.

Curves arrive as fractions and are drawn in percent. Networks differ in colour, luminance and marker, families of edits
in their dash, so that the figure can be read in grey. Source of panels, limits and dashes: arXiv:2411.17932, Figure 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from jaxdist import files
from jaxdist.errors import InputError, nearest
from jaxdist.formatting import TWO_SEEDS

if TYPE_CHECKING:
    import pandas as pd

FORMATS: tuple[str, ...] = ("svg", "png", "pdf")
"""In which figures are written."""

DOTS = 200
"""Dots an inch of PNG, and of what is an image within the others."""

Values: TypeAlias = npt.NDArray[np.floating[Any]]


class Curve(NamedTuple):
    """One network's accuracy along one family of edits; every array is [P] and every accuracy a fraction, 0..1.

    A NaN in `low` or `high` means that there is no band at that point, as with a single seed.
    """

    fraction: Values
    mean: Values
    low: Values
    high: Values


Curves: TypeAlias = Mapping[str, Mapping[str, Curve]]
"""Family ('scale', 'clip', 'offset') -> network ('relu', 'abs', any other activation) -> curve."""


class Look(NamedTuple):
    """How a network is drawn everywhere: its name in print, its colour and its marker."""

    label: str
    colour: str
    marker: str


# The paper's blue and red have the same luminance; these are a dark blue and a light red, 65 and 120 of 255 in grey.
LOOKS = {"abs": Look("Abs", "#084f9a", "o"), "relu": Look("ReLU", "#ea4a3d", "s")}

# Okabe and Ito (2008), without the two that resemble those above and the yellow, which is too faint on white.
FURTHER_COLOURS = ("#009e73", "#e69f00", "#cc79a7", "#000000", "#56b4e9")
# Six markers against five colours: thirty networks before a pair repeats.
FURTHER_MARKERS = ("^", "D", "v", "P", "X", "<")


TWO_SEEDS_BAND = f"bands {TWO_SEEDS}, cut at 0 and 100 %"
"""What is said of bands that are intervals of two seeds, which go far beyond what an accuracy can be."""

FEW = 30
"""Points of a curve up to which each has a marker."""


class Panel(NamedTuple):
    """What one panel shows; limits, ticks and the unedited point in percent."""

    families: tuple[str, ...]
    title: str
    xlabel: str
    limits: tuple[float, float]
    ticks: range
    unedited: float


INTENSITY = Panel(
    ("scale", "clip"), "Intensity edits", "Scale (% of original) or clip (% of range)", (0, 120), range(0, 121, 20), 100
)
DISTANCE = Panel(
    ("offset",), "Distance edits", "Distance offset (% of activation range)", (-200, 100), range(-200, 101, 50), 0
)


DASHES: dict[str, Literal["-", "--"]] = {
    family: dash  # type: ignore[misc]  # of the two that there are
    for panel in (INTENSITY, DISTANCE)
    for family, dash in zip(panel.families, ("-", "--"), strict=False)
}
"""Of the families of a panel, which share it."""


def curves_of(frame: pd.DataFrame) -> Curves:
    """The curves of a frame with a row a point, in order: `family`, `network`, `fraction`, `mean`, `low`, `high`.

    Families that Figure 1 does not have are left out.
    """
    rows = frame[frame.family.isin(DASHES)]
    return {
        str(family): {
            str(network): Curve(*(part[name].to_numpy() for name in Curve._fields))
            for network, part in of_family.groupby("network", sort=False)
        }
        for family, of_family in rows.groupby("family", sort=False)
    }


def figure1(curves: Curves, *, title: str | None = None) -> Figure:
    """Both panels side by side, 10 x 4.5 in: (a) intensity edits, 0..120 %, and (b) distance edits, -200..100 %.

    The bands are whatever interval the curves carry. Families and networks may be missing; a panel without any says so.

    Raises:
        InputError: an unknown family, arrays of unlike shapes, or accuracies that are not fractions.
    """
    return _compose(curves, (INTENSITY, DISTANCE), size=(10.0, 4.5), font_size=11, legend_columns=7, title=title)


def figure1_beside(sides: Mapping[str, Curves], *, title: str | None = None) -> Figure:
    """`figure1` of several sources side by side, a column each under its name: intensity edits above distance edits.

    Raises:
        InputError: as `figure1`.
    """
    for curves in sides.values():
        _check_curves(curves)
    look = looks(network for curves in sides.values() for family in curves.values() for network in family)
    with style(11):
        figure = new_figure((5.0 * len(sides), 8.0))
        axes = figure.subplots(2, len(sides), sharex="row", sharey=True, squeeze=False)
        for column, (name, curves) in enumerate(sides.items()):
            for row, panel in enumerate((INTENSITY, DISTANCE)):
                axes[row, column].set_title(f"({'ab'[row]}) {panel.title}, {name}")
                _draw(axes[row, column], panel, {f: curves[f] for f in panel.families if curves.get(f)}, look)
                if column:
                    axes[row, column].set_ylabel("")
        by_family: dict[str, dict[str, Curve]] = {}
        for curves in sides.values():
            for family in DASHES:
                by_family.setdefault(family, {}).update(curves.get(family, {}))
        by_family = {family: named for family, named in by_family.items() if named}
        figure.legend(handles=_legend_handles(by_family, look), loc="outside lower center", ncols=7)
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def intensity_figure(curves: Curves, *, title: str | None = None) -> Figure:
    """Panel (a) of `figure1` alone, for a single column: 3.4 x 2.8 in, higher where the legend is long."""
    return _compose(curves, (INTENSITY,), size=(3.4, 2.8), font_size=8, legend_columns=3, title=title)


def distance_figure(curves: Curves, *, title: str | None = None) -> Figure:
    """Panel (b) of `figure1` alone, for a single column: 3.4 x 2.8 in, higher where the legend is long."""
    return _compose(curves, (DISTANCE,), size=(3.4, 2.8), font_size=8, legend_columns=3, title=title)


def looks(networks: Iterable[str]) -> dict[str, Look]:
    """Give every network its look: the fixed one for Abs and ReLU, the next unused for any other, in the order given.

    >>> looks(["relu", "gelu"])["gelu"]
    Look(label='gelu', colour='#009e73', marker='^')
    """
    further = zip(cycle(FURTHER_COLOURS), cycle(FURTHER_MARKERS), strict=False)
    by_network: dict[str, Look] = {}
    for name in networks:
        if name not in by_network:
            by_network[name] = LOOKS.get(name.lower()) or Look(name, *next(further))
    return by_network


def style(font_size: float) -> AbstractContextManager[None]:
    """A context in which figures look the same whatever the user's matplotlib settings; it restores them on leaving."""
    own: dict[str, Any] = {
        "font.size": font_size,
        "axes.titlesize": "medium",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.labelsize": "small",
        "ytick.labelsize": "small",
        "legend.fontsize": "small",
        "legend.frameon": False,
        "legend.borderaxespad": 0.3,
        "lines.linewidth": font_size / 7,
        "lines.dashed_pattern": (3.4, 1.6),
        "lines.markersize": font_size / 1.9,
        "lines.markeredgecolor": "white",
        "lines.markeredgewidth": 0.5,
    }
    return matplotlib.style.context(["default", own])


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of `size` inches on an Agg canvas, with a layout engine that keeps its texts apart."""
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07))
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> Figure:
    """Lay the figure out once and for all, so that saving it in one format does not shift it in the next."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def save(figure: Figure, folder: str | Path, stem: str, formats: Sequence[str] | None = None) -> list[Path]:
    """Write ``folder/stem.format`` for every format and return the paths; equal figures give equal bytes.

    Each file is written aside and renamed, so that a reader never sees half of one. PNG has 200 dots an inch. SVG text
    becomes paths: the figure then looks the same where its font is missing, at the price of not being searchable, which
    the PDF is.

    Args:
      figure: laid out, as `settle` leaves it.
      formats: some of `FORMATS`; by default all of them.

    Raises:
      InputError: a format other than svg, png or pdf.
    """
    for kind in FORMATS if formats is None else formats:
        if kind not in _CANVASES:
            raise InputError(f"formats: expected svg, png or pdf, got {kind!r}{nearest(kind, _CANVASES)}")
    folder = Path(folder)
    paths = []
    own: dict[str, Any] = {"svg.fonttype": "path", "svg.hashsalt": "jaxdist", "pdf.fonttype": 42}
    for kind in FORMATS if formats is None else formats:
        path = folder / f"{stem}.{kind}"
        with files.aside(path) as temporary, matplotlib.style.context(["default", own]):
            # Not by savefig, which draws a figure once more before each format, for sizes that are settled here.
            figure.set_dpi(DOTS)
            getattr(_CANVASES[kind](figure), f"print_{kind}")(temporary, metadata=_UNDATED[kind])
        paths.append(path)
    return paths


_CANVASES: dict[str, Any] = {"svg": FigureCanvasSVG, "png": FigureCanvasAgg, "pdf": FigureCanvasPdf}
_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}


def _compose(
    curves: Curves,
    panels: Sequence[Panel],
    *,
    size: tuple[float, float],
    font_size: float,
    legend_columns: int,
    title: str | None,
) -> Figure:
    _check_curves(curves)
    by_family = {name: curves[name] for panel in panels for name in panel.families if curves.get(name)}
    # Looks follow all the networks given, so that a network has one colour in both single-panel figures.
    look = looks(network for family in curves.values() for network in family)
    with style(font_size):
        handles = _legend_handles(by_family, look)
        width, height = size
        if len(panels) == 1:
            # Two legend rows are part of the size given; further ones must not be taken from the curves.
            height += font_size / 72 * 1.5 * max(0, math.ceil(len(handles) / legend_columns) - 2)
        figure = new_figure((width, height))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for letter, panel, ax in zip("ab", panels, axes, strict=False):
            ax.set_title(f"({letter}) {panel.title}" if len(panels) > 1 else panel.title)
            _draw(ax, panel, by_family, look)
        # Outside the axes, the legend covers no curve whatever the curves are.
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), legend_columns))
        if title is not None:
            figure.suptitle(title, fontsize="large")
        return settle(figure)


def frame(ax: Axes, panel: Panel) -> None:
    """Limits, ticks, labels, grid and the line of the unedited point of one panel."""
    ax.set(xlim=panel.limits, ylim=(0, 102), xticks=panel.ticks, yticks=range(0, 101, 20))
    ax.set(xlabel=panel.xlabel, ylabel="Accuracy (%)")
    ax.grid(color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.axvline(panel.unedited, color="0.55", linewidth=0.8, linestyle=":", zorder=1)


def _draw(ax: Axes, panel: Panel, curves: Curves, look: Mapping[str, Look]) -> None:
    frame(ax, panel)
    drawn = [name for name in panel.families if name in curves]
    if not drawn:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center", color="0.4")
    for family in drawn:
        for name, curve in curves[family].items():
            # Intervals of few seeds reach beyond what an accuracy can be.
            x, low, high = 100 * curve.fraction, 100 * np.clip(curve.low, 0, 1), 100 * np.clip(curve.high, 0, 1)
            banded = np.isfinite(low) & np.isfinite(high)
            if banded.any():
                ax.fill_between(x, low, high, where=banded, color=look[name].colour, alpha=0.2, linewidth=0)
            # Markers stand at even distances along the curve; each network begins elsewhere, so that they do not meet.
            # A few points, as the rows of a table, have one each.
            start = 0.02 + 0.1 * list(look).index(name) / len(look)
            even = (start, 0.1) if np.isfinite(curve.mean).any() else None
            ax.plot(
                x,
                100 * curve.mean,
                color=look[name].colour,
                linestyle=DASHES[family],
                marker=look[name].marker,
                # Without a finite point, as after divergence, there is no length to divide.
                markevery=None if len(x) <= FEW else even,
            )


def _legend_handles(curves: Curves, look: Mapping[str, Look]) -> list[Line2D]:
    present = dict.fromkeys(name for family in curves.values() for name in family)
    handles = [Line2D([], [], color=look[n].colour, marker=look[n].marker, label=look[n].label) for n in present]
    dashes = list(dict.fromkeys(DASHES[family] for family in curves))
    if len(dashes) > 1:
        for dash in dashes:
            label = ", ".join(family for family in curves if DASHES[family] == dash)
            handles.append(Line2D([], [], color="0.3", linestyle=dash, label=label))
    return [*handles, Line2D([], [], color="0.55", linewidth=0.8, linestyle=":", label="unedited")]


def _check_curves(curves: Curves) -> None:
    for family, networks in curves.items():
        if family not in DASHES:
            raise InputError(f"curves: unknown family {family!r}{nearest(family, DASHES)}")
        for name, curve in networks.items():
            where = f"curves[{family!r}][{name!r}]"
            shapes = [np.shape(values) for values in curve]
            if len(set(shapes)) > 1 or len(shapes[0]) != 1:
                raise InputError(f"{where}: expected four arrays of one length, got shapes {shapes}")
            if np.any((curve.mean < 0) | (curve.mean > 1)):
                raise InputError(
                    f"{where}.mean: expected fractions in 0..1, got {np.nanmin(curve.mean)}..{np.nanmax(curve.mean)}"
                )
