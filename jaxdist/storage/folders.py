"""A run folder and what lies in it: config.toml, result.nc, weights/ (a safetensors file a network), and their list."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import jax
import xarray as xr

from jaxdist import config as configs
from jaxdist import files
from jaxdist.compute import hosts
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.networks import Passed, forms
from jaxdist.storage import manifests, places, result_files, unfinished, weights
from jaxdist.types import Params

CONFIG_FILE = places.CONFIG

LOCK_FILE = places.LOCK
"""Stays in a folder with a run: to remove it could let two processes hold it."""

WEIGHTS = places.WEIGHTS


def new(config: Config) -> Path:
    """The run folder `out` of a config, not yet made; raises `InputError` if it is in use or cannot be made."""
    folder = files.expanded(config.out)
    if not hosts.writes():
        return folder
    if folder.exists() and (not folder.is_dir() or (_content(folder) and manifests.interrupted(folder) is None)):
        raise InputError(f"{folder}: not an empty folder; choose a new one with --out, or move this one away")
    _refuse_unwritable(folder)
    return folder


def _refuse_unwritable(folder: Path) -> None:
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        if folder.is_dir():
            raise InputError(f"{folder}: cannot be written to; fix its permissions, or work on a copy of your own")
        raise InputError(
            f"{folder}: cannot be created, because {parent} cannot be written to; choose another folder with --out"
        )


@contextlib.contextmanager
def held(folder: Path, *, new: bool = False) -> Iterator[Path]:
    """Make a run folder, or take one that holds a run unless it must be `new`, and keep other processes out of it.

    A folder made for nothing goes again.

    Raises:
      InputError: if another process holds it, it holds something else than a run, its list of files is damaged, or it
        cannot be made.
    """
    folder = files.expanded(folder)
    if not hosts.writes():
        yield folder
        return
    if (folder.exists() and not folder.is_dir()) or (_content(folder) and not is_run(folder)):
        raise InputError(
            f"{folder}: this folder is neither empty nor a run; choose another with --out, or move this one away"
        )
    if new and _content(folder) and manifests.interrupted(folder) is None:
        raise InputError(f"{folder}: already holds a result or a run; choose another folder, or move it away")
    _refuse_unwritable(folder)
    created = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK_FILE, timeout=0)
    try:
        with lock:
            for part in (folder, *(folder / name for name in (*places.FOLDERS, unfinished.FOLDER))):
                files.remove_left_over(part)
            manifests.clear_interrupted(folder)
            manifests.read(folder)  # before anything is computed that could not be listed
            try:
                yield folder
            finally:
                if created and not _content(folder):
                    for name in places.LOCKS:
                        (folder / name).unlink(missing_ok=True)
                    with contextlib.suppress(OSError):  # another run may have begun in a folder above
                        for path in created:
                            path.rmdir()
    except filelock.Timeout:
        raise InputError(
            f"{folder}: another jaxdist process is using this folder; wait until it has finished, or choose another "
            "one with --out"
        ) from None


def _content(folder: Path) -> set[str]:
    """Names of what lies in a folder, without what a killed process left half-written."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if name not in places.LOCKS and not files.is_temporary(name)}


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    content = _content(folder)
    if content & {result_files.FILE, unfinished.FOLDER} or {CONFIG_FILE, WEIGHTS} <= content:
        return True
    return folder.is_dir() and manifests.interrupted(folder) is not None


def of(path: Path) -> Path:
    """The run folder that a user means, who may also have given its result file."""
    path = files.expanded(path)
    return path.parent if path.is_file() else path


def with_result(path: Path) -> Path:
    """The run folder that a user means, which must have a result; raises `InputError` where it has none."""
    folder = of(path)
    if not (folder / result_files.FILE).is_file():
        if (folder / unfinished.FOLDER).exists():
            raise InputError(f"{folder}: holds an unfinished run; repeat the command that started it")
        raise InputError(f"{folder}: no result found; pass a run folder made by 'jaxdist run' or 'jaxdist train'")
    return folder


def save(
    folder: Path,
    config: Config,
    result: xr.DataTree,
    networks: Mapping[str, Params] | None = None,
    passed: Mapping[str, Passed] | None = None,
    *,
    anew: bool = True,
) -> None:
    """Write config and result, and the weights if given, into a run folder; of several processes, one does.

    Args:
      folder: the run folder.
      config: the run's.
      result: what is known of its networks.
      networks: stacked parameters by activation.
      passed: by activation, weights kept along training.
      anew: what was made of an earlier result goes; if that had tables, a report is due.
    """
    if not hosts.writes():
        return
    due = True if anew and (folder / places.TABLES).exists() else None
    with manifests.recording(folder, lambda name: anew and not manifests.is_basis(name), report_due=due):
        for name, params in (networks or {}).items():
            weights.save(params, weights_path(folder, name))
        for name, snapshots in (passed or {}).items():
            weights.save(snapshots._asdict(), passed_path(folder, name))
        # The result comes last: what is killed before it is done again. It carries the config that counts; the file
        # beside it is for people.
        files.write_text(folder / CONFIG_FILE, configs.to_toml(config))
        result_files.save(result, folder / result_files.FILE)


def load_networks(config: Config, folder: Path, seeds: int | None = None) -> dict[str, Params]:
    """Read the weights of every network of a run, of its config's number of seeds unless another is given.

    A process killed while it saved further seeds may have written more of them than the result tells of.

    Raises:
      InputError: where weights are missing or broken.
    """
    count = config.train.seeds if seeds is None else seeds
    loaded = {name: weights.load(weights_path(folder, name)) for name in config.model.activations}
    return {name: jax.tree.map(lambda leaf: leaf[:count], params) for name, params in loaded.items()}


def load_passed(config: Config, folder: Path, seeds: int) -> dict[str, Params]:
    """Read the weights kept along training as `training.Passed` has them, of so many seeds; raises as above."""
    loaded = {name: weights.load(passed_path(folder, name)) for name in config.model.activations}
    return {name: jax.tree.map(lambda leaf: leaf[:seeds], snapshots) for name, snapshots in loaded.items()}


def passed_path(folder: Path, network: str) -> Path:
    """Where a run folder keeps the weights of a network along training."""
    return weights_path(folder, network).with_suffix(".snapshots.safetensors")


def weights_path(folder: Path, network: str) -> Path:
    """Where a run folder keeps the weights of a network; a name that no network has makes no path."""
    forms.get(network)
    return folder / WEIGHTS / f"{network}.safetensors"
