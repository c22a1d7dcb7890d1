"""A run beside the paper's published tables, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist.analysis import statistics, tables
from jaxdist.analysis.series import Series, every_series
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.storage import published
from jaxdist.types import Values

AGREEING = 0.9
"""The share of accuracy cells that must lie within `NEAR` standard errors for a run to agree with the paper."""
NEAR = 3.0
SITE = "dense0/pre"
"""Where the paper edits."""
UNEDITED = "Baseline"
"""The label of the published rows without an edit."""
LEAST_SEEDS = 6
"""Fewer give standard errors too uncertain to agree by: of 2 seeds, a fifth of all cells lie beyond 3 by chance."""


def cells(result: xr.DataTree, options: StatisticsConfig, *, name: str = "the run") -> pd.DataFrame:
    """One row a published cell of the networks that the run has: the paper's value, ours, and the difference.

    `paper` and `ours` are means over seeds, accuracies as fractions. `z` is ours minus the paper's in standard errors,
    ``SE^2 = s^2 (1/n + 1/20) + w^2 / 12`` with s our standard deviation (ddof 1), since the paper prints none for its
    rows, n our seeds and w the width of its last printed digit. Where the paper prints a standard deviation (its table
    of trained networks, and the training accuracy that its unedited rows repeat) that one stands for its half. A single
    seed has no standard error: z is NaN.

    `sd` is our s, `paper_sd` the paper's printed one, of the population (ddof 0).

    `t` and `p` are the paper's own test, of both, against its baseline (`published.BASELINE_INDEX`), `paper_t_source`
    that t with three decimals; `drop`, with its interval `drop_low` to `drop_high`, `corrected_t`, `p_holm`,
    `smallest_margin` and `noninferior` are `statistics.corrected`'s of ours, against no edit. `paper_drop` is the
    paper's unedited row less this one, `drop_z` ours minus that in standard errors, with the drops' own s and the
    rounding of both rows.

    `paper_spread` is the standard deviation of the difference to the paper's baseline that its t implies,
    ``|difference| sqrt(20) / |t|``, and `spread` this run's. The paper does not print its accuracy at the baseline:
    this run's curve, shifted to the paper's rows on either side, stands for it. What printed digits and the unlike
    shifts on either side leave in doubt must be less than a third of the difference, or `paper_spread` is NaN.

    Raises:
      InputError: if the run has none of the paper's networks, or no sweep of its training images.
    """
    edited = _edited(result, options)
    if not edited:
        raise InputError(
            f"{name}: holds no sweep of relu or abs on the training images at dense0/pre; the published tables cover "
            "only these"
        )
    return pd.DataFrame([*_finals(result), *edited])


def absent(frame: pd.DataFrame) -> str:
    """The published networks and tables that a run has no cells for, in words; empty if it has all.

    Networks that are all at chance have none of edits.
    """
    there = set(zip(frame.table, frame.network, strict=True))
    pairs = [("trained", cell.network) for cell in published.finals()]
    pairs += [(cell.family, cell.network) for cell in published.cells()]
    return ", ".join(f"{network} {table}" for table, network in dict.fromkeys(pairs) if (table, network) not in there)


def edited(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of the tables of edits, with the table's name as `family`."""
    return frame[frame.table != "trained"].assign(family=frame.table)


def by_table(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The cells of each table of edits and network, under a title."""
    for (family, network), part in edited(frame).groupby(["table", "network"], sort=False):
        yield f"{str(family).capitalize()}, {network}", part


def near(z: pd.Series) -> tuple[int, int]:
    """How many of some differences lie within `NEAR` standard errors, and of how many that is known."""
    values = z.dropna()
    return int((values.abs() <= NEAR).sum()), len(values)


def verdict(frame: pd.DataFrame) -> tuple[str, str]:
    """Agree, differ, not shown (too few seeds or cells), or cannot judge (a single seed); and why."""
    judged = frame[frame.quantity != "loss"]
    within, count = near(judged.z)
    if not count:
        return "cannot judge", "one seed has no standard error; two or more can be judged"
    words = f"{within} of {counted(count, 'accuracy cell')} within {NEAR:g} standard errors"
    if within < AGREEING * count:
        return "differ", words
    if judged.seeds.min() < LEAST_SEEDS:
        return (
            "not shown",
            f"{words}, but {counted(judged.seeds.min(), 'seed')} are too few to agree by; {LEAST_SEEDS} are needed",
        )
    if absent(frame):
        return "not shown", f"{words}, but some are not in this run, or of networks at chance"
    return "agree", words


def _finals(result: xr.DataTree) -> list[dict[str, object]]:
    """The table of trained networks. Loss and training accuracy are of the weights before the last update."""
    if "training" not in result.children:
        return []
    group = result["training"].to_dataset()
    rows = []
    for cell in published.finals():
        if cell.network not in group.network:
            continue
        # The paper records test accuracy after an update, the others before it.
        last = -1 if cell.quantity == "test_accuracy" else -2
        if group.sizes["step"] < -last:
            continue  # untrained networks have no update
        values = group[cell.quantity].sel(network=cell.network).isel(step=last).to_numpy().astype(np.float64)
        width = published.LOSS_DIGITS if cell.quantity == "loss" else published.DIGITS
        rows.append(
            {
                "table": "trained",
                "network": cell.network,
                "quantity": cell.quantity,
                "label": cell.quantity.replace("_", " "),
                "row": np.nan,
                "fraction": np.nan,
                "paper": cell.mean,
                "paper_sd": cell.sd,
                **_against(values, cell.mean, width, printed_sd=cell.sd),
            }
        )
    return rows


def to_baseline(result: xr.DataTree) -> dict[str, Values]:
    """By network, accuracy at the paper's baseline minus that of each published cell of edits, [S, P] in their order.

    The paper's t is that of their mean.
    """
    by_key = swept(result)
    differences: dict[str, list[np.ndarray]] = {}
    for cell in published.cells():
        series = by_key.get((cell.family, cell.network))
        if series is not None:
            at = tables.nearest(series.fraction, cell.row)
            of_cell = series.accuracy[:, published.BASELINE_INDEX] - series.accuracy[:, at]
            differences.setdefault(cell.network, []).append(of_cell)
    return {network: np.stack(columns, axis=1) for network, columns in differences.items()}


class _Tested(NamedTuple):
    """A series with what is tested of all its points."""

    series: Series
    published: statistics.Published
    corrected: statistics.Corrected


def _edited(result: xr.DataTree, options: StatisticsConfig) -> list[dict[str, object]]:
    tested = {key: _tested(series, options) for key, series in swept(result).items()}
    return [
        _cell(cell, tested[cell.family, cell.network])
        for cell in published.cells()
        if (cell.family, cell.network) in tested
    ]


def swept(result: xr.DataTree) -> dict[tuple[str, str], Series]:
    """By family and network, what is beside the tables: networks that are not at chance, on training images."""
    return {
        (series.family, series.network): series.judged
        for series in every_series(result)
        if (series.site, series.split) == (SITE, "train") and printed(series) and len(series.judged.seeds)
    }


def _tested(series: Series, options: StatisticsConfig) -> _Tested:
    return _Tested(
        series,
        statistics.as_published(
            series.accuracy, baseline_index=published.BASELINE_INDEX, confidence=options.confidence
        ),
        statistics.corrected(series.accuracy, series.unperturbed, margin=options.margin, confidence=options.confidence),
    )


def _cell(cell: published.Cell, tested: _Tested) -> dict[str, object]:
    """A row of `cells` of a table of edits."""
    series, of_paper, corrected = tested
    index = tables.nearest(series.fraction, cell.row)
    values = series.accuracy[:, index]
    rows = {other.label: other for other in printed(series)}
    is_unedited = cell.label == UNEDITED
    printed_sd = next(c.sd for c in published.finals() if (c.network, c.quantity) == (cell.network, "train_accuracy"))
    paper_drop = rows[UNEDITED].accuracy - cell.accuracy
    # Both of the paper's rows are rounded.
    drops = _against(series.unperturbed - values, paper_drop, 2**0.5 * published.DIGITS)
    to_baseline = series.accuracy[:, published.BASELINE_INDEX] - values
    return {
        "table": cell.family,
        "network": cell.network,
        "quantity": "accuracy",
        "label": cell.label,
        "row": cell.row,
        "fraction": float(series.fraction[index]),
        "paper": cell.accuracy,
        **_against(values, cell.accuracy, published.DIGITS, printed_sd=printed_sd if is_unedited else None),
        "paper_spread": _paper_spread(series, cell),
        "spread": float(to_baseline.std(ddof=1)) if len(to_baseline) > 1 else np.nan,
        "paper_t": cell.t,
        "paper_t_source": cell.t_source,
        "t": float(of_paper.t[index]),
        "paper_p": cell.p,
        "p": float(of_paper.p[index]),
        **{name: float(getattr(corrected, name)[index]) for name in ("drop", "drop_low", "drop_high")},
        "paper_drop": paper_drop,
        "drop_z": np.nan if is_unedited else drops["z"],
        "corrected_t": float(corrected.t[index]),
        "p_holm": float(corrected.p_holm[index]),
        "smallest_margin": float(corrected.smallest_margin[index]),
        "noninferior": bool(corrected.noninferior[index]),
    }


def printed(series: Series) -> list[published.Cell]:
    """The published rows of a family and network."""
    return [cell for cell in published.cells() if (cell.family, cell.network) == (series.family, series.network)]


def _paper_spread(series: Series, cell: published.Cell) -> float:
    """The standard deviation of the difference to the paper's baseline that its t implies; NaN where it is in doubt."""
    at = published.BASELINE_INDEX
    ours = series.accuracy.mean(axis=0)
    rows = {tables.nearest(series.fraction, other.row): other.accuracy for other in printed(series)}
    shifts = {row: accuracy - ours[row] for row, accuracy in rows.items()}
    before, after = max(k for k in shifts if k <= at), min(k for k in shifts if k >= at)
    baseline = ours[at] + np.interp(at, [before, after], [shifts[before], shifts[after]])
    doubt = published.DIGITS + abs(shifts[after] - shifts[before]) / 2
    difference = abs(baseline - cell.accuracy)
    return float(difference * published.SEEDS**0.5 / abs(cell.t)) if difference > 3 * doubt else np.nan


def _against(values: np.ndarray, paper: float, width: float, printed_sd: float | None = None) -> dict[str, float]:
    """Our mean over the seeds [S] and its distance from the paper's in standard errors."""
    n, ours = len(values), float(values.mean())
    if n < 2 or not np.isfinite(values).all():
        return {"ours": ours, "seeds": n, "sd": np.nan, "se": np.nan, "z": np.nan}
    variance = float(values.var(ddof=1))
    # Its standard deviations are of the population, so its mean's squared error is sd^2 / (20 - 1).
    theirs = variance / published.SEEDS if printed_sd is None else printed_sd**2 / (published.SEEDS - 1)
    se = float(np.sqrt(variance / n + theirs + width**2 / 12))
    return {"ours": ours, "seeds": n, "sd": variance**0.5, "se": se, "z": (ours - paper) / se}
