"""Two independent samples of networks, point by point: do their means differ, and are they equivalent?

Pure NumPy and SciPy; accuracies, differences and margins are fractions. The seeds of the two samples are not paired:
equal numbers do not mean equal networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy

from jaxdist.analysis.statistics import shows_spread
from jaxdist.errors import InputError
from jaxdist.sweep import crossings
from jaxdist.types import Flags, Values


class Equivalence(NamedTuple):
    """The second sample's mean minus the first's, each [P], fractions.

    `p` is Welch's two-sided test of "no difference", not corrected for the points; `p_equivalent` is the larger
    of the two one-sided tests (TOST, Schuirmann 1987) of "the difference is at least the margin"; every margin above
    `smallest_margin` passes.
    """

    difference: Values
    low: Values
    high: Values
    p: Values
    p_equivalent: Values
    equivalent: Flags
    smallest_margin: Values


def welch(first: Values, second: Values, *, margin: float, confidence: float) -> Equivalence:
    """Compare the means of two samples point by point.

    Where the seeds of either sample are all alike, its spread is not known (`statistics.shows_spread`): there all but
    the difference is NaN, and nothing is equivalent.

    Args:
      first: fractions [S, P].
      second: fractions [S', P], not always of as many seeds.
      margin: the least difference that matters, a fraction.
      confidence: of the intervals, which are Welch's. Equivalence is judged at 1 - `confidence` a side, which matches
        the interval at 2 `confidence` - 1 lying inside the margin.

    Raises:
      InputError: for fewer than two seeds on a side, or unlike numbers of points.
    """
    first, second = (np.asarray(sample, np.float64) for sample in (first, second))
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise InputError(
            f"expected samples [S, P] of at least two seeds at the same points, got {first.shape} and {second.shape}"
        )
    difference = np.round(second.mean(axis=0) - first.mean(axis=0), crossings.DECIMALS)
    low, high, p, p_equivalent, smallest = (np.full(difference.shape, np.nan) for _ in range(5))
    varied = shows_spread(first) & shows_spread(second)
    if varied.any():
        a, b = first[:, varied], second[:, varied]
        test: Any = scipy.stats.ttest_ind(b, a, equal_var=False)
        below: Any = scipy.stats.ttest_ind(b - margin, a, equal_var=False, alternative="less")
        above: Any = scipy.stats.ttest_ind(b + margin, a, equal_var=False, alternative="greater")
        interval = test.confidence_interval(confidence)
        one_sided = test.confidence_interval(2 * confidence - 1)
        smallest[varied] = np.maximum(np.abs(one_sided.low), np.abs(one_sided.high))
        low[varied], high[varied], p[varied] = interval.low, interval.high, test.pvalue
        p_equivalent[varied] = np.maximum(below.pvalue, above.pvalue)
    return Equivalence(difference, low, high, p, p_equivalent, p_equivalent < 1 - confidence, smallest)
