"""First crossings: where a curve first reaches a level, walking outward from no edit.

Pure NumPy. Every accuracy, drop and margin is a fraction. Seeds are the first axis (S), sweep points the second (P).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.types import Flags, Values

DECIMALS = 12
"""Differences of accuracies, and margins, are rounded so: 0.12 - 0.11 is 0.01, as the image counts behind it say.

Distinct counts of N images differ by 1/N, far more; the rounding error of one subtraction is far less. So equal count
differences are equal numbers, a drop of exactly the margin reaches it, and constant differences are seen to be so.
"""

Positions: TypeAlias = npt.NDArray[np.integer[Any]]


class Crossing(NamedTuple):
    """Where curves first reach a level, each [...]: at `share` of the way from point `before` to point `after`.

    Where a curve never does, both are its last point and `share` is NaN.
    """

    reached: Flags
    before: Positions
    after: Positions
    share: Values

    def along(self, values: Values) -> Values:
        """The value at the crossing of something else that is known at the curves' points [..., Q], linear between two.

        NaN where a curve never reaches the level.
        """
        start, end = (_at(values, positions) for positions in (self.before, self.after))
        return start + self.share * (end - start)


def first_crossing(curves: Values, level: npt.ArrayLike) -> Crossing:
    """Where curves [..., Q], each of which begins below its level [...], first reach it, linear between two points.

    A point that equals the level reaches it; a point that is NaN does not.
    """
    curves, level = np.asarray(curves, np.float64), np.asarray(level, np.float64)
    outside = curves >= level[..., None]
    reached: Flags = np.asarray(outside.any(axis=-1))
    after = np.where(reached, outside.argmax(axis=-1), outside.shape[-1] - 1)
    before = after - reached
    start, end = _at(curves, before), _at(curves, after)
    share = np.divide(level - start, end - start, out=np.full(reached.shape, np.nan), where=reached)
    return Crossing(reached, before, after, share)


def _at(values: Values, positions: Positions) -> Values:
    """The value [...] of each row of values [..., Q] at a position [...]."""
    rows = np.broadcast_to(values, (*positions.shape, np.shape(values)[-1]))
    return np.take_along_axis(rows, positions[..., None], axis=-1)[..., 0]


def outward(fractions: Values, identity: float, side: str) -> Positions:
    """The positions of a grid's points on one side of `identity`, "below" or "above", walking outward from there.

    Raises `InputError` for another side.
    """
    _check_choice("side", side, ("below", "above"))
    return np.flatnonzero(fractions > identity) if side == "above" else np.flatnonzero(fractions < identity)[::-1]


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


def check_amount(metric: str, amount: object) -> None:
    """Refuse what is no distance for a metric's mean to move: above 0 to rise by, below 0 to fall by.

    Raises:
      InputError: for anything but a finite number other than 0.
    """
    value = np.asarray(amount)
    if value.ndim or value.dtype.kind not in "iuf" or not np.isfinite(value) or not value:
        raise InputError(
            f"thresholds: expected how far '{metric}' rises (above 0) or falls (below 0), in its own unit, got "
            f"{amount!r}"
        )


def first_exit(
    fractions: Values,
    drops: Values,
    *,
    identity: float,
    coordinate: Literal["linear", "log"],
    side: Literal["below", "above"],
    margin: float,
) -> Tolerance:
    """First exit of each network: where, walking outward from no edit, what an edit costs has reached `margin`.

    A side without grid points is censored for every network.

    Args:
      fractions: the family's grid [P], strictly increasing.
      drops: [S, P], the cost: accuracy lost, predictions changed, a dose.
      identity: the fraction that edits nothing (1 for scale and clip, 0 for offset); the drop there is 0 by definition,
        whether or not the grid has that point.
      coordinate: between points the drop is linear in the fraction or, for "log", in its logarithm. The exit is in the
        fraction's own units either way.
      side: below `identity` or above it.
      margin: in the unit of `drops`, above 0.

    Raises:
      InputError: for a grid that is not increasing or, for "log", not positive; shapes that do not match; an unknown
        `coordinate` or `side`; a margin that is not positive.
    """
    fractions, drops = (np.asarray(values, np.float64) for values in (fractions, drops))
    margin = checked_margin(margin)
    _check_choice("coordinate", coordinate, ("linear", "log"))
    if drops.ndim != 2 or fractions.shape != drops.shape[1:] or not (np.diff(fractions) > 0).all():
        raise InputError(
            f"fractions: expected {counted(np.shape(drops)[-1], 'strictly increasing value')}, one per point, got "
            f"shape {fractions.shape}"
        )
    if coordinate == "log" and not min(identity, *fractions) > 0:
        raise InputError("fractions: expected positive values and identity for a logarithmic coordinate")
    walked = outward(fractions, identity, side)
    path = np.concatenate([[identity], fractions[walked]])
    drops = np.concatenate([np.zeros((len(drops), 1)), drops[:, walked].round(DECIMALS)], axis=1)
    crossing = first_crossing(drops, np.full(len(drops), margin))
    censored = ~crossing.reached
    exits = np.exp(crossing.along(np.log(path))) if coordinate == "log" else crossing.along(path)
    exits = np.where(censored, np.inf if side == "above" else -np.inf, exits)
    inside_again: Flags = (np.arange(len(path)) > crossing.after[:, None]) & (drops < margin)
    ends = (_at(values, at) for values in (path, drops) for at in (crossing.before, crossing.after))
    bracket = (np.where(censored, np.nan, end) for end in ends)
    return Tolerance(exits, censored, np.asarray(inside_again.any(axis=1)), *bracket)


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
    """`first_exit` of accuracies below those without an edit.

    Args:
      fractions: the family's grid [P], strictly increasing.
      accuracy: [S, P], fractions.
      unperturbed: [S], fractions, without an edit.
      identity, coordinate, side: as in `first_exit`.
      margin: accuracy lost, a fraction.

    Raises:
      InputError: as `first_exit` does, and for accuracies that are not fractions.
    """
    accuracy = checked_fractions("accuracy", accuracy, 2)
    drops = accuracy_drop(checked_fractions("unperturbed", unperturbed, 1), accuracy)
    return first_exit(fractions, drops, identity=identity, coordinate=coordinate, side=side, margin=margin)


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
    """`margin` rounded like the drops that are compared with it, the least of which stands for all that are less."""
    if not margin > 0:
        raise InputError(f"margin: expected a positive fraction, got {margin}")
    return max(round(float(margin), DECIMALS), 10.0**-DECIMALS)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `InputError` unless `value` is one of the `choices`."""
    if value not in choices:
        raise InputError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
