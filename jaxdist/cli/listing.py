"""Runs as a table in the width of a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdist.formatting import MISSING, percent, radius
from jaxdist.report import table

if TYPE_CHECKING:
    from jaxdist.storage import Network, Overview


def listed(runs: Sequence[Overview], root: Path) -> table.Table:
    """A row a run, with a line a network in it."""
    margins = {run.margin for run in runs if run.margin is not None}
    points = f"{percent(margins.pop(), 1)} points" if len(margins) == 1 else "its margin"
    columns = [
        table.Column("run", take=lambda run: _name(run, root), least=14),
        table.Column("data\nseeds × steps", take=_data, least=13),
        table.Column("state\ndate", take=lambda run: [*filter(None, [run.state, run.far, run.date[:10]])], least=10),
        table.Column("network", take=lambda run: [*run.networks], least=8),
        table.Column("train", percent, _of_each(lambda network: network.train_accuracy), 5),
        table.Column("test", percent, _of_each(lambda network: network.test_accuracy), 5),
        table.Column("verdict,\noffset to", percent, _of_each(_answer), 9),
    ]
    note = "Accuracies in %, means over seeds. Verdict, or how far units can be offset up before accuracy falls by "
    return table.of_rows("", runs, columns, [f"{note}{points}; {MISSING}: not reported."])


def _of_each(take: Callable[[Network], Any]) -> Callable[[Overview], list[Any]]:
    return lambda run: [take(network) for network in run.networks.values()]


def _name(run: Overview, root: Path) -> str:
    folder = Path(run.folder)
    return folder.resolve().name if folder == root else str(folder.relative_to(root))


def _data(run: Overview) -> list[str]:
    steps = "imported" if "train.steps" in run.unknown else MISSING if run.steps is None else run.steps
    return [run.data or "", f"{run.seeds} × {steps}" if run.seeds else ""]


def _answer(network: Network) -> Any:
    if network.answer is not None:
        return network.answer
    if network.offset_beyond is not None:
        end = network.offset_beyond
        return table.Otherwise(math.inf, lambda _: radius(math.inf, end, "above"))
    return None if network.offset_to is None else table.Otherwise(network.offset_to, lambda to: radius(to, to, "above"))
