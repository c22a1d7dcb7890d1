"""The kernel: every point of a sweep, for every network of an ensemble, counted over all examples.

A site's value is computed once a block; each point then runs only what comes after that site.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from jaxdist import blocks, elementwise, layouts, taps
from jaxdist.activations import Activation
from jaxdist.devices import DATA, SEED, Examples, mesh_of, same, spread, to_host
from jaxdist.edits import Edit
from jaxdist.errors import InputError
from jaxdist.types import AnyArray, Params

Edited: TypeAlias = tuple[Params, Mapping[str, Edit]]
"""An ensemble's stacked parameters and its edits by site, leaves [S, P, H]."""


class Counts(NamedTuple):
    """Numbers of images, int32."""

    correct: AnyArray  # [S, P] whose largest logit is their label's
    agree: AnyArray  # [S, P] whose largest logit is the unedited network's
    kept: AnyArray  # [S, P] both: correct with the edit and without
    unperturbed: AnyArray  # [S] correct without any edit


def sweep(
    model: taps.Model,
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    scale_shortcut: AnyArray | None = None,
    precision: str = "float32",
    block: int | None = None,
) -> Counts:
    """Count correct and unchanged predictions at every point, for stacked parameters (leading S), and fetch the counts.

    Args:
      edits: by site; leaves [S, P, H]. At each point all of its sites are edited together.
      scale_shortcut: positive factors [Q] of the one edited site's value. Their points come first, before those of
        `edits`, from a single product a block: behind a positively homogeneous activation and one linear layer,
        logits are ``s * (act(h) @ W) + b``. Rounding differs, so a few counts may.
      block: examples a block; chosen by default.

    Memory does not grow with N or P beyond the edits and the counts.

    Raises:
      InputError: if a site cannot be edited (`taps.check`), or what follows it does not allow the shortcut.
      ValueError: if there are no edits, their leaves do not fit the ensemble and the site, or a factor is not above 0.
    """
    found = taps.sites_for_one(model.apply, params, examples.x, edits)
    order = [site.name for site in found]
    if not edits:
        raise ValueError("edits: expected at least one site, got none")
    seeds = jax.tree.leaves(params)[0].shape[0]
    for site, edit in edits.items():
        check_edit(model, found, site, edit, seeds)
    if scale_shortcut is not None:
        _check_shortcut(model, tuple(edits), order)
        scale_shortcut = np.asarray(scale_shortcut, np.float32)
        if scale_shortcut.ndim != 1 or not (scale_shortcut > 0).all():
            raise ValueError(f"scale_shortcut: expected positive factors [Q], got {scale_shortcut}")
    mesh = mesh_of(examples)
    counts = _sweep(
        *spread((params, dict(edits)), mesh),
        examples,
        None if scale_shortcut is None else same(scale_shortcut, mesh),
        model=model,
        sites=tuple(sorted(edits, key=order.index)),
        precision=precision,
        size=block or blocks.default_size(taps.widest(found)),
        mesh=mesh,
    )
    return jax.tree.map(lambda leaf: leaf[:seeds], to_host(counts))


def check_edit(model: taps.Model, found: tuple[taps.Site, ...], site: str, edit: Edit, seeds: int) -> None:
    """Raise `ValueError` for leaves that do not fit the ensemble and the site, one of those found."""
    units = taps.shape_of(site, found)[model.unit_axis]
    for leaf in jax.tree.leaves(edit):
        if leaf.ndim != 3 or (leaf.shape[0], leaf.shape[2]) != (seeds, units):
            raise ValueError(f"edits of site '{site}': expected leaves [{seeds}, P, {units}], got {list(leaf.shape)}")


def _check_shortcut(model: taps.Model, edited: tuple[str, ...], order: list[str]) -> None:
    """Refuse the one-product form where the logits are not known to be linear in the scale."""
    site, *more = edited
    after = model.after(site)
    later = [name for name in order[order.index(site) + 1 :] if model.after(name)]
    if more:
        problem = "it needs one edited site, got " + ", ".join(edited)
    elif not (isinstance(after, Activation) and after.homogeneous):
        problem = f"the activation behind '{site}' is not known to be positively homogeneous"
    elif later:
        problem = f"behind '{site}' there is another activation, at '{later[0]}'"
    else:
        return
    raise InputError(f"the scale shortcut cannot be used: {problem}; leave sweep.scale_shortcut false")


def predictor(
    model: taps.Model, sites: tuple[str, ...], params: Params, part: blocks.Block
) -> tuple[Array, Callable[[Mapping[str, Edit]], Array]]:
    """One network's logits for one block, and a function from a point's edits, leaves [H], to its classes.

    The earliest site's value is replaced, not recomputed; later sites are edited as the point reaches them.
    """
    logits, values = taps.read(model.apply, params, part.x, sites[:1])

    def predict(edit: Mapping[str, Edit]) -> Array:
        def action(site: str) -> taps.Action:
            return lambda value: edit[site].apply(values.get(site, value), part.number, model.unit_axis)

        actions = {site: action(site) for site in sites}
        edited = taps.edit(model.apply, params, part.x, actions)
        return elementwise.argmax(edited, model.class_axis)

    return logits, predict


def block_counts(
    model: taps.Model,
    sites: tuple[str, ...],
    params: Params,
    edits: Mapping[str, Edit],
    part: blocks.Block,
    scales: Array | None = None,
) -> Counts:
    """Count one block of examples for one network at every point; edit leaves [P, H].

    `scales` [Q] are the points of the shortcut, in front.
    """
    logits, predict = predictor(model, sites, params, part)
    unedited = elementwise.argmax(logits, model.class_axis)
    expected = wanted(unedited, part)
    counts = jnp.zeros((0, len(expected)), jnp.int32)
    if len(jax.tree.leaves(edits)[0]):  # none where the shortcut's are all
        predict = layouts.filled(predict, jax.tree.map(lambda leaf: leaf[0], edits))
        counts = lax.map(lambda edit: equal(predict(edit)[None], expected), edits)
    if scales is not None:
        # What a scale of 0 leaves: the output bias, and any path around the site.
        rest = taps.edit(model.apply, params, part.x, {sites[0]: jnp.zeros_like})

        def scaled(factor: Array) -> Array:
            return equal(elementwise.argmax(factor * (logits - rest) + rest, model.class_axis)[None], expected)

        counts = jnp.concatenate([lax.map(scaled, scales), counts])
    correct, agree, kept = counts.T
    return Counts(correct, agree, kept, equal(unedited, expected[0]))


def wanted(unedited: Array, part: blocks.Block) -> Array:
    """The classes [3, n] that `correct`, `agree` and `kept` count, given those without an edit.

    All at once, and no class where a row is not valid: the fewest operations a point.
    """
    right = jnp.where(unedited == part.y, part.y, -1)
    return jnp.where(part.valid, jnp.stack([part.y, unedited, right]), -1)


def equal(predicted: Array, expected: Array) -> Array:
    """Count where classes are the expected ones, along the last axis."""
    return jnp.sum(predicted == expected, axis=-1, dtype=jnp.int32)


@functools.partial(jax.jit, static_argnames=("model", "sites", "precision", "size", "mesh"))
def _sweep(
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    scales: Array | None = None,
    *,
    model: taps.Model,
    sites: tuple[str, ...],
    precision: str,
    size: int,
    mesh: Mesh,
) -> Counts:
    points = jax.tree.leaves(edits)[0].shape[1] + (0 if scales is None else len(scales))
    none = Counts(*(jnp.zeros(shape, jnp.int32) for shape in ((points,), (points,), (points,), ())))

    def ensemble(params: Params, edits: Mapping[str, Edit], examples: Examples, scales: Array | None) -> Counts:
        here = blocks.varying(scales)

        def network(one: tuple[Params, Mapping[str, Edit]]) -> Counts:
            def step(counts: Counts, part: blocks.Block) -> Counts:
                return jax.tree.map(jnp.add, counts, block_counts(model, sites, *one, part, here))

            return blocks.fold(step, none, examples, size)

        return lax.psum(lax.map(network, (params, edits)), DATA)

    with jax.default_matmul_precision(precision):
        specs = (PartitionSpec(SEED), PartitionSpec(SEED), blocks.SPECS, PartitionSpec())
        run = jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED))
        return run(params, edits, examples, scales)


def matches(
    model: taps.Model, first: Edited, second: Edited, examples: tuple[Examples, Examples], *, block: int | None = None
) -> np.ndarray:
    """Count the images [S, P] to which two ensembles, each with its own edits, give the same class at each point.

    Seeds are taken in pairs; the edits are of the same sites, with leaves [S, P, H], as in `sweep`. Each ensemble sees
    the same images in its own scaling, laid out on one mesh; float32 throughout.
    """
    both = examples[0]._replace(x=(examples[0].x, examples[1].x))
    found = taps.sites_for_one(model.apply, first[0], examples[0].x, first[1])
    sites = tuple(site.name for site in found if site.name in first[1])
    size = block or blocks.default_size(taps.widest(found))
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
                predict, other = (
                    predictor(model, sites, params, part._replace(x=x))[1]
                    for (params, _), x in zip(pair, part.x, strict=True)
                )
                made = (pair[0][1], pair[1][1])

                def agree(edit: tuple[Mapping[str, Edit], Mapping[str, Edit]]) -> Array:
                    return equal(predict(edit[0]), jnp.where(part.valid, other(edit[1]), -1))

                return counts + lax.map(agree, made)

            return blocks.fold(step, jnp.zeros(points, jnp.int32), examples, size)

        return lax.psum(lax.map(network, (first, second)), DATA)

    with jax.default_matmul_precision("float32"):
        specs = (PartitionSpec(SEED), PartitionSpec(SEED), blocks.SPECS)
        run = jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED))
        return run(first, second, examples)
