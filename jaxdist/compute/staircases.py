"""Which inputs a block needs: columns in the order of how often they are set, examples in that of their rarest one.

Where most inputs of an example are the same constant, such as the black around a digit, they need not be multiplied.
With the columns in that order an example needs only the first few, and with the examples in theirs a block of them
needs no more than its last one does: a plain slice of the inputs, of the weights and of their gradient. What is left
out is exactly 0, so that nothing but rounding changes. Drawn over the examples, the columns that are needed
are a staircase.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

STEPS = 8
"""Widths of a staircase, at most: each is compiled by itself, and more of them save little."""

ROWS = 1024
"""Examples by which a staircase is planned: those of a few blocks on a few devices."""

OTHER = 150
"""Columns that take as long to multiply as all else in a training step of 128 hidden units.

By what `python -m benchmarks staircase` measured of MNIST: 1.49 times as fast with 435 columns instead of 720."""

WORTH = 0.9
"""A staircase is used where it takes at most this share of the time without it."""


class Staircase(NamedTuple):
    """How the inputs of a data set are laid out."""

    columns: Int[np.ndarray, " D"]
    """The inputs in the order in which they are stored, the most often set first."""
    widths: tuple[int, ...]
    """How many of the first columns a block may be cut to, increasing; the last is all that are ever set."""

    def steps(self, on: Bool[np.ndarray, "N D"]) -> Int32[np.ndarray, " N"]:
        """The place in `widths` of what each example needs, given which of its inputs are set."""
        return np.searchsorted(self.widths, _needed(on, self.columns)).astype(np.int32)


def plan(on: Bool[np.ndarray, "N D"], *, tile: int, before: int = 0, together: int = 1) -> Staircase | None:
    """The staircase of examples whose inputs are set where `on` says, or None where it would save too little.

    It depends on the examples alone, so that weights in the order of its columns fit on any machine.

    Args:
      tile: columns by which widths grow, those included that stand `before` all others.
      together: neighbouring columns that stay neighbours, from a multiple of their number on.
    """
    columns = _ordered(on, together)
    needed = np.sort(_needed(on, columns))
    units = np.append(needed[ROWS - 1 : -1 : ROWS], needed[-1])  # the last unit is what is left, and needs most
    units = np.minimum(-(-(before + units) // tile) * tile - before, len(columns))
    ends, mean = _cut(units)
    if (mean + OTHER) / (units[-1] + OTHER) > WORTH:
        return None
    return Staircase(columns, tuple(np.unique(units[ends]).tolist()))


def _ordered(on: Bool[np.ndarray, "N D"], together: int) -> Int[np.ndarray, " D"]:
    inputs = on.shape[1]
    filled = np.pad(on, ((0, 0), (0, -inputs % together)))
    often = filled.reshape(len(on), -1, together).any(2).sum(0)
    if inputs % together:
        often[-1] = -1  # what is left stays last, so that all others are whole
    groups = np.argsort(-often, kind="stable")
    columns = (groups[:, None] * together + np.arange(together)).ravel()
    return columns[columns < inputs]


def _needed(on: Bool[np.ndarray, "N D"], columns: Int[np.ndarray, " D"]) -> Int[np.ndarray, " N"]:
    """How many of the first columns, in that order, each example needs."""
    place = np.empty(len(columns), np.uint16 if len(columns) < 2**16 else np.uint32)
    place[columns] = np.arange(1, len(columns) + 1)
    return (on * place).max(1).astype(np.int64)


def _cut(needed: Int[np.ndarray, " K"]) -> tuple[list[int], float]:
    """The last unit of each step, and the mean of the columns that are then multiplied, which is the least there is.

    `needed` does not decrease.
    """
    count = len(needed)
    units = np.arange(count + 1)
    # What the first k units cost in so many steps at most, each as wide as its last unit.
    cost = np.where(units > 0, np.inf, 0.0)
    began: list[list[int]] = []
    for _ in range(STEPS):
        totals = [cost[:k] + needed[k - 1] * (k - units[:k]) for k in units[1:]]
        began.append([int(np.argmin(total)) for total in totals])
        cost = np.array([0.0, *(total.min() for total in totals)])
    ends, left = [], count
    for step in reversed(began):
        if left:
            ends.append(left - 1)
            left = step[left - 1]
    return ends[::-1], float(cost[count] / count)


def dealt(steps: Int32[np.ndarray, " N"], shares: int) -> Int[np.ndarray, " N"]:
    """The order in which each of so many shares has its part of the examples of every step, the first steps first."""
    positions, each = np.arange(len(steps)), -(-len(steps) // shares)
    order = np.empty(len(steps), np.int64)
    # The first places of all shares, then the second, and so on, take the examples by their steps.
    order[np.lexsort((positions // each, positions % each))] = np.argsort(steps, kind="stable")
    return order


def places(order: Int[np.ndarray, " N"], length: int) -> Int32[np.ndarray, " length"]:
    """Where each example lies in an order, then zeros."""
    inverse = np.zeros(length, np.int32)
    inverse[order] = np.arange(len(order))
    return inverse
