"""Speed of training: one full-batch update of one network, with all that the paper records at it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import images as inputs
from benchmarks import jax_contenders, machine, parity, rounding, show
from benchmarks.images import CLASSES, Images
from benchmarks.parity import HIDDEN, LEARNING_RATE
from benchmarks.timing import Contender, Row, chosen, measure, report
from jaxdist.compute import Backend
from jaxdist.formatting import counted
from jaxdist.networks import mlp
from jaxdist.types import Params

ACTIVATION = "relu"

BACKENDS: dict[str, Backend] = {
    "jaxdist": "float32",
    "jaxdist_bfloat16": "bfloat16",
    "jaxdist_digits": "digits",
}
"""How each contender of jaxdist makes the products of pixels; ``compute.precision = "exact"`` takes the fastest."""

EXACT = [name for name, backend in BACKENDS.items() if backend != "float32"]

TRAINED_STEPS = 100
"""Updates after which the rounding of gradients is measured."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time every contender, print the table and return the numbers; seconds are those of a step and network."""
    images = inputs.for_speed(options)
    contenders = chosen(make_contenders(images, options.seeds, quick=options.quick), options.only)
    least = work(images, int(images.nonzero.sum()))
    measured = measure(contenders, options, least)
    for name, row in measured.rows.items():
        if name in EXACT:  # other operations than float32's, and more of them
            row["share_of_floor"] = None
        elif name != "floor":
            executed = work(images, _columns(name, images))[0]
            row["executed_gflops"] = executed / measured.found[name].median_s / 1e9
            row["executed_share_of_gemm"] = executed / measured.found[name].median_s / measured.rates.gemm
    show.table(f"A training step, a network ({options.seeds} at once), {images.source}", measured.rows)
    what = f"training step with all that it records, seconds a network, {counted(options.seeds, 'network')}"
    found = report(measured, what, images.source, options, least)
    names = [name for name in BACKENDS if name in contenders]
    if names:
        steps = 10 if options.quick else TRAINED_STEPS
        rounded = rounding_of(images, options.seeds, steps, names)
        show.table(
            f"Gradients after {counted(steps, 'update')}, beside float64, {counted(options.seeds, 'network')}", rounded
        )
        found["rounding"] = {"steps": steps, "networks": options.seeds, "contenders": rounded}
    return found


def rounding_of(images: Images, seeds: int, steps: int, names: Sequence[str]) -> dict[str, Row]:
    """What rounding does to the gradients of networks after `steps` updates in each of jaxdist's contenders.

    The root mean square of the networks' errors, the largest, and all flips, of so many values; with the pixels that
    they are trained on. See `benchmarks.rounding`.
    """
    used = images.used
    trained = jax_contenders.trained(initial_networks(images, seeds)[1], ACTIVATION, images, steps)
    networks = [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), mlp.narrow(trained, used)) for k in range(seeds)]
    narrow = images._replace(train_x=images.train_x[:, used], test_x=images.test_x[:, used])
    rows: dict[str, Row] = {}
    for name in names:
        found = [rounding.measure(one, ACTIVATION, narrow, BACKENDS[name]) for one in networks]
        errors = np.array([one.error for one in found])
        rows[name] = {
            "rms_gradient_error": float(np.sqrt(np.mean(errors**2))),
            "largest_gradient_error": float(errors.max()),
            "flips": sum(one.flips for one in found),
            "values": seeds * HIDDEN * len(images.train_y),
        }
    return rows


def initial_networks(images: Images, seeds: int) -> tuple[list[dict[str, dict[str, np.ndarray]]], Params]:
    """The initial weights of each network, and all of them stacked."""
    networks = [parity.initial_weights(images, seed=k) for k in range(seeds)]
    return networks, jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *networks)


def _columns(name: str, images: Images) -> float:
    """The pixels of an image that a contender multiplies, on average."""
    if name in ("paper_torch", "naive_jax"):
        return images.train_x.shape[1]
    return inputs.multiplied(images, inputs.place(images)) if name in BACKENDS else int(images.used.sum())


def work(images: Images, features: float) -> tuple[float, float]:
    """Floating-point operations in products, and elements mapped, of a step and network.

    Two products with the first layer's weights on training images, three with the head's, one of each on test images;
    the activation there and back, and the logits' softmax.
    """
    train, test = len(images.train_y), len(images.test_y)
    flops = 2.0 * HIDDEN * (train * (2 * features + 3 * CLASSES) + test * (features + CLASSES))
    return flops, float(train * (2 * HIDDEN + CLASSES) + test * (HIDDEN + CLASSES))


def make_contenders(images: Images, seeds: int, *, quick: bool) -> dict[str, Contender]:
    """Every contender that can run here, all from the same weights; one network at a time in the paper's way."""
    steps = 2
    networks, stacked = initial_networks(images, seeds)
    contenders = {}
    if machine.have_torch():
        from benchmarks import chunked_torch, paper_torch

        splits = [paper_torch.as_tensors(*split) for split in (images[:2], images[2:4])]

        def paper() -> np.ndarray:
            curves = paper_torch.train(networks[0], ACTIVATION, *splits, steps=steps, learning_rate=LEARNING_RATE)[1]
            return np.concatenate([curves.train_correct, curves.test_correct])

        contenders["paper_torch"] = Contender(paper, steps)
        used = images.used
        narrow = [{**one, "dense0": {**one["dense0"], "weight": one["dense0"]["weight"][:, used]}} for one in networks]
        both = (images.train_x[:, used], images.train_y), (images.test_x[:, used], images.test_y)
        for name, compile in (("chunked_torch", False), ("compiled_torch", not quick)):
            chunked = chunked_torch.make_train(
                narrow, ACTIVATION, *both, steps=steps, learning_rate=LEARNING_RATE, compile=compile
            )
            contenders[name] = Contender(chunked, steps * seeds)
    contenders["naive_jax"] = Contender(
        jax_contenders.naive_train(stacked, ACTIVATION, images, steps=steps, learning_rate=LEARNING_RATE), steps * seeds
    )
    # jaxdist measures the last weights too, which is the work of one more step.
    for name, backend in BACKENDS.items():
        trains = jax_contenders.jaxdist_train(
            stacked, ACTIVATION, images, steps=steps, learning_rate=LEARNING_RATE, backend=backend
        )
        contenders[name] = Contender(trains, (steps + 1) * seeds)
    return contenders
