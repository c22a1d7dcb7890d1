"""How exact a training gradient is at trained weights, by the way that the products of pixels are made.

Near a good fit a few examples carry most of the gradient, so that one unit which rounding moves to the other side of
its activation's kink can change it more than all other rounding together. So the two are told apart: the error against
float64 is taken with every unit on the side where the measured program has it, and the units that are on another side
in float64 are counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.images import Images
from benchmarks.jax_contenders import SITE
from benchmarks.parity import reference_gradient
from jaxdist.compute import Backend, blocks, products
from jaxdist.networks import Model, mlp, training
from jaxdist.types import Params


class Rounding(NamedTuple):
    """What rounding does to one network's gradient."""

    error: float  # of the whole gradient against float64, relative, in the Euclidean norm; sides held equal
    flips: int  # of all N * H units' values, those on the other side of the kink than in float64


def measure(params: Params, activation: str, images: Images, backend: Backend) -> Rounding:
    """The gradient of one network's mean loss over all training images against float64.

    It is training's own loss, one network and block after the other, on one device.

    Args:
      params: one network's weights, of all D inputs, float32.
      activation: relu or abs.

    Raises:
      InputError: if a backend other than float32 is to multiply what are no integers 0..255.
    """
    weight, bias = params["dense0"]["weight"], params["dense0"]["bias"]
    size = blocks.default_size(len(weight))
    found, signs = gradient_and_signs(params, activation, images, backend, size)
    expected = reference_gradient(params, activation, images, signs=signs)
    ours, exact = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (found, expected))
    wide, flips = np.asarray(weight, np.float64).T, 0
    for start in range(0, len(signs), 5_000):
        here = slice(start, start + 5_000)
        truth = np.sign(images.train_x[here].astype(np.float64) @ wide + bias)
        flips += int(np.sum(truth != signs[here]))
    return Rounding(float(np.linalg.norm(ours - exact) / np.linalg.norm(exact)), flips)


def gradient_and_signs(
    params: Params, activation: str, images: Images, backend: Backend, size: int
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """The gradient of training's loss in blocks of `size`, and the signs [N, H] of the units that it was taken at."""
    x = images.train_x if backend == "float32" else products.pack(products.as_pixels(images.train_x), backend)
    total = jax.tree.map(jnp.zeros_like, params)
    signs = []
    for start in range(0, len(x), size):
        y = jnp.asarray(images.train_y[start : start + size])
        part = blocks.Block(
            jnp.asarray(x[start : start + size]), y, jnp.arange(len(y)), jnp.ones(len(y), bool), jnp.bool_(True)
        )
        with jax.default_matmul_precision("float32"):
            grads, sign = _of_block(activation)(params, part)
        total = jax.tree.map(jnp.add, total, grads)
        signs.append(np.asarray(sign).T)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) / len(x), total), np.concatenate(signs)


@functools.cache  # one function, so that networks share what is compiled
def _of_block(activation: str) -> Callable[[Params, blocks.Block], tuple[Params, Array]]:
    model = mlp.model(activation)

    def loss(params: Params, part: blocks.Block) -> tuple[Array, Array]:
        signs = {}

        def tap(site: str, value: Array) -> Array:
            signs[site] = jnp.sign(value).astype(jnp.int8)
            return value

        watched = Model(lambda p, x, _: model.apply(p, x, tap), unit_axis=0, class_axis=0)
        return training.block_sums(watched, params, part.x, part)[0], signs[SITE]

    return jax.jit(jax.grad(loss, has_aux=True))
