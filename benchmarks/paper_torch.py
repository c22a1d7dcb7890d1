"""The experiment in PyTorch, the straightforward way: what a reader of arXiv:2411.17932 would write first.

One network at a time, every image in one batch, and a whole forward pass for each point of the sweep. It is the
yardstick for answers and for speed; nothing here is tuned. Weights go in and out in jaxdist's layout, which is
PyTorch's: ``{"dense0": {"weight": [H, D], "bias": [H]}, "dense1": {"weight": [C, H], "bias": [C]}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Weights: TypeAlias = Mapping[str, Mapping[str, np.ndarray]]

ACTIVATIONS = {"relu": torch.relu, "abs": torch.abs}


class Curves(NamedTuple):
    """What each update records: the first two before it, the third after it."""

    loss: np.ndarray  # [T] mean cross-entropy over the training images
    train_correct: np.ndarray  # [T] int, training images
    test_correct: np.ndarray  # [T] int, test images


class Edit(nn.Module):
    """``min(scale * h + offset, ceiling)``, unit by unit; as made, it changes nothing."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(units))
        self.register_buffer("offset", torch.zeros(units))
        self.register_buffer("ceiling", torch.full((units,), torch.inf))

    def forward(self, h: Tensor) -> Tensor:
        """Edit preactivations [N, H]."""
        return torch.minimum(self.scale * h + self.offset, self.ceiling)


class Network(nn.Module):
    """Linear, edit, activation, linear; in training too the edit is there, and changes nothing."""

    def __init__(self, weights: Weights, activation: str) -> None:
        super().__init__()
        first, second = weights["dense0"], weights["dense1"]
        hidden, inputs = first["weight"].shape
        self.dense0 = nn.Linear(inputs, hidden)
        self.edit = Edit(hidden)
        self.activation = ACTIVATIONS[activation]
        self.dense1 = nn.Linear(hidden, len(second["bias"]))
        with torch.no_grad():
            for layer, given in ((self.dense0, first), (self.dense1, second)):
                layer.weight.copy_(torch.tensor(given["weight"]))
                layer.bias.copy_(torch.tensor(given["bias"]))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, C] of images [N, D]."""
        return self.dense1(self.activation(self.edit(self.dense0(x))))

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """A copy of the parameters in jaxdist's layout."""
        return {
            name: {"weight": layer.weight.detach().numpy().copy(), "bias": layer.bias.detach().numpy().copy()}
            for name, layer in (("dense0", self.dense0), ("dense1", self.dense1))
        }


def count_correct(logits: Tensor, y: Tensor) -> int:
    """Number of rows whose largest logit is their label's."""
    return int((logits.argmax(dim=1) == y).sum())


def as_tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images [N, D] float32 and labels [N] int64, without copying the images."""
    return torch.from_numpy(np.ascontiguousarray(x, np.float32)), torch.from_numpy(y.astype(np.int64))


def train(
    weights: Weights,
    activation: str,
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    *,
    steps: int,
    learning_rate: float,
) -> tuple[dict[str, dict[str, np.ndarray]], Curves]:
    """Make `steps` full-batch updates of plain SGD; returns the weights after the last and the curves [T]."""
    network = Network(weights, activation)
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    (x, y), (test_x, test_y) = train_set, test_set
    records = []
    for _ in range(steps):
        logits = network(x)
        loss = nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            records.append((loss.item(), count_correct(logits, y), count_correct(network(test_x), test_y)))
    losses, train_correct, test_correct = zip(*records, strict=True)
    return network.weights(), Curves(np.array(losses), np.array(train_correct), np.array(test_correct))


def gradient(weights: Weights, activation: str, x: Tensor, y: Tensor) -> dict[str, dict[str, np.ndarray]]:
    """Gradient of the mean cross-entropy over all images, in the layout of the weights."""
    network = Network(weights, activation)
    nn.functional.cross_entropy(network(x), y).backward()
    return {
        name: {"weight": layer.weight.grad.numpy(), "bias": layer.bias.grad.numpy()}
        for name, layer in (("dense0", network.dense0), ("dense1", network.dense1))
    }


def ranges(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value [H] of each unit behind the activation, over all images."""
    with torch.no_grad():
        a = network.activation(network.dense0(x))
        return a.min(dim=0).values, a.max(dim=0).values


def edit_for(family: str, fraction: float, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, offset and ceiling [H] of one point, by the formulas of the paper's code; a dead unit is left alone."""
    one, zero, never = torch.ones_like(low), torch.zeros_like(low), torch.full_like(low, torch.inf)
    spread = high - low
    if family == "scale":
        made = fraction * one, zero, never
    elif family == "clip":
        # low + fraction * spread, written so that a fraction of 1 is the largest value to the last bit.
        made = one, zero, high - (1 - fraction) * spread
    else:
        made = (high - fraction * spread) / high, fraction * spread, never
    dead = high == 0
    scale, offset, ceiling = (torch.where(dead, kept, new) for kept, new in zip((one, zero, never), made, strict=True))
    return scale, offset, ceiling


def sweep(weights: Weights, activation: str, x: Tensor, y: Tensor, points: Sequence[tuple[str, float]]) -> np.ndarray:
    """Count correct predictions at each point (family, fraction), a whole forward pass a point: int [P]."""
    network = Network(weights, activation)
    low, high = ranges(network, x)
    counts = []
    with torch.no_grad():
        for family, fraction in points:
            network.edit.scale, network.edit.offset, network.edit.ceiling = edit_for(family, fraction, low, high)
            counts.append(count_correct(network(x), y))
    return np.array(counts)
