"""The fair comparison as data frames: doses of every family, what flips cost in dose, ratios, robustness, verdicts.

Frames hold fractions; a gauge is as `jaxdist.analysis.dosed` says.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist.analysis import dosed, one_network, preference, statistics, tables
from jaxdist.analysis.dosed import Place, Swept
from jaxdist.analysis.preference import LEVELS, DosesAtLevel, Ratio, Verdict
from jaxdist.analysis.series import Series
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.types import Values

PLACE = ("network", "site", "split", "family", "gauge")
COSTS = (*PLACE, "side", "edit", "level", *statistics.MedianInterval._fields, "reached", "seeds", "censored", "missing")
EQUAL = (*PLACE, "side", "edit", "dose", "flips", "least", "most", "seeds")
ROBUST = (*PLACE, "outcome", "margin", "low", "high", "over", "left_out")
"""The columns of frames, which they have without rows too, as where every family edits everywhere."""
EQUAL_DOSES = (0.05, 0.1, 0.2, 0.3, 0.5)


class Rho(NamedTuple):
    """The dose at which clip costs flips over that at which one side of the offset does, or a ratio of two such."""

    network: str
    against: str  # the network whose rho divides it, paired by seed; empty for rho itself
    site: str
    split: str
    gauge: str
    side: str
    level: float
    ratio: Ratio


class Finding(NamedTuple):
    """The verdict on one network at one site on one split."""

    network: str
    site: str
    split: str
    seeds: int
    weighted: bool
    verdict: Verdict


class FairComparison(NamedTuple):
    """All that is said of a result with doses, as frames and verdicts."""

    swept: tuple[Swept, ...]
    doses: pd.DataFrame
    costs: pd.DataFrame
    equal: pd.DataFrame
    robust: pd.DataFrame
    gauges: pd.DataFrame
    rhos: tuple[Rho, ...]
    findings: tuple[Finding, ...]

    def at(self, site: str) -> FairComparison:
        """The same of one site; raises `InputError` that lists the sites if there is no such."""
        sites = list(dict.fromkeys(finding.site for finding in self.findings))
        if site not in sites:
            raise InputError(f"site: expected one with doses ({', '.join(sites) or 'there are none'}), got {site!r}")

        def at_site(frame: pd.DataFrame) -> pd.DataFrame:
            return frame if frame.empty else frame[frame.site == site]

        return FairComparison(
            tuple(sweep for sweep in self.swept if sweep.series.site == site),
            at_site(self.doses),
            at_site(self.costs),
            at_site(self.equal),
            at_site(self.robust),
            at_site(self.gauges),
            tuple(rho for rho in self.rhos if rho.site == site),
            tuple(finding for finding in self.findings if finding.site == site),
        )


def compare(result: xr.DataTree, options: StatisticsConfig) -> FairComparison:
    """Compare the edits of a result; raises `InputError` if it has no doses."""
    sweeps = _swept(result)
    with_doses = _with_doses(sweeps)
    return FairComparison(
        tuple(sweeps),
        doses(sweeps),
        costs(with_doses, options),
        equal_doses(with_doses),
        robust(sweeps, options),
        gauges(sweeps, options),
        tuple(rhos(with_doses, options)),
        tuple(findings(with_doses, options)),
    )


def outline(result: xr.DataTree, options: StatisticsConfig) -> FairComparison:
    """The part of `compare` that sentences are made of, on the split that they are about; its other frames are empty.

    Raises:
      InputError: if the result has no doses.
    """
    sweeps = _swept(result)
    split = dosed.chosen_split(sweeps)
    of_split = [sweep for sweep in sweeps if (sweep.gauge, sweep.series.split) == ("as_is", split)]
    with_doses, nothing = _with_doses(of_split), pd.DataFrame()
    verdicts = tuple(findings(with_doses, options))
    return FairComparison(tuple(of_split), nothing, costs(with_doses, options), nothing, nothing, nothing, (), verdicts)


def _swept(result: xr.DataTree) -> list[Swept]:
    sweeps = dosed.swept(result)
    if not sweeps:
        raise InputError("the result holds no doses; sweep it again with --sweep.dose true")
    return sweeps


def _with_doses(sweeps: Sequence[Swept]) -> list[Swept]:
    """Those that have doses: all sites edited together do not."""
    return [sweep for sweep in sweeps if not np.isnan(sweep.dose).all()]


def doses(found: Sequence[Swept]) -> pd.DataFrame:
    """One row a network, seed, site, split, family, gauge and fraction: doses, flips and the accuracy lost."""
    frames = []
    for sweep in found:
        seeds, points = sweep.dose.shape
        frames.append(
            pd.DataFrame(
                {
                    "network": sweep.series.network,
                    "seed": np.repeat(sweep.series.seeds, points),
                    "site": sweep.series.site,
                    "split": sweep.series.split,
                    "family": sweep.series.family,
                    "gauge": sweep.gauge,
                    "fraction": np.tile(sweep.series.fraction, seeds),
                    **{
                        name: getattr(sweep, name).ravel() for name in ("dose", "rms", "rms_plain", "flips", "flips_sd")
                    },
                    "drop": sweep.series.drop.ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def costs(found: Sequence[Swept], options: StatisticsConfig) -> pd.DataFrame:
    """One row a family, gauge, side and level of flips: the median dose that it takes, with its interval over seeds.

    Infinite where the median network never gets there; then every `censored` one exceeds its own largest dose, of which
    `reached` is the least. Networks without a dose there are `missing` and left out.
    """
    rows = []
    for sweep, level in itertools.product(found, LEVELS):
        for side, path in sweep.paths():
            taken = preference.dose_at(path, level)
            values = taken.dose[~taken.missing]
            undefined = statistics.MedianInterval(np.nan, np.nan, np.nan)
            middle = statistics.median_interval(values, options.confidence) if len(values) else undefined
            rows.append(
                {
                    **_labels(sweep),
                    "side": side,
                    "edit": sweep.series.traits.outward(side),
                    "level": level,
                    **middle._asdict(),
                    "reached": np.nan if taken.missing.all() else taken.reached[~taken.missing].min(),
                    "seeds": len(values),
                    "censored": int(taken.censored.sum()),
                    "missing": int(taken.missing.sum()),
                }
            )
    return pd.DataFrame(rows, columns=list(COSTS))


def equal_doses(found: Sequence[Swept]) -> pd.DataFrame:
    """One row a family, gauge, side and dose: the median flips there, NaN where not all seeds' paths get there."""
    rows = []
    for sweep in found:
        for side, path in sweep.paths():
            flips = preference.flips_at(path, np.array(EQUAL_DOSES))
            for dose, at_dose in zip(EQUAL_DOSES, flips.T, strict=True):
                reached = ~np.isnan(at_dose)
                rows.append(
                    {
                        **_labels(sweep),
                        "side": side,
                        "edit": sweep.series.traits.outward(side),
                        "dose": dose,
                        "flips": np.median(at_dose) if reached.all() else np.nan,
                        "least": at_dose[reached].min(initial=np.inf) if reached.all() else np.nan,
                        "most": at_dose[reached].max(initial=-np.inf) if reached.all() else np.nan,
                        "seeds": int(reached.sum()),
                    }
                )
    return pd.DataFrame(rows, columns=list(EQUAL))


def robust(found: Sequence[Swept], options: StatisticsConfig) -> pd.DataFrame:
    """One row a family and outcome: the fractions around no edit over which the loss is shown to stay in the margin.

    Over seeds, or over images of a single network. Each end holds with `options.confidence`. Where all of several seeds
    lose alike there is no test: a walk that has passed one goes on as long as that loss is within the margin. Of
    accuracy without seeds at chance, which `left_out` lists; NaN where there are no others.
    """
    rows = []
    for sweep in found:
        series = sweep.series
        if series.identity is None:
            continue
        judged = series.judged
        for outcome, margin, smallest, of, losses in (
            ("flips", options.flips, _flips_margin(sweep, options), series, sweep.flips),
            ("accuracy", options.margin, tables.corrected_of(judged, options).smallest_margin, judged, judged.drop),
        ):
            low, high = _robust_over(series, series.identity, losses, smallest, margin)
            where = {"low": low, "high": high, "over": tables.over(of if len(of.seeds) else series)}
            out = tables.left_out(series) if outcome == "accuracy" else ""
            rows.append({**_labels(sweep), "outcome": outcome, "margin": margin, **where, "left_out": out})
    return pd.DataFrame(rows, columns=list(ROBUST))


def _robust_over(
    series: Series, identity: float, losses: Values, smallest: Values, margin: float
) -> tuple[float, float]:
    """`preference.robust_over` of losses [S, P] with their smallest margins [P]; NaN without seeds."""
    if not len(losses):
        return np.nan, np.nan
    alike = ~statistics.shows_spread(losses) & (len(losses) > 1)
    within = np.where(alike, losses[0], smallest) < margin
    sides = series.traits.sides
    return preference.robust_over(series.fraction, within, identity=identity, sides=sides, untested=alike)


def _flips_margin(sweep: Swept, options: StatisticsConfig) -> Values:
    if sweep.series.flipped is None:
        return preference.flips_margin(sweep.flips, options.confidence)
    return _over_images(sweep.series.flipped, options.flips, options)


def _over_images(images: one_network.Images, margin: float, options: StatisticsConfig) -> Values:
    return one_network.corrected(images, margin=margin, confidence=options.confidence).smallest_margin


def gauges(found: Sequence[Swept], options: StatisticsConfig) -> pd.DataFrame:
    """One row a family and fraction of networks in several gauges: mean flips in each, with intervals over seeds.

    `apart` is the largest difference of the means there, `most_apart` that at any fraction that all were swept
    at. Empty where no other gauge than the paper's was swept.
    """
    together: dict[tuple[Place, str], dict[str, Swept]] = {}
    for sweep in found:
        together.setdefault((sweep.place, sweep.series.family), {})[sweep.gauge] = sweep
    rows = []
    for ((network, site, split), family), by_gauge in together.items():
        if len(by_gauge) < 2:
            continue
        # Other gauges may have been swept at some points of the grid only.
        grid = functools.reduce(np.intersect1d, [sweep.series.fraction for sweep in by_gauge.values()])
        if len(grid) == 0:
            continue
        means = {
            gauge: statistics.mean_interval(sweep.flips[:, np.isin(sweep.series.fraction, grid)], options.confidence)
            for gauge, sweep in by_gauge.items()
        }
        apart = np.ptp([interval.mean for interval in means.values()], axis=0)
        fractions = next(iter(by_gauge.values())).series.traits.compared_at
        for at in dict.fromkeys(int(np.abs(grid - fraction).argmin()) for fraction in fractions):
            row = {"network": network, "site": site, "split": split, "family": family, "fraction": float(grid[at])}
            row["seeds"] = min(len(sweep.flips) for sweep in by_gauge.values())
            for gauge, interval in means.items():
                row |= {gauge: interval.mean[at], f"{gauge}_low": interval.low[at], f"{gauge}_high": interval.high[at]}
            rows.append({**row, "apart": apart[at], "most_apart": apart.max()})
    return pd.DataFrame(rows)


def rhos(found: Sequence[Swept], options: StatisticsConfig, levels: Sequence[float] = LEVELS) -> Iterator[Rho]:
    """Rho of every network, gauge, side of the offset and level; at `LEVELS` networks are also compared, by seed."""
    paths = {
        (*sweep.place, sweep.gauge, sweep.series.family, side): (sweep.series.seeds, path)
        for sweep in found
        if sweep.series.family in ("clip", "offset")
        for side, path in sweep.paths()
    }
    ratios: dict[tuple[str, str, str, float], dict[str, tuple[Any, preference.LogRatio]]] = {}
    for network, site, split, gauge, family, side in paths:
        clip = paths.get((network, site, split, gauge, "clip", "below"))
        if family != "offset" or clip is None:
            continue
        seeds, offset = paths[network, site, split, gauge, family, side]
        for level in levels:
            ratio = preference.log_ratio(preference.dose_at(clip[1], level), preference.dose_at(offset, level))
            yield Rho(network, "", site, split, gauge, side, level, preference.summarise(ratio, options.confidence))
            if gauge == "as_is":
                ratios.setdefault((site, split, side, level), {})[network] = seeds, ratio
    for (site, split, side, level), by_network in ratios.items():
        for (first, (seeds, ratio)), (second, (others, other)) in itertools.combinations(by_network.items(), 2):
            _, mine, theirs = np.intersect1d(seeds, others, return_indices=True)
            paired = preference.over(
                preference.LogRatio(*(end[mine] for end in ratio)), preference.LogRatio(*(end[theirs] for end in other))
            )
            summary = preference.summarise(paired, options.confidence)
            yield Rho(first, second, site, split, "as_is", side, level, summary)


def findings(found: Sequence[Swept], options: StatisticsConfig) -> Iterator[Finding]:
    """The verdict on every network, site and split, from the families as they are.

    None of the four families that it needs depends on the signs of an even activation's units.
    """
    together: dict[Place, list[Swept]] = {}
    for sweep in found:
        if sweep.gauge == "as_is":
            together.setdefault(sweep.place, []).append(sweep)
    for place, parts in together.items():
        taken: dict[tuple[str, float], DosesAtLevel] = {}
        for sweep in parts:
            if sweep.series.family in (*preference.SMALL, preference.LARGE, preference.NOISE):
                for _, path in sweep.paths():
                    taken |= {(sweep.series.family, level): preference.dose_at(path, level) for level in LEVELS}
        seeds = max(len(sweep.series.seeds) for sweep in parts)
        weighted = all(sweep.weighted for sweep in parts)
        yield Finding(*place, seeds, weighted, preference.verdict(taken, options.confidence))


def rho_frame(found: Sequence[Rho]) -> pd.DataFrame:
    """The ratios as a frame, one row each."""
    return pd.DataFrame([{**rho._asdict(), **rho.ratio._asdict()} for rho in found]).drop(
        columns="ratio", errors="ignore"
    )


def _labels(sweep: Swept) -> dict[str, str]:
    network, site, split = sweep.place
    return {"network": network, "site": site, "split": split, "family": sweep.series.family, "gauge": sweep.gauge}
