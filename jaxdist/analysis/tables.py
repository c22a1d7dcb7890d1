"""Tables of a result: each family's points with both kinds of statistics, tolerance radii, training.

Data frames hold fractions, for machines; the Markdown made from them holds percentages, for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist import formatting
from jaxdist.analysis import one_network, preference, statistics
from jaxdist.analysis.series import Series, every_series
from jaxdist.config import StatisticsConfig
from jaxdist.storage import published
from jaxdist.sweep import crossings, fitness
from jaxdist.types import Values

Side = Literal["below", "above"]

Outcome = Literal["accuracy", "flips"]
"""What is lost: accuracy, or predictions that stay as they were."""


def points(result: xr.DataTree, options: StatisticsConfig) -> pd.DataFrame:
    """One row a series and point: accuracy with its interval, the published analysis, the corrected one.

    Statistics are over the seeds or, as the column `over` says, over the images of a single network. Seeds at chance
    count for `accuracy` and `agree`, but for no test or drop: `left_out` lists them, `judged` says how many are left,
    and `tested_over` what these are over.
    Empty where no family was swept.
    """
    frames = []
    for series in every_series(result):
        judged, published = series.judged, _published(series, options)
        corrected = corrected_of(judged, options)
        low, high = published.low, published.high
        if series.images is not None:
            low, high = one_network.wilson(series.images.correct, series.total, options.confidence)
        columns = {
            "fraction": series.fraction,
            "unedited": series.fraction == series.identity,
            "seeds": len(series.accuracy),
            "judged": len(judged.seeds),
            "left_out": left_out(series),
            "accuracy": published.mean,
            "sd": published.sd,
            "low": low,
            "high": high,
            "agree": np.nan if series.agree is None else series.agree.mean(axis=0) / series.total,
            "flips_smallest_margin": _flips_margin(series, options),
            "published_t": published.t,
            "published_p": published.p,
            **{name: getattr(corrected, name) for name in corrected._fields if name not in ("mean", "low", "high")},
            "over": over(series),
            "tested_over": over(judged if len(judged.seeds) else series),
        }
        frames.append(pd.DataFrame({**series.labels, **columns}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def corrected_of(judged: Series, options: StatisticsConfig) -> statistics.Corrected:
    """Edited against unedited accuracy, over seeds, or over the images of a single one; undefined without any."""
    if not len(judged.seeds):
        undefined = np.full(len(judged.fraction), np.nan)
        return statistics.Corrected(*[undefined] * len(statistics.Corrected._fields))._replace(
            noninferior=np.zeros(len(undefined), bool)
        )
    if judged.images is None:
        return statistics.corrected(
            judged.accuracy, judged.unperturbed, margin=options.margin, confidence=options.confidence
        )
    return one_network.corrected(judged.images, margin=options.margin, confidence=options.confidence)


def left_out(one: Series) -> str:
    """The numbers of the seeds that have no radius and no verdict of accuracy, as text; empty if there are none."""
    return ", ".join(map(str, one.seeds[~np.isin(one.seeds, one.judged.seeds)]))


def over(one: Series) -> Literal["seeds", "images"]:
    """What the statistics of a series are over."""
    return "seeds" if one.images is None else "images"


def left_out_notes(frame: pd.DataFrame) -> list[str]:
    """Which seeds have no part in the radii or tests of a frame, a phrase for each network and split; often none."""
    notes = []
    name = "label" if "label" in frame else "network"  # on a page of several runs
    for (network, split, numbers), part in frame.groupby([name, "split", "left_out"], sort=False):
        if numbers:
            seeds = str(numbers).split(", ")
            left = int((part.judged if "judged" in part else part.seeds).max())
            words = fitness.seed_words(seeds).removesuffix(" are").removesuffix(" is")
            remaining = fitness.left_words(left, left + len(seeds))
            notes.append(f"{network}, {split} images: without {words}, at chance; {remaining}")
    return notes


def _flips_margin(series: Series, options: StatisticsConfig) -> Values | float:
    """The smallest margin [P] that flips are shown to be below: over seeds, or over the images of a single network."""
    if series.flips is None:
        return np.nan
    if series.flipped is None:
        return preference.flips_margin(series.flips, options.confidence)
    return one_network.corrected(series.flipped, margin=options.flips, confidence=options.confidence).smallest_margin


def _published(series: Series, options: StatisticsConfig) -> statistics.Published:
    """The published analysis; without tests where a grid of the user's own is too short for its baseline."""
    index, judged = options.published_baseline_index, series.judged
    mean, low, high, sd = statistics.mean_interval(series.accuracy, options.confidence)
    undefined = np.full(len(mean), np.nan)
    if index >= len(series.fraction) or not len(judged.seeds):
        return statistics.Published(mean, sd, low, high, t=undefined, p=undefined)
    tested = statistics.as_published(judged.accuracy, baseline_index=index, confidence=options.confidence)
    return tested._replace(mean=mean, sd=sd, low=low, high=high)


def tolerance(result: xr.DataTree, options: StatisticsConfig, outcome: Outcome = "accuracy") -> pd.DataFrame:
    """One row a series and side: the fraction at which `margin` of the outcome is lost, median and interval over seeds.

    Of accuracy the margin is `options.margin`, of predictions that stay as they were `options.flips`. Infinite values
    are censored: the outcome is kept to the end of the grid. The column `edit` says what the family does on that side.
    Of a single network the interval is over its images (`one_network.radius_interval`), as the column `over` says.
    Seeds at chance, which `left_out` lists, have no radius; where there are no others the median is NaN.
    """
    return pd.DataFrame([row for series in every_series(result) for row in radii(series, options, outcome)])


def radii(one: Series, options: StatisticsConfig, outcome: Outcome = "accuracy") -> Iterator[dict[str, object]]:
    """The rows of `tolerance` of one series, one a side.

    There are none where its family edits at every fraction, nor of flips that were not counted.
    """
    family, every = one.traits, one
    one = one.judged
    lost, images, margin = one.drop, one.images, options.margin
    if outcome == "flips":
        if one.flips is None:
            return
        lost, images, margin = one.flips, one.flipped, options.flips
    if one.identity is None:
        return
    for side in family.sides:
        labels = {**one.labels, "side": side, "edit": family.outward(side), "outcome": outcome, "margin": margin}
        grid_end = one.fraction[0 if side == "below" else -1]
        if not len(one.seeds):
            numbers = {"seeds": 0, "censored": 0, "reentered": 0, "over": over(every), "left_out": left_out(every)}
            yield {**labels, **statistics.NO_MEDIAN._asdict(), "grid_end": grid_end, **numbers}
            continue
        ways: Any = {"identity": one.identity, "coordinate": family.spacing, "side": side, "margin": margin}
        exits = crossings.first_exit(one.fraction, lost, **ways)
        middle = statistics.median_interval(exits.exit, options.confidence)
        if images is not None:
            low, high = one_network.radius_interval(one.fraction, images, **ways, confidence=options.confidence)
            middle = middle._replace(low=low, high=high)
        yield {
            **labels,
            **middle._asdict(),
            "grid_end": grid_end,
            "seeds": len(exits.exit),
            "censored": int(exits.censored.sum()),
            "reentered": int(exits.reentered.sum()),
            "over": "seeds" if images is None else "images",
            "left_out": left_out(every),
        }


def training(result: xr.DataTree, options: StatisticsConfig) -> pd.DataFrame:
    """One row a network and quantity: mean, sd and interval over seeds at the last step that recorded it."""
    group = result["training"].to_dataset()
    rows = []
    for network in group.network.to_numpy():
        for name in group.data_vars:
            last = group[name].sel(network=network).dropna("step").isel(step=-1)
            interval = statistics.mean_interval(last.to_numpy(), options.confidence)
            rows.append(
                {
                    "network": str(network),
                    "quantity": str(name),
                    **dict(zip(interval._fields, map(float, interval), strict=True)),
                }
            )
    return pd.DataFrame(rows)


def at_paper_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the points nearest to the rows of the paper's tables, with the row's fraction as `row`."""
    parts = [frame.iloc[:0].assign(row=np.nan)]  # what remains where no family of the paper was swept
    for family, part in frame.groupby("family", sort=False):
        grid = part.fraction.unique()
        for row in published.rows(str(family)):
            parts.append(part[part.fraction == grid[nearest(grid, row)]].assign(row=row))
    return pd.concat(parts, ignore_index=True)


def cautions(points: pd.DataFrame, column: str) -> list[str]:
    """Sentences on a column of p-values over seeds, in the rows of `at_paper_rows`; see `formatting.cautions`."""
    listed = at_paper_rows(points[(points.tested_over == "seeds") & (points.judged > 1)])
    listed = listed[~listed.unedited]
    untested = listed[column].isna()
    return formatting.cautions(listed.judged[~untested], listed.judged[untested])


def nearest(grid: np.ndarray, row: float) -> int:
    """The place of the grid point that the paper's tables show in the row of that fraction."""
    return int(np.abs(grid - row).argmin())


def main_split(frame: pd.DataFrame) -> str:
    """The split that figures and summary show: the training images, as in the paper, where they were swept."""
    return "train" if (frame.split == "train").any() else str(frame.split.iloc[0])


def over_images(frame: pd.DataFrame) -> bool:
    """Whether a table of points or tolerances holds single networks only, with statistics over their images."""
    return bool((frame.over == "images").all())


def only(frame: pd.DataFrame) -> str:
    """Say that statistics over images are of the networks of a table alone."""
    return "This network only" if frame.network.nunique() == 1 else "These networks only"
