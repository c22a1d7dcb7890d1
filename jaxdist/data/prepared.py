"""Prepared TFDS data sets on disk: where they are, and a cache of their decoded arrays.

A set is a folder ``DATA_DIR/NAME[/CONFIG]/VERSION`` with dataset_info.json, features.json and array_record files.
Nothing here needs TFDS, so a data set that was decoded before loads without importing it.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import platformdirs

from jaxdist import files
from jaxdist.data import tfds_sets
from jaxdist.data.dataset import RawSplit
from jaxdist.data.tfds_sets import Arrays
from jaxdist.errors import InputError

_DESCRIPTIONS = ("dataset_info.json", "features.json")


def default_dir() -> Path:
    """TFDS's own default data folder: ``TFDS_DATA_DIR`` if set, else ``~/tensorflow_datasets``."""
    return files.expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def find(data_dir: Path, name: str) -> Path | None:
    """Return the folder of the newest readable version of a prepared set (name or name/config), or None.

    Raises `InputError` if it is prepared only in a format that cannot be read without TensorFlow.
    """
    versions = sorted(
        (path for path in _folders(data_dir / name) if re.fullmatch(r"\d+\.\d+\.\d+", path.name)),
        key=lambda path: tuple(map(int, path.name.split("."))),
    )
    complete = [path for path in versions if all((path / part).is_file() for part in _DESCRIPTIONS)]
    readable = [path for path in complete if _records(path)]
    if complete and not readable:
        raise InputError(
            f"{complete[-1]}: this TFDS data set has no array_record files, so only TensorFlow can read it; prepare "
            f"{name} in another data folder"
        )
    return readable[-1] if readable else None


def listed(data_dir: Path) -> list[str]:
    """The names of the data sets that are prepared in `data_dir`, in any format."""
    return [path.name for path in _folders(data_dir) if any(path.rglob("features.json"))]


def configs(data_dir: Path, name: str) -> list[str]:
    """The prepared configurations of a data set, as 'name/config'."""
    return [f"{name}/{path.name}" for path in _folders(data_dir / name) if find(data_dir, f"{name}/{path.name}")]


def read_splits(folder: Path) -> tuple[RawSplit, RawSplit]:
    """Return the train and test splits of a prepared set, from the cache if it is of these very files.

    Raises `InputError` for a set that cannot be read or is not image classification with both splits.
    """
    mark = _fingerprint(folder)
    users = _user_cache()
    places = [folder / ".jaxdist" / "decoded.npz", *([] if users is None else [users / f"{_key(folder)}.npz"])]
    for place in places:
        if (arrays := _cached(place, mark)) is not None:
            break
    else:
        arrays = tfds_sets.decode(folder)
        # Without a place to write to, the next load decodes again: slower, never wrong.
        any(_store(place, mark, arrays) for place in places)
    train, test = (f"{folder} ({split} split)" for split in ("train", "test"))
    return (
        RawSplit(arrays.train_images, arrays.train_labels, train, train),
        RawSplit(arrays.test_images, arrays.test_labels, test, test),
    )


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(inner for inner in path.iterdir() if inner.is_dir())
    except OSError:
        return []


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.array_record*"))


def _fingerprint(folder: Path) -> str:
    """Name, size and modification time of every file that the arrays depend on."""
    files = [*(folder / part for part in _DESCRIPTIONS), *_records(folder)]
    stats = ((path.name, path.stat()) for path in files)
    return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _key(folder: Path) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]


def _user_cache() -> Path | None:
    """The user's cache folder; None for a user without a home, as in some containers."""
    try:
        return platformdirs.user_cache_path("jaxdist")
    except RuntimeError:
        return None


def _cached(path: Path, mark: str) -> Arrays | None:
    """Return the cached arrays if they are of the files that `mark` describes; a damaged cache counts as none."""
    try:
        # Opened here because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as cache:
            return Arrays(*(cache[field] for field in Arrays._fields)) if str(cache["mark"]) == mark else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _store(path: Path, mark: str, arrays: Arrays) -> bool:
    """Write the cache aside and rename it, and return whether that worked."""
    try:
        with files.aside(path) as temporary:
            np.savez(temporary, allow_pickle=False, mark=np.array(mark), **arrays._asdict())
    except OSError:
        return False
    return True
