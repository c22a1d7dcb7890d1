"""From a config to a finished run folder, stage by stage: train, sweep, report.

The stages compute; `run` and the functions that take a folder also read and write it. A run folder holds config.toml,
result.nc, weights/, tables/ and figures/.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from jaxdist import config as configs
from jaxdist.compute import Show, hosts, mesh_of, silent, tuning
from jaxdist.config import Config
from jaxdist.data import Inputs, load_inputs, refuse_unlike
from jaxdist.errors import InputError, MeaninglessError, TrainingDivergedError
from jaxdist.experiment import resolving
from jaxdist.networks import Metrics, Passed, mlp, models, training
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import ranges
from jaxdist.report import writing
from jaxdist.storage import Store, folders, manifests, refuse_other, result_files, transfer, unfinished, weights
from jaxdist.sweep import Context, Subject, family_sweeps, fitness, results, study
from jaxdist.types import Params


class TrainedNetworks(NamedTuple):
    """Some seeds of every network, and what is known of them: the group ``training``, perhaps the sweep's."""

    networks: dict[str, Params]  # leading S
    passed: dict[str, Passed]  # weights kept along training, if any
    result: xr.DataTree


def run(config: Config | None = None, *, show: Show = silent) -> xr.DataTree:
    """Do a whole run in the config's folder `out` and return its result; the default config is the quickstart.

    A run that was killed goes on where it was. One that is finished gets what it lacks: the sweep, or further seeds.

    Raises:
      InputError: for anything in the config, the data or the folder that cannot be used, and for diverged training;
        a new folder is not made then, and what lies in an old one stays as it is.
      MeaninglessError: where a rule or formula means nothing for the trained networks, which are kept.
    """
    config = config or Config()
    resolving.options(config)
    with folders.held(Path(config.out)) as folder:
        with tuning.using(**config.compute.together):
            result = _complete(config, folder, show, swept=True)
        _report(result, config, folder, show)
    return result


def _report(result: xr.DataTree, config: Config, folder: Path, show: Show) -> None:
    show("report", 0, 1, "tables and figures")
    writing.write(result, config.statistics, folder)
    show("report", 1, 1, "tables and figures")


def train(config: Config, *, show: Show = silent) -> xr.DataTree:
    """Train only, in the config's folder `out`; the result has the group ``training``. Goes on and raises as `run`."""
    resolving.options(config)
    with folders.held(Path(config.out)) as folder, tuning.using(**config.compute.together):
        return _complete(config, folder, show, swept=False)


def _complete(config: Config, folder: Path, show: Show, *, swept: bool) -> xr.DataTree:
    """Compute and save what a run folder lacks of a config."""
    earlier = _earlier(config, folder)
    before = 0 if earlier is None else results.config_of(earlier).train.seeds
    new = config.train.numbers[before:]
    if earlier is not None and not new and (is_swept(earlier) or not swept):
        _refuse_other_code(earlier, _own_code(config, swept=swept), folder)
        unfinished.clear(folder)  # a process killed at its very end may have left it
        return _told_by(config, earlier, folder)
    if earlier is not None and is_swept(earlier) and not swept:
        raise InputError(
            f"{folder}: is already swept; to add seeds, use 'jaxdist run', which trains and sweeps the new ones"
        )
    models.check(config)
    store = Store(folder, config)
    inputs = load_inputs(config, store.backend, seeds=len(new) or config.train.seeds)
    models.refuse_too_large(config, inputs, len(new))
    if earlier is not None:
        check_data(earlier, inputs, folder)
    if swept:
        refuse_meaningless(config, inputs)
    code = _own_code(config, swept=swept)
    _begin(store, inputs, code, earlier, folder)
    try:
        parts = [] if earlier is None else [load_trained(config, inputs, folder, earlier)]
        if new:
            parts.append(train_networks(config, inputs, show, new, store))
        trained, refused = list(parts), None
        if swept:
            # A version with other grids may have swept the earlier seeds: the new ones are swept at the same points.
            grids = {} if earlier is None else _grids(earlier)
            try:
                for k, part in enumerate(parts):
                    if not is_swept(part.result):
                        parts[k] = part._replace(result=sweep_networks(config, inputs, part, show, store, grids))
                    elif fitness.GROUP not in part.result.children:  # an older version's, before what is added
                        parts[k] = part._replace(result=_with_unedited(config, inputs, part))
            except MeaninglessError as error:
                if earlier is not None and is_swept(earlier):
                    raise
                parts, refused = trained, error  # the training is not lost with it
    except TrainingDivergedError:
        store.clear()  # it could only diverge again
        raise
    computed = code if refused is None else resolving.code_of_training(config)
    attrs = {**results.provenance(config, inputs.dataset), **_code_attr(earlier, computed)}
    result = results.joined([part.result for part in parts], attrs)
    networks, passed = (
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)
        for each in zip(*((part.networks, part.passed) for part in parts), strict=True)
    )
    folders.save(folder, config, result, networks, passed)
    store.clear()
    if refused is not None:
        raise MeaninglessError(
            f"{refused}; the trained networks are kept, so pass that to 'jaxdist sweep {folder}', then run 'jaxdist "
            f"report {folder}'"
        )
    return result


def _own_code(config: Config, *, swept: bool) -> dict[str, str]:
    return resolving.code_of_training(config) | (resolving.code_of_sweep(config) if swept else {})


def _begin(store: Store, inputs: Inputs, code: Mapping[str, str], earlier: xr.DataTree | None, folder: Path) -> None:
    """Begin work, or go on with it where its images and its code are the same, and those of an earlier result."""
    if earlier is not None:
        _refuse_other_code(earlier, code, folder)
    resolving.refuse_other_code(store.code, code, folder / unfinished.FOLDER, "delete this folder")
    store.begin(inputs.dataset.digest, inputs.products["backend"], code)


def _refuse_other_code(earlier: xr.DataTree, code: Mapping[str, str], folder: Path) -> None:
    resolving.refuse_other_code(_code_of(earlier), code, folder, "choose another folder with --out")


def _code_of(result: xr.DataTree) -> dict[str, str]:
    return dict(json.loads(result.attrs.get("code", "{}")))


def _code_attr(earlier: xr.DataTree | None, code: Mapping[str, str]) -> dict[str, str]:
    """The attribute that tells a user's own code, with what an earlier result has of its own; none without any."""
    every = {**(_code_of(earlier) if earlier is not None else {}), **code}
    return {"code": json.dumps(every)} if every else {}


def _told_by(config: Config, result: xr.DataTree, folder: Path) -> xr.DataTree:
    """A folder's finished result, which keeps the statistics of the command that is given now."""
    if results.config_of(result).statistics != config.statistics:
        result.attrs["config"] = configs.to_toml(config)
        folders.save(folder, config, result, anew=False)
    return result


def _lacks_report_alone(config: Config, result: xr.DataTree, folder: Path) -> bool:
    """Whether a result is that of a sweep's config and was saved by a process that was killed before it had reported.

    Several processes start anew: one of them could see that the report is due, and another that it is written.
    """
    return (
        not hosts.joined()
        and manifests.report_due(folder)
        and not (folder / unfinished.FOLDER).exists()  # else the sweep itself goes on
        and is_swept(result)
        and not unfinished.differences(results.config_of(result), config)
    )


def _earlier(config: Config, folder: Path) -> xr.DataTree | None:
    """What a run folder holds of a config with as many seeds or fewer, None if nothing; refuses another config."""
    if hosts.joined():  # several processes start anew: each would have to find the same
        folders.new(config)
        return None
    if not (folder / result_files.FILE).exists():
        noted = folder / folders.CONFIG_FILE
        if noted.exists():  # with weights, but no result: made again, if it is the same
            try:
                refuse_other(configs.load(noted, kept=True), config, folder)
            except InputError:
                manifests.check_whole(noted)  # what it says may not be what the run was
                raise
        return None
    earlier = result_files.load(folder)
    refuse_other(results.config_of(earlier), config, folder, more_seeds=True)
    seeds = results.seeds_of(earlier)
    if config.train.seeds > len(seeds) and "origin" in earlier.attrs:
        raise InputError(f"{folder}: holds networks that were not made from train.seed, so no seeds can be added")
    return earlier


def is_swept(result: xr.DataTree) -> bool:
    """Whether a result holds a family's sweep."""
    return bool(results.families_of(result))


def _grids(result: xr.DataTree) -> dict[str, np.ndarray]:
    """The fractions that each family of a result was swept at."""
    return {name: result[name].fraction.to_numpy() for name in results.families_of(result)}


def check_data(earlier: xr.DataTree, inputs: Inputs, folder: Path) -> None:
    if earlier.attrs["data_digest"] not in (inputs.dataset.digest, results.UNKNOWN_DATA):
        raise InputError(
            f"{folder}: was trained on different data from this ({inputs.dataset.source.removesuffix('.')}); pass the "
            "images it was trained on with --data.dir"
        )


def refuse_meaningless(config: Config, inputs: Inputs) -> None:
    """Raise `InputError` where ranges mean nothing for a network, as far as that is known before it is trained."""
    sites = tuple(dict.fromkeys(itertools.chain(*models.targets_of(config).values())))
    for name in config.model.activations:
        model = models.model_of(config, name, inputs.background)
        params = jax.eval_shape(lambda full: mlp.narrow(full, inputs.used), models.shapes(config, inputs, 1, name))
        listed = networks_model.sites_for_one(model, params, inputs.splits["train"].x, sites)
        try:
            ranges.check(model, listed, sites, config.ranges.measured_on)
            family_sweeps.check_options(model, models.targets_of(config), resolving.options(config))
        except InputError as error:
            raise InputError(f"network '{name}', {error}") from None


def load_trained(config: Config, inputs: Inputs, folder: Path, earlier: xr.DataTree) -> TrainedNetworks:
    """Read a run folder's weights.

    Args:
      config: the run's.
      inputs: its data, for D and C.
      folder: where it lies.
      earlier: its result.

    Raises:
      InputError: if they are not those of as many networks of the config's layers as the result has.
    """
    seeds = len(results.seeds_of(earlier))
    networks = folders.load_networks(config, folder, seeds)
    for name, params in networks.items():
        weights.check(params, models.shapes(config, inputs, seeds, name), folders.weights_path(folder, name))
    passed = {}
    for name, fields in (folders.load_passed(config, folder, seeds) if config.train.keeps_snapshots else {}).items():
        like = jax.eval_shape(training.nothing_passed, models.shapes(config, inputs, seeds, name))
        weights.check(fields, like._asdict(), folders.passed_path(folder, name))
        passed[name] = Passed(**fields)
    return TrainedNetworks(networks, passed, earlier)


def sweep_folder(folder: Path, changes: Mapping[str, str] | None = None, *, show: Show = silent) -> xr.DataTree:
    """Sweep the networks of a run folder and save the result there, replacing an earlier sweep.

    Where the folder had tables and figures, they are made again of the new result. A sweep that was killed goes on
    where it was, be it with these alone.

    `changes` overrides config fields, as on the command line: where the data is and how to sweep, nothing else.

    Raises:
      InputError: if the folder is not a run, its data is not the data it was trained on, or a change is not allowed.
    """
    with folders.held(folders.with_result(folder)) as folder:
        earlier = result_files.load(folder)
        config = changed(earlier, changes or {}, ("data.dir", "ranges.", "sweep.", "statistics.", "compute."))
        if _lacks_report_alone(config, earlier, folder):
            result = _told_by(config, earlier, folder)
            _report(result, config, folder, show)
            return result
        resolving.refuse_foreign(config, changes or {}, folder)
        resolving.options(config)  # names that there are not are refused before the data is read
        store = Store(folder, config)
        inputs = load_inputs(config, store.backend)
        check_data(earlier, inputs, folder)
        refuse_meaningless(config, inputs)
        part = load_trained(config, inputs, folder, earlier)
        checked = _check_imported(part, config, inputs)
        leaves = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((part.networks, part.passed)))
        refuse_unlike(leaves, mesh_of(inputs.splits["train"]), "weights")
        groups = {name: child.to_dataset() for name, child in earlier.children.items() if name == "training"}
        code = resolving.code_of_sweep(config)
        attrs = {
            **_attrs(earlier),
            **results.provenance(config, inputs.dataset),
            **checked,
            **_code_attr(earlier, code),
        }
        _begin(store, inputs, code, None, folder)
        part = part._replace(result=results.tree(groups, attrs))
        try:
            with tuning.using(**config.compute.together):
                result = sweep_networks(config, inputs, part, show, store)
        except MeaninglessError:
            store.clear()  # other options must be given
            raise
        folders.save(folder, config, result)
        store.clear()
        if hosts.writes() and manifests.report_due(folder):
            _report(result, config, folder, show)
    return result


def _check_imported(part: TrainedNetworks, config: Config, inputs: Inputs) -> dict[str, str]:
    """Refuse imported networks at chance, unless that is settled; the attribute that says how often they are right."""
    origin = json.loads(part.result.attrs.get("origin", "{}"))
    if not origin or "unedited" in origin or "allow_chance" not in origin:
        return {}
    seeds = results.seeds_of(part.result)
    right = transfer.check_unedited(part.networks, config, inputs.dataset, origin, seeds)
    return {"origin": json.dumps({**origin, "unedited": right})}


def changed(result: xr.DataTree, changes: Mapping[str, str], allowed: tuple[str, ...]) -> Config:
    """A result's config with fields overridden; only those that start with one of `allowed` may be."""
    for key in changes:
        if not key.startswith(allowed):
            raise InputError(f"--{key}: cannot be changed in an existing run; start a new one")
    return configs.override(results.config_of(result), changes)


def train_networks(config: Config, inputs: Inputs, show: Show, seeds: range, store: Store) -> TrainedNetworks:
    """Train some seeds of each activation, or go on with it.

    Args:
      config: the run's.
      inputs: its data, laid out.
      show: is called with the progress of each network.
      seeds: the numbers of the S networks to train of each activation.
      store: gives the training states that an earlier process kept, and keeps further ones.

    Raises:
      TrainingDivergedError: as soon as a loss is not finite; it names the network, the seeds and the step.
    """
    networks: dict[str, Params] = {}
    metrics: dict[str, Metrics] = {}
    passed: dict[str, Passed] = {}
    started = time.perf_counter()
    for name in config.model.activations:
        job, initial, model = (
            f"train {name}",
            models.initial(config, inputs, seeds, name),
            models.model_of(config, name, inputs.background),
        )
        optimizer = training.optimizer(config.train.optimizer, config.train.learning_rate)
        begin = training.start(
            mlp.narrow(initial, inputs.used), config.train.steps, optimizer, snapshots=config.train.keeps_snapshots
        )
        with store.training(f"{name}-{seeds.start}") as (newest, keep, due):
            begin = newest(begin)
            first = int(begin.state.step)
            show(job, min(first, config.train.steps), config.train.steps, "")
            splits = inputs.splits["train"], inputs.splits["test"]
            try:
                for now in training.advance(
                    model, begin, *splits, optimizer=optimizer, block=config.compute.block, seeds=seeds
                ):
                    if now.step >= first and (due() or (store.keeps and now.finished)):
                        snapshot = now.snapshot()
                        keep(snapshot, int(snapshot.state.step))
                    said = f"loss {now.mean.loss:.4f}, test {100 * now.mean.test_accuracy:.2f} %"
                    show(job, now.step, now.steps, said)
            except TrainingDivergedError as error:
                large = config.data.normalisation == "raw" and inputs.dataset.largest > 255
                other = (
                    f", or data.normalisation 'unit', since pixels reach {inputs.dataset.largest:g}" if large else ""
                )
                raise TrainingDivergedError(f"network '{name}': {error}{other}") from None
        trained = now.trained()
        networks[name] = mlp.widen(trained.params, inputs.used, initial)
        metrics[name] = trained.metrics
        if trained.passed is not None:
            passed[name] = widened(trained.passed, inputs.used, initial)
    attrs = results.provenance(config, inputs.dataset)
    attrs |= {"seeds": list(seeds)}
    attrs |= _noted({}, "timings", {"train_s": time.perf_counter() - started})
    attrs |= _noted({}, "products", {"train": inputs.products})
    return TrainedNetworks(networks, passed, results.tree({"training": results.training(metrics, seeds)}, attrs))


def widened(passed: Passed, used: np.ndarray, initial: Params) -> Passed:
    """Give weights kept along training back their unused inputs' initial weights; zeros stay where none were kept."""
    seen = passed.step != training.NEVER
    start = jax.tree.map(
        lambda leaf: np.where(np.expand_dims(seen, tuple(range(2, leaf.ndim + 1))), np.asarray(leaf)[:, None], 0),
        initial,
    )
    return Passed(passed.step, mlp.widen(passed.params, used, start))


def sweep_networks(
    config: Config,
    inputs: Inputs,
    part: TrainedNetworks,
    show: Show,
    store: Store,
    grids: Mapping[str, np.ndarray] | None = None,
) -> xr.DataTree:
    """Measure trained networks on every split, and those kept along training, and add the groups to their result.

    Args:
      config: the run's.
      inputs: its data, laid out.
      part: the networks, and what is known of them.
      show: is called with the progress of each job.
      store: gives the counts that an earlier process kept, and keeps further ones.
      grids: fractions [P] of families that are swept at others than their own.

    Raises:
      InputError: as `study.study` does.
    """
    started = time.perf_counter()
    seeds = results.seeds_of(part.result)

    def kept_or_computed(what: str, compute: Callable[[], tuple[Any, ...]]) -> tuple[np.ndarray, ...]:
        # A run that grows sweeps its parts one after the other: what one keeps must not stand for another.
        return store.kept_or_computed(f"from {seeds[0]} {what}", compute)

    options = resolving.options(config)
    context = Context(inputs.splits, models.targets_of(config), options, seeds, show, kept_or_computed, grids=grids)
    context = context._replace(classes=inputs.dataset.classes)
    subjects = _subjects(config, inputs, part)
    groups = {str(name): child.to_dataset() for name, child in part.result.children.items()}
    groups |= study.study(subjects, context)
    if part.passed:
        snapshots = {
            name: (subjects[name].model, passed._replace(params=mlp.narrow(passed.params, inputs.used)))
            for name, passed in part.passed.items()
        }
        groups |= study.along_training(snapshots, context)
    protocol = _attrs(part.result)
    protocol |= _noted(protocol, "timings", {"sweep_s": time.perf_counter() - started})
    protocol |= _noted(protocol, "products", {"sweep": inputs.products})
    return results.tree(groups, protocol)


def _subjects(config: Config, inputs: Inputs, part: TrainedNetworks) -> dict[str, Subject]:
    """The ensembles of a part, to be measured."""
    return {
        name: Subject(models.model_of(config, name, inputs.background), mlp.narrow(params, inputs.used))
        for name, params in part.networks.items()
    }


def _with_unedited(config: Config, inputs: Inputs, part: TrainedNetworks) -> xr.DataTree:
    """The result of a swept part, with the group that tells what its networks are fit for."""
    seeds, block = results.seeds_of(part.result), config.compute.block
    group = study.unedited_group(_subjects(config, inputs, part), inputs.splits, seeds, block)
    groups = {str(name): child.to_dataset() for name, child in part.result.children.items()}
    return results.tree({**groups, fitness.GROUP: group}, _attrs(part.result))


def _attrs(result: xr.DataTree) -> dict[str, Any]:
    return {str(name): value for name, value in result.attrs.items()}


def _noted(attrs: Mapping[str, Any], name: str, by_stage: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON attribute with what one more stage has to note."""
    return {name: json.dumps({**json.loads(attrs.get(name, "{}")), **by_stage})}
