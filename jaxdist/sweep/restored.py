"""Edits that leave the mean logits as they are: what an edit adds to every image's logits alike is taken away again."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from jaxdist.compute import DATA, SEED, Examples, blocks, elementwise, mesh_of, spread, to_host
from jaxdist.networks import sizes, taps
from jaxdist.perturbations import Affine, Edit
from jaxdist.sweep.kernel import predictor
from jaxdist.types import Params


def moved(
    model: taps.Model,
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    precision: str = "float32",
    block: int | None = None,
) -> np.ndarray:
    """How far `edits`, leaves [S, P, H], move each class's mean logit over the examples, [S, P, C].

    It raises as `ensemble_sweep.sweep` does.
    """
    found = taps.sites_for_one(model.apply, params, examples.x, edits)
    mesh = mesh_of(examples)
    found_moves = _moved(
        *spread((params, dict(edits)), mesh),
        examples,
        model=model,
        sites=tuple(site.name for site in found if site.name in edits),
        precision=precision,
        size=sizes.of_block(block, found),
        mesh=mesh,
    )
    return np.asarray(to_host(found_moves))[: jax.tree.leaves(params)[0].shape[0]]


def undone(moved: np.ndarray) -> Affine:
    """The edit of the logits, at `taps.LOGITS` of the model `taps.with_logits`, that takes moves [S, P, C] back."""
    back = -moved
    infinite = np.full_like(back, np.inf)
    return Affine(*map(jnp.asarray, (np.ones_like(back), back, -infinite, infinite)))


@functools.partial(jax.jit, static_argnames=("model", "sites", "precision", "size", "mesh"))
def _moved(
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    model: taps.Model,
    sites: tuple[str, ...],
    precision: str,
    size: int,
    mesh: Mesh,
) -> Array:
    """How far each class's mean logit moves, [S, P, C]."""
    points = jax.tree.leaves(edits)[0].shape[1]

    def network(one: tuple[Params, Mapping[str, Edit]], examples: Examples) -> Array:
        params, edits = one

        def step(total: Array, part: blocks.Block) -> Array:
            logits, _, logits_and_after = predictor(model, sites, params, part, edits)

            def point(edit: Mapping[str, Edit]) -> Array:
                # Class by class of the difference, which is small where the edit is.
                difference = elementwise.single(logits_and_after(edit)[0]) - elementwise.single(logits)
                moved = jnp.moveaxis(difference, model.class_axis, 0)
                return jnp.where(part.valid, moved, 0).astype(jnp.float32).sum(1)

            return total + lax.map(point, edits)

        classes = jax.eval_shape(lambda p, x: model.apply(p, x, taps.identity), params, examples.x[:1])
        start = jnp.zeros((points, classes.shape[model.class_axis]), jnp.float32)
        return blocks.fold(step, start, examples, size)

    def ensemble(params: Params, edits: Mapping[str, Edit], examples: Examples) -> Array:
        sums = lax.psum(lax.map(lambda one: network(one, examples), (params, edits)), DATA)
        return sums / examples.total.astype(jnp.float32)

    with jax.default_matmul_precision(precision):
        specs = (PartitionSpec(SEED), PartitionSpec(SEED), blocks.specs(examples))
        run = jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED))
        return run(params, edits, examples)
