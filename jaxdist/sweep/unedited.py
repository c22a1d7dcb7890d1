"""What networks say without any edit: how many examples each class is given, and which outputs are not numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int32

from jaxdist.compute import Examples, Reducer, blocks, over_networks
from jaxdist.networks import Model, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import ranges, rules
from jaxdist.types import AnyArray, Params, Ranges


class Unedited(NamedTuple):
    """Numbers of examples, int32, or of tokens but for `not_finite`; a regression has that alone, and None else."""

    correct: Int32[AnyArray, "*S"] | None  # whose largest logit is their label's
    predicted: Int32[AnyArray, "*S C"] | None  # whose largest logit is that of the class
    not_finite: Int32[AnyArray, "*S"]  # whose largest logit, or any output, is not finite; they count for no class
    labels: Int32[AnyArray, "*S C"] | None  # whose label is the class


def block_counts(model: Model, logits: Array, part: blocks.Block) -> Unedited:
    """Count one block of examples for one network, given its logits.

    A logit of -inf is a class that the network rules out; NaN, and a largest logit that is infinite, say nothing.
    """
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
        return self.added(state, block.with_inputs(functools.partial(self.model.logits, params)), block)

    def added(self, state: Unedited, logits: Array, block: blocks.Block) -> Unedited:
        """The state with a block's logits."""
        return jax.tree.map(jnp.add, state, block_counts(self.model, logits, block))


@dataclasses.dataclass(frozen=True)
class ClassesAndRanges(Reducer):
    """The classes that one network gives and the ranges of its sites, of one evaluation of each block."""

    classes: Classes
    extent: ranges.Extent

    def init(self, params: Params, given: Any, x: Array) -> tuple[Unedited, dict[str, Any]]:
        return self.classes.init(params, None, x), self.extent.init(params, given, x)

    def update(
        self, state: tuple[Unedited, dict[str, Any]], params: Params, given: Any, block: blocks.Block
    ) -> tuple[Unedited, dict[str, Any]]:
        logits, values = block.with_inputs(functools.partial(self.extent.sides.with_logits, params))
        return self.classes.added(state[0], logits, block), self.extent.added(state[1], values, block)

    def merge(
        self, first: tuple[Unedited, dict[str, Any]], second: tuple[Unedited, dict[str, Any]]
    ) -> tuple[Unedited, dict[str, Any]]:
        return self.classes.merge(first[0], second[0]), self.extent.merge(first[1], second[1])

    def result(self, state: tuple[Unedited, dict[str, Any]], total: Array) -> tuple[Unedited, dict[str, Ranges]]:
        return self.classes.result(state[0], total), self.extent.result(state[1], total)


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
    return _fetched(over_networks(Classes(model), params, None, examples, size=size, precision=precision))


def measure_with_ranges(
    model: Model,
    params: Params,
    splits: Mapping[str, Examples],
    sites: tuple[str, ...],
    *,
    measured_on: ranges.Side,
    rule: rules.Rule,
    block: int | None = None,
) -> tuple[dict[str, Unedited], dict[str, Ranges] | None]:
    """The counts of `measure` on every split and, of the same walk, the ranges [S, H] of `ranges.measure` on "train".

    All splits are walked by the program of "train". What `ranges.check_values` refuses is not looked at.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      splits: the examples by split.
      sites: keys of the values whose ranges are measured.
      measured_on: the side of the activation.
      rule: what a unit's range is; of one that takes several walks there are no ranges.
      block: examples a block; chosen by default.

    Raises:
      InputError: as `ranges.measure` does.
    """
    how = ranges.prepared(model, params, splits["train"], sites, measured_on=measured_on, rule=rule, block=block)
    if not isinstance(how.measure, ranges.Extent):
        return {split: measure(model, params, examples, block=block) for split, examples in splits.items()}, None
    both, counts = ClassesAndRanges(Classes(model), how.measure), {}
    for split, examples in splits.items():
        size = sizes.of_block(block, networks_model.sites_for_one(model, params, examples.x))
        counted, of_split = over_networks(both, params, how.given, examples, size=size)
        counts[split] = _fetched(counted)
        if split == "train":
            measured = of_split
    return counts, measured


def _fetched(counts: Unedited) -> Unedited:
    """The labels once, which are the same of all networks."""
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
