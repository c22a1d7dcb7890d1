"""How long commands and first calls keep a user waiting: whole processes, of one checkout or of several in turn."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, show
from benchmarks.timing import Row
from jaxdist.errors import InputError

CHECKOUT = Path(__file__).parents[1]

NETWORK = """
import jax, jax.numpy as jnp, numpy as np, time
def network(params, x):
    hidden = jax.nn.relu(x @ params["w"] + params["b"])
    return hidden @ params["v"]
rng = np.random.default_rng(0)
params = {"w": rng.normal(size=(64, 32)).astype("f") / 8, "b": np.zeros(32, "f"),
          "v": rng.normal(size=(32, 10)).astype("f")}
x = rng.normal(size=(1000, 64)).astype("f")
y = rng.integers(0, 10, 1000)
fractions = np.geomspace(0.01, 10, 100)
"""
"""A small network, its images, and what it is to be scaled by."""

LOOP = (
    NETWORK
    + """
@jax.jit
def correct(params, x, y, factor):
    hidden = jax.nn.relu(factor * (x @ params["w"] + params["b"]))
    return jnp.sum(jnp.argmax(hidden @ params["v"], 1) == y)
print([int(correct(params, x, y, factor)) for factor in fractions][-1])
"""
)
"""What a user would write for one family."""

PROBE = (
    NETWORK
    + """
import jaxdist
def tapped(params, x):
    hidden = jaxdist.site("hidden", x @ params["w"] + params["b"])
    return jax.nn.relu(hidden) @ params["v"]
for k in range(2):
    started = time.perf_counter()
    result = jaxdist.probe(tapped, params, train=(x, y), families=("scale",), post={"hidden": jax.nn.relu})
    print(1000 * (time.perf_counter() - started))
    params = {**params, "v": params["v"] + 1}
"""
)
"""The same by jaxdist, and again with other weights, both in the process that is timed; it prints each one's ms."""

DOSES = """
import sys, time, statistics
from jaxdist.compute import devices
devices.use_all_cores()
import jax, numpy as np
from benchmarks import images as inputs
from jaxdist.config import SweepConfig
from jaxdist.networks import mlp
from jaxdist.perturbations import PAPER, get, joined, ranges
from jaxdist.sweep import doses, ensemble_sweep
folder, repeats = sys.argv[1], int(sys.argv[2])
images = inputs.load(folder) if folder else inputs.made_up(60_000, 10_000)
model, examples = mlp.model("relu"), devices.place(images.train_x[:, images.used], images.train_y, devices.make_mesh())
whole = mlp.init_ensemble(jax.random.key(0), range(1), (images.train_x.shape[1], 128, 10))
params, site = mlp.narrow(whole, images.used), "dense0/pre"
measured = ranges.measure(model, params, examples, (site,))[site]
made = {site: joined(measured, {name: get(name).grid() for name in PAPER}, SweepConfig())}
each = {"plain": None, "doses": doses.watch(model, site)}
sums = getattr(ensemble_sweep, "sweep_sums", None) or ensemble_sweep.sums  # its name before
seconds = {name: [] for name in each}
for _ in range(repeats + 1):
    for name, watch in each.items():
        started = time.perf_counter()
        jax.device_get(sums(model, params, made, examples, watch=watch))
        seconds[name].append(time.perf_counter() - started)
for name in each:
    print(statistics.median(seconds[name][1:]))
"""
"""A sweep of the paper's 325 points with doses and without; it prints the seconds of each, compiled."""


STUDY = """
import shutil, statistics, sys, time
from jaxdist import cli
from jaxdist.experiment import running
folder, repeats = sys.argv[1], int(sys.argv[2])
whole = running.study.study
def timed(subjects, context):
    keeps = context._fields[5]  # has had other names
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        groups = whole(subjects, context._replace(**{keeps: lambda _, compute: compute()}))
        seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds[1:]) / len(subjects) / len(context.seeds))
    return groups
running.study.study = timed
shutil.rmtree("copy", ignore_errors=True)
shutil.copytree(folder, "copy")
sys.exit(cli.main(["sweep", "copy", "-q"]))
"""
"""All that a sweep measures of trained networks, from weights and images to labelled counts; it prints the seconds of
each network, compiled."""


TRAINING = """
import statistics, sys, time
from jaxdist import cli
from jaxdist.networks import training
whole = training.advance
def timed(*given, **options):
    seconds, began = [], None
    for progress in whole(*given, **options):
        if began:
            seconds.append((time.perf_counter() - began[0]) / (progress.step - began[1]))
        yield progress
        began = time.perf_counter(), progress.step
    print(statistics.median(seconds) / progress.metrics.loss.shape[1])
training.advance = timed
sys.exit(cli.main(["train", *sys.argv[1:], "-q"]))
"""
"""A training, which prints the seconds that a step took of each network, compiled."""


class Spent(NamedTuple):
    """What a process took, and what it printed."""

    wall_s: float
    cpu_s: float
    printed: str


class Place(NamedTuple):
    """A checkout and the folders that its processes have for themselves."""

    checkout: Path
    folder: Path

    def run(self, *command: str) -> Spent:
        """Run Python on a command line, its modules those of the checkout.

        Raises:
          InputError: with the last line of stderr, where it fails.
        """
        known = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
        environment = {**known, "PYTHONPATH": str(self.checkout), "XDG_CACHE_HOME": str(self.folder / "cache")}
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command], cwd=self.folder, env=environment, stdout=out, stderr=error
            )
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            for file in (out, error):
                file.seek(0)
            if process.returncode:
                said = error.read().strip().splitlines()
                raise InputError(f"{self.checkout}: {' '.join(command)[:60]}: {said[-1] if said else 'failed'}")
            return Spent(wall, usage.ru_utime + usage.ru_stime, out.read())

    def jaxdist(self, *arguments: str) -> Spent:
        """Run a command of jaxdist."""
        return self.run("-m", "jaxdist", *arguments)

    def empty(self, *names: str) -> None:
        """Remove folders."""
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time every wait of every checkout, print a table and return the numbers: the medians of all repeats."""
    checkouts = [CHECKOUT, *(path.resolve() for path in options.against or ())]
    for checkout in checkouts:
        if not (checkout / "jaxdist" / "__init__.py").is_file():
            raise InputError(f"--against: {checkout}: no checkout of jaxdist; expected a folder that holds jaxdist/")
    names = [checkout.name for checkout in checkouts]
    if len(set(names)) < len(names):
        raise InputError(f"--against: expected folders of different names, which tell rows apart, got {names}")
    if options.data_dir and not Path(options.data_dir).is_dir():
        raise InputError(f"--data-dir: {options.data_dir}: expected a folder of MNIST's IDX files, and there is none")
    repeats = 1 if options.quick else options.repeats
    each: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as root:
        places = []
        for k, checkout in enumerate(checkouts):
            place = Place(checkout, Path(root) / str(k))
            place.folder.mkdir()
            places.append(place)
        for part in parts(options):
            for repeat in range(repeats):
                for place in places if repeat % 2 else places[::-1]:
                    name = "" if place.checkout == CHECKOUT else f" ({place.checkout.name})"
                    for what, row in part(place).items():
                        each.setdefault(f"{what}{name}", []).append(row)
                        print(f"{what}{name}: {row}", file=sys.stderr, flush=True)
    measured: dict[str, Row] = {
        what: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for what, rows in sorted(each.items(), key=lambda item: _order(item[0]))
    }
    show.table("Whole processes, and calls within one; medians", measured)
    return {"what": "seconds waited", "repeats": repeats, "machine": machine.facts(), "contenders": measured}


NAMES = (
    "a loop of one's own",
    "first probe",
    "second probe",
    "run",
    "run again",
    "training step of MNIST, compiled, a network",
    "sweep of MNIST",
    "sweep of MNIST again",
    "sweep of MNIST, compiled, a network",
    "plain sweep, compiled",
    "sweep with doses, compiled",
)


def _order(name: str) -> int:
    return NAMES.index(name.partition(" (")[0])


def parts(options: argparse.Namespace) -> Sequence[Callable[[Place], Mapping[str, dict[str, float]]]]:
    """What is timed, in the order in which it runs."""
    few = ("--train.seeds", "2", "--train.steps", "5") if options.quick else ()
    data = str(Path(options.data_dir).resolve()) if options.data_dir else ""

    def probes(place: Place) -> dict[str, dict[str, float]]:
        loop, probe = place.run("-c", LOOP), place.run("-c", PROBE)
        _, second = (float(line) / 1000 for line in probe.printed.split())
        times = {"x_loop": probe.wall_s / loop.wall_s, "x_loop_cpu": probe.cpu_s / loop.cpu_s}
        return {
            "a loop of one's own": _spent(loop),
            "first probe": {**_spent(probe), **times},
            "second probe": {"wall_s": second},
        }

    def quickstart(place: Place) -> dict[str, dict[str, float]]:
        place.empty("cache/jaxdist", "runs")
        first = place.jaxdist("run", *few)
        place.empty("runs")
        return {"run": _spent(first), "run again": _spent(place.jaxdist("run", *few))}

    def mnist(place: Place) -> dict[str, dict[str, float]]:
        given = ("--data.name", "mnist", "--data.dir", data, "--train.learning_rate", "1e-3")
        if not (place.folder / "trained").exists():
            place.jaxdist("train", *given, "--train.seeds", "1", "--train.steps", "10", "--out", "trained")
        place.empty("stepped")
        steps = "8" if options.quick else "60"
        run = ("--model.activations", "relu", "--train.seeds", "2", "--train.steps", steps, "--out", "stepped")
        stepped = place.run("-c", TRAINING, *given, *run)
        place.empty("cache/jaxdist")
        compiled = float(place.run("-c", STUDY, "trained", "3" if options.quick else "12").printed)
        times = []
        for _ in range(2):
            place.empty("copy")
            shutil.copytree(place.folder / "trained", place.folder / "copy")
            times.append(place.jaxdist("sweep", "copy"))
        return {
            "training step of MNIST, compiled, a network": {"wall_s": float(stepped.printed)},
            "sweep of MNIST": _spent(times[0]),
            "sweep of MNIST again": _spent(times[1]),
            "sweep of MNIST, compiled, a network": {"wall_s": compiled},
        }

    def doses(place: Place) -> dict[str, dict[str, float]]:
        printed = place.run("-c", DOSES, data, "5").printed
        plain, watched = map(float, printed.split())
        return {
            "plain sweep, compiled": {"wall_s": plain},
            "sweep with doses, compiled": {"wall_s": watched, "x_plain": watched / plain},
        }

    return [probes, quickstart, *([mnist] if data else []), *([] if options.quick else [doses])]


def _spent(spent: Spent) -> dict[str, float]:
    return {"wall_s": spent.wall_s, "cpu_s": spent.cpu_s}
