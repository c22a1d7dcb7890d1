"""The series that two sides have in common, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxdist.analysis import Series, statistics
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.report.compare.sides import SeriesKey, Side

Pairs = dict[SeriesKey, tuple[Series, Series]]
"""The series that both sides have, of the same seeds where they share them."""


class ComparisonVerdict(NamedTuple):
    """What was found of one family, network and split, or of all published cells."""

    what: str
    verdict: str
    """agree, differ, not shown, or cannot judge."""
    words: str


def match(a: Side, b: Side) -> tuple[Pairs, list[str]]:
    """The series that both sides have, and what only one has, in words."""
    first, second = a.series(), b.series()
    pairs = {key: (series, second[key]) for key, series in first.items() if key in second}
    if not pairs:
        raise InputError(
            f"{a.name} and {b.name} have no combination of family, network, site and split in common; "
            f"one has {_words(first)}, the other {_words(second)}"
        )
    unlike: dict[str, int] = {}
    for key, (series, other) in pairs.items():
        apart = np.abs(series.fraction[:, None] - other.fraction) > 1e-9 * np.abs(other.fraction)
        mine, theirs = np.nonzero(~apart)
        # Of two grids one may be coarser, as that of another version.
        if len(mine) < min(len(series.fraction), len(other.fraction)):
            raise InputError(
                f"{' '.join(key)}: {a.name} and {b.name} have different grids; sweep both at the same points"
            )
        if len(series.fraction) != len(other.fraction):
            unlike[key[0]] = len(mine)
            pairs[key] = series.at(mine), other.at(theirs)
    notes = [
        f"{family}: unlike grids, compared at the {counted(count, 'point')} of both" for family, count in unlike.items()
    ]
    notes += [
        f"only in {side.name}: {_words(only)}"
        for side, only in ((a, first.keys() - pairs), (b, second.keys() - pairs))
        if only
    ]
    return pairs, notes


def _words(keys: Iterable[SeriesKey]) -> str:
    return ", ".join(sorted({" ".join((network, split)) + f" ({family})" for family, network, _, split in keys}))


def by_series(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The points of each series with its name: family, network, split, and the site where there are several."""
    many = points.site.nunique() > 1
    for (family, network, site, split), part in points.groupby(["family", "network", "site", "split"], sort=False):
        yield " ".join([str(family), str(network), *([str(site)] if many else []), str(split)]), part


def curves(series: Iterable[Series], confidence: float) -> pd.DataFrame:
    """Mean accuracy `a` over the seeds at every point, with its interval `low` to `high`, fractions."""
    frames = []
    for curve in series:
        mean, low, high, _ = statistics.mean_interval(curve.accuracy, confidence)
        frames.append(pd.DataFrame({**curve.labels, "fraction": curve.fraction, "a": mean, "low": low, "high": high}))
    return pd.concat(frames, ignore_index=True)
