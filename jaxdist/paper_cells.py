"""A run beside the paper's published tables, cell by cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist import published, statistics, tables
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.series import Series, every_series

AGREEING = 0.9
"""The share of accuracy cells that must lie within `NEAR` standard errors for a run to agree with the paper."""
NEAR = 3.0
UNEDITED = "Baseline"
"""The label of the published rows without an edit."""
LEAST_SEEDS = 6
"""Fewer give standard errors too uncertain to agree by: of 2 seeds, a fifth of all cells lie beyond 3 by chance."""


def cells(result: xr.DataTree, options: StatisticsConfig, *, name: str = "the run") -> pd.DataFrame:
    """One row a published cell of the networks that the run has: the paper's value, ours, and the difference.

    `paper` and `ours` are means over seeds, accuracies as fractions. `z` is ours minus the paper's in standard errors,
    ``SE^2 = s^2 (1/n + 1/20) + w^2 / 12`` with s our standard deviation (ddof 1), since the paper prints none for its
    rows, n our seeds and w the width of its last printed digit. Where the paper prints a standard deviation (its table
    of trained networks, and the training accuracy that its unedited rows repeat) that one stands for its half. `t` and
    `p` are the paper's own test, of both, against its baseline; `drop`, with its interval `drop_low` to `drop_high`,
    `corrected_t`, `p_holm`, `smallest_margin` and `noninferior` are `statistics.corrected`'s of ours, against no edit.
    `paper_drop` is the paper's unedited row less this one, `drop_z` ours minus that in standard errors, with the drops'
    own s: it leaves out the level to which the networks were trained, which all rows of a network share. `paper_spread`
    is the standard deviation of the difference to the paper's baseline that its t implies, ``|difference| sqrt(20) /
    |t|``, and `spread` this run's. The paper does not print its accuracy at the baseline: this run's curve, shifted to
    the paper's rows on either side, stands for it. A single seed has no standard error: z is NaN.

    Raises:
      InputError: if the run has none of the paper's networks, or no sweep of its training images.
    """
    edited = _edited(result, options)
    if not edited:
        raise InputError(
            f"{name}: has neither relu nor abs swept on its training images at dense0/pre; the published tables "
            "are of those"
        )
    return pd.DataFrame([*_finals(result), *edited])


def absent(frame: pd.DataFrame) -> str:
    """The published networks and tables that a run has no cells for, in words; empty if it has all."""
    there = set(zip(frame.table, frame.network, strict=True))
    wanted = [("trained", one.network) for one in published.finals()]
    wanted += [(one.family, one.network) for one in published.cells()]
    return ", ".join(f"{network} {table}" for table, network in dict.fromkeys(wanted) if (table, network) not in there)


def verdict(frame: pd.DataFrame) -> tuple[str, str]:
    """Agree, differ, not shown (too few seeds or cells), or cannot judge (a single seed); and why."""
    judged = frame[frame.quantity != "loss"]
    z = judged.z.dropna()
    if z.empty:
        return "cannot judge", "one seed has no standard error; two or more can be judged"
    near = int((z.abs() <= NEAR).sum())
    words = f"{near} of {len(z)} accuracy cells within {NEAR:g} standard errors"
    if near < AGREEING * len(z):
        return "differ", words
    if judged.seeds.min() < LEAST_SEEDS:
        return "not shown", f"{words}, but {judged.seeds.min()} seeds are too few to agree by; {LEAST_SEEDS} are needed"
    if absent(frame):
        return "not shown", f"{words}, but some are not in this run"
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
                **_against(values, cell.mean, width, printed_sd=cell.sd),
            }
        )
    return rows


def _edited(result: xr.DataTree, options: StatisticsConfig) -> list[dict[str, object]]:
    site = "dense0/pre"
    unedited = {cell.network: cell.sd for cell in published.finals() if cell.quantity == "train_accuracy"}
    series = {(s.family, s.network, s.site, s.split): s for s in every_series(result)}
    tests: dict[tuple[str, ...], tuple[statistics.Published, statistics.Corrected]] = {}
    baselines: dict[tuple[str, ...], float] = {}
    unedited_rows = {(c.family, c.network): c.accuracy for c in published.cells() if c.label == UNEDITED}
    rows: list[dict[str, object]] = []
    for cell in published.cells():
        key = (cell.family, cell.network, site, "train")
        one = series.get(key)
        if one is None:
            continue
        fraction = tables.nearest(one.fraction, cell.row)
        index = int(np.flatnonzero(one.fraction == fraction)[0])
        if key not in tests:
            tests[key] = (
                statistics.as_published(
                    one.accuracy, baseline_index=options.published_baseline_index, confidence=options.confidence
                ),
                statistics.corrected(
                    one.accuracy, one.unperturbed, margin=options.margin, confidence=options.confidence
                ),
            )
            baselines[key] = _paper_baseline(one, options.published_baseline_index)
        tested, corrected = tests[key]
        to_baseline = one.accuracy[:, options.published_baseline_index] - one.accuracy[:, index]
        printed = unedited[cell.network] if cell.label == UNEDITED else None
        rows.append(
            {
                "table": cell.family,
                "network": cell.network,
                "quantity": "accuracy",
                "label": cell.label,
                "row": cell.row,
                "fraction": fraction,
                "paper": cell.accuracy,
                **_against(one.accuracy[:, index], cell.accuracy, published.DIGITS, printed_sd=printed),
                "paper_spread": abs(baselines[key] - cell.accuracy) * published.SEEDS**0.5 / abs(cell.t),
                "spread": float(to_baseline.std(ddof=1)) if len(to_baseline) > 1 else np.nan,
                "paper_t": cell.t,
                "t": float(tested.t[index]),
                "paper_p": cell.p,
                "p": float(tested.p[index]),
                **{name: float(getattr(corrected, name)[index]) for name in ("drop", "drop_low", "drop_high")},
                **_drop(one.unperturbed - one.accuracy[:, index], unedited_rows[key[:2]] - cell.accuracy, cell.label),
                "corrected_t": float(corrected.t[index]),
                "p_holm": float(corrected.p_holm[index]),
                "smallest_margin": float(corrected.smallest_margin[index]),
                "noninferior": bool(corrected.noninferior[index]),
            }
        )
    return rows


def _paper_baseline(one: Series, at: int) -> float:
    """About the paper's mean accuracy at index `at` of a grid: ours, and the difference of the rows on either side."""
    printed = [cell for cell in published.cells() if (cell.family, cell.network) == (one.family, one.network)]
    rows = np.array([int(np.abs(one.fraction - cell.row).argmin()) for cell in printed])
    ours = one.accuracy.mean(axis=0)
    apart = np.array([cell.accuracy for cell in printed]) - ours[rows]
    order = np.argsort(rows)
    return float(ours[at] + np.interp(at, rows[order], apart[order]))


def _drop(drops: np.ndarray, paper: float, label: str) -> dict[str, float]:
    """The paper's drop from its unedited row, and how far the mean of ours [S] is from it in standard errors."""
    if label == UNEDITED:
        return {"paper_drop": 0.0, "drop_z": np.nan}
    # Both of the paper's rows are rounded.
    return {"paper_drop": paper, "drop_z": _against(drops, paper, 2**0.5 * published.DIGITS, printed_sd=None)["z"]}


def _against(values: np.ndarray, paper: float, width: float, printed_sd: float | None) -> dict[str, float]:
    """Our mean over the seeds [S] and its distance from the paper's in standard errors."""
    n, ours = len(values), float(values.mean())
    if n < 2 or not np.isfinite(values).all():
        return {"ours": ours, "seeds": n, "sd": np.nan, "se": np.nan, "z": np.nan}
    variance = float(values.var(ddof=1))
    # Its standard deviations are of the population, so its mean's squared error is sd^2 / (20 - 1).
    theirs = variance / published.SEEDS if printed_sd is None else printed_sd**2 / (published.SEEDS - 1)
    se = float(np.sqrt(variance / n + theirs + width**2 / 12))
    return {"ours": ours, "seeds": n, "sd": variance**0.5, "se": se, "z": (ours - paper) / se}
