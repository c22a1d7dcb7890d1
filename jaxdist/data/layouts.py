"""Data sets in the files that people have: which of a folder's files hold what, told by their names and contents.

Besides the four IDX files of MNIST and prepared TFDS data, which `jaxdist.data.loading` reads, these are known: IDX and
NumPy files by other names, archives of NumPy arrays, tables in CSV or Parquet, and folders of pictures by class. Where
a folder could be read in two ways it is refused, and what is read is said in the data set's `source`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from jaxdist.data import idx, pictures, table_files
from jaxdist.data.dataset import RawSplit
from jaxdist.data.held_out import HELD_OUT, held_out
from jaxdist.data.split_words import BOTH, PARTS, Part, words
from jaxdist.errors import InputError
from jaxdist.formatting import listed

Kind: TypeAlias = Literal["images", "labels"]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "data", "features", "pixels"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target", "classes"), "labels"),
}
_BOTH_KINDS: tuple[Kind, Kind] = ("images", "labels")

_STANDARD: tuple[tuple[Part, Kind, str], ...] = tuple(
    (part, kind, stem) for part in BOTH for kind, stem in zip(_BOTH_KINDS, idx.STEMS[part], strict=True)
)
"""What MNIST's four files hold, and their names."""

_IDX_NAME = re.compile(r"(idx\d?|ubyte)", re.IGNORECASE)
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_ARRAYS = (".npy", ".npz")

_DEEPEST = 3

_NAMED_SETS = {"mnist", "fashionmnist", "kmnist", "emnist", "qmnist"}


class RawDataset(NamedTuple):
    """A data set as it lies in files, not yet checked."""

    train: RawSplit
    test: RawSplit
    source: str


class _Named(NamedTuple):
    """What the words of a name tell."""

    part: Part | None
    kind: Kind | None
    others: tuple[str, ...]


def read(name: str, path: Path) -> RawDataset | None:
    """The data set in a file or folder; None if nothing in it is of a known kind.

    Args:
      name: of the data set, which chooses among several in one folder.
      path: a file or folder that exists.

    Raises:
      InputError: if it can be read in several ways, or what is there cannot be used.
    """
    if path.is_file():
        return _from_file(path)
    ways: dict[str, Callable[[], RawDataset | None]] = {}
    paired = [each for each in (_idx_files(path, name), _array_files(path, name)) if each]
    for each in paired:
        ways[f"files of images and labels ({each['train', 'images'].name})"] = functools.partial(
            _from_pairs, each, path
        )
    for archive in sorted(path.glob("*.npz")):
        if not any(archive in each.values() for each in paired):
            ways[f"an archive of arrays ({archive.name})"] = functools.partial(_of_archive, archive)
    if tables := table_files.in_folder(path):
        ways[f"tables ({tables[0].name})"] = functools.partial(_of_tables, tables, path, name)
    if classes := pictures.folders_of(path):
        ways["pictures by class"] = functools.partial(_of_pictures, classes, path)
    if len(ways) > 1:
        raise InputError(f"{path}: holds {listed(list(ways))}; expected one data set; set data.dir to the file itself")
    return next(iter(ways.values()))() if ways else _below(name, path)


def _below(name: str, path: Path) -> RawDataset | None:
    """The data set in a folder further inside, as torchvision keeps them; of several that which has its name."""
    level, there = [path], dict[Path, None]()
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in sorted(outer.iterdir()) if inner.is_dir()]
        there |= dict.fromkeys(inner for inner in level if idx.present(inner) or _idx_files(inner, name))
    several = list(there)
    if len(several) > 1:
        plain = _plain(name)
        named = [each for each in several if plain in {_plain(part) for part in each.relative_to(path).parts}]
        if len(named) != 1:
            raise InputError(
                f"{path}: holds several data sets, in {listed([str(each.relative_to(path)) for each in several])}; "
                "expected one; set data.dir to one of these folders"
            )
        several = named
    if not several:
        return None
    inner = several[0]
    others = {_plain(part) for part in inner.relative_to(path).parts} & _NAMED_SETS - {_plain(name)}
    if others and _plain(name) in _NAMED_SETS:
        raise InputError(
            f"{path}: holds {inner.relative_to(path)}, not {name}; expected that data set; set data.name to it"
        )
    standard = {(part, kind): file for part, kind, stem in _STANDARD if (file := idx.find(inner, stem)) is not None}
    return _from_pairs(_idx_files(inner, name) or standard, inner)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _before_part(stem: str) -> tuple[str, Part | None]:
    """The words of a name before the one that tells the split, and that split."""
    each = words(stem)
    place = next((k for k, word in enumerate(each) if word in PARTS), None)
    return ("_".join(each[:place]), PARTS[each[place]]) if place is not None else ("", None)


def _named(name: str) -> _Named:
    """What a file's or array's name tells, by its words."""
    each = words(re.sub(r"(\.gz|\.npy|\.npz)+$", "", name.lower()))
    parts = {PARTS[word] for word in each if word in PARTS}
    kinds = {_KINDS[word] for word in each if word in _KINDS}
    others = (word for word in each if word not in PARTS and word not in _KINDS)
    others = (word for word in others if not re.fullmatch(r"idx\d?|ubyte|int|arr|\d+", word))
    return _Named(parts.pop() if len(parts) == 1 else None, kinds.pop() if len(kinds) == 1 else None, tuple(others))


_Files: TypeAlias = Mapping[tuple[Part, Kind], Path]


def _idx_files(folder: Path, name: str) -> _Files | None:
    """The IDX files of a folder by what they hold, whatever they are called."""
    there = [file for file in sorted(folder.iterdir()) if _IDX_NAME.search(file.name) and not file.is_dir()]
    return _paired(there, folder, name)


def _array_files(folder: Path, name: str) -> _Files | None:
    """The files of single NumPy arrays in a folder by what they hold."""
    there = [file for file in sorted(folder.iterdir()) if file.suffix in _ARRAYS and file.is_file()]
    return _paired([file for file in there if _named(file.name).kind], folder, name)


def _paired(files: Iterable[Path], folder: Path, name: str) -> _Files | None:
    """Files by split and by what they hold, of the one data set among them, or that of a name."""
    by_set: dict[tuple[str, ...], dict[tuple[Part, Kind], list[Path]]] = {}
    for file in files:
        told = _named(file.name)
        if told.part and told.kind:
            by_set.setdefault(told.others, {}).setdefault((told.part, told.kind), []).append(file)
    whole = {words: each for words, each in by_set.items() if {("train", "images"), ("train", "labels")} <= set(each)}
    if not whole:
        return None
    if len(whole) > 1:
        named = {words: each for words, each in whole.items() if "".join(words) == _plain(name)}
        if len(named) != 1:
            sets = listed(["-".join(words) or "files without a name of their own" for words in whole])
            raise InputError(
                f"{folder}: holds several data sets ({sets}); expected one; put one of them into a folder of its own, "
                "or set data.name to the one to read, in lower_snake_case"
            )
        whole = named
    (each,) = whole.values()
    for paths in each.values():
        idx.refuse_another(paths[0], paths)
    return {key: paths[0] for key, paths in each.items()}


def _from_pairs(files: _Files, folder: Path) -> RawDataset:
    missing = [f"{part} {kind}, such as {stem}" for part, kind, stem in _STANDARD if (part, kind) not in files]
    if missing:
        names = listed([file.name for file in files.values()])
        raise InputError(f"{folder}: holds {names}, but no {listed(missing)}; expected both splits; add the others")
    train, test = (_pair(files[part, "images"], files[part, "labels"]) for part in BOTH)
    said = f"files in {folder}: {files['train', 'images'].name} and its companions."
    if any(part == "validation" for part, _ in files):
        said += " Its validation split is left out."
    if any("emnist" in file.name.lower() for file in files.values()):
        said += " EMNIST stores its images transposed; they are read as stored."
    return RawDataset(train, test, said)


def _pair(images: Path, labels: Path) -> RawSplit:
    return RawSplit(idx.read_any(images), _labels_of(idx.read_any(labels), labels), str(images), str(labels))


def _labels_of(labels: np.ndarray, path: Path) -> np.ndarray:
    """The classes of QMNIST's labels, which are the first of eight columns; other labels as they are."""
    if "qmnist" in path.name.lower() and labels.ndim == 2 and labels.shape[1] == 8:
        return labels[:, 0]
    return labels


def _from_file(path: Path) -> RawDataset | None:
    if path.suffix == ".npz":
        return _of_archive(path)
    if table_files.is_table(path):
        return _of_tables([path], path.parent)
    return None


def _of_archive(path: Path) -> RawDataset | None:
    """An archive of arrays such as x_train, y_train, x_test and y_test, or train_images and its companions."""
    by_key: dict[tuple[Part, Kind], list[str]] = {}
    names = idx.names_in(path)
    for name in names:
        told = _named(name)
        if told.kind:
            by_key.setdefault((told.part or "train", told.kind), []).append(name)
    several = [keys for keys in by_key.values() if len(keys) > 1]
    if several or ("train", "images") not in by_key or ("train", "labels") not in by_key:
        raise InputError(
            f"{path}: holds the arrays {listed(names)}; expected x_train, y_train, x_test and y_test, or train_images "
            "and its companions; save them under these names"
        )

    def split(part: Part) -> RawSplit:
        images, labels = (by_key[part, kind][0] for kind in _BOTH_KINDS)
        arrays = (idx.read_member(path, images), idx.read_member(path, labels))
        return RawSplit(*arrays, f"{path}: {images}", f"{path}: {labels}")

    whole = all(("test", kind) in by_key for kind in _BOTH_KINDS)
    used = [by_key[part, kind][0] for part in (BOTH if whole else BOTH[:1]) for kind in _BOTH_KINDS]
    said = f"arrays in {path}: {listed(used)}."
    if left := [name for name in names if name not in used]:
        said += f" Left out: {listed(left)}."
    if not whole:
        return RawDataset(*held_out(split("train")), f"{said} It has no labelled test split, so {HELD_OUT}.")
    return RawDataset(split("train"), split("test"), said)


def _of_tables(files: list[Path], folder: Path, name: str = "") -> RawDataset:
    """One table, or those of the one data set among several whose names tell the split, or of that with a name."""
    sets: dict[str, dict[Part, list[Path]]] = {}
    for file in files if len(files) > 1 else []:
        before, part = _before_part(file.stem)
        inside = file.parent.name if file.parent != folder and file.parent.name != "data" else ""
        if part is None and inside.lower() in PARTS:  # as Hugging Face's save_to_disk has them
            before, part, inside = "", PARTS[inside.lower()], ""
        if part:
            # Files of several folders are several data sets.
            key = "_".join(filter(None, (inside, before)))
            sets.setdefault(key, {}).setdefault(part, []).append(file)
    whole = {before: parts for before, parts in sets.items() if "train" in parts}
    if len(whole) > 1:
        whole = {before: parts for before, parts in whole.items() if _plain(before) == _plain(name)} or whole
    if len(files) == 1:
        by_part: dict[Part, list[Path]] = {"train": files}
    elif len(whole) == 1:
        (by_part,) = whole.values()
    else:
        raise InputError(
            f"{folder}: holds the tables {listed([file.name for file in files])}; expected one, or names with train "
            "and test in them; set data.dir to the file itself, or data.name to the one to read"
        )
    for several in by_part.values():
        if len(several) > 1 and not all(_SHARD.search(file.stem) for file in several):
            raise InputError(
                f"{folder}: holds {listed([file.name for file in several])}, which may be the same split; expected one "
                "file of each, or numbered parts such as train-00000-of-00002; remove the others"
            )
    tables = {part: table_files.read(by_part[part]) for part in BOTH if part in by_part}
    train = tables["train"]
    used = [file for part in BOTH for file in by_part.get(part, [])]
    said = f"{'a table' if len(used) == 1 else 'tables'} in {folder}: {listed([file.name for file in used])}."
    if train.label is None:
        raise InputError(
            f"{by_part['train'][0]}: has no column of labels; expected one called label, class or target; rename it"
        )
    others = [file.name for file in files if file not in used]
    if others:
        said += f" Left out: {listed(others)}."
    if train.names:
        shown = [f"{k} {name}" for k, name in enumerate(train.names)]
        more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
        said += f" Classes: {', '.join(shown[:20])}{more}."
    if "test" in tables and tables["test"].label is None:
        said += f" {by_part['test'][0].name} has no labels and is left out."
        del tables["test"]
    if "test" not in tables:
        return RawDataset(*held_out(train.split(train)), f"{said} There is no test split, so {HELD_OUT}.")
    return RawDataset(train.split(train), tables["test"].split(train), said)


def _of_pictures(by_part: Mapping[Part, Mapping[str, list[Path]]], folder: Path) -> RawDataset:
    classes = pictures.classes_of(by_part["train"])
    said = f"pictures in {folder}, one folder a class: {pictures.listed_classes(classes)}."
    train = pictures.read(by_part["train"], classes, folder)
    if "test" not in by_part:
        return RawDataset(*held_out(train), f"{said} There is no test split, so {HELD_OUT}.")
    return RawDataset(train, pictures.read(by_part["test"], classes, folder), said)
