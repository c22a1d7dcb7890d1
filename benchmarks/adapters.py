"""What it costs to reach a site by name: the same perceptron swept by sites and through Flax, beside plain JAX."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from benchmarks import images as inputs
from benchmarks import jax_contenders, parity, show
from benchmarks.images import CLASSES, Images
from benchmarks.jax_contenders import Run
from benchmarks.parity import HIDDEN
from benchmarks.sweep import ACTIVATION, WARM_UP_STEPS, Families
from benchmarks.timing import Contender, Row, Timed, chosen, described, interleave, largest_difference
from jaxdist.compute import DATA, Examples, blocks, elementwise, mesh_of, tuning
from jaxdist.config import SweepConfig
from jaxdist.formatting import counted
from jaxdist.networks import Model, from_linen, from_nnx, mlp
from jaxdist.perturbations import edits, joined, ranges
from jaxdist.sweep import ensemble_sweep
from jaxdist.types import Params

HAND = "hand_written"
"""The contender that ratios and answers refer to."""

TARGETS = {"tapped": 1.05, "linen": 1.5, "nnx": 1.5}
"""Times the hand-written kernel's seconds that each may take; reported, not enforced."""

ALLOWED = 2
"""Images by which counts may differ, from rounding in another order."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time every contender, print the table and return the numbers; seconds are those of one network's sweep."""
    images = inputs.for_speed(options)
    families = jax_contenders.paper_families(every=10 if options.quick else 1)
    contenders = chosen(make_contenders(images, families), options.only)
    timed = interleave(contenders, options.repeats, turn_s=0 if options.quick else 1)
    found = rows(timed)
    points = sum(len(grid) for _, grid in families)
    what = f"sweep of {counted(points, 'point')}, seconds a network"
    show.table(f"Sweep of {counted(points, 'point')} at one site, {images.source}", found)
    off = [row["largest_count_difference"] for row in found.values() if row["largest_count_difference"] is not None]
    return {
        **described(what, images.source, options.repeats, found),
        "targets": TARGETS,
        "agrees": all(difference <= ALLOWED for difference in off),
    }


def rows(found: Mapping[str, Timed]) -> dict[str, Row]:
    """The numbers of each contender; ratios, of seconds, are None where the hand-written kernel was left out."""
    hand = found.get(HAND)
    return {
        name: {
            "median_s": one.median_s,
            "spread_s": max(one.each_s) - min(one.each_s),
            "compile_s": max(0.0, one.first_s - one.median_s),
            "ratio_to_hand": one.median_s / hand.median_s if hand else None,
            "largest_count_difference": largest_difference(one.answer, hand.answer) if hand else None,
        }
        for name, one in found.items()
    }


class Linen(nn.Module):
    """The paper's network as a user of Flax Linen would write it."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map images [n, D] to logits [n, C]."""
        x = nn.relu(nn.Dense(HIDDEN, name="hidden")(x))
        return nn.Dense(CLASSES, name="head")(x)


class NNX(nnx.Module):
    """The same in Flax NNX."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(features, HIDDEN, rngs=rngs)
        self.head = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Map images [n, D] to logits [n, C]."""
        return self.head(nnx.relu(self.hidden(x)))


def make_contenders(images: Images, families: Families) -> dict[str, Contender]:
    """Every contender, on the same weights, the same edits and the same images."""
    initial = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], parity.initial_weights(images, seed=0))
    params = mlp.narrow(jax_contenders.trained(initial, ACTIVATION, images, WARM_UP_STEPS), images.used)
    # All contenders multiply all pixels.
    examples = inputs.place(images, in_order=True).splits["train"]
    site, model = jax_contenders.SITE, mlp.model(ACTIVATION)
    measured = ranges.measure(model, params, examples, (site,))[site]
    made = joined(measured, dict(families), SweepConfig())
    hidden, head = (
        {"kernel": jnp.swapaxes(params[name]["weight"], 1, 2), "bias": params[name]["bias"]}
        for name in ("dense0", "dense1")
    )
    linen = from_linen(Linen(), {"params": {"hidden": hidden, "head": head}})
    as_nnx = from_nnx(NNX(int(images.used.sum()), nnx.Rngs(0)))[0], {"hidden": hidden, "head": head}
    return {
        HAND: Contender(hand_written(params, made, examples)),
        "tapped": Contender(_swept(model, params, site, made, examples)),
        "linen": Contender(_swept(Model(linen[0]), linen[1], "hidden", made, examples)),
        "nnx": Contender(_swept(Model(as_nnx[0]), as_nnx[1], "hidden", made, examples)),
    }


def _swept(model: Model, params: Params, site: str, made: edits.Affine, examples: Examples) -> Run:
    return lambda: np.asarray(ensemble_sweep.sweep(model, params, {site: made}, examples).correct[0])


def hand_written(params: Params, made: edits.Affine, examples: Examples) -> Run:
    """The sweep of this one network and no other: values [H, n], no sites, no other model, no other edit."""
    mesh = mesh_of(examples)
    one, points = (jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), tree) for tree in (params, made))
    size = blocks.default_size(HIDDEN)

    def device(params: Params, points: edits.Affine, examples: Examples) -> Array:
        first, second = params["dense0"], params["dense1"]
        local = examples.y.shape[0]
        count = -(-local // size)
        tile = tuning.current().tile
        rows = min(local, -(-local // count // tile) * tile)

        def block(counts: Array, k: Array) -> tuple[Array, None]:
            start = jnp.minimum(k * rows, local - rows)
            x = lax.dynamic_slice_in_dim(examples.x, start, rows)
            y = lax.dynamic_slice_in_dim(examples.y, start, rows)
            position = start + jnp.arange(rows)
            new = (position >= k * rows) & (lax.axis_index(DATA) * local + position < examples.total)
            h = lax.dot_general(first["weight"], x, (((1,), (1,)), ((), ()))) + first["bias"][:, None]

            def classes(value: Array) -> Array:
                return elementwise.argmax(second["weight"] @ elementwise.relu(value) + second["bias"][:, None], 0)

            unedited = classes(h)
            right = jnp.where(unedited == y, y, -1)
            expected = jnp.where(new, jnp.stack([y, unedited, right]), -1)

            def point(edit: edits.Affine) -> Array:
                scale, offset, low, high = (leaf[:, None] for leaf in edit)
                value = elementwise.at_most(elementwise.at_least(scale * h + offset, low), high)
                return jnp.sum(classes(value)[None] == expected, axis=-1, dtype=jnp.int32)

            return counts + lax.map(point, points), None

        start = blocks.varying(jnp.zeros((len(points.scale), 3), jnp.int32))
        return lax.psum(lax.scan(block, start, jnp.arange(count))[0], DATA)

    count_all = _on_all_devices(device, mesh, examples)
    return lambda: np.asarray(count_all(one, points, examples))[:, 0]


def _on_all_devices(device: Any, mesh: Mesh, examples: Examples) -> Any:
    specs = (PartitionSpec(), PartitionSpec(), blocks.specs(examples))

    @jax.jit
    def run(*arguments: Any) -> Any:
        with jax.default_matmul_precision("float32"):
            return jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())(*arguments)

    return run
