"""What a run folder shows: tables in Markdown and CSV, the figures, and the page."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from jaxdist import files
from jaxdist.analysis import breakdowns, dose_tables, dosed, every_series, metric_tables, tables, threshold_tables
from jaxdist.compute import hosts
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.formatting import counted, percent, shortened
from jaxdist.networks import targets
from jaxdist.perturbations import PAPER, Traits
from jaxdist.report import (
    documents,
    dose_figures,
    figures,
    markdown,
    pages,
    pictures,
    profiles,
    summary,
    table,
    verdicts,
)
from jaxdist.storage import manifests, places
from jaxdist.sweep import MetricTraits, fitness, results

_VERDICT = ("doses.csv", "verdict.md", "gauges.md")
"""The tables of a fair comparison; not each has the last."""


def write(result: xr.DataTree, options: StatisticsConfig, folder: Path) -> list[Path]:
    """Write ``tables/`` and ``figures/`` of a swept result into a run folder; returns the files.

    What a result has no group for is left out. Of several processes one writes, and the others return no files.
    """
    if not hosts.writes():
        return []
    with manifests.recording(folder, _is_shown, report_due=False):
        return _write(result, options, folder)


def _is_shown(name: str) -> bool:
    """Whether a file of a run folder is made from its result alone."""
    return name.startswith((f"{places.TABLES}/", f"{places.FIGURES}/")) or name == pages.FILE


def _write(result: xr.DataTree, options: StatisticsConfig, folder: Path) -> list[Path]:
    points, reach = tables.points(result, options), tables.tolerance(result, options)
    flips = tables.tolerance(result, options, "flips")
    training = tables.training(result, options) if "training" in result.children else None
    pairs, units = list(breakdowns.pairs(result)), breakdowns.units(result)
    stages, stage_reach = breakdowns.along_training(result, options)
    written: list[Path] = []
    singles = "units" if "flips" in units else "sensitivity"
    frames = {"points": points, "tolerance": reach, "tolerance_flips": flips, singles: units, "snapshots": stages}
    frames |= {"snapshots_tolerance": stage_reach} | {f"grid_{p.first}_{p.second}": p.points for p in pairs}
    frames["matched"] = breakdowns.matched(result)
    frames["metrics"] = metrics = metric_tables.points(result, options)
    frames["thresholds"] = moved = threshold_tables.thresholds(result, options=options)
    told = metric_tables.told(result)
    if training is not None:
        frames["training"] = training
    for name, frame in frames.items():
        if not frame.empty:
            written.append(folder / "tables" / f"{name}.csv")
            files.write_text(written[-1], frame.to_csv(index=False))
    texts = {}
    if not points.empty:
        if "config" in result.attrs:  # the paper's analysis says nothing of a network that is not of its experiment
            texts["published"] = markdown.published(points, training, options)
        texts["corrected"] = markdown.corrected(points, options)
    if not reach.empty:
        texts["tolerance"] = markdown.tolerance(reach, options, None if flips.empty else flips)
    if "flips" in units and units.seed.nunique() <= markdown.MOST_SEEDS:
        texts["units"] = markdown.units(units)
    if not metrics.empty:
        texts["metrics"] = markdown.metrics(metrics, told, options)
    if not moved.empty:
        texts["thresholds"] = markdown.moved(moved, told, options)
    for name, text in texts.items():
        written.append(folder / "tables" / f"{name}.md")
        files.write_text(written[-1], markdown.with_notes(text, fitness.notes(result)))
    for stem, figure in itertools.chain(
        _figures1(points, fitness.remark(result)),
        _further(points, results.families_of(result), fitness.remark(result)),
        _metrics(metrics, told, results.families_of(result)),
        _layers(reach, options),
        _pairs(pairs, options),
        _units(units),
        _stages(stages, stage_reach, options),
    ):
        written += figures.save(figure, folder / "figures", stem)
    if dosed.has_doses(result):
        written += _write_verdict(result, dose_tables.compare(result, options), options, folder)
    else:
        written.append(_write_numbers(result, None, options, folder))
    return [*written, *write_page([folder], [result], options, folder)]


def write_page(
    folders: Sequence[Path], found: Sequence[xr.DataTree], options: StatisticsConfig, out: Path
) -> list[Path]:
    """Write ``report.html`` of one result, or of several over each other; returns the files, as `write`.

    Args:
      folders: the run folders. The pictures in their ``figures/`` that have no chart of their own become part of the
        page, so write these first.
      found: their results.
      options: how tests and intervals are made.
      out: the folder to write into.
    """
    if not hosts.writes():
        return []
    names = [files.expanded(folder).resolve().name for folder in folders]
    # Folders of the same name are told apart by their paths.
    names = [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
    runs = [pages.Run(*each) for each in zip(names, found, folders, strict=True)]
    return [pages.write(pages.page(runs, options), out / pages.FILE)]


def _write_numbers(
    result: xr.DataTree, comparison: dose_tables.FairComparison | None, options: StatisticsConfig, folder: Path
) -> Path:
    path = folder / "tables" / places.SUMMARY
    files.write_text(path, table.document(documents.main_numbers(result, options, comparison)))
    return path


def write_verdict(
    result: xr.DataTree, found: dose_tables.FairComparison, options: StatisticsConfig, folder: Path
) -> list[Path]:
    """Write what a fair comparison gives into a run folder; returns the files, as `write`.

    Args:
      result: the run's.
      found: its fair comparison.
      options: how tests and intervals are made.
      folder: the run folder.
    """
    if not hosts.writes():
        return []
    with manifests.recording(folder, _is_of_verdict):
        return _write_verdict(result, found, options, folder)


def _is_of_verdict(name: str) -> bool:
    return name in {f"{places.TABLES}/{each}" for each in _VERDICT} or name.startswith(f"{places.FIGURES}/doses")


def _write_verdict(
    result: xr.DataTree, comparison: dose_tables.FairComparison, options: StatisticsConfig, folder: Path
) -> list[Path]:
    doses, verdict, gauges = _VERDICT
    texts = {doses: comparison.doses.to_csv(index=False), verdict: verdicts.document(result, comparison, options)}
    if not comparison.gauges.empty:
        texts[gauges] = verdicts.gauges(comparison, options)
    for name, text in texts.items():
        files.write_text(folder / "tables" / name, text)
    written = [folder / "tables" / name for name in texts]
    written.append(_write_numbers(result, comparison, options, folder))
    for site, suffix in _named(list(dict.fromkeys(finding.site for finding in comparison.findings))):
        drawn = dose_figures.figure(comparison.at(site), options)
        written += figures.save(drawn, folder / "figures", f"doses{suffix}")
    return written


def curves_of(points: pd.DataFrame, site: str) -> figures.Curves:
    """The curves of one site, on the training images where they were swept, as in the paper."""
    chosen = points[(points.site == site) & (points.split == tables.main_split(points))]
    return figures.curves_of(chosen.rename(columns={"accuracy": "mean"}))


def _figures1(points: pd.DataFrame, remark: str = "") -> Iterator[tuple[str, Figure]]:
    drawn: dict[str, Callable[..., Figure]] = {
        "figure1": figures.figure1,
        "figure1_intensity": figures.intensity_figure,
        "figure1_distance": figures.distance_figure,
    }
    for site, suffix in _sites(points):
        title, curves = _title1(points, site, suffix, remark), curves_of(points, site)
        for stem, draw in drawn.items():
            yield stem + suffix, draw(curves, title=title)


def _title1(points: pd.DataFrame, site: str, suffix: str, remark: str) -> str | None:
    """What is said above Figure 1 and its like, where there is something to say."""
    title = f"{tables.only(points)}: bands over images" if tables.over_images(points) else None
    if ((points.site == site) & (points.over == "seeds") & (points.seeds == 2)).any():
        title = figures.TWO_SEEDS_BAND.capitalize().replace(", cut", ",\ncut")  # the single panels are narrow
    if suffix:
        where = "All sites" if site == targets.ALL else shortened(site, 30)
        what = f"{where}, {tables.main_split(points)} images"
        title = what if title is None else f"{what}\n{title}"
    if remark:
        title = remark if title is None else f"{title}\n{remark}"
    return title


def _further(points: pd.DataFrame, edits: Mapping[str, Traits], remark: str) -> Iterator[tuple[str, Figure]]:
    """The families that Figure 1 does not have, each in a panel of its own."""
    for site, suffix in _sites(points):
        rows = points[(points.site == site) & (points.split == tables.main_split(points))]
        rows = rows[~rows.family.isin(PAPER)]
        if not rows.empty:
            yield (
                f"figure1_further{suffix}",
                pictures.further(rows, edits, title=_title1(points, site, suffix, remark)),
            )


def plot(
    result: xr.DataTree,
    metric: str | None = None,
    *,
    site: str | None = None,
    split: str | None = None,
    options: StatisticsConfig | None = None,
) -> Figure:
    """A metric against the fraction of every family that a result was swept with: a panel each, a line a network.

    Args:
      metric: accuracy, or another that was swept; by default accuracy, where it was counted, or the first.
      site: by default the first; `split`: by default the training images, where they were swept.

    Raises:
      InputError: for a metric, site or split that the result does not have.
    """
    chosen = results.options_of(result).statistics if options is None else options
    told = metric_tables.told(result)
    names = [*(["accuracy"] if any(True for _ in every_series(result)) else []), *told]
    metric = next(iter(names), "accuracy") if metric is None else metric
    if metric not in names:
        listed = ", ".join(dict.fromkeys(names)) or "none"
        raise InputError(f"plot: expected a metric of the result, which are {listed}, got {metric!r}")
    points = tables.points(result, chosen) if metric == "accuracy" else metric_tables.points(result, chosen)
    site, split = site or str(points.site.iloc[0]), split or tables.main_split(points)
    for name, value in (("site", site), ("split", split)):
        if value not in set(points[name]):
            raise InputError(
                f"plot: expected a {name} of the result, {', '.join(points[name].unique())}, got {value!r}"
            )
    rows = points[(points.site == site) & (points.split == split)]
    edits, title = results.families_of(result), f"{shortened(site, 30)}, {split} images"
    if metric == "accuracy":
        return pictures.further(rows, edits, title=title)
    return pictures.metric(rows[rows.metric == metric], told[metric], edits, title=title)


def _metrics(
    points: pd.DataFrame, told: Mapping[str, MetricTraits], edits: Mapping[str, Traits]
) -> Iterator[tuple[str, Figure]]:
    for site, suffix in _sites(points):
        split = tables.main_split(points)
        rows = points[(points.site == site) & (points.split == split)]
        for name, of in told.items():
            where = "all sites" if site == targets.ALL else shortened(site, 30)
            title = f"{of.words} under edits of {where}, {split} images"
            part = rows[rows.metric == name]
            yield f"metric_{name}{suffix}", pictures.metric(part, of, edits, title=title)


def _layers(reach: pd.DataFrame, options: StatisticsConfig) -> Iterator[tuple[str, Figure]]:
    # A column an edit: those of the paper, since there is no room for all.
    reach = reach[reach.family.isin(PAPER)] if not reach.empty else reach
    if not reach.empty and reach.site.nunique() > 1:
        rows = reach[reach.split == tables.main_split(reach)]
        yield (
            "layers",
            pictures.layers(rows, title=f"{summary.title(rows, options)}\n{summary.interval_words(rows, options)}"),
        )


def _pairs(pairs: list[breakdowns.Pair], options: StatisticsConfig) -> Iterator[tuple[str, Figure]]:
    for pair in pairs:
        for site, suffix in _sites(pair.points):
            split = tables.main_split(pair.points)
            rows = pair.points[(pair.points.site == site) & (pair.points.split == split)]
            title = f"{pair.first.capitalize()} and {pair.second} of {shortened(site, 30)}, {split} images"
            title += "" if (rows.seeds > 1).any() else f"\n{tables.only(rows)}"
            yield (
                f"grid_{pair.first}_{pair.second}{suffix}",
                pictures.heat_map(pair._replace(points=rows), options.margin, title=title),
            )


def _units(units: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    if "flips" not in units:
        return
    for site, suffix in _sites(units):
        split = tables.main_split(units)
        rows = units[(units.site == site) & (units.split == split)]
        seeds = rows.seed.nunique()
        over = (
            f"Median of {counted(seeds, 'seed')} at each rank, band from least to most"
            if seeds > 1
            else tables.only(rows)
        )
        title = f"Single units of {shortened(site, 30)}, {split} images\n{over}"
        yield f"units{suffix}", profiles.units(rows, title=title)


def _stages(points: pd.DataFrame, reach: pd.DataFrame, options: StatisticsConfig) -> Iterator[tuple[str, Figure]]:
    # A column an edit, in panels that the paper's families have; the tables hold the others.
    points, reach = (f if f.empty else f[f.family.isin(PAPER)] for f in (points, reach))
    for site, suffix in _sites(points):
        split = tables.main_split(points)
        rows = points[(points.site == site) & (points.split == split)]
        over = f"over the seeds that passed ({_span(rows.seeds)})" if (rows.of > 1).any() else ""
        of = f"of {'all sites' if site == targets.ALL else shortened(site, 30)} along training, {split} images"
        low = "" if rows.at_chance.sum() == 0 else "; some are at chance, shown as they are"
        title = f"Edits {of}\n{f'Means {over}' if over else tables.only(rows)}{low}"
        yield f"snapshots{suffix}", profiles.snapshots(rows, title=title)
        if not reach.empty:
            radii = reach[(reach.site == site) & (reach.split == split)]
            words = f"Medians {over}" if over else summary.interval_words(radii, options)
            title = f"Where {percent(options.margin, 1)} points of accuracy are lost: edits {of}\n{words}{low}"
            yield f"snapshots_tolerance{suffix}", profiles.radii_along_training(radii, title=title)


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"


def _sites(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each site with what its files' names end on: nothing where it is the only one."""
    yield from _named([] if frame.empty else [str(site) for site in frame.site.unique()])


def _named(sites: list[str]) -> Iterator[tuple[str, str]]:
    for site, part in files.parts(sites).items():
        yield site, "" if len(sites) == 1 else f"-{part}"
