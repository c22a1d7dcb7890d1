"""A run folder and what lies in it: config.toml, result.nc and weights/, one safetensors file a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from jaxdist import activations, files, hosts, results, weights
from jaxdist import config as configs
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.types import Params

CONFIG_FILE = "config.toml"


def new(config: Config) -> Path:
    """The run folder ``config.out``, not yet made; raises `InputError` if it is in use or cannot be made."""
    folder = Path(config.out).expanduser()
    if not hosts.writes():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; choose a new one with --out, or move it away")
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{folder}: cannot be made, because {parent} cannot be written to; choose another with --out")
    return folder


def of(path: Path) -> Path:
    """The run folder that a user means, who may also have given its result file."""
    path = Path(path).expanduser()
    return path.parent if path.is_file() else path


def save(folder: Path, config: Config, result: xr.DataTree, networks: Mapping[str, Params] | None = None) -> None:
    """Write config and result, and the weights if given, into a run folder; of several processes, one does."""
    if not hosts.writes():
        return
    for name, params in (networks or {}).items():
        weights.save(params, weights_path(folder, name))
    # The result carries the config that counts; the file beside it is for people.
    results.save(result, folder / results.FILE)
    files.write_text(folder / CONFIG_FILE, configs.to_toml(config))


def load_networks(config: Config, folder: Path) -> dict[str, Params]:
    """Read the weights of every network of a run; raises `InputError` where one is missing or broken."""
    return {name: weights.load(weights_path(folder, name)) for name in config.model.activations}


def weights_path(folder: Path, network: str) -> Path:
    """Where a run folder keeps the weights of a network; a name that is no activation makes no path."""
    activations.get(network)
    return folder / "weights" / f"{network}.safetensors"
