"""Means, intervals and tests over the seeds of a sweep, as published and corrected.

Pure NumPy and SciPy. Every accuracy, drop and margin is a fraction. Seeds are the first axis (S), sweep points the
second (P); see `jaxdist.types`. Undefined quantities, such as the interval of a single seed, are NaN. So are intervals
and tests of seeds that are all alike, whose spread is not known (`shows_spread`); an order needs no spread, so medians
have their intervals.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy

from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.sweep import crossings
from jaxdist.types import Flags, Values


class Interval(NamedTuple):
    """A mean over seeds with its two-sided Student t interval and the population standard deviation, each [...]."""

    mean: Values
    low: Values
    high: Values
    sd: Values


class PairedT(NamedTuple):
    """Student's t and its two-sided p-value, each [P]; t is positive where the values are below the reference."""

    t: Values
    p: Values


class Published(NamedTuple):
    """The paper's own analysis of one network and family, each [P], accuracies as fractions."""

    mean: Values
    sd: Values
    low: Values
    high: Values
    t: Values
    p: Values


class Corrected(NamedTuple):
    """The analysis against each network's own unperturbed accuracy, each [P], accuracies and drops as fractions.

    `drop` is unperturbed minus edited accuracy, positive where accuracy is lost. `t` and `p` ask whether its mean is
    zero; `p_holm` is `p` corrected over the P points; `effect_size` is Cohen's d_z. `noninferiority_p` tests "the mean
    drop is at least the margin" against "it is smaller"; every margin above `smallest_margin` passes.
    """

    mean: Values
    low: Values
    high: Values
    drop: Values
    drop_low: Values
    drop_high: Values
    t: Values
    p: Values
    p_holm: Values
    effect_size: Values
    noninferiority_p: Values
    noninferior: Flags
    smallest_margin: Values


class MedianInterval(NamedTuple):
    """A median over seeds with its order-statistic interval; infinite where the sample is censored there."""

    median: float
    low: float
    high: float


NO_MEDIAN = MedianInterval(float("nan"), float("nan"), float("nan"))
"""Of no values at all."""


def shows_spread(values: Values) -> Flags:
    """Whether values[S, ...] over seeds tell how far seeds lie apart, each [...]: two at least that are not all alike.

    A single value says nothing about spread, and equal ones do not say that the next is equal too. Every interval of a
    mean and every t test rests on this, and there is none without it.
    """
    values = np.asarray(values)
    spread: Flags = (values != values[:1]).any(axis=0)
    return spread


def mean_interval(values: Values, confidence: float, *, exact: Flags | None = None) -> Interval:
    """Mean of values[S, ...] over seeds with its Student t interval, low and high NaN where they show no spread.

    Where `exact` [...] says that values are what they are by definition, as the drop without an edit is, equal values
    of several seeds are their own interval. The interval's standard error has ddof 1, the reported standard deviation
    ddof 0: the paper prints both so. Raises `InputError` without seeds or for a confidence outside (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    _check_confidence(confidence)
    if values.ndim == 0 or len(values) == 0:
        raise InputError(f"values: expected at least one seed on the first axis, got shape {values.shape}")
    # The mean of equal numbers can differ from them by a rounding error, which would give them a variance.
    varied = shows_spread(values)
    mean = np.where(varied, values.mean(axis=0), values[0])
    sd = np.where(varied, values.std(axis=0), 0.0)
    half = _t_quantile((1 + confidence) / 2, len(values)) * _standard_error(values, sd, exact)
    return Interval(mean, mean - half, mean + half, sd)


def upper_bound(values: Values, confidence: float, *, exact: Flags | None = None) -> Values:
    """The upper one-sided t bound of the mean of values[S, ...] over seeds, NaN where there is no `mean_interval`."""
    mean, _, _, sd = mean_interval(values, confidence)
    return mean + _t_quantile(confidence, len(values)) * _standard_error(np.asarray(values), sd, exact)


def paired_t(reference: Values, values: Values, *, exact: Flags | None = None) -> PairedT:
    """Two-sided paired t test of values[S, P] against reference[S], accuracies as fractions.

    The sign is the paper's, ``ttest_rel(reference, values)``. Where the differences show no spread (`shows_spread`)
    there is no test: NaN, but t = 0 and p = 1 where `exact` [P] says that values are the reference itself. Raises
    `InputError` where the seeds do not match.
    """
    return PairedT(*one_sample_t(crossings.accuracy_drop(reference, values), 0.0, "two-sided", exact=exact))


def one_sample_t(
    differences: Values, expected: float, alternative: Literal["two-sided", "less"], *, exact: Flags | None = None
) -> tuple[Values, Values]:
    """One-sample t test over seeds at every point: t and p, each [P], NaN where differences show no spread.

    Args:
      differences: [S, P].
      expected: their mean under the hypothesis or, with "less", the least that it may be.
      alternative: what is tested for.
      exact: [P] where differences that are equal over several seeds are so by definition. They get the limit: t = 0 and
        p = 1 on `expected` itself, else t = +-inf and p = 0, or 1 on the hypothesis' side.
    """
    seeds, points = differences.shape
    t, p = np.full(points, np.nan), np.full(points, np.nan)
    varied = shows_spread(differences)
    if exact is not None and seeds > 1:
        limit = exact & ~varied
        excess = differences[0, limit] - expected
        t[limit] = np.where(excess == 0, 0.0, np.copysign(np.inf, excess))
        # On the edge of "less" the hypothesis "at least `expected`" is true, so nothing is evidence against it: p = 1.
        p[limit] = np.where(excess == 0, 1.0, 0.0) if alternative == "two-sided" else np.where(excess < 0, 0.0, 1.0)
    if varied.any():
        result: Any = scipy.stats.ttest_1samp(differences[:, varied], expected, alternative=alternative)
        t[varied], p[varied] = result.statistic, result.pvalue
    return t, p


def as_published(accuracy: Values, *, baseline_index: int, confidence: float) -> Published:
    """The paper's own analysis of accuracy[S, P]: paired t tests against one grid point, nothing corrected.

    The paper's code takes grid index 50 as its baseline, which is not the unperturbed network; `corrected` is the
    analysis to trust. Where seeds differ from the baseline by the same, SciPy's test, which the paper's code calls,
    divides by zero; here there is no test (NaN), but t = 0 and p = 1 of the baseline itself. Source: arXiv:2411.17932,
    appendix tables and the code that printed them. Raises `InputError` for accuracies that are not fractions or an
    index outside the grid.
    """
    accuracy = crossings.checked_fractions("accuracy", accuracy, 2)
    points = accuracy.shape[1]
    if not 0 <= baseline_index < points:
        raise InputError(
            f"baseline_index: expected an index of the grid's {counted(points, 'point')}, 0 to {points - 1}, "
            f"got {baseline_index}"
        )
    mean, low, high, sd = mean_interval(accuracy, confidence)
    baseline = np.arange(points) == baseline_index
    return Published(mean, sd, low, high, *paired_t(accuracy[:, baseline_index], accuracy, exact=baseline))


def corrected(accuracy: Values, unperturbed: Values, *, margin: float, confidence: float) -> Corrected:
    """Paired analysis of accuracies under edits against each network's own without an edit.

    Cohen's d_z is the mean drop over its standard deviation (ddof 1), t / sqrt(S) (Lakens 2013, eq. 7). Non-inferiority
    is the one-sided paired t test; `smallest_margin` is the drop's upper one-sided confidence bound, or 0 where that is
    negative, and a point is non-inferior where it is below `margin`. Where drops show no spread (`shows_spread`) all
    but `mean` and `drop` is NaN, and nothing is non-inferior; such points count among those that `p_holm` is corrected
    for. Only where no network's accuracy changes at all, as without an edit, the interval is 0 and p is 1.

    Args:
      accuracy: [S, P], fractions.
      unperturbed: [S], fractions, without an edit.
      margin: the drop that matters, a fraction.
      confidence: of the intervals, two-sided Student t; one-sided tests are at level 1 - `confidence`.

    Raises:
      InputError: for accuracies that are not fractions, seeds that do not match, or a margin that is not positive.
    """
    accuracy = crossings.checked_fractions("accuracy", accuracy, 2)
    drops = crossings.accuracy_drop(crossings.checked_fractions("unperturbed", unperturbed, 1), accuracy)
    margin = crossings.checked_margin(margin)
    seeds = len(drops)
    exact = (drops == 0).all(axis=0)
    mean, low, high, _ = mean_interval(accuracy, confidence)
    drop, drop_low, drop_high, _ = mean_interval(drops, confidence, exact=exact)
    t, p = one_sample_t(drops, 0.0, "two-sided", exact=exact)
    _, noninferiority_p = one_sample_t(drops, margin, "less", exact=exact)
    smallest_margin = np.maximum(upper_bound(drops, confidence, exact=exact), 0.0)
    return Corrected(
        mean=mean,
        low=low,
        high=high,
        drop=drop,
        drop_low=drop_low,
        drop_high=drop_high,
        t=t,
        p=p,
        p_holm=holm(p, hypotheses=len(p)),
        effect_size=t / np.sqrt(seeds),
        noninferiority_p=noninferiority_p,
        noninferior=smallest_margin < margin,
        smallest_margin=smallest_margin,
    )


def holm(p: Values, hypotheses: int | None = None) -> Values:
    """Holm's step-down correction of p[P] (Holm 1979) over the p-values that are not NaN; NaN stays NaN.

    Of more `hypotheses` than have a p-value, those without one count as not rejected. Raises `InputError` for fewer.
    """
    adjusted = np.array(p, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(adjusted))
    count = len(tested) if hypotheses is None else hypotheses
    if count < len(tested):
        raise InputError(f"hypotheses: expected at least as many as the {counted(len(tested), 'p-value')}, got {count}")
    ascending = tested[np.argsort(adjusted[tested], kind="stable")]
    steps = adjusted[ascending] * np.arange(count, count - len(ascending), -1)
    adjusted[ascending] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def median_interval(values: Values, confidence: float) -> MedianInterval:
    """Median of values[S] with its distribution-free interval between two order statistics.

    The interval (Conover 1999, section 3.2) is NaN where the sample is too small for it: fewer than 6 values for 95 %.
    It takes no spread from the sample, so it holds of equal values too. Values may be infinite on one side, censored
    there; the median of an even number is halfway between the middle two, so infinite where either is. Raises
    `InputError` without values, for NaN, and for infinities of both signs.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    _check_confidence(confidence)
    if ordered.ndim != 1 or len(ordered) == 0:
        raise InputError(f"values: expected one value per seed, got shape {ordered.shape}")
    if np.isnan(ordered).any() or (ordered[0] == -np.inf and ordered[-1] == np.inf):
        raise InputError("values: expected numbers censored on at most one side, got NaN or -inf and inf")
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    interval: Any = scipy.stats.quantile_test(ordered, p=0.5).confidence_interval(confidence)
    return MedianInterval(float(middle), float(interval.low), float(interval.high))


def _standard_error(values: Values, sd: Values, exact: Flags | None) -> Values:
    """Standard error of the mean of values[S, ...], NaN where they show no spread, unless they are `exact`.

    From the population standard deviation: sd (ddof 1) / sqrt(S) is sd / sqrt(S - 1).
    """
    seeds = len(values)
    if seeds < 2:
        return np.full_like(sd, np.nan)
    has_error = shows_spread(values) if exact is None else shows_spread(values) | exact
    return np.where(has_error, sd / np.sqrt(seeds - 1), np.nan)


def _t_quantile(probability: float, seeds: int) -> float:
    return float(scipy.stats.t.ppf(probability, seeds - 1))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a fraction between 0 and 1, got {confidence}")
