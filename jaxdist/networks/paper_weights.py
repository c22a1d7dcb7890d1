"""The initial weights that the paper's code draws where it runs on a CPU: one stream of PyTorch's, seeded once.

The code seeds PyTorch, then resets and trains 20 ReLU networks and after them 20 Abs networks; nothing else draws. Its
networks hold their first layer under two names, and resetting all that a network holds draws that layer twice, of
which the second draw stays. The published networks began with other weights of this kind: a GPU has a stream of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxdist.errors import InputError

SEED = 411713593

ACTIVATIONS = ("relu", "abs")
"""In the order in which the code trains them."""

RUNS = 20
"""Networks an activation."""


def check(activations: Sequence[str], hidden: Sequence[int], seeds: int) -> None:
    """Refuse networks that the paper's code does not have. Any width is drawn as the code would.

    Raises:
      InputError: for another activation or depth, or more than 20 seeds.
    """
    for name in activations:
        if name not in ACTIVATIONS:
            raise InputError(
                f"model.init paper_code: the paper's code has no network '{name}', only relu and abs; "
                "use model.init pytorch, the same distribution"
            )
    if len(hidden) != 1:
        raise InputError(
            f"model.init paper_code: the paper's code has networks of one hidden layer, not {len(hidden)}; "
            "use model.init pytorch, the same distribution"
        )
    if seeds > RUNS:
        raise InputError(
            f"model.init paper_code: the paper's code has {RUNS} networks an activation, not {seeds}; use model.init "
            "pytorch, the same distribution"
        )


def initial(activation: str, runs: Sequence[int], sizes: Sequence[int]) -> dict[str, dict[str, np.ndarray]]:
    """The weights of some runs of one activation, each 0 to 19, as `mlp.init_ensemble` has them, on the host.

    `sizes` are the layer widths (D, H, C). They are those of PyTorch 2 bit for bit, on a CPU that multiplies and adds
    at once (AVX2). Raises `InputError` for what the code does not have, as `check` does.
    """
    inputs, hidden, classes = sizes
    check([activation], [hidden], max(runs, default=-1) + 1)
    if min(runs, default=-1) < 0:
        raise InputError(f"runs: expected some of 0 to {RUNS - 1}, got {list(runs)}")
    layers = {"dense0": (hidden, inputs), "dense1": (classes, hidden)}
    first, second = (units * (fan_in + 1) for units, fan_in in layers.values())
    before = RUNS * ACTIVATIONS.index(activation)
    drawn = _bits((before + max(runs) + 1) * (2 * first + second))
    each = drawn.reshape(-1, 2 * first + second)[before + np.asarray(runs), first:]
    found = {}
    for (name, (units, fan_in)), part in zip(layers.items(), np.split(each, [first], axis=1), strict=True):
        weight, bias = np.split(part, [units * fan_in], axis=1)
        # The two bounds are equal but for rounding: PyTorch has that of the weights from a gain of sqrt(1/3).
        found[name] = {
            "weight": _uniform(weight, math.sqrt(3) * (math.sqrt(2 / (1 + 5)) / math.sqrt(fan_in))),
            "bias": _uniform(bias, 1 / math.sqrt(fan_in)),
        }
        found[name]["weight"] = found[name]["weight"].reshape(-1, units, fan_in)
    return found


def _bits(count: int) -> np.ndarray:
    """PyTorch's 32 bits a draw: NumPy's legacy generator is the same Mersenne twister, seeded the same way."""
    return np.random.RandomState(SEED).randint(0, 2**32, count, dtype=np.uint32)


def _uniform(bits: np.ndarray, bound: float) -> np.ndarray:
    """U(-bound, bound) in float32, from the lowest 24 bits of each."""
    low, high = np.float32(-bound), np.float32(bound)
    unit = (bits & np.uint32(2**24 - 1)) * 2.0**-24
    # PyTorch multiplies and adds with one rounding; in float64 the product is exact.
    return (unit * np.float64(high - low) + np.float64(low)).astype(np.float32)
