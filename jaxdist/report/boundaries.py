"""Where units' boundaries lie, as tables and as a figure: `analysis.geometry` of a run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxdist import files
from jaxdist.analysis import geometry
from jaxdist.formatting import interval, number, percent
from jaxdist.report import figures, table
from jaxdist.report.figures import Look, looks, new_figure, settle, style
from jaxdist.report.table import Column, Table
from jaxdist.storage import manifests, places
from jaxdist.types import Values

BOUNDARY = "#c00000"
BEFORE = "0.55"


class Example(NamedTuple):
    """A unit as most are, with the densities of its values."""

    network: str
    site: str
    unit: int
    cluster: int
    """The class nearest to its boundary."""
    sd: float
    """Of its values."""
    densities: dict[int, tuple[Values, Values]]
    """By class: places, and density times the class's share."""

    @classmethod
    def of(cls, network: str, site: str, units: geometry.Geometry, values: Values, labels: Values) -> Example | None:
        """The unit nearest to the medians of all, or None where all are constant.

        Args:
          network, site: what it is a unit of.
          units: what describes all of that site.
          values: preactivations [H, N].
          labels: classes [N].
        """
        described = np.stack([units.above, units.offset])
        if np.isnan(described).all(axis=1).any():
            return None
        spread = np.nanstd(described, axis=1, keepdims=True)
        away = np.abs(described - np.nanmedian(described, axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
        unit = int(np.nanargmin(away.sum(axis=0)))
        drawn = {}
        for label in np.unique(labels):
            of_class = values[unit, labels == label]
            at, height = geometry.density(of_class)
            drawn[int(label)] = at, height * len(of_class) / len(labels)
        return cls(network, site, unit, int(units.cluster[unit]), float(values[unit].std()), drawn)


def tabled(summary: pd.DataFrame) -> list[Table]:
    """A table for each network and site."""

    def ends(name: str) -> Column:
        def take(r: Any) -> str:
            three = (getattr(r, name), getattr(r, f"{name}_low"), getattr(r, f"{name}_high"))
            return interval(three, percent if r.quantity == "above" else functools.partial(number, digits=2))

        return Column(_HEADINGS[name], take=take)

    return [
        table.of_rows(
            f"{network}, {site}: medians over units",
            part.itertuples(),
            [Column("", take=lambda r: _unit(r.quantity)), *map(ends, _HEADINGS)],
        )
        for (network, site), part in summary.groupby(["network", "site"], sort=False)
    ]


_HEADINGS = {"trained": "trained", "before": "before training", "learned": "difference"}


def _unit(quantity: str) -> str:
    words = geometry.QUANTITIES[quantity]
    return f"{words}, %" if quantity == "above" else words


def write(units: pd.DataFrame, summary: pd.DataFrame, examples: Sequence[Example | None], folder: Path) -> None:
    """Write ``geometry/units.csv``, ``geometry/geometry.md`` and the figure ``geometry/geometry`` into a run folder.

    Args:
      units, summary: as `geometry.frame` and `geometry.summary` have them.
      examples: a unit of each network and site.
      folder: the run folder.
    """
    with manifests.recording(folder):
        files.write_text(folder / places.GEOMETRY / "units.csv", units.to_csv(index=False))
        files.write_text(folder / places.GEOMETRY / "geometry.md", document(summary))
        there = [example for example in examples if example is not None]
        if there:
            figures.save(figure(units, there), folder / places.GEOMETRY, "geometry")


def document(summary: pd.DataFrame) -> str:
    """The summary in Markdown."""
    return table.markdown(
        "# Where boundaries lie",
        "A unit's boundary is where its preactivation is 0, on the training images. Each number is the mean over seeds "
        "of the median over units, with its interval; the difference is of the same seed trained and before. One of "
        "several class means is always the nearest, so what is before training says how near chance brings it.",
        *tabled(summary),
    )


def figure(units: pd.DataFrame, examples: Sequence[Example]) -> Figure:
    """A row a network and site: a typical unit by class, and all units' boundaries among examples and classes."""
    look = looks(list(units.network.unique()))
    with style(9):
        drawn = new_figure((10.0, 0.7 + 2.3 * len(examples)))
        rows = drawn.subplots(len(examples), 3, squeeze=False)
        for axes, example in zip(rows, examples, strict=True):
            part = units[(units.network == example.network) & (units.site == example.site)]
            name = look[example.network]
            place = f", {example.site}" if units.site.nunique() > 1 else ""
            _typical(axes[0], example, name, place)
            _shares(axes[1], 100 * part.above, part.when, name, np.linspace(0, 100, 41))
            axes[1].set(xlabel="Images above the boundary (%)", ylabel="Units (%)")
            axes[1].set_title(f"{name.label}{place}: all units")
            _shares(axes[2], part.offset, part.when, name, np.linspace(-3, 3, 49))
            axes[2].axvline(0, color=BOUNDARY, linestyle="--", linewidth=1)
            axes[2].set(xlabel="Boundary − nearest class mean (its SD)", ylabel="Units (%)")
            axes[2].set_title(f"{name.label}{place}: all units")
        filled: Any = {"linewidth": 4, "alpha": 0.6}
        handles = [
            *(Line2D([], [], color=each.colour, label=f"{each.label}, trained", **filled) for each in look.values()),
            Line2D([], [], color=BEFORE, label="before training"),
            Line2D([], [], color=BOUNDARY, linestyle="--", label="boundary, or the class mean"),
        ]
        drawn.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        return settle(drawn)


def _typical(axes: Axes, example: Example, look: Look, place: str) -> None:
    for label, (at, height) in example.densities.items():
        x, y = at / example.sd, height * example.sd
        if label == example.cluster:
            axes.fill_between(x, y, color=look.colour, alpha=0.25, linewidth=0)
            axes.plot(x, y, color=look.colour, linewidth=1.6, zorder=3)
        else:
            axes.plot(x, y, color="0.7", linewidth=0.7)
    axes.axvline(0, color=BOUNDARY, linestyle="--", linewidth=1.2, zorder=4)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.set_title(f"{look.label}{place}: unit {example.unit} by class, nearest {example.cluster}")
    axes.set(xlabel="Preactivation (SD)", ylabel="Density")


def _shares(axes: Axes, values: pd.Series, when: pd.Series, look: Look, bins: Values) -> None:
    """What share of units lies in each bin, the ends with what is beyond: trained as bars, before as a line."""
    looks_like: dict[str, dict[str, Any]] = {
        "trained": {"color": look.colour, "alpha": 0.6, "histtype": "stepfilled"},
        "before": {"color": BEFORE, "histtype": "step"},
    }
    for state, like in looks_like.items():
        part = values[(when == state) & values.notna()].to_numpy().clip(bins[0], bins[-1])
        if len(part):
            axes.hist(part, bins.tolist(), weights=np.full(len(part), 100 / len(part)), **like)
