"""What the paper's code leaves on disk: its tree of trained networks, and its file of sweep results.

The tree is ``results/models/<Model>/<run>/<Model>.pt`` with a ``metrics.json`` beside each, and an
``experiment_config.json`` whose ``data_transform`` is false: the code trains on raw pixels, so it is not read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.networks import Metrics
from jaxdist.perturbations import families
from jaxdist.storage import published
from jaxdist.storage.torch import pickles
from jaxdist.sweep import results

RESULT_FILE = Path("perturbation") / "perturbation_results.pt"
NETWORKS = {"PerturbationReLU": "relu", "PerturbationAbs": "abs"}
IMAGES = 60_000
"""The paper measures accuracy on all of MNIST's training images."""


def tree_root(path: Path) -> Path | None:
    """The folder of models in a result tree, given it or its parent; None if the path is no such tree."""
    for folder in (path / "models", path):
        if any((folder / name).is_dir() for name in NETWORKS):
            return folder
    return None


def checkpoints_of(models: Path) -> dict[str, dict[int, Path]]:
    """Every trained network's file, by activation and run number; runs without a file are left out."""
    by_network: dict[str, dict[int, Path]] = {}
    for model, network in NETWORKS.items():
        runs = [folder for folder in (models / model).glob("*") if folder.name.isdigit()]
        files = {int(run.name): run / f"{model}.pt" for run in sorted(runs, key=lambda run: (int(run.name), run.name))}
        files = {number: file for number, file in files.items() if file.is_file()}
        if files:
            by_network[network] = files
    return by_network


def protocol(models: Path) -> tuple[Config, tuple[str, ...]]:
    """How the networks of a tree were trained, and the config fields of it that are not known.

    It is the paper's protocol with the tree's own steps and learning rate, where it says them.
    """
    path = models / "experiment_config.json"
    if not path.is_file():
        return published.PROTOCOL, ("train.steps", "train.learning_rate")
    said = read_json(path)
    try:
        train = dataclasses.replace(
            published.PROTOCOL.train, steps=int(said["epochs"]), learning_rate=float(said["learning_rate"])
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: expected numbers 'epochs' and 'learning_rate', as the paper's code writes them"
        ) from None
    return dataclasses.replace(published.PROTOCOL, train=train), ()


def metrics(path: Path) -> Metrics:
    """Read one run's ``metrics.json`` as [steps + 1] entries that belong to the weights after k updates.

    The paper records loss and training accuracy before each update and test accuracy after it, so its entry k + 1 of
    the first two is our entry k, and our last entry of them, which it never measures, is NaN.
    """
    said = read_json(path)
    try:
        loss, train, test = (np.asarray(said[name], np.float64) for name in ("loss", "train_acc", "test_acc"))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: expected lists of numbers 'loss', 'train_acc' and 'test_acc'") from None
    if not (loss.ndim == 1 and len(loss) > 1 and loss.shape == train.shape == test.shape):
        raise InputError(f"{path}: expected three lists of one length, got {loss.shape}, {train.shape}, {test.shape}")
    if not (np.isfinite(loss).all() and np.isfinite(train).all() and np.isfinite(test).all()):
        raise InputError(f"{path}: holds values that are not finite; a network that diverged cannot be imported")
    return Metrics(np.append(loss[1:], np.nan), np.append(train[1:], np.nan) / 100, test / 100)


def read_result(path: Path) -> xr.DataTree:
    """Read ``perturbation_results.pt`` as a labelled result: the counts `correct` on the training images.

    Seeds are numbered in the file's order, which skips runs that were missing. The file has no predictions, so there is
    no `agree`.

    Raises:
      InputError: if the file is not what the paper's code writes.
    """
    content = pickles.load(path)
    expected = (
        f"{path}: expected sweep results, a dictionary {{model: [run, ...]}} of the paper's PerturbationReLU and "
        "PerturbationAbs, got something else, of which nothing was executed; if it is a network, import it with "
        "'jaxdist import-torch'"
    )
    if not isinstance(content, Mapping) or not content or not set(content) <= set(NETWORKS):
        raise InputError(expected)
    if not all(isinstance(each, list) and all(isinstance(run, Mapping) for run in each) for each in content.values()):
        raise InputError(expected)
    runs = {NETWORKS[model]: content[model] for model in NETWORKS if content.get(model)}
    if not runs:
        raise InputError(f"{expected}; it holds no runs")
    first = next(iter(runs.values()))[0]
    swept = [name for name in families.PAPER if f"{name}_accuracies" in first]
    if not swept:
        raise InputError(f"{path}: holds no sweep; expected lists such as 'scale_accuracies' in each run")
    # The file says nothing of the training; the tree that it lies in may.
    models = tree_root(path.absolute().parent.parent) if path.parts[-2:] == RESULT_FILE.parts else None
    settings, unknown = protocol(models) if models else (published.PROTOCOL, ("train.steps", "train.learning_rate"))
    seeds = max(map(len, runs.values()))
    config = dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, activations=tuple(runs)),
        train=dataclasses.replace(settings.train, seeds=seeds),
    )
    origin = json.dumps(
        {"kind": "paper-result", "path": str(path), "models": str(models) if models else None, "unknown": unknown}
    )
    groups = {name: _family(name, runs, seeds, config, path) for name in swept}
    return results.tree(groups, {**results.provenance(config, None), "origin": origin, "timings": "{}"})


def _family(
    name: str, runs: Mapping[str, Sequence[Mapping[str, Any]]], seeds: int, config: Config, path: Path
) -> xr.Dataset:
    first, each = next(iter(runs.items()))
    grid = _numbers(each[0], f"{name}_values", f"{path}: {first} run 0")
    identity = families.identity(name, config.sweep)
    correct = np.full((len(runs), seeds, 1, 1, len(grid)), results.MISSING, np.int32)
    for a, (network, each) in enumerate(runs.items()):
        for s, run in enumerate(each):
            where = f"{path}: {network} run {s}"
            values, percent = (_numbers(run, f"{name}_{kind}", where) for kind in ("values", "accuracies"))
            if not np.array_equal(values, grid) or percent.shape != grid.shape:
                raise InputError(f"{where}: expected an accuracy at each point of the grid that all its runs share")
            counts = percent / 100 * IMAGES
            # A float32 mean in percent is off by less than a hundredth of an image.
            if not ((percent >= 0) & (percent <= 100) & (np.abs(counts - np.round(counts)) < 0.1)).all():
                raise InputError(f"{where}: '{name}_accuracies' are not percentages of {IMAGES} images")
            correct[a, s, 0, 0] = np.round(counts)
    assert identity is not None
    unedited = correct[..., 0, 0, np.abs(grid - identity).argmin()]
    dims = ("network", "seed", "site", "split", "fraction")
    return xr.Dataset(
        {
            "correct": (dims, correct),
            "unperturbed": (("network", "seed", "split"), unedited[..., None]),
            "total": ("split", np.asarray([IMAGES], np.int32)),
        },
        coords={
            "network": list(runs),
            "seed": np.arange(seeds),
            "site": ["dense0/pre"],
            "split": ["train"],
            "fraction": grid,
        },
        attrs={"identity": identity, "made": json.dumps({"by": "the paper's code"})},
    )


def _numbers(run: Mapping[str, Any], key: str, where: str) -> np.ndarray:
    """One of a run's lists as a vector of finite numbers."""
    try:
        numbers = np.asarray(run[key], np.float64)
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{where}: expected a list of numbers '{key}'") from None
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise InputError(f"{where}: expected a list of finite numbers '{key}', got shape {numbers.shape}")
    return numbers


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `InputError` if it is missing or broken."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); copy it again from its source") from None
    if not isinstance(said, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(said).__name__}")
    return said
