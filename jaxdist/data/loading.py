"""From a name or a folder to a checked data set."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jaxdist import files
from jaxdist.config import DataConfig
from jaxdist.data import idx, layouts, prepared
from jaxdist.data.dataset import KNOWN_CLASSES, Dataset, RawSplit, accessible, assemble
from jaxdist.errors import InputError, nearest

EMBEDDED = ("digits",)
"""The data sets that come with the packages."""

_NAME = r"[a-z][a-z0-9_]*(/\w[\w.+-]*)?"
_KNOWN = tuple(KNOWN_CLASSES)
_DIGITS_TRAIN = 1437  # four fifths of the 1,797 images, rounded down


def known_names() -> tuple[str, ...]:
    """The data sets that need no folder of the user's: built in, or prepared by one command."""
    return _KNOWN


@accessible()
def available(config: DataConfig) -> bool:
    """Whether there is something to read where `config` says or, by default, a data set of that name is prepared."""
    if config.dir:
        return files.expanded(config.dir).exists()
    if config.name in EMBEDDED or not re.fullmatch(_NAME, config.name):
        return True
    return prepared.find(prepared.default_dir(), config.name) is not None


@accessible()
def load(config: DataConfig) -> Dataset:
    """Return the data set that `config` names, from its folder or the default place; never uses the network.

    Raises `InputError`, one sentence, for a data set that is missing, not prepared, malformed or inconsistent.
    """
    name = config.name
    if not re.fullmatch(_NAME, name):
        raise InputError(
            f"data.name: '{name}' is not a valid data set name; expected lower_snake_case, with /config if the TFDS "
            f"data set has one{nearest(name, _KNOWN)}"
        )
    if config.dir and name in EMBEDDED:
        raise InputError(
            f"data.dir: '{config.dir}' is set, but data.name is '{name}', whose images are built in; set --data.name "
            "too, for example to mnist"
        )
    if config.dir:
        return _from_folder(name, files.expanded(config.dir))
    if name == "digits":
        return _digits()
    data_dir = prepared.default_dir()
    folder = prepared.find(data_dir, name)
    if folder is None:
        raise InputError(_unprepared(name, data_dir))
    return _from_prepared(name, folder)


def from_idx(name: str, folder: Path) -> Dataset:
    """Read and check the four IDX files in `folder`; raises `InputError` naming the file at fault."""
    source = f"IDX files in {folder}: the train files are the train split and the t10k files the test split."
    return assemble(name, idx.read_split(folder, "train"), idx.read_split(folder, "test"), source)


def from_files(name: str, path: Path) -> Dataset | None:
    """Read and check the data set in a file or folder of any known kind but TFDS's; None if it holds none.

    Raises:
      InputError: naming the file at fault.
    """
    if path.is_dir() and all(idx.find(path, stem) for stems in idx.STEMS.values() for stem in stems):
        return from_idx(name, path)
    read = layouts.read(name, path) if path.exists() else None
    if read is not None:
        return assemble(name, *read)
    return from_idx(name, path) if path.is_dir() and idx.present(path) else None


def _from_folder(name: str, folder: Path) -> Dataset:
    set_folder = prepared.find(folder, name) if folder.is_dir() else None
    if set_folder is None:
        if (dataset := from_files(name, folder)) is not None:
            return dataset
        raise InputError(
            _unconfigured(name, folder)
            or f"{folder}: {'no data set of a known kind' if folder.exists() else 'no such file or folder'}; expected "
            "IDX or NumPy files of images and labels, a table (CSV, Parquet) with a column of labels, a folder of "
            f"pictures by class, or a prepared TFDS data set '{name}'; {_instead_of(folder)}"
        )
    return _from_prepared(name, set_folder)


def _instead_of(folder: Path) -> str:
    """What to do about a folder that holds no data."""
    if not folder.is_dir():
        return "correct data.dir"
    held = sorted(path.name for path in folder.iterdir() if path.is_file())
    some = f"{', '.join(held[:4])}{f' and {len(held) - 4} more' if len(held) > 4 else ''}"
    if held:
        return f"correct data.dir, or convert its files ({some}) to one of these"
    return "correct data.dir"


def _from_prepared(name: str, folder: Path) -> Dataset:
    source = f"TFDS data set {name} {folder.name} in {folder}: its train and test splits in stored order."
    return assemble(name, *prepared.read_splits(folder), source)


def _digits() -> Dataset:
    """scikit-learn's copy of the UCI handwritten digits, 1,797 images of 8x8 pixels from 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target
    source = (
        f"scikit-learn's load_digits in its own order: the first {_DIGITS_TRAIN:,} images are the train split "
        f"and the last {len(images) - _DIGITS_TRAIN} the test split."
    )
    train, test = (
        RawSplit(images[part], labels[part], "load_digits", "load_digits")
        for part in (slice(_DIGITS_TRAIN), slice(_DIGITS_TRAIN, None))
    )
    return assemble("digits", train, test, source, largest=16.0)


def _unprepared(name: str, data_dir: Path) -> str:
    """Say that a data set is not prepared, and what to do for this very name."""
    if message := _unconfigured(name, data_dir):
        return message
    folder = "or pass --data.dir FOLDER with its IDX files or its TFDS data"
    if name in _KNOWN:
        return (
            f"data.name: '{name}' is not prepared in {data_dir}; run 'jaxdist data prepare {name} --from FOLDER' or "
            f"'jaxdist data prepare {name} --download', {folder}"
        )
    names = dict.fromkeys((*_KNOWN, *prepared.listed(data_dir)))
    names.pop(name, None)
    return (
        f"data.name: no data set '{name}' is prepared in {data_dir}; run 'jaxdist data prepare {name} --from FOLDER', "
        f"{folder}{nearest(name, names)}"
    )


def _unconfigured(name: str, data_dir: Path) -> str | None:
    configs = prepared.configs(data_dir, name)
    if not configs:
        return None
    return f"data.name: '{name}' is prepared in {data_dir} only with a configuration; expected {' or '.join(configs)}"
