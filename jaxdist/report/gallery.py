"""Figures 2 and 3: what ReLU and Abs do to five features on a number line (arXiv:2411.17932, section Discussion).

The line is the projection of an input on a unit's weight vector; the unit's bias puts the decision boundary on it,
where the pre-activation is zero. Each feature is a Gaussian. ReLU sets everything at or below the boundary to zero; Abs
folds the negative side onto the positive one.

**The sign in Figure 3 is that of the boundary's displacement, opposite to the sign of an offset edit.** An offset edit
with p > 0 adds ``t = p*r > 0`` to the pre-activation ``s*h`` and so moves the boundary *down*, to ``h = -t/s < 0``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxdist.errors import InputError, nearest
from jaxdist.report.figures import Values, new_figure, save, settle, style

Activation: TypeAlias = Literal["identity", "relu", "abs"]


class Feature(NamedTuple):
    """A peak on the number line: one letter, or several that coincide, where it lies, and how high it is."""

    name: str
    position: float
    height: float


# The paper's drawing: five Gaussians of one width and height, and a trace of those that ReLU suppresses.
WIDTH = 0.2
HEIGHT = 0.125
SUPPRESSED = 0.01
FEATURES = tuple(Feature(name, at, HEIGHT) for name, at in zip("abcde", (-3.0, -1.0, 0.0, 2.0, 4.0), strict=True))

# The prototype is c. Abs puts its boundary through it; ReLU, which must zero it, lies on its positive edge.
BOUNDARY = {"relu": 0.5, "abs": 0.0}
DISPLACEMENT = 1.0

_PEAK, _BOUNDARY, _FORMER = "#084f9a", "#e0261b", "0.6"


class _Diagram(NamedTuple):
    stem: str
    title: str
    unit: Literal["relu", "abs"]
    activation: Activation
    displacement: float


_FIGURE2 = (
    _Diagram("figure2_relu_before", "ReLU, before activation", "relu", "identity", 0),
    _Diagram("figure2_abs_before", "Abs, before activation", "abs", "identity", 0),
    _Diagram("figure2_relu_after", "ReLU, after activation", "relu", "relu", 0),
    _Diagram("figure2_abs_after", "Abs, after activation", "abs", "abs", 0),
)
_FIGURE3 = (
    _Diagram("figure3_relu_down", "ReLU, boundary moved down (p > 0)", "relu", "relu", -DISPLACEMENT),
    _Diagram("figure3_abs_down", "Abs, boundary moved down (p > 0)", "abs", "abs", -DISPLACEMENT),
    _Diagram("figure3_relu_up", "ReLU, boundary moved up (p < 0)", "relu", "relu", DISPLACEMENT),
    _Diagram("figure3_abs_up", "Abs, boundary moved up (p < 0)", "abs", "abs", DISPLACEMENT),
)


def features(activation: Activation, boundary: float) -> list[Feature]:
    """The peaks on the number line after `activation`, in order of position, with the decision boundary at `boundary`.

    ``identity`` is the line before activation. ``relu``: a feature whose centre is at or below the boundary has
    activation zero; it stays where it was, as a trace of height 0.01. ``abs``: a feature at x is seen at the distance
    ``|x - boundary|`` above the boundary. Its height is that of the folded density there, ``f(y) + f(2*boundary - y)``:
    unchanged away from the boundary, doubled (0.25) for a feature *on* it, which is folded onto itself and keeps only
    its upper half, and added up for features that coincide, which become one peak ("c, d", 0.25).

    All of the paper's drawings follow this rule but one, b on the boundary moved down to -1, which is a whole Gaussian
    of height 0.125 there: its code asks for the half at index -1, which no feature has.

    Raises:
        InputError: an unknown activation.

    >>> features("abs", 1.0)[0]
    Feature(name='c, d', position=2.0, height=0.25)
    """
    if activation == "identity":
        return list(FEATURES)
    if activation == "relu":
        return [f if f.position > boundary else f._replace(height=SUPPRESSED) for f in FEATURES]
    if activation == "abs":
        folded: dict[float, Feature] = {}
        for name, at, height in FEATURES:
            distance = abs(at - boundary)
            # Rounded, so that distances equal but for floating point coincide.
            position = round(boundary + distance, 9)
            height *= _folding(distance)
            if position in folded:
                name, height = f"{folded[position].name}, {name}", folded[position].height + height
            folded[position] = Feature(name, position, height)
        return [folded[position] for position in sorted(folded)]
    raise InputError(f"activation: unknown {activation!r}{nearest(activation, get_args(Activation))}")


def selected(activation: Literal["relu", "abs"], boundary: float) -> list[str]:
    """The features whose activation is zero: what a unit selects when it measures a distance (section Discussion).

    >>> selected("relu", 0.5), selected("abs", 0.0), selected("abs", 1.0)
    (['a', 'b', 'c'], ['c'], [])
    """
    if activation == "relu":
        return [f.name for f in FEATURES if f.position <= boundary]
    return [f.name for f in FEATURES if math.isclose(f.position, boundary, abs_tol=1e-9)]


def profile(activation: Activation, feature: Feature, boundary: float, x: Values) -> Values:
    """The height of a feature along the number line.

    Args:
      activation: what the line has gone through.
      feature: one of ``features(activation, boundary)``.
      boundary: the place of the decision boundary.
      x: places [P] on the line.
    """
    peak: Values = np.exp(-0.5 * ((x - feature.position) / WIDTH) ** 2)
    if activation != "abs":
        return feature.height * peak
    mirrored = np.exp(-0.5 * ((x - (2 * boundary - feature.position)) / WIDTH) ** 2)
    height = feature.height / _folding(feature.position - boundary)
    folded: Values = np.where(x < boundary, 0.0, height * (peak + mirrored))
    return folded


def figure2() -> Figure:
    """Figure 2: ReLU (left) and Abs (right) before (top) and after activation, 7 x 3.9 in."""
    return _compose(_FIGURE2)


def figure3() -> Figure:
    """Figure 3: ReLU (left) and Abs (right) with the boundary moved down (top) and up, after activation, 7 x 3.9 in.

    Down and up are the boundary's; an offset edit's p has the opposite sign, and the titles give both.
    """
    return _compose(_FIGURE3)


def diagrams() -> dict[str, Figure]:
    """The eight diagrams of Figures 2 and 3 by file stem, each 3.4 x 1.9 in."""
    single = {}
    for diagram in _FIGURE2 + _FIGURE3:
        with style(8):
            figure = new_figure((3.4, 1.9))
            _draw(figure.subplots(), diagram, diagram.title)
            single[diagram.stem] = settle(figure)
    return single


def write(folder: str | Path) -> list[Path]:
    """Save the eight diagrams and the two figures composed of them as SVG, PNG and PDF; return the thirty paths."""
    figures = {**diagrams(), "figure2": figure2(), "figure3": figure3()}
    return [path for stem, figure in figures.items() for path in save(figure, folder, stem)]


def _folding(distance: float) -> float:
    """How much higher folding makes a Gaussian at its own centre, `distance` from the fold: 1 far away, 2 on it."""
    return 1 + math.exp(-2 * (distance / WIDTH) ** 2)


def _compose(four: tuple[_Diagram, ...]) -> Figure:
    with style(8):
        figure = new_figure((7.0, 3.9))
        axes = figure.subplots(2, 2, sharex=True)
        for letter, diagram, ax in zip("abcd", four, axes.flat, strict=True):
            _draw(ax, diagram, f"({letter}) {diagram.title}")
        for ax in axes[0]:
            ax.set_xlabel("")
        handles: list[Patch | Line2D] = [
            Patch(facecolor=_PEAK, alpha=0.35, label="feature"),
            Line2D([], [], color=_BOUNDARY, linestyle="--", label="decision boundary"),
        ]
        if any(diagram.displacement for diagram in four):
            handles.append(Line2D([], [], color=_FORMER, linestyle=":", label="boundary before the edit"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        return settle(figure)


def _draw(ax: Axes, diagram: _Diagram, title: str) -> None:
    former = BOUNDARY[diagram.unit]
    boundary = former + diagram.displacement
    ax.set_title(title)
    ax.set(xlim=(-4, 6), ylim=(0, 0.35), xticks=range(-3, 6), yticks=[], xlabel="Projection on the weight vector")
    ax.spines["left"].set_visible(False)
    x = np.linspace(-4, 6, 1001)
    for feature in features(diagram.activation, boundary):
        y = profile(diagram.activation, feature, boundary, x)
        ax.fill_between(x, y, where=y > 1e-4, color=_PEAK, alpha=0.3, linewidth=0)
        ax.plot(x, np.where(y > 1e-4, y, np.nan), color=_PEAK)
        # A letter above a peak on either line would be struck through by it.
        beside = min(abs(feature.position - boundary), abs(feature.position - former)) < WIDTH
        ax.annotate(
            feature.name,
            (feature.position, feature.height),
            xytext=(4 if beside else 0, 2),
            textcoords="offset points",
            ha="left" if beside else "center",
            va="bottom",
            fontstyle="italic",
        )
    ax.axvline(boundary, color=_BOUNDARY, linestyle="--")
    if diagram.displacement:
        ax.axvline(former, color=_FORMER, linestyle=":", zorder=1)
        arrow = {"arrowstyle": "->", "color": _BOUNDARY, "shrinkB": 0}
        ax.annotate("", (boundary, 0.33), xytext=(former, 0.33), arrowprops=arrow)
    if diagram.activation != "identity":
        names = ", ".join(selected(diagram.activation, boundary)) or "none"
        ax.text(6, 0.345, f"activation zero: {names}", ha="right", va="top", fontsize="small")
