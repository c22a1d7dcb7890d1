"""The experiment in PyTorch by someone who cares about speed: blocks that stay in cache, first layer computed once.

Sweep: the preactivations are computed once and kept; blocks of images and a few points at a time go through one
function. Training: the networks' first layers are one matrix, so that each block is one large product. Sizes were
chosen by measurement on a 2-core CPU. Both can go through ``torch.compile``; where that finds no compiler, the same
code runs eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.paper_torch import ACTIVATIONS, Weights, as_tensors, edit_for

BLOCK = 2048
"""Images a block."""

POINTS = 5
"""Points at a time."""


def compiled(function: Callable[..., Any], *, enabled: bool) -> Callable[..., Any]:
    """The function compiled; as it is where compiling is not wanted or does not work here."""
    if not enabled:
        return function
    fast, state = torch.compile(function, dynamic=False), {"works": True}

    def call(*arguments: Tensor) -> Any:
        if state["works"]:
            try:
                return fast(*arguments)
            except torch._dynamo.exc.TorchDynamoException as error:
                state["works"] = False
                print(f"torch.compile does not work here, so PyTorch runs eagerly: {str(error).splitlines()[0]}")
        return function(*arguments)

    return call


def make_sweep(
    weights: Weights,
    activation: str,
    x: np.ndarray,
    y: np.ndarray,
    points: Sequence[tuple[str, float]],
    *,
    compile: bool = False,
) -> Callable[[], np.ndarray]:
    """Return what counts correct predictions at each point (family, fraction): a function that gives int [P].

    `x` [N, D] and the first layer's weight [H, D] are without inputs that are always zero.
    """
    images, labels = as_tensors(x, y)
    (w0, b0), (w1, b1) = ([torch.tensor(layer[leaf]) for leaf in ("weight", "bias")] for layer in weights.values())
    act = ACTIVATIONS[activation]

    def head(h: Tensor, scale: Tensor, offset: Tensor, ceiling: Tensor, y: Tensor) -> Tensor:
        a = act(torch.minimum(scale[:, None] * h + offset[:, None], ceiling[:, None]))
        return ((torch.matmul(a, w1.T) + b1).argmax(dim=2) == y).sum(dim=1)

    run_head = compiled(head, enabled=compile)

    def run() -> np.ndarray:
        with torch.inference_mode():
            h = torch.addmm(b0, images, w0.T)
            a = act(h)
            low, high = a.min(dim=0).values, a.max(dim=0).values
            edits = [torch.stack(leaf) for leaf in zip(*(edit_for(*p, low, high) for p in points), strict=True)]
            counts = torch.zeros(len(points), dtype=torch.int64)
            for block, label in zip(h.split(BLOCK), labels.split(BLOCK), strict=True):
                for k in range(0, len(points), POINTS):
                    some = slice(k, k + POINTS)
                    counts[some] += run_head(block, *(leaf[some] for leaf in edits), label)
        return counts.numpy()

    return run


def make_train(
    networks: Sequence[Weights],
    activation: str,
    train_set: tuple[np.ndarray, np.ndarray],
    test_set: tuple[np.ndarray, np.ndarray],
    *,
    steps: int,
    learning_rate: float,
    compile: bool = False,
) -> Callable[[], np.ndarray]:
    """Return what trains all networks for `steps` updates and gives the counts that each update records.

    The counts are int [2 T]: of the first network, correct training images before each update, then correct test
    images after it.
    """
    (x, y), (test_x, test_y) = as_tensors(*train_set), as_tensors(*test_set)
    act, seeds = ACTIVATIONS[activation], len(networks)
    initial = [
        torch.stack([torch.tensor(one[layer][leaf]) for one in networks])
        for layer in ("dense0", "dense1")
        for leaf in ("weight", "bias")
    ]

    def forward(w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, x: Tensor) -> Tensor:
        h = torch.addmm(b0.flatten(), x, w0.flatten(0, 1).T)
        a = act(h).unflatten(1, (seeds, -1)).transpose(0, 1)
        return torch.baddbmm(b1[:, None], a, w1.transpose(1, 2))

    def block_loss(w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(w0, b0, w1, b1, x)
        losses = torch.logsumexp(logits, dim=2) - logits.gather(2, y.expand(seeds, -1)[..., None])[..., 0]
        return losses.sum(dim=1), (logits.argmax(dim=2) == y).sum(dim=1)

    def block_correct(w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (forward(w0, b0, w1, b1, x).argmax(dim=2) == y).sum(dim=1)

    run_loss, run_correct = (compiled(function, enabled=compile) for function in (block_loss, block_correct))

    def one_step(params: list[Tensor]) -> tuple[Tensor, Tensor]:
        total, right = torch.zeros(seeds), torch.zeros(seeds, dtype=torch.int64)
        for block, label in zip(x.split(BLOCK), y.split(BLOCK), strict=True):
            losses, correct = run_loss(*params, block, label)
            losses.sum().backward()
            total += losses.detach()
            right += correct
        with torch.no_grad():
            for leaf in params:
                leaf -= learning_rate / len(x) * leaf.grad
                leaf.grad = None
            test_right = torch.zeros(seeds, dtype=torch.int64)
            for block, label in zip(test_x.split(BLOCK), test_y.split(BLOCK), strict=True):
                test_right += run_correct(*params, block, label)
        return right, test_right

    def run() -> np.ndarray:
        params = [leaf.clone().requires_grad_() for leaf in initial]
        records = [torch.stack(one_step(params))[:, 0] for _ in range(steps)]
        return torch.stack(records, dim=1).flatten().numpy()

    return run
