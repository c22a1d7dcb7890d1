"""The fair comparison in words: a sentence a network, tables for the terminal, and all numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxdist.analysis import dose_tables, dosed, preference, tables
from jaxdist.analysis.dose_tables import FairComparison, Finding, Rho
from jaxdist.analysis.preference import EQUIVALENT, LEVELS, Ratio
from jaxdist.config import StatisticsConfig
from jaxdist.formatting import TWO_SEEDS, counted
from jaxdist.sweep import fitness

NO_INFORMATION = "The common scale{of} carries no information on this: its angular dose is 0 by construction."


def sentences(result: xr.DataTree, found: FairComparison) -> list[str]:
    """One sentence a network and site, with its numbers, and one of what carries no information."""
    split = dosed.chosen_split(found.swept)
    shown = [one for one in found.findings if one.split == split]
    said = [sentence(result, found, one) for one in shown]
    scales = [one for one in found.swept if (one.series.traits.effect, one.series.split) == ("scale", split)]
    unseen = list(dict.fromkeys(one.series.network for one in scales if one.unseen))
    if not said or not unseen:
        return said
    of = "" if len(unseen) == len({one.series.network for one in scales}) else f" of {', '.join(unseen)}"
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
    claim = (
        f"reads {verdict.answer} (p {tables.p_value(p)})"
        if np.isfinite(p)
        else "neither distance nor intensity is shown"
    )
    if not verdict.comparisons:  # what was not swept for a verdict has none, which is no finding
        claim = "no verdict"
    text = f"{_place(result, one)}: {claim}: {verdict.reason}."
    costs = here(found.costs, one)
    families = [name for name in (*preference.SMALL, preference.LARGE, preference.NOISE) if name in set(costs.family)]
    for level in LEVELS:
        rows = costs[costs.level == level].set_index("family")
        numbers = ", ".join(f"{name} {dose(rows.loc[name])}" for name in families)
        if numbers:
            text += f" Dose for {100 * level:g} % of predictions: {numbers}."
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


def _place(result: xr.DataTree, one: Finding) -> str:
    data = str(result.attrs.get("data_name", ""))
    return f"{data} {one.network}, {one.site}, {one.split} images".strip()


def here(frame: pd.DataFrame, one: Finding, gauge: str = "as_is") -> pd.DataFrame:
    """The rows of a frame at one finding's place, in one gauge."""
    if frame.empty:
        return frame
    place = (frame.network == one.network) & (frame.site == one.site) & (frame.split == one.split)
    return frame[place & (frame.gauge == gauge)]


def rendered(result: xr.DataTree, found: FairComparison, options: StatisticsConfig) -> RenderableType:
    """The sentences and compact tables of them, in at most 80 columns."""
    split = dosed.chosen_split(found.swept)
    parts: list[RenderableType] = []
    for sentence in [*sentences(result, found), *fitness.notes(result)]:
        parts += [Text(sentence), Text()]
    for one in (each for each in found.findings if each.split == split):
        parts.append(_table(found, one, options))
    shown = [each for each in found.rhos if each.split == split and each.gauge == "as_is"]
    if shown:
        parts.append(_rho_table(shown, options))
    return Group(*parts)


def _table(found: FairComparison, one: Finding, options: StatisticsConfig) -> Table:
    level = tables.percent(options.confidence, 0)
    table = Table(
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title=f"{one.network}, {tables.shortened(one.site, 30)}, {one.split} images",
        caption=f"Angular dose at which so many predictions change, median with {level} % interval; robust to: the "
        f"last fraction, walking outward, with less than {tables.percent(options.flips)} % changed",
    )
    table.add_column("edit", no_wrap=True)
    for share in LEVELS:
        table.add_column(f"{100 * share:g} %", justify="right")
    table.add_column("robust to", justify="right")
    costs, robust = here(found.costs, one), here(found.robust, one)
    for (family, side), rows in costs.groupby(["family", "side"], sort=False):
        row = robust[(robust.family == family) & (robust.outcome == "flips")].iloc[0]
        end = row.low if side == "below" else row.high
        cells = [dose(each, interval=True) for _, each in rows.sort_values("level").iterrows()]
        table.add_row(rows["edit"].iloc[0], *cells, f"{100 * end:.4g} %")
    return table


def _rho_table(shown: Sequence[Rho], options: StatisticsConfig) -> Table:
    table = Table(
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title="Rho: dose of clip over dose of offset, for equal flips",
        caption=f"Geometric means over seeds with {tables.percent(options.confidence, 0)} % interval"
        f"{_of_two(each.ratio for each in shown)}; equal: shown to "
        f"be within {EQUIVALENT[0]} to {EQUIVALENT[1]}; less, more: than 1; open: none of these"
        f"{_untested(each.ratio for each in shown)}",
    )
    several = len({each.site for each in shown}) > 1
    table.add_column("network, offset")
    for share in LEVELS:
        table.add_column(f"{100 * share:g} %", justify="right")
    for label, cells in _rho_rows(shown, options, several):
        table.add_row(label, *cells)
    return table


def _of_two(ratios: Iterable[Ratio]) -> str:
    """What is said of intervals, some of which are of two seeds."""
    return f" ({TWO_SEEDS})" if any(ratio.seeds == 2 and ratio.tested for ratio in ratios) else ""


def _untested(ratios: Iterable[Ratio]) -> str:
    """What is said of answers, some of which there is no test for."""
    return "; –: no test, since all seeds are alike" if any(r.seeds > 1 and not r.tested for r in ratios) else ""


def _rho_rows(shown: Sequence[Rho], options: StatisticsConfig, several_sites: bool) -> Iterator[tuple[str, list[str]]]:
    together: dict[str, dict[float, Ratio]] = {}
    for each in shown:
        names = each.network + (f" / {each.against}" if each.against else "")
        site = f" {tables.shortened(each.site, 16)}" if several_sites else ""
        label = f"{names}{site}, {'down' if each.side == 'below' else 'up'}"
        together.setdefault(label, {})[each.level] = each.ratio
    for label, ratios in together.items():
        yield label, [f"{ratio_words(ratios[level])} {answer(ratios[level], options, sides=2)}" for level in LEVELS]


def json_of(result: xr.DataTree, found: FairComparison, options: StatisticsConfig) -> str:
    """Every number but those of tables/doses.csv as JSON; what is undefined or infinite is null."""
    frames = {"costs": found.costs, "equal_doses": found.equal, "robust": found.robust, "gauges": found.gauges}
    frames["rhos"] = dose_tables.rho_frame(found.rhos)
    verdicts = [
        {
            **{name: getattr(one, name) for name in ("network", "site", "split", "seeds", "weighted")},
            **{name: _plain(getattr(one.verdict, name)) for name in ("answer", "reason", "p_distance", "p_intensity")},
            "sentence": sentence(result, found, one),
            "comparisons": [
                {"level": c.level, "first": c.first, "second": c.second}
                | {name: _plain(value) for name, value in c.ratio._asdict().items()}
                for c in one.verdict.comparisons
            ],
        }
        for one in found.findings
    ]
    whole = {
        "data": str(result.attrs.get("data_name", "")),
        "confidence": options.confidence,
        "flips_margin": options.flips,
        "accuracy_margin": options.margin,
        "equivalent": list(EQUIVALENT),
        "verdicts": verdicts,
        "notes": fitness.notes(result),
        **{name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in frames.items()},
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def dose(row: Any, *, interval: bool = False) -> str:
    """A median dose of a row of costs, with a bound where it is censored."""
    if np.isnan(row["median"]):
        return "–"
    if row.reached < dosed.UNSEEN:
        return "not reached" if np.isinf(row["median"]) else "dose 0"
    text = f"> {_two(row.reached)}" if np.isinf(row["median"]) else _two(row["median"])
    if not interval or np.isnan(row.low) or np.isinf(row.low):
        return text
    return f"{text} [{_two(row.low)}, {_two(row.high)}]"


def _two(value: float) -> str:
    """A dose with two digits that count."""
    return "∞" if np.isinf(value) else f"{value:#.2g}"


def ratio_words(ratio: Ratio) -> str:
    """A ratio's mean with its interval; a bound where doses are censored."""
    if np.isnan(ratio.at_least):
        return "–"
    if ratio.at_least == ratio.at_most:
        text = f"{ratio.at_least:.2f}"
    elif np.isinf(ratio.at_most):
        text = f"> {ratio.at_least:.2f}" if ratio.at_least > 0 else "–"
    else:
        text = f"< {ratio.at_most:.2f}" if ratio.at_least == 0 else f"{ratio.at_least:.2f} to {ratio.at_most:.2f}"
    if np.isnan([ratio.low, ratio.high]).any() or text == "–":
        return text
    return f"{text} [{ratio.low:.2f}, {'∞' if np.isinf(ratio.high) else f'{ratio.high:.2f}'}]"


def answer(ratio: Ratio, options: StatisticsConfig, sides: int = 1) -> str:
    """What the tests of a ratio say, in a word: of a claim made beforehand, one side, or of either, 2.

    Nothing, "–", where seeds that are all alike allow no test.
    """
    if ratio.seeds > 1 and not ratio.tested:
        return "–"
    alpha = (1 - options.confidence) / sides
    if ratio.equivalent:
        return "equal"
    return "less" if ratio.p_less < alpha else "more" if ratio.p_greater < alpha else "open"
