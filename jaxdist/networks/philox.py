"""PyTorch's stream of uniform numbers on a CUDA device, by NumPy alone.

PyTorch draws there by curand's Philox4x32-10, whose key is the seed and whose counter says which call, which turn of a
thread and which thread an element belongs to. How many threads share a call depends on the device, so that large
arrays are drawn differently by small devices.

Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3"; the bounds of `uniform_` are PyTorch's.
"""

from __future__ import annotations

import math

import numpy as np

THREADS = 256
"""Threads of a block, of which each draws four numbers a turn."""

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counters: np.ndarray, seed: int) -> np.ndarray:
    """The four words [N, 4] of Philox4x32-10, uint32, at counters [N, 4], uint32; the key is `seed`, below 2**64.

    >>> [f"{word:08x}" for word in philox(np.zeros((1, 4), np.uint32), 0)[0]]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    first, second, third, fourth = np.asarray(counters, np.uint64).T
    keys = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        one, other = (np.uint64(by) * word for by, word in zip(_MULTIPLIERS, (first, third), strict=True))
        first, second = (other >> _HALF) ^ second ^ np.uint64(keys[0]), other & _LOW
        third, fourth = (one >> _HALF) ^ fourth ^ np.uint64(keys[1]), one & _LOW
        keys = (keys[0] + _WEYL[0]) & 0xFFFFFFFF, (keys[1] + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([first, second, third, fourth], axis=1).astype(np.uint32)


class Stream:
    """The numbers that a device draws after ``torch.manual_seed(seed)``, call by call.

    `blocks` are those of 256 threads that the device holds at once: its multiprocessors times the threads of each over
    256. An array of fewer elements than all these threads is drawn alike by every device.
    """

    def __init__(self, seed: int, blocks: int) -> None:
        self.seed = seed
        self.blocks = blocks
        self._turns = 0

    def skip(self, size: int) -> None:
        """Leave out a call of `size` elements."""
        self._turns += self._turns_of(size)

    def uniform(self, size: int, bound: float) -> np.ndarray:
        """What ``uniform_(-bound, bound)`` gives an array of `size` elements, float32."""
        threads = THREADS * self._grid(size)
        turn, thread = np.divmod(np.arange(self._turns_of(size) * threads), threads)
        counters = np.zeros((len(turn), 4), np.uint32)
        counters[:, 0], counters[:, 1] = (self._turns + turn) & 0xFFFFFFFF, (self._turns + turn) >> 32
        counters[:, 2] = thread
        # In a turn, every thread gives its first word before any gives its second.
        words = philox(counters, self.seed).reshape(-1, threads, 4).swapaxes(1, 2).ravel()[:size]
        self.skip(size)
        # In (0, 1], by a multiplication and an addition with one rounding; in float64 the product is exact.
        unit = (words.astype(np.float32).astype(np.float64) * 2.0**-32 + 2.0**-33).astype(np.float32)
        low, high = np.float32(-bound), np.float32(bound)
        values = (unit * np.float64(high - low) + np.float64(low)).astype(np.float32)
        return np.where(values == high, low, values)

    def _grid(self, size: int) -> int:
        return min(math.ceil(size / THREADS), self.blocks)

    def _turns_of(self, size: int) -> int:
        return math.ceil(size / (4 * THREADS * self._grid(size)))
