"""Which edits cost predictions at less dose: doses at equal flips, their ratios over seeds, and the verdict.

*Flips* are the share of images whose class changes, *dose* says how much an edit changes what is read from a layer;
both are fractions. For curves that only rise, "A costs more than B at equal dose" and "A needs less dose than B for
equal flips" say the same; the second has a scale-free effect, the ratio of doses, and no images too few to count.
Pure NumPy and SciPy; seeds are the axis S, points the axis P, as in `jaxdist.analysis.statistics`.

A dose that no point of a grid costs enough at is *censored*: known only to exceed the largest dose on its path. Ratios
are therefore pairs of ends between which they lie, and every test uses the end that is less favourable to its claim. A
sample of such ends has a mean on the hypothesis' side wherever the ratios themselves do, so the test keeps its level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdist.analysis import statistics
from jaxdist.errors import InputError
from jaxdist.formatting import all_seeds
from jaxdist.sweep import crossings
from jaxdist.types import Flags, Values

LEVELS = (0.01, 0.1)
"""The flips at which doses are compared: where an edit begins to matter, and where it has done much."""
EQUIVALENT = (0.8, 1.25)
"""Ratios of doses within these bounds count as equal, the convention of bioequivalence (Schuirmann 1987)."""
SMALL, LARGE, NOISE = ("floor", "dead_zone"), "clip_both", "noise"
"""The families that erase small values, in two ways; large ones; and none in particular."""


class Path(NamedTuple):
    """One side of a family, walking outward; no edit comes first, with dose and flips 0 by definition."""

    fraction: Values  # [P]
    dose: Values  # [S, P]
    flips: Values  # [S, P]


class DosesAtLevel(NamedTuple):
    """The dose at which each network's flips reach a level, each [S]."""

    dose: Values  # inf where they never do, NaN where the dose there is not defined
    reached: Values  # the largest dose on the path, which a censored one exceeds

    @property
    def censored(self) -> Flags:
        """[S] whether the path ends before."""
        return np.isinf(self.dose)

    @property
    def missing(self) -> Flags:
        """[S] whether there is no dose to compare, as where dead units make an edit 0/0."""
        return np.isnan(self.dose)

    def take(self, seeds: Sequence[int]) -> DosesAtLevel:
        """The same of some seeds, given by their positions."""
        return DosesAtLevel(self.dose[list(seeds)], self.reached[list(seeds)])


class LogRatio(NamedTuple):
    """The logarithm of a ratio of doses, each [S]: between two ends, which are equal unless a dose is censored."""

    low: Values
    high: Values


class Ratio(NamedTuple):
    """A ratio of doses over seeds: its geometric mean, interval and tests.

    The mean lies between `at_least` and `at_most`, equal unless some of the `seeds` are `censored`; `missing` ones are
    left out. `low` and `high` bound it with the two-sided confidence. `p_less` and `p_greater` are one-sided, of "at
    least 1" and "at most 1"; `p_equivalent` is the larger of the two one-sided tests of "outside `EQUIVALENT`". With
    fewer than two seeds, or ratios that are all alike (`statistics.shows_spread`), interval and tests are NaN.
    """

    seeds: int
    censored: int
    missing: int
    at_least: float
    at_most: float
    low: float
    high: float
    p_less: float
    p_greater: float
    p_equivalent: float
    equivalent: bool

    @property
    def tested(self) -> bool:
        """Whether there is a test of every claim."""
        return not np.isnan([self.p_less, self.p_greater, self.p_equivalent]).any()


_NAN = float("nan")
_UNKNOWN = Ratio(0, 0, 0, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, equivalent=False)


class DoseComparison(NamedTuple):
    """The dose of the first family over that of the second, at equal flips."""

    level: float
    first: str
    second: str
    ratio: Ratio


class Verdict(NamedTuple):
    """What a network reads, the reason in words, and the p-values of both claims, each of which may be wrong with 1 -
    confidence at most."""

    answer: Literal["distance", "intensity", "neither"]
    reason: str
    p_distance: float
    p_intensity: float
    comparisons: tuple[DoseComparison, ...]


def path(fractions: Values, dose: Values, flips: Values, *, identity: float, side: Literal["below", "above"]) -> Path:
    """The points of a family's grid on one side of no edit, in their order outward.

    Args:
      fractions: the grid [P].
      dose: [S, P].
      flips: [S, P], fractions of the images.
      identity: the fraction that edits nothing.
      side: below `identity` or above it.

    Raises:
      InputError: for unlike shapes, an unknown side, or flips that are not fractions.
    """
    fractions, dose, flips = (np.asarray(values, np.float64) for values in (fractions, dose, flips))
    if dose.ndim != 2 or flips.shape != dose.shape or fractions.shape != dose.shape[1:]:
        raise InputError(
            f"dose: expected shapes [P], [S, P] and [S, P], got {fractions.shape}, {dose.shape} and {flips.shape}"
        )
    if not ((flips >= 0) & (flips <= 1)).all():
        raise InputError("flips: expected fractions from 0 to 1")
    walked = crossings.outward(fractions, identity, side)
    none = np.zeros((len(dose), 1))
    return Path(
        np.concatenate([[identity], fractions[walked]]),
        np.concatenate([none, dose[:, walked]], axis=1),
        np.round(np.concatenate([none, flips[:, walked]], axis=1), crossings.DECIMALS),
    )


def dose_at(path: Path, level: float) -> DosesAtLevel:
    """The dose at which flips first reach `level`, walking outward; linear in flips between two points.

    NaN where the dose is not defined at those points, or nowhere on a path that never gets there.
    """
    if not 0 < level <= 1:
        raise InputError(f"level: expected a positive fraction of flips, got {level}")
    level = crossings.checked_margin(level)
    crossing = crossings.first_crossing(path.flips, np.full(len(path.flips), level))
    beyond = np.where(np.isnan(path.dose[:, 1:]).all(axis=1), np.nan, np.inf)
    dose = np.where(crossing.reached, crossing.along(path.dose), beyond)
    return DosesAtLevel(dose, np.fmax.reduce(path.dose, axis=1))


def flips_at(path: Path, doses: Values) -> Values:
    """Flips [S, D] where each path first reaches doses [D], all positive; linear between points, NaN beyond its end."""
    doses = np.asarray(doses, np.float64)
    if not (doses > 0).all():
        raise InputError("doses: expected positive numbers")
    levels = np.broadcast_to(doses, (len(path.dose), len(doses)))
    return crossings.first_crossing(path.dose[:, None, :], levels).along(path.flips[:, None, :])


def log_ratio(numerator: DosesAtLevel, denominator: DosesAtLevel) -> LogRatio:
    """The log-ratio of two doses of the same seeds; a dose of 0, of what no dose shows, has none."""
    (low, high), (least, most) = _log_ends(numerator), _log_ends(denominator)
    return LogRatio(low - most, high - least)


def over(first: LogRatio, second: LogRatio) -> LogRatio:
    """The log of the ratio of two ratios, of the same seeds."""
    return LogRatio(first.low - second.high, first.high - second.low)


def summarise(ratio: LogRatio, confidence: float) -> Ratio:
    """Mean, interval and tests of log-ratios over seeds; see `Ratio`."""
    defined = ~(np.isnan(ratio.low) | np.isnan(ratio.high))
    low, high = (np.round(end[defined], crossings.DECIMALS) for end in ratio)
    seeds, missing = len(low), int((~defined).sum())
    censored = int((low != high).sum())
    if seeds == 0:
        return _UNKNOWN._replace(missing=missing)
    mean_low, mean_high = float(np.exp(low.mean())), float(np.exp(high.mean()))
    if seeds < 2:
        return _UNKNOWN._replace(seeds=seeds, censored=censored, missing=missing, at_least=mean_low, at_most=mean_high)
    bottom, top = np.round(np.log(EQUIVALENT), crossings.DECIMALS)
    # A claim holds where the mean of its column is negative: less, greater, and the two halves of equivalent.
    columns = np.stack([high, -low, high - top, bottom - low], axis=1)
    finite = np.isfinite(columns).all(axis=0)
    p = np.ones(4)
    if finite.any():
        p[finite] = statistics.one_sample_t(columns[:, finite], 0.0, "less")[1]
    p_equivalent = float(np.max(p[2:]))
    return Ratio(
        seeds,
        censored,
        missing,
        mean_low,
        mean_high,
        _bound(low, "low", confidence),
        _bound(high, "high", confidence),
        p_less=float(p[0]),
        p_greater=float(p[1]),
        p_equivalent=p_equivalent,
        equivalent=p_equivalent < 1 - confidence,
    )


def flips_margin(flips: Values, confidence: float) -> Values:
    """The smallest margin [P] below which the mean of flips [S, P] is shown to lie: its upper one-sided bound.

    Unedited networks flip nothing, so flips are paired differences as they are. NaN where seeds show no spread
    (`statistics.shows_spread`), as a single one does not, but 0 where no network flips anything.
    """
    rounded = np.round(np.asarray(flips, np.float64), crossings.DECIMALS).astype(np.float64)
    return statistics.upper_bound(rounded, confidence, exact=(rounded == 0).all(axis=0))


def robust_over(
    fractions: Values,
    passes: Flags,
    *,
    identity: float,
    sides: Sequence[str] = ("below", "above"),
    untested: Flags | None = None,
) -> tuple[float, float]:
    """The fractions around `identity` up to the last that passes before the first that fails, on each side.

    Walking outward and stopping there, each end holds with the confidence of a single point, without correction for
    their number (Hsu and Berger 1999): to err, the walk has to pass the first point that should fail.

    Args:
      fractions: the family's grid [P].
      passes: [P] which points pass.
      identity: the fraction that edits nothing, where each walk begins.
      sides: those to walk on; towards any other the end is `identity`.
      untested: [P] points that count, if they pass, only where another of their side is tested and passes.

    Raises:
      InputError: for an unknown side.
    """
    tested = passes if untested is None else passes & ~untested
    ends = {"below": identity, "above": identity}
    for side in sides:
        walked = crossings.outward(fractions, identity, side)
        failed = np.concatenate([[0.0], ~passes[walked]])
        within = walked[: crossings.first_crossing(failed, 1.0).before]
        if tested[within].any():
            ends[side] = float(fractions[within[-1]])
    return ends["below"], ends["above"]


def verdict(costs: Mapping[tuple[str, float], DosesAtLevel], confidence: float) -> Verdict:
    """What a network reads, from the doses that families need for each of `LEVELS`, keyed so, over the same seeds.

    "distance": erasing small values, by both of `SMALL`, needs less dose than erasing large ones and less than noise,
    at every level. "intensity": erasing large values needs less than erasing small ones, in both ways, and less than
    noise. Each is an intersection-union of one-sided paired t tests of log-ratios, all at 1 - confidence, so no
    correction is needed (Berger and Hsu 1996) and each claim is wrong with probability 1 - confidence at most.
    """
    families = (*SMALL, LARGE, NOISE)
    absent = [name for name in families if any((name, level) not in costs for level in LEVELS)]
    if absent:
        return Verdict("neither", f"not swept: {', '.join(absent)}", np.nan, np.nan, ())
    pairs = [(first, LARGE) for first in SMALL] + [(first, NOISE) for first in (*SMALL, LARGE)]
    ratios = {
        (level, first, second): summarise(log_ratio(costs[first, level], costs[second, level]), confidence)
        for level in LEVELS
        for first, second in pairs
    }
    # The p-value of an intersection-union test is the largest of its parts; a NaN stays one.
    p_distance = float(np.max([r.p_less for (_, first, _), r in ratios.items() if first in SMALL]))
    p_intensity = float(np.max([p for key, r in ratios.items() for p in _mirrored(key[1], key[2], r)]))
    comparisons = tuple(DoseComparison(*key, ratio) for key, ratio in ratios.items())
    answer: Literal["distance", "intensity", "neither"] = "neither"
    if p_distance < 1 - confidence:
        answer, reason = "distance", "erasing small values needs less dose than erasing large ones and than noise"
    elif p_intensity < 1 - confidence:
        answer, reason = "intensity", "erasing large values needs less dose than erasing small ones and than noise"
    else:
        reason = _reason([costs[name, level] for name in families for level in LEVELS], comparisons, confidence)
    return Verdict(answer, reason, p_distance, p_intensity, comparisons)


def _mirrored(first: str, second: str, ratio: Ratio) -> list[float]:
    """The part that a comparison has in the claim that large values are read."""
    return [ratio.p_greater] if second == LARGE else [ratio.p_less] if first == LARGE else []


def _reason(costs: list[DosesAtLevel], comparisons: tuple[DoseComparison, ...], confidence: float) -> str:
    """Why neither is shown, the plainest reason first."""
    if all(doses.censored.all() for doses in costs):
        return f"no edit changes {100 * min(LEVELS):g} % of predictions up to the end of its grid"
    seeds = min(comparison.ratio.seeds for comparison in comparisons)
    if seeds < 2:
        single = len(costs[0].dose) < 2
        return "one seed, and tests are over seeds" if single else "doses are defined for fewer than two seeds"
    untested = [comparison for comparison in comparisons if not comparison.ratio.tested]
    if untested:
        words = f"no test, since {all_seeds(seeds)} have the same ratios of doses"
        if len(untested) == len(comparisons):
            return words
        places = ", ".join(f"{each.first} to {each.second} at {100 * each.level:g} %" for each in untested)
        return f"{words} of {places}"
    alpha = 1 - confidence
    against = [comparison for comparison in comparisons if comparison.second == LARGE]
    if all(comparison.ratio.equivalent for comparison in against):
        return (
            "erasing small values and large ones needs equal doses, "
            f"within {EQUIVALENT[0]} to {EQUIVALENT[1]} of each other"
        )
    less = [comparison for comparison in against if comparison.ratio.p_less < alpha]
    greater = [comparison for comparison in against if comparison.ratio.p_greater < alpha]
    if less and greater:
        if {comparison.level for comparison in less} & {comparison.level for comparison in greater}:
            return f"{' and '.join(SMALL)} disagree: {_list(less, 'less')}, {_list(greater, 'more')}"
        return f"the levels disagree: {_list(less, 'less')}, {_list(greater, 'more')}"
    noise = [comparison for comparison in comparisons if comparison.second == NOISE]
    for decided, kind, beside in ((less, "small", SMALL), (greater, "large", (LARGE,))):
        if len(decided) == len(against):
            undecided = [
                comparison for comparison in noise if comparison.first in beside and not comparison.ratio.p_less < alpha
            ]
            other = {"small": "large", "large": "small"}[kind]
            return (
                f"erasing {kind} values needs less dose than erasing {other} ones, but is not shown to need less "
                f"than noise: "
                f"{', '.join(f'{comparison.first} at {100 * comparison.level:g} %' for comparison in undecided)}"
            )
    censored = sum(comparison.ratio.censored > 0 for comparison in comparisons)
    words = "undecided: "
    if less or greater:
        words += f"only {_list(less or greater, 'less' if less else 'more')}"
    else:
        words += "erasing small values is not shown to need another dose than erasing large ones"
    meet = "meets" if censored == 1 else "meet"
    return words + (f"; {censored} of {len(comparisons)} comparisons {meet} the end of a grid" if censored else "")


def _list(comparisons: list[DoseComparison], word: str) -> str:
    places = ", ".join(f"{comparison.first} at {100 * comparison.level:g} %" for comparison in comparisons)
    return f"{word} dose than {LARGE} for {places}"


def _log_ends(doses: DosesAtLevel) -> tuple[Values, Values]:
    low = np.where(doses.censored, doses.reached, doses.dose)
    defined = doses.censored | (doses.dose > 0)
    with np.errstate(divide="ignore"):
        low, high = np.log(low), np.log(doses.dose)
    return np.where(defined, low, np.nan), np.where(defined, high, np.nan)


def _bound(ends: Values, side: Literal["low", "high"], confidence: float) -> float:
    """One end of the interval of a ratio, from the ends of its logarithm, of which one may be infinite."""
    if np.isinf(ends).any():
        return 0.0 if side == "low" else float("inf")
    return float(np.exp(getattr(statistics.mean_interval(ends, confidence), side)))
