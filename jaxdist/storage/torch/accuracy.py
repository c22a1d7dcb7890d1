"""What imported networks do unedited: how many images they are right on, and whether that is more than chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxdist import data
from jaxdist.compute import Examples, devices
from jaxdist.config import Config, DataConfig
from jaxdist.data import Dataset
from jaxdist.errors import InputError
from jaxdist.formatting import all_seeds, counted, listed
from jaxdist.networks import activations, mlp
from jaxdist.sweep import Unedited, fitness, unedited
from jaxdist.types import Flags, Params

_TRIED = 10_000
"""Images on which other readings of a network are tried."""

_CLOSE = 0.01
"""Share of the images up to which two readings of a network do the same."""

_FILES_NAMED = 8
"""So many files are named one by one; of more, their number is said."""


class Accuracy(NamedTuple):
    """How often one network's seeds are right on the images of each split."""

    correct: Mapping[str, Sequence[int]]  # by split, [S]
    total: Mapping[str, int]
    largest: int  # training images of the largest class
    at_chance: Flags  # [S] on the training images, as `fitness.at_chance` defines it
    one_class: Flags  # [S] whether all training images are given the same class


def measure(networks: Mapping[str, Params], config: Config, dataset: Dataset) -> dict[str, Accuracy]:
    """Count on what images networks (leading S) are right, as a config scales them.

    Raises:
      InputError: if the networks do not take such images or do not tell so many classes.
    """
    labels = {"train": dataset.train.labels, "test": dataset.test.labels}
    total = {split: len(y) for split, y in labels.items()}
    largest = int(np.bincount(labels["train"]).max())
    accuracies = {}
    for name, params in networks.items():
        _check_shapes(params, dataset)
        images = zip(labels, data.scaled(dataset, config.data), strict=True)
        examples = {split: _placed(x, labels[split], len(params["dense0"]["weight"])) for split, x in images}
        counts = {split: _unedited(name, params, split_examples) for split, split_examples in examples.items()}
        correct = {split: np.asarray(each.correct).tolist() for split, each in counts.items()}
        at_chance = fitness.at_chance(correct["train"], total["train"], largest)
        one_class = (np.asarray(counts["train"].predicted) > 0).sum(axis=1) <= 1
        accuracies[name] = Accuracy(correct, total, largest, at_chance, one_class)
    return accuracies


def refuse_chance(
    measured: Mapping[str, Accuracy],
    networks: Mapping[str, Params],
    config: Config,
    dataset: Dataset,
    *,
    where: str,
    seeds: Sequence[int],
    files: Sequence[str] = (),
) -> None:
    """Raise `InputError` for networks that are right no more often than by chance, with what may be the reason.

    Args:
      measured: what was counted of each network, as `measure` gives it.
      networks: their parameters (leading S).
      where: what was imported, for messages.
      seeds: the numbers of the S seeds.
      files: a file for each seed of the first network, then of the second and so on; others are not named.
    """
    unfit = {name: accuracy for name, accuracy in measured.items() if accuracy.at_chance.any()}
    if not unfit:
        return
    sentences = "; ".join(_at_chance(name, accuracy, seeds) for name, accuracy in unfit.items())
    name, first = next(iter(unfit.items()))
    position = int(first.at_chance.argmax())
    tried = _tried(name, networks[name], position, config, dataset, activation=True)
    best, better = tried.best, ""
    if best and best.right > max(tried.right, tried.of // 2):
        which = "it" if len(unfit) == len(seeds) == 1 else f"seed {seeds[position]} of '{name}'"
        better = f"; with {best.option} {which} is right on {best.right} of {best.of}"
    leave_out = _leave_out(np.any([each.at_chance for each in unfit.values()], axis=0), files, len(measured))
    plural = sum(int(each.at_chance.sum()) for each in unfit.values()) > 1
    theirs = "their" if plural else "its"
    raise InputError(
        f"{where}: {sentences}{better}; expected {'trained networks' if plural else 'a trained network'}; "
        f"{leave_out}check the order of {theirs} layers (--layers), {theirs} activation (--model.activations), how "
        f"{theirs} images were scaled (--data.normalisation), and whether {theirs} weights are [units, inputs] and "
        f"the labels are {theirs} own, or, if this is intended, pass --allow-chance true"
    )


def _at_chance(name: str, accuracy: Accuracy, seeds: Sequence[int]) -> str:
    """Which seeds of a network are at chance, how, and what the others are."""
    unfit = np.flatnonzero(accuracy.at_chance).tolist()
    others = np.flatnonzero(~accuracy.at_chance).tolist()
    of = accuracy.total["train"]
    if len(seeds) == 1:
        subject, verb, gives = f"network '{name}' is", "is", "gives"
    else:
        named = f"{all_seeds(len(seeds))} are" if not len(others) else fitness.seed_words([seeds[s] for s in unfit])
        subject, verb = f"network '{name}': {named}", named.rpartition(" ")[2]
        gives = "gives" if len(unfit) == 1 else "each give"
    if of > 1 and accuracy.one_class[unfit].all():
        how = f"{gives} all of them the same class"
    else:
        how = f"{verb} at chance, since the largest class alone has {counted(accuracy.largest, 'image')}"
    right = f"right on {_span(accuracy, unfit)} of {counted(of, 'unedited train image')}"
    beside = ""
    if len(others):
        rest = "the other seed is" if len(others) == 1 else f"the other {len(others)} seeds are"
        beside = f", where {rest} not at chance but right on {_span(accuracy, others)}"
    return f"{subject} {right} and {how}{beside}"


def _span(accuracy: Accuracy, positions: Sequence[int]) -> str:
    """On how many training images some seeds are right, from the fewest to the most."""
    counts = [accuracy.correct["train"][s] for s in positions]
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _leave_out(unfit: Flags, files: Sequence[str], networks: int) -> str:
    """What to import without, where some seeds [S] are unfit, others are not, and each has a file of its own."""
    if unfit.all() or len(files) != networks * len(unfit):
        return ""
    without = [files[k] for k in np.flatnonzero(np.tile(unfit, networks)).tolist()]
    few = len(without) <= _FILES_NAMED
    what = (
        listed(without) if few else f"the {counted(len(without), 'file')} of {counted(int(unfit.sum()), 'such seed')}"
    )
    return f"import without {what}, or "


def advice(networks: Mapping[str, Params], config: Config, dataset: Dataset, *, activation: bool) -> list[str]:
    """Notes on how else networks may be read, by their first seed.

    Args:
      networks: stacked parameters by activation.
      config: how they are read.
      dataset: images, scaled otherwise as well.
      activation: also try other activations.
    """
    notes = []
    for name, params in networks.items():
        tried = _tried(name, params, 0, config, dataset, activation=activation)
        best, close = tried.best, _CLOSE * tried.of
        several = len(params["dense0"]["weight"]) > 1
        right = f"right on {tried.right} of {counted(tried.of, 'train image')}"
        if best and best.right > tried.right + close:
            notes.append(
                f"{'the first seed of ' if several else ''}network '{name}' is {right} as it is read, but on "
                f"{best.right} with {best.option}, so check what it was trained with"
            )
        elif activation:
            like = [f"{each.value} on {each.right}" for each in tried.activations if each.right >= tried.right - close]
            if like:
                notes.append(
                    f"the activation {name} is known from --model.activations alone, and accuracy does not confirm it: "
                    f"the {'first seed' if several else 'network'} is {right}, and with {', '.join(like)}"
                )
    return notes


def words(name: str, accuracy: Accuracy) -> str:
    """One network's counts in one line."""
    parts = []
    for split, counts in accuracy.correct.items():
        of = accuracy.total[split]
        share = f"{100 * float(np.mean(counts)) / of:.2f} %"
        images = f"of {counted(of, f'{split} image')}"
        if len(counts) == 1:
            parts.append(f"{counts[0]} {images} ({share})")
        elif min(counts) == max(counts):
            parts.append(f"{counts[0]} {images} each ({share})")
        else:
            parts.append(f"{min(counts)} to {max(counts)} {images} (mean {share})")
    return f"{name}: right on {' and '.join(parts)} unedited"


class _Reading(NamedTuple):
    """What a network does if it is read otherwise."""

    right: int
    of: int
    field: str
    value: str

    @property
    def option(self) -> str:
        return f"--{self.field} {self.value}"


class _Tried(NamedTuple):
    """How many images a network is right on as it is read, and what it does if it is read otherwise."""

    right: int
    of: int
    readings: tuple[_Reading, ...]

    @property
    def best(self) -> _Reading | None:
        """That by which most images are right; images without a positive pixel can be scaled in no other way."""
        return max(self.readings, key=lambda reading: reading.right, default=None)

    @property
    def activations(self) -> list[_Reading]:
        """Those by other activations, the best first."""
        others = [reading for reading in self.readings if reading.field == "model.activations"]
        return sorted(others, key=lambda reading: -reading.right)


def _tried(name: str, params: Params, seed: int, config: Config, dataset: Dataset, *, activation: bool) -> _Tried:
    """One seed with the images scaled otherwise and, on request, with other activations, on the first train images."""
    params = jax.tree.map(lambda leaf: leaf[seed : seed + 1], params)
    part = _first(dataset)

    def right(network: str, settings: DataConfig) -> int:
        examples = _placed(data.scaled(part, settings)[0], part.train.labels, 1)
        correct = _unedited(network, params, examples).correct
        assert correct is not None, network
        return int(correct[0])

    of = len(part.train.labels)
    varied = part.train.images.min() < part.train.images.max()
    scalings = (
        "raw",
        *(("unit",) if part.largest > 0 else ()),
        *(("standard",) if part.largest > 0 and varied else ()),
    )

    def readings() -> Iterator[_Reading]:
        for kind in scalings:
            if kind != config.data.normalisation:
                settings = dataclasses.replace(config.data, normalisation=kind, mean=None, sd=None)
                yield _Reading(right(name, settings), of, "data.normalisation", kind)
        for other in activations.names() if activation and name in activations.names() else ():
            if other != name and not activations.get(other).parameters:
                yield _Reading(right(other, config.data), of, "model.activations", other)

    return _Tried(right(name, config.data), of, tuple(readings()))


def _first(dataset: Dataset) -> Dataset:
    """A data set with its first training images only, and none to test."""
    images, labels = (array[:_TRIED] for array in dataset.train)
    train = data.Split(images, labels)
    return Dataset(dataset.name, train, train, dataset.classes, dataset.largest, dataset.source)


def _check_shapes(params: Params, dataset: Dataset) -> None:
    *_, inputs = params["dense0"]["weight"].shape
    last = params[f"dense{len(params) - 1}"]
    outputs = next(iter(last.values())).shape[1]
    pixels = int(np.prod(dataset.train.images.shape[1:]))
    if (inputs, outputs) != (pixels, dataset.classes):
        raise InputError(
            f"the networks have {counted(inputs, 'input')} and {counted(outputs, 'class', 'classes')}, but images of "
            f"{dataset.name} have {counted(pixels, 'pixel')} and {counted(dataset.classes, 'class', 'classes')}; pass "
            "the images they were trained on with --data.name and --data.dir, or transpose the weights if they are "
            "[inputs, units]"
        )


def _placed(x: np.ndarray, labels: np.ndarray, seeds: int) -> Examples:
    return devices.place(x.reshape(len(x), -1), labels, devices.make_mesh(seeds=seeds))


def _unedited(name: str, params: Params, examples: Examples) -> Unedited:
    """What networks of an activation (leading S) do on images."""
    return unedited.measure(mlp.model(name, len(params) - 1), params, examples)
