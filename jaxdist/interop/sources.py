"""Where networks from PyTorch lie: one file, several files, a folder of them, an exported run, the paper's tree."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdist import config as configs
from jaxdist import folders, forms
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.interop import checkpoints, paper

SUFFIXES = (".safetensors", *checkpoints.TORCH_SUFFIXES)

HISTORY = ("model.init", "train.steps", "train.optimizer", "train.learning_rate")
"""Config fields that files of weights alone say nothing of."""


class Located(NamedTuple):
    """Where networks lie, and what is known of how they came to be."""

    kind: str
    where: str
    """The paths that were given, in words."""
    base: Path
    """The folder that holds all of the files."""
    by_network: Mapping[str, Mapping[int, Path]]
    """Files by activation, "" where the place does not say it, and seed."""
    config: Config
    unknown: tuple[str, ...] = ()
    """Config fields that are not known."""
    models: Path | None = None
    """The paper's tree."""


def locate(paths: Sequence[Path]) -> Located:
    """Find the files of networks at one path, or at several, a file and a seed each.

    Raises:
      InputError: if a path does not exist, one of several is a folder, or one file is given twice.
    """
    if not paths:
        raise InputError("import: expected at least one path; give a PyTorch or safetensors file, or a folder of them")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; give PyTorch or safetensors files, or a folder of them")
    if len(paths) > 1 or not paths[0].is_dir():
        return _files(paths)
    return _folder(paths[0])


def _files(paths: Sequence[Path]) -> Located:
    if folder := next((path for path in paths if path.is_dir()), None):
        raise InputError(f"{folder}: is a folder; expected files, a seed each, or one folder alone")
    resolved = [path.resolve() for path in paths]
    if twice := next((path for path in paths if resolved.count(path.resolve()) > 1), None):
        raise InputError(f"{twice}: is given twice; expected a file for each seed")
    base = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    kind = "files" if len(paths) > 1 else "file"
    return Located(kind, ", ".join(map(str, paths)), base, {"": dict(enumerate(paths))}, Config(), HISTORY)


def _folder(path: Path) -> Located:
    models = paper.tree_root(path)
    if models:
        config, unknown = paper.protocol(models)
        return Located("paper-tree", str(path), path, paper.checkpoints_of(models), config, unknown, models)
    file = path / folders.CONFIG_FILE
    if file.is_file():
        # The exported config remembers the order of the networks.
        config = configs.load(file)
        return Located("exported", str(path), path, _exported(path, config.model.activations), config)
    if exported := _exported(path, ()):
        return Located("exported", str(path), path, exported, Config(), HISTORY)
    plain = {"": dict(enumerate(_plain(path)))}
    return Located("files", str(path), path, plain if plain[""] else {}, Config(), HISTORY)


def _exported(path: Path, order: tuple[str, ...]) -> dict[str, dict[int, Path]]:
    """Files ``<activation>/<seed>.<suffix>``; where a seed has two, the safetensors one, which needs no torch."""
    found: dict[str, dict[int, Path]] = {}
    for name in dict.fromkeys((*order, *forms.names())):
        there = [file for file in _by_preference(path / forms.get(name).name) if file.stem.isdigit()]
        by_seed = {int(file.stem): file for file in there}
        if by_seed:
            found[name] = dict(sorted(by_seed.items()))
    return found


def _plain(path: Path) -> list[Path]:
    """The files of a folder by name, seed10 after seed9; of two with one stem, the one that needs no torch."""
    by_stem = {file.stem: file for file in _by_preference(path)}
    return [by_stem[stem] for stem in sorted(by_stem, key=checkpoints.natural)]


def _by_preference(folder: Path) -> list[Path]:
    """The files of networks in a folder, those that need no torch last."""
    there = [file for file in sorted(folder.glob("*")) if file.suffix in SUFFIXES and file.is_file()]
    return sorted(there, key=lambda file: -SUFFIXES.index(file.suffix))
