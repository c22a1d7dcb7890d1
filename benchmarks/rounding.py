"""How exact a training gradient is at trained weights, by the way that the products of pixels are made.

Near a good fit a few examples carry most of the gradient, so that one unit which rounding moves to the other side of
its activation's kink can change it more than all other rounding together. So the two are told apart: the error against
float64 is taken with every unit on the side where the float32 program has it, and the units that are on another side in
float64 are counted.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.images import Images
from benchmarks.parity import reference_gradient
from jaxdist import blocks, mlp, products, taps, training
from jaxdist.products import Backend
from jaxdist.types import Params

SITE = "dense0/pre"

BLOCK = 2_000


class Rounding(NamedTuple):
    """What rounding does to one network's gradient."""

    error: float  # of the whole gradient against float64, relative, in the Euclidean norm; sides held equal
    flips: int  # of all N * H units' values, those on the other side of the kink than in float64


def measure(params: Params, activation: str, images: Images, backend: Backend) -> Rounding:
    """The gradient of one network's mean loss over all training images, as jaxdist computes it, against float64.

    Args:
      params: one network's weights, of all D inputs, float32.
    """
    found, side = gradient_and_sides(params, activation, images, backend)
    expected = reference_gradient(params, activation, images, side=side)
    ours, exact = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (found, expected))
    error = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
    first = params["dense0"]
    flips = 0
    for start in range(0, len(side), BLOCK):
        x = images.train_x[start : start + BLOCK].astype(np.float64)
        truth = x @ first["weight"].astype(np.float64).T + first["bias"] > 0
        flips += int(np.sum(truth != side[start : start + BLOCK]))
    return Rounding(float(error), flips)


def gradient_and_sides(
    params: Params, activation: str, images: Images, backend: Backend
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """The gradient of training's loss, block by block, and the sides of the kink [N, H] that it was taken on."""
    model = mlp.model(activation)

    def loss(params: Params, part: blocks.Block) -> tuple[Array, Array]:
        sides = {}

        def tap(site: str, value: Array) -> Array:
            sides[site] = value > 0
            return value

        watched = taps.Model(lambda p, x, _: model.apply(p, x, tap), unit_axis=0, class_axis=0)
        return training.block_sums(watched, params, part)[0], sides[SITE]

    of_block = jax.jit(jax.grad(loss, has_aux=True))
    stored = products.pack(products.as_pixels(images.train_x), backend)
    total = jax.tree.map(jnp.zeros_like, params)
    sides = []
    for start in range(0, len(stored), BLOCK):
        x = jnp.asarray(stored[start : start + BLOCK])
        y = jnp.asarray(images.train_y[start : start + BLOCK])
        part = blocks.Block(x, y, jnp.arange(len(y)), jnp.ones(len(y), bool), jnp.bool_(True))
        with jax.default_matmul_precision("float32"):
            grads, side = of_block(params, part)
        total = jax.tree.map(jnp.add, total, grads)
        sides.append(np.asarray(side).T)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) / len(stored), total), np.concatenate(sides)
