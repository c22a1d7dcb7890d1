"""A test split for data that has none."""

from __future__ import annotations

import numpy as np

from jaxdist.data.dataset import RawSplit, checked
from jaxdist.errors import InputError

HELD_OUT = "a fifth of each class was held out for it, drawn at random with seed 0"
"""What is said of a test split that was made so."""

SHARE = 0.2
"""Of each class, the share of examples that is held out."""


def held_out(whole: RawSplit) -> tuple[RawSplit, RawSplit]:
    """Split examples in two, a fifth of each class for the test, at least one, drawn at random with the seed 0.

    Both keep the order of the examples.

    Raises:
      InputError: if they are no images with a class each, or a class has a single example.
    """
    whole = checked(whole)
    labels = whole.labels
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise InputError(
            f"{whole.labels_at}: class {classes[counts.argmin()]} has a single example, so that none can be held out "
            "for the test; add a test split, or more examples"
        )
    held = np.zeros(len(labels), bool)
    rng = np.random.default_rng(0)
    for label, count in zip(classes, counts, strict=True):
        held[rng.permutation(np.flatnonzero(labels == label))[: max(1, round(SHARE * count))]] = True
    train, test = (
        RawSplit(whole.images[part], labels[part], whole.images_at, whole.labels_at) for part in (~held, held)
    )
    return train, test
