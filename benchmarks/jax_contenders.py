"""The experiment in JAX, twice: as a first attempt would write it, and by jaxdist."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.images import Images, place
from benchmarks.parity import jaxdist_trainer
from jaxdist.compute import Backend
from jaxdist.config import SweepConfig
from jaxdist.networks import mlp
from jaxdist.perturbations import PAPER, edits, get, joined, ranges
from jaxdist.sweep import ensemble_sweep
from jaxdist.types import Params, Ranges

SITE = "dense0/pre"
ACTIVATIONS = {"relu": jax.nn.relu, "abs": jnp.abs}

POINTS = 13
"""Points that the first attempt maps at once; all 325 would need 10 GB."""

Run = Callable[[], np.ndarray]


def paper_families(every: int = 1) -> list[tuple[str, np.ndarray]]:
    """The paper's families with their fractions, or each so many of them."""
    return [(name, get(name).grid()[::every]) for name in PAPER]


def _textbook(params: Params, x: jax.Array, activation: str, edit: edits.Affine | None = None) -> jax.Array:
    """Logits [N, C] of images [N, D]; edit leaves are [H]."""
    h = x @ params["dense0"]["weight"].T + params["dense0"]["bias"][None]
    if edit is not None:
        h = jnp.minimum(edit.scale[None] * h + edit.offset[None], edit.high[None])
    return ACTIVATIONS[activation](h) @ params["dense1"]["weight"].T + params["dense1"]["bias"][None]


def naive_sweep(params: Params, activation: str, images: Images, families: Sequence[tuple[str, np.ndarray]]) -> Run:
    """The textbook forward pass under ``vmap`` over points and ``jit``; one network, unstacked parameters."""
    x, y = jnp.asarray(images.train_x), jnp.asarray(images.train_y)

    @jax.jit
    def measure(params: Params) -> tuple[jax.Array, jax.Array]:
        a = ACTIVATIONS[activation](x @ params["dense0"]["weight"].T + params["dense0"]["bias"][None])
        return a.min(axis=0), a.max(axis=0)

    @jax.jit
    def count(params: Params, some: edits.Affine) -> jax.Array:
        def point(edit: edits.Affine) -> jax.Array:
            return jnp.sum(jnp.argmax(_textbook(params, x, activation, edit), axis=1) == y)

        return jax.vmap(point)(some)

    def run() -> np.ndarray:
        low, high = measure(params)
        made = joined(Ranges(low, high, high == 0), dict(families), SweepConfig())
        points = len(made.scale)
        parts = [jax.tree.map(lambda leaf, k=k: leaf[k : k + POINTS], made) for k in range(0, points, POINTS)]
        return np.concatenate([np.asarray(count(params, part)) for part in parts])

    return run


def jaxdist_sweep(
    params: Params,
    activation: str,
    images: Images,
    families: Sequence[tuple[str, np.ndarray]],
    *,
    in_order: bool = False,
) -> Run:
    """Ranges, edits and sweep of stacked networks, as a run of jaxdist does them; counts of the first network."""
    laid_out = place(images, seeds=jax.tree.leaves(params)[0].shape[0], in_order=in_order)
    model, train_set = mlp.model(activation, background=laid_out.background), laid_out.splits["train"]
    narrow = mlp.narrow(params, laid_out.used)

    def run() -> np.ndarray:
        measured = ranges.measure(model, narrow, train_set, (SITE,))[SITE]
        made = joined(measured, dict(families), SweepConfig())
        return np.asarray(ensemble_sweep.sweep(model, narrow, {SITE: made}, train_set).correct[0])

    return run


def trained(params: Params, activation: str, images: Images, steps: int) -> Params:
    """Stacked networks after some of the paper's updates, by jaxdist, all D inputs."""
    train, used = jaxdist_trainer(params, activation, images, steps=steps)
    return mlp.widen(train().params, used, params)


def naive_train(params: Params, activation: str, images: Images, *, steps: int, learning_rate: float) -> Run:
    """The textbook loss over all images, ``vmap(value_and_grad)`` over stacked networks and ``jit``, a step a call."""
    x, y, test_x, test_y = map(jnp.asarray, images[:4])

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        logits = _textbook(params, x, activation)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)
        return -jnp.mean(picked), jnp.sum(jnp.argmax(logits, axis=1) == y)

    def network(params: Params) -> tuple[Params, jax.Array, jax.Array]:
        (_, correct), grads = jax.value_and_grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda leaf, grad: leaf - learning_rate * grad, params, grads)
        return params, correct, jnp.sum(jnp.argmax(_textbook(params, test_x, activation), axis=1) == test_y)

    step = jax.jit(jax.vmap(network))

    def run() -> np.ndarray:
        now, records = params, []
        for _ in range(steps):
            now, correct, test_correct = step(now)
            records.append((int(correct[0]), int(test_correct[0])))
        return np.array(records).T.ravel()

    return run


def jaxdist_train(
    params: Params,
    activation: str,
    images: Images,
    *,
    steps: int,
    learning_rate: float,
    backend: Backend = "float32",
    in_order: bool = False,
) -> Run:
    """`jaxdist.networks.training.train` of stacked networks; it measures once more than it updates."""
    train, _ = jaxdist_trainer(
        params, activation, images, steps=steps, learning_rate=learning_rate, backend=backend, in_order=in_order
    )

    def run() -> np.ndarray:
        metrics = train().metrics
        correct = np.rint(np.asarray(metrics.train_accuracy)[:-1, 0] * len(images.train_y))
        test_correct = np.rint(np.asarray(metrics.test_accuracy)[1:, 0] * len(images.test_y))
        return np.concatenate([correct, test_correct]).astype(int)

    return run
