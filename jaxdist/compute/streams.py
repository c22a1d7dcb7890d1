"""Examples that are read again in every pass instead of being held: chunks of one shape, one at a time on the devices.

What a `Reducer` makes of a stream is made chunk by chunk: the states of all chunks are merged on the host, in order.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdist.compute import devices
from jaxdist.compute.devices import Examples

Pairs: TypeAlias = Iterable[tuple[Any, np.ndarray]]
"""Batches of inputs [n, ...], an array or a pytree of them, with their labels [n, ...]."""

VALUES = 1 << 24
"""Values of inputs and labels in a chunk, about: 64 MiB of float32."""


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """A split of `total` examples that `read` gives in batches, the same ones in every pass.

    It stands where `Examples` do: `x` and `y` are the shapes of all of it, [N, ...].
    """

    x: Any
    y: jax.ShapeDtypeStruct
    total: int
    read: Callable[[], Pairs]
    mesh: Mesh
    rows: int
    """Examples of a chunk."""

    @property
    def least(self) -> int:
        """Rows of the smallest share, as of `Examples`."""
        return devices.share_of(self.rows, self.mesh) // self.shares

    @property
    def shares(self) -> int:
        """Shares on each device, as of `Examples`."""
        return self.mesh.shape[devices.SEED]

    def chunks(self) -> Iterator[Examples]:
        """The examples laid out in chunks of one shape, in order; the last is filled up by its last example."""
        before = 0
        for x, y in chunked(self.read(), self.rows):
            count = len(y)
            x, y = jax.tree.map(functools.partial(_filled, rows=self.rows), (x, y))
            laid_out = devices.place(x, y, self.mesh, dtype=None)
            total, first = (devices.same(number, self.mesh) for number in (count, before))
            yield dataclasses.replace(laid_out, total=total, laid=laid_out.total, before=first)
            before += count


def rows_of(x: Any, y: Any, total: int, mesh: Mesh) -> int:
    """Examples of a chunk: as many as `VALUES` allow, at least one a device, and no more than there are.

    Args:
      x: inputs [N, ...] or their shapes, an array or a pytree of them.
      y: labels [N, ...] or their shape.
      total: N.
      mesh: whose devices share a chunk.
    """
    values = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves((x, y)))
    return min(max(VALUES // values, mesh.size), total)


def chunked(batches: Pairs, rows: int) -> Iterator[tuple[Any, np.ndarray]]:
    """The same examples in chunks of so many, whatever the batches; the last may have fewer."""
    parts: list[Any] = []
    count = 0
    for batch in batches:
        parts.append(batch)
        count += len(batch[1])
        while count >= rows:
            joined = _joined(parts)
            yield devices.rows(joined, slice(0, rows))
            count -= rows
            parts = [devices.rows(joined, slice(rows, None))] if count else []
    if count:
        yield _joined(parts)


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _filled(array: np.ndarray, rows: int) -> np.ndarray:
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
