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
from jaxdist.storage.torch import array_files, checkpoints, lineage, names, paper

SUFFIXES = (".safetensors", *checkpoints.TORCH_SUFFIXES, *array_files.SUFFIXES)

_DEEPEST = 3
"""Folders inside the one that was given, in which files are looked for."""

_HOLES = re.compile(r"\{seed\}|\{activation\}")

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


def locate(paths: Sequence[Path], pattern: str = "") -> Located:
    """Find the files of networks at one path, or at several, a file and a seed each.

    Args:
      paths: files, or one folder.
      pattern: where in the folder the files lie, with ``{activation}`` and ``{seed}`` in the place of those, and ``*``
        for anything else within a name, where names alone do not tell.

    Raises:
      InputError: if a path does not exist, one of several is a folder, or one file is given twice; if a pattern is
        none, or no file is as it says.
    """
    if not paths:
        raise InputError("import: expected at least one path; pass a PyTorch or safetensors file, or a folder of them")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; pass PyTorch or safetensors files, or a folder of them")
    if len(paths) > 1 or not paths[0].is_dir():
        if pattern:
            raise InputError(f"--pattern: expected a single folder, in which files lie as it says, got {paths[0]}")
        return _files(paths)
    return _by_pattern(paths[0], pattern) if pattern else _folder(paths[0])


def _by_pattern(path: Path, pattern: str) -> Located:
    """The files of a folder whose places are as a pattern says."""
    if pattern.count("{seed}") != 1 or pattern.count("{activation}") > 1 or re.search(r"[{}]", _HOLES.sub("", pattern)):
        raise InputError(
            f"--pattern: expected {{seed}} once, {{activation}} at most once, and * for anything else, as in "
            f"'{{activation}}/run{{seed}}/*.pt', got {pattern!r}"
        )
    parts = re.split(r"(\{seed\}|\{activation\}|\*)", pattern)
    kinds = {"{seed}": r"(?<!\d)(?P<seed>\d+)(?!\d)", "{activation}": r"(?P<activation>[A-Za-z0-9_-]+?)", "*": r"[^/]*"}
    expected = re.compile("".join(kinds.get(part, re.escape(part)) for part in parts))
    by_network: dict[str, dict[int, Path]] = {}
    others: list[Path] = []
    for file in sorted(path.rglob("*"), key=lambda file: array_files.natural(str(file.relative_to(path)))):
        place = file.relative_to(path).as_posix()
        match = expected.fullmatch(place) if file.is_file() else None
        if not match:
            others += [file] if file.is_file() and _suffix(file) in SUFFIXES else []
            continue
        spelled = match.groupdict().get("activation", "")
        name = names.spelled(spelled) if spelled else ""
        if name is None:
            raise InputError(
                f"--pattern: {place} has {spelled!r} for {{activation}}, which is not one of {', '.join(forms.names())}"
            )
        seeds = by_network.setdefault(name, {})
        if (seed := int(match["seed"])) in seeds:
            raise InputError(
                f"--pattern: {seeds[seed].relative_to(path)} and {place} are both seed {seed}; expected one file for "
                "each; put more of their places into the pattern"
            )
        seeds[seed] = file
    if not by_network:
        there = others[0].relative_to(path).as_posix() if others else "no file of a network"
        raise InputError(f"--pattern: no file in {path} is as {pattern!r} says; in it is {there}")
    ordered = {name: dict(sorted(by_network[name].items())) for name in ("", *forms.names()) if name in by_network}
    return Located("files", str(path), path, ordered, Config(), HISTORY, left_out=tuple(others))


def _files(paths: Sequence[Path]) -> Located:
    if folder := next((path for path in paths if path.is_dir() and not array_files.is_orbax(path)), None):
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
    if array_files.is_orbax(path):
        return _files([path])
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
    there = [file for folder in folders_ for file in _by_preference(folder)]
    # Arrays beside checkpoints of PyTorch are what a script measured, such as metrics.npz.
    usual = [file for file in there if _suffix(file) in (".safetensors", *checkpoints.TORCH_SUFFIXES)]
    by_stem = {file.with_suffix(""): file for file in usual or there}
    files = sorted(by_stem.values(), key=lambda file: array_files.natural(str(file.relative_to(path))))
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
