"""Whether a run's networks are the very ones of the paper: by the digits of its tables, and by its t values.

A mean of 20 networks rounds to the printed digits of another 20 in some cells by chance. The t values that the
repository of the paper once printed, with three decimals, depend on how each network differs from the others, and so
tell ensembles apart that agree in all means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxdist.storage import published
from jaxdist.types import Values

T_NEAR = 0.01
"""Relative difference up to which a t is that of the same networks."""

UNLIKELY = 0.001
"""The share of pairs below which coming as near as a run does is more than chance."""

DRAWN = 100_000
"""Pairs of samples drawn from a run's networks."""


class Sameness(NamedTuple):
    """One activation's networks beside the paper's; its fields are counts where nothing else is said."""

    network: str
    seeds: int
    cells: int
    """Published means, of edits and after training."""
    equal: int
    """Of these, those of the same printed digits."""
    adjacent: int
    """One unit of the last digit away."""
    beyond: int
    """Farther away."""
    t_cells: int
    """Published t values that this run has a finite one beside."""
    t_near: int
    """Of these, those within `T_NEAR`."""
    t_apart: float
    """Median of the relative differences ``|t / t_published - 1|``; NaN without any."""
    p: float
    """Share of pairs of samples, both drawn with replacement from this run's networks, that are as near to each other,
    of `DRAWN` pairs and this one. NaN unless there are as many networks as in the paper: t grows with their number."""

    @property
    def same(self) -> bool:
        """Whether nothing tells them from the paper's own: of the means, a tenth at most one digit off, and every t."""
        digits = not self.beyond and self.adjacent <= self.cells // 10
        return self.seeds == published.SEEDS and digits and 0 < self.t_cells == self.t_near

    @property
    def nearer(self) -> bool:
        """Whether their t are nearer to the paper's than those of independent samples are to each other."""
        return self.p < UNLIKELY


def compare(frame: pd.DataFrame, differences: Mapping[str, Values]) -> list[Sameness]:
    """How near the networks of each activation are to the paper's own.

    Args:
      frame: `paper_cells.cells` of the run.
      differences: `paper_cells.to_baseline` of it.
    """
    of_networks = [(str(name), part) for name, part in frame.groupby("network", sort=False)]
    return [_of_network(name, part, differences[name]) for name, part in of_networks if name in differences]


def _of_network(name: str, cells: pd.DataFrame, differences: Values) -> Sameness:
    units = np.where(cells.quantity == "loss", published.LOSS_DIGITS, published.DIGITS)
    # A mean in the middle of two printed digits may have been rounded either way.
    steps = np.ceil(np.round(np.abs(cells.ours.to_numpy(float) - cells.paper.to_numpy(float)) / units - 0.5, 6)).clip(0)
    paper_t = cells[cells.table != "trained"].paper_t_source.to_numpy(float)
    counts = np.ones((1, len(differences)))
    apart = np.abs(_t(differences, counts)[0] / paper_t - 1)
    finite = np.isfinite(apart)
    median, p = float("nan"), float("nan")
    if finite.any():
        median = float(np.median(apart[finite]))
        if len(differences) == published.SEEDS:
            p = (1 + int(np.sum(_drawn(differences[:, finite]) <= median))) / (1 + DRAWN)
    return Sameness(
        name,
        len(differences),
        len(cells),
        int((steps == 0).sum()),
        int((steps == 1).sum()),
        int((steps > 1).sum()),
        int(finite.sum()),
        int((apart[finite] <= T_NEAR).sum()),
        median,
        p,
    )


def _t(differences: Values, counts: Values) -> Values:
    """Student's t [K, P] of ensembles that hold each of S networks so many times [K, S]; differences are [S, P]."""
    size = counts.sum(axis=1, keepdims=True)
    center = differences.mean(axis=0)  # what is squared is then as small as it can be
    mean = counts @ (differences - center) / size
    squares = counts @ (differences - center) ** 2 / size
    with np.errstate(divide="ignore", invalid="ignore"):
        t: Values = (mean + center) / np.sqrt(np.maximum(squares - mean**2, 0) / (size - 1))
    return t


def _drawn(differences: Values) -> Values:
    """The median relative difference between the t of two ensembles, in `DRAWN` pairs of them.

    Beside the paper's fixed t, drawn ensembles would lie farther than others of their kind do, since they vary around
    a sample that varies itself.
    """
    size, rng = len(differences), np.random.default_rng(0)
    first, second = (
        _t(differences, rng.multinomial(size, np.full(size, 1 / size), size=DRAWN).astype(np.float64)) for _ in range(2)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.nan_to_num(np.abs(first / second - 1), nan=np.inf)
    medians: Values = np.median(apart, axis=1)
    return medians
