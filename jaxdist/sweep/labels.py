"""The arrays of a sweep, labelled where they come together: one `xarray.Dataset` from the kernel's edge on.

A sweep's points lie along the dimension `point`; `families_of_points` cuts it into the dimensions `draw`, where a
family has several, and `fraction`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

AXES = ("network", "seed", "site", "split")
"""The dimensions that every measurement of an ensemble has."""

OWN: Mapping[str, tuple[str, ...]] = {
    "correct": ("point",),
    "agree": ("point",),
    "kept": ("point",),
    "unperturbed": (),
    "dose": ("point",),
    "rms": ("point",),
    "rms_plain": ("point",),
    "metric_mean": ("point", "metric"),
    "metric_sd": ("point", "metric"),
    "metric_change": ("point", "metric"),
    "metric_change_sd": ("point", "metric"),
    "metric_unedited": ("metric",),
    "metric_unedited_sd": ("metric",),
    "metric_error": ("point", "metric"),
    "metric_change_error": ("point", "metric"),
    "metric_weight": ("metric",),
    "metric_examples": ("metric",),
}
"""The variables of a sweep, with the dimensions that each has beside `AXES`.

Counts are of images, or of tokens: `correct`, `agree` and `kept` as in `kernel.Counts`, `unperturbed` without any edit;
a regression has none. Doses are `doses.Doses`. Of each metric: mean and standard deviation over the examples, with the
edit, of the difference that the edit makes, and without it, and the standard errors of the first two means; of tokens
an example is the mean of its tokens, weighted by their number. `metric_weight` is the sum of the weights, and
`metric_examples` the number of examples that have one.
"""

UNEDITED = ("unperturbed", "metric_unedited", "metric_unedited_sd", "metric_weight", "metric_examples")
"""The variables that do not depend on the edit, and so on no site."""

COUNTS = ("correct", "agree", "kept", "unperturbed")
"""The variables that are numbers of images."""

MISSING = -1
"""Stands in counts where there is no such network, unit or training state; elsewhere it is NaN."""

SweptKey: TypeAlias = tuple[str, str, str]
"""A network, a target and a split."""

Arrays: TypeAlias = Mapping[str, np.ndarray]
"""The variables of one network, target and split: [S, ...]."""


def missing(name: str, kind: np.dtype[Any]) -> float | bool:
    """The value of a variable where there is nothing."""
    return MISSING if name in COUNTS else False if kind.kind == "b" else np.nan


def dataset(
    arrays: Mapping[SweptKey, Arrays], own: Mapping[str, tuple[str, ...]], coords: Mapping[str, Sequence[Any]]
) -> xr.Dataset:
    """Put the arrays [S, ...] of every network, target and split together.

    Args:
      own: the dimensions that each variable has beside `AXES`.
      coords: the labels of those, and of others that variables have.

    Where the last axes differ, as units do, narrower arrays are filled up with `missing`.
    """
    names, targets, splits = (list(dict.fromkeys(part)) for part in zip(*arrays, strict=True))

    def stack_filled(variable: str) -> np.ndarray:
        each = {key: np.asarray(of[variable]) for key, of in arrays.items()}
        shape = np.max([array.shape for array in each.values()], axis=0)

        def filled(array: np.ndarray) -> np.ndarray:
            widths = [(0, int(size) - present) for size, present in zip(shape, array.shape, strict=True)]
            return np.pad(array, widths, constant_values=missing(variable, array.dtype))

        stacked = np.array([[[filled(each[n, t, s]) for s in splits] for t in targets] for n in names])
        return np.moveaxis(stacked, 3, 1)

    values = {}
    for name in next(iter(arrays.values())):
        array = stack_filled(name)
        if name in UNEDITED:
            values[name] = ("network", "seed", "split", *own[name]), array[:, :, 0]
        else:
            values[name] = (*AXES, *own[name]), array
    return xr.Dataset(values, {**coords, "network": names, "site": targets, "split": splits})


def families_of_points(
    swept: xr.Dataset, grids: Mapping[str, np.ndarray], draws: Mapping[str, int]
) -> Iterator[tuple[str, xr.Dataset]]:
    """Each family's part of a sweep over all grids concatenated, at its fractions, draw after draw."""
    first = 0
    for family, grid in grids.items():
        count = draws[family]
        part = swept.isel(point=slice(first, first := first + count * len(grid)))
        part = part.rename(point="fraction") if count == 1 else parted(part, "point", ("draw", "fraction"), len(grid))
        yield family, part.assign_coords(fraction=grid)


def parted(group: xr.Dataset, dim: str, into: tuple[str, str], size: int) -> xr.Dataset:
    """Cut a dimension into two.

    Args:
      group: what has the dimension.
      dim: its name.
      into: the names of the two, of which the second runs fastest.
      size: of the second.
    """
    return group.coarsen({dim: size}).construct({dim: into})


def over_draws(group: xr.Dataset) -> xr.Dataset:
    """The means over the draws, where a group has several, with the standard deviations of two counts.

    Those are `correct_sd` and `agree_sd` (ddof 1); results of earlier versions hold just that, and stay as they are.
    A value that is NaN in one draw has no mean, and counts that are missing no deviation.
    """
    if "draw" not in group.dims:
        return group
    spread = {
        f"{name}_sd": group[name].std("draw", ddof=1).where(group[name].isel(draw=0) != MISSING)
        for name in ("correct", "agree")
        if name in group
    }
    return group.map(
        lambda values: values.mean("draw", skipna=False) if "draw" in values.dims else values, keep_attrs=True
    ).assign(spread)
