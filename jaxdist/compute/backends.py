"""Which way of making exact products is fastest on this machine, by trying each for a moment."""

from __future__ import annotations

import dataclasses
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxdist.compute import blocks
from jaxdist.compute.devices import DATA, SEED, Examples, of_each, place
from jaxdist.compute.ensemble import Reducer, over_networks
from jaxdist.compute.products import BACKENDS, Backend, pack, product

_ROWS = 512
"""Units that a trial multiplies at once, about those of a few networks; more only if one network has more."""

_BLOCK, _BLOCKS = 500, 3
"""Examples a block, and blocks a device."""

_REPEATS = 3


class BackendChoice(NamedTuple):
    """The backend that was fastest, and what was measured of each in the trial."""

    backend: Backend
    seconds: dict[str, float]  # the best of some repeats
    error: dict[str, float]  # of the trial's gradient against float64, relative, in the 2-norm


def choose(pixels: np.ndarray, hidden: int, mesh: Mesh) -> BackendChoice:
    """Try every backend on the first pixels [N, D], uint8, with `hidden` units a network; takes a second or two.

    The trial is the gradient of |X W'|^2 / 2, which has the two large products of a training step and little else.
    float32 is among the backends: on a processor without matrix units, nothing cut in parts is faster.
    """
    images = pixels[: _BLOCK * _BLOCKS * mesh.shape[DATA]]
    rows = max(hidden, _ROWS // hidden * hidden)
    weight = np.random.default_rng(0).normal(size=(rows, images.shape[1])).astype(np.float32)
    exact = weight.astype(float) @ images.T @ images
    labels = np.zeros(len(images), np.int32)
    # Each row of the mesh multiplies as many units as one device would.
    weights = np.tile(weight, (mesh.shape[SEED], 1, 1))
    seconds: dict[str, float] = {}
    error: dict[str, float] = {}
    for backend in BACKENDS:
        stored = pack(images, backend)
        examples = place(stored, labels, mesh, dtype=stored.dtype)

        def trial(examples: Examples = examples) -> tuple[np.ndarray, float]:
            started = time.perf_counter()
            gradient = over_networks(_Trial(), weights, None, examples, size=_BLOCK)[0]
            return gradient, time.perf_counter() - started

        computed, _ = trial()
        seconds[backend] = min(trial()[1] for _ in range(_REPEATS))
        error[backend] = float(np.linalg.norm(computed - exact) / np.linalg.norm(exact))
    # The slowest process's times, so that all processes choose alike.
    longest = of_each(np.array(list(seconds.values()), np.float32), mesh).max(axis=0)
    seconds = dict(zip(seconds, longest.tolist(), strict=True))
    return BackendChoice(min(BACKENDS, key=seconds.__getitem__), seconds, error)


@dataclasses.dataclass(frozen=True)
class _Trial(Reducer):
    """The gradient of |X W'|^2 / 2 of one network's weights."""

    def init(self, params: Array, given: None, x: Array) -> Array:
        return jnp.zeros(params.shape)

    def update(self, state: Array, params: Array, given: None, block: blocks.Block) -> Array:
        def loss(weight: Array) -> Array:
            return jnp.sum(jnp.where(block.valid, product(weight, block.x), 0) ** 2) / 2

        return state + jax.grad(loss)(params)
