"""Networks from PyTorch into a run folder, and from a run folder to PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from safetensors.numpy import save as to_safetensors

from jaxdist import config as configs
from jaxdist import files, folders, forms, results
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.interop import checkpoints, paper, perceptrons
from jaxdist.training import Metrics
from jaxdist.types import Params

SUFFIXES = (".safetensors", *checkpoints.TORCH_SUFFIXES)

HISTORY = ("model.init", "train.steps", "train.optimizer", "train.learning_rate")
"""Config fields that files of weights alone say nothing of."""


class Imported(NamedTuple):
    """Networks read from files, not yet written anywhere."""

    config: Config
    networks: dict[str, Params]  # leading S
    seeds: list[int]
    metrics: dict[str, Metrics]  # [steps + 1, S]; empty where none came with the networks
    origin: dict[str, Any]
    """Kind, path, digests of the files, config fields that are not known, and notes for the user."""


def import_run(path: Path, changes: Mapping[str, str]) -> xr.DataTree:
    """Turn PyTorch networks into a new run folder ``out`` that can be swept, reported and compared.

    `path` is the paper's result tree, a folder that `export_run` made, or one state_dict (``.pt``), whole pickled
    module of known classes, or safetensors file. `changes` overrides config fields: where the data is, how to sweep,
    and ``model.activations`` where the file does not tell the activation.

    Raises:
      InputError: for files that are missing, broken, hostile or not a perceptron's, networks of unlike shapes, an
        unknown activation, or a folder in use; nothing is written then.
    """
    found = read(Path(path).expanduser(), changes)
    folder = folders.new(found.config)
    attrs = {
        **results.provenance(found.config, None),
        "origin": json.dumps(found.origin),
        "seeds": found.seeds,
        "timings": "{}",
    }
    groups = {}
    if found.metrics:
        groups["training"] = results.training(found.metrics, found.seeds)
        groups["training"].attrs["made"] = json.dumps({"by": "imported", "from": found.origin["path"]})
    result = results.tree(groups, attrs)
    folders.save(folder, found.config, result, found.networks)
    return result


def read(path: Path, changes: Mapping[str, str]) -> Imported:
    """Read networks and their protocol; writes nothing. Raises as `import_run` does."""
    named = tuple(name for name in changes.get("model.activations", "").split(",") if name)
    found = _locate(path)
    by_network, base = found.by_network, found.config
    if path.is_dir() and named:
        by_network = {name: by_network[name] for name in named if name in by_network}
    if not by_network:
        raise InputError(
            f"{path}: holds no networks{' of ' + ', '.join(named) if named else ''}; expected the paper's tree "
            "(models/PerturbationReLU/0/PerturbationReLU.pt), an exported run (relu/0.pt), or give one file"
        )
    stacked: dict[str, Params] = {}
    seeds = _common_seeds(by_network, path)
    for name, by_seed in by_network.items():
        parts = []
        for file in by_seed.values():
            tensors, told = checkpoints.read(file)
            network = _activation(name, told, named, file)
            parts.append(perceptrons.network_of(tensors, network, str(file)))
        stacked[network] = _stacked(parts, list(by_seed.values()))
    shapes = {name: _shapes(params) for name, params in stacked.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(stacked.values()))) < 2:
        raise InputError(f"{path}: expected networks of one shape, with a hidden layer at least, got {shapes}")
    metrics, notes = _metrics(by_network, base.train.steps) if found.models else ({}, [])
    hidden = perceptrons.hidden_of(next(iter(stacked.values())))
    count = len(next(iter(stacked.values()))["dense0"]["weight"])
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, activations=tuple(stacked), hidden=hidden),
        train=dataclasses.replace(base.train, seeds=count, snapshots=False),
    )
    config = configs.override(config, {key: value for key, value in changes.items() if key != "model.activations"})
    digests = {
        str(file.relative_to(path) if path.is_dir() else file.name): hashlib.sha256(file.read_bytes()).hexdigest()
        for by_seed in by_network.values()
        for file in by_seed.values()
    }
    origin = {
        "kind": found.kind,
        "path": str(path.absolute()),
        "models": str(found.models.absolute()) if found.models else None,
        "sha256": digests,
        "unknown": found.unknown,
        "notes": notes,
    }
    return Imported(config, stacked, seeds if len(seeds) == count else list(range(count)), metrics, origin)


class _Located(NamedTuple):
    """Where networks lie, and what is known of how they came to be."""

    kind: str
    by_network: Mapping[str, Mapping[int, Path]]  # files by activation, "" where the place does not say it, and seed
    config: Config
    unknown: tuple[str, ...] = ()  # config fields
    models: Path | None = None  # the paper's tree


def _locate(path: Path) -> _Located:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a PyTorch or safetensors file, or a folder of them")
    if not path.is_dir():
        return _Located("file", {"": {0: path}}, Config(), HISTORY)
    models = paper.tree_root(path)
    if models:
        config, unknown = paper.protocol(models)
        return _Located("paper-tree", paper.checkpoints_of(models), config, unknown, models)
    file = path / folders.CONFIG_FILE
    if not file.is_file():
        return _Located("exported", _exported(path, ()), Config(), HISTORY)
    # The exported config remembers the order of the networks.
    config = configs.load(file)
    return _Located("exported", _exported(path, config.model.activations), config)


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
    result = results.load(run)
    config = results.config_of(result)
    for network in config.model.activations:
        perceptrons.refuse_other_layers(network, str(run))
    torch = checkpoints.require_torch("exporting to PyTorch")
    out = folders.new(dataclasses.replace(config, out=str(out)))
    networks, seeds = folders.load_networks(config, run), results.seeds_of(result)
    for network, params in networks.items():
        if any(len(leaf) != len(seeds) for layer in params.values() for leaf in layer.values()):
            raise InputError(f"{folders.weights_path(run, network)}: expected the weights of {len(seeds)} seeds")
    with files.folder_aside(out) as folder:
        for network, params in networks.items():
            (folder / network).mkdir()
            for s, seed in enumerate(seeds):
                one = {layer: {kind: leaf[s] for kind, leaf in leaves.items()} for layer, leaves in params.items()}
                tensors = perceptrons.to_tensors(one)
                stem = folder / network / str(seed)
                torch.save({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}, f"{stem}.pt")
                Path(f"{stem}.safetensors").write_bytes(to_safetensors(tensors))
        files.write_text(folder / folders.CONFIG_FILE, configs.to_toml(config))
    return sorted(path for path in out.rglob("*") if path.suffix in SUFFIXES)


def _exported(path: Path, order: tuple[str, ...]) -> dict[str, dict[int, Path]]:
    """Files ``<activation>/<seed>.<suffix>``; where a seed has two, the safetensors one, which needs no torch."""
    found: dict[str, dict[int, Path]] = {}
    for name in dict.fromkeys((*order, *forms.names())):
        there = [f for f in (path / forms.get(name).name).glob("*") if f.stem.isdigit() and f.suffix in SUFFIXES]
        by_seed = {int(f.stem): f for f in sorted(there, key=lambda f: -SUFFIXES.index(f.suffix))}
        if by_seed:
            found[name] = dict(sorted(by_seed.items()))
    return found


def _common_seeds(by_network: Mapping[str, Mapping[int, Path]], path: Path) -> list[int]:
    """The numbers of the seeds, which every network must have: a run holds the same seeds of each."""
    numbers = {name: list(by_seed) for name, by_seed in by_network.items()}
    first = next(iter(numbers.values()))
    if any(each != first for each in numbers.values()):
        said = "; ".join(f"{name} {', '.join(map(str, each))}" for name, each in numbers.items())
        raise InputError(
            f"{path}: its networks have unlike runs ({said}); import one at a time with --model.activations NAME"
        )
    return first


def _activation(name: str, told: str | None, named: tuple[str, ...], file: Path) -> str:
    """The one activation of a network, from its place, its modules or the user; they must not contradict."""
    said = {each for each in (name, told, *(named if not name else ())) if each}
    if not said:
        raise InputError(f"{file}: does not say which activation it has; say it, such as --model.activations relu")
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
    found = {name: [paper.metrics(source) for source in each] for name, each in sources.items()}
    for name, each in found.items():
        for one, source in zip(each, sources[name], strict=True):
            if len(one.loss) != steps + 1:
                raise InputError(
                    f"{source}: expected {steps + 1} entries, one a step and one before, got {len(one.loss)}"
                )
    return {name: Metrics(*(np.stack(e, axis=-1) for e in zip(*each, strict=True))) for name, each in found.items()}, []
