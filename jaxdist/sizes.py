"""How many examples a block has for a model: as many as are fast, and few enough for memory to stay bounded.

What is fast follows from the values that every point of a sweep reads and writes: at the sites, and the logits. What
bounds memory is the widest value of an example that the model computes anywhere, its inputs included, tapped or not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

from jaxdist import blocks, taps
from jaxdist.types import Apply, Params


def of_block(block: int | None, model: taps.Model, params: Params, x: Any, networks: int = 1) -> int:
    """Examples a block for stacked parameters (leading S) and inputs x[N, ...], where so many networks run together.

    `block` where it is given, else the default for the widths of the model's values.

    Raises:
      InputError: if the model calls its tap with anything but a name and an array.
    """
    if block is not None:
        return block
    leaves, tree = jax.tree.flatten(params)
    network = tuple(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves)
    read, widest = _widths(model.apply, tree, network, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    return blocks.default_size(read, networks, widest)


@functools.lru_cache(maxsize=64)  # a sweep of many networks asks for every part of it
def _widths(
    apply: Apply, tree: jax.tree_util.PyTreeDef, leaves: tuple[jax.ShapeDtypeStruct, ...], row: jax.ShapeDtypeStruct
) -> tuple[int, int]:
    """Values of an example: the most at a site or among the logits, and the most at once anywhere in the model."""
    params = jax.tree.unflatten(tree, leaves)

    def traced(rows: int) -> tuple[tuple[taps.Site, ...], core.ClosedJaxpr]:
        return taps.trace(apply, params, jax.ShapeDtypeStruct((rows, *row.shape), row.dtype))

    sites, closed = traced(1)
    read = max(math.prod(shape) for shape in [*(site.shape for site in sites), *map(_shape, closed.jaxpr.outvars)])
    # What grows with the examples is theirs; weights, which may be cast or turned on the way, are the same for all.
    single, double = (list(_sizes(each.jaxpr)) for each in (closed, traced(2)[1]))
    grown = [after - before for before, after in zip(single, double, strict=True)] if len(single) == len(double) else []
    return max(read, 1), max(read, math.prod(row.shape), *grown, 1)


def _sizes(jaxpr: core.Jaxpr) -> Iterator[int]:
    """How many values each equation's results have, those of inner programs included, in their order."""
    return (math.prod(_shape(var)) for equation in taps.equations(jaxpr) for var in equation.outvars)


def _shape(atom: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = getattr(atom.aval, "shape", ())
    return shape
