"""What networks say without any edit: how many examples each class is given, and which outputs are not numbers."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int32

from jaxdist.compute import Examples, Reducer, blocks, over_networks
from jaxdist.networks import Model, sizes
from jaxdist.networks import model as networks_model
from jaxdist.types import AnyArray, Params


class Unedited(NamedTuple):
    """Numbers of examples, int32, or of tokens but for `not_finite`; a regression has that alone, and None else."""

    correct: Int32[AnyArray, "*S"] | None  # whose largest logit is their label's
    predicted: Int32[AnyArray, "*S C"] | None  # whose largest logit is that of the class
    not_finite: Int32[AnyArray, "*S"]  # whose largest logit, or any output, is not finite; they count for no class
    labels: Int32[AnyArray, "*S C"] | None  # whose label is the class


def block_counts(model: Model, params: Params, part: blocks.Block) -> Unedited:
    """Count one block of examples for one network.

    A logit of -inf is a class that the network rules out; NaN, and a largest logit that is infinite, say nothing.
    """
    logits = part.with_inputs(functools.partial(model.logits, params))
    if model.task == "regression":
        finite = jnp.isfinite(logits).all(-1)
        return Unedited(None, None, jnp.sum(part.valid & ~finite, dtype=jnp.int32), None)
    largest = jnp.max(logits, model.class_axis)  # NaN wherever one is
    rows = jnp.expand_dims(part.valid, tuple(range(1, part.y.ndim))) & (part.y >= 0)
    lost = rows & ~jnp.isfinite(largest)
    none = jnp.zeros(logits.shape[model.class_axis], jnp.int32)

    def by_class(classes: Array, counted: Array) -> Array:
        return none.at[classes].add(counted.astype(jnp.int32))

    classes, y = model.classes(logits), part.y.reshape(-1)
    counted = (rows & ~lost).reshape(-1)
    correct = jnp.sum(counted & (classes == y), dtype=jnp.int32)
    not_finite = jnp.sum(lost.any(tuple(range(1, lost.ndim))), dtype=jnp.int32)
    return Unedited(correct, by_class(classes, counted), not_finite, by_class(y, rows.reshape(-1)))


@dataclasses.dataclass(frozen=True)
class Classes(Reducer):
    """The classes that one network gives."""

    model: Model

    def init(self, params: Params, given: None, x: Array) -> Unedited:
        logits = jax.eval_shape(self.model.logits, params, x)
        if self.model.task == "regression":
            return Unedited(None, None, jnp.int32(0), None)
        by_class = jnp.zeros(logits.shape[self.model.class_axis], jnp.int32)
        return Unedited(jnp.int32(0), by_class, jnp.int32(0), by_class)

    def update(self, state: Unedited, params: Params, given: None, block: blocks.Block) -> Unedited:
        return jax.tree.map(jnp.add, state, block_counts(self.model, params, block))


def measure(
    model: Model, params: Params, examples: Examples, *, precision: str = "float32", block: int | None = None
) -> Unedited:
    """Count the classes that an ensemble gives, over all examples, and fetch the counts.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of a split.
      precision: of matrix products.
      block: examples a block; chosen by default.
    """
    size = sizes.of_block(block, networks_model.sites_for_one(model, params, examples.x))
    counts: Unedited = over_networks(Classes(model), params, None, examples, size=size, precision=precision)
    return counts if counts.labels is None else counts._replace(labels=counts.labels[0])


def not_finite_weights(params: Params) -> list[str]:
    """For each network of stacked parameters, the name of an array that holds NaN or infinity; empty if none does."""
    seeds = jax.tree.leaves(params)[0].shape[0]
    names = [""] * seeds
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        values = np.asarray(leaf)
        finite = np.isfinite(values if values.dtype.kind in "fc" else values.astype(np.float32))
        for seed in np.flatnonzero(~finite.reshape(seeds, -1).all(axis=1)):
            names[seed] = names[seed] or jax.tree_util.keystr(path, simple=True, separator=".") or "params"
    return names
