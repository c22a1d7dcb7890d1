"""Per-unit ranges of a site's values over the training images, block by block."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from jaxdist import blocks, taps
from jaxdist.devices import DATA, SEED, Examples, mesh_of, spread, to_host
from jaxdist.errors import InputError
from jaxdist.types import Params, Ranges

Side = Literal["pre", "post"]


class Extremes(NamedTuple):
    """Smallest and largest value of each unit, [H]."""

    low: Array
    high: Array


def extremes(value: Array, unit_axis: int) -> Extremes:
    """Extremes of one block's values over everything but the unit axis."""
    others = tuple(axis for axis in range(value.ndim) if axis != unit_axis % value.ndim)
    return Extremes(value.min(others), value.max(others))


def wider(a: Extremes, b: Extremes) -> Extremes:
    """The extremes of both."""
    return Extremes(jnp.minimum(a.low, b.low), jnp.maximum(a.high, b.high))


def _empty(like: Extremes) -> Extremes:
    return Extremes(jnp.full(like.low.shape, jnp.inf), jnp.full(like.high.shape, -jnp.inf))


def _is_extremes(node: object) -> bool:
    return isinstance(node, Extremes)


def measure(
    model: taps.Model,
    params: Params,
    examples: Examples,
    sites: tuple[str, ...],
    *,
    measured_on: Side = "post",
    precision: str = "float32",
    block: int | None = None,
) -> dict[str, Ranges]:
    """Measure the ranges [S, H] of each site for an ensemble of stacked parameters, over all examples, and fetch them.

    `measured_on` says on which side of the activation; dead units are always those whose activation stays 0.

    Raises:
      InputError: if the model declares no activation after a site, or a site cannot be edited (`taps.check`).
    """
    for site in sites:
        if model.after(site) is None:
            raise InputError(
                f"site '{site}': ranges need the activation that follows; give it as post={{'{site}': fn}}"
            )
    found = taps.sites_for_one(model.apply, params, examples.x, sites)
    mesh = mesh_of(examples)
    measured = _measure(
        spread(params, mesh),
        examples,
        model=model,
        sites=sites,
        measured_on=measured_on,
        precision=precision,
        size=block or blocks.default_size(taps.widest(found)),
        mesh=mesh,
    )
    seeds = jax.tree.leaves(params)[0].shape[0]
    return jax.tree.map(lambda leaf: leaf[:seeds], to_host(measured))


@functools.partial(jax.jit, static_argnames=("model", "sites", "measured_on", "precision", "size", "mesh"))
def _measure(
    params: Params,
    examples: Examples,
    *,
    model: taps.Model,
    sites: tuple[str, ...],
    measured_on: Side,
    precision: str,
    size: int,
    mesh: Mesh,
) -> dict[str, Ranges]:
    def of_block(params: Params, x: Array) -> dict[str, tuple[Extremes, Extremes]]:
        _, values, behind = taps.read_behind(model, params, x, sites)
        found = {}
        for site, pre in values.items():
            post = extremes(behind[site], model.unit_axis)
            found[site] = (post if measured_on == "post" else extremes(pre, model.unit_axis), post)
        return found

    def network(params: Params, examples: Examples) -> dict[str, tuple[Extremes, Extremes]]:
        # Rows that are not valid repeat real examples, which changes no extreme: no mask is needed.
        def step(
            found: dict[str, tuple[Extremes, Extremes]], part: blocks.Block
        ) -> dict[str, tuple[Extremes, Extremes]]:
            return jax.tree.map(wider, found, of_block(params, part.x), is_leaf=_is_extremes)

        shapes = jax.eval_shape(of_block, params, examples.x[:1])
        return blocks.fold(step, jax.tree.map(_empty, shapes, is_leaf=_is_extremes), examples, size)

    def ensemble(params: Params, examples: Examples) -> dict[str, Ranges]:
        found = lax.map(lambda p: network(p, examples), params)
        result = {}
        for site, (measured, post) in found.items():
            low, high = lax.pmin(measured.low, DATA), lax.pmax(measured.high, DATA)
            dead = (lax.pmin(post.low, DATA) == 0) & (lax.pmax(post.high, DATA) == 0)
            result[site] = Ranges(low, high, dead)
        return result

    with jax.default_matmul_precision(precision):
        specs = (PartitionSpec(SEED), blocks.SPECS)
        return jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED))(params, examples)
