"""The initial weights that the paper's code draws, on a CPU or on a GPU: one stream of PyTorch's, seeded once.

The code seeds PyTorch, then resets and trains 20 ReLU networks and after them 20 Abs networks; nothing else draws. Its
networks hold their first layer under two names, and resetting all that a network holds draws that layer twice, of
which the second draw stays. A GPU has a stream of its own, from which the published networks were drawn; which GPU that
was is not known, and only those that hold few threads draw the first layer otherwise than all others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxdist.errors import InputError
from jaxdist.fields import Call
from jaxdist.networks import philox

SEED = 411713593

ACTIVATIONS = ("relu", "abs")
"""In the order in which the code trains them."""

RUNS = 20
"""Networks of each activation."""

BLOCKS = 864
"""Blocks of 256 threads that an A100 holds; with 392 and more, the paper's sizes are drawn alike."""


def blocks_of(init: str | Call) -> int | None:
    """The blocks of the GPU on which ``model.init`` draws, None on a CPU.

    Raises:
      InputError: for a table with another name than paper_cuda, or other arguments than a number of blocks.
    """
    if init == "paper_code":
        return None
    if init == "paper_cuda":
        return BLOCKS
    blocks = dict(init.arguments).get("blocks") if isinstance(init, Call) else None
    named = isinstance(init, Call) and init.name == "paper_cuda" and len(init.arguments) == 1
    if not named or not isinstance(blocks, int) or isinstance(blocks, bool) or blocks < 1:
        raise InputError(
            f'model.init: expected {{name = "paper_cuda", blocks = {BLOCKS}}}, or as many blocks of 256 threads as '
            f"another GPU holds, got {init}"
        )
    return blocks


def check_networks(init: str | Call, activations: Sequence[str], hidden: Sequence[int], seeds: int) -> None:
    """Refuse networks that the paper's code does not have.

    Args:
      init: ``model.init`` of a config.
      activations: the names of the networks.
      hidden: units of each hidden layer; any width is drawn as the code would.
      seeds: networks of each activation.

    Raises:
      InputError: for another activation or depth, more than 20 seeds, or a GPU that is none.
    """
    blocks_of(init)
    drawn_as = init.name if isinstance(init, Call) else init
    for name in activations:
        if name not in ACTIVATIONS:
            raise InputError(
                f"model.init {drawn_as}: the paper's code has no network '{name}', only relu and abs; use model.init "
                "pytorch, which draws from the same distribution"
            )
    if len(hidden) != 1:
        raise InputError(
            f"model.init {drawn_as}: the paper's networks have one hidden layer, not {len(hidden)}; use model.init "
            "pytorch, which draws from the same distribution"
        )
    if seeds > RUNS:
        raise InputError(
            f"model.init {drawn_as}: the paper's code has {RUNS} networks per activation, not {seeds}; use model.init "
            "pytorch, which draws from the same distribution"
        )


def initial(
    activation: str, runs: Sequence[int], sizes: Sequence[int], blocks: int | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """The weights of some runs of one activation, as `mlp.init_ensemble` has them, on the host.

    On a CPU they are those of PyTorch 2 bit for bit where it multiplies and adds at once (AVX2).

    Args:
      activation: relu or abs.
      runs: S of 0 to 19.
      sizes: the layer widths (D, H, C).
      blocks: of 256 threads that a GPU holds, its multiprocessors times the threads of each over 256; None on a CPU.

    Raises:
      InputError: for what the code does not have, as `check_networks` says.
    """
    inputs, hidden, classes = sizes
    if blocks is not None and blocks < 1:
        raise InputError(f"blocks: expected at least 1, got {blocks}")
    init = "paper_code" if blocks is None else Call("paper_cuda", (("blocks", blocks),))
    check_networks(init, [activation], [hidden], max(runs, default=-1) + 1)
    if min(runs, default=-1) < 0:
        raise InputError(f"runs: expected some of 0 to {RUNS - 1}, got {list(runs)}")
    layers = {"dense0": (hidden, inputs), "dense1": (classes, hidden)}
    before = RUNS * ACTIVATIONS.index(activation)
    draw = _on_a_cpu if blocks is None else functools.partial(_on_a_gpu, blocks=blocks)
    return draw([before + run for run in runs], layers)


Layers = Mapping[str, tuple[int, int]]
"""Units and inputs of each layer, the first of which is drawn twice."""


def _bounds(fan_in: int) -> tuple[float, float]:
    """Of weights and of biases, equal but for rounding: PyTorch has that of weights from a gain of sqrt(1/3)."""
    return math.sqrt(3) * (math.sqrt(2 / (1 + 5)) / math.sqrt(fan_in)), 1 / math.sqrt(fan_in)


def _on_a_cpu(runs: Sequence[int], layers: Layers) -> dict[str, dict[str, np.ndarray]]:
    first, second = (units * (fan_in + 1) for units, fan_in in layers.values())
    drawn = _bits((max(runs) + 1) * (2 * first + second)).reshape(-1, 2 * first + second)[np.asarray(runs), first:]
    weights = {}
    for (name, (units, fan_in)), part in zip(layers.items(), np.split(drawn, [first], axis=1), strict=True):
        weight, bias = map(_uniform, np.split(part, [units * fan_in], axis=1), _bounds(fan_in))
        weights[name] = {"weight": weight.reshape(-1, units, fan_in), "bias": bias}
    return weights


def _on_a_gpu(runs: Sequence[int], layers: Layers, blocks: int) -> dict[str, dict[str, np.ndarray]]:
    stream = philox.Stream(SEED, blocks)
    first = next(iter(layers))
    drawn: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    for run in range(max(runs) + 1):
        for draw, name in enumerate([first, *layers]):
            units, fan_in = layers[name]
            if run not in runs or draw == 0:
                stream.skip(units * fan_in)
                stream.skip(units)
                continue
            weight, bias = _bounds(fan_in)
            drawn.setdefault(run, {})[name] = {
                "weight": stream.uniform(units * fan_in, weight).reshape(units, fan_in),
                "bias": stream.uniform(units, bias),
            }
    return {
        name: {kind: np.stack([drawn[run][name][kind] for run in runs]) for kind in ("weight", "bias")}
        for name in layers
    }


def _bits(count: int) -> np.ndarray:
    """PyTorch's 32 bits a draw: NumPy's legacy generator is the same Mersenne twister, seeded the same way."""
    return np.random.RandomState(SEED).randint(0, 2**32, count, dtype=np.uint32)


def _uniform(bits: np.ndarray, bound: float) -> np.ndarray:
    """U(-bound, bound) in float32, from the lowest 24 bits of each."""
    low, high = np.float32(-bound), np.float32(bound)
    unit = (bits & np.uint32(2**24 - 1)) * 2.0**-24
    # PyTorch multiplies and adds with one rounding; in float64 the product is exact.
    return (unit * np.float64(high - low) + np.float64(low)).astype(np.float32)
