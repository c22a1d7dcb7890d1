"""What networks read, beside readers of the same activations that have learned nothing: the rule of docs/method.md.

For one network, d_X is the dose at which an edit X first changes a level of predictions, ~ the same edit with random
signs, and

  x = ln(d_small / d_small~) - ln(d_large / d_large~),

y the mean of x over readers whose output weights are put to other units. Where small values are read (*distance*),
erasing them costs predictions at less dose than erasing large ones does, so that x is negative, and more so than of a
reader that has learned nothing: x - y is negative too.

A dose that a path does not reach is *censored*, known only to exceed the largest on it. Numbers of networks are
therefore pairs of ends, as in `jaxdist.analysis.preference`, and every test uses the end against its claim.

Pure NumPy and SciPy; seeds are the axis S.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from jaxdist.analysis import statistics
from jaxdist.analysis.preference import EQUIVALENT, LEVELS, LogRatio
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.sweep import crossings
from jaxdist.types import Values

Answer: TypeAlias = Literal["distance", "intensity", "no difference", "undecided"]

EXACT = 20
"""Seeds up to which all flips of signs are tried; of more, as many random ones as of so many."""

TIE = 1e-12
"""What rounding may do to sums that are equal."""


ERROR = 0.05
"""The family-wise error of the answers."""


class Tests(NamedTuple):
    """The p-values of a claim: the largest of its one-sided tests, by t and by exact sign flips."""

    t: float
    flips: float


class Reading(NamedTuple):
    """What the networks of one ensemble read, uncorrected p-values of each claim, and what they come from."""

    x: LogRatio
    """[levels, S]"""
    y: LogRatio
    """[levels, S]"""
    distance: Tests
    intensity: Tests
    equal: Tests


class Decided(NamedTuple):
    """An answer with the p-values that it rests on, corrected by Holm over all ensembles."""

    answer: Answer
    distance: float
    intensity: float
    equal: float


def log_dose_at(dose: Values, flips: Values, level: float) -> LogRatio:
    """The logarithm of the dose at which flips first reach a level, walking outward from no edit; two ends [...].

    Between two points ln(dose) is linear in ln(flips). Where the point before has no flips or no dose, as no edit has
    neither, the dose is linear in the flips instead. Of a path that does not get there, the lower end is its largest
    dose and the upper one infinite. Where there is no dose, or it is 0, both are NaN.

    Args:
      dose: at the points of a path [..., P], outward.
      flips: fractions of the same shape.
      level: a fraction of flips above 0.

    Raises:
      InputError: for unlike shapes, or flips or a level that are no fractions.
    """
    dose, flips = (np.asarray(values, np.float64) for values in (dose, flips))
    if dose.shape != flips.shape or not ((flips >= 0) & (flips <= 1)).all() or not 0 < level <= 1:
        raise InputError(
            f"expected doses and flips of one shape, flips from 0 to 1 and a level above 0, got {dose.shape} and "
            f"{flips.shape}, level {level}"
        )
    crossing, level = _crossing(flips, level), crossings.checked_margin(level)
    flips, dose = _from_no_edit(flips), np.concatenate([np.zeros((*dose.shape[:-1], 1)), dose], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        linear = np.log(crossing.along(dose))
        by_logs = crossings.first_crossing(np.log(flips), np.full(flips.shape[:-1], np.log(level))).along(np.log(dose))
        at = np.where(np.isfinite(by_logs), by_logs, linear)
        low = np.where(crossing.reached, at, np.log(np.fmax.reduce(dose, axis=-1)))
    there = np.isfinite(low)
    return LogRatio(np.where(there, low, np.nan), np.where(there, np.where(crossing.reached, at, np.inf), np.nan))


def point_at(flips: Values, level: float) -> crossings.Positions:
    """The first point [...] of paths [..., P] whose flips have reached a level, -1 where none has."""
    crossing = _crossing(np.asarray(flips, np.float64), level)
    return np.where(crossing.reached, crossing.after - 1, -1)


def _crossing(flips: Values, level: float) -> crossings.Crossing:
    return crossings.first_crossing(_from_no_edit(flips), np.full(flips.shape[:-1], crossings.checked_margin(level)))


def _from_no_edit(flips: Values) -> Values:
    """Paths with no edit, and no flips, as their first point; counts that are equal are equal shares."""
    return np.round(np.concatenate([np.zeros((*flips.shape[:-1], 1)), flips], axis=-1), crossings.DECIMALS)


def less(first: LogRatio, second: LogRatio) -> LogRatio:
    """The difference of two logarithms that lie between ends."""
    return LogRatio(first.low - second.high, first.high - second.low)


def mean(of: LogRatio, axis: int) -> LogRatio:
    """The mean of logarithms that lie between ends, along an axis."""
    return LogRatio(of.low.mean(axis), of.high.mean(axis))


def contrast(dose: Values, flips: Values, level: float) -> LogRatio:
    """x of each network, [...], from curves [..., edits, draws, P] of which draw 0 has no random signs.

    The edits are of small and of large values, in this order. Raises `InputError` as `log_dose_at` does.
    """
    at = log_dose_at(dose, flips, level)
    itself, signed = (LogRatio(at.low[..., part], at.high[..., part]) for part in (slice(0, 1), slice(1, None)))
    beside = less(mean(itself, -1), mean(signed, -1))
    small, large = (LogRatio(beside.low[..., k], beside.high[..., k]) for k in (0, 1))
    return less(small, large)


def read(x: LogRatio, y: LogRatio, *, flips: bool = True) -> Reading:
    """The tests of each claim from x and y, [levels, S].

    *Distance*: E x < 0 and E(x - y) < 0 at every level. *Intensity*: both above 0. *Equal*: both within the bounds of
    `preference.EQUIVALENT`. Each is an intersection-union of one-sided tests, of which the largest p-value counts.

    Args:
      x: [levels, S].
      y: of permuted readers, [levels, S].
      flips: whether p-values of sign flips are wanted too; else they are NaN.

    Raises:
      InputError: for fewer than two seeds, or networks without a number.
    """
    undefined = np.isnan(np.concatenate([*x, *y])).any(axis=0)
    if undefined.size < 2 or undefined.any():
        raise InputError(
            f"expected at least two seeds, all with a dose, got {counted(undefined.size, 'seed')}, of which "
            f"{counted(int(undefined.sum()), 'has', 'have')} none, as where all activations are 0"
        )
    apart = less(x, y)
    lows, highs = (np.round(np.concatenate([getattr(x, end), getattr(apart, end)]), 12) for end in ("low", "high"))
    bottom, top = np.log(EQUIVALENT)
    columns = (highs, -lows, np.concatenate([highs - top, bottom - lows]))
    return Reading(x, y, *(_tests(each, flips=flips) for each in columns))


def decide(readings: Mapping[str, Reading]) -> dict[str, Decided]:
    """The answers of several ensembles together, by their names, at a family-wise error of `ERROR`.

    Holm's method corrects both claims of a difference over all ensembles, and the claim of none over them by itself. A
    difference, however small, is answered before its absence.
    """
    several = len(readings)
    differing = statistics.holm(
        np.array([p for each in readings.values() for p in (each.distance.t, each.intensity.t)]), 2 * several
    ).reshape(-1, 2)
    alike = statistics.holm(np.array([each.equal.t for each in readings.values()]), several)
    decided = {}
    for name, (distance, intensity), equal in zip(readings, differing, alike, strict=True):
        answer: Answer = "undecided"
        if distance <= ERROR:
            answer = "distance"
        elif intensity <= ERROR:
            answer = "intensity"
        elif equal <= ERROR:
            answer = "no difference"
        decided[name] = Decided(answer, float(distance), float(intensity), float(equal))
    return decided


def _tests(columns: Values, *, flips: bool) -> Tests:
    """The largest p-values of "the mean of a row [k, S] is at least 0" against "it is less"."""
    if not np.isfinite(columns).all():
        return Tests(1.0, 1.0 if flips else float("nan"))
    by_t = statistics.one_sample_t(columns.T, 0.0, "less")[1]
    if np.isnan(by_t).any():  # seeds that are all alike allow no test
        return Tests(float("nan"), float("nan"))
    return Tests(float(np.max(by_t)), max(map(sign_flips, columns)) if flips else float("nan"))


def sign_flips(values: Values) -> float:
    """The p-value of "values [S] lie symmetrically about 0, or above" against "below", by flips of their signs.

    All flips up to `EXACT` seeds, random ones beyond, the values as they are among them. (SciPy's `permutation_test`
    goes through them one by one, which takes minutes for 20 seeds.)
    """
    seeds, part = len(values), 2**16
    count = 2 ** min(seeds, EXACT)
    rng, below = np.random.default_rng(0), 0
    for start in range(0, count, part):
        if seeds <= EXACT:
            flipped = np.arange(start, min(start + part, count))[:, None] >> np.arange(seeds) & 1
        else:
            flipped = rng.integers(2, size=(part, seeds))
        # A flip takes twice a value away, so the mean is not above its own where what is flipped is not below 0.
        below += int((flipped @ values >= -TIE).sum())
    drawn = seeds > EXACT
    return (below + drawn) / (count + drawn)


def contrasts(curves: Sequence[tuple[Values, Values]], levels: Sequence[float] = LEVELS) -> LogRatio:
    """x [readers, levels, S] of several readers' curves, each doses and flips [S, edits, draws, P] as in `contrast`."""
    each = [contrast(dose, flips, level) for (dose, flips), level in itertools.product(curves, levels)]
    shape = (len(curves), len(levels), -1)
    return LogRatio(*(np.stack([getattr(of, end) for of in each]).reshape(shape) for end in ("low", "high")))
