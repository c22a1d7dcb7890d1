"""Whether the files of one network are seeds, each a training of its own, or were saved along one training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdist.errors import InputError
from jaxdist.storage.torch import contents, names
from jaxdist.types import Params

ALIKE = 0.3
"""Cosine of two networks' weights above which they have a common beginning; of independent seeds it is about 0."""

_FEW = 2.0
"""Divided by the root of the hidden units, the same in small networks, of which some units of two seeds are alike."""


class Source(NamedTuple):
    """One file of a network's seeds."""

    path: Path
    place: Path
    """Below the folder that was given, or that all files lie in."""
    checkpoint: contents.Network


def check_places(sources: Sequence[Source], where: str) -> None:
    """Raise `InputError` where names of a network's files, or entries in them, tell that they are of one training."""
    if pair := names.of_one_training([each.place for each in sources]):
        tell = "their names differ in when they were saved"
    elif pair := _progressed(sources):
        tell = "they say so by " + " and ".join(_entries(sources[k].checkpoint.progress) for k in pair)
    else:
        return
    raise _of_one_training(where, [sources[k].place.as_posix() for k in pair], tell)


def check_weights(sources: Sequence[Source], params: Params, where: str, *, as_seeds: bool) -> None:
    """Refuse networks that are equal or, unless `as_seeds`, begin alike.

    Args:
      sources: the file of each seed [S], or the one that has all.
      params: stacked, with a leading S.
      where: what is imported, for messages.
      as_seeds: the files are a training each, though they look like moments of one.

    Raises:
      InputError: for the first such pair.
    """
    leaves = [layer["weight"] for layer in params.values()]
    count = len(leaves[0])
    labels = [each.place.as_posix() for each in sources]
    if len(labels) != count:
        labels = [f"network {k} of {labels[0]}" for k in range(count)]
    if pair := _identical_pair(params, count):
        raise InputError(
            f"{where}: {labels[pair[0]]} and {labels[pair[1]]} hold the same weights, which count only once; expected "
            "a separate training for each seed; leave one of them out"
        )
    if not as_seeds and (pair := _alike(leaves)):
        raise _of_one_training(where, [labels[k] for k in pair], "their weights begin alike")


def _of_one_training(where: str, files: Sequence[str], tell: str) -> InputError:
    return InputError(
        f"{where}: {' and '.join(files)} seem to come from one training, since {tell}; expected a separate training "
        "for each seed; pass the file of one stage only, or, if they are separate trainings, --as-seeds true"
    )


def _identical_pair(params: Params, count: int) -> tuple[int, int] | None:
    """Two networks with the same parameters, if any have."""
    first: dict[bytes, int] = {}
    for k in range(count):
        content = b"".join(leaf[k].tobytes() for layer in params.values() for leaf in layer.values())
        if first.setdefault(content, k) != k:
            return first[content], k
    return None


def _progressed(sources: Sequence[Source]) -> tuple[int, int] | None:
    """Two files whose entries on their training's progress differ, where no numbers of seeds tell them apart."""
    read = [names.told(each.place) for each in sources]
    numbers = [each.number for each in read]
    seeds = None not in numbers and len(set(numbers)) == len(numbers)
    for k, each in enumerate(sources):
        progress = each.checkpoint.progress
        if not progress:
            continue
        counts = numbers[k] is not None and numbers[k] in progress.values()
        others = [j for j in range(k) if sources[j].checkpoint.progress not in ({}, progress)]
        if others and (not seeds or counts):
            return others[0], k
    return None


def _alike(weights: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """Two networks whose weights [S, units, inputs], less the means of units and inputs, point the same way."""
    count = len(weights[0])
    # What all units have in common, such as a mean image, they have in common with other seeds' too.
    centred = [w - w.mean(-1, keepdims=True) for w in weights]
    centred = [w - w.mean(-2, keepdims=True) for w in centred]
    flat = np.concatenate([w.reshape(count, -1) for w in centred], axis=1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(norms > 0, norms, 1)
    cosines = np.triu(unit @ unit.T, 1)
    hidden = max(1, sum(w.shape[-2] for w in weights[:-1]))
    if count < 2 or cosines.max() <= max(ALIKE, _FEW / np.sqrt(hidden)):
        return None
    first, second = np.unravel_index(cosines.argmax(), cosines.shape)
    return int(first), int(second)


def _entries(progress: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:g}" for name, value in progress.items())


def base_of(paths: Sequence[Path]) -> Path:
    """The innermost folder that holds all files."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))
