"""What is in a data set, in lines for people: counts, classes, pixels, repeats, and what each scaling makes of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxdist.data import oddities
from jaxdist.data.dataset import Dataset
from jaxdist.formatting import counted, percent

_ROWS = 30
"""Classes that are listed one by one."""


class Description(NamedTuple):
    """Numbers of a data set."""

    dataset: Dataset
    per_class: dict[str, np.ndarray]
    """Images of each class, by split."""
    constant: int
    """Pixels that are the same in all training images."""
    repeated: dict[str, int]
    """Images of each split that are equal to an earlier one of it."""
    shared: int
    """Test images that are equal to a training image."""

    def lines(self) -> list[str]:
        """The description, a line each."""
        dataset = self.dataset
        train, test = dataset.train.images, dataset.test.images
        shape = "x".join(map(str, train.shape[1:]))
        pixels = int(np.prod(train.shape[1:]))
        lines = [
            f"{len(train):,} train and {len(test):,} test images of {shape} ({counted(f'{pixels:,}', 'input')}), "
            f"{train.dtype}, {counted(dataset.classes, 'class', 'classes')}",
            dataset.source,
            f"pixels: {train.min():g} to {train.max():g}; {self.constant:,} of {pixels:,} the same in all train images",
            f"repeats: {self.repeated['train']:,} train and {self.repeated['test']:,} test images equal an earlier "
            f"one of their split, {self.shared:,} test images ({percent(self.shared / len(test))} %) to a train image",
            "",
            f"{'class':>8} {'train':>8} {'test':>8}",
        ]
        for k in range(min(dataset.classes, _ROWS)):
            lines.append(f"{k:>8} {self.per_class['train'][k]:>8,} {self.per_class['test'][k]:>8,}")
        if dataset.classes > _ROWS:
            lines.append(f"and {counted(dataset.classes - _ROWS, 'more class', 'more classes')}")
        lines += ["", *(f"note: {note}" for note in dataset.notes), *_scalings(dataset)]
        return lines


def describe(dataset: Dataset) -> Description:
    """Measure what `Description` shows; reads every image once."""
    digests = {split: list(oddities.digests(getattr(dataset, split).images)) for split in ("train", "test")}
    in_training = set(digests["train"])
    train = dataset.train.images.reshape(len(dataset.train.images), -1)
    return Description(
        dataset,
        {split: np.bincount(getattr(dataset, split).labels, minlength=dataset.classes) for split in ("train", "test")},
        int((train.min(axis=0) == train.max(axis=0)).sum()),
        {split: len(each) - len(set(each)) for split, each in digests.items()},
        sum(digest in in_training for digest in digests["test"]),
    )


def _scalings(dataset: Dataset) -> list[str]:
    """What `data.normalisation` may be, and what it makes of these images."""
    images = dataset.train.images
    of_type = images.dtype.kind == "u" and dataset.largest == np.iinfo(images.dtype).max
    limit = "the most that its type holds" if of_type else "the largest pixel value"
    lines = [
        "data.normalisation:",
        f"  raw (the default, as in the paper's code): {images.min():g} to {images.max():g}, as stored",
    ]
    if dataset.largest > 0:
        low, high = images.min() / dataset.largest, images.max() / dataset.largest
        mean = float(images.mean(dtype=np.float64)) / dataset.largest
        sd = float(images.std(dtype=np.float64)) / dataset.largest
        lines.append(f"  unit: {low:g} to {high:g}, divided by {dataset.largest:g}, {limit}")
        if sd > 0:
            lines.append(
                f"  standard: {(low - mean) / sd:.3g} to {(high - mean) / sd:.3g}, less the mean {mean:.4f}, divided "
                f"by the standard deviation {sd:.4f} (of unit)"
            )
    return lines
