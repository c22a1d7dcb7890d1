"""The record of a family of edits: all that the package knows of it, in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from jaxdist.perturbations.edits import Edit
from jaxdist.perturbations.traits import Traits

Kind: TypeAlias = Literal["affine", "fill", "collapse", "noise", "restored", "mean", "toward", "other"]
"""What a family's edits are: `edits.Affine`, `Fill`, `Fill` by shares of the variance, `Noise`, `Affine` with the mean
logits restored after it, `Affine` towards the units' means, `Toward` what a network holds elsewhere, or a pytree of its
own."""


class Option(NamedTuple):
    """A field of `SweepConfig` that names the readings of a formula; the formula is given the one that is chosen."""

    name: str
    needs_positive: str
    """The reading that is a multiple of a unit's largest value, which has to be positive then."""
    otherwise: str
    """The reading that always means something."""
    everywhere: str = ""
    """The reading that edits at every fraction."""


class Circumstances(NamedTuple):
    """What where a family edits nothing depends on."""

    reading: str
    """Of its option, empty without one."""
    rule: str
    """Of the ranges."""
    reached: bool
    """Whether the measured side's largest value is known to be reached on the edited side."""
    one_sided: bool
    """Whether an activation is known to make 0 of negative values, or the same of both signs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family(Traits):
    """A kind of edit: how it is made for one network at one fraction, its grid, and what reports tell of it."""

    edit: Callable[..., Edit]
    """``edit(ranges, fraction)``: an edit with leaves [H] from one network's ranges [H] and a fraction [].

    Where it has an `option`, the reading follows; where it is `random`, the data of a key [2] is the last argument.
    Units that are to be left as they are, such as dead ones, are put back behind it.
    """
    grid: Callable[[], np.ndarray]
    """Its fractions [P], increasing."""
    few: tuple[float, ...] = (0.1, 0.25, 1.0)
    """Fractions that stand for the grid where there is room for few points, as where each unit is edited alone."""
    kind: Kind = "affine"
    random: bool = False
    """Whether it takes random numbers, several draws of which are averaged."""
    signed: bool = False
    """Whether it edits a unit of an even activation otherwise if the unit's sign is changed."""
    option: Option | None = None
    unedited_at: Callable[[Circumstances], float] | None = None
    """Where it edits nothing, where that depends on more than its `identity`."""

    @property
    def alone(self) -> bool:
        """Whether a point is one affine edit of the site, and nothing else."""
        return self.kind == "affine" and not self.random
