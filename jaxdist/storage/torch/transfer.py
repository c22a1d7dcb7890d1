"""Networks from PyTorch into a run folder, and from a run folder to PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from safetensors.numpy import save as to_safetensors

from jaxdist import config as configs
from jaxdist import data, files
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.formatting import counted, listed
from jaxdist.networks import Metrics, forms
from jaxdist.storage import folders, result_files
from jaxdist.storage.torch import accuracy, checkpoints, lineage, paper, perceptrons, sources
from jaxdist.storage.torch.lineage import Source
from jaxdist.sweep import results
from jaxdist.types import Params

UNSCALED = (
    "images are read as stored (MNIST: 0..255); if the network was trained on ToTensor(), pass --data.normalisation "
    "unit; on ToTensor() and Normalize(mean, sd), pass --data.normalisation standard --data.mean MEAN --data.sd SD"
)
"""Said of networks whose files do not tell what their images went through."""


class Imported(NamedTuple):
    """Networks read from files, not yet written anywhere."""

    config: Config
    networks: dict[str, Params]  # leading S
    seeds: list[int]
    metrics: dict[str, Metrics]  # [steps + 1, S]; empty where none came with the networks
    origin: dict[str, Any]
    """Kind, path, digests of the files, config fields that are not known, notes for the user, and what was said."""
    named: bool
    """Whether the activation is known from the user alone."""


def import_run(
    path: Path | Sequence[Path],
    changes: Mapping[str, str],
    *,
    layers: str | Sequence[str] = (),
    entry: str = "",
    leave_out: str | Sequence[str] = (),
    pattern: str = "",
    as_seeds: bool = False,
    allow_chance: bool = False,
) -> xr.DataTree:
    """Turn PyTorch networks into a new run folder ``out`` that can be swept, reported and compared.

    `path` is the paper's result tree, a folder that `export_run` made, or one file: a state_dict or whole pickled
    module (``.pt``), safetensors, or dense layers of NumPy (``.npz``), Keras, flax.serialization or Orbax; several such
    files, or a folder of them, are a seed each, in their order or by name. `changes` overrides config fields: where the
    data is, how to sweep, and ``model.activations`` where the files do not tell the activation.

    Args:
      layers: the names of the layers in the order in which they are computed, where the files do not tell it; a list,
        or one string with commas.
      entry: the key under which the network lies, in files that hold several, such as weights averaged along training.
      leave_out: names of entries in the files that no output depends on; a list, or one string with commas.
      pattern: where in the folder the files lie, such as ``{activation}/run{seed}/*.pt``.
      as_seeds: the files are a training each, though they look like moments of one.
      allow_chance: networks that are right no more often than by chance are what is wanted.

    The result's attribute `origin` holds under `unedited` how often each network is right, by split, where the images
    are to be had; otherwise that is found out before the first sweep.

    Raises:
      InputError: for files that are missing, broken, hostile or not a perceptron's, layers whose order is not certain,
        files of one training or of the same weights, networks of unlike shapes or activations, an unknown activation,
        images that do not fit, networks at chance, or a folder in use; nothing is written then.
    """
    imported = read_networks(
        path,
        changes,
        layers=_names(layers),
        entry=entry,
        leave_out=_names(leave_out),
        pattern=pattern,
        as_seeds=as_seeds,
    )
    imported.origin["allow_chance"] = allow_chance
    if data.available(imported.config.data):
        dataset = data.load(imported.config.data)
        imported.origin["notes"] = [*imported.origin["notes"], *(f"data: {note}" for note in dataset.notes)]
        imported.origin["unedited"] = check_unedited(
            imported.networks, imported.config, dataset, imported.origin, imported.seeds
        )
        if imported.origin["unknown"] and not imported.origin["models"]:
            more = accuracy.advice(imported.networks, imported.config, dataset, activation=imported.named)
            imported.origin["notes"] = [*imported.origin["notes"], *more]
    folder = folders.new(imported.config)
    attrs = {
        **results.provenance(imported.config, None),
        "origin": json.dumps(imported.origin),
        "seeds": imported.seeds,
        "timings": "{}",
    }
    groups = {}
    if imported.metrics:
        groups["training"] = results.training(imported.metrics, imported.seeds)
        groups["training"].attrs["made"] = json.dumps({"by": "imported", "from": imported.origin["path"]})
    result = results.tree(groups, attrs)
    with folders.held(folder):
        folders.save(folder, imported.config, result, imported.networks)
    return result


def _names(given: str | Sequence[str]) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else list(given)


def check_unedited(
    networks: Mapping[str, Params],
    config: Config,
    dataset: data.Dataset,
    origin: Mapping[str, Any],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """How often imported networks are right: by network and split, counts [S]; and the images a split.

    Args:
      networks: stacked parameters by activation.
      config: how the images are scaled.
      dataset: the images.
      origin: as `Imported` has it, with `allow_chance` where that was said.
      seeds: their numbers [S].

    Raises:
      InputError: if they do not fit the images or, unless that was allowed, are right no more often than by chance.
    """
    measured = accuracy.measure(networks, config, dataset)
    # A run that came with its config is as it was trained, whatever it learned.
    if not origin.get("allow_chance") and (origin["kind"] != "exported" or origin["unknown"]):
        accuracy.refuse_chance(
            measured, networks, config, dataset, where=origin["path"], seeds=seeds, files=list(origin["sha256"])
        )
    return {
        "total": dict(next(iter(measured.values())).total),
        "correct": {name: dict(each.correct) for name, each in measured.items()},
        "words": [accuracy.words(name, each) for name, each in measured.items()],
    }


def read_networks(
    path: Path | Sequence[Path],
    changes: Mapping[str, str],
    *,
    layers: Sequence[str] = (),
    entry: str = "",
    leave_out: Sequence[str] = (),
    pattern: str = "",
    as_seeds: bool = False,
) -> Imported:
    """Read networks and their protocol; writes nothing.

    Args:
      path, changes, entry, leave_out, pattern, as_seeds: as in `import_run`.
      layers: the names of the layers in the order in which they are computed, where the files do not tell it.

    Raises:
      InputError: as `import_run` does, but for the images.
    """
    paths = [files.expanded(each) for each in ([path] if isinstance(path, str | Path) else path)]
    given = changes.get("model.activations", "")
    named = tuple(name.strip() for name in given.split(",")) if given else ()
    if not all(named):
        raise InputError(f"--model.activations: expected names with a comma between two, got {given!r}")
    layout = sources.locate(paths, pattern)
    by_network, base = layout.by_network, layout.config
    if named and "" not in by_network:
        by_network = _chosen(by_network, named)
    if not by_network:
        raise InputError(
            f"{layout.where}: holds no networks{' of ' + ', '.join(named) if named else ''}; expected the paper's "
            "tree (models/PerturbationReLU/0/PerturbationReLU.pt), an exported run (relu/0.pt), or one file per seed "
            "(a.pt)"
        )
    seeds = _common_seeds(by_network, layout.where)
    stacked: dict[str, Params] = {}
    notes: list[str] = []
    for name, by_seed in by_network.items():
        read_from = _read_sources(by_seed, layout.base, entry, leave_out)
        if not as_seeds:
            lineage.check_places(read_from, layout.where)
        network, params = _network(name, read_from, named, layers)
        lineage.check_weights(read_from, params, layout.where, as_seeds=as_seeds)
        stacked[network] = params
        notes += [note for note in map(_without_bias, read_from) if note]
        notes += _notes(read_from)
    shapes = {name: _shapes(params) for name, params in stacked.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(stacked.values()))) < 2:
        raise InputError(
            f"{layout.where}: expected networks of one shape, with at least one hidden layer, got {shapes}"
        )
    metrics, absent = _metrics(by_network, base.train.steps) if layout.models else ({}, [])
    notes += absent
    if layout.left_out:
        why = "their places are not as the pattern says" if pattern else "they hold no network"
        files_left = [file.relative_to(layout.base).as_posix() for file in layout.left_out]
        notes.append(f"not read, since {why}: {', '.join(files_left)}")
    if layout.unknown and not layout.models and "data.normalisation" not in changes:
        notes = [*notes, UNSCALED]
    hidden = perceptrons.hidden_of(next(iter(stacked.values())))
    count = len(next(iter(stacked.values()))["dense0"]["weight"])
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, activations=tuple(stacked), hidden=hidden),
        train=dataclasses.replace(base.train, seeds=count, snapshots=False),
    )
    config = configs.override(config, {key: value for key, value in changes.items() if key != "model.activations"})
    digests = {
        str(file.absolute().relative_to(layout.base.absolute())): _digest(file)
        for by_seed in by_network.values()
        for file in by_seed.values()
    }
    origin = {
        "files": _files_read(layout, stacked, by_network),
        "kind": layout.kind,
        "path": str(paths[0].absolute() if len(paths) == 1 else layout.base),
        "models": str(layout.models.absolute()) if layout.models else None,
        "sha256": digests,
        "unknown": layout.unknown,
        "notes": notes,
        "layers": list(layers),
    }
    numbers = seeds if len(seeds) == count else list(range(count))
    return Imported(config, stacked, numbers, metrics, origin, bool(named) and "" in by_network)


def export_run(run: Path, out: Path) -> list[Path]:
    """Write every network of a run as a state_dict and as safetensors: ``out/<network>/<seed>.pt``, ``.safetensors``.

    A state_dict has the names of ``torch.nn.Sequential(Linear(D, H), activation, Linear(H, C))``; what else a form
    computes is not in it, and learned activations and distances have no place there. The run's config is
    written beside them, so that importing the folder gives its networks back, weights equal bit for bit.

    Raises:
      InputError: if the run is not one, its weights are not those of its seeds or of linear layers, the folder is in
        use, or PyTorch is not installed; nothing is written then.
    """
    run = folders.of(run)
    result = result_files.load(run)
    config = results.config_of(result)
    for network in config.model.activations:
        perceptrons.refuse_other_layers(network, str(run))
    networks, seeds = folders.load_networks(config, run), results.seeds_of(result)
    for network, params in networks.items():
        if any(len(leaf) != len(seeds) for layer in params.values() for leaf in layer.values()):
            raise InputError(
                f"{folders.weights_path(run, network)}: expected the weights of {counted(len(seeds), 'seed')}"
            )
    torch = checkpoints.require_torch("exporting to PyTorch")
    out = folders.new(dataclasses.replace(config, out=str(out)))
    with files.folder_aside(out) as folder:
        for network, params in networks.items():
            (folder / network).mkdir()
            for s, seed in enumerate(seeds):
                of_seed = {layer: {kind: leaf[s] for kind, leaf in leaves.items()} for layer, leaves in params.items()}
                tensors = perceptrons.to_tensors(of_seed)
                stem = folder / network / str(seed)
                torch.save({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}, f"{stem}.pt")
                Path(f"{stem}.safetensors").write_bytes(to_safetensors(tensors))
        files.write_text(folder / folders.CONFIG_FILE, configs.to_toml(config))
    return sorted(path for path in out.rglob("*") if path.suffix in sources.SUFFIXES)


def _common_seeds(by_network: Mapping[str, Mapping[int, Path]], where: str) -> list[int]:
    """The numbers of the seeds, which every network must have: a run holds the same seeds of each."""
    numbers = {name: list(by_seed) for name, by_seed in by_network.items()}
    first = next(iter(numbers.values()))
    if any(each != first for each in numbers.values()):
        said = "; ".join(f"{name} {', '.join(map(str, each))}" for name, each in numbers.items())
        raise InputError(
            f"{where}: its networks have different runs ({said}); import one at a time with --model.activations NAME"
        )
    return first


def _chosen(by_network: Mapping[str, Mapping[int, Path]], named: tuple[str, ...]) -> dict[str, Mapping[int, Path]]:
    """The networks of the activations that the user names, of those that places tell."""
    for name in named:
        forms.get(name)  # refuses what is none
    chosen = {name: by_network[name] for name in named if name in by_network}
    if not chosen and len(by_network) == 1:
        ((name, by_seed),) = by_network.items()
        raise InputError(
            f"{next(iter(by_seed.values()))}: its name or folder says '{name}', not '{', '.join(named)}'; expected "
            f"the activation that it was trained with; rename it, or pass --model.activations {name} if that is the "
            "one"
        )
    return chosen


def _files_read(
    layout: sources.Located, stacked: Mapping[str, Params], by_network: Mapping[str, Mapping[int, Path]]
) -> dict[str, dict[str, str]]:
    """Which file each network's seed is from."""
    return {
        name: {
            str(seed): file.absolute().relative_to(layout.base.absolute()).as_posix() for seed, file in by_seed.items()
        }
        for name, by_seed in zip(stacked, by_network.values(), strict=True)
    }


def _digest(path: Path) -> str:
    """The SHA-256 of a file, or of the names and digests of a folder's files."""
    if path.is_dir():
        inner = sorted(file for file in path.rglob("*") if file.is_file())
        said = "\n".join(f"{file.relative_to(path).as_posix()} {_digest(file)}" for file in inner)
        return hashlib.sha256(said.encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _notes(read_from: Sequence[Source]) -> list[str]:
    """What reading the files of one network's seeds has to say, the same of several files once."""
    places: dict[str, list[str]] = {}
    for _, place, network in read_from:
        for note in network.notes:
            places.setdefault(note, []).append(place.as_posix())
    return [
        f"{'each file' if len(where) == len(read_from) > 1 else listed(where)}: {note}"
        for note, where in places.items()
    ]


def _read_sources(by_seed: Mapping[int, Path], base: Path, entry: str, leave_out: Sequence[str]) -> list[Source]:
    """The files of one network's seeds, and what they hold."""
    read_from = []
    for file in by_seed.values():
        place = file.absolute().relative_to(base.absolute())
        read_from.append(Source(file, place, checkpoints.read(file, entry=entry, left_out=leave_out)))
    return read_from


def _network(
    name: str, read_from: Sequence[Source], named: tuple[str, ...], layers: Sequence[str]
) -> tuple[str, Params]:
    """One network's activation and its parameters, stacked over the seeds."""
    parts: list[Params] = []
    told: dict[str, Path] = {}
    for file, _, checkpoint in read_from:
        network = _activation(name, checkpoint.activation, named, file)
        told.setdefault(network, file)
        if len(told) > 1:
            (first, where), *_ = told.items()
            raise InputError(
                f"{file}: is a network '{network}', but {where} is a network '{first}'; import one activation at a time"
            )
        tensors, certain = checkpoint.tensors, checkpoint.certain
        parts.append(perceptrons.network_of(tensors, network, str(file), layers=layers, certain=certain))
    return network, _stacked(parts, [source.path for source in read_from])


def _without_bias(source: Source) -> str | None:
    """A note on layers of a file that have no bias, where others have one."""
    unbiased = perceptrons.without_bias(source.checkpoint.tensors)
    if not unbiased:
        return None
    verb = "has no bias, which is" if len(unbiased) == 1 else "have no biases, which are"
    return f"{', '.join(unbiased)} of {source.place} {verb} read as biases of 0"


def _activation(name: str, told: str | None, named: tuple[str, ...], file: Path) -> str:
    """The one activation of a network, from its place, its modules or the user; they must not contradict."""
    said = {each for each in (name, told, *(named if not name else ())) if each}
    if not said:
        raise InputError(
            f"{file}: does not say for certain which activation it has; name the one that it was trained with, using "
            f"--model.activations, one of {', '.join(perceptrons.names())}; networks with any other cannot be imported"
        )
    if len(said) > 1:
        raise InputError(f"{file}: its activation is both {' and '.join(sorted(said))}; expected one for all layers")
    return forms.get(said.pop()).name


def _shapes(params: Params) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(layer["weight"].shape) for layer in params.values())


def _stacked(parts: list[Params], paths: list[Path]) -> Params:
    for part, path in zip(parts, paths, strict=True):
        if _shapes(part) != _shapes(parts[0]):
            raise InputError(f"{path}: has weights {_shapes(part)}, expected {_shapes(parts[0])} as in {paths[0]}")
    already = parts[0]["dense0"]["weight"].ndim == 3
    if already and len(parts) > 1:
        raise InputError(f"{paths[0]}: holds several networks already; import it as one file")
    return parts[0] if already else perceptrons.stack(parts)


def _metrics(by_network: Mapping[str, Mapping[int, Path]], steps: int) -> tuple[dict[str, Metrics], list[str]]:
    """The metrics beside the paper's checkpoints, [steps + 1, S], or none and a note if any run lacks them."""
    sources = {
        name: [file.parent / "metrics.json" for file in by_seed.values()] for name, by_seed in by_network.items()
    }
    absent = [source for each in sources.values() for source in each if not source.is_file()]
    if absent:
        return {}, [f"without training curves, since {absent[0]} is missing"]
    runs = {name: [paper.metrics(source) for source in each] for name, each in sources.items()}
    for name, each in runs.items():
        for run, source in zip(each, sources[name], strict=True):
            if len(run.loss) != steps + 1:
                raise InputError(
                    f"{source}: expected {counted(steps + 1, 'entry', 'entries')}, one per step and one before the "
                    f"first, got {len(run.loss)}"
                )
    return {name: Metrics(*(np.stack(e, axis=-1) for e in zip(*each, strict=True))) for name, each in runs.items()}, []
