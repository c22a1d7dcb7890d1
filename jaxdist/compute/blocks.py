"""Walking over examples in blocks, so that memory stays bounded and a block's values stay in cache.

The mathematics elsewhere sees one block; this is the only place that knows how many there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from jaxdist.compute.devices import DATA, SEED, Examples

Carry = TypeVar("Carry")


TILE = 64
"""Block sizes are multiples of this: rows of whole cache lines, and products of whole tiles, are faster on CPUs than
those of 500 or 1,000 examples."""

CPU_VALUES, ACCELERATOR_VALUES = 3 * 2**14, 2**24
"""Float32 values of a block's widest site, or of its logits: on a CPU, what stays in a core's second-level cache beside
what is made of it, one network at a time, and no power of two, whose rows would share a cache's sets; elsewhere, enough
to keep the device busy, 64 MB."""

CPU_MOST, ACCELERATOR_MOST = 2**25, 2**28
"""The most values of a block anywhere in a model, such as its inputs: 128 MB for each core, 1 GB on an accelerator.
They bind only where something is far wider than the sites and logits, as images or feature maps that no site holds."""


def default_size(width: int, networks: int = 1, widest: int = 1) -> int:
    """Examples a block, where so many networks run together.

    Of each example `width` values are read and written at every point, at the widest site or as logits, and `widest`
    are the most that there are at once.
    """
    cpu = jax.default_backend() == "cpu"
    values, most = (CPU_VALUES, CPU_MOST) if cpu else (ACCELERATOR_VALUES // networks, ACCELERATOR_MOST // networks)
    fast, bound = max(TILE, values // width // TILE * TILE), max(1, most // widest)
    return min(fast, bound // TILE * TILE or bound)


class Block(NamedTuple):
    """Some consecutive examples. Rows that are not `valid` repeat examples that are counted elsewhere."""

    x: Any  # [n, ...], or a pytree of such arrays where two views of the examples are walked together
    y: Array  # [n]
    number: Array  # [n] position in the whole split, the same whatever the blocks and devices
    valid: Array  # [n] bool
    counted: Array  # [] bool: False where the block is a rehearsal


def even_size(examples: Examples, size: int, *, rehearse: bool = False) -> int:
    """Examples in each block where `fold` walks in blocks of at most `size`."""
    least = examples.least
    size = min(size, max(TILE, least // 8)) if rehearse else size
    return min(size, least, -(-least // -(-least // size) // TILE) * TILE)


def fold(
    step: Callable[[Carry, Block], Carry], init: Carry, examples: Examples, size: int, *, rehearse: bool = False
) -> Carry:
    """Fold `step` over this device's share of the examples, at most `size` at a time; runs inside ``shard_map``.

    Blocks have one shape, as even as the smallest share in the arrays and whole tiles allow, and how many there are is
    known when they are walked, so that splits in the same arrays take one program. The last one starts early and marks
    what it repeats as not valid, so nothing is copied or padded, and no block reaches out of its split. `init` holds
    constants; the result differs between devices: reduce it over the data axis. With `rehearse` the first block also
    comes before all others, with no row valid, for what has to be known from the start; blocks are then an eighth of
    the smallest share at most.
    """
    size = even_size(examples, size, rehearse=rehearse)
    share = -(-examples.total // lax.axis_size(DATA))

    def body(k: Array, carry: Carry) -> Carry:
        start = jnp.clip(k * size, 0, share - size)
        position = start + jnp.arange(size, dtype=start.dtype)
        number = lax.axis_index(DATA) * share + position
        block = Block(
            jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, examples.first + start, size), examples.x),
            lax.dynamic_slice_in_dim(examples.y, examples.first + start, size),
            number,
            (k >= 0) & (position >= k * size) & (number < examples.total),
            k >= 0,
        )
        return step(carry, block)

    return lax.fori_loop(-1 if rehearse else 0, -(-share // size), body, varying(init, (SEED, DATA)))


def some(examples: Examples, most: int) -> Any:
    """Inputs [n, ...] of at most so many of this device's examples, spread over its share; inside ``shard_map``."""
    share, count = -(-examples.total // lax.axis_size(DATA)), min(most, examples.least)
    rows = examples.first + jnp.arange(count, dtype=examples.first.dtype) * (share // count)
    return jax.tree.map(lambda leaf: leaf[rows], examples.x)


def specs(examples: Examples) -> Examples:
    """How `Examples` enter a ``shard_map``: split over the data axis."""
    split: Any = PartitionSpec(DATA)
    whole: Any = PartitionSpec()
    return dataclasses.replace(examples, x=split, y=split, first=whole, total=whole)


def rows_of(valid: Array, value: Array, unit_axis: int) -> Array:
    """Which entries of a value [n, ..., H] or [H, n, ...] to count, given which rows [n]; to broadcast along it."""
    axis = 1 if unit_axis % value.ndim == 0 else 0
    return jnp.expand_dims(valid, tuple(k for k in range(value.ndim) if k != axis))


def varying(tree: Any, axes: str | tuple[str, ...] = DATA) -> Any:
    """Mark values that are the same along mesh axes as free to differ, so that JAX sums nothing over them unasked."""
    return jax.tree.map(lambda leaf: lax.pcast(jnp.asarray(leaf), axes, to="varying"), tree)
