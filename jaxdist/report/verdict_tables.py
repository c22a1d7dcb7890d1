"""The fair comparison in Markdown: the verdicts with all that they are made of, and how far gauges are apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from jaxdist import formatting
from jaxdist.analysis import EQUIVALENT, LEVELS, FairComparison, Finding, Rho, dose_tables, dosed, tables, verdicts
from jaxdist.config import StatisticsConfig
from jaxdist.report import markdown
from jaxdist.sweep import fitness


def verdict(result: xr.DataTree, found: FairComparison, options: StatisticsConfig) -> str:
    """The whole comparison in Markdown, on every split, as ``tables/verdict.md`` holds it."""
    level = tables.percent(options.confidence, 0)
    parts = [
        "# Verdict",
        "Does the network read distance or intensity? What is compared are angular doses at equal flips: an edit that "
        "needs less dose to change as many predictions costs more. *Distance*: erasing small values, by floor and by "
        "dead_zone, needs less dose than erasing large ones and less than noise, at 1 % and at 10 % of predictions. "
        "*Intensity* is the mirror. Each is an intersection-union of one-sided paired t tests, wrong with probability "
        f"{tables.percent(1 - options.confidence, 1)} % at most; nothing is corrected over networks and sites.",
        *verdicts.sentences(result, found),
        *fitness.notes(result),
    ]
    parts += _cautions(found)
    for one in found.findings:
        parts += [f"## {one.network}, {one.site}, {one.split} images", *_finding(found, one, options)]
    if found.rhos:
        parts += [
            "## Rho",
            "The dose of clip over the dose of the offset at equal flips, each side of the offset by itself; networks "
            f"beside each other are paired by seed. Geometric means with {level} % intervals; equal means inside "
            f"{EQUIVALENT[0]} to {EQUIVALENT[1]}, by two one-sided tests.",
            markdown.grid(
                [_rho_row(each, options) for each in found.rhos],
                ["network", "against", "site", "split", "gauge", "offset", "flips %", "rho", "answer", "p equal"],
            ),
        ]
    parts += [gauges(found, options, "## Gauges")] if not found.gauges.empty else []
    return "\n\n".join(parts).rstrip() + "\n"


def _cautions(found: FairComparison) -> list[str]:
    """What is to be said of ratios of two seeds, and of those that have no test."""
    ratios = [one.ratio for one in found.rhos]
    ratios += [comparison.ratio for one in found.findings for comparison in one.verdict.comparisons]
    untested = [ratio.seeds for ratio in ratios if not ratio.tested]
    return formatting.cautions((ratio.seeds for ratio in ratios if ratio.tested), untested)


def _finding(found: FairComparison, one: Finding, options: StatisticsConfig) -> Iterator[str]:
    yield f"{one.verdict.answer.capitalize()}: {one.verdict.reason}."
    if one.verdict.comparisons:
        yield markdown.grid(
            [
                [
                    f"{100 * c.level:g}",
                    c.first,
                    c.second,
                    verdicts.ratio_words(c.ratio),
                    verdicts.answer(c.ratio, options),
                ]
                + [tables.p_value(p) for p in (c.ratio.p_less, c.ratio.p_greater, c.ratio.p_equivalent)]
                + [f"{c.ratio.censored}/{c.ratio.seeds}", str(c.ratio.missing)]
                for c in one.verdict.comparisons
            ],
            [
                "flips %",
                "dose of",
                "over that of",
                "ratio",
                "answer",
                "p less",
                "p more",
                "p equal",
                "censored",
                "missing",
            ],
        )
    costs, equal, robust = (verdicts.here(frame, one) for frame in (found.costs, found.equal, found.robust))
    yield "Angular dose at which so many predictions change, median with interval:"
    rows = [
        [
            str(edit),
            *(verdicts.dose(row, interval=True) for _, row in part.sort_values("level").iterrows()),
        ]
        for (_, _, edit), part in costs.groupby(["family", "side", "edit"], sort=False)
    ]
    yield markdown.grid(rows, ["edit", *(f"{100 * level:g} %" for level in LEVELS)])
    yield "Percentage of predictions changed at equal dose, median (– where a seed's path ends before):"
    rows = [
        [str(edit), *map(tables.percent, part.flips)]
        for (_, _, edit), part in equal.groupby(["family", "side", "edit"], sort=False)
    ]
    yield markdown.grid(rows, ["edit", *(f"{dose:g}" for dose in dose_tables.EQUAL_DOSES)])
    yield (
        f"Robust over these fractions, in percent: every point from no edit outward keeps flips below "
        f"{tables.percent(options.flips)} % and the drop of accuracy below {tables.percent(options.margin)} points, by "
        "one-sided tests that stop at the first failure. Each end holds by itself. Points where several seeds lose "
        "alike have no test and are passed where that loss is less:"
    )
    rows = [
        [str(family), *(_around(low, high) for low, high in part[["low", "high"]].to_numpy())]
        for family, part in robust.groupby("family", sort=False)
    ]
    yield markdown.grid(rows, ["family", "flips", "accuracy"])
    yield from markdown.left_out(robust.assign(seeds=one.seeds - robust.left_out.map(_count)), "Of accuracy it is")


def _around(low: float, high: float) -> str:
    """Fractions around no edit, in percent; – where no network could be judged."""
    return "–" if np.isnan(low) else f"[{100 * low:.4g}, {100 * high:.4g}]"


def _count(numbers: str) -> int:
    return len(numbers.split(", ")) if numbers else 0


def gauges(found: FairComparison, options: StatisticsConfig, title: str = "# Gauges") -> str:
    """How far apart flips are when the units of an even activation are signed otherwise, in Markdown."""
    frame = found.gauges
    names = [name for name in dosed.GAUGES if name in frame]
    untested = frame[[f"{name}_low" for name in names]].isna().any(axis=1)
    parts = [
        title,
        "An even activation does not see the sign of a unit, these edits do. Percentage of predictions changed, mean "
        f"with {tables.percent(options.confidence, 0)} % interval over seeds, where units are as they were trained, "
        "averaged over random signs, or edited in absolute value; apart is the largest difference of the means, in "
        "points, there and at any fraction that all were swept at.",
        *formatting.cautions(frame.seeds[~untested], frame.seeds[untested]),
    ]
    rows = []
    for row in frame.to_dict("records"):
        cells = []
        for name in names:
            bounds = (row[f"{name}_low"], row[f"{name}_high"])
            interval = "" if np.isnan(bounds).any() else f" [{', '.join(map(tables.percent, bounds))}]"
            cells.append(f"{tables.percent(row[name])}{interval}")
        where = [row["network"], row["site"], row["split"], row["family"], f"{100 * row['fraction']:.4g} %"]
        rows.append([*where, *cells, tables.percent(row["apart"]), tables.percent(row["most_apart"])])
    headers = ["network", "site", "split", "family", "fraction", *names, "apart", "at most"]
    return "\n\n".join([*parts, markdown.grid(rows, headers)]) + "\n"


def _rho_row(each: Rho, options: StatisticsConfig) -> list[str]:
    side = "down" if each.side == "below" else "up"
    place = [each.network, each.against, each.site, each.split, each.gauge, side, f"{100 * each.level:g}"]
    return [
        *place,
        verdicts.ratio_words(each.ratio),
        verdicts.answer(each.ratio, options, sides=2),
        tables.p_value(each.ratio.p_equivalent),
    ]
