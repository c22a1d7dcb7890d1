"""The analysis of one network, over the images that it was counted on instead of over seeds.

An edit takes some images from right to wrong (`lost`) and others from wrong to right (`won`); all that is known of the
drop lies in these two numbers and the number of images. The answers hold for this network and images like these: they
say nothing of the same network trained from other seeds. Pure NumPy and SciPy; every accuracy, drop and margin is a
fraction, and points are the axis P, as in `jaxdist.analysis.statistics`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

from jaxdist.analysis import statistics
from jaxdist.analysis.statistics import Corrected
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.sweep import crossings
from jaxdist.types import Values

Counts: TypeAlias = npt.NDArray[np.integer[Any]]


class Images(NamedTuple):
    """What one network does to `total` images with each edit."""

    lost: Counts  # [P] right without the edit only
    won: Counts  # [P] right with the edit only
    unperturbed: int  # right without any edit
    total: int

    @property
    def correct(self) -> Counts:
        """[P] right with the edit."""
        return self.unperturbed - self.lost + self.won

    @property
    def drop(self) -> Values:
        """[P] accuracy lost, a fraction."""
        return np.round((self.lost - self.won) / self.total, crossings.DECIMALS)


def images(correct: Counts, kept: Counts, unperturbed: int, total: int) -> Images:
    """The images lost and won at each point, from the numbers of those that are right.

    Args:
      correct: [P] right with the edit.
      kept: [P] right both with the edit and without it.
      unperturbed: right without any edit.
      total: all images.

    Raises:
      InputError: for counts that no images can have.
    """
    correct, kept = (np.asarray(counts, np.int64) for counts in (correct, kept))
    tally = Images(unperturbed - kept, correct - kept, int(unperturbed), int(total))
    if kept.shape != correct.shape or not 0 <= unperturbed <= total or total < 1:
        raise InputError(
            f"kept: expected one count per point and at most {counted(total, 'image')} right unedited, got shapes "
            f"{kept.shape} and {correct.shape} and {counted(unperturbed, 'image')}"
        )
    if min(map(np.min, (tally.lost, tally.won, kept, total - correct - tally.lost)), default=0) < 0:
        raise InputError(
            f"kept: expected no more images than are right with the edit, or without it, got {kept.min()} to "
            f"{kept.max()} of {unperturbed} unedited"
        )
    return tally


def wilson(count: Counts, total: int, confidence: float) -> tuple[Values, Values]:
    """Wilson's interval (1927), two-sided, of the shares count[P] of `total` images."""
    count = np.asarray(count, np.float64)
    z = _two_sided(confidence)
    middle = (count + z**2 / 2) / (total + z**2)
    half = z * np.sqrt(count * (total - count) / total + z**2 / 4) / (total + z**2)
    # At 0 and 1 the interval ends there but for a rounding error.
    return np.where(count == 0, 0.0, middle - half), np.where(count == total, 1.0, middle + half)


def drop_interval(counted: Images, confidence: float) -> tuple[Values, Values]:
    """The adjusted Wald interval, two-sided, of the drop at each point (Bonett and Price 2012), within -1..1.

    One image is added to those lost and one to those won, so that no edit at all does not get an interval of width 0.
    """
    middle, error = _adjusted(counted)
    half = _two_sided(confidence) * error
    return np.maximum(middle - half, -1.0), np.minimum(middle + half, 1.0)


def mcnemar(counted: Images) -> Values:
    """McNemar's exact two-sided p-value [P] of as many images lost as won: the binomial test of one in lost + won."""
    fewer, both = np.minimum(counted.lost, counted.won), counted.lost + counted.won
    return np.minimum(2 * scipy.stats.binom.cdf(fewer, both, 0.5), 1.0)


def corrected(counted: Images, *, margin: float, confidence: float) -> Corrected:
    """The columns of `statistics.corrected` for one network, over images.

    The accuracy's interval is Wilson's, the drop's that of `drop_interval`, `p` McNemar's exact test. Non-inferiority
    takes the same adjusted Wald form one-sided, at level 1 - confidence. What belongs to a sample of networks, t and
    the effect size, is NaN.
    """
    margin = crossings.checked_margin(margin)
    middle, error = _adjusted(counted)
    p = mcnemar(counted)
    undefined = np.full(len(p), np.nan)
    smallest_margin = np.clip(middle + float(scipy.stats.norm.ppf(confidence)) * error, 0.0, 1.0)
    return Corrected(
        counted.correct / counted.total,
        *wilson(counted.correct, counted.total, confidence),
        counted.drop,
        *drop_interval(counted, confidence),
        t=undefined,
        p=p,
        p_holm=statistics.holm(p),
        effect_size=undefined,
        noninferiority_p=scipy.stats.norm.cdf((middle - margin) / error),
        noninferior=smallest_margin < margin,
        smallest_margin=smallest_margin,
    )


def radius_interval(
    fractions: Values,
    counted: Images,
    *,
    identity: float,
    coordinate: Literal["linear", "log"],
    side: Literal["below", "above"],
    margin: float,
    confidence: float,
) -> tuple[float, float]:
    """The interval of one network's tolerance radius on one side, its lower end first, infinite where censored.

    It inverts the band of `drop_interval` over the grid: the radius may begin where the drop's upper bound first
    reaches the margin, and has ended where its lower bound does. Each point has its interval for itself; where the drop
    only grows outward that is enough, and the radius lies within with `confidence`.

    Args:
      fractions: the family's grid [P].
      counted: the images lost and won at its points.
      identity, coordinate, side, margin: as in `crossings.first_exit`, whose first exit always lies within.
      confidence: of the band, two-sided.

    Raises:
      InputError: as `crossings.first_exit` does.
    """
    bounds = np.stack(drop_interval(counted, confidence))
    exits = crossings.first_exit(fractions, bounds, identity=identity, coordinate=coordinate, side=side, margin=margin)
    low, high = np.sort(exits.exit)
    return float(low), float(high)


def _adjusted(counted: Images) -> tuple[Values, Values]:
    """The drop with one image more lost and one more won, and its standard error."""
    total = counted.total + 2
    lost, won = (counted.lost + 1) / total, (counted.won + 1) / total
    return lost - won, np.sqrt((lost + won - (lost - won) ** 2) / total)


def _two_sided(confidence: float) -> float:
    """The normal quantile of a two-sided interval."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a fraction between 0 and 1, got {confidence}")
    return float(scipy.stats.norm.ppf((1 + confidence) / 2))
