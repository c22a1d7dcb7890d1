"""The fair comparison for people and scripts: a sentence a network, tables for the terminal and in Markdown, JSON."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Group, RenderableType
from rich.text import Text

from jaxdist import formatting
from jaxdist.analysis import (
    EQUIVALENT,
    LEVELS,
    FairComparison,
    Finding,
    Ratio,
    Rho,
    dose_tables,
    dosed,
    preference,
)
from jaxdist.config import StatisticsConfig
from jaxdist.formatting import (
    MISSING,
    TWO_SEEDS,
    bracketed,
    counted,
    fraction,
    interval,
    number,
    p_value,
    percent,
    share,
    shortened,
)
from jaxdist.report import markdown, table
from jaxdist.report.table import Column, Table
from jaxdist.sweep import fitness

NO_INFORMATION = "The common scale{of} carries no information on this: its angular dose is 0 by construction."


def sentences(result: xr.DataTree, found: FairComparison) -> list[str]:
    """One sentence a network and site, with its numbers, and one of what carries no information."""
    split = dosed.chosen_split(found.swept)
    findings = [finding for finding in found.findings if finding.split == split]
    said = [sentence(result, found, finding) for finding in findings]
    scales = [sweep for sweep in found.swept if (sweep.series.traits.effect, sweep.series.split) == ("scale", split)]
    unseen = list(dict.fromkeys(sweep.series.network for sweep in scales if sweep.unseen))
    if not said or not unseen:
        return said
    of = "" if len(unseen) == len({sweep.series.network for sweep in scales}) else f" of {', '.join(unseen)}"
    return [*said, NO_INFORMATION.format(of=of)]


def sentence(result: xr.DataTree, found: FairComparison, one: Finding) -> str:
    """What was found of one network at one site and split: the verdict, its reason, and the numbers it is made of.

    Args:
      result: the result that was compared, for the name of its data.
      found: its fair comparison, whose costs are told as angular doses, 0 to 1.
      one: one of ``found.findings``.

    Returns:
      One line, such as "digits relu, dense0/pre, test images: reads distance (p 0.001): …"; "no verdict" where the
      families that a verdict compares were not swept.
    """
    verdict = one.verdict
    p = {"distance": verdict.p_distance, "intensity": verdict.p_intensity, "neither": np.nan}[verdict.answer]
    claim = f"reads {verdict.answer} (p {p_value(p)})" if np.isfinite(p) else "neither distance nor intensity is shown"
    if not verdict.comparisons:  # what was not swept for a verdict has none, which is no finding
        claim = "no verdict"
    text = f"{_place(result, one)}: {claim}: {verdict.reason}."
    costs = _of_place(found.costs, one)
    families = [name for name in (*preference.SMALL, preference.LARGE, preference.NOISE) if name in set(costs.family)]
    for level in LEVELS:
        rows = costs[costs.level == level].set_index("family")
        numbers = ", ".join(f"{name} {dose_of(rows.loc[name]).bound}" for name in families)
        if numbers:
            text += f" Dose for {fraction(level)} of predictions: {numbers}."
    if one.verdict.comparisons:
        missing = max(comparison.ratio.missing for comparison in one.verdict.comparisons)
        over = f"Medians of {counted(one.seeds, 'seed')}" if one.seeds > 1 else "One seed"
        if any(comparison.ratio.seeds == 2 and comparison.ratio.tested for comparison in one.verdict.comparisons):
            over += ", whose tests have 1 degree of freedom"
        text += f" {over}{f', {missing} without a defined dose left out' if missing else ''}"
        text += (
            "."
            if one.weighted
            else "; dose unweighted: the site is not known to reach the logits through one linear map."
        )
    low = next((each.series.at_chance for each in found.swept if each.place == one[:3]), np.zeros(1, bool))
    if low.any():
        text += (
            f" At chance on these images: {np.count_nonzero(low)} of {len(low)}; what flips and doses they have count."
        )
    return text


def _place(result: xr.DataTree, finding: Finding) -> str:
    data = str(result.attrs.get("data_name", ""))
    return f"{data} {finding.network}, {finding.site}, {finding.split} images".strip()


def _of_place(frame: pd.DataFrame, finding: Finding, gauge: str = "as_is") -> pd.DataFrame:
    """The rows of a frame at one finding's place, in one gauge."""
    if frame.empty:
        return frame
    place = (frame.network == finding.network) & (frame.site == finding.site) & (frame.split == finding.split)
    return frame[place & (frame.gauge == gauge)]


class Dose(NamedTuple):
    """The median dose that a share of flips takes, with its interval; infinite beyond the largest one `reached`."""

    median: float
    low: float
    high: float
    reached: float

    @property
    def bound(self) -> str:
        """The median, or what it exceeds."""
        if np.isnan(self.median):
            return MISSING
        if self.reached < dosed.UNSEEN:
            return "not reached" if np.isinf(self.median) else "dose 0"
        return f"> {_two(self.reached)}" if np.isinf(self.median) else _two(self.median)

    def __str__(self) -> str:
        has_interval = not np.isinf(self.low) and self.reached >= dosed.UNSEEN
        return bracketed(self.bound, self.low, self.high, _two) if has_interval else self.bound


def dose_of(row: Any) -> Dose:
    """The dose in a row of costs."""
    return Dose(row["median"], row.low, row.high, row.reached)


def _two(value: float) -> str:
    """A dose with two digits that count."""
    return "∞" if np.isinf(value) else f"{value:#.2g}"


def ratio_words(ratio: Ratio) -> str:
    """A ratio's mean with its interval; a bound where doses are censored."""
    least, most = (number(end, 2) for end in (ratio.at_least, ratio.at_most))
    if np.isnan(ratio.at_least) or (ratio.at_least == 0 and np.isinf(ratio.at_most)):
        return MISSING
    if ratio.at_least == ratio.at_most:
        text = least
    elif np.isinf(ratio.at_most):
        text = f"> {least}"
    else:
        text = f"< {most}" if ratio.at_least == 0 else f"{least} to {most}"
    return bracketed(text, ratio.low, ratio.high, lambda end: number(end, 2))


def answer(ratio: Ratio, options: StatisticsConfig, sides: int = 1) -> str:
    """What the tests of a ratio say, in a word: of a claim made beforehand, one side, or of either, 2.

    Nothing, "–", where seeds that are all alike allow no test.
    """
    if ratio.seeds > 1 and not ratio.tested:
        return MISSING
    alpha = (1 - options.confidence) / sides
    if ratio.equivalent:
        return "equal"
    return "less" if ratio.p_less < alpha else "more" if ratio.p_greater < alpha else "open"


def rendered(result: xr.DataTree, found: FairComparison, options: StatisticsConfig) -> RenderableType:
    """The sentences and compact tables of them, in at most 80 columns."""
    split = dosed.chosen_split(found.swept)
    parts: list[RenderableType] = [Text(said) for said in [*sentences(result, found), *fitness.notes(result)]]
    tables = [_robust_costs(found, finding, options) for finding in found.findings if finding.split == split]
    of_split = found._replace(rhos=tuple(r for r in found.rhos if r.split == split and r.gauge == "as_is"))
    tables += [_rhos_by_level(of_split, options)] if of_split.rhos else []
    parts += map(table.terminal, tables)
    return Group(*(each for part in parts for each in (part, Text())))


def _costs(comparison: FairComparison, finding: Finding) -> Table:
    """The dose of each edit at each level of flips."""
    rows = [
        [edit, *(dose_of(row) for _, row in part.sort_values("level").iterrows())]
        for (_, _, edit), part in _of_place(comparison.costs, finding).groupby(["family", "side", "edit"], sort=False)
    ]
    return Table("", [Column("edit"), *(Column(fraction(level)) for level in LEVELS)], rows)


def _robust_costs(comparison: FairComparison, finding: Finding, options: StatisticsConfig) -> Table:
    """The same, and how far the edit goes before it matters."""
    costs, robust = _costs(comparison, finding), _of_place(comparison.robust, finding)
    ends: dict[object, tuple[Any, Any]] = {
        r.family: (r.low, r.high) for r in robust.itertuples() if r.outcome == "flips"
    }
    edits = _of_place(comparison.costs, finding).groupby(["family", "side"], sort=False)
    reach = [ends[family][side == "above"] for (family, side), _ in edits]
    return Table(
        f"{finding.network}, {shortened(finding.site, 30)}, {finding.split} images",
        [*costs.columns, Column("robust to", fraction)],
        [[*row, end] for row, end in zip(costs.rows, reach, strict=True)],
        [
            "Angular dose at which so many predictions change, median with "
            f"{percent(options.confidence, 0)} % interval; robust to: the last fraction, walking outward, with less "
            f"than {percent(options.flips)} % changed"
        ],
    )


def _rhos_by_level(comparison: FairComparison, options: StatisticsConfig) -> Table:
    ratios, several = [each.ratio for each in comparison.rhos], len({each.site for each in comparison.rhos}) > 1
    rows: dict[str, list[Rho]] = {}
    for each in comparison.rhos:
        names = each.network + (f" / {each.against}" if each.against else "")
        site = f" {shortened(each.site, 16)}" if several else ""
        rows.setdefault(f"{names}{site}, {_offset(each)}", []).append(each)

    def said(cell: tuple[float, Rho]) -> str:
        return f"{ratio_words(cell[1].ratio)} {answer(cell[1].ratio, options, sides=2)}"

    return Table(
        "Rho: dose of clip over dose of offset, for equal flips",
        [Column("network, offset"), *(Column(fraction(level), said) for level in LEVELS)],
        [[label, *((each.ratio.at_least, each) for each in cells)] for label, cells in rows.items()],
        [
            f"Geometric means over seeds with {percent(options.confidence, 0)} % interval{_of_two(ratios)}; equal: "
            f"shown to be within {EQUIVALENT[0]} to {EQUIVALENT[1]}; less, more: than 1; open: none of these"
            f"{_untested(ratios)}"
        ],
    )


def _of_two(ratios: Iterable[Ratio]) -> str:
    """What is said of intervals, some of which are of two seeds."""
    return f" ({TWO_SEEDS})" if any(ratio.seeds == 2 and ratio.tested for ratio in ratios) else ""


def _untested(ratios: Iterable[Ratio]) -> str:
    """What is said of answers, some of which there is no test for."""
    return "; –: no test, since all seeds are alike" if any(r.seeds > 1 and not r.tested for r in ratios) else ""


def _offset(each: Rho) -> str:
    return "down" if each.side == "below" else "up"


def document(result: xr.DataTree, found: FairComparison, options: StatisticsConfig) -> str:
    """The whole comparison in Markdown, on every split, as ``tables/verdict.md`` holds it."""
    level = percent(options.confidence, 0)
    parts: list[str | Table] = [
        "# Verdict",
        "Does the network read distance or intensity? What is compared are angular doses at equal flips: an edit that "
        "needs less dose to change as many predictions costs more. *Distance*: erasing small values, by floor and by "
        "dead_zone, needs less dose than erasing large ones and less than noise, at 1 % and at 10 % of predictions. "
        "*Intensity* is the mirror. Each is an intersection-union of one-sided paired t tests, wrong with probability "
        f"{percent(1 - options.confidence, 1)} % at most; nothing is corrected over networks and sites.",
        *sentences(result, found),
        *fitness.notes(result),
    ]
    parts += _cautions(found)
    for finding in found.findings:
        parts += [f"## {finding.network}, {finding.site}, {finding.split} images", *_finding(found, finding, options)]
    if found.rhos:
        parts += [
            "## Rho",
            "The dose of clip over the dose of the offset at equal flips, each side of the offset by itself; networks "
            f"beside each other are paired by seed. Geometric means with {level} % intervals; equal means inside "
            f"{EQUIVALENT[0]} to {EQUIVALENT[1]}, by two one-sided tests.",
            _rhos(found, options),
        ]
    parts += _gauges(found, options, "## Gauges") if not found.gauges.empty else []
    return table.markdown(*parts)


def _cautions(comparison: FairComparison) -> list[str]:
    """What is to be said of ratios of two seeds, and of those that have no test."""
    ratios = [rho.ratio for rho in comparison.rhos]
    ratios += [pair.ratio for finding in comparison.findings for pair in finding.verdict.comparisons]
    untested = [ratio.seeds for ratio in ratios if not ratio.tested]
    return formatting.cautions((ratio.seeds for ratio in ratios if ratio.tested), untested)


_LEVEL = Column("flips %", functools.partial(fraction, unit=""), "level")


def _rhos(comparison: FairComparison, options: StatisticsConfig) -> Table:
    columns = [
        *map(Column, ("network", "against", "site", "split", "gauge")),
        Column("offset", take=_offset),
        _LEVEL,
        Column("rho", ratio_words, "ratio"),
        Column("answer", take=lambda each: answer(each.ratio, options, sides=2)),
        Column("p equal", p_value, "ratio.p_equivalent"),
    ]
    return table.of_rows("", comparison.rhos, columns)


def _comparisons(finding: Finding, options: StatisticsConfig) -> Table:
    columns = [
        _LEVEL,
        Column("dose of", take="first"),
        Column("over that of", take="second"),
        Column("ratio", ratio_words),
        Column("answer", take=lambda each: answer(each.ratio, options)),
        Column("p less", p_value, "ratio.p_less"),
        Column("p more", p_value, "ratio.p_greater"),
        Column("p equal", p_value, "ratio.p_equivalent"),
        Column("censored", share, operator.attrgetter("ratio.censored", "ratio.seeds")),
        Column("missing", take="ratio.missing"),
    ]
    return table.of_rows("", finding.verdict.comparisons, columns)


def _finding(comparison: FairComparison, finding: Finding, options: StatisticsConfig) -> Iterator[str | Table]:
    yield f"{finding.verdict.answer.capitalize()}: {finding.verdict.reason}."
    if finding.verdict.comparisons:
        yield _comparisons(finding, options)
    equal, robust = (_of_place(frame, finding) for frame in (comparison.equal, comparison.robust))
    yield "Angular dose at which so many predictions change, median with interval:"
    yield _costs(comparison, finding)
    yield "Percentage of predictions changed at equal dose, median (– where a seed's path ends before):"
    edits = equal.groupby(["family", "side", "edit"], sort=False)
    flips = [[edit, *part.flips] for (_, _, edit), part in edits]
    yield Table("", [Column("edit"), *(Column(f"{dose:g}", percent) for dose in dose_tables.EQUAL_DOSES)], flips)
    yield (
        f"Robust over these fractions, in percent: every point from no edit outward keeps flips below "
        f"{percent(options.flips)} % and the drop of accuracy below {percent(options.margin)} points, by "
        "one-sided tests that stop at the first failure. Each end holds by itself. Points where several seeds lose "
        "alike have no test and are passed where that loss is less:"
    )
    ends: list[list[object]] = [
        [family, *zip(part.low, part.high, strict=True)] for family, part in robust.groupby("family", sort=False)
    ]
    yield Table("", [Column("family"), Column("flips", _around), Column("accuracy", _around)], ends)
    yield from markdown.left_out(robust.assign(seeds=finding.seeds - robust.left_out.map(_count)), "Of accuracy it is")


def _around(ends: tuple[float, float]) -> str:
    """Fractions around no edit, in percent, where any network could be judged."""
    return formatting.MISSING if np.isnan(ends[0]) else f"[{fraction(ends[0], '')}, {fraction(ends[1], '')}]"


def _count(numbers: str) -> int:
    return len(numbers.split(", ")) if numbers else 0


def gauges(found: FairComparison, options: StatisticsConfig) -> str:
    """How far apart flips are when the units of an even activation are signed otherwise, in Markdown."""
    return table.markdown(*_gauges(found, options, "# Gauges"))


def _gauges(comparison: FairComparison, options: StatisticsConfig, title: str) -> list[str | Table]:
    frame = comparison.gauges
    names = [name for name in dosed.GAUGES if name in frame]
    untested = frame[[f"{name}_low" for name in names]].isna().any(axis=1)

    def flips(name: str) -> Column:
        ends = name, f"{name}_low", f"{name}_high"
        return Column(name, interval, operator.attrgetter(*ends))

    columns = [
        *map(Column, ("network", "site", "split", "family")),
        Column("fraction", fraction),
        *map(flips, names),
        Column("apart", percent),
        Column("at most", percent, "most_apart"),
    ]
    return [
        title,
        "An even activation does not see the sign of a unit, these edits do. Percentage of predictions changed, mean "
        f"with {percent(options.confidence, 0)} % interval over seeds, where units are as they were trained, "
        "averaged over random signs, or edited in absolute value; apart is the largest difference of the means, in "
        "points, there and at any fraction that all were swept at.",
        *formatting.cautions(frame.seeds[~untested], frame.seeds[untested]),
        table.of_rows("", frame.itertuples(), columns),
    ]


def json_of(result: xr.DataTree, found: FairComparison, options: StatisticsConfig) -> str:
    """Every number but those of tables/doses.csv as JSON; what is undefined or infinite is null."""
    frames = {"costs": found.costs, "equal_doses": found.equal, "robust": found.robust, "gauges": found.gauges}
    frames["rhos"] = dose_tables.rho_frame(found.rhos)
    verdicts = [
        {
            **{name: getattr(finding, name) for name in ("network", "site", "split", "seeds", "weighted")},
            **{
                name: table.plain(getattr(finding.verdict, name))
                for name in ("answer", "reason", "p_distance", "p_intensity")
            },
            "sentence": sentence(result, found, finding),
            "comparisons": [
                {"level": c.level, "first": c.first, "second": c.second} | table.plain(c.ratio)
                for c in finding.verdict.comparisons
            ],
        }
        for finding in found.findings
    ]
    content = {
        "data": str(result.attrs.get("data_name", "")),
        "confidence": options.confidence,
        "flips_margin": options.flips,
        "accuracy_margin": options.margin,
        "equivalent": list(EQUIVALENT),
        "verdicts": verdicts,
        "notes": fitness.notes(result),
        **{name: table.records(table.of_frame(frame)) for name, frame in frames.items()},
    }
    return table.document(content)
