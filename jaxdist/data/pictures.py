"""Folders of picture files, one folder for each class, perhaps inside one for each split; read by Pillow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from jaxdist.data.dataset import RawSplit
from jaxdist.data.split_words import PARTS, Part
from jaxdist.errors import InputError
from jaxdist.formatting import listed

if TYPE_CHECKING:
    from PIL import Image

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_SHALLOW = {"1": "L", "L": "L"}
"""Modes without colour, and what they are read as."""
_DEEP = ("I;16", "I;16B", "I;16L")


def folders_of(folder: Path) -> dict[Part, dict[str, list[Path]]]:
    """Picture files by split and class, all for training where no folder tells a split; empty unless there are classes.

    Raises:
      InputError: for two folders of one split.
    """
    told = [(PARTS[path.name.lower()], path) for path in _folders(folder) if path.name.lower() in PARTS]
    by_part: dict[Part, dict[str, list[Path]]] = {}
    for part, path in told or [("train", folder)]:
        if classes := _by_class(path):
            if part in by_part:
                same = listed([other.name for each, other in told if each == part])
                raise InputError(
                    f"{folder}: holds {same}, which may be the same split; expected one of each; remove one"
                )
            by_part[part] = classes
    return by_part if len(by_part.get("train", ())) > 1 else {}


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _by_class(folder: Path) -> dict[str, list[Path]]:
    by_class = {}
    for inner in _folders(folder):
        there = [path for path in sorted(inner.iterdir()) if path.suffix.lower() in _SUFFIXES and path.is_file()]
        if there:
            by_class[inner.name] = there
    return by_class


def classes_of(by_class: Mapping[str, list[Path]]) -> dict[str, int]:
    """The number of each class: its name where all are numbers from 0, else its place by name."""
    names = sorted(by_class)
    if all(name.isdecimal() for name in names):
        numbers = sorted(int(name) for name in names)
        if numbers == list(range(len(names))):
            return {name: int(name) for name in names}
        names.sort(key=int)
    return {name: k for k, name in enumerate(names)}


def listed_classes(classes: Mapping[str, int]) -> str:
    """The classes in words."""
    shown = [f"{k} {name}" for name, k in classes.items()]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


def read(by_class: Mapping[str, list[Path]], classes: Mapping[str, int], folder: Path) -> RawSplit:
    """The pictures of one split, class by class in the order of their names.

    Raises:
      InputError: for a class that is not among those of training, or pictures that are broken or of unlike sizes.
    """
    if unknown := [name for name in by_class if name not in classes]:
        raise InputError(f"{folder}: class {unknown[0]!r} is not one of training; expected {listed(list(classes))}")
    paths = [path for name in sorted(by_class, key=lambda name: classes[name]) for path in by_class[name]]
    labels = [classes[path.parent.name] for path in paths]
    images = decoded((str(path), path) for path in paths)
    return RawSplit(images, np.array(labels, np.int32), str(folder), str(folder))


def _opaque(picture: Image.Image) -> np.ndarray:
    """The pixels of a picture without transparency.

    Raises:
      ValueError: for one that has some, or pixels that would be cut off.
    """
    if picture.mode in _DEEP:
        return np.asarray(picture).astype(np.uint16)
    if picture.mode in ("I", "F"):
        raise ValueError(f"its pixels are of the mode {picture.mode!r}, which pictures of 8 or 16 bits cannot hold")
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    if transparent and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        raise ValueError("it has transparent parts, which have no colour of their own; save it opaque")
    mode = _SHALLOW.get(picture.mode, "RGB")
    return np.asarray(picture if picture.mode == mode else picture.convert(mode))


def decoded(pictures: Iterable[tuple[str, Path | IO[bytes]]]) -> np.ndarray:
    """Pictures as stored, uint8 or uint16 [N, height, width], or uint8 [N, height, width, 3] if any has a colour.

    Raises:
      InputError: for a picture that cannot be read, or another size than the first.
    """
    from PIL import Image, UnidentifiedImageError

    arrays: list[np.ndarray] = []
    size, first = (0, 0), ""
    for where, content in pictures:
        try:
            with Image.open(content) as picture:
                array = _opaque(picture)
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{where}: not a picture that can be read ({error}); copy it again or leave it out"
            ) from None
        if not arrays:
            size, first = array.shape[:2], where
        if array.shape[:2] != size:
            raise InputError(
                f"{where}: is {array.shape[1]}x{array.shape[0]} pixels, but {first} has {size[1]}x{size[0]}; expected "
                "pictures of one size; resize them"
            )
        arrays.append(array)
    deepest = {array.ndim for array in arrays}
    if len(deepest) > 1:
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, -1) for array in arrays]
    kinds = {array.dtype for array in arrays}
    if len(kinds) > 1:
        raise InputError(
            f"{first}: pictures of {listed(sorted(map(str, kinds)))} lie together; expected one pixel type"
        )
    images = np.stack(arrays)
    grey = images.ndim == 4 and bool((images == images[..., :1]).all())
    return np.ascontiguousarray(images[..., 0]) if grey else images
