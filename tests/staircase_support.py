"""Images of many empty pixels, as real ones have, made of the embedded digits."""

from __future__ import annotations

import numpy as np

from jaxdist.data import Split

SIDE = 16


def shifted(split: Split, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """So many of a split's digits, each somewhere near the middle of a black square: [N, 256] float32, 0..240."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(split.labels), count)
    whole = np.zeros((count, SIDE, SIDE), np.float32)
    for image, digit, (down, right) in zip(whole, split.images[which], rng.binomial(8, 0.5, (count, 2)), strict=True):
        image[down : down + 8, right : right + 8] = 15 * digit.reshape(8, 8)
    return whole.reshape(count, -1), split.labels[which]
