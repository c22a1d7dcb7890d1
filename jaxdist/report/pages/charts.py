"""Interactive charts from data frames: Figure 1, tolerance radii, training. Fractions come in, percent are drawn.

A trace says in its `meta` which network, family and split it is of, by number, so that the page can switch it off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from jaxdist.analysis import tables
from jaxdist.formatting import MISSING, shortened
from jaxdist.perturbations import PAPER, Traits
from jaxdist.report import dose_figures, figures
from jaxdist.report.markdown import radius_of
from jaxdist.report.pages.parts import Chart, Choice, LegendEntry, literal

COLOURS = ("#e0503f", "#3f86d6", "#17a077", "#c9820a", "#b5679f", "#8a8a8a")
"""Of networks, in this order but for abs and relu: at least 3 to 1 against white and against near black."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MOST_STEPS = 300
"""Training steps that a curve shows."""
_SCREEN = {"small": COLOURS[0], "large": COLOURS[1], "moved": COLOURS[2], "other": COLOURS[4]}
"""Of lines against dose, by what an edit does; grey is for others."""
_FIXED = {"relu": COLOURS[0], "abs": COLOURS[1]}
_FIRST = {name: {"-": "solid", "--": "dash"}[dash] for name, dash in figures.DASHES.items()}


class Choices(NamedTuple):
    """Everything that charts distinguish, in the order of the page's switches; networks by their label on the page."""

    networks: Mapping[str, str]  # label -> colour
    families: Mapping[str, str]  # name -> dash
    splits: Sequence[str]
    edits: Mapping[str, Traits]

    def meta(self, network: str, family: str | None = None, split: str | None = None) -> dict[str, int]:
        """What a trace is of; what it is not about is left out."""
        indices = {"network": list(self.networks).index(network)}
        if family is not None:
            indices["family"] = list(self.families).index(family)
        if split is not None:
            indices["split"] = list(self.splits).index(split)
        return indices

    def all(self) -> list[Choice]:
        """The switches: of several splits the first is shown."""
        networks = [Choice("network", k, label, colour) for k, (label, colour) in enumerate(self.networks.items())]
        edits = [
            Choice("family", k, self.edits[name].words, dash=dash)
            for k, (name, dash) in enumerate(self.families.items())
        ]
        splits = [Choice("split", k, f"{name} images", on=k == 0) for k, name in enumerate(self.splits)]
        return [*networks, *edits, *(splits if len(splits) > 1 else [])]


def choices(points: pd.DataFrame, labels: Sequence[str], edits: Mapping[str, Traits]) -> Choices:
    """What a frame of points has, and all networks; the training images first, which the paper's figure shows.

    `edits` are the families by name.
    """
    free = cycle(colour for colour in COLOURS if len(labels) > 2 or colour not in _FIXED.values())
    fixed = set(labels) <= set(_FIXED)
    colours = {label: _FIXED[label] if fixed else next(free) for label in labels}
    if points.empty:
        return Choices(colours, {}, (), edits)
    names = [name for name in edits if name in set(points.family)]
    rest = cycle(DASHES)
    dashes = {name: _FIRST.get(name) or next(rest) for name in names}
    main = tables.main_split(points)
    return Choices(colours, dashes, [main, *(s for s in points.split.unique() if s != main)], edits)


def figure1(points: pd.DataFrame, known: Choices) -> Iterator[Chart]:
    """The two panels of the paper's Figure 1, of one site."""
    for panel in (figures.INTENSITY, figures.DISTANCE):
        part = points[points.family.isin(panel.families)]
        if not part.empty:
            chart = _edited(part, known, panel.title, panel.xlabel)
            chart.figure.update_xaxes(range=panel.limits)
            yield chart


def controls(points: pd.DataFrame, known: Choices) -> Iterator[Chart]:
    """A chart for each of the other families, of one site."""
    for (family,), part in _parts(points[~points.family.isin(PAPER)], "family"):
        chart = _edited(part, known, known.edits[family].words.capitalize(), "")
        chart.figure.update_layout(height=230, margin={"b": 30})
        ends = 100 * np.clip([part.fraction.min(), part.fraction.max()], -2, 3)  # some go on where nothing happens
        chart.figure.update_xaxes(ticksuffix=" %", nticks=5, tickangle=0, range=ends)
        yield chart


def _edited(points: pd.DataFrame, switches: Choices, title: str, xlabel: str) -> Chart:
    figure = _empty(xlabel.replace(" or ", "<br>or "), "Accuracy (%)")
    for (label, family, split), part in _parts(points, "label", "family", "split"):
        meta = switches.meta(label, family, split)
        name = f"{label}, {switches.edits[family].words}, {split} images"
        values = 100 * part[["accuracy", "low", "high"]].clip(0, 1)  # t intervals of few seeds may reach further
        _curve(
            figure, 100 * part.fraction, values, name, "%", meta, switches.networks[label], switches.families[family]
        )
    of, by = _listed(points.label), _listed(switches.edits[family].words for family in points.family.unique())
    return Chart(title, f"Accuracy of {of} against the fraction of the edit: {by}.", figure)


def training(frames: Mapping[str, pd.DataFrame], known: Choices) -> Iterator[Chart]:
    """Loss and accuracy along training: mean over seeds, band from the least to the most; frames by network's label.

    Columns are step, quantity, mean, low, high.
    """
    for quantity, title, unit in (
        ("loss", "Loss", ""),
        ("train_accuracy", "Training accuracy", "%"),
        ("test_accuracy", "Test accuracy", "%"),
    ):
        figure = _empty("Step", f"{title} ({unit})" if unit else f"{title} (nats)")
        for label, frame in frames.items():
            part = frame[frame.quantity == quantity]
            values = part[["mean", "low", "high"]] * (100 if unit else 1)
            _curve(figure, part.step, values, label, unit, known.meta(label), known.networks[label], "solid")
        if not unit:
            figure.update_yaxes(type="log")
        yield Chart(title, f"{title} against training step for {_listed(frames)}.", figure)


def radii(reach: pd.DataFrame, known: Choices, family: str, side: str) -> Chart:
    """Tolerance radii of one side of a family, a row a network and site, with their intervals.

    Args:
      reach: rows of `tables.tolerance` of this family and side, with the networks' labels as a column `label`.
      known: the page's networks, families and splits.
      family: its name.
      side: below or above.
    """
    figure = _empty("", "")
    several = reach.site.nunique() > 1
    for (label, split), part in _parts(reach, "label", "split"):
        end = 100 * part.grid_end.to_numpy()
        median, low, high = (100 * part[name].to_numpy() for name in ("median", "low", "high"))
        censored = np.isinf(median)
        at = np.where(censored, end, median)
        beyond = f"triangle-{'left' if side == 'below' else 'right'}"
        figure.add_scatter(
            x=at,
            y=[literal(site if several else label) for site in part.site],
            mode="markers",
            name=literal(label),
            marker={"color": known.networks[label], "size": 10, "symbol": np.where(censored, beyond, "circle")},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": np.nan_to_num(np.where(np.isinf(high), end, high) - at),
                "arrayminus": np.nan_to_num(at - np.where(np.isinf(low), end, low)),
            },
            customdata=[[radius.middle, radius.ends or MISSING] for radius in map(radius_of, part.itertuples())],
            hovertemplate=f"{literal(label)}, {split} images<br>%{{y}}: %{{customdata[0]}}"
            "<br>interval %{customdata[1]}<extra></extra>",
            meta=known.meta(label, family, split),
            visible=split == known.splits[0],
        )
    count = reach.split.value_counts().max()
    figure.update_layout(height=60 + 26 * int(count), margin={"l": 10, "t": 6, "b": 30})
    figure.update_xaxes(rangemode="tozero", ticksuffix=" %", nticks=5, tickangle=0)
    rows = list(dict.fromkeys(reach.site if several else reach.label))
    ticks = {"tickvals": list(map(literal, rows)), "ticktext": [literal(shortened(row, 24)) for row in rows]}
    figure.update_yaxes(type="category", automargin=True, autorange="reversed", showgrid=False, **ticks)
    of_split = reach[reach.split == known.splits[0]]
    said = "; ".join(f"{row.label} {radius_of(row).middle}" for row in of_split.itertuples())
    edit = known.edits[family].outward(side)
    return Chart(edit.capitalize(), f"{edit}: {said}.", figure)


def doses(panel: dose_figures.DosePanel, label: str, known: Choices, margin: float, resolution: float) -> Chart:
    """Flips, logarithmic, against angular dose, of one network: every family and side.

    Args:
      panel: the network's curves.
      label: the network's on the page.
      known: the page's networks and families.
      margin: flips that matter, a fraction; a line stands there.
      resolution: the least share of flips there is, one image in all.
    """
    figure = _empty("Angular dose", "Predictions changed (%)")
    for curve in panel.curves:
        # Drawn over the dose's root, which gives small doses room; a family without a dose stands at 0.
        name = curve.traits.outward(curve.side)
        ends = pd.DataFrame({"flips": curve.flips, "low": curve.low, "high": curve.high})
        meta = {"network": list(known.networks).index(label), "family": list(known.families).index(curve.family)}
        _curve(
            figure,
            pd.Series(np.sqrt(curve.dose)),
            100 * ends.where(ends >= resolution),
            name,
            "%",
            meta,
            _SCREEN.get(curve.traits.effect, COLOURS[5]),
            _dash(curve.traits),
            place=pd.Series(curve.dose),
        )
    ticks = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1]
    figure.update_xaxes(
        tickvals=np.sqrt(ticks), ticktext=[f"{tick:g}" for tick in ticks], range=[-0.02, 1.02], tickangle=0
    )
    figure.update_yaxes(type="log", dtick=1)
    figure.update_layout(height=440)
    figure.add_hline(y=100 * margin, line={"dash": "dot", "width": 1, "color": "#8a8a8a"})
    alt = f"Changed predictions against angular dose for {label}: {_listed(c.family for c in panel.curves)}."
    edits = dict.fromkeys(curve.traits for curve in panel.curves)
    key = [
        LegendEntry(dose_figures.line(edit).label, _SCREEN.get(edit.effect, COLOURS[5]), _dash(edit)) for edit in edits
    ]
    return Chart(f"{label}: what changes predictions at equal dose", alt, figure, key)


def _dash(of: Traits) -> str:
    """The dash of a family's line against dose."""
    dash = dose_figures.line(of).dash
    return "solid" if dash == "-" else ",".join(f"{2 * length:g}px" for length in dash[1])


def _curve(
    figure: go.Figure,
    x: pd.Series,
    values: pd.DataFrame,
    name: str,
    unit: str,
    meta: Mapping[str, int],
    colour: str,
    dash: str,
    *,
    place: pd.Series | None = None,
) -> None:
    """A line with its band: columns of `values` are the middle, the lower and the upper end.

    `place` is said of a point where it is not its x.
    """
    hidden = meta.get("split", 0) != 0
    at, (middle, low, high) = _plain(x), (_plain(values[column]) for column in values)
    banded = ~(np.isnan(low) | np.isnan(high))
    if banded.any():
        around = np.concatenate([at[banded], at[banded][::-1]]), np.concatenate([high[banded], low[banded][::-1]])
        figure.add_scatter(
            x=around[0],
            y=around[1],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=colour,
            opacity=0.18,
            hoverinfo="skip",
            meta=dict(meta),
            visible=not hidden,
        )
    unit = f" {unit}" if unit else ""
    where = "at %{x:.4g} %" if "family" in meta else "step %{x}"
    said = f"{where if place is None else 'at dose %{customdata[2]:.3g}'}: <b>%{{y:.4g}}{unit}</b>"
    if banded.any():
        said += f"<br>from %{{customdata[0]:.4g}}{unit} to %{{customdata[1]:.4g}}{unit}"
    figure.add_scatter(
        x=at,
        y=middle,
        mode="lines" if len(at) > 1 else "markers",
        name=literal(name),
        line={"color": colour, "dash": dash, "width": 2},
        customdata=np.column_stack([low, high, at if place is None else _plain(place)]),
        hovertemplate=f"{literal(name)}<br>{said}<extra></extra>",
        meta=dict(meta),
        visible=not hidden,
    )


def _plain(values: pd.Series) -> npt.NDArray[np.float32]:
    """Numbers with no more digits than a screen shows, so that the page stays small."""
    return values.to_numpy(np.float32)


def _empty(xlabel: str, ylabel: str) -> go.Figure:
    axis: dict[str, Any] = {"showline": True, "ticks": "outside", "zeroline": False, "automargin": True}
    return go.Figure(
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "height": 360,
            "margin": {"l": 56, "r": 12, "t": 28, "b": 48},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": COLOURS[5], "activecolor": COLOURS[1]},
            "showlegend": False,
            "hovermode": "closest",
            "dragmode": False,
            "xaxis": {**axis, "title": {"text": xlabel}},
            "yaxis": {**axis, "title": {"text": ylabel}},
        }
    )


def _parts(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The parts of a frame that agree in some columns, in the order in which they come."""
    for names, part in frame.groupby(list(columns), sort=False):
        yield tuple(map(str, names)), part


def _listed(names: Any) -> str:
    return ", ".join(dict.fromkeys(map(str, names)))


def some(count: int) -> npt.NDArray[np.int_]:
    """Positions of at most `MOST_STEPS` steps of `count`: the first, the last, others evenly in the logarithm."""
    return np.unique(np.geomspace(1, count, min(count, MOST_STEPS)).round().astype(int) - 1)
