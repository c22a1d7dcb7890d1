"""What networks read, beside readers that have learned nothing: `analysis.reading` of a run, as tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from jaxdist import files
from jaxdist.analysis import LEVELS, LogRatio, preference, reading
from jaxdist.config import StatisticsConfig
from jaxdist.formatting import counted, number, p_value, percent
from jaxdist.report import figures, table
from jaxdist.report.figures import looks, new_figure, settle, style
from jaxdist.report.table import Column, Table
from jaxdist.report.verdicts import ratio_words
from jaxdist.storage import manifests, places
from jaxdist.sweep import readers
from jaxdist.types import Values

KINDS = {
    readers.TRAINED: "as trained",
    readers.PERMUTED: "output weights put to other units",
    readers.FIRST_BEFORE: "earlier layers before training",
    readers.BEFORE: "before training",
}
"""The readers, in words; those with permuted weights are averaged."""


class Findings(NamedTuple):
    """What is found of a run's networks."""

    frame: pd.DataFrame
    """Of `frame`, all networks."""
    readings: Mapping[str, reading.Reading]
    """By network."""
    decided: Mapping[str, reading.Decided]
    """By network, corrected over all of them."""
    statistics: StatisticsConfig
    """How intervals are made."""
    notes: Sequence[str] = ()
    """Sentences on seeds whose networks have learned nothing."""


def frame(curves: xr.Dataset, contrasts: LogRatio, network: str) -> pd.DataFrame:
    """A row for each reader, seed and level: x between its ends, and the doses and participation that it is made of.

    Args:
      curves: flips, dose and participation over (reader, seed, edit, draw, fraction).
      contrasts: x [readers, levels, S].
      network: its name.
    """
    dims = ("reader", "seed", "edit", "draw", "fraction")
    dose, flips, spread = (curves[name].transpose(*dims).to_numpy() for name in ("dose", "flips", "participation"))
    edits = curves.edit.to_numpy().tolist()
    rows = []
    for j, level in enumerate(LEVELS):
        at = reading.log_dose_at(dose, flips, level)
        where = reading.point_at(flips, level)
        there = np.take_along_axis(spread, where[..., None], axis=-1)[..., 0]
        there = np.where(where >= 0, there, np.nan)
        for k, reader in enumerate(curves.reader.to_numpy()):
            for s, seed in enumerate(curves.seed.to_numpy()):
                row = {"network": network, "reader": str(reader), "seed": int(seed), "level": level}
                row |= {"x_low": contrasts.low[k, j, s], "x_high": contrasts.high[k, j, s]}
                for e, edit in enumerate(edits):
                    ends = {"low": at.low[k, s, e], "high": at.high[k, s, e]}
                    row |= {f"dose_{edit}_{end}": float(np.exp(values[0])) for end, values in ends.items()}
                    row |= {f"dose_{edit}_signs_{end}": float(np.exp(v[1:].mean())) for end, v in ends.items()}
                    row |= {f"participation_{edit}": float(there[k, s, e, 0])}
                rows.append(row)
    return pd.DataFrame(rows)


def by_kind(frame: pd.DataFrame, network: str, level: float, low: str, high: str) -> dict[str, LogRatio]:
    """The logarithms between two columns' ends of every kind of reader, each seed's mean over readers of that kind.

    Args:
      frame: of `frame`.
      network: its name.
      level: of flips.
      low, high: the columns.
    """
    part = frame[(frame.network == network) & (frame.level == level)]
    return {
        kind: LogRatio(
            *(of.pivot(index="reader", columns="seed", values=end).to_numpy().mean(0) for end in (low, high))
        )
        for kind, of in part.groupby(_kind(part))
    }


def _kind(part: pd.DataFrame) -> pd.Series:
    """What each row's reader is, without its number."""
    return part.reader.str.replace(r" \d+$", "", regex=True)


def tabled(findings: Findings) -> list[Table]:
    """A table for each network: small over large beside random signs, of every kind of reader."""
    headings = [Column(""), *(Column(f"at {percent(level, 0)} % of flips") for level in LEVELS)]
    tables = []
    for network in findings.readings:
        columns = [_cells(findings, network, level) for level in LEVELS]
        rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
        notes = [note for level in LEVELS for note in _beyond(findings, network, level)]
        title = f"{network}: dose of small over large, each over that of its random signs"
        tables.append(Table(title, headings, rows, notes))
    return tables


def _beyond(findings: Findings, network: str, level: float) -> list[str]:
    """A sentence where not all doses are reached."""
    frame = findings.frame
    part = frame[(frame.network == network) & (frame.level == level) & frame.reader.str.match("trained|permuted")]
    beyond = part[(part.x_low != part.x_high) & part.x_low.notna()]
    lost = frame[(frame.network == network) & (frame.level == level) & frame.x_low.isna()]
    notes = [
        f"At {percent(level, 0)} %, {counted(of.seed.nunique(), 'seed')} of '{KINDS[str(kind)]}' without a dose, left "
        "out."
        for kind, of in lost.groupby(_kind(lost))
    ]
    if beyond.empty:
        return notes
    many = f"{beyond.seed.nunique()} of {counted(part.seed.nunique(), 'seed')}"
    return [
        *notes,
        f"At {percent(level, 0)} %, not all edits of {many} change as many predictions, as trained or of permuted "
        "readers, with random signs or without: of these doses a bound is known, and each test takes the end against "
        "its claim.",
    ]


def _cells(findings: Findings, network: str, level: float) -> dict[str, str]:
    """A column of a network's table."""
    frame, statistics = findings.frame, findings.statistics

    def ratio(of: LogRatio) -> str:
        return ratio_words(preference.summarise(of, statistics.confidence))

    each = by_kind(frame, network, level, "x_low", "x_high")
    cells = {words: ratio(each[kind]) for kind, words in KINDS.items() if kind in each}
    cells["as trained, over permuted"] = ratio(reading.less(each["trained"], each["permuted"]))
    part = frame[(frame.network == network) & (frame.level == level) & (frame.reader == "trained")]
    small, large = (
        LogRatio(*(np.log(part[f"dose_{edit}_{end}"].to_numpy()) for end in ("low", "high")))
        for edit in ("small", "large")
    )
    cells["as trained, without random signs"] = ratio(reading.less(small, large))
    for edit in ("small", "large"):
        low, high, spread = (
            float(part[f"{name}_{edit}{end}"].median(skipna=False))
            for name, end in (("dose", "_low"), ("dose", "_high"), ("participation", ""))
        )
        words = number(low, 3) if low == high else f"> {number(low, 3)}"
        cells[f"dose of {edit} as trained (participation)"] = f"{words} ({number(spread, 2)})"
    return cells


def answers(findings: Findings) -> Table:
    """A row for each network: what it reads, and the p-values of the claims, by Holm over all, and by sign flips."""
    readings, decided = findings.readings, findings.decided
    rows = [
        [
            name,
            decided[name].answer,
            *map(p_value, (decided[name].distance, decided[name].intensity, decided[name].equal)),
            ", ".join(p_value(claim.flips) for claim in (of.distance, of.intensity, of.equal)),
        ]
        for name, of in readings.items()
    ]
    seeds = max(of.x.low.shape[-1] for of in readings.values())
    flips = "all flips" if seeds <= reading.EXACT else "random flips"
    return Table(
        f"What is read, at a family-wise error of {percent(reading.ERROR, 0)} %",
        [*map(Column, ("network", "answer", "p distance", "p intensity", "p no difference", "by sign flips"))],
        rows,
        [
            f"{counted(seeds, 'seed')}. p by t tests, the largest of each claim's, corrected by Holm over networks and "
            f"the two claims of a difference, and of no difference over networks. By {flips} of signs: the same three, "
            "not corrected.",
            *findings.notes,
            *["–: seeds that are all alike allow no test."] * any(np.isnan(of.distance.t) for of in readings.values()),
        ],
    )


def json_of(findings: Findings) -> dict[str, Any]:
    """Answers and p-values by network, and every reader's rows, for a JSON document."""
    readings, decided = findings.readings, findings.decided
    networks = {
        name: {
            **decided[name]._asdict(),
            **{f"{claim}_{by}": value for claim in ("distance", "intensity", "equal")
               for by, value in getattr(of, claim)._asdict().items()},
        }
        for name, of in readings.items()
    }  # fmt: skip
    return {
        "networks": networks,
        "notes": list(findings.notes),
        "readers": table.records(table.of_frame(findings.frame)),
    }


def document(findings: Findings) -> str:
    """The answers and tables in Markdown."""
    return table.markdown(
        "# What is read, beside readers that have learned nothing",
        "Each unit's small activations become their mean, or its large ones do, as many as erases a share of its "
        "variance. Beside each stands the same edit with a random sign for every unit and image. A number below 1 says "
        "that erasing small values costs predictions at less dose than erasing large ones does, compared with their "
        "random signs. Readers of the same activations whose output weights are put to other units have learned "
        "nothing of them.",
        answers(findings),
        *tabled(findings),
    )


def write(findings: Findings, folder: Path) -> None:
    """Write ``readers.csv``, ``controls.md`` and the figure ``controls`` into the folder ``controls`` of a run."""
    with manifests.recording(folder):
        files.write_text(folder / places.CONTROLS / "readers.csv", findings.frame.to_csv(index=False))
        files.write_text(folder / places.CONTROLS / "controls.md", document(findings))
        figures.save(figure(findings.frame), folder / places.CONTROLS, "controls")


def _middle(of: LogRatio) -> Values:
    """One value of each, NaN where it is known only to lie beyond a bound."""
    return np.where(of.low == of.high, of.low, np.nan)


def figure(frame: pd.DataFrame) -> Figure:
    """A panel a level: the number of every seed of which it is known, a column a network and kind of reader."""
    networks = list(frame.network.unique())
    look = looks(networks)
    kinds = (readers.BEFORE, readers.PERMUTED, readers.TRAINED)
    with style(9):
        drawn = new_figure((8.0, 3.2))
        panels = drawn.subplots(1, len(LEVELS), sharey=True, squeeze=False)[0]
        for axes, level in zip(panels, LEVELS, strict=True):
            ticks, drawn_values = [], []
            for n, network in enumerate(networks):
                of = by_kind(frame, network, level, "x_low", "x_high")
                places_of = {kind: n * (len(kinds) + 1) + k for k, kind in enumerate(kinds)}
                ends = {kind: np.exp(_middle(of[kind])) for kind in kinds if kind in of}
                for pair in zip(*ends.values(), strict=True):
                    axes.plot([places_of[kind] for kind in ends], pair, color="0.85", linewidth=0.6, zorder=1)
                drawn_values += list(ends.items())
                for kind, values in ends.items():
                    axes.plot(
                        np.full(len(values), places_of[kind]), values, look[network].marker, markersize=4.5,
                        linestyle="", markeredgecolor=look[network].colour, markeredgewidth=1, zorder=2,
                        markerfacecolor=look[network].colour if kind == "trained" else "white",
                    )  # fmt: skip
                    ticks.append((places_of[kind], kind))
            axes.axhline(1, color="0.4", linewidth=0.8, zorder=0)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(FixedLocator([0.25, 0.35, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3]))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks([at for at, _ in ticks], [label for _, label in ticks], rotation=30, ha="right")
            missing = sum(int(np.isnan(values).sum()) for _, values in drawn_values)
            without = f", {counted(missing, 'bound')} not shown" if missing else ""
            axes.set_title(f"At {percent(level, 0)} % of flips{without}")
        panels[0].set_ylabel("Dose of small / large,\neach over its random signs")
        handles = [
            Line2D([], [], linestyle="", marker=each.marker, color=each.colour, label=each.label)
            for each in look.values()
        ]
        drawn.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        return settle(drawn)
