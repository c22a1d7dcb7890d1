"""What is odd of labelled examples: refused where nothing could be told from them, otherwise a sentence for the result.

The real MNIST, Fashion-MNIST and digits have nothing odd.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdist.errors import InputError
from jaxdist.formatting import counted

MOST_NAMED = 10
"""Classes that a sentence names one by one; of more it says how many."""

Arrays = tuple[Any, np.ndarray]
"""Inputs [N, ...], or several such arrays by name, and labels [N]."""


def notes(
    splits: Mapping[str, Arrays],
    classes: int,
    *,
    what: str = "images",
    train_at: tuple[str, str] = ("train", "train"),
    one_class: bool = False,
) -> tuple[str, ...]:
    """Sentences on what is odd of the splits' inputs [N, ...] and labels (whole numbers below `classes`), often none.

    Args:
      what: the examples, as sentences call them.
      train_at: where the training inputs and labels come from, for messages.
      classes: 0 where there are none to speak of, as of tokens and of a regression.
      one_class: whether training labels that are all alike are noted instead of refused.

    Raises:
      InputError: if the training inputs are all the same, or, without `one_class`, the training labels.
    """
    x, y = splits["train"]
    if not one_class and y.min() == y.max():
        raise InputError(
            f"{train_at[1]}: every label is {y.flat[0]}, so there is nothing to tell apart; expected {what} of at "
            "least two classes; add more, or use the labels that belong to these"
        )
    distinct = {split: count_distinct(inputs) for split, (inputs, _) in splits.items()}
    if len(y) > 1 and distinct["train"] == 1:
        raise InputError(
            f"{train_at[0]}: all {len(y):,} {what} are identical, so there is nothing to tell apart; expected "
            f"different {what}; check where they come from"
        )
    constant = () if isinstance(x, Mapping) else _constant(x, what)
    return (*_repeats(splits, distinct, what), *constant, *(_classes(splits, classes, what) if classes else ()))


def count_distinct(x: Any) -> int:
    """How many of the examples x[N, ...] differ from all before them; counting ends at half of them."""
    count = len(next(iter(x.values())) if isinstance(x, Mapping) else x)
    seen: set[bytes] = set()
    for digest in digests(x):
        seen.add(digest)
        if 2 * len(seen) >= count and len(seen) > 1:
            break
    return len(seen)


def digests(x: Any) -> Iterator[bytes]:
    """A digest of each of the examples x[N, ...], so that telling them apart takes no memory for their sizes."""
    arrays = [np.ascontiguousarray(part) for part in (x.values() if isinstance(x, Mapping) else [x])]
    for row in zip(*(array.reshape(len(array), -1) for array in arrays), strict=True):
        yield hashlib.blake2b(b"".join(part.tobytes() for part in row), digest_size=16).digest()


def _repeats(splits: Mapping[str, Arrays], distinct: Mapping[str, int], what: str) -> Iterator[str]:
    for split, (_, y) in splits.items():
        if 2 * distinct[split] < len(y):
            yield f"only {distinct[split]:,} of the {len(y):,} {split} {what} {_is(distinct[split])} distinct"
        elif len(y) == 1:
            yield f"{split} is a single example"


def _constant(x: np.ndarray, what: str) -> Iterator[str]:
    """Inputs that never change, but for a background such as the corners of MNIST, which is its smallest value."""
    if len(x) == 1:
        return
    low = x.min(axis=0)
    constant = low == x.max(axis=0)
    count, marked = int(np.count_nonzero(constant)), int(np.count_nonzero(constant & (low != low.min())))
    of = counted(f"{constant.size:,}", "pixel" if what == "images" else "input")
    if 2 * count > constant.size:
        yield f"{count:,} of the {of} {_is(count)} the same in all train {what}"
    elif marked:
        same = f"{_is(marked)} the same in all train {what}, and {_is(marked)} no background"
        yield f"{marked:,} of the {of} {same}"


def _classes(splits: Mapping[str, Arrays], classes: int, what: str) -> Iterator[str]:
    present = {split: np.bincount(y.ravel(), minlength=classes)[:classes] > 0 for split, (_, y) in splits.items()}
    for split, (_, y) in splits.items():
        if y.min() == y.max():
            yield f"every {split} label is {y.flat[0]}"
    of = f"of the {counted(f'{classes:,}', 'class', 'classes')}"
    absent = ~np.any(list(present.values()), axis=0)
    if absent.any():
        yield f"{_listed(np.flatnonzero(absent))} {of}, counted from 0, never occur{_s(absent)}"
    if "test" in present:
        for split, other in (("test", "train"), ("train", "test")):
            only = present[split] & ~present[other]
            if only.any():
                yield f"{_listed(np.flatnonzero(only))} {of} occur{_s(only)} among the {split} {what} only"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _s(which: np.ndarray) -> str:
    return "s" if np.count_nonzero(which) == 1 else ""


def _listed(numbers: Sequence[int] | np.ndarray) -> str:
    if len(numbers) > MOST_NAMED:
        return f"{len(numbers):,}"
    return f"{'class' if len(numbers) == 1 else 'classes'} {', '.join(map(str, numbers))}"
