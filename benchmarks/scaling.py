"""How jaxdist's cost grows: with images, points and networks in one process, with devices in a process each."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import images as inputs
from benchmarks import jax_contenders, machine, parity
from benchmarks.images import Images
from benchmarks.parity import LEARNING_RATE
from benchmarks.timing import Contender, fit_line, interleave
from jaxdist.types import Params

ACTIVATION = "relu"
STEPS = 3


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time each size, fit a line through each series, print and return constants and deviations."""
    images = inputs.for_speed(options)
    found: dict[str, Any] = {"what": "cost against size", "images": images.source, "repeats": options.repeats}
    if options.devices is not None:
        _, contenders = cases(images, largest_only=True)
        timed = interleave(contenders, options.repeats, turn_s=0 if options.quick else 0.5)
        return found | {"seconds": {name.split()[0]: one.median_s for name, one in timed.items()}}
    sizes, contenders = cases(images, quick=options.quick)
    timed = interleave(contenders, options.repeats, turn_s=0 if options.quick else 0.5)
    found["series"] = {
        name: fit_line(list(cases_of), [timed[case].median_s for case in cases_of.values()])
        for name, cases_of in sizes.items()
    }
    _print_lines(found["series"])
    found["devices"] = by_devices(options)
    _print_devices(found["devices"])
    return found | {"machine": machine.facts()}


def cases(
    images: Images, *, quick: bool = False, largest_only: bool = False
) -> tuple[dict[str, dict[float, str]], dict[str, Contender]]:
    """The contenders, one a size, and for each series its sizes; a size that two series share is timed once."""
    parts = (1,) if largest_only else (2, 1) if quick else (8, 4, 2, 1)
    image_counts = [len(images.train_y) // part for part in parts]
    strides, seeds = parts, (1,) if largest_only else (1, 2) if quick else (1, 2, 4)
    networks = _networks(images, max(seeds))
    contenders: dict[str, Contender] = {}
    sizes: dict[str, dict[float, str]] = {}

    def add(series: str, size: float, name: str, contender: Contender) -> None:
        sizes.setdefault(series, {})[size] = name
        contenders.setdefault(name, contender)

    def sweep(some: Images, stride: int, together: int) -> tuple[float, str, Contender]:
        families = jax_contenders.paper_families(every=stride)
        points = sum(len(grid) for _, grid in families)
        work = jax_contenders.jaxdist_sweep(_first(networks, together), ACTIVATION, some, families)
        return points, f"sweep {len(some.train_y)} {points} {together}", Contender(work)

    def train(some: Images, together: int) -> tuple[str, Contender]:
        work = jax_contenders.jaxdist_train(
            _first(networks, together), ACTIVATION, some, steps=STEPS, learning_rate=LEARNING_RATE
        )
        return f"train {len(some.train_y)} {together}", Contender(work, STEPS + 1)

    for n in image_counts:
        add("sweep, images", n, *sweep(images.first(n), strides[-1], 1)[1:])
        add("training step, images", n, *train(images.first(n), 1))
    for stride in strides:
        points, name, contender = sweep(images, stride, 1)
        add("sweep, points", points, name, contender)
    for together in seeds:
        add("sweep, networks", together, *sweep(images, strides[-1], together)[1:])
        add("training step, networks", together, *train(images, together))
    return sizes, contenders


def by_devices(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds for one network and all images with each number of CPU devices; each number is its own process."""
    cores = int(machine.facts()["cores"])
    numbers = [n for n in (1, 2, 4, 8, 16) if n <= cores]
    found: dict[str, dict[str, float]] = {}
    for number in numbers if len(numbers) > 1 else []:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "found.json"
            command = [sys.executable, "-m", "benchmarks", "scaling", "--devices", str(number), "--json", str(path)]
            command += ["--repeats", str(options.repeats)]
            command += ["--data-dir", options.data_dir] if options.data_dir else []
            command += ["--quick"] if options.quick else []
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"JAX_PLATFORMS": "cpu"})
            found[str(number)] = json.loads(path.read_text(encoding="utf-8"))["seconds"]
    return found


def _networks(images: Images, count: int) -> Params:
    each = [parity.initial_weights(images, seed=k) for k in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *each)


def _first(networks: Params, count: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[:count], networks)


def _print_lines(series: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(title="Cost = constant + slope x size", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "sizes", "constant s", "slope s", "off the line"):
        table.add_column(heading, justify="left" if heading in ("", "sizes") else "right")
    for name, line in series.items():
        sizes = " ".join(f"{size:g}" for size in line["sizes"])
        table.add_row(
            name, sizes, f"{line['constant_s']:.3g}", f"{line['slope_s']:.3g}", f"{line['largest_deviation']:.1%}"
        )
    Console(width=80).print(table)


def _print_devices(found: Mapping[str, Mapping[str, float]]) -> None:
    if not found:
        print("One core: nothing to compare over devices.")
        return
    table = Table(title="Seconds of one network by number of CPU devices", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for number in found:
        table.add_column(number, justify="right")
    for name in next(iter(found.values())):
        table.add_row(name, *(f"{found[number][name]:.3g}" for number in found))
    Console(width=80).print(table)
