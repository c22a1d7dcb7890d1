"""From stored pixels to network inputs."""

from __future__ import annotations

import numpy as np

from jaxdist.config import DataConfig
from jaxdist.data.dataset import Dataset
from jaxdist.errors import InputError


def scaled(dataset: Dataset, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 train and test inputs [N, ...] by `data.normalisation`.

    'raw' is the stored values, 'unit' divides them by ``dataset.largest``, and 'standard' is (unit - mean) / sd with
    `data.mean` and `data.sd` in units of the largest pixel, each taken from the training images where unset.
    Raises `InputError` for a mean or sd that would not be used, and for images that cannot be divided.
    """
    kind = config.normalisation
    if kind != "standard" and (config.mean is not None or config.sd is not None):
        option = "data.mean" if config.mean is not None else "data.sd"
        raise InputError(
            f"{option}: used only with data.normalisation 'standard', got '{kind}'; leave it out, or use 'standard'"
        )
    train, test = (split.images.astype(np.float32) for split in (dataset.train, dataset.test))
    if kind == "raw":
        return train, test
    if dataset.largest <= 0:
        raise InputError(
            f"data.normalisation: '{kind}' divides by the largest pixel of {dataset.name}, which is "
            f"{dataset.largest}; expected one above 0; use 'raw'"
        )
    # In place: a second float32 copy of the images would double the memory.
    for inputs in (train, test):
        inputs /= dataset.largest
    if kind == "standard":
        mean = float(train.mean(dtype=np.float64)) if config.mean is None else config.mean
        sd = float(train.std(dtype=np.float64)) if config.sd is None else config.sd
        if not sd > 0:
            raise InputError(
                f"data.sd: the standard deviation of {dataset.name} is {sd}; expected one above 0; set data.sd, or "
                "use data.normalisation 'raw' or 'unit'"
            )
        for inputs in (train, test):
            inputs -= mean
            inputs /= sd
    return train, test
