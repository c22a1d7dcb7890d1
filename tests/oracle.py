"""The experiment once more in plain NumPy float64, written from the paper's formulas and not from the package.

Sample-major, one network and one point at a time, no JAX: slow, and easy to check by eye.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

GRID = 10.0 ** np.linspace(-2, 1, 100)
OFFSETS = np.array(
    [-2 + 0.05 * k for k in range(32)] + [-0.4 + 0.01 * k for k in range(80)] + [0.4 + 0.05 * k for k in range(13)]
)
FRACTIONS = {"scale": GRID, "clip": GRID, "offset": OFFSETS}


def sigmoid(h):
    return np.exp(-np.logaddexp(0, -h))


ACTIVATIONS = {
    "relu": lambda h: np.maximum(h, 0),
    "abs": np.abs,
    "leaky_relu": lambda h: np.maximum(h, 0) + 0.01 * np.minimum(h, 0),
    "prelu": lambda h, slope=0.25: np.maximum(h, 0) + slope * np.minimum(h, 0),
    "elu": lambda h: np.maximum(h, 0) + np.exp(np.minimum(h, 0)) - 1,
    "gelu": lambda h: h * ndtr(h),
    "silu": lambda h: h * sigmoid(h),
    "softplus": lambda h: np.logaddexp(0, h),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "sine": np.sin,
    "identity": lambda h: h,
}
FORMS = {
    base + tail + neg: (base, tail, sign)
    for base in ("relu", "abs")
    for tail in ("2", "_l2")
    for neg, sign in (("", 1), ("_neg", -1))
}
"""Name -> hidden activation, what the last layer is, sign of the logits."""


def linear(layer, value):
    return value @ layer["weight"].T + layer.get("bias", 0)


def hidden(params, x):
    """Preactivations [N, H]."""
    return linear(params["dense0"], x.reshape(len(x), -1))


def activate(network, layer, h):
    """What is behind preactivations of a layer with those parameters."""
    act = ACTIVATIONS[FORMS.get(network, (network,))[0]]
    return act(h, layer["slope"]) if network == "prelu" else act(h)


def preactivations(params, network, x, k):
    """Preactivations [N, H] of hidden layer k."""
    h = hidden(params, x)
    for j in range(k):
        h = linear(params[f"dense{j + 1}"], activate(network, params[f"dense{j}"], h))
    return h


def logits(params, network, h, k=0):
    """Logits [N, C] from the preactivations of hidden layer k."""
    for j in range(k, len(params) - 1):
        layer, a = params[f"dense{j + 1}"], activate(network, params[f"dense{j}"], h)
        if j < len(params) - 2:
            h = linear(layer, a)
    _, tail, sign = FORMS.get(network, (network, "", 1))
    if tail == "_l2":
        apart = a[:, None, :] - layer["offset"]
        return sign * np.sqrt(np.maximum((layer["alpha"] * apart**2).sum(axis=2), 1e-12))
    return sign * (activate(network, layer, linear(layer, a)) if tail == "2" else linear(layer, a))


def predict(params, network, h, k=0):
    """Predicted classes [N]; a row of NaN counts as class 0, as in PyTorch."""
    found = logits(params, network, h, k)
    return np.where(np.isnan(found).any(axis=1), 0, found.argmax(axis=1))


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
    multiple_of_high = (family == "offset" and offset == "code") or (family == "clip" and clip == "caption")
    spared = dead | (high <= 0) if multiple_of_high else dead
    return np.where(spared, h, y) if dead_units == "identity" else y


def sweep(params, network, x, y, ranges_x=None, *, k=0, measured_on="post", **conventions):
    """Counts by family, (correct [P], agree [P], kept [P]), of edits of hidden layer k by its ranges on `ranges_x`."""
    h = preactivations(params, network, x, k)
    before = preactivations(params, network, x if ranges_x is None else ranges_x, k)
    behind = activate(network, params[f"dense{k}"], before)
    measured, dead = before if measured_on == "pre" else behind, (behind == 0).all(axis=0)
    low, high = measured.min(axis=0), measured.max(axis=0)
    base = predict(params, network, h, k)
    counts = {}
    for family, grid in FRACTIONS.items():
        found = [predict(params, network, edited(family, p, h, low, high, dead, **conventions), k) for p in grid]
        right = [(f == y) for f in found]
        counts[family] = (
            np.array([r.sum() for r in right]),
            np.array([(f == base).sum() for f in found]),
            np.array([(r & (base == y)).sum() for r in right]),
        )
    return counts
