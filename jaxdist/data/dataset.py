"""What a data set is, and the checks that every data set passes whichever way it was read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxdist.data import oddities
from jaxdist.errors import InputError
from jaxdist.formatting import counted

KNOWN_CLASSES = {"digits": 10, "mnist": 10, "fashion_mnist": 10}
"""The number of classes of each known data set, whichever of them a file happens to hold."""

_MOST_CLASSES = np.iinfo(np.int32).max


class Split(NamedTuple):
    """One split: `images` [N, ...] as stored (a single channel dropped), `labels` int32 [N], both read-only."""

    images: np.ndarray
    labels: np.ndarray


class RawSplit(NamedTuple):
    """One split as read, not yet checked; `images_at` and `labels_at` say where each came from, for messages."""

    images: np.ndarray
    labels: np.ndarray
    images_at: str
    labels_at: str


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its train and test splits.

    `classes` is the number of classes, `largest` the largest possible pixel in stored units (255 for uint8; the largest
    of the training images where the type sets no limit), `source` one sentence on where it came from, `train_at` where
    the training images and labels lie.
    """

    name: str
    train: Split
    test: Split
    classes: int
    largest: float
    source: str
    train_at: tuple[str, str] = ("train", "train")

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what is odd of it; raises `InputError` where there is nothing to learn, as `oddities.notes`."""
        return oddities.notes({"train": self.train, "test": self.test}, self.classes, train_at=self.train_at)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over the type, shape and little-endian C-order bytes of the four arrays."""
        hasher = hashlib.sha256()
        for array in (*self.train, *self.test):
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            hasher.update(f"{little.dtype.str}{little.shape}".encode())
            hasher.update(little.data.cast("B"))
        return hasher.hexdigest()


@contextmanager
def accessible() -> Iterator[None]:
    """Turn an `OSError` on a file or folder into an `InputError` that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or 'the data'}: cannot be used ({error.strerror or error}); expected a readable file or "
            "folder; correct its name or its permissions"
        ) from None


def assemble(name: str, train: RawSplit, test: RawSplit, source: str, *, largest: float | None = None) -> Dataset:
    """Check two raw splits and make a `Dataset` of them.

    Args:
      name: of the data set; one of `KNOWN_CLASSES` has as many classes, others as many as their training labels say.
      train, test: splits as read.
      source: one sentence on where they came from.
      largest: the largest possible pixel in stored units; by default as `Dataset` says.

    Raises:
      InputError: for anything that cannot be used.
    """
    train, test = checked(train), checked(test)
    for what, ours, theirs in (
        ("shape", _size(train.images), _size(test.images)),
        ("pixel type", train.images.dtype, test.images.dtype),
    ):
        if ours != theirs:
            raise InputError(
                f"{test.images_at}: images of {what} {theirs}, but {train.images_at} has {ours}; expected the same in "
                "both splits; use files from one data set"
            )
    classes = KNOWN_CLASSES.get(name) or _count_classes(train)
    for split in (train, test):
        _check_labels(split, classes, name)
    if largest is None:
        largest = _largest(train.images)
    where = (train.images_at, train.labels_at)
    return Dataset(name, _frozen(train), _frozen(test), classes, largest, source, where)


def checked(raw: RawSplit) -> RawSplit:
    """Return `raw` with a single channel dropped and its labels as classes, after the checks of one split.

    Raises:
      InputError: for images or labels of other forms.
    """
    images, labels = raw.images, _as_classes(raw.labels)
    if not images.size:
        raise InputError(
            f"{raw.images_at}: an array of shape {images.shape} holds no images; expected at least one image of at "
            "least one pixel; get the file again"
        )
    if images.ndim < 2 or images.dtype.kind not in "uif":
        raise InputError(
            f"{raw.images_at}: {images.dtype} of shape {images.shape} is not a list of images; expected numbers of "
            "shape [images, height, width] or [images, height, width, channels]; use an image file"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise InputError(
            f"{raw.labels_at}: {labels.dtype} of shape {labels.shape} is not a list of labels; expected one whole "
            f"number per image; {_instead_of(labels)}"
        )
    if len(images) != len(labels):
        raise InputError(
            f"{raw.images_at} holds {counted(len(images), 'image')} but {raw.labels_at} holds "
            f"{counted(len(labels), 'label')}; expected one label per image; use two files of the same split"
        )
    if images.dtype.kind == "f":
        _check_finite(images, raw.images_at)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    return raw._replace(images=images, labels=labels)


def _as_classes(labels: np.ndarray) -> np.ndarray:
    """Labels of forms that mean the same: one column, one-hot rows, whole numbers as floats; others as they are."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    one_hot = labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "buif"
    if one_hot and ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all():
        return labels.argmax(axis=1)
    if labels.dtype.kind == "f" and labels.ndim == 1 and (np.abs(labels) < 2**31).all():
        whole = labels.astype(np.int64)
        return whole if (whole == labels).all() else labels
    return labels


def _instead_of(labels: np.ndarray) -> str:
    """What to do about an array that is not a list of labels."""
    return "save only the column with the classes" if labels.ndim == 2 else "use a label file"


def _check_finite(images: np.ndarray, where: str) -> None:
    # Networks take float32, so a float64 value beyond its range is as unusable as an infinity.
    bad = ~(np.abs(images) <= np.finfo(np.float32).max)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{where}: the pixel at {list(index)} is {images[index]}; expected only finite float32 values; repair the "
            "file"
        )


def _count_classes(train: RawSplit) -> int:
    classes = int(train.labels.max()) + 1
    if classes < 2:
        raise InputError(f"{train.labels_at}: no label is above 0; expected at least 2 classes, numbered from 0")
    return classes


def _check_labels(raw: RawSplit, classes: int, name: str) -> None:
    most = min(classes, _MOST_CLASSES) - 1
    bad = (raw.labels < 0) | (raw.labels > most)
    if bad.any():
        index = int(bad.argmax())
        bad_label = int(raw.labels[index])
        raise InputError(
            f"{raw.labels_at}: label {bad_label} at index {index} is not a class; expected 0 to {most}; repair the "
            "file or use files that belong to one data set"
            + (
                f", or set data.name to something other than '{name}'"
                if name in KNOWN_CLASSES and bad_label > most
                else ""
            )
        )


def _largest(images: np.ndarray) -> float:
    return float(np.iinfo(images.dtype).max if images.dtype.kind == "u" else images.max())


def _frozen(raw: RawSplit) -> Split:
    """Read-only arrays, so that a data set's digest stays true."""
    arrays = np.ascontiguousarray(raw.images).view(), raw.labels.astype(np.int32)
    for array in arrays:
        array.flags.writeable = False
    return Split(*arrays)


def _size(images: np.ndarray) -> str:
    return "x".join(map(str, images.shape[1:]))
