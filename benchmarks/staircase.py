"""What a staircase saves: training steps and sweeps of images in its order, beside the same in their own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import images as inputs
from benchmarks import jax_contenders, show
from benchmarks.images import Images
from benchmarks.parity import LEARNING_RATE
from benchmarks.sweep import ACTIVATION, WARM_UP_STEPS, Families
from benchmarks.timing import Contender, Row, Timed, chosen, described, interleave, largest_difference
from benchmarks.train import initial_networks
from jaxdist.data import LaidOut
from jaxdist.formatting import counted

OWN = "in_order"
"""What names the contenders on images in their own order, which ratios and answers refer to."""

STEPS = 2


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time every contender, print the table and return the numbers; seconds are those of one network."""
    images = inputs.for_speed(options)
    families = jax_contenders.paper_families(every=10 if options.quick else 1)
    laid_out = inputs.place(images)
    widths = laid_out.splits["train"].widths
    total = int(images.used.sum())
    mean = inputs.multiplied(images, laid_out)
    steps = f"{counted(len(widths), 'step')} of {', '.join(map(str, widths))} pixels" if widths else "no staircase"
    print(f"{steps}: {mean:.0f} pixels an image are multiplied on average, of {total}")
    contenders = chosen(make_contenders(images, families, options.seeds), options.only)
    measured = rows(interleave(contenders, options.repeats, turn_s=0 if options.quick else 1))
    show.table(f"In the order of a staircase, {images.source}, {counted(options.seeds, 'network')}", measured)
    if options.figure and widths:
        figure(images, laid_out, options.figure)
    return {
        **described("a training step, and a sweep, seconds a network", images.source, options.repeats, measured),
        "widths": list(widths),
        "mean_width": mean,
    }


def rows(timed: dict[str, Timed]) -> dict[str, Row]:
    """The numbers of each contender; ratios are None where the same job on images in order was left out."""
    numbers: dict[str, Row] = {}
    for name, contender in timed.items():
        in_order = timed.get(f"{name.split()[0]} {OWN}")
        numbers[name] = {
            "median_s": contender.median_s,
            "spread_s": max(contender.each_s) - min(contender.each_s),
            "first_s": contender.first_s,
            "ratio_to_own": in_order.median_s / contender.median_s if in_order else None,
            "largest_count_difference": largest_difference(contender.answer, in_order.answer) if in_order else None,
        }
    return numbers


def make_contenders(images: Images, families: Families, seeds: int) -> dict[str, Contender]:
    """Every contender, on the same weights."""
    _, stacked = initial_networks(images, seeds)
    initial = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:1], stacked)
    trained = jax_contenders.trained(initial, ACTIVATION, images, WARM_UP_STEPS)
    contenders: dict[str, Contender] = {}
    for name, in_order in (("staircase", False), (OWN, True)):
        train = jax_contenders.jaxdist_train(
            stacked, ACTIVATION, images, steps=STEPS, learning_rate=LEARNING_RATE, in_order=in_order
        )
        sweep = jax_contenders.jaxdist_sweep(trained, ACTIVATION, images, families, in_order=in_order)
        contenders |= {f"train {name}": Contender(train, (STEPS + 1) * seeds), f"sweep {name}": Contender(sweep)}
    return contenders


def figure(images: Images, laid_out: LaidOut, path: Path) -> None:
    """Draw the pixels that are set in about a thousand images, in the staircase's order, and what is multiplied."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    examples, steps = laid_out.splits["train"], inputs.steps(images, laid_out)
    order = np.argsort(steps, kind="stable")
    each = max(1, len(order) // 1000)
    on = images.train_x[order[::each]][:, laid_out.used] != laid_out.background
    fig, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.imshow(
        ~on, cmap="gray", aspect="auto", interpolation="nearest", extent=(0, on.shape[1], len(order), 0), alpha=0.6
    )
    ends = np.cumsum(np.bincount(steps, minlength=len(examples.widths)))
    axes.stairs(examples.widths, [0, *ends], orientation="horizontal", baseline=0, color="tab:red", linewidth=1.5)
    axes.set_xlabel("pixels, the most often set first")
    axes.set_ylabel("training images, those with the rarest pixels last")
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)
    plt.close(fig)
