"""Families that put the mean in place of a unit's smallest activations, or of its largest, by the variance that erases.

At equal p both erase the same share of each unit's variance over the training examples, one below, one above; or the
next larger share that can be, as equal values are on one side: behind ReLU all zeros come in at once from above.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdist.compute import Examples, Reducer, blocks, ensemble, mesh_of, over_networks, to_host
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import Model, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations.edits import Fill
from jaxdist.perturbations.family import Family
from jaxdist.perturbations.grids import upward
from jaxdist.registry import FAMILIES
from jaxdist.types import AnyArray, Params, Ranges, Values

Rows: TypeAlias = tuple[Array, Array, Array]
"""Values [M, ...], which of them are of examples [M], and how many have been written."""


def collapse(ranges: Ranges, fraction: Array, *, large: bool) -> Fill:
    """The edit of a share of the variance, which stands in place of the threshold until `ends` has found that."""
    share = jnp.full_like(ranges.low, fraction)
    return Fill(share, jnp.zeros_like(share), large=large)


_record = functools.partial(
    Family,
    grid=upward(2e-4, 1.0, 33),
    few=(0.01, 0.1, 0.5),
    kind="collapse",
    unit="own",
    axis="Share of variance erased (%)",
    dash="mixed",
)

COLLAPSE_SMALL = _record(
    name="collapse_small",
    text=FAMILIES["collapse_small"],
    edit=functools.partial(collapse, large=False),
    above="small to mean",
    label="collapse small: small values averaged",
    effect="small",
)

COLLAPSE_LARGE = _record(
    name="collapse_large",
    text=FAMILIES["collapse_large"],
    edit=functools.partial(collapse, large=True),
    above="large to mean",
    label="collapse large: large values averaged",
    effect="large",
)


def ends(values: AnyArray, shares: AnyArray, *, large: bool) -> tuple[AnyArray, AnyArray]:
    """Where the side of a unit's values that is averaged ends, and its mean: thresholds and means [P, H].

    With `large` unset the side is ``a <= t`` with the least t for which ``sum((a - mean)**2)`` over it, around the
    side's own mean, is at least the share of that over all values; with it set ``a >= t`` with the greatest such t. So
    averaging the side erases that share of the unit's variance. Equal values are on one side. The threshold is halfway
    between t and the next value, so that an activation that is rounded otherwise stays on its side; where all values
    are averaged it is infinite. None of a constant unit is, and none at a share of 0.

    Args:
      values: activations [N, H], none of them NaN.
      shares: of each unit's variance [P, H].

    Raises:
      InputError: for a share that is not from 0 to 1.
    """
    if not ((shares >= 0) & (shares <= 1)).all():
        raise InputError(f"shares of variance: expected from 0 to 1, got {shares.min():g} to {shares.max():g}")
    sign, dtype = -1 if large else 1, np.result_type(values.dtype, np.float32)
    thresholds, averages = (np.full(shares.shape, end, dtype) for end in (-np.inf, 0))
    for unit, column in enumerate(values.T):
        ordered = np.sort(sign * column.astype(np.float64))
        center, counts = ordered.mean(), np.arange(1, len(ordered) + 1)
        sums, squares = np.cumsum(ordered - center), np.cumsum((ordered - center) ** 2)
        erased = np.maximum.accumulate(squares - sums**2 / counts)
        erased[-1] = max(erased[-1], squares[-1])
        some = (shares[:, unit] > 0) & (ordered[0] < ordered[-1])
        wanted = shares[some, unit].astype(np.float64) * erased[-1]
        first = ordered[np.searchsorted(erased, wanted)]
        inside = np.searchsorted(ordered, first, side="right")
        averages[some, unit] = center + sums[inside - 1] / inside
        after = np.append(ordered, np.inf)[inside]
        middle = ((first + after) / 2).astype(dtype)
        # Between neighbours there is no middle.
        thresholds[some, unit] = np.where(np.isfinite(after) & (middle >= after), first, middle)
    return sign * thresholds, sign * averages


@dataclasses.dataclass(frozen=True)
class Gathered(Reducer):
    """One network's values at a site [M, ...], the units of each on the last axis, and which of them are examples [M].

    They are each device's own, one share after another, so that they take no more memory than the values themselves.
    """

    model: Model
    site: str
    rows: int
    """At least as many as the blocks of a share have together."""

    def init(self, params: Params, given: Params, x: Array) -> Rows:
        value = jax.eval_shape(self._read, params, x)
        return jnp.zeros((self.rows, *value.shape[1:]), value.dtype), jnp.zeros(self.rows, bool), jnp.int32(0)

    def update(self, state: Rows, params: Params, given: Params, block: blocks.Block) -> Rows:
        values, valid, start = state
        read = block.with_inputs(functools.partial(self._read, params))
        written = (lax.dynamic_update_slice_in_dim(*pair, start, 0) for pair in ((values, read), (valid, block.valid)))
        return next(written), next(written), start + len(block.valid)

    def merge(self, first: tuple[Array, Array, Array], second: tuple[Array, Array, Array]) -> Rows:
        return jnp.concatenate([first[0], second[0]]), jnp.concatenate([first[1], second[1]]), first[2]

    def _read(self, params: Params, x: Array) -> Array:
        value = networks_model.read(self.model, params, x, (self.site,))[1][self.site]
        return jnp.moveaxis(value, self.model.axis_of(self.site) % value.ndim, -1)


def measure(
    model: Model,
    params: Params,
    examples: Examples,
    site: str,
    shares: Values,
    *,
    large: bool,
    activation: Callable[[Array], Array] | None = None,
    block: int | None = None,
) -> tuple[AnyArray, AnyArray]:
    """The thresholds and means [S, P, H] of `ends` for every network, as few of them at once as run together.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of the split whose variance is meant.
      site: key of the values.
      shares: of the variance of each network's units [S, P, H].
      large: as in `ends`.
      activation: what makes activations of the site's values; None where it holds them itself.
      block: examples a block; chosen by default.

    Raises:
      InputError: if the model does not reach the site, or its values are more than can be sorted.
    """
    total, listed = int(to_host(examples.total)), networks_model.sites_for_one(model, params, examples.x, (site,))
    size, mesh = sizes.of_block(block, listed), mesh_of(examples)
    rows = -(-total // mesh.size) + size
    needed = 4 * rows * mesh.size * math.prod(listed.shape(site)) * ensemble.group(len(shares), math.inf, mesh)
    if needed > MOST_BYTES:
        raise InputError(
            f"site '{site}': its values for {counted(total, 'example')} take {needed / 2**30:.1f} GiB, and "
            f"collapse_small and collapse_large sort at most {MOST_BYTES / 2**30:.0f}; leave these families out, or "
            "use fewer training examples"
        )

    def some(these: slice, compute: Callable[[], tuple[Array, ...]]) -> tuple[AnyArray, AnyArray]:
        def of_one(values: Values, valid: AnyArray, shares: Values) -> tuple[AnyArray, AnyArray]:
            made = values[valid] if activation is None else np.asarray(activation(jnp.asarray(values[valid])))
            return ends(made.reshape(-1, made.shape[-1]), shares, large=large)

        values, valid, _ = compute()
        each_of = [of_one(*each) for each in zip(values, valid, shares[these], strict=True)]
        thresholds, averages = map(np.stack, zip(*each_of, strict=True))
        return thresholds, averages

    measured: tuple[AnyArray, AnyArray] = over_networks(
        Gathered(model, site, rows), params, None, examples, size=size, work=math.inf, each=some
    )
    return measured


@dataclasses.dataclass(frozen=True)
class Rectified(Reducer):
    """Whether one site holds ``max(h, 0)``, or ``|h|``, of what another holds, for all examples: two flags."""

    model: Model
    site: str
    behind: str

    def init(self, params: Params, given: Params, x: Array) -> Array:
        return jnp.ones(2, bool)

    def update(self, state: Array, params: Params, given: Params, block: blocks.Block) -> Array:
        values = networks_model.read(self.model, params, block.x, (self.site, self.behind))[1]
        before, after = values[self.site], values[self.behind]
        if before.shape != after.shape:
            return jnp.zeros(2, bool)
        made = (jnp.maximum(before, 0), jnp.abs(before))
        return state & jnp.stack([((after == each) | jnp.isnan(before)).all() for each in made])

    def merge(self, first: Array, second: Array) -> Array:
        return first & second


def check(model: Model, params: Params, examples: Examples, site: str, where: str, *, block: int | None = None) -> None:
    """Refuse a site behind which another holds activations that are not those of relu or abs, as their values show.

    What a function makes is known without values.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of a split.
      site: key of the site.
      where: the network, the site and the family, for messages.
      block: examples a block; chosen by default.

    Raises:
      InputError: it starts with `where`.
    """
    behind = model.after(site)
    if not isinstance(behind, str):
        return
    size = sizes.of_block(block, networks_model.sites_for_one(model, params, examples.x, (site, behind)))
    flags = over_networks(Rectified(model, site, behind), params, None, examples, size=size)
    if not np.asarray(flags).any(axis=-1).all():
        raise InputError(
            f"{where} takes small activations for those near the boundary, where h is 0, which needs relu or abs "
            f"between the site and '{behind}'; leave the family out"
        )


MOST_BYTES = 4 * 2**30
"""Of the values at a site of the networks that run together."""
