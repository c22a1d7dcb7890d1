"""The sweep: every point, for every network of an ensemble, counted over all examples by the kernel."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from jaxdist.compute import DATA, SEED, Examples, blocks, elementwise, mesh_of, spread, to_host
from jaxdist.networks import sizes, taps
from jaxdist.perturbations import Edit, Noise
from jaxdist.sweep import moments
from jaxdist.sweep.kernel import Counts, Sums, Watch, block_sums, equal, predictor
from jaxdist.types import Params

Edited: TypeAlias = tuple[Params, Mapping[str, Edit]]
"""An ensemble's stacked parameters and its edits by site, leaves [S, P, H]."""


def sweep(
    model: taps.Model,
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    precision: str = "float32",
    block: int | None = None,
) -> Counts:
    """Count correct and unchanged predictions at every point, for stacked parameters (leading S), and fetch the counts.

    Args:
      edits: by site; leaves [S, P, H]. At each point all of its sites are edited together.
      block: examples a block; chosen by default.

    Memory does not grow with N or P beyond the edits and the counts.

    Raises:
      InputError: if a site cannot be edited (`taps.check`).
      ValueError: if there are no edits, or their leaves do not fit the ensemble and the site.
    """
    return sums(model, params, edits, examples, precision=precision, block=block).counts


def sums(
    model: taps.Model,
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    watch: Watch | None = None,
    precision: str = "float32",
    block: int | None = None,
) -> Sums:
    """Count as `sweep` does and, where activations are watched, also fetch their moments."""
    found = taps.sites_for_one(model.apply, params, examples.x, (*edits, *([watch.site] if watch else [])))
    order = [site.name for site in found]
    if not edits:
        raise ValueError("edits: expected at least one site, got none")
    seeds = jax.tree.leaves(params)[0].shape[0]
    for site, edit in edits.items():
        check_edit(model, found, site, edit, seeds)
    mesh = mesh_of(examples)
    result = _sweep(
        *spread((params, dict(edits)), mesh),
        examples,
        model=model,
        sites=tuple(sorted(edits, key=order.index)),
        watch=watch,
        precision=precision,
        size=sizes.of_block(block, found),
        mesh=mesh,
    )
    return Sums(*jax.tree.map(lambda leaf: leaf[:seeds], to_host(result)))


def check_edit(model: taps.Model, found: tuple[taps.Site, ...], site: str, edit: Edit, seeds: int) -> None:
    """Raise `ValueError` for leaves that do not fit the ensemble and the site, one of those found."""
    shape = taps.shape_of(site, found)
    units = shape[model.unit_axis % len(shape)]  # the logits may have fewer axes than other sites
    # The numbers of draws, and keys, are no unit's.
    for leaf in (edit.sd,) if isinstance(edit, Noise) else jax.tree.leaves(edit):
        if leaf.ndim != 3 or (leaf.shape[0], leaf.shape[2]) != (seeds, units):
            raise ValueError(f"edits of site '{site}': expected leaves [{seeds}, P, {units}], got {list(leaf.shape)}")


@functools.partial(jax.jit, static_argnames=("model", "sites", "watch", "precision", "size", "mesh"))
def _sweep(
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    model: taps.Model,
    sites: tuple[str, ...],
    watch: Watch | None,
    precision: str,
    size: int,
    mesh: Mesh,
) -> Sums:
    points = jax.tree.leaves(edits)[0].shape[1]
    none = Counts(*(jnp.zeros(shape, jnp.int32) for shape in ((points,), (points,), (points,), ())))

    def ensemble(params: Params, edits: Mapping[str, Edit], examples: Examples) -> Sums:
        def network(one: tuple[Params, Mapping[str, Edit]]) -> Sums:
            def step(total: Sums, part: blocks.Block) -> Sums:
                factors = None if total.moments is None else jnp.asarray(total.moments.factor)
                found = block_sums(model, sites, *one, part, watch=watch, factors=factors)
                counts = jax.tree.map(jnp.add, total.counts, found.counts)
                if total.moments is None or found.moments is None:
                    return Sums(counts, None)
                return Sums(counts, moments.added(total.moments, found.moments, part.counted))

            units = _units(model, watch, one[0], examples.x) if watch else 0
            start = Sums(none, moments.none(points, units) if watch else None)
            return blocks.fold(step, start, examples, size, rehearse=watch is not None)

        counts, found = lax.map(network, (params, edits))
        return Sums(lax.psum(counts, DATA), None if found is None else jax.vmap(moments.of_all_devices)(found))

    with jax.default_matmul_precision(precision):
        specs = (PartitionSpec(SEED), PartitionSpec(SEED), blocks.specs(examples))
        run = jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED))
        return run(params, edits, examples)


def _units(model: taps.Model, watch: Watch, params: Params, x: Array) -> int:
    """How many units the watched activations have."""

    def activations(params: Params, x: Array) -> Array:
        return watch.value(taps.read(model.apply, params, x, (watch.site,))[1][watch.site])

    return jax.eval_shape(activations, params, x[:1]).shape[model.unit_axis]


def matches(
    model: taps.Model, first: Edited, second: Edited, examples: tuple[Examples, Examples], *, block: int | None = None
) -> np.ndarray:
    """Count the images [S, P] to which two ensembles, each with its own edits, give the same class at each point.

    Seeds are taken in pairs; the edits are of the same sites, with leaves [S, P, H], as in `sweep`. Each ensemble sees
    the same images in its own scaling, laid out on one mesh; float32 throughout.
    """
    both = dataclasses.replace(examples[0], x=(examples[0].x, examples[1].x))
    found = taps.sites_for_one(model.apply, first[0], examples[0].x, first[1])
    sites = tuple(site.name for site in found if site.name in first[1])
    size = sizes.of_block(block, found)
    mesh, seeds = mesh_of(both), jax.tree.leaves(first[0])[0].shape[0]
    counts = _matches(*spread((first, second), mesh), both, model=model, sites=sites, size=size, mesh=mesh)
    return np.asarray(to_host(counts)[:seeds])


@functools.partial(jax.jit, static_argnames=("model", "sites", "size", "mesh"))
def _matches(
    first: Edited,
    second: Edited,
    examples: Examples,
    *,
    model: taps.Model,
    sites: tuple[str, ...],
    size: int,
    mesh: Mesh,
) -> Array:
    points = jax.tree.leaves(first[1])[0].shape[1]

    def ensemble(first: Edited, second: Edited, examples: Examples) -> Array:
        def network(pair: tuple[Edited, Edited]) -> Array:
            def step(counts: Array, part: blocks.Block) -> Array:
                first, second = (
                    predictor(model, sites, params, part._replace(x=x), made).logits_and_after
                    for (params, made), x in zip(pair, part.x, strict=True)
                )
                made = (pair[0][1], pair[1][1])

                def agree(edit: tuple[Mapping[str, Edit], Mapping[str, Edit]]) -> Array:
                    one, other = (
                        elementwise.argmax(logits(of)[0], model.class_axis)
                        for logits, of in zip((first, second), edit, strict=True)
                    )
                    return equal(one, jnp.where(part.valid, other, -1))

                return counts + lax.map(agree, made)

            return blocks.fold(step, jnp.zeros(points, jnp.int32), examples, size)

        return lax.psum(lax.map(network, (first, second)), DATA)

    with jax.default_matmul_precision("float32"):
        specs = (PartitionSpec(SEED), PartitionSpec(SEED), blocks.specs(examples))
        run = jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED))
        return run(first, second, examples)
