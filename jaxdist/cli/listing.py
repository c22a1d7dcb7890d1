"""Runs as a table in the width of a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from jaxdist.formatting import shortened

if TYPE_CHECKING:
    from jaxdist.storage import Network, Overview

_LEAST = {"run": 14, "data": 13, "network": 8}
"""Letters that are kept of the columns which are shortened where there is no room."""


def table(runs: Sequence[Overview], root: Path, width: int) -> Table:
    """A row a run, with a line a network in it; long names are shortened to the width."""
    rooms = {
        "run": max(len(_name(one, root)) for one in runs),
        "data": max(len(one.data or "") for one in runs),
        "network": max((len(name) for one in runs for name in one.networks), default=0),
    }
    unbounded = Console(width=10_000)
    over = Measurement.get(unbounded, unbounded.options, _table(runs, root, rooms)).maximum - width
    # First the networks' and data's names give way, then the runs'.
    for column in ("network", "data", "run"):
        given_up = min(max(over, 0), max(rooms[column] - _LEAST[column], 0))
        rooms[column] -= given_up
        over -= given_up
    return _table(runs, root, rooms)


def _table(runs: Sequence[Overview], root: Path, rooms: Mapping[str, int]) -> Table:
    margins = {one.margin for one in runs if one.margin is not None}
    points = f"{100 * margins.pop():.1f} points" if len(margins) == 1 else "its margin"
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=f"Accuracies in %, means over seeds. Verdict, or how far units can be offset up before accuracy falls "
        f"by {points}; -: not reported.",
        caption_justify="left",
    )
    for title in ("run", "data\nseeds × steps", "state\ndate", "network"):
        shown.add_column(title, no_wrap=True)
    for title in ("train", "test", "verdict,\noffset to"):
        shown.add_column(title, justify="right", no_wrap=True)
    for one in runs:
        told = "-" if one.steps is None else str(one.steps)
        steps = "imported" if "train.steps" in one.unknown else told
        of = [one.data or "", f"{one.seeds} × {steps}" if one.seeds else ""]
        states = [one.state, one.far, one.date[:10]] if one.far else [one.state, one.date[:10]]
        networks = one.networks.values()
        cells = (
            [shortened(_name(one, root), rooms["run"])],
            [shortened(of[0], rooms["data"]), of[1]],
            states,
            [shortened(name, rooms["network"]) for name in one.networks],
            [_percent(each.train_accuracy) for each in networks],
            [_percent(each.test_accuracy) for each in networks],
            [_answer(each) for each in networks],
        )
        shown.add_row(*(Text("\n".join(lines)) for lines in cells))  # of a str, rich takes [words] for markup
    return shown


def _name(one: Overview, root: Path) -> str:
    folder = Path(one.folder)
    return folder.resolve().name if folder == root else str(folder.relative_to(root))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _answer(network: Network) -> str:
    if network.answer is not None:
        return network.answer
    if network.offset_beyond is not None:
        return f"> {100 * network.offset_beyond:.4g} %"
    return "-" if network.offset_to is None else f"{100 * network.offset_to:.3g} %"
