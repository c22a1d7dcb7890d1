"""Two sides with networks of their own seeds: means, their difference, and whether it is within the margin."""

from __future__ import annotations

import pandas as pd

from jaxdist.analysis import equivalence, statistics
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.formatting import TWO_SEEDS, counted
from jaxdist.report.compare.pairs import ComparisonVerdict, Pairs, by_series


def points(pairs: Pairs, options: StatisticsConfig) -> pd.DataFrame:
    """One row a pair and point: mean accuracies of both sides, their difference b minus a with interval and tests.

    Accuracies and differences are fractions. `p_holm` is corrected over all points of all series, since any of them
    decides the verdict. `seeds` are those of the smaller side; where all seeds of a side are alike there is no test.

    Raises:
      InputError: if a side has fewer than two seeds.
    """
    frames = []
    for a, b in pairs.values():
        if min(len(a.seeds), len(b.seeds)) < 2:
            raise InputError(
                f"{a.network}: one side has {counted(len(a.seeds), 'seed')}, the other {len(b.seeds)}; networks of "
                "their own seeds need two or more on each side, not counting those at chance (if both sides hold the "
                "same networks, use --weights shared)"
            )
        welch = equivalence.welch(a.accuracy, b.accuracy, margin=options.margin, confidence=options.confidence)
        frames.append(
            pd.DataFrame(
                {
                    **a.labels,
                    "fraction": a.fraction,
                    "seeds": min(len(a.seeds), len(b.seeds)),
                    "a": a.accuracy.mean(axis=0),
                    "b": b.accuracy.mean(axis=0),
                    **welch._asdict(),
                }
            )
        )
    together = pd.concat(frames, ignore_index=True)
    return together.assign(p_holm=statistics.holm(together.p.to_numpy(), hypotheses=len(together)))


def cautions(points: pd.DataFrame) -> list[str]:
    """What is to be said of all intervals and tests, in words."""
    return [f"intervals and tests are, on a side, {TWO_SEEDS}"] if (points.seeds == 2).any() else []


def verdicts(points: pd.DataFrame, options: StatisticsConfig) -> list[ComparisonVerdict]:
    """Of each series: agree, differ, or not shown, where the seeds are too few to tell.

    "Agree" needs equivalence at every point, an intersection of tests that needs no correction (Berger & Hsu 1996);
    "differ" needs a point that is significantly different, corrected, and not equivalent.
    """
    judgements = []
    for what, part in by_series(points):
        worst = part.iloc[int(part.difference.abs().to_numpy().argmax())]
        margin = counted(f"{100 * options.margin:g}", "point")
        words = (
            f"largest mean difference B - A {100 * worst.difference:+.2f} points, at {100 * worst.fraction:.3g} %; "
            f"shown within {margin} at {part.equivalent.sum()} of {counted(len(part), 'point')}"
        )
        untested = part.p.isna()
        if untested.any():
            words += f"; no test at {untested.sum()}, where all seeds of a side are alike"
        elif not part.equivalent.all():
            words += f"; a margin of {100 * part.smallest_margin.max():.1f} would pass"
        differs = (part.p_holm < 1 - options.confidence) & ~part.equivalent
        verdict = "agree" if part.equivalent.all() else "differ" if differs.any() else "not shown"
        judgements.append(ComparisonVerdict(what, verdict, words))
    return judgements
