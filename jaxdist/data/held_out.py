"""A test split for data that has none."""

from __future__ import annotations

import numpy as np

from jaxdist.data.dataset import RawSplit
from jaxdist.errors import InputError

SHARE = 0.2
"""Of each class, the share of examples that is held out."""


def held_out(whole: RawSplit) -> tuple[RawSplit, RawSplit]:
    """Split examples in two, a fifth of each class for the test, by scikit-learn's `train_test_split` with the seed 0.

    Both keep the order of the examples.

    Raises:
      InputError: if labels are no list of classes, or a class has a single example.
    """
    from sklearn.model_selection import train_test_split

    labels = np.asarray(whole.labels)
    if labels.ndim != 1 or len(labels) != len(whole.images):
        return whole, whole  # the checks of every data set say what is wrong
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise InputError(
            f"{whole.labels_at}: class {classes[counts.argmin()]} has a single example, so that none can be held out "
            "for the test; add a test split, or more examples"
        )
    held = max(round(SHARE * len(labels)), len(classes))
    rows = np.arange(len(labels))
    train, test = (np.sort(part) for part in train_test_split(rows, test_size=held, random_state=0, stratify=labels))
    return tuple(  # type: ignore[return-value]  # two of them
        RawSplit(whole.images[part], labels[part], whole.images_at, whole.labels_at) for part in (train, test)
    )
