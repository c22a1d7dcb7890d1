"""The experiment once more in plain NumPy float64, written from the paper's formulas and not from the package.

Sample-major, one network and one point at a time, no JAX: slow, and easy to check by eye.
"""

from __future__ import annotations

import numpy as np

GRID = 10.0 ** np.linspace(-2, 1, 100)
OFFSETS = np.array(
    [-2 + 0.05 * k for k in range(32)] + [-0.4 + 0.01 * k for k in range(80)] + [0.4 + 0.05 * k for k in range(13)]
)
FRACTIONS = {"scale": GRID, "clip": GRID, "offset": OFFSETS}
ACTIVATIONS = {"relu": lambda h: np.maximum(h, 0), "abs": np.abs}


def hidden(params, x):
    """Preactivations [N, H]."""
    return x.reshape(len(x), -1) @ params["dense0"]["weight"].T + params["dense0"]["bias"]


def predict(params, activation, h):
    """Predicted classes [N]; a row of NaN counts as class 0, as in PyTorch."""
    logits = ACTIVATIONS[activation](h) @ params["dense1"]["weight"].T + params["dense1"]["bias"]
    return np.where(np.isnan(logits).any(axis=1), 0, logits.argmax(axis=1))


def edited(family, p, h, low, high, dead, *, clip="code", offset="code", dead_units="identity"):
    """The edited preactivations; low, high and dead are [H]."""
    r = high - low
    with np.errstate(divide="ignore", invalid="ignore"):
        if family == "scale":
            y = p * h
        elif family == "clip":
            y = np.minimum(h, {"code": low + p * r, "text": p * r, "caption": p * high}[clip])
        else:
            s = {"code": (high - p * r) / high, "intended": 1 - p, "literal": (1 - p) * r}[offset]
            y = s * h + p * r
    return np.where(dead, h, y) if dead_units == "identity" else y


def sweep(params, activation, x, y, ranges_x=None, **conventions):
    """Counts by family, correct, agree and kept [P] each, with ranges measured behind the activation on `ranges_x`."""
    h = hidden(params, x)
    a = ACTIVATIONS[activation](hidden(params, x if ranges_x is None else ranges_x))
    low, high, dead = a.min(axis=0), a.max(axis=0), (a == 0).all(axis=0)
    base = predict(params, activation, h)
    counts = {}
    for family, grid in FRACTIONS.items():
        found = [predict(params, activation, edited(family, p, h, low, high, dead, **conventions)) for p in grid]
        right = [(f == y) for f in found]
        counts[family] = (
            np.array([r.sum() for r in right]),
            np.array([(f == base).sum() for f in found]),
            np.array([(r & (base == y)).sum() for r in right]),
        )
    return counts
