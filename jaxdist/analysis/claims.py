"""What the paper says of its networks, sentence by sentence: its own tables, a run's numbers, and the test that fits.

Source: arXiv:2411.17932, abstract, Results and Discussion. That accuracy is kept is tested against a margin
(non-inferiority), since a test that finds no difference is no evidence that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist.analysis import dose_tables, dosed, equivalence, paper_cells, statistics, tables
from jaxdist.analysis.series import Series
from jaxdist.config import StatisticsConfig
from jaxdist.formatting import counted, interval, p_value, percent, radius
from jaxdist.formatting import fraction as written
from jaxdist.storage import published
from jaxdist.types import Flags, Values

Verdict = Literal[
    "holds",
    "holds of accuracy, not of predictions",
    "holds of accuracy, not shown of predictions",
    "does not hold",
    "not shown",
    "contradicted by its own table",
    "not comparable",
]

FULL = 0.99
"""Accuracy below which the paper says that Abs networks fall."""

SMALL = 0.05
"""Offsets up to this are small ones."""

ASYMMETRIC = (0.02, 0.05, 0.1, 0.25)
"""Offsets of which both signs are in the paper's table and are not yet lost."""

INSIGNIFICANT = 0.05
"""p above which the paper takes a difference for none."""


INTENSITY = ("scale", "clip")
"""Families of which the paper says that differences are not significant."""


class Claim(NamedTuple):
    """A sentence of the paper of one activation's networks, and what becomes of it."""

    claim: str
    network: str
    paper: str
    """What its own tables print."""
    measured: str
    """What the run's networks do, with the test."""
    verdict: Verdict


Swept = Mapping[tuple[str, str], Series]
"""Series by family and network."""


class Kept(NamedTuple):
    """Edits of a family from one fraction to another, of which the paper says that accuracy stays what it was."""

    family: str
    networks: tuple[str, ...]
    words: str
    low: float
    high: float


KEPT = (
    Kept("scale", ("relu", "abs"), "keep their accuracy from 10 to 200 % of scale", 0.1, 2.0),
    # A clip of the whole range or more is no edit.
    Kept("clip", ("relu", "abs"), "keep their accuracy when clipped at 50 % or more", 0.5, 1.0),
    Kept("offset", ("relu",), "keep their accuracy at offsets from -3 to +2 %", -0.03, 0.02),
)


def judge(result: xr.DataTree, options: StatisticsConfig) -> list[Claim]:
    """Every claim of which the run has two or more networks, in the order of the paper.

    Args:
      result: of families scale, clip and offset at the paper's site, on the training images.
      options: margins and confidence; ``margin`` is the drop that matters, ``flips`` the share of predictions.
    """
    # Networks at chance, shown as controls where all are, have no accuracy that could be kept or lost.
    series = {
        key: swept
        for key, swept in paper_cells.swept(result).items()
        if len(swept.seeds) > 1 and not swept.at_chance.any()
    }
    networks = list(dict.fromkeys(network for _, network in series))
    rhos = list(dose_tables.compare(result, options).rhos) if dosed.has_doses(result) else []
    claims = [
        _kept(series[kept.family, network], kept, options)
        for kept in KEPT
        for network in kept.networks
        if (kept.family, network) in series
    ]
    claims += [
        _insignificant(series, network, options)
        for network in networks
        if {(family, network) for family in INTENSITY} <= set(series)
    ]
    relu, absolute = (series.get(("offset", network)) for network in ("relu", "abs"))
    if absolute is not None:
        claims.append(_falls(absolute, options))
    if relu is not None and absolute is not None:
        claims.append(_more_sensitive(relu, absolute, options))
    if relu is not None:
        claims.append(_asymmetric(relu, options))
    return claims + [
        _sensitive(series, network, rhos, options)
        for network in networks
        if {("offset", network), ("clip", network)} <= set(series)
    ]


def _within(series: Series, low: float, high: float) -> Flags:
    """The points of a range [P], its ends taken as the paper's tables take them, but for that without an edit."""
    start, end = (tables.nearest(series.fraction, end) for end in (low, high))
    points = np.arange(len(series.fraction))
    inside: Flags = (points >= start) & (points <= end) & (series.fraction != series.identity)
    return inside


def _printed(series: Series) -> dict[float, published.Cell]:
    """The published rows of a network and family, by the fraction that they name."""
    return {cell.row: cell for cell in paper_cells.printed(series)}


def _printed_within(series: Series, low: float, high: float) -> list[published.Cell]:
    """Those of a range, but for that of no edit."""
    return [cell for row, cell in _printed(series).items() if low <= row <= high and row != series.identity]


def _drop(series: Series, cell: published.Cell) -> float:
    """What the paper's networks lose in a row."""
    return _printed(series)[float(series.identity or 0)].accuracy - cell.accuracy


def _kept(series: Series, kept: Kept, options: StatisticsConfig) -> Claim:
    at = _within(series, kept.low, kept.high)
    drops = tables.corrected_of(series, options)
    most = max(_drop(series, cell) for cell in _printed_within(series, kept.low, kept.high))
    stays, bound = bool(drops.noninferior[at].all()), float(drops.smallest_margin[at].max())
    shown = "" if np.isnan(bound) else f", shown to be below {percent(_up(bound))}"
    measured = f"most lost {percent(float(drops.drop[at].max()))} points{shown}"
    verdict: Verdict = "holds" if stays else "not shown"
    if stays and series.flips is not None:
        flips = series.flips[:, at]
        changed = statistics.upper_bound(flips, options.confidence, exact=(flips == 0).all(axis=0))
        measured += f"; up to {percent(float(flips.mean(axis=0).max()))} % of predictions change"
        if not (changed < options.flips).all():
            more = (_of_many(flips, options).low > options.flips).any()
            verdict = "holds of accuracy, not of predictions" if more else "holds of accuracy, not shown of predictions"
    elif not stays and (_of_many(series.drop[:, at], options).low > options.margin).any():
        verdict = "does not hold"
    return Claim(kept.words, series.network, f"most lost {percent(most)} points", measured, verdict)


def _of_each(values: Values, options: StatisticsConfig) -> statistics.Interval:
    """Intervals of means of values[S, P], each by itself."""
    return statistics.mean_interval(values, options.confidence)


def _of_many(values: Values, options: StatisticsConfig) -> statistics.Interval:
    """Intervals of means of values[S, P] that hold of all P together (Bonferroni): some point of many is shown."""
    return statistics.mean_interval(values, 1 - (1 - options.confidence) / values.shape[1])


def _up(bound: float) -> float:
    """A bound as it is printed, not below itself."""
    return float(np.ceil(1e4 * bound - 1e-9) / 1e4)


def _insignificant(series: Swept, network: str, options: StatisticsConfig) -> Claim:
    p: list[float] = []
    against_no_edit: list[float] = []
    for kept in KEPT:
        if kept.family in INTENSITY:
            swept = series[kept.family, network]
            p += [cell.p for cell in _printed_within(swept, kept.low, kept.high)]
            against_no_edit += tables.corrected_of(swept, options).p[_within(swept, kept.low, kept.high)].tolist()
    tested = [value for value in against_no_edit if not np.isnan(value)]
    measured = (
        f"p > {INSIGNIFICANT} at {sum(value > INSIGNIFICANT for value in tested)} of {counted(len(tested), 'point')} "
        f"against no edit, smallest {p_value(min(tested))}, none corrected"
    )
    above = sum(value > INSIGNIFICANT for value in p)
    return Claim(
        f"change there by nothing significant (p > {INSIGNIFICANT})",
        network,
        f"p > {INSIGNIFICANT} in {above} of {counted(len(p), 'row')}, smallest {p_value(min(p))}",
        measured if tested else "no test",
        "contradicted by its own table" if above < len(p) else "holds",
    )


def _falls(series: Series, options: StatisticsConfig) -> Claim:
    ends = (-0.02, -0.01, 0.01, 0.02)
    points = [tables.nearest(series.fraction, end) for end in ends]
    accuracy, many = (of(series.accuracy[:, points], options) for of in (_of_each, _of_many))
    inner, outer = [1, 2], [0, 3]
    holds = (accuracy.low[inner] > FULL).all() and (accuracy.high[outer] < FULL).all()
    broken = (many.high[inner] < FULL).any() or (many.low[outer] > FULL).any()
    printed = _printed(series)
    ours = (
        f"{interval((mean, low, high))} at {written(end)}"
        for end, mean, low, high in zip(ends, accuracy.mean, accuracy.low, accuracy.high, strict=True)
    )
    return Claim(
        f"fall below {percent(FULL, 0)} % outside of offsets from -1 to +1 %",
        series.network,
        ", ".join(f"{percent(printed[end].accuracy)} at {written(end)}" for end in ends),
        ", ".join(ours),
        _verdict(bool(holds), bool(broken)),
    )


def _verdict(holds: bool, broken: bool) -> Verdict:
    return "holds" if holds else "does not hold" if broken else "not shown"


def _more_sensitive(relu: Series, absolute: Series, options: StatisticsConfig) -> Claim:
    small = (relu.fraction != relu.identity) & (np.abs(relu.fraction) <= SMALL + 1e-9)
    more = equivalence.welch(
        relu.drop[:, small], absolute.drop[:, small], margin=options.margin, confidence=options.confidence
    )
    rows = [cell.row for cell in _printed_within(relu, -SMALL, SMALL)]
    paper = [_drop(absolute, _printed(absolute)[row]) - _drop(relu, _printed(relu)[row]) for row in rows]
    shown = int((more.low > 0).sum())
    less = more.p[more.difference < 0] < (1 - options.confidence) / small.sum()
    return Claim(
        "lose more than ReLU networks at small offsets, in fractions of the range",
        absolute.network,
        f"{percent(min(paper))} to {percent(max(paper))} points more at {counted(len(rows), 'row')} up to 5 %",
        f"{percent(float(more.difference.min()))} to {percent(float(more.difference.max()))} points more, shown at "
        f"{shown} of {counted(int(small.sum()), 'point')} up to 5 %",
        _verdict(shown == small.sum(), bool(less.any())),
    )


def _asymmetric(series: Series, options: StatisticsConfig) -> Claim:
    """Figure 3: a boundary that moves down takes features away from ReLU units, one that moves up does not."""
    up, down = ([tables.nearest(series.fraction, sign * row) for row in ASYMMETRIC] for sign in (1, -1))
    differences = series.drop[:, up] - series.drop[:, down]
    extra, many = _of_each(differences, options), _of_many(differences, options)
    printed = _printed(series)
    ends = ", ".join(written(row) for row in ASYMMETRIC)
    paper = ", ".join(percent(printed[-row].accuracy - printed[row].accuracy) for row in ASYMMETRIC)
    ours = ", ".join(interval(end) for end in zip(extra.mean, extra.low, extra.high, strict=True))
    return Claim(
        "lose more by positive offsets, where the boundary moves down, than by negative ones (Figure 3)",
        series.network,
        f"points more at {ends}: {paper}",
        f"points more: {ours}",
        _verdict(bool((extra.low > 0).all()), bool((many.high < 0).any())),
    )


def _sensitive(series: Swept, network: str, rhos: Sequence[dose_tables.Rho], options: StatisticsConfig) -> Claim:
    """Fractions of unlike edits; only an equal dose compares them."""
    radii = pd.DataFrame(row for family in ("offset", "clip") for row in tables.radii(series[family, network], options))
    reached = ", ".join(
        f"{row['family']} {radius(row['median'], row['grid_end'], row['side'])}" for row in radii.to_dict("records")
    )
    ratios = ", ".join(
        f"{'at least ' if rho.ratio.censored else ''}{rho.ratio.at_least:.2f} ({rho.side}, {percent(rho.level, 0)} %)"
        for rho in rhos
        if (rho.network, rho.against, rho.gauge, rho.site, rho.split)
        == (network, "", "as_is", paper_cells.SITE, "test")
        and not np.isnan(rho.ratio.at_least)
    )
    at_dose = f"; the clip's dose over the offset's where as many predictions change: {ratios}" if ratios else ""
    return Claim(
        "are highly sensitive to small distance edits and robust to large intensity edits",
        network,
        "offsets of 2 to 5 % of the range beside clips to half of it",
        f"{counted(f'{100 * options.margin:g}', 'point')} lost at {reached}{at_dose}",
        "not comparable",
    )
