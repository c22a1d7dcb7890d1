"""Fractions at which families are swept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def intensity_grid() -> np.ndarray:
    """The paper's 100 fractions from 0.01 to 10, evenly spaced in the logarithm; index 66 is exactly 1."""
    return np.logspace(np.log10(0.01), np.log10(10), 100)


def offset_grid() -> np.ndarray:
    """The paper's 125 fractions from -2 to 1, densest within 0.4 of no edit; index 72 is exactly 0."""
    parts = (
        np.linspace(-2, -0.4, 32, endpoint=False),
        np.linspace(-0.4, 0.4, 80, endpoint=False),
        np.linspace(0.4, 1, 13),
    )
    return np.unique(np.concatenate(parts))


def both_ways() -> np.ndarray:
    """A grid over the paper's -2 to 1, evenly spaced in the logarithm to both sides of no edit."""
    return np.concatenate([-np.geomspace(2, 0.005, 13), [0.0], np.geomspace(0.005, 1, 12)])


def upward(low: float, high: float, points: int) -> Callable[[], np.ndarray]:
    """A grid from no edit at 0, then evenly spaced in the logarithm."""
    return lambda: np.concatenate([[0.0], np.geomspace(low, high, points)])
