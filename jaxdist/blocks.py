"""Walking over examples in blocks, so that memory stays bounded and a block's values stay in cache.

The mathematics elsewhere sees one block; this is the only place that knows how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from jaxdist.devices import DATA, SEED, Examples

Carry = TypeVar("Carry")

SPECS = Examples(PartitionSpec(DATA), PartitionSpec(DATA), PartitionSpec())  # type: ignore[arg-type]
"""How `Examples` enter a ``shard_map``."""


TILE = 64
"""Block sizes are multiples of this: rows of whole cache lines, and products of whole tiles, are faster on CPUs than
those of 500 or 1,000 examples."""

CPU_VALUES, ACCELERATOR_VALUES = 3 * 2**14, 2**24
"""Float32 values of a block's widest site: on a CPU, what stays in a core's second-level cache beside what is made of
it, one network at a time, and no power of two, whose rows would share a cache's sets; elsewhere, enough to keep the
device busy, 64 MB."""


def default_size(width: int, networks: int = 1) -> int:
    """Examples a block, where the widest site has `width` values an example and so many networks run together."""
    values = CPU_VALUES if jax.default_backend() == "cpu" else ACCELERATOR_VALUES // networks
    return max(TILE, values // width // TILE * TILE)


class Block(NamedTuple):
    """Some consecutive examples. Rows that are not `valid` repeat examples that are counted elsewhere."""

    x: Any  # [n, ...], or a pytree of such arrays where two views of the examples are walked together
    y: Array  # [n]
    number: Array  # [n] position in the whole split, the same whatever the blocks and devices
    valid: Array  # [n] bool
    counted: Array  # [] bool: False where the block is a rehearsal


def fold(
    step: Callable[[Carry, Block], Carry], init: Carry, examples: Examples, size: int, *, rehearse: bool = False
) -> Carry:
    """Fold `step` over this device's share of the examples, at most `size` at a time; runs inside ``shard_map``.

    Blocks have one shape, as even as the number of examples and whole tiles allow: the last one starts early and marks
    what it repeats as not valid, so nothing is copied or padded. `init` holds constants; the result differs between
    devices: reduce it over the data axis. With `rehearse` the first block also comes before all others, with no row
    valid, for what has to be known from the start; blocks are then an eighth of the examples at most.
    """
    local = examples.y.shape[0]
    size = min(size, max(TILE, local // 8)) if rehearse else size
    count = -(-local // size)
    size = min(size, local, -(-local // count // TILE) * TILE)
    first_here = lax.axis_index(DATA) * local

    def body(carry: Carry, k: Array) -> tuple[Carry, None]:
        start = jnp.clip(k * size, 0, local - size)
        position = start + jnp.arange(size)
        number = first_here + position
        block = Block(
            jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size), examples.x),
            lax.dynamic_slice_in_dim(examples.y, start, size),
            number,
            (k >= 0) & (position >= k * size) & (number < examples.total),
            k >= 0,
        )
        return step(carry, block), None

    return lax.scan(body, varying(init, (SEED, DATA)), jnp.arange(-1 if rehearse else 0, count))[0]


def varying(tree: Any, axes: str | tuple[str, ...] = DATA) -> Any:
    """Mark values that are the same along mesh axes as free to differ, so that JAX sums nothing over them unasked."""
    return jax.tree.map(lambda leaf: lax.pcast(jnp.asarray(leaf), axes, to="varying"), tree)
