"""A picture with examples of each class of a data set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jaxdist import files
from jaxdist.data import Dataset
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.report.figures import new_figure, style

COLUMNS = 12
"""Examples of each class."""

_CLASSES = 30
"""Classes that are drawn."""

_FORMATS = (".png", ".svg", ".pdf")


def draw(dataset: Dataset, path: Path) -> None:
    """Draw the first training images of each class, a row each, into a file.

    Images that are stored as a row of numbers are drawn as squares where their number is one.

    Raises:
      InputError: for a file of another kind, or images that are no pictures.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"--picture: {path} ends in {path.suffix or 'nothing'!r}; expected {', '.join(_FORMATS)}")
    images, labels = dataset.train.images, dataset.train.labels
    pictures = _as_pictures(images, dataset.name)
    classes = min(dataset.classes, _CLASSES)
    with style(8):
        figure = new_figure((0.5 + 0.42 * COLUMNS, 0.3 + 0.42 * classes))
        axes = figure.subplots(classes, COLUMNS, squeeze=False)
        low, high = float(images.min()), float(images.max())
        for k in range(classes):
            rows = np.flatnonzero(labels == k)[:COLUMNS]
            for column, ax in enumerate(axes[k]):
                ax.set_xticks([])
                ax.set_yticks([])
                for spine in ax.spines.values():
                    spine.set_visible(False)
                if column < len(rows):
                    picture = np.float64(pictures[rows[column]])
                    shown = (picture - low) / (high - low) if high > low else picture
                    ax.imshow(
                        shown, cmap="gray_r" if pictures.ndim == 3 else None, vmin=0, vmax=1, interpolation="nearest"
                    )
            axes[k, 0].set_ylabel(str(k), rotation=0, ha="right", va="center", labelpad=6)
        if dataset.classes > classes:
            figure.supxlabel(f"the first {classes} of {counted(dataset.classes, 'class', 'classes')}")
        with files.aside(path) as aside:
            figure.savefig(aside, format=path.suffix[1:].lower(), dpi=200)


def _as_pictures(images: np.ndarray, name: str) -> np.ndarray:
    """Images [N, height, width] or with three colours last."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3):
        images = np.moveaxis(images, 1, -1)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3):
        return images
    side = math.isqrt(images.shape[-1])
    if images.ndim == 2 and side**2 == images.shape[-1]:
        return images.reshape(-1, side, side)
    raise InputError(f"{name}: an example has shape {images.shape[1:]}, which is no picture; leave out --picture")
