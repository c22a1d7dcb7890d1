"""From a config to a finished run folder, stage by stage: train, sweep, report.

The stages compute; `run` and the functions that take a folder also read and write it. A run folder holds config.toml,
result.nc, weights/, tables/ and figures/.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from jaxdist import activations, edits, files, mlp, ranges, report, results, sweep, training, weights
from jaxdist import config as configs
from jaxdist.config import Config
from jaxdist.devices import Examples
from jaxdist.errors import InputError, TrainingDivergedError
from jaxdist.inputs import Inputs, load_inputs
from jaxdist.progress import Show, silent
from jaxdist.sweep import Counts
from jaxdist.taps import Model
from jaxdist.training import Metrics
from jaxdist.types import Params, Ranges

CONFIG_FILE = "config.toml"
SWEEP_GROUPS = ("ranges", *edits.FAMILIES)

_INIT = 0
"""The purpose of the key that initial weights are drawn from."""

Tell = Callable[[int], None]


def run(config: Config | None = None, *, show: Show = silent) -> xr.DataTree:
    """Do a whole run into the folder ``config.out`` and return its result; the default config is the quickstart.

    Raises:
      InputError: for anything in the config, the data or the folder that cannot be used, and for diverged training;
        nothing is written then.
    """
    config = config or Config()
    folder = new_folder(config)
    inputs = load_inputs(config)
    networks, result = train_networks(config, inputs, show)
    save(folder, config, result, networks)
    result = sweep_networks(config, inputs, networks, result, show)
    save(folder, config, result)
    report.write(result, config.statistics, folder)
    return result


def train(config: Config, *, show: Show = silent) -> xr.DataTree:
    """Train only, into the new folder ``config.out``; the result has the group ``training``. Raises as `run` does."""
    folder = new_folder(config)
    networks, result = train_networks(config, load_inputs(config), show)
    save(folder, config, result, networks)
    return result


def sweep_folder(folder: Path, changes: Mapping[str, str] | None = None, *, show: Show = silent) -> xr.DataTree:
    """Sweep the networks of a run folder and save the result there, replacing an earlier sweep.

    `changes` overrides config fields, as on the command line: where the data is and how to sweep, nothing else.

    Raises:
      InputError: if the folder is not a run, its data is not the data it was trained on, or a change is not allowed.
    """
    folder = run_folder(folder)
    earlier = results.load(folder)
    config = _changed(earlier, changes or {}, ("data.dir", "ranges.", "sweep.", "statistics.", "compute."))
    inputs = load_inputs(config)
    if inputs.dataset.digest != earlier.attrs["data_digest"]:
        raise InputError(
            f"{folder}: was trained on other data than {inputs.dataset.source}; give the same images with --data.dir"
        )
    networks = load_networks(config, folder, inputs)
    kept = {name: child.to_dataset() for name, child in earlier.children.items() if name not in SWEEP_GROUPS}
    noted = {name: earlier.attrs[name] for name in ("timings", "products") if name in earlier.attrs}
    attrs = results.provenance(config, inputs.dataset) | noted
    result = sweep_networks(config, inputs, networks, results.tree(kept, attrs), show)
    save(folder, config, result)
    if (folder / "tables").exists():
        report.write(result, config.statistics, folder)
    return result


def report_folder(folder: Path, changes: Mapping[str, str] | None = None) -> xr.DataTree:
    """Write the tables and figures of a swept run folder; `changes` overrides fields of the statistics.

    Raises:
      InputError: if the folder is not a run or holds no sweep, or a change is not allowed.
    """
    folder = run_folder(folder)
    result = results.load(folder)
    if not set(edits.FAMILIES) & set(result.children):
        raise InputError(f"{folder}: holds no sweep yet; make one with 'jaxdist sweep {folder}'")
    config = _changed(result, changes or {}, ("statistics.",))
    if changes:
        result.attrs["config"] = configs.to_toml(config)
        save(folder, config, result)
    report.write(result, config.statistics, folder)
    return result


def _changed(result: xr.DataTree, changes: Mapping[str, str], allowed: tuple[str, ...]) -> Config:
    """A result's config with fields overridden; only those that start with one of `allowed` may be."""
    for key in changes:
        if not key.startswith(allowed):
            raise InputError(f"--{key}: cannot be changed in a finished stage; make a new run")
    return configs.override(configs.from_toml(result.attrs["config"]), changes)


def train_networks(config: Config, inputs: Inputs, show: Show) -> tuple[dict[str, Params], xr.DataTree]:
    """Train the ensemble of each activation from the same initial weights."""
    initial = initial_params(config, inputs)
    networks: dict[str, Params] = {}
    metrics: dict[str, Metrics] = {}
    started = time.perf_counter()
    for name in config.model.activations:
        activations.get(name)
    for name in config.model.activations:
        show(f"train {name}", 0, config.train.steps, "")

        def tell(now: training.Progress, job: str = f"train {name}") -> None:
            show(job, now.step, now.steps, f"loss {now.loss:.4f}, test {100 * now.test_accuracy:.2f} %")

        try:
            trained, metrics[name] = training.train(
                network_model(config, name),
                mlp.narrow(initial, inputs.used),
                inputs.splits["train"],
                inputs.splits["test"],
                steps=config.train.steps,
                optimizer=training.optimizer(config.train.optimizer, config.train.learning_rate),
                block=config.compute.block,
                report=tell,
            )
            networks[name] = mlp.widen(trained, inputs.used, initial)
        except TrainingDivergedError as error:
            raise TrainingDivergedError(f"network '{name}': {error}") from None
    attrs = results.provenance(config, inputs.dataset)
    attrs |= _noted({}, "timings", {"train_s": time.perf_counter() - started})
    attrs |= _noted({}, "products", {"train": inputs.products})
    return networks, results.tree({"training": results.training(metrics, range(config.train.seeds))}, attrs)


def sweep_networks(
    config: Config, inputs: Inputs, networks: Mapping[str, Params], earlier: xr.DataTree, show: Show
) -> xr.DataTree:
    """Measure the ranges on the training images, sweep every family and split, and add the groups to a result."""
    started = time.perf_counter()
    sites, splits, seeds = sites_of(config), config.sweep.splits, range(config.train.seeds)
    grids = {name: edits.get(name).grid() for name in config.sweep.families}
    shape = (len(networks), len(seeds), len(sites), len(splits))
    points = sum(map(len, grids.values()))
    counts = Counts(*(np.zeros(s, np.int32) for s in ((*shape, points), (*shape, points), shape)))
    measured: dict[str, dict[str, Ranges]] = {}
    for a, (name, whole) in enumerate(networks.items()):
        model, params = network_model(config, name), mlp.narrow(whole, inputs.used)
        show(f"sweep {name}", 0, len(sites) * len(splits) * len(seeds), "")
        measured[name] = ranges.measure(
            model,
            params,
            inputs.splits["train"],
            sites,
            measured_on=config.ranges.measured_on,
            block=config.compute.block,
        )
        for b, (site, split) in enumerate(itertools.product(sites, splits)):
            made = [edits.build(family, measured[name][site], grid, config.sweep) for family, grid in grids.items()]

            def tell(done: int, job: str = f"sweep {name}", before: int = b * len(seeds)) -> None:
                show(job, before + done, len(sites) * len(splits) * len(seeds), "")

            swept = sweep_in_waves(model, params, {site: edits.concatenate(made)}, inputs.splits[split], config, tell)
            for all_counts, new in zip(counts, swept, strict=True):
                all_counts[a, :, sites.index(site), splits.index(split)] = new
    groups = {str(name): child.to_dataset() for name, child in earlier.children.items()}
    groups["ranges"] = results.ranges(measured, seeds, config.ranges.measured_on)
    coords = {"network": list(networks), "seed": seeds, "site": list(sites), "split": list(splits)}
    totals = [len(getattr(inputs.dataset, split).labels) for split in splits]
    first = 0
    for family, grid in grids.items():
        here = slice(first, first := first + len(grid))
        part = Counts(counts.correct[..., here], counts.agree[..., here], counts.unperturbed)
        identity = edits.identity(family, config.sweep)
        attrs = {} if identity is None else {"identity": identity}
        groups[family] = results.family(part, grid, coords, totals, attrs)
    protocol = _attrs(earlier)
    protocol |= _noted(protocol, "timings", {"sweep_s": time.perf_counter() - started})
    protocol |= _noted(protocol, "products", {"sweep": inputs.products})
    return results.tree(groups, protocol)


def sweep_in_waves(
    model: Model, params: Params, made: Mapping[str, edits.Edit], examples: Examples, config: Config, tell: Tell
) -> Counts:
    """Sweep an ensemble some networks at a time, so that there is progress to show; all waves run one program."""
    seeds = config.train.seeds
    points = jax.tree.leaves(made)[0].shape[1]
    together = _wave(seeds, points * examples.x.shape[0])
    waves = []
    for first in range(0, seeds, together):
        some, edit = jax.tree.map(lambda leaf, first=first: leaf[first : first + together], (params, made))
        counts = sweep.sweep(model, some, edit, examples, block=config.compute.block)
        waves.append(jax.tree.map(np.asarray, counts))
        tell(first + together)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *waves)


def _wave(seeds: int, evaluations: int) -> int:
    """How many networks to sweep in one call: the most that divide the ensemble evenly and stay near a few seconds."""
    most = max(1, int((1e8 if jax.default_backend() == "cpu" else 1e10) / evaluations))
    return max(d for d in range(1, seeds + 1) if seeds % d == 0 and d <= most)


def network_model(config: Config, activation: str) -> Model:
    """The model of one of the config's networks."""
    return mlp.model(activation, len(config.model.hidden))


def sites_of(config: Config) -> tuple[str, ...]:
    """The sites that a run sweeps, each by itself: every layer's preactivation."""
    return tuple(f"dense{k}/pre" for k in range(len(config.model.hidden)))


def initial_params(config: Config, inputs: Inputs) -> Params:
    """The ensemble's weights before training, the same for every activation; all keys come from train.seed."""
    sizes = (inputs.used.size, *config.model.hidden, inputs.dataset.classes)
    init_key = jax.random.fold_in(jax.random.key(config.train.seed), _INIT)
    return mlp.init_ensemble(init_key, range(config.train.seeds), sizes, config.model.init)


def load_networks(config: Config, folder: Path, inputs: Inputs) -> dict[str, Params]:
    """Read the weights of a run folder; raises `InputError` where they are broken or do not fit the config."""
    expected = jax.eval_shape(lambda: initial_params(config, inputs))
    networks = {}
    for name in config.model.activations:
        path = _weights_path(folder, name)
        networks[name] = weights.load(path)
        weights.check(networks[name], expected, path)
    return networks


def new_folder(config: Config) -> Path:
    """The run folder, not yet made; raises `InputError` if it is in use or cannot be made."""
    folder = Path(config.out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; choose a new one with --out, or move it away")
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{folder}: cannot be made, because {parent} cannot be written to; choose another with --out")
    return folder


def run_folder(path: Path) -> Path:
    """The run folder that a user means, who may also have given its result file."""
    path = Path(path).expanduser()
    return path.parent if path.is_file() else path


def save(folder: Path, config: Config, result: xr.DataTree, networks: Mapping[str, Params] | None = None) -> None:
    """Write config and result, and the weights if given, into a run folder."""
    for name, params in (networks or {}).items():
        weights.save(params, _weights_path(folder, name))
    # The result carries the config that counts; the file beside it is for people.
    results.save(result, folder / results.FILE)
    files.write_text(folder / CONFIG_FILE, configs.to_toml(config))


def _attrs(result: xr.DataTree) -> dict[str, Any]:
    return {str(name): value for name, value in result.attrs.items()}


def _noted(attrs: Mapping[str, Any], name: str, by_stage: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON attribute with what one more stage has to note."""
    return {name: json.dumps({**json.loads(attrs.get(name, "{}")), **by_stage})}


def _weights_path(folder: Path, network: str) -> Path:
    return folder / "weights" / f"{network}.safetensors"
