"""A user's examples in batches that are read in every pass: what may be iterated again and gives pairs (x, y).

One batch at a time is held. The first pass checks every batch and counts; each later one has to give the same examples,
in any order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxdist.data import own_data
from jaxdist.errors import InputError
from jaxdist.formatting import counted

_MULTIPLIERS = tuple(np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9))


class Digest:
    """SHA-256 of examples in their order, whatever the batches that they come in."""

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.kinds: list[str] = []
        self.count = 0

    def add(self, x: Any, y: np.ndarray) -> None:
        """Go on with inputs and labels."""
        leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves((x, y))]
        if not self.parts:
            self.parts = [hashlib.sha256() for _ in leaves]
            self.kinds = [f"{leaf.dtype.name}{leaf.shape[1:]}" for leaf in leaves]
        for part, leaf in zip(self.parts, leaves, strict=True):
            part.update(leaf.reshape(-1).view(np.uint8))  # types such as bfloat16 have no buffers
        self.count += len(leaves[0])

    @property
    def hexadecimal(self) -> str:
        """The digest."""
        told = [f"{self.count}", *self.kinds, *(part.hexdigest() for part in self.parts)]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()


@dataclasses.dataclass
class Batches:
    """A split's examples, given by `make` anew for each pass."""

    split: str
    make: Callable[[], Any]
    sample: tuple[Any, np.ndarray]
    """The first batch: inputs as arrays, and labels as they are."""
    labels: Callable[[np.ndarray, int, str], np.ndarray] | None = None
    """Makes labels of a batch, given with the number of its inputs and its name, as numbers."""
    total: int = 0
    """Examples, known after `survey`."""
    tokens: int = 0
    """Labels that count, as of tokens."""
    digest: str = ""
    checksum: int = 0

    def survey(self, labels: Callable[[np.ndarray, int, str], np.ndarray]) -> None:
        """Check and count all batches, whose labels are made by a function, in a first pass.

        Raises:
          InputError: for the first batch that cannot be used, and for examples that are all the same.
        """
        self.labels, digest, checksum = labels, Digest(), 0
        least, most = np.uint64(2**64 - 1), np.uint64(0)
        for x, y in self._batches():
            digest.add(x, y)
            self.tokens += int(np.count_nonzero(y >= 0))
            each, inputs = _hashes((x, y)), _hashes(x)
            least, most = min(least, inputs.min()), max(most, inputs.max())
            checksum = (checksum + int(each.sum(dtype=np.uint64))) % 2**64
        self.total, self.digest, self.checksum = digest.count, digest.hexadecimal, checksum
        if self.total >= 2**31:
            raise InputError(f"{self.split}: expected fewer than 2**31 examples, got {self.total:,}")
        if self.split == "train" and self.total > 1 and least == most:
            raise InputError(
                f"train: all {self.total:,} examples are identical, so there is nothing to tell apart; expected "
                "different examples; check where they come from"
            )

    def read(self) -> Iterator[tuple[Any, np.ndarray]]:
        """The batches of a later pass: inputs, and labels as numbers.

        Raises:
          InputError: where they are not the examples of the first pass.
        """
        total, checksum = 0, 0
        for x, y in self._batches():
            total += len(y)
            checksum = (checksum + int(_hashes((x, y)).sum(dtype=np.uint64))) % 2**64
            yield x, y
        if (total, checksum) != (self.total, self.checksum):
            raise InputError(
                f"{self.split}: the batches differ when they are read again ({counted(total, 'example')}, "
                f"{self.total} the first time); return the same examples in every pass, without random augmentation"
            )

    def _batches(self) -> Iterator[tuple[Any, np.ndarray]]:
        assert self.labels is not None
        for k, (x, y) in enumerate(_pairs(self.make(), self.split)):
            if _kind(x) != _kind(self.sample[0]) or y.shape[1:] != self.sample[1].shape[1:]:
                raise InputError(
                    f"{self.split}: batch {k} has {_words(x, y)} per example, but batch 0 has "
                    f"{_words(*self.sample)}; batches may differ only in their number of examples"
                )
            yield x, self.labels(y, len(jax.tree.leaves(x)[0]), f"{self.split}, batch {k}")


def batches_of(given: Any, split: str) -> Batches | None:
    """The batches that are given in place of two arrays; None where those are.

    Raises:
      InputError: for what can be read only once, and for no batch.
    """
    make = given if _makes(given) else (lambda: given) if _iterates(given, split) else None
    if make is None:
        return None
    try:
        inspect.signature(make).bind()
    except TypeError:
        raise InputError(
            f"{split}: expected a function without arguments that returns batches (x, y); pass one, such as a lambda"
        ) from None
    except ValueError:  # a function that does not tell its arguments
        pass
    batches = make()
    if make is given and not hasattr(batches, "__iter__"):
        raise InputError(
            f"{split}: expected a function that returns batches (x, y), got one that returns {type(batches).__name__}"
        )
    for x, y in _pairs(batches, split):
        return Batches(split, make, (x, y))
    raise InputError(f"{split}: expected at least one batch of examples, got none")


def _makes(given: Any) -> bool:
    """Whether this is a function of no arguments, and nothing that gives batches or values itself."""
    return callable(given) and not hasattr(given, "__iter__") and not hasattr(given, "__array__")


def _iterates(given: Any, split: str) -> bool:
    """Whether this gives batches, and no inputs and labels."""
    if isinstance(given, (tuple, Mapping, str, bytes)) or hasattr(given, "__array__") or not hasattr(given, "__iter__"):
        return False
    if isinstance(given, list):
        # Of two things, a list of inputs and one of labels; but for two batches, which are tuples of arrays.
        pairs = bool(given) and all(isinstance(each, (tuple, list)) and len(each) == 2 for each in given)
        arrays = pairs and all(hasattr(part, "shape") or isinstance(part, Mapping) for each in given for part in each)
        return pairs if len(given) != 2 else arrays
    if hasattr(given, "__next__") or iter(given) is given:
        raise InputError(
            f"{split}: a {type(given).__name__} can be read only once, but every measurement reads the examples "
            "again; pass a function that returns a new one"
        )
    return True


def _pairs(batches: Any, split: str) -> Iterator[tuple[Any, np.ndarray]]:
    for k, batch in enumerate(batches):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            count = f" of {len(batch)}" if isinstance(batch, (tuple, list, Mapping)) else ""
            raise InputError(
                f"{split}: expected batches of inputs and labels, (x, y), got {type(batch).__name__}{count} as "
                f"batch {k}"
            )
        x, y = own_data.pair(batch, f"{split}, batch {k}")
        if y.shape[:1] != (len(jax.tree.leaves(x)[0]),):
            raise InputError(
                f"{split}: expected a label for each of {counted(len(jax.tree.leaves(x)[0]), 'input')} of batch {k}, "
                f"got labels of shape {y.shape}"
            )
        yield x, y


def _kind(x: Any) -> tuple[Any, ...]:
    return (jax.tree.structure(x), *((leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(x)))


def _words(x: Any, y: np.ndarray) -> str:
    inputs = " and ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in jax.tree.leaves(x))
    return f"inputs of {inputs}, labels of {list(y.shape[1:])}"


def _hashes(tree: Any) -> np.ndarray:
    """A number [n] of each example, from all its bytes: equal for equal ones, and hardly for others."""
    leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(tree)]
    total = np.zeros(len(leaves[0]), np.uint64)
    first, second = _MULTIPLIERS
    for k, leaf in enumerate(leaves):
        raw = leaf.reshape(len(leaf), -1).view(np.uint8)
        raw = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4))).view(np.uint32).astype(np.uint64)
        with np.errstate(over="ignore"):
            places = np.arange(1, raw.shape[1] + 1, dtype=np.uint64) * first + np.uint64(k)
            mixed = (raw + places) * (places ^ second)
            mixed ^= mixed >> np.uint64(29)
            total = (total * first) ^ (mixed * second).sum(axis=1, dtype=np.uint64)
    return total
