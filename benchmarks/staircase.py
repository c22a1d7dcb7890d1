"""What a staircase saves: training steps and sweeps of images in its order, beside the same in their own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import images as inputs
from benchmarks import jax_contenders, machine, show
from benchmarks.images import Images
from benchmarks.parity import LEARNING_RATE
from benchmarks.sweep import ACTIVATION, WARM_UP_STEPS, Families
from benchmarks.timing import Contender, Row, Timed, chosen, interleave, largest_difference
from benchmarks.train import initial_networks
from jaxdist.data import LaidOut
from jaxdist.formatting import counted
from jaxdist.perturbations import PAPER, get

OWN = "in_order"
"""What names the contenders on images in their own order, which ratios and answers refer to."""

STEPS = 2


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time every contender, print the table and return the numbers; seconds are those of one network."""
    images = inputs.for_speed(options)
    families = [(name, get(name).grid()) for name in PAPER]
    if options.quick:
        families = [(name, grid[::10]) for name, grid in families]
    laid_out = inputs.place(images)
    widths = laid_out.splits["train"].widths
    total = int(images.used.sum())
    mean = inputs.multiplied(images, laid_out)
    steps = f"{counted(len(widths), 'step')} of {', '.join(map(str, widths))} pixels" if widths else "no staircase"
    print(f"{steps}: {mean:.0f} pixels an image are multiplied on average, of {total}")
    contenders = chosen(make_contenders(images, families, options.seeds), options.only)
    found = rows(interleave(contenders, options.repeats, turn_s=0 if options.quick else 1))
    show.table(f"In the order of a staircase, {images.source}, {counted(options.seeds, 'network')}", found)
    if options.figure and widths:
        figure(images, laid_out, options.figure)
    return {
        "what": "a training step, and a sweep, seconds a network",
        "images": images.source,
        "repeats": options.repeats,
        "spread": "largest less smallest",
        "machine": machine.facts(),
        "widths": list(widths),
        "mean_width": mean,
        "contenders": found,
    }


def rows(timed: dict[str, Timed]) -> dict[str, Row]:
    """The numbers of each contender; ratios are None where the one in their own order was left out."""
    found: dict[str, Row] = {}
    for name, one in timed.items():
        own = timed.get(f"{name.split()[0]} {OWN}")
        found[name] = {
            "median_s": one.median_s,
            "spread_s": max(one.each_s) - min(one.each_s),
            "first_s": one.first_s,
            "ratio_to_own": own.median_s / one.median_s if own else None,
            "largest_count_difference": largest_difference(one.answer, own.answer) if own else None,
        }
    return found


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
    """Draw which pixels are set in every 60th image, in the order of the staircase, and what is multiplied."""
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
