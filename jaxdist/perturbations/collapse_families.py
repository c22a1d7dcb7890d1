"""Families that put the mean in place of a unit's smallest activations, or of its largest, by what variance they hold.

At equal p both erase the same share of each unit's variance over the training examples, one below, one above.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist.compute import Examples, Reducer, blocks, over_networks, to_host
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import Model, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations.edits import Fill
from jaxdist.perturbations.family import Family
from jaxdist.perturbations.grids import upward
from jaxdist.registry import FAMILIES
from jaxdist.types import AnyArray, Params, Ranges, Values


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
    axis="Share of each unit's variance (%)",
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


def ends(values: Values, shares: Values, *, large: bool) -> tuple[Values, Values]:
    """Where units' values begin that are averaged, and their means: thresholds and means [P, H], in float64.

    With `large` unset the side is ``a <= t`` with the least t for which ``sum((a - a.mean())**2 where a <= t)`` is at
    least the share of the whole sum; with it set ``a >= t`` with the greatest such t. Equal values are on one side. The
    threshold is halfway between t and the next value, so that rounding puts none on the other side; where all values
    are averaged it is infinite. None of a constant unit is, and none at a share of 0.

    Args:
      values: activations [N, H].
      shares: of each unit's variance [P, H], from 0 to 1.
    """
    sign = -1.0 if large else 1.0
    thresholds, averages = np.full(shares.shape, -np.inf), np.zeros(shares.shape)
    for unit, column in enumerate(values.T):
        ordered = np.sort(sign * column.astype(np.float64))
        held = np.cumsum((ordered - ordered.mean()) ** 2)
        some = (shares[:, unit] > 0) & (ordered[0] < ordered[-1])
        first = np.searchsorted(held, shares[some, unit].astype(np.float64) * held[-1])
        inside = np.searchsorted(ordered, ordered[first], side="right")
        averages[some, unit] = np.cumsum(ordered)[inside - 1] / inside
        thresholds[some, unit] = (ordered[first] + np.append(ordered, np.inf)[inside]) / 2
    return sign * thresholds, sign * averages


@dataclasses.dataclass(frozen=True)
class Gathered(Reducer):
    """One network's values at a site, of all examples: [N, ...]; with the units of each on the last axis."""

    model: Model
    site: str
    total: int

    def init(self, params: Params, given: Params, x: Array) -> Array:
        value = jax.eval_shape(self._read, params, x)
        return jnp.zeros((self.total, *value.shape[1:]), value.dtype)

    def update(self, state: Array, params: Params, given: Params, block: blocks.Block) -> Array:
        values = block.with_inputs(functools.partial(self._read, params))
        # Rows that are counted elsewhere go nowhere.
        return state.at[jnp.where(block.valid, block.number, self.total)].set(values, mode="drop")

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
    """The thresholds and means [S, P, H] of `ends` for every network, its values sorted one network at a time.

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
    needed = 4 * total * math.prod(listed.shape(site))
    if needed > MOST_BYTES:
        raise InputError(
            f"site '{site}': its values for {counted(total, 'example')} take {needed / 2**30:.1f} GiB, and "
            f"collapse_small and collapse_large sort at most {MOST_BYTES / 2**30:.0f}; leave these families out, or "
            "use fewer training examples"
        )

    def some(these: slice, compute: Callable[[], Array]) -> tuple[AnyArray, AnyArray]:
        def of_one(values: Values, shares: Values) -> tuple[Values, Values]:
            made = values if activation is None else np.asarray(activation(jnp.asarray(values)))
            return ends(made.reshape(-1, made.shape[-1]), shares, large=large)

        each_of = [of_one(*each) for each in zip(compute(), shares[these], strict=True)]
        thresholds, averages = (np.stack(each).astype(np.float32) for each in zip(*each_of, strict=True))
        return thresholds, averages

    gathered = Gathered(model, site, total)
    measured: tuple[AnyArray, AnyArray] = over_networks(
        gathered, params, None, examples, size=sizes.of_block(block, listed), work=math.inf, each=some
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
        return state & jnp.stack([(after == jnp.maximum(before, 0)).all(), (after == jnp.abs(before)).all()])

    def merge(self, first: Array, second: Array) -> Array:
        return first & second


def is_rectified(
    model: Model, params: Params, examples: Examples, site: str, behind: str, *, block: int | None = None
) -> bool:
    """Whether the values behind a site are those of relu or abs there, of every network.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of a split.
      site, behind: keys of the two sites.
      block: examples a block; chosen by default.
    """
    size = sizes.of_block(block, networks_model.sites_for_one(model, params, examples.x, (site, behind)))
    flags = over_networks(Rectified(model, site, behind), params, None, examples, size=size)
    return bool(np.asarray(flags).any(axis=-1).all())


MOST_BYTES = 4 * 2**30
"""Of one network's values at a site."""
