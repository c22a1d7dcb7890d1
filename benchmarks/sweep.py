"""Speed of a sweep: from one network's weights and 60,000 images to the counts at all 325 points."""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import images as inputs
from benchmarks import jax_contenders, machine, parity, show
from benchmarks.images import CLASSES, Images
from benchmarks.parity import HIDDEN
from benchmarks.timing import Contender, chosen, measure, report
from jaxdist.formatting import counted

ACTIVATION = "relu"
WARM_UP_STEPS = 10
"""Updates before the sweep, so that the networks are right about something."""

Families = list[tuple[str, np.ndarray]]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time every contender, print the table and return the numbers; seconds are those of one network."""
    images = inputs.for_speed(options)
    families = jax_contenders.paper_families(every=10 if options.quick else 1)
    contenders = chosen(make_contenders(images, families, quick=options.quick), options.only)
    points = sum(len(grid) for _, grid in families)
    least = work(len(images.train_y), int(images.nonzero.sum()), points)
    measured = measure(contenders, options, least)
    show.table(f"Sweep of {counted(points, 'point')}, one network, {images.source}", measured.rows)
    what = f"sweep of {counted(points, 'point')}, seconds a network"
    return report(measured, what, images.source, options, least)


def work(images: int, features: int, points: int) -> tuple[float, float]:
    """Floating-point operations in products, and elements mapped, that no way to count at every point avoids.

    The first layer once; at each point the head's product, the edit and activation of each hidden value, and the
    comparison of each logit.
    """
    flops = 2.0 * images * HIDDEN * (features + points * CLASSES)
    return flops, float(images) * points * (HIDDEN + CLASSES)


def make_contenders(images: Images, families: Families, *, quick: bool) -> dict[str, Contender]:
    """Every contender that can run here; the paper's way in full, except that --quick times a part of its points."""
    initial = parity.initial_weights(images, seed=0)
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], initial)
    trained = jax_contenders.trained(stacked, ACTIVATION, images, WARM_UP_STEPS)
    one: dict[str, dict[str, np.ndarray]] = jax.tree.map(lambda leaf: np.asarray(leaf[0]), trained)
    points = [(name, float(p)) for name, grid in families for p in grid]
    contenders = {}
    if machine.have_torch():
        from benchmarks import chunked_torch, paper_torch

        x, y = paper_torch.as_tensors(images.train_x, images.train_y)
        some = points[:8] if quick else points
        contenders["paper_torch"] = Contender(
            lambda: paper_torch.sweep(one, ACTIVATION, x, y, some), len(some) / len(points)
        )
        used = images.used
        narrow = {**one, "dense0": {**one["dense0"], "weight": one["dense0"]["weight"][:, used]}}
        split = (images.train_x[:, used], images.train_y)
        contenders["chunked_torch"] = Contender(chunked_torch.make_sweep(narrow, ACTIVATION, *split, points))
        contenders["compiled_torch"] = Contender(
            chunked_torch.make_sweep(narrow, ACTIVATION, *split, points, compile=not quick)
        )
    unstacked = jax.tree.map(lambda leaf: leaf[0], trained)
    contenders["naive_jax"] = Contender(jax_contenders.naive_sweep(unstacked, ACTIVATION, images, families))
    contenders["jaxdist"] = Contender(jax_contenders.jaxdist_sweep(trained, ACTIVATION, images, families))
    return contenders
