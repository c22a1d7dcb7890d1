"""Where networks from PyTorch lie: one file, several files, a folder of them, an exported run, the paper's tree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdist import config as configs
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.networks import forms
from jaxdist.storage import folders
from jaxdist.storage.torch import checkpoints, lineage, names, paper

SUFFIXES = (".safetensors", *checkpoints.TORCH_SUFFIXES)

_DEEPEST = 3
"""Folders inside the one that was given, in which files are looked for."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")

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
    left_out: tuple[Path, ...] = ()
    """Files beside them that hold something else, such as an optimiser's state."""


def locate(paths: Sequence[Path]) -> Located:
    """Find the files of networks at one path, or at several, a file and a seed each.

    Raises:
      InputError: if a path does not exist, one of several is a folder, or one file is given twice.
    """
    if not paths:
        raise InputError("import: expected at least one path; pass a PyTorch or safetensors file, or a folder of them")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; pass PyTorch or safetensors files, or a folder of them")
    if len(paths) > 1 or not paths[0].is_dir():
        return _files(paths)
    return _folder(paths[0])


def _files(paths: Sequence[Path]) -> Located:
    if folder := next((path for path in paths if path.is_dir()), None):
        raise InputError(f"{folder}: this is a folder; expected files, one per seed, or a single folder")
    resolved = [path.resolve() for path in paths]
    if twice := next((path for path in paths if resolved.count(path.resolve()) > 1), None):
        raise InputError(f"{twice}: is named twice; expected a file for each seed")
    base = lineage.base_of(paths)
    kind = "files" if len(paths) > 1 else "file"
    places = {path: path.absolute().relative_to(base) for path in paths}
    return Located(kind, ", ".join(map(str, paths)), base, _by_network(places, numbered=False), Config(), HISTORY)


def _folder(path: Path) -> Located:
    models = paper.tree_root(path)
    if models:
        config, unknown = paper.protocol(models)
        return Located("paper-tree", str(path), path, paper.checkpoints_of(models), config, unknown, models)
    file = path / folders.CONFIG_FILE
    if file.is_file():
        # The exported config remembers the order of the networks.
        config = configs.load(file, kept=True)
        return Located("exported", str(path), path, _exported(path, config.model.activations), config)
    if exported := _exported(path, ()):
        _refuse_beside(exported, path)
        return Located("exported", str(path), path, exported, Config(), HISTORY)
    files = _below(path)
    left_out = tuple(file for file in files if names.companion(file))
    places = {file: file.relative_to(path) for file in files if file not in left_out}
    by_network = _by_network(places, numbered=True) if places else {}
    return Located("files", str(path), path, by_network, Config(), HISTORY, left_out=left_out)


def _refuse_beside(exported: Mapping[str, Mapping[int, Path]], path: Path) -> None:
    """Raise `InputError` for files beside numbered ones that are no seeds by their names."""
    for by_seed in exported.values():
        folder = next(iter(by_seed.values())).parent
        stems = {file.stem for file in by_seed.values()}
        for file in _by_preference(folder):
            if file.stem not in stems and not names.companion(file):
                raise InputError(
                    f"{path}: holds {file.relative_to(path)} next to numbered files; expected a number for each seed; "
                    "move it away if it is not a seed, or pass the files one by one"
                )


def _by_network(places: Mapping[Path, Path], *, numbered: bool) -> dict[str, dict[int, Path]]:
    """Files by the activation that their places tell, "" for all where none does, and by seed.

    Seeds have the numbers in their places, where they are `numbered` so, or else their numbers in the order given.
    """
    told = {file: names.told(place) for file, place in places.items()}
    certain = {each.activation for each in told.values()}
    by_name: dict[str, list[Path]] = {}
    for file, each in told.items():
        # Beside relu_0 and relu_1, relu_2 is another seed.
        name = each.activation or (each.if_seed if each.if_seed in certain else "")
        by_name.setdefault(name, []).append(file)
    if "" in by_name and len(by_name) > 1:
        telling = next(files[0] for name, files in by_name.items() if name)
        raise InputError(
            f"{by_name[''][0]}: its name or folder does not say for certain which activation it has, but that of "
            f"{telling} does; expected all of them to say it or none; pass files of one kind"
        )
    numbered_files: dict[str, dict[int, Path]] = {}
    for name in (form for form in ("", *forms.names()) if form in by_name):
        files = by_name[name]
        numbers = [told[file].number for file in files]
        if numbered and None not in numbers and len(set(numbers)) == len(numbers):
            by_number = {number: file for number, file in zip(numbers, files, strict=True) if number is not None}
            numbered_files[name] = dict(sorted(by_number.items()))
        else:
            numbered_files[name] = dict(enumerate(files))
    return numbered_files


def _exported(path: Path, order: tuple[str, ...]) -> dict[str, dict[int, Path]]:
    """Files ``<activation>/<seed>.<suffix>``; where a seed has two, the safetensors one, which needs no torch."""
    numbered_files: dict[str, dict[int, Path]] = {}
    for name in dict.fromkeys((*order, *forms.names())):
        there = [file for file in _by_preference(path / forms.get(name).name) if file.stem.isdigit()]
        by_seed = {int(file.stem): file for file in there}
        if by_seed:
            numbered_files[name] = dict(sorted(by_seed.items()))
    return numbered_files


def _below(path: Path) -> list[Path]:
    """The files in a folder and those inside it by name, seed10 after seed9; of one stem, that which needs no torch."""
    folders_ = [path]
    for depth in range(_DEEPEST):
        folders_ += [each for each in path.glob("/".join("*" * (depth + 1))) if each.is_dir()]
    folders_ = [each for each in folders_ if not any(part.startswith(".") for part in each.relative_to(path).parts)]
    by_stem = {file.with_suffix(""): file for folder in folders_ for file in _by_preference(folder)}
    files = sorted(by_stem.values(), key=lambda file: checkpoints.natural(str(file.relative_to(path))))
    if shard := next((file for file in files if _SHARD.search(file.stem)), None):
        raise InputError(
            f"{shard}: is one part of a network that was saved in several files; expected one file for each seed; "
            "save the network's state_dict in a single file"
        )
    return files


def _by_preference(folder: Path) -> list[Path]:
    """The files of networks in a folder, those that need no torch last."""
    there = [file for file in sorted(folder.glob("*")) if _suffix(file) in SUFFIXES and file.is_file()]
    return sorted(there, key=lambda file: -SUFFIXES.index(_suffix(file)))


def _suffix(file: Path) -> str:
    """What a file's name ends in; some scripts write .pth.tar, which is no archive."""
    return Path(file.stem).suffix if file.suffix == ".tar" else file.suffix
