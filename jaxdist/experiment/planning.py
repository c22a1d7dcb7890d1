"""What a run will cost, before it runs: work, memory and time, by its shapes and a measurement that takes seconds."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np
import xarray as xr

from jaxdist import files
from jaxdist.compute import group, mesh_of
from jaxdist.config import Config
from jaxdist.data import Inputs, load_inputs
from jaxdist.errors import InputError
from jaxdist.experiment import resolving, running
from jaxdist.formatting import counted
from jaxdist.networks import Metrics, forms, mlp, models, training
from jaxdist.perturbations import edits, families, ranges, rules
from jaxdist.report import writing
from jaxdist.storage import result_files
from jaxdist.sweep import Counts, ensemble_sweep, labels, results, waves
from jaxdist.types import Params, Ranges

T = TypeVar("T")

MOST_SEEDS = 40
"""Networks that the measurement trains at once; further ones are taken to cost as much each."""

MEASURE_S = 2.0
"""Seconds for which the measurement trains, once compiled, at most; one call more where a call takes longer."""


class Plan(NamedTuple):
    """Expected cost of a run on `devices` devices like those here."""

    networks: int
    devices: int
    train_flops: float
    """Operations in products of the whole training, test accuracies included; useful ones, over all inputs."""
    sweep_flops: float
    """The same of the sweep: each network's first layers once, and what follows the site at every point."""
    seconds: dict[str, float]
    """By stage: load, compile, train, sweep, report."""
    memory: int | None
    """Bytes resident in the process at its largest, None where the system does not say."""

    @property
    def total_s(self) -> float:
        """Seconds from the data to the last picture."""
        return sum(self.seconds.values())


def plan(config: Config, devices: int | None = None) -> Plan:
    """Measure a little of a run, of its real shapes, and say what all of it will cost; writes no file that stays.

    Args:
      devices: how many devices like those here the run will have, taken to share the work evenly; those here by
        default.

    Raises:
      InputError: as `running.run` does, for a config or data that cannot be used.
    """
    if devices is not None and devices < 1:
        raise InputError(f"--devices: expected at least 1, got {devices}")
    config = dataclasses.replace(config, sweep=resolving.named(config.sweep))
    files.expanded(Path(config.out))
    models.check(config)
    inputs, load_s = _timed(lambda: load_inputs(config))
    models.refuse_too_large(config, inputs, config.train.seeds)
    running.refuse_meaningless(config, inputs)
    seeds = min(config.train.seeds, MOST_SEEDS)
    share = config.train.seeds / seeds
    seconds = {"load": load_s, "compile": 0.0, "train": 0.0, "sweep": 0.0}
    for name in config.model.activations:
        params = mlp.narrow(models.initial(config, inputs, range(seeds), name), inputs.used)
        compile_s, step_s = _train_seconds(config, inputs, name, params)
        seconds["compile"] += compile_s
        seconds["train"] += step_s * (config.train.steps + 1) * share
        compile_s, each_s = _sweep_seconds(config, inputs, name, params)
        seconds["compile"] += compile_s
        seconds["sweep"] += each_s * config.train.seeds
    seconds["report"] = _report_seconds(config, inputs, seeds)
    available = jax.device_count()
    for stage in ("train", "sweep"):
        seconds[stage] *= available / (devices or available)
    further = models.bytes_of(config, inputs, config.train.seeds - seeds)  # of those that were not measured
    resident = _resident()
    return Plan(
        config.train.seeds * len(config.model.activations),
        devices or available,
        *_flops(config, inputs),
        seconds,
        None if resident is None else resident + further,
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _train_seconds(config: Config, inputs: Inputs, activation: str, params: Params) -> tuple[float, float]:
    """Seconds to compile, and of a step of all the given networks."""
    started = time.perf_counter()
    calls: list[tuple[float, int]] = []  # when each call was over, and its last step

    optimizer = training.optimizer(config.train.optimizer, config.train.learning_rate)
    begin = training.start(params, config.train.steps, optimizer)
    splits = inputs.splits["train"], inputs.splits["test"]
    model = models.model_of(config, activation, inputs.background)
    for now in training.advance(model, begin, *splits, optimizer=optimizer, block=config.compute.block):
        calls.append((time.perf_counter(), now.step))
        if len(calls) > 2 and calls[-1][0] - calls[0][0] > MEASURE_S:
            break
    (first, length), (last, steps) = calls[0], calls[-1]
    if steps == length:  # so short that one call does all
        return first - started, 0.0
    step_s = (last - first) / (steps - length)
    return max(0.0, first - started - step_s * (length + 1)), step_s


def _sweep_seconds(config: Config, inputs: Inputs, activation: str, params: Params) -> tuple[float, float]:
    """Seconds to compile, and of one network's ranges and sweep of all sites, splits and points."""
    model, targets = models.model_of(config, activation, inputs.background), models.targets_of(config)
    sites = tuple(dict.fromkeys(itertools.chain(*targets.values())))
    # The points of single affine edits are measured; what has others is taken to cost as much a point.
    alone = [name for name in config.sweep.families if families.get(name).alone] or ["offset"]
    grids: dict[str, np.ndarray] = {name: families.get(name).grid() for name in alone}
    compile_s = each_s = 0.0

    def measured() -> dict[str, Ranges]:
        return jax.block_until_ready(
            ranges.measure(
                model,
                params,
                inputs.splits["train"],
                sites,
                measured_on=config.ranges.measured_on,
                rule=rules.rule_of(config.ranges),
            )
        )

    first_s, again_s = _timed(measured)[1], _timed(measured)[1]
    seeds = jax.tree.leaves(params)[0].shape[0]
    compile_s, each_s = first_s - again_s, again_s / seeds
    points = sum(map(len, grids.values()))
    for target in targets.values():
        for split in config.sweep.splits:
            examples = inputs.splits[split]
            wave = min(seeds, group(config.train.seeds, points * examples.y.shape[0], mesh_of(examples)))
            some, range_of = jax.tree.map(lambda leaf, n=wave: leaf[:n], (params, measured()))
            by_site = {site: families.joined(range_of[site], grids, config.sweep) for site in target}

            def swept(some: Params = some, by_site: Mapping[str, edits.Edit] = by_site, split: str = split) -> Counts:
                return jax.block_until_ready(
                    ensemble_sweep.sweep(model, some, by_site, inputs.splits[split], block=config.compute.block)
                )

            first_s, again_s = _timed(swept)[1], _timed(swept)[1]
            compile_s += first_s - again_s
            each_s += again_s / wave * _points(config) / points
    return compile_s, each_s


def _points(config: Config) -> int:
    """How many points of a target a sweep computes; the mean logits take another walk over as many."""
    draws = {name: families.draws_of(name, config.sweep.draws) for name in config.sweep.families}
    twice = {name: 2 if families.get(name).kind == "restored" else 1 for name in draws}
    return sum(len(families.get(name).grid()) * number * twice[name] for name, number in draws.items())


def _report_seconds(config: Config, inputs: Inputs, seeds: int) -> float:
    """Seconds to save and report a made-up result of the run's shape."""
    rng = np.random.default_rng(0)
    grids: dict[str, np.ndarray] = {name: families.get(name).grid() for name in config.sweep.families}
    sites, splits = list(models.targets_of(config)), config.sweep.splits
    shape = (len(config.model.activations), seeds, len(sites), len(splits))
    totals = [len(getattr(inputs.dataset, split).labels) for split in splits]

    def made_up(shape: tuple[int, ...]) -> np.ndarray:
        return rng.binomial(min(totals), 0.8, shape).astype(np.int32)

    unperturbed = made_up(shape)
    dosed = config.sweep.dose or config.sweep.matched
    outgoing = dict.fromkeys(itertools.product(config.model.activations, sites), True) if dosed else {}
    coords = {"network": list(config.model.activations), "seed": range(seeds), "site": sites, "split": list(splits)}
    groups = {}
    for name, grid in grids.items():
        dims, points = (*labels.AXES, "fraction"), (*shape, len(grid))
        counts = {"correct": made_up(points), "agree": made_up(points)}
        counts["kept"] = np.minimum(counts["correct"], unperturbed[..., None])
        doses = {variable: rng.random(points) for variable in waves.DOSES} if outgoing else {}
        swept = xr.Dataset(
            {variable: (dims, values) for variable, values in {**counts, **doses}.items()}
            | {"unperturbed": (("network", "seed", "split"), unperturbed[:, :, 0])},
            coords={**coords, "fraction": grid},
        )
        identity = families.identity(name, config.sweep, config.ranges.rule)
        groups[name] = results.family(swept, families.get(name), identity, totals, outgoing)
    curves = Metrics(*(rng.random((config.train.steps + 1, seeds), np.float32) for _ in Metrics._fields))
    groups["training"] = results.training(dict.fromkeys(config.model.activations, curves), range(seeds))
    result = results.tree(groups, results.provenance(config, inputs.dataset))
    with tempfile.TemporaryDirectory() as folder:

        def write() -> None:
            result_files.save(result, Path(folder) / result_files.FILE)
            writing.write(result, config.statistics, Path(folder))

        return _timed(write)[1]


def _flops(config: Config, inputs: Inputs) -> tuple[float, float]:
    """Useful operations in products of all networks: the training's, the sweep's."""
    sizes = (inputs.size, *config.model.hidden, inputs.dataset.classes)
    images = {split: len(getattr(inputs.dataset, split).labels) for split in ("train", "test")}
    points = _points(config)
    train_flops = sweep_flops = 0.0
    for name in config.model.activations:
        kinds = forms.get(name).layers(len(sizes) - 1)
        layers = [
            2.0 * a * b * kind.products for (kind, _), (a, b) in zip(kinds, itertools.pairwise(sizes), strict=True)
        ]
        # Forward, the weights' gradient, and the values' gradient of every layer but the first.
        train_flops += images["train"] * (3 * sum(layers) - layers[0]) + images["test"] * sum(layers)
        for split in config.sweep.splits:
            for target in models.targets_of(config).values():
                first = min(int(site.removeprefix("dense").partition("/")[0]) for site in target)
                sweep_flops += images[split] * (sum(layers) + points * sum(layers[first + 1 :]))
    return config.train.seeds * (config.train.steps + 1) * train_flops, config.train.seeds * sweep_flops


def _resident() -> int | None:
    """Bytes of this process's memory at its largest until now, None where the system does not say, as on Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def rendered(found: Plan, config: Config) -> str:
    """The plan as lines of at most 80 columns."""
    kind = jax.devices()[0].device_kind
    stages = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in found.seconds.items())
    rows = math.gcd(found.devices, config.train.seeds)
    lines = [
        f"networks   {found.networks}: {counted(config.train.seeds, 'seed')} of {', '.join(config.model.activations)}",
        f"work       {found.train_flops:.3g} FLOP to train, {found.sweep_flops:.3g} to sweep, in matrix products",
        f"split      on {counted(found.devices, f'{kind} device')}: {rows} share{'s' if rows == 1 else ''} the "
        f"networks, {found.devices // rows} the images",
        "memory     " + ("not measured on this system" if found.memory is None else _gib(found.memory)),
        f"time       {duration(found.total_s)}",
        f"           {stages}",
    ]
    options = ("dose", "matched", "grid", "units", "sensitivity")
    asked = [f"sweep.{name}" for name in options if getattr(config.sweep, name)]
    asked += ["sweep.gauges"] if config.sweep.gauges != ("as_is",) else []
    asked += ["train.snapshots"] if config.train.keeps_snapshots else []
    if asked:
        lines.append(f"           without {', '.join(asked)}")
    if found.devices != jax.device_count():
        lines.append(f"           measured on {counted(jax.device_count(), 'device')}, taken to be shared evenly")
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB resident"


def duration(seconds: float) -> str:
    """Seconds in the units that a person would use.

    >>> duration(3.21), duration(75), duration(9000)
    ('3.2 s', '1 min 15 s', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
