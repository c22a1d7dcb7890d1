"""What a person reads: tables in Markdown and CSV, the figures, and the summary on the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxdist import edits, figures, files, hosts, results, tables
from jaxdist.config import StatisticsConfig

WIDTH = 80
_NO_EDIT = (
    "'No edit' is meant of the training images: a clip there still cuts test values above the training images' largest."
)
_OUTWARD = {
    ("scale", "below"): "scaled down to",
    ("scale", "above"): "scaled up to",
    ("clip", "below"): "clipped at",
    ("offset", "below"): "offset down to",
    ("offset", "above"): "offset up to",
}


def write(result: xr.DataTree, options: StatisticsConfig, folder: Path) -> list[Path]:
    """Write ``tables/`` and ``figures/`` of a swept result into a run folder; returns the files.

    Of several processes one does, and the others return none.
    """
    if not hosts.writes():
        return []
    points, reach = tables.points(result, options), tables.tolerance(result, options)
    training = tables.training(result, options) if "training" in result.children else None
    written = []
    for name, frame in (("points", points), ("tolerance", reach), ("training", training)):
        if frame is not None:
            written.append(folder / "tables" / f"{name}.csv")
            files.write_text(written[-1], frame.to_csv(index=False))
    for name, text in (
        ("published", published_markdown(points, training, options)),
        ("corrected", corrected_markdown(points, options)),
        ("tolerance", tolerance_markdown(reach, options)),
    ):
        written.append(folder / "tables" / f"{name}.md")
        files.write_text(written[-1], text)
    drawn = {
        "figure1": figures.figure1,
        "figure1_intensity": figures.intensity_figure,
        "figure1_distance": figures.distance_figure,
    }
    for site in points.site.unique():
        curves = curves_of(points, site)
        suffix = "" if points.site.nunique() == 1 else "-" + site.replace("/", "_")
        for stem, draw in drawn.items():
            written += figures.save(draw(curves), folder / "figures", stem + suffix)
    return written


def curves_of(points: pd.DataFrame, site: str) -> figures.Curves:
    """The curves of one site, on the training images where they were swept, as in the paper."""
    split = _main_split(points)
    chosen = points[(points.site == site) & (points.split == split)]
    return {
        str(family): {
            str(network): figures.Curve(*(one[name].to_numpy() for name in ("fraction", "accuracy", "low", "high")))
            for network, one in part.groupby("network", sort=False)
        }
        for family, part in chosen.groupby("family", sort=False)
    }


def published_markdown(points: pd.DataFrame, training: pd.DataFrame | None, options: StatisticsConfig) -> str:
    """The paper's tables for this run: its rows, its baseline, its population standard deviation."""
    parts = [
        "# As published",
        "The paper's own analysis: the paired t test of each point is against grid index "
        f"{options.published_baseline_index} of its family, not against the unedited network; t is positive where "
        "accuracy is below that baseline, and nothing is corrected for the number of points. Standard deviations are "
        "over the population (ddof 0). Accuracies are percent; the point is the grid point nearest to the row. "
        + _NO_EDIT,
    ]
    if training is not None:
        quantities = {"train_accuracy": "train accuracy %", "test_accuracy": "test accuracy %", "loss": "loss"}
        rows = [
            [network]
            + [
                f"{one['mean']:.4f} ± {one['sd']:.4f}" if key == "loss" else _pm(one["mean"], one["sd"])
                for key in quantities
                for one in part[part.quantity == key].to_dict("records")
            ]
            for network, part in training.groupby("network", sort=False)
        ]
        parts += ["## After training", _markdown(rows, ["network", *quantities.values()])]
    columns: dict[str, Callable[[pd.Series], str]] = {
        "accuracy %": lambda r: _pm(r.accuracy, r.sd),
        "t": lambda r: tables.number(r.published_t),
        "p": lambda r: tables.p_value(r.published_p),
    }
    return "\n\n".join(parts + _by_family(points, columns)) + "\n"


def corrected_markdown(points: pd.DataFrame, options: StatisticsConfig) -> str:
    """The same rows against each network's own unedited accuracy."""
    level = tables.percent(options.confidence, 0)
    parts = [
        "# Corrected",
        "Each network against its own unedited accuracy, paired over seeds. The drop is in percentage points with its "
        f"{level} % Student t interval; p is Holm-corrected over the points of the family; d is Cohen's d_z. "
        f"Non-inferior means that the one-sided {level} % bound of the drop, the smallest margin that passes, is below "
        f"{tables.percent(options.margin)} points. " + _NO_EDIT,
    ]
    columns: dict[str, Callable[[pd.Series], str]] = {
        "drop": lambda r: f"{tables.percent(r['drop'])} [{tables.percent(r.drop_low)}, {tables.percent(r.drop_high)}]",
        "p (Holm)": lambda r: tables.p_value(r.p_holm),
        "d": lambda r: tables.number(r.effect_size),
        "smallest margin": lambda r: tables.percent(r.smallest_margin),
        "non-inferior": lambda r: "yes" if r.noninferior else "no",
    }
    return "\n\n".join(parts + _by_family(points, columns)) + "\n"


def tolerance_markdown(reach: pd.DataFrame, options: StatisticsConfig) -> str:
    """How far each kind of edit goes before the margin is lost."""
    parts = [
        "# Tolerance",
        f"The fraction at which {tables.percent(options.margin)} points of accuracy are lost, walking outward from no "
        "edit to the first exit, linear between points (for scale in its logarithm). Median over seeds with its "
        f"{tables.percent(options.confidence, 0)} % order-statistic interval, which needs at least 6 seeds at 95 %; "
        "a > or < marks the end of the grid. Re-entered: seeds whose accuracy comes back further out.",
    ]
    rows = [
        [r.network, r.site, r.split, _outward(r.family, r.side), *_reach(r), f"{r.censored}/{r.seeds}", r.reentered]
        for r in reach.itertuples()
    ]
    headers = ["network", "site", "split", "edit", "median", "interval", "to end of grid", "re-entered"]
    return "\n\n".join([*parts, _markdown(rows, headers)]) + "\n"


def summary(result: xr.DataTree, options: StatisticsConfig) -> RenderableType:
    """The answer in at most 80 columns: how far each kind of edit goes before accuracy falls, for each network."""
    reach = tables.tolerance(result, options)
    if reach.empty:
        return Group(*(Text(line) for line in _notes(result, options)))
    split = _main_split(reach)
    reach = reach[reach.split == split]
    networks = list(reach.network.unique())
    seeds = int(reach.seeds.max())
    table = Table(
        title=f"How far an edit goes before {tables.percent(options.margin, 1)} points of {split} accuracy are lost",
        caption=f"Median of {seeds} seed{'s' if seeds > 1 else ''}{_interval_words(reach, options)}, in % of the "
        "preactivation (scale) or of each unit's range",
        width=WIDTH,
    )
    table.add_column("preactivations")
    for network in networks:
        table.add_column(network, justify="right")
    many_sites = reach.site.nunique() > 1
    for (site, family, side), part in reach.groupby(["site", "family", "side"], sort=False):
        cells = {r.network: " ".join(_reach(r)).strip() for r in part.itertuples()}
        label = _outward(family, side) + (f" ({site})" if many_sites else "")
        table.add_row(label, *(cells.get(network, "") for network in networks))
    lines = [Text(line) for line in _notes(result, options)]
    return Group(table, *lines)


def _notes(result: xr.DataTree, options: StatisticsConfig) -> list[str]:
    notes = []
    if "training" in result.children:
        training = tables.training(result, options)
        for network, part in training.groupby("network", sort=False):
            mean = part.set_index("quantity")["mean"]
            notes.append(
                f"{network}: train accuracy {tables.percent(mean['train_accuracy'])} %, "
                f"test {tables.percent(mean['test_accuracy'])} %, loss {mean['loss']:.4f}"
            )
    else:
        # Imported networks may have no history, but any family of their sweep has counted what they do unedited.
        unedited = next(group.to_dataset() for name, group in result.children.items() if name in edits.FAMILIES)
        accuracy = (unedited.unperturbed / unedited.total).mean("seed")
        for network, split in itertools.product(accuracy.network.to_numpy(), accuracy.split.to_numpy()):
            share = float(accuracy.sel(network=network, split=split))
            notes.append(f"{network}: {split} accuracy {tables.percent(share)} % unedited")
    dead = result["ranges"].to_dataset().dead
    policy = results.config_of(result).sweep.dead_units
    for network in dead.network.to_numpy():
        per_seed = dead.sel(network=network).sum(("site", "unit")).to_numpy()
        if per_seed.any():
            done = "left as they are" if policy == "identity" else "edited by the formula, NaN where it is 0/0"
            affected = f"{np.count_nonzero(per_seed)} of {len(per_seed)} networks"
            notes.append(f"{network}: {per_seed.sum()} dead units in {affected}, {done}")
    return notes


def _interval_words(reach: pd.DataFrame, options: StatisticsConfig) -> str:
    level = f"{tables.percent(options.confidence, 0)} %"
    return f" (too few for a {level} interval)" if reach.low.isna().all() else f" with {level} interval"


def _main_split(frame: pd.DataFrame) -> str:
    """The split that figures and summary show: the training images, as in the paper, where they were swept."""
    return "train" if (frame.split == "train").any() else str(frame.split.iloc[0])


def _outward(family: object, side: object) -> str:
    return _OUTWARD[str(family), str(side)]


def _reach(row: object) -> tuple[str, str]:
    """The median of a tolerance row and its interval, as text."""
    median, low, high, end, side = (getattr(row, name) for name in ("median", "low", "high", "grid_end", "side"))
    bounds = [tables.reach(value, end, side).removesuffix(" %") for value in (low, high)]
    interval = "" if np.isnan(low) or (np.isinf(low) and np.isinf(high)) else f"[{bounds[0]}, {bounds[1]}]"
    return tables.reach(median, end, side), interval


def _by_family(points: pd.DataFrame, columns: dict[str, Callable[[pd.Series], str]]) -> list[str]:
    """One table a split, site and family, the networks side by side."""
    parts = []
    for (split, site, family), part in tables.at_paper_rows(points).groupby(["split", "site", "family"], sort=False):
        networks = list(part.network.unique())
        rows = []
        for row, same in part.groupby("row", sort=False):
            cells = [fn(one) for _, one in same.iterrows() for fn in columns.values()]
            label = "no edit" if same.unedited.iloc[0] else f"{100 * float(str(row)):g} %"
            rows.append([label, f"{100 * same.fraction.iloc[0]:.4g} %", *cells])
        headers = ["row", "point", *(f"{network} {name}" for network in networks for name in columns)]
        parts += [f"## {str(family).capitalize()} of {site}, {split} images", _markdown(rows, headers)]
    return parts


def _pm(mean: float, sd: float) -> str:
    return f"{tables.percent(mean)} ± {tables.percent(sd)}"


def _markdown(rows: Sequence[Sequence[object]], headers: list[str]) -> str:
    frame = pd.DataFrame(rows, columns=headers)
    return str(frame.to_markdown(index=False, disable_numparse=True))
