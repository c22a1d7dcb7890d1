"""The paper's four appendix tables as data, and its protocol.

Source: Oursland 2024 (arXiv:2411.17932), appendix; accuracies there are percent on MNIST's 60,000 training images,
means over 20 seeds. Here, as everywhere, accuracies are fractions.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any, NamedTuple

from jaxdist.config import Config, from_dict

SEEDS = 20
"""Networks behind every published mean."""

DIGITS = 1e-4
"""Half a unit either way of the last printed digit of an accuracy, 0.01 %, is this wide as a fraction."""

LOSS_DIGITS = 1e-4
"""The same of a printed loss."""

PROTOCOL: Config = from_dict(
    {
        "out": "runs/paper",
        "data": {"name": "mnist", "normalisation": "raw"},
        "model": {"activations": ["relu", "abs"], "hidden": [128], "init": "pytorch"},
        "train": {"seeds": SEEDS, "steps": 5000, "optimizer": "sgd", "learning_rate": 0.001},
        "ranges": {"measured_on": "post"},
        "sweep": {"clip_formula": "code", "offset_formula": "code", "dead_units": "nan"},
    }
)
"""What the paper's published code does, as a config."""


BASELINE_INDEX = PROTOCOL.statistics.published_baseline_index
"""The point of every grid that the printed tests take for the unedited network."""


class Cell(NamedTuple):
    """One network in one row of a table of edits."""

    family: str
    network: str
    label: str
    """As printed, such as 5% or Baseline."""
    row: float
    """The fraction that the label names; the table shows the grid point nearest to it."""
    accuracy: float
    """Mean over the seeds, a fraction."""
    t: float
    p: float
    t_source: float
    """t with three decimals, as the repository of the paper had it before."""


class Final(NamedTuple):
    """A quantity of the trained networks: mean and population standard deviation over the seeds."""

    network: str
    quantity: str
    """`train_accuracy` and `test_accuracy` as fractions, or `loss` in nats."""
    mean: float
    sd: float


@functools.cache
def cells() -> tuple[Cell, ...]:
    """Every cell of the three tables of edits, in their order."""
    tables = _read_tables()
    return tuple(
        Cell(family, name.lower(), row["label"], row["fraction"], row[name]["accuracy"] / 100, *_test(row[name]))
        for family in ("scale", "clip", "offset")
        for row in tables[family]
        for name in tables["models"]
    )


@functools.cache
def finals() -> tuple[Final, ...]:
    """Every cell of the table of trained networks."""
    entries = []
    for name, quantities in _read_tables()["baseline"].items():
        for quantity, printed in quantities.items():
            unit = 1 if quantity == "loss" else 100
            entries.append(Final(name.lower(), quantity, printed["mean"] / unit, printed["std"] / unit))
    return tuple(entries)


def rows(family: str) -> tuple[float, ...]:
    """The fractions that the rows of a family's table name."""
    return tuple(dict.fromkeys(cell.row for cell in cells() if cell.family == family))


def _test(cell: dict[str, float]) -> tuple[float, float, float]:
    return cell["t"], cell["p"], cell["t_source"]


@functools.cache
def _read_tables() -> dict[str, Any]:
    text = importlib.resources.files("jaxdist.storage").joinpath("published.json").read_text(encoding="utf-8")
    tables: dict[str, Any] = json.loads(text)
    return tables
