"""Whether each example's logits are its own: the same whatever other examples its block holds, wherever it stands.

Where they are not, as with batch statistics, experts of limited capacity or comparisons within a block, counts would
depend on how blocks are cut. So the same examples are looked at in blocks as the sweep cuts them, in another order with
other partners, and among few. Rounding differs as well, and more in half precision, in deep networks and where two
experts are nearly equal. Hence what differs is compared with what a network's own rounding does: with how far the
same example's logits move where all weights move by about a unit in the last place.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist.compute import devices, elementwise, tuning
from jaxdist.errors import InputError
from jaxdist.networks import model as networks_model
from jaxdist.networks.model import Action, Model
from jaxdist.types import Params

LOOKED_AT = 2048
"""Examples that are looked at, where there are as many: more where blocks are large, fewer where they are tiny, so that
there are never many thousands of them."""

LEAST_PAIRS = 4
"""Pairs of blocks, at least, spread over the split."""

FLOOR = 2e-4
"""Differences, relative to how far an example's logits lie apart, that change no count that means anything."""

UNITS, DRAWS, FACTOR = 32, 16, 4.0
"""By how many units in the last place of float32 weights are moved, or by one of a coarser type; how often; and the
largest ratio of what differs to what the worst of these does that is still taken for rounding."""

MOST_VALUES = 2**20
"""Logits that are compared at once."""

MOST_SUSPECTS = 32
"""Examples that are looked at again, those that differ most."""


FACTORS = (np.float32(0.01), np.float32(10))
"""By which a site's values are scaled: the ends of the families' grids."""


class _Way(NamedTuple):
    """Another way to cut blocks."""

    words: str
    size: int


class _Edit(NamedTuple):
    """The values at one site are scaled and cut, or all made the same.

    Examples that are all alike come to the same expert, which may have had room for them before; so may large values.
    """

    site: np.int32  # its place among the sites, -1 for none
    factor: np.float32
    size: np.float32  # that none exceeds, or all have
    alike: np.bool_


class _Network(NamedTuple):
    """One network, its sites edited in one way: from a block x[n, ...] to logits [n, C], float32 at least."""

    logits: Callable[[Params, np.ndarray], np.ndarray]
    params: Params
    inside: float  # unit in the last place of the numbers it computes with, relative to them
    outside: float  # the same of its logits


def check_each(
    model: Model, networks: Sequence[Params], x: np.ndarray, sites: tuple[str, ...], size: int, *, split: str
) -> None:
    """Refuse networks of one function as `check` does: the first and the last by all that it looks at.

    Those between are looked at unedited, in few pairs of blocks: what makes logits depend on other examples is the
    function more than the weights.

    Args:
      model: the networks' function.
      networks: parameters of each, at least one.
      x: inputs [N, ...], an array or a pytree of them.
      sites: keys of those that are edited.
      size: examples a block, as the sweep has them.
      split: its name, for messages.

    Raises:
      InputError: for the first example of the first network whose logits differ by more than rounding explains.
    """
    units = _rounding(model, networks[0], x)
    for k, params in enumerate(networks):
        _compare_arrangements(model, params, x, sites, size, units, split=split, closely=k in (0, len(networks) - 1))


def check(
    model: Model, params: Params, x: np.ndarray, sites: tuple[str, ...], size: int, *, split: str = "train"
) -> None:
    """Refuse one network whose logits for an example depend on others, or on its place, in blocks of `size` or fewer.

    Of every example in some pairs of blocks, spread over the split (all examples where there are few), the logits are
    compared in three arrangements: consecutive blocks of `size`, as the sweep has them; the pair's examples shuffled;
    and shuffled blocks of few, or of 64 where `size` is less. So they are four times more with each of `sites` edited.
    No more is held at once than a pair of blocks and their logits.

    Args:
      model: the network's function.
      params: of one network.
      x: inputs [N, ...], an array or a pytree of them.
      sites: keys of those that are edited.
      size: examples a block.
      split: its name, for messages.

    Raises:
      InputError: for the first example whose logits differ by more than rounding explains.
    """
    _compare_arrangements(model, params, x, sites, size, _rounding(model, params, x), split=split, closely=True)


def _compare_arrangements(
    model: Model,
    params: Params,
    x: np.ndarray,
    sites: tuple[str, ...],
    size: int,
    units: tuple[float, float],
    *,
    split: str,
    closely: bool,
) -> None:
    total, params = devices.count(x), jax.tree.map(jnp.asarray, params)
    size, rng = min(size, total), np.random.default_rng(0)
    other = _other(size, total)
    ways = (_Way(f"in another order, in blocks of {size}", size), _Way(f"in blocks of {other}", other))
    none = _Edit(np.int32(-1), np.float32(1), np.float32(0), np.False_)
    measured = np.asarray(_edited(params, devices.rows(x, slice(0, size)), none, model=model, sites=sites)[1])
    edits = [none]
    for k, of in enumerate(measured):  # the root mean square of each site's values
        edits += [_Edit(np.int32(k), np.float32(1), of, alike) for alike in (np.False_, np.True_)]
        edits += [_Edit(np.int32(k), factor, np.float32(np.inf), np.False_) for factor in FACTORS]
    pairs = _pairs(total, size, other)
    if not closely:
        edits, pairs = [none], pairs[:: max(1, len(pairs) // LEAST_PAIRS)]
    for edit, rows in itertools.product(edits, pairs):
        network = _Network(functools.partial(_logits, model, sites, edit), params, *units)
        part = devices.rows(x, rows)
        straight = _in_blocks(network, part, size)
        for way in ways:
            order = rng.permutation(len(rows))
            again = np.empty_like(straight)
            again[order] = _in_blocks(network, devices.rows(part, order), way.size)
            dependent = _dependent(network, part, straight, again, other, rng)
            if dependent is not None:
                edited = f", where site '{sites[edit.site]}' is edited," if edit.site >= 0 else ""
                raise InputError(
                    "apply: the logits of an example depend on the other examples of its block, as with batch "
                    "statistics, or on its place in it, as with experts of limited capacity: those of example "
                    f"{rows[dependent]} of '{split}'{edited} differ between consecutive blocks of {size} and "
                    f"{way.words}; pass the network in evaluation mode, or without the part that couples examples"
                )


def _other(size: int, total: int) -> int:
    """A size of blocks that gives each example other partners: fewer, or more where `size` is small."""
    if size >= 2 * tuning.current().tile:
        return tuning.current().tile
    if size >= tuning.current().tile // 2:
        return tuning.current().tile // 4
    return min(tuning.current().tile, total) if total > size else max(1, size // 2)


def _pairs(total: int, size: int, other: int) -> list[np.ndarray]:
    """The rows of the pairs of blocks to look at."""
    half = max(size, -(-other // 2))
    if total <= 2 * half:
        return [np.arange(total)]
    rows = min(LOOKED_AT, max(LOOKED_AT // 8, size * tuning.current().tile))
    count = min(max(LEAST_PAIRS, rows // (2 * half)), total // (2 * half))
    starts = np.linspace(0, total - half, 2 * count).astype(int)
    # From far apart, since examples may be sorted.
    return [np.concatenate([np.arange(half) + start for start in starts[[k, k + count]]]) for k in range(count)]


def _in_blocks(network: _Network, x: np.ndarray, size: int) -> np.ndarray:
    """Logits [N, C] in consecutive blocks; the last starts early."""
    total = devices.count(x)
    size, logits = min(size, total), np.empty((total, 0), np.float32)
    for first in range(0, total, size):
        start = min(first, total - size)
        part = network.logits(network.params, devices.rows(x, slice(start, start + size)))
        if not first:
            logits = np.empty((total, part.shape[1]), part.dtype)
        logits[start : start + size] = part
    return logits


def _dependent(
    network: _Network, x: np.ndarray, straight: np.ndarray, again: np.ndarray, size: int, rng: np.random.Generator
) -> int | None:
    """The row whose logits [N, C] differ most beyond rounding, if any's do."""
    apart, between, largest, another = _compared(straight, again)
    explained = FACTOR * network.outside * largest  # neighbours among the numbers that logits can be
    rows = np.flatnonzero(((apart > FLOOR * between) | another) & (apart > explained))
    rows = rows[np.argsort(-apart[rows] / np.maximum(between[rows], np.finfo(np.float32).tiny))][:MOST_SUSPECTS]
    if not len(rows):
        return None
    moved = np.zeros(len(rows))
    filled = np.resize(rows, -(-len(rows) // size) * size)

    def among_few(params: Params) -> np.ndarray:
        return _in_blocks(network._replace(params=params), devices.rows(x, filled), size)[: len(rows)]

    unmoved = among_few(network.params)
    for _ in range(DRAWS):
        params = jax.tree.map(lambda leaf: _moved(leaf, network.inside, rng), network.params)
        moved = np.maximum(moved, _compared(unmoved, among_few(params)).apart)
        unexplained = apart[rows] > FACTOR * moved + explained[rows]
        if not unexplained.any():
            return None
    return int(rows[unexplained][0])


class _Compared(NamedTuple):
    """Two arrays of logits, row by row, [N]."""

    apart: np.ndarray  # largest difference, infinite where only one of the two is finite
    between: np.ndarray  # how far the first one's lie apart
    largest: np.ndarray  # the largest size of the first one's
    another: np.ndarray  # whether the largest is another class's


def _compared(first: np.ndarray, second: np.ndarray) -> _Compared:
    rowwise = _Compared(*(np.zeros(len(first), kind) for kind in (float, float, float, bool)))
    some = max(1, MOST_VALUES // first.shape[1])
    for rows in (slice(start, start + some) for start in range(0, len(first), some)):
        before, after = (logits[rows].astype(np.float64) for logits in (first, second))
        with np.errstate(invalid="ignore"):
            apart = np.abs(before - after)
        apart[(before == after) | (np.isnan(before) & np.isnan(after))] = 0
        finite = np.where(np.isfinite(before), before, 0)
        rowwise.apart[rows] = np.where(np.isnan(apart), np.inf, apart).max(1)
        rowwise.between[rows], rowwise.largest[rows] = np.ptp(finite, 1), np.abs(finite).max(1)
        rowwise.another[rows] = _classes(before) != _classes(after)
    return rowwise


def _classes(logits: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(logits), -np.inf, logits).argmax(1)


def _moved(leaf: Array, unit: float, rng: np.random.Generator) -> Array:
    """Weights moved relative to their size, each by itself and all of a row, column and so on together.

    Since the sum of many weights moved apart moves less than its own rounding.
    """
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    factor = 1 + unit * rng.choice((-1.0, 1.0), leaf.shape)
    for axis, length in enumerate(leaf.shape):
        along = [1] * leaf.ndim
        along[axis] = length
        factor += unit * rng.choice((-1.0, 1.0), along)
    return jnp.asarray((np.asarray(leaf).astype(np.float64) * factor).astype(leaf.dtype))


def _rounding(model: Model, params: Params, x: np.ndarray) -> tuple[float, float]:
    """The units of the coarsest type of floating-point numbers that the network computes with, and of its logits."""
    traced = networks_model.trace(model, params, networks_model.shapes_of_one(x)).program
    values = [var.aval for equation in networks_model.equations(traced.jaxpr) for var in equation.outvars]
    types = {getattr(value, "dtype", None) for value in [*values, *jax.tree.leaves(params)]}
    units = [_unit(kind) for kind in types if kind is not None and jnp.issubdtype(kind, jnp.floating)]
    return max(UNITS * _unit(np.float32), *units), _unit(traced.out_avals[0].dtype)


def _unit(kind: np.typing.DTypeLike) -> float:
    return float(jnp.finfo(kind).eps)  # type: ignore[no-untyped-call]


def _logits(model: Model, sites: tuple[str, ...], edit: _Edit, params: Params, x: np.ndarray) -> np.ndarray:
    return np.asarray(_edited(params, x, edit, model=model, sites=sites)[0])


@functools.partial(jax.jit, static_argnames=("model", "sites"))
def _edited(params: Params, x: Array, edit: _Edit, *, model: Model, sites: tuple[str, ...]) -> tuple[Array, Array]:
    """Logits [n, C], and the root mean square of each site's unedited value."""

    def acting(k: int) -> Action:
        def act(value: Array) -> Array:
            wide = elementwise.single(value)
            size = jnp.asarray(edit.size).astype(wide.dtype)
            scaled = jnp.asarray(edit.factor).astype(wide.dtype) * wide
            edited = jnp.where(edit.alike, size, jnp.minimum(scaled, size))
            return jnp.where(edit.site == k, edited.astype(value.dtype), value)

        return act

    with jax.default_matmul_precision("float32"):
        logits = networks_model.edit(model, params, x, {site: acting(k) for k, site in enumerate(sites)})
        values = networks_model.read(model, params, x, sites)[1]
    wide = elementwise.single(jnp.moveaxis(logits, model.class_axis, 1))
    wide = wide.reshape(len(wide), -1)  # those of several tokens one after the other
    return wide, jnp.stack([_size(values[site]) for site in sites])


def _size(value: Array) -> Array:
    wide = elementwise.single(value)
    return jnp.sqrt(jnp.mean(wide * wide)).astype(jnp.float32)
