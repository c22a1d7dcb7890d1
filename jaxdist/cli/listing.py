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
    margins = {one.margin for one in runs if one.margin is not None}
    points = f"{percent(margins.pop(), 1)} points" if len(margins) == 1 else "its margin"
    columns = [
        table.Column("run", take=lambda one: _name(one, root), least=14),
        table.Column("data\nseeds × steps", take=_data, least=13),
        table.Column("state\ndate", take=lambda one: [*filter(None, [one.state, one.far, one.date[:10]])], least=10),
        table.Column("network", take=lambda one: [*one.networks], least=8),
        table.Column("train", percent, _of_each(lambda network: network.train_accuracy), 5),
        table.Column("test", percent, _of_each(lambda network: network.test_accuracy), 5),
        table.Column("verdict,\noffset to", percent, _of_each(_answer), 9),
    ]
    note = "Accuracies in %, means over seeds. Verdict, or how far units can be offset up before accuracy falls by "
    return table.of_rows("", runs, columns, [f"{note}{points}; {MISSING}: not reported."])


def _of_each(take: Callable[[Network], Any]) -> Callable[[Overview], list[Any]]:
    return lambda one: [take(network) for network in one.networks.values()]


def _name(one: Overview, root: Path) -> str:
    folder = Path(one.folder)
    return folder.resolve().name if folder == root else str(folder.relative_to(root))


def _data(one: Overview) -> list[str]:
    steps = "imported" if "train.steps" in one.unknown else MISSING if one.steps is None else one.steps
    return [one.data or "", f"{one.seeds} × {steps}" if one.seeds else ""]


def _answer(network: Network) -> Any:
    if network.answer is not None:
        return network.answer
    if network.offset_beyond is not None:
        end = network.offset_beyond
        return table.Otherwise(math.inf, lambda _: radius(math.inf, end, "above"))
    return None if network.offset_to is None else table.Otherwise(network.offset_to, lambda to: radius(to, to, "above"))
