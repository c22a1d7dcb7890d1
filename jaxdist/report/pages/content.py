"""From results to the sections of a page: what is said, and which frames are drawn and listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pandas as pd
import xarray as xr

from jaxdist.analysis import FairComparison, dose_tables, dosed, every_series, paper_cells, tables
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.formatting import counted, percent
from jaxdist.networks import targets
from jaxdist.perturbations import PAPER
from jaxdist.report import dose_figures, figures, verdicts
from jaxdist.report.markdown import radius_of
from jaxdist.report.pages import charts, listings, pictures, protocol
from jaxdist.report.pages.charts import Choices
from jaxdist.report.pages.parts import Page, Section
from jaxdist.sweep import fitness, results


class Run(NamedTuple):
    """A swept result, with the name that the page gives it and the folder that it lies in."""

    name: str
    result: xr.DataTree
    folder: Path


Compared: TypeAlias = Mapping[str, FairComparison]
"""What is said of runs that have doses, by name."""


def page(runs: Sequence[Run], options: StatisticsConfig) -> Page:
    """Everything a page says of one run, or of several over each other, all by the same statistics."""
    points = _of_all(runs, lambda result: tables.points(result, options))
    reach = _of_all(runs, lambda result: tables.tolerance(result, options))
    flips = _of_all(runs, lambda result: tables.tolerance(result, options, "flips"))
    trained = _of_all(runs, _networks_trained)
    labels = [name for frame in (points, trained) if not frame.empty for name in frame.label]
    choices = charts.choices(points, list(dict.fromkeys(labels)), results.families_of(*(run.result for run in runs)))
    compared = {run.name: dose_tables.compare(run.result, options) for run in runs if dosed.has_doses(run.result)}
    sections = [
        *_edits(points, choices),
        *_doses(runs, compared, options, choices),
        *_radii(reach, flips, options, choices),
        *_training(runs, options, choices),
        *_statistics(points, options, any("config" in run.result.attrs for run in runs)),
        *_paper(runs, options),
        *_dead(runs),
        *pictures.sections([(run.name, run.result, run.folder) for run in runs]),
        *(section for run in runs for section in protocol.sections(run.name, run.result, run.folder)),
    ]
    title = ", ".join(run.name for run in runs)
    answer = [sentence for run in runs if (sentence := _untrained(run, runs))]
    answer += _answer(runs, compared, reach, options)
    notes = [(run.name, note) for run in runs for note in fitness.notes(run.result)]
    answer += [f"{name}: {note}." if len(runs) > 1 else f"{note}." for name, note in notes]
    if len({str(run.result.attrs.get("data_digest")) for run in runs}) > 1:
        answer.append("These runs are of different images, so that their numbers differ by more than the networks.")
    return Page(title, "; ".join(map(_of, runs)), answer, choices.all(), sections)


def _untrained(run: Run, runs: Sequence[Run]) -> str:
    """A sentence on networks that are a control, not a finding; empty of others."""
    sentence = results.untrained(run.result)
    return f"{run.name if len(runs) > 1 else 'These networks are controls'}: {sentence}." if sentence else ""


def _of(run: Run) -> str:
    """What a run is of."""
    sizes: dict[str, int] = {}
    for series in every_series(run.result):
        sizes.setdefault(series.network, len(series.seeds))
    networks = ", ".join(f"{count} x {network}" for network, count in sizes.items())
    return ": ".join(filter(None, [str(run.result.attrs.get("data_name", "")), networks]))


def label(run: Run, network: object, runs: Sequence[Run]) -> str:
    """What a network is called on a page: its name, behind that of its run where there are several."""
    return f"{run.name}: {network}" if len(runs) > 1 else str(network)


def _of_all(runs: Sequence[Run], frame: Callable[[xr.DataTree], pd.DataFrame]) -> pd.DataFrame:
    """The frames of all runs, with a column of labels."""
    parts = []
    for run in runs:
        part = frame(run.result)
        if not part.empty:
            parts.append(part.assign(label=[label(run, network, runs) for network in part.network]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _answer(runs: Sequence[Run], compared: Compared, reach: pd.DataFrame, options: StatisticsConfig) -> Iterator[str]:
    """The verdict where there are doses, and how far each of the paper's edits goes."""
    for run in (run for run in runs if run.name in compared):
        said = verdicts.sentences(run.result, compared[run.name])
        yield from (f"{run.name}: {sentence}" if len(runs) > 1 else sentence for sentence in said)
    if reach.empty:
        return
    split = tables.main_split(reach)
    margin = f"{percent(options.margin, 1)} points of {split} accuracy"
    rows = reach[(reach.split == split) & reach.family.isin(PAPER)]
    for (name, site), part in rows.groupby(["label", "site"], sort=False):
        if part.seeds.max() == 0:
            continue  # the notes say why
        far = [f"{r.edit} {radius_of(r).middle}" for r in part.itertuples()]
        far = [words.replace("> ", "more than ").replace("< ", "less than ") for words in far]
        where = f"{name}, {site}" if reach.site.nunique() > 1 else name
        of = f" (median of {counted(part.seeds.max(), 'seed')})" if part.seeds.max() > 1 else ""
        yield f"{where}{of} loses no more than {margin} until {', '.join(far)}.".replace(" %", "\u00a0%")


def _edits(points: pd.DataFrame, choices: Choices) -> Iterator[Section]:
    for site in [] if points.empty else points.site.unique():
        part = points[points.site == site]
        place = "all sites" if site == targets.ALL else site
        where = f" of {place}" if points.site.nunique() > 1 else ""
        over = _over(part)
        said = (
            f"Means with their interval over {over}, of the values at {place}: intensity edits scale or clip what a "
            "unit gives, distance edits move where it is zero. Point at a line for its numbers."
        )
        if ((part.over == "seeds") & (part.seeds == 2)).any():
            said += f" {figures.TWO_SEEDS_BAND.capitalize()}."
        if (part.family.isin(PAPER)).any():
            yield Section(f"Accuracy under edits{where}", [said], charts=list(charts.figure1(part, choices)))
        others = list(charts.controls(part, choices))
        if others:
            yield Section(f"Accuracy under controls{where}", charts=others, small=True)


def _over(frame: pd.DataFrame) -> str:
    """What intervals are over."""
    words = {"seeds": "seeds", "images": "images of a single network"}
    return " or ".join(words[over] for over in frame.over.unique())


def _doses(runs: Sequence[Run], compared: Compared, options: StatisticsConfig, choices: Choices) -> Iterator[Section]:
    for run in (run for run in runs if run.name in compared):
        comparison = compared[run.name]
        split = dosed.chosen_split(comparison.swept)
        for site in dict.fromkeys(finding.site for finding in comparison.findings):
            at_site = comparison.at(site)
            several = max(len(sweep.series.seeds) for sweep in at_site.swept) > 1
            over = "Medians over seeds, band from least to most" if several else "Of one seed"
            drawn = [
                charts.doses(
                    panel, label(run, panel.network, runs), choices, options.flips, 1 / at_site.swept[0].series.total
                )
                for panel in dose_figures.panels(at_site, options)
            ]
            yield Section(
                f"At equal dose: {site}{f', {run.name}' if len(runs) > 1 else ''}",
                [
                    f"The share of {split} images whose class changes, against the dose of the edit: the angle by "
                    f"which it turns what the logits are made of. {over}; the dotted line is the margin, "
                    f"{percent(options.flips, 1)} %."
                ],
                charts=drawn,
                tables=[listings.costs(at_site.costs, options, split)],
            )


def _radii(reach: pd.DataFrame, flips: pd.DataFrame, options: StatisticsConfig, choices: Choices) -> Iterator[Section]:
    if reach.empty:
        return
    drawn = [
        charts.radii(part, choices, str(family), str(side))
        for (family, side), part in reach.groupby(["family", "side"], sort=False)
    ]
    level, over = percent(options.confidence, 0), _over(reach)
    said = (
        f"How far an edit goes before {percent(options.margin, 1)} points of accuracy are lost: the median with "
        f"its {level} % interval over {over}{' (too few for one)' if reach.low.isna().all() else ''}. A triangle is "
        "the end of the grid: it goes further than was swept."
    )
    out = tables.left_out_notes(reach)
    said += f" Networks at chance have none: {'; '.join(out)}." if out else ""
    listed = [listings.radii(reach, "Until accuracy is lost")]
    if not flips.empty:
        listed.append(listings.radii(flips, f"Until {percent(options.flips, 1)} % of predictions change"))
    yield Section("How far an edit goes", [said], charts=drawn, tables=listed, small=True)


def _training(runs: Sequence[Run], options: StatisticsConfig, choices: Choices) -> Iterator[Section]:
    frames = {
        label(run, network, runs): _along(run.result["training"].to_dataset().sel(network=network))
        for run in runs
        if "training" in run.result.children
        for network in run.result["training"].network.to_numpy()
    }
    if frames:
        several = any(run.result["training"].sizes["seed"] > 1 for run in runs if "training" in run.result.children)
        finals = _of_all(runs, lambda r: tables.training(r, options) if "training" in r.children else pd.DataFrame())
        yield Section(
            "Training",
            ["Means over seeds, with a band from the least to the most." if several else "Of one seed."],
            charts=list(charts.training(frames, choices)),
            tables=[listings.training(finals)],
        )


def _networks_trained(result: xr.DataTree) -> pd.DataFrame:
    if "training" not in result.children:
        return pd.DataFrame()
    return pd.DataFrame({"network": result["training"].network.to_numpy()})


def _along(group: xr.Dataset) -> pd.DataFrame:
    """Each quantity of a network along training, at as many steps as a curve shows."""
    parts = []
    for name in group.data_vars:
        quantity = group[name].dropna("step", how="all")
        if not quantity.sizes["step"]:
            continue
        quantity = quantity.isel(step=charts.some(quantity.sizes["step"]))
        ends = {"mean": quantity.mean("seed"), "low": quantity.min("seed"), "high": quantity.max("seed")}
        values = {column: array.to_numpy() for column, array in ends.items()}
        parts.append(pd.DataFrame({"quantity": str(name), "step": quantity.step.to_numpy(), **values}))
    return pd.concat(parts, ignore_index=True)


def _statistics(points: pd.DataFrame, options: StatisticsConfig, experiment: bool) -> Iterator[Section]:
    if points.empty:
        return
    rows = tables.at_paper_rows(points)
    for (split, site), part in rows.groupby(["split", "site"], sort=False):
        if (part.published_t.notna() | part.p_holm.notna()).any():
            published = (
                f"As published: each point against grid index {options.published_baseline_index} of its family. "
            )
            words = (
                f"At the rows of the paper's tables. {published if experiment else ''}Corrected: against each "
                "network's own unedited accuracy, with Holm's correction, effect sizes and a non-inferiority test. "
                "Accuracies and drops in percent and percentage points."
            )
            cautions = tables.cautions(points[(points.split == split) & (points.site == site)], "p")
            # The paper's analysis says nothing of a network that is not of its experiment.
            out = tables.left_out_notes(part)
            words += f" Tests and drops are without networks at chance: {'; '.join(out)}." if out else ""
            both = [*([listings.published(part)] if experiment else []), listings.corrected(part)]
            first = split == tables.main_split(points)
            yield Section(f"Statistics: {site}, {split} images", [words, *cautions], tables=both, open=bool(first))


def _paper(runs: Sequence[Run], options: StatisticsConfig) -> Iterator[Section]:
    """Beside the paper's tables, where a run is of its networks on its images."""
    for run in runs:
        if str(run.result.attrs.get("data_name")) != "mnist" or "config" not in run.result.attrs:
            continue
        if results.config_of(run.result).model.hidden != (128,):
            continue
        try:
            cells = paper_cells.cells(run.result, options)
        except InputError:
            continue  # none of its networks
        verdict, words = paper_cells.verdict(cells)
        yield Section(
            f"Beside the paper{f': {run.name}' if len(runs) > 1 else ''}",
            [
                f"{verdict.capitalize()}: {words}. z is the difference in standard errors. Protocols may differ; "
                "'jaxdist compare RUN published' names every difference."
            ],
            tables=[listings.paper(cells)],
            open=False,
        )


def _dead(runs: Sequence[Run]) -> Iterator[Section]:
    frames = []
    for run in runs:
        if "ranges" not in run.result.children:
            continue
        measured = run.result["ranges"].to_dataset()
        there = measured.low.notnull() | measured.dead
        frame = xr.Dataset({"dead": measured.dead.sum("unit"), "units": there.sum("unit")}).to_dataframe().reset_index()
        frames.append(frame.assign(label=[label(run, network, runs) for network in frame.network]))
    if frames:
        yield Section(
            "Dead units",
            ["Units that are 0 for every training image, in each seed of a network."],
            tables=[listings.dead(pd.concat(frames, ignore_index=True))],
        )
