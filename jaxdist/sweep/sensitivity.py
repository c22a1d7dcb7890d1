"""How the logit margin answers to small edits of each unit: derivatives at the unedited network."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from jaxdist.compute import DATA, SEED, Examples, blocks, elementwise, mesh_of, spread, to_host
from jaxdist.networks import sizes, taps
from jaxdist.types import AnyArray, Params


class Sensitivity(NamedTuple):
    """The mean logit margin and its derivatives; the edit is ``exp(l) * h + t``, at l = t = 0."""

    offset: AnyArray  # [S, H] by each unit's t: logits per unit of the site's value
    log_scale: AnyArray  # [S, H] by each unit's l: logits per unit of the scale's logarithm
    margin: AnyArray  # [S] the logit of the label less the largest other, mean over the examples


class Small(NamedTuple):
    """Offset and log-scale of each unit, [H]."""

    offset: Array
    log_scale: Array

    def apply(self, value: Array, unit_axis: int) -> Array:
        """Edit a value whose axis `unit_axis` has H entries."""
        others = [axis for axis in range(value.ndim) if axis != unit_axis % value.ndim]
        offset, log_scale = (jnp.expand_dims(leaf, others) for leaf in self)
        wide = elementwise.single(value)
        edited = jnp.exp(log_scale).astype(wide.dtype) * wide + offset.astype(wide.dtype)
        return edited.astype(value.dtype)


def margins(logits: Array, labels: Array) -> Array:
    """The logit [C, n] of each label less the largest other, [n]."""
    label = lax.broadcasted_iota(jnp.int32, logits.shape, 0) == labels[None]
    return jnp.where(label, logits, 0).sum(0) - jnp.where(label, -jnp.inf, logits).max(0)


def block_margin(model: taps.Model, site: str, params: Params, edit: Small, part: blocks.Block) -> Array:
    """The sum of one network's margins over a block's valid examples."""
    logits = taps.edit(model.apply, params, part.x, {site: functools.partial(edit.apply, unit_axis=model.unit_axis)})
    each = margins(elementwise.single(jnp.moveaxis(logits, model.class_axis, 0)), part.y)
    return jnp.where(part.valid, each, 0).astype(jnp.float32).sum()


def measure(
    model: taps.Model,
    params: Params,
    examples: Examples,
    site: str,
    *,
    precision: str = "float32",
    block: int | None = None,
) -> Sensitivity:
    """Differentiate the mean margin of an ensemble (leading S) by small edits of each unit of a site, and fetch it.

    A site with positions has one offset and one log-scale a unit: the derivatives sum over positions.

    Raises:
      InputError: if the model does not reach the site exactly once.
    """
    found = taps.sites_for_one(model.apply, params, examples.x, [site])
    mesh = mesh_of(examples)
    result = _measure(
        spread(params, mesh),
        examples,
        model=model,
        site=site,
        precision=precision,
        size=sizes.of_block(block, found),
        mesh=mesh,
    )
    seeds = jax.tree.leaves(params)[0].shape[0]
    return jax.tree.map(lambda leaf: leaf[:seeds], to_host(result))


@functools.partial(jax.jit, static_argnames=("model", "site", "precision", "size", "mesh"))
def _measure(
    params: Params,
    examples: Examples,
    *,
    model: taps.Model,
    site: str,
    precision: str,
    size: int,
    mesh: Mesh,
) -> Sensitivity:
    def network(params: Params, examples: Examples) -> Sensitivity:
        value = jax.eval_shape(lambda p, x: taps.read(model.apply, p, x, (site,))[1][site], params, examples.x[:1])
        none = jnp.zeros(value.shape[model.unit_axis], jnp.float32)
        # Free to differ between devices, so that a gradient is each one's own.
        here = blocks.varying(Small(none, none), (SEED, DATA))

        def step(total: Sensitivity, part: blocks.Block) -> Sensitivity:
            def margin(edit: Small) -> Array:
                return block_margin(model, site, params, edit, part)

            value, slope = jax.value_and_grad(margin)(here)
            return jax.tree.map(jnp.add, total, Sensitivity(slope.offset, slope.log_scale, value))

        return blocks.fold(step, Sensitivity(none, none, jnp.float32(0)), examples, size)

    def ensemble(params: Params, examples: Examples) -> Sensitivity:
        sums = lax.psum(lax.map(lambda p: network(p, examples), params), DATA)
        total = examples.total.astype(jnp.float32)
        return jax.tree.map(lambda leaf: leaf / total, sums)

    with jax.default_matmul_precision(precision):
        specs = (PartitionSpec(SEED), blocks.specs(examples))
        return jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED))(params, examples)
