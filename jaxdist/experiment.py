"""From a config to a finished run folder, stage by stage: train, sweep, report.

The stages compute; `run` and the functions that take a folder also read and write it. A run folder holds config.toml,
result.nc, weights/, tables/ and figures/.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from jaxdist import config as configs
from jaxdist import edits, folders, forms, hosts, mlp, ranges, report, results, sweep, training, weights
from jaxdist.config import Config
from jaxdist.devices import SEED, Examples, mesh_of
from jaxdist.errors import InputError, TrainingDivergedError
from jaxdist.inputs import Inputs, load_inputs, refuse_unlike
from jaxdist.progress import Show, silent
from jaxdist.sweep import Counts
from jaxdist.taps import Model
from jaxdist.training import Metrics, Snapshot
from jaxdist.types import Params, Ranges
from jaxdist.unfinished import Store, refuse_other

SWEEP_GROUPS = ("ranges", *edits.FAMILIES)

_INIT = 0
"""The purpose of the key that initial weights are drawn from."""

Tell = Callable[[int], None]


class Part(NamedTuple):
    """Some seeds of every network, and what is known of them: the group ``training``, perhaps the sweep's."""

    networks: dict[str, Params]  # leading S
    result: xr.DataTree


def run(config: Config | None = None, *, show: Show = silent) -> xr.DataTree:
    """Do a whole run in the folder ``config.out`` and return its result; the default config is the quickstart.

    A run that was killed goes on where it was. One that is finished gets what it lacks: the sweep, or further seeds.

    Raises:
      InputError: for anything in the config, the data or the folder that cannot be used, and for diverged training;
        a new folder is not made then, and what lies in an old one stays as it is.
    """
    config = config or Config()
    with folders.held(Path(config.out)) as folder:
        result = _complete(config, folder, show, swept=True)
        report.write(result, config.statistics, folder)
    return result


def train(config: Config, *, show: Show = silent) -> xr.DataTree:
    """Train only, in the folder ``config.out``; the result has the group ``training``. Goes on and raises as `run`."""
    with folders.held(Path(config.out)) as folder:
        return _complete(config, folder, show, swept=False)


def _complete(config: Config, folder: Path, show: Show, *, swept: bool) -> xr.DataTree:
    """Compute and save what a run folder lacks of a config."""
    earlier = _earlier(config, folder)
    before = 0 if earlier is None else results.config_of(earlier).train.seeds
    new = range(before, config.train.seeds)
    if earlier is not None and not new and (_is_swept(earlier) or not swept):
        Store(folder, config).clear()  # a process killed at its very end may have left it
        if results.config_of(earlier).statistics != config.statistics:
            earlier.attrs["config"] = configs.to_toml(config)
            folders.save(folder, config, earlier)
        return earlier
    if earlier is not None and _is_swept(earlier) and not swept:
        raise InputError(f"{folder}: is swept already; to extend it, 'jaxdist run' trains and sweeps the new seeds")
    for name in config.model.activations:
        forms.get(name)
    store = Store(folder, config)
    inputs = load_inputs(config, store.backend, seeds=len(new) or config.train.seeds)
    if earlier is not None:
        _check_data(earlier, inputs, folder)
    store.begin(inputs.dataset.digest, inputs.products["backend"])
    try:
        parts = [] if earlier is None else [Part(_load_networks(config, inputs, folder, before), earlier)]
        if new:
            parts.append(Part(*train_networks(config, inputs, show, new, store)))
        if swept:
            for k, part in enumerate(parts):
                if not _is_swept(part.result):
                    parts[k] = part._replace(result=sweep_networks(config, inputs, *part, show, store))
    except TrainingDivergedError:
        store.clear()  # it could only diverge again
        raise
    result = results.joined([part.result for part in parts], results.provenance(config, inputs.dataset))
    networks = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part.networks for part in parts))
    folders.save(folder, config, result, networks)
    store.clear()
    return result


def _earlier(config: Config, folder: Path) -> xr.DataTree | None:
    """What a run folder holds of a config with as many seeds or fewer, None if nothing; refuses another config."""
    if hosts.joined():
        folders.new(config)  # several processes start anew: each would have to find the same
    if hosts.joined():
        return None
    if not (folder / results.FILE).exists():
        noted = folder / folders.CONFIG_FILE
        if noted.exists():  # with weights, but no result: made again, if it is the same
            refuse_other(configs.load(noted), config, folder)
        return None
    earlier = results.load(folder)
    refuse_other(results.config_of(earlier), config, folder, more_seeds=True)
    seeds = results.seeds_of(earlier)
    if config.train.seeds > len(seeds) and "origin" in earlier.attrs:
        raise InputError(f"{folder}: holds networks that were not made from train.seed; it cannot be extended")
    return earlier


def _is_swept(result: xr.DataTree) -> bool:
    return bool(set(edits.FAMILIES) & set(result.children))


def _check_data(earlier: xr.DataTree, inputs: Inputs, folder: Path) -> None:
    if earlier.attrs["data_digest"] not in (inputs.dataset.digest, results.UNKNOWN_DATA):
        raise InputError(
            f"{folder}: was trained on other data than {inputs.dataset.source}; give the same images with --data.dir"
        )


def _load_networks(config: Config, inputs: Inputs, folder: Path, seeds: int) -> dict[str, Params]:
    """Read a run folder's weights, which must be those of so many networks of the config's layers."""
    networks = folders.load_networks(config, folder, seeds)
    for name, params in networks.items():
        expected = jax.eval_shape(lambda name=name: initial_params(config, inputs, range(seeds), name))
        weights.check(params, expected, folders.weights_path(folder, name))
    return networks


def sweep_folder(folder: Path, changes: Mapping[str, str] | None = None, *, show: Show = silent) -> xr.DataTree:
    """Sweep the networks of a run folder and save the result there, replacing an earlier sweep.

    `changes` overrides config fields, as on the command line: where the data is and how to sweep, nothing else.

    Raises:
      InputError: if the folder is not a run, its data is not the data it was trained on, or a change is not allowed.
    """
    with folders.held(folders.with_result(folder)) as folder:
        earlier = results.load(folder)
        config = _changed(earlier, changes or {}, ("data.dir", "ranges.", "sweep.", "statistics.", "compute."))
        store = Store(folder, config)
        inputs = load_inputs(config, store.backend)
        _check_data(earlier, inputs, folder)
        networks = _load_networks(config, inputs, folder, config.train.seeds)
        leaves = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(networks))
        refuse_unlike(leaves, mesh_of(inputs.splits["train"]), "weights")
        kept = {name: child.to_dataset() for name, child in earlier.children.items() if name not in SWEEP_GROUPS}
        attrs = {**_attrs(earlier), **results.provenance(config, inputs.dataset)}
        store.begin(inputs.dataset.digest, inputs.products["backend"])
        result = sweep_networks(config, inputs, networks, results.tree(kept, attrs), show, store)
        folders.save(folder, config, result)
        store.clear()
        if (folder / "tables").exists():
            report.write(result, config.statistics, folder)
    return result


def report_folder(folder: Path, changes: Mapping[str, str] | None = None) -> xr.DataTree:
    """Write the tables and figures of a swept run folder; `changes` overrides fields of the statistics.

    Raises:
      InputError: if the folder is not a run or holds no sweep, or a change is not allowed.
    """
    with folders.held(folders.with_result(folder)) as folder:
        result = results.load(folder)
        if not _is_swept(result):
            raise InputError(f"{folder}: holds no sweep yet; make one with 'jaxdist sweep {folder}'")
        config = _changed(result, changes or {}, ("statistics.",))
        if changes:
            result.attrs["config"] = configs.to_toml(config)
            folders.save(folder, config, result)
        report.write(result, config.statistics, folder)
    return result


def _changed(result: xr.DataTree, changes: Mapping[str, str], allowed: tuple[str, ...]) -> Config:
    """A result's config with fields overridden; only those that start with one of `allowed` may be."""
    for key in changes:
        if not key.startswith(allowed):
            raise InputError(f"--{key}: cannot be changed in a finished stage; make a new run")
    return configs.override(results.config_of(result), changes)


def train_networks(
    config: Config, inputs: Inputs, show: Show, seeds: range, store: Store
) -> tuple[dict[str, Params], xr.DataTree]:
    """Train some seeds of each activation, from the same initial weights, or go on with it."""
    networks: dict[str, Params] = {}
    metrics: dict[str, Metrics] = {}
    started = time.perf_counter()
    for name in config.model.activations:
        job, initial = f"train {name}", initial_params(config, inputs, seeds, name)

        def tell(now: training.Progress, job: str = job) -> None:
            show(job, now.step, now.steps, f"loss {now.loss:.4f}, test {100 * now.test_accuracy:.2f} %")

        with store.training(f"{name}-{seeds.start}") as (newest, keep):

            def resume(start: Snapshot, job: str = job, newest: Callable[[Snapshot], Snapshot] = newest) -> Snapshot:
                found = newest(start)
                show(job, min(int(found.state.step), config.train.steps), config.train.steps, "")
                return found

            def kept(now: Snapshot, keep: Callable[[Snapshot, int, bool], None] = keep) -> None:
                keep(now, int(now.state.step), now.finished)

            try:
                trained, metrics[name] = training.train(
                    network_model(config, name),
                    mlp.narrow(initial, inputs.used),
                    inputs.splits["train"],
                    inputs.splits["test"],
                    steps=config.train.steps,
                    optimizer=training.optimizer(config.train.optimizer, config.train.learning_rate),
                    block=config.compute.block,
                    seeds=seeds,
                    report=tell,
                    resume=resume,
                    keep=kept if store.keeps else None,
                )
            except TrainingDivergedError as error:
                raise TrainingDivergedError(f"network '{name}': {error}") from None
        networks[name] = mlp.widen(trained, inputs.used, initial)
    attrs = results.provenance(config, inputs.dataset)
    attrs |= {"seeds": list(seeds)}
    attrs |= _noted({}, "timings", {"train_s": time.perf_counter() - started})
    attrs |= _noted({}, "products", {"train": inputs.products})
    return networks, results.tree({"training": results.training(metrics, seeds)}, attrs)


def sweep_networks(
    config: Config, inputs: Inputs, networks: Mapping[str, Params], earlier: xr.DataTree, show: Show, store: Store
) -> xr.DataTree:
    """Measure the ranges on the training images, sweep every family and split, and add the groups to a result."""
    started = time.perf_counter()
    sites, splits, seeds = sites_of(config), config.sweep.splits, results.seeds_of(earlier)
    grids: dict[str, np.ndarray] = {name: edits.get(name).grid() for name in config.sweep.families}
    scales = grids["scale"] if config.sweep.scale_shortcut and "scale" in grids else None
    if scales is not None:  # its points come first
        grids = {"scale": scales} | grids
    shape = (len(networks), len(seeds), len(sites), len(splits))
    points = sum(map(len, grids.values()))
    counts = Counts(*(np.zeros(s, np.int32) for s in (*[(*shape, points)] * 3, shape)))
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
            # The shortcut's points are no edits: its family gives none.
            built = {family: grid[:0] if grid is scales else grid for family, grid in grids.items()}
            made = {site: edits.joined(measured[name][site], built, config.sweep)}

            def tell(done: int, job: str = f"sweep {name}", before: int = b * len(seeds)) -> None:
                show(job, before + done, len(sites) * len(splits) * len(seeds), "")

            def once(
                these: slice, wave: Callable[[], Counts], label: str = f"{name}-{site.replace('/', '-')}-{split}"
            ) -> Counts:
                # By its seeds, since another number of devices may take other waves.
                return Counts(*store.once("-".join([label, *map(str, seeds[these])]), wave))

            swept = sweep_in_waves(model, params, made, inputs.splits[split], config, tell, scales, once)
            for all_counts, new in zip(counts, swept, strict=True):
                all_counts[a, :, sites.index(site), splits.index(split)] = new
    groups = {str(name): child.to_dataset() for name, child in earlier.children.items()}
    groups["ranges"] = results.ranges(measured, seeds, config.ranges.measured_on)
    groups |= results.families(
        counts,
        grids,
        {family: edits.identity(family, config.sweep) for family in grids},
        {"network": list(networks), "seed": seeds, "site": list(sites), "split": list(splits)},
        [len(getattr(inputs.dataset, split).labels) for split in splits],
    )
    protocol = _attrs(earlier)
    protocol |= _noted(protocol, "timings", {"sweep_s": time.perf_counter() - started})
    protocol |= _noted(protocol, "products", {"sweep": inputs.products})
    return results.tree(groups, protocol)


def sweep_in_waves(
    model: Model,
    params: Params,
    made: Mapping[str, edits.Edit],
    examples: Examples,
    config: Config,
    tell: Tell,
    scales: np.ndarray | None,
    once: Callable[[slice, Callable[[], Counts]], Counts],
) -> Counts:
    """Sweep an ensemble some networks at a time, so that there is progress to show; all waves run one program.

    `once` is given each wave's networks and what sweeps them, and returns its counts, perhaps from an earlier time.
    """
    seeds = jax.tree.leaves(params)[0].shape[0]
    points = jax.tree.leaves(made)[0].shape[1]
    together = wave_size(seeds, points * examples.y.shape[0], mesh_of(examples).shape[SEED])
    waves = []
    for first in range(0, seeds, together):

        def wave(first: int = first) -> Counts:
            some, edit = jax.tree.map(lambda leaf: leaf[first : first + together], (params, made))
            return sweep.sweep(model, some, edit, examples, scale_shortcut=scales, block=config.compute.block)

        waves.append(once(slice(first, first + together), wave))
        tell(first + together)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *waves)


def wave_size(seeds: int, evaluations: int, rows: int) -> int:
    """How many networks to sweep in one call: the most that divide the ensemble evenly and stay near a few seconds.

    A multiple of the mesh's rows where they divide the ensemble.
    """
    rows = math.gcd(seeds, rows)
    most = max(rows, int((1e8 if jax.default_backend() == "cpu" else 1e10) / evaluations))
    return max(d for d in range(rows, seeds + 1, rows) if seeds % d == 0 and d <= most)


def network_model(config: Config, activation: str) -> Model:
    """The model of one of the config's networks."""
    return mlp.model(activation, len(config.model.hidden))


def sites_of(config: Config) -> tuple[str, ...]:
    """The sites that a run sweeps, each by itself: every layer's preactivation."""
    return tuple(f"dense{k}/pre" for k in range(len(config.model.hidden)))


def initial_params(config: Config, inputs: Inputs, seeds: Sequence[int], network: str) -> Params:
    """The weights of some seeds before training, the same for every network; all keys come from train.seed."""
    sizes = (inputs.used.size, *config.model.hidden, inputs.dataset.classes)
    init_key = jax.random.fold_in(jax.random.key(config.train.seed), _INIT)
    return mlp.init_ensemble(init_key, seeds, sizes, config.model.init, network)


def _attrs(result: xr.DataTree) -> dict[str, Any]:
    return {str(name): value for name, value in result.attrs.items()}


def _noted(attrs: Mapping[str, Any], name: str, by_stage: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON attribute with what one more stage has to note."""
    return {name: json.dumps({**json.loads(attrs.get(name, "{}")), **by_stage})}
