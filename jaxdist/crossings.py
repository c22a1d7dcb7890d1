"""First crossings: where, walking outward from no edit, a network's accuracy has dropped by a margin.

Pure NumPy. Every accuracy, drop and margin is a fraction. Seeds are the first axis (S), sweep points the second (P).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.types import Flags, Values

DECIMALS = 12
"""Differences of accuracies, and margins, are rounded so: 0.12 - 0.11 is 0.01, as the image counts behind it say.

Distinct counts of N images differ by 1/N, far more; the rounding error of one subtraction is far less. So equal count
differences are equal numbers, a drop of exactly the margin reaches it, and constant differences are seen to be so.
"""


class Bracket(NamedTuple):
    """The grid's last point inside the margin and its first outside, walking outward, and the drops there, each [S].

    The first may be the identity, whose drop is 0 by definition. All are NaN where the exit is censored.
    """

    inside: Values
    outside: Values
    drop_inside: Values
    drop_outside: Values


class Tolerance(NamedTuple):
    """How far each network tolerates a family of edits on one side, each [S].

    `exit` is a fraction of the family's grid; where `censored` ("> end of grid") it is +inf on the side above, -inf
    below. `reentered` flags networks whose drop is below the margin again further out. The exit lies between `inside`
    and `outside`; see `Bracket`.
    """

    exit: Values
    censored: Flags
    reentered: Flags
    inside: Values
    outside: Values
    drop_inside: Values
    drop_outside: Values

    @property
    def bracket(self) -> Bracket:
        """Where on the grid the exit lies."""
        return Bracket(self.inside, self.outside, self.drop_inside, self.drop_outside)


def tolerance(
    fractions: Values,
    accuracy: Values,
    unperturbed: Values,
    *,
    identity: float,
    coordinate: Literal["linear", "log"],
    side: Literal["below", "above"],
    margin: float,
) -> Tolerance:
    """First exit of each network: where, walking outward from no edit, its accuracy has dropped by `margin`.

    `fractions` is the family's grid [P], strictly increasing; accuracy[S, P] and unperturbed[S] are fractions.
    `identity` is the grid value that edits nothing (1 for scale and clip, 0 for offset); the drop there is 0 by
    definition, whether or not the grid has that point. Between points the drop is linear in the fraction or, for
    `coordinate` "log", in its logarithm. The exit is in the fraction's own units either way. A side without grid
    points is censored for every network.

    Raises `InputError` for a grid that is not increasing or, for "log", not positive; accuracies that are not
    fractions; shapes that do not match; an unknown `coordinate` or `side`; a margin that is not positive.
    """
    fractions = np.asarray(fractions, dtype=np.float64)
    accuracy = checked_fractions("accuracy", accuracy, 2)
    drops = accuracy_drop(checked_fractions("unperturbed", unperturbed, 1), accuracy)
    margin = checked_margin(margin)
    _check_choice("coordinate", coordinate, ("linear", "log"))
    _check_choice("side", side, ("below", "above"))
    if fractions.shape != accuracy.shape[1:] or not (np.diff(fractions) > 0).all():
        raise InputError(
            f"fractions: expected {counted(accuracy.shape[1], 'strictly increasing value')}, one a column of accuracy, "
            f"got shape {fractions.shape}"
        )
    if coordinate == "log" and not min(identity, *fractions) > 0:
        raise InputError("fractions: expected positive values and identity for a logarithmic coordinate")

    outward = np.flatnonzero(fractions > identity) if side == "above" else np.flatnonzero(fractions < identity)[::-1]
    path = np.concatenate([[identity], fractions[outward]])
    position = np.log(path) if coordinate == "log" else path
    drops = np.concatenate([np.zeros((len(drops), 1)), drops[:, outward]], axis=1)

    outside = drops >= margin
    first = outside.argmax(axis=1)
    censored = ~outside[np.arange(len(outside)), first]
    reentered = ((np.arange(len(path)) > first[:, None]) & ~outside).any(axis=1) & ~censored

    left = np.flatnonzero(~censored)
    j = first[left]
    before, after = drops[left, j - 1], drops[left, j]
    crossing = position[j - 1] + (margin - before) / (after - before) * (position[j] - position[j - 1])
    exits = np.full(len(drops), np.inf if side == "above" else -np.inf)
    exits[left] = np.exp(crossing) if coordinate == "log" else crossing
    bracket = Bracket(*(np.full(len(drops), np.nan) for _ in Bracket._fields))
    for values, found in zip(bracket, (path[j - 1], path[j], before, after), strict=True):
        values[left] = found
    return Tolerance(exits, censored, reentered, *bracket)


def accuracy_drop(reference: Values, values: Values) -> Values:
    """reference[S] - values[S, P] without the rounding errors of the subtraction."""
    reference, values = np.asarray(reference, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) == 0 or reference.shape != values.shape[:1]:
        raise InputError(
            f"accuracy: expected shapes [S] and [S, P] over the same seeds, got {reference.shape} and {values.shape}"
        )
    return np.round(reference[:, None] - values, DECIMALS)


def checked_fractions(name: str, values: Values, ndim: int) -> Values:
    """`values` as float64, refused unless they are fractions with `ndim` axes; catches percentages and NaN."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != ndim or not ((values >= 0) & (values <= 1)).all():
        raise InputError(
            f"{name}: expected fractions from 0 to 1 with {counted(ndim, 'axis', 'axes')}, got shape {values.shape}"
            + (f" and values from {values.min()} to {values.max()}" if values.size else "")
        )
    return values


def checked_margin(margin: float) -> float:
    """`margin` rounded like the drops that are compared with it."""
    rounded = round(float(margin), DECIMALS)
    if not rounded > 0:
        raise InputError(f"margin: expected a positive fraction, got {margin}")
    return rounded


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `InputError` unless `value` is one of the `known`."""
    if value not in known:
        raise InputError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
