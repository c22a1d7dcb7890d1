"""Families that lead a value towards another one, v + p (target - v): as it is at p = 0, the target alone at p = 1."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist.errors import InputError
from jaxdist.perturbations import edits
from jaxdist.perturbations.edits import Affine, Toward
from jaxdist.perturbations.family import Family
from jaxdist.registry import FAMILIES
from jaxdist.types import Ranges


def grid() -> np.ndarray:
    """21 fractions from 0 to 1."""
    return np.linspace(0, 1, 21)


def towards_zero(ranges: Ranges, fraction: Array) -> Affine:
    """Every value times 1 - p."""
    return edits.unedited(ranges.low.size)._replace(scale=jnp.full_like(ranges.low, 1 - fraction))


_record = functools.partial(Family, grid=grid, few=(0.5, 1.0), unit="way")
"""What the records of all these families have in common."""

ZERO = _record(
    name="zero",
    text=FAMILIES["zero"],
    edit=towards_zero,
    above="zeroed by",
    label="zero: towards 0",
    effect="scale",
    dash="dashed",
)

MEAN = _record(
    name="mean",
    text=FAMILIES["mean"],
    edit=towards_zero,  # the means, which are no part of the ranges, are added where the sweep has measured them
    above="averaged by",
    kind="mean",
    label="mean: towards the unit's mean",
    effect="other",
    dash="dashed",
)


def toward(of: edits.Target, ranges: Ranges, fraction: Array, key: Array | None = None) -> Toward:
    """The edit that leads every unit a fraction of the way to a target that the sweep finds.

    Args:
      of: the target.
      ranges: of one network [H], for the number of units alone.
      fraction: [] from 0, as it is, to 1, the target alone.
      key: the data [2] of the key that another example is drawn from; None for other targets.
    """
    drawn = jnp.zeros(2, jnp.uint32) if key is None else key
    return Toward(jnp.full_like(ranges.low, fraction), drawn, jnp.int32(0), of)


RESAMPLE = _record(
    name="resample",
    text=FAMILIES["resample"],
    edit=functools.partial(toward, "example"),
    above="resampled by",
    kind="toward",
    random=True,
    label="resample: towards another example",
    effect="control",
    dash="dashed",
)

PATCH = _record(
    name="patch",
    text=FAMILIES["patch"],
    edit=functools.partial(toward, "source"),
    above="patched by",
    kind="toward",
    label="patch: towards the source",
    effect="other",
    dash="mixed",
)

MEAN_POSITION = _record(
    name="mean_position",
    text=FAMILIES["mean_position"],
    edit=functools.partial(toward, "mean"),
    above="position mean by",
    kind="toward",
    label="mean position: towards each position's mean",
    effect="other",
    dash="dotted",
)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["fraction"], meta_fields=["function"])
@dataclasses.dataclass(frozen=True)
class ByFunction:
    """What a function makes of a value and a fraction, which is the same for all units; leaf [H]."""

    fraction: Array
    function: Callable[[Array, Array], Array]

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply to a value, whose type it keeps."""
        return jnp.asarray(self.function(value, self.fraction[0].astype(value.dtype))).astype(value.dtype)


def of_function(function: Callable[[Array, Array], Array]) -> Family:
    """The family of a function of (value, fraction): 21 fractions from 0, where it should edit nothing, to 1.

    Its name is the function's.

    Raises:
      InputError: if it edits at fraction 0.
    """
    name = getattr(function, "__name__", type(function).__name__).lower().strip("_<>")
    values = jnp.linspace(-3, 3, 12, dtype=jnp.float32).reshape(3, 4)
    if not np.array_equal(ByFunction(jnp.zeros(4), function).apply(values, jnp.arange(3), -1), values):
        raise InputError(
            f"family '{name}': changes values at fraction 0, but a family given as a function must leave them "
            "unchanged there; pass a jaxdist.Family, which says where it edits nothing"
        )

    def edit(ranges: Ranges, fraction: Array) -> ByFunction:
        return ByFunction(jnp.full_like(ranges.low, fraction), function)

    edit.__module__, edit.__qualname__ = function.__module__, getattr(function, "__qualname__", name)
    text = (function.__doc__ or "").strip().partition("\n")[0] or f"what the function {name} makes of a value and p"
    return Family(
        name=name, text=text, edit=edit, grid=grid, above=f"{name[:13]} by", kind="other", few=(0.5, 1.0), unit="own"
    )
