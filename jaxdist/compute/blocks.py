"""Walking over examples in blocks, so that memory stays bounded and a block's values stay in cache.

The mathematics elsewhere sees one block; this is the only place that knows how many there are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec
from jaxtyping import Bool, Num

from jaxdist.compute import tuning
from jaxdist.compute.devices import DATA, SEED, Examples
from jaxdist.compute.streams import Streamed

Carry = TypeVar("Carry")


def default_size(width: int, widest: int = 1) -> int:
    """Examples a block, of which each has `width` values that every point reads and writes, at the widest site or as
    logits, and at most `widest` at once."""
    chosen = tuning.current()
    together = chosen.networks * chosen.points
    fast = max(1, chosen.values // (width * together * chosen.tile)) * chosen.tile
    bound = max(1, chosen.most // (widest * chosen.networks))
    return min(fast, bound // chosen.tile * chosen.tile or bound)


class Block(NamedTuple):
    """Some consecutive examples. Rows that are not `valid` repeat examples that are counted elsewhere."""

    x: Any  # [n, ...], or a pytree of such arrays where two views of the examples are walked together
    y: Array  # [n]
    number: Array  # [n] position in the whole split, the same whatever the blocks and devices
    valid: Array  # [n] bool
    counted: Array  # [] bool: False where the block is a rehearsal
    source: Any = None  # [n, ...] other inputs that go with these, where the examples have any
    rows: Callable[[Array], Any] | None = None  # inputs of the split at any positions [n], on whatever device they lie
    cut: Callable[[Callable[[Any], Any], int], Any] | None = None  # applies a function to inputs cut by a staircase

    def with_inputs(self, evaluate: Callable[[Any], Carry], *, every: int = 2) -> Carry:
        """What a function makes of the block's inputs, perhaps without the last columns, where these are all 0.

        It must give the same for both but for rounding. How many columns are left is known when it is computed, so the
        function is compiled for each step of a staircase; of these only `every` so many are told apart, which is enough
        where it is not computed thousands of times.
        """
        result: Carry = evaluate(self.x) if self.cut is None else self.cut(evaluate, every)
        return result


def even_size(examples: Examples | Streamed, size: int, *, rehearse: bool = False) -> int:
    """Examples in each block where `fold` walks in blocks of at most `size`."""
    least, tile = examples.least, tuning.current().tile
    size = min(size, max(tile, least // 8)) if rehearse else size
    return min(size, least, -(-least // -(-least // size) // tile) * tile)


def fold(
    step: Callable[[Carry, Block], Carry], init: Carry, examples: Examples, size: int, *, rehearse: bool = False
) -> Carry:
    """Fold a function over each of this device's shares of the examples, block by block; inside ``shard_map``.

    Blocks have one shape, as even as the smallest share in the arrays and whole tiles allow, and how many there are is
    known when they are walked, so that splits in the same arrays take one program. The last one starts early and marks
    what it repeats as not valid, so nothing is copied or padded, and no block reaches out of its split.

    Args:
      step: makes the next carry of a carry and a block.
      init: the first carry, constants.
      examples: this device's part of a split, as `specs` cuts it.
      size: examples a block, at most.
      rehearse: a block from the middle also comes before all others, with no row valid, for what has to be known from
        the start; blocks are then an eighth of the smallest share at most.

    Returns:
      The carries, with a leading axis of the device's shares: merge them with those of other devices.
    """
    size = even_size(examples, size, rehearse=rehearse)
    shares = examples.shares
    laid = examples.total if examples.laid is None else examples.laid
    share = -(-laid // (lax.axis_size(DATA) * shares))
    rows = functools.partial(_rows, examples, share)

    def of_share(number: Array) -> Carry:
        before = number * share

        def body(k: Array, carry: Carry) -> Carry:
            # What is rehearsed is in the middle, as examples may lie in an order.
            start = jnp.clip(jnp.where(k < 0, share // size // 2, k) * size, 0, share - size)
            position = start + jnp.arange(size, dtype=start.dtype)
            index = (lax.axis_index(DATA) * shares + number) * share + position
            first = examples.first + before + start
            x, y, source, own, needs = jax.tree.map(
                lambda leaf: lax.dynamic_slice_in_dim(leaf, first, size),
                (examples.x, examples.y, examples.source, examples.number, examples.step),
            )
            valid = (k >= 0) & (position >= k * size) & (index < examples.total)
            of_split = index if examples.before is None else index + examples.before
            cut = None if needs is None else functools.partial(_cut, examples, first, size, jnp.max(needs))
            block = Block(x, y, of_split if own is None else own, valid, k >= 0, source, rows, cut)
            return step(carry, block)

        return lax.fori_loop(-1 if rehearse else 0, -(-share // size), body, varying(init, (SEED, DATA)))

    return lax.map(of_share, jnp.arange(shares, dtype=examples.first.dtype))


def _cut(
    examples: Examples, first: Array, size: int, needs: Array, evaluate: Callable[[Any], Carry], every: int
) -> Carry:
    """What a function makes of a block's inputs, cut to the width that they need, of the last and each so many."""
    widths = examples.widths[::-1][::every][::-1]
    step = len(widths) - 1 - (len(examples.widths) - 1 - needs) // every

    def at(width: int) -> Carry:
        def narrow(leaf: Array) -> Array:
            return lax.dynamic_slice(leaf, (first, jnp.zeros_like(first)), (size, width))

        return evaluate(jax.tree.map(narrow, examples.x))

    result: Carry = lax.switch(step, [functools.partial(at, width) for width in widths])
    return result


def _rows(examples: Examples, share: Array, positions: Array) -> Any:
    """The inputs at some positions [n] of the whole split; all devices that share it ask for as many at once."""
    devices, each = lax.axis_size(DATA), share * examples.shares
    if examples.places is not None:
        positions = examples.places[positions]
    holder, place = positions // each, positions % each + examples.first
    if devices == 1:
        return jax.tree.map(lambda leaf: leaf[place], examples.x)
    asked = lax.all_gather(place, DATA)

    def fetched(leaf: Array) -> Array:
        # Each device sends every other what it has at the places which that one asks for, [devices, n, ...].
        sent = lax.all_to_all(leaf[asked], DATA, 0, 0)
        return sent[holder, jnp.arange(len(positions))]

    return jax.tree.map(fetched, examples.x)


def some(examples: Examples, most: int) -> Any:
    """Inputs [n, ...] of at most so many of this device's examples, spread over its share; inside ``shard_map``."""
    share = -(-examples.total // (lax.axis_size(DATA) * examples.shares)) * examples.shares
    count = min(most, examples.least)
    rows = examples.first + jnp.arange(count, dtype=examples.first.dtype) * (share // count)
    return jax.tree.map(lambda leaf: leaf[rows], examples.x)


def specs(examples: Examples) -> Examples:
    """How `Examples` enter a ``shard_map``: split over the data axis."""
    split: Any = PartitionSpec(DATA)
    replicated: Any = PartitionSpec()
    of_chunk = None if examples.laid is None else replicated
    return dataclasses.replace(
        examples,
        x=split,
        y=split,
        first=replicated,
        total=replicated,
        laid=of_chunk,
        before=of_chunk,
        source=split,
        number=split,
        step=split,
        places=replicated,
    )


def rows_of(valid: Bool[Array, " n"], value: Num[Array, "..."], unit_axis: int) -> Bool[Array, "..."]:
    """Which entries of a value [n, ..., H] or [H, n, ...] to count, given which rows [n]; to broadcast along it."""
    axis = 1 if unit_axis % value.ndim == 0 else 0
    return jnp.expand_dims(valid, tuple(k for k in range(value.ndim) if k != axis))


def varying(tree: Any, axes: str | tuple[str, ...] = DATA) -> Any:
    """Mark values that are the same along mesh axes as free to differ, so that JAX sums nothing over them unasked."""
    return jax.tree.map(lambda leaf: lax.pcast(jnp.asarray(leaf), axes, to="varying"), tree)
