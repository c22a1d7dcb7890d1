"""Does jaxdist compute what PyTorch computes? Both train side by side from the same weights.

Two float32 programs never agree to the last bit, and training amplifies what separates them. So the yardstick is
PyTorch itself with the images in another order: mathematically the same run, rounded differently. jaxdist may differ
from PyTorch by `FACTOR` times what PyTorch differs from itself, or by `LOSS_BAR` where that is larger. The first
gradients are compared with float64, before anything is amplified.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import images as inputs
from benchmarks.images import Images, place
from benchmarks.machine import facts, have_torch
from jaxdist.compute import Backend, blocks, over_networks
from jaxdist.formatting import counted
from jaxdist.networks import mlp, training
from jaxdist.types import Params

FACTOR = 3.0
LOSS_BAR = 1e-5
GRADIENT_BAR = 5e-7
"""Relative error in norm of one tensor; float32 resolves 6e-8."""

LEARNING_RATE = 0.001
"""The paper's, on raw pixels."""

HIDDEN = 128


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One activation's comparison; accuracies are fractions, differences are relative."""

    activation: str
    steps: int
    loss_difference: float
    """Largest over the steps, jaxdist against PyTorch."""
    torch_own_difference: float
    """The same, PyTorch against PyTorch with the images in another order."""
    count_difference: int
    """Largest difference of the training images counted as correct at any step."""
    final: dict[str, dict[str, float]]
    """By program: loss and train accuracy before the last update, test accuracy after it."""
    gradient_errors: dict[str, dict[str, float]]
    """By program and tensor, against float64."""

    @property
    def loss_bar(self) -> float:
        """What the curves may differ by."""
        return max(LOSS_BAR, FACTOR * self.torch_own_difference)

    @property
    def agrees(self) -> bool:
        """Whether curves and gradients are within their bars."""
        return self.loss_difference <= self.loss_bar and all(
            error <= GRADIENT_BAR for error in self.gradient_errors["jaxdist"].values()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "loss_bar": self.loss_bar, "agrees": self.agrees}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare both activations, print what was found, and return it; ``agrees`` says whether all is within its bars."""
    if not have_torch():
        return {"agrees": True, "skipped": "PyTorch is not installed"}
    images = inputs.load(options.data_dir) if options.data_dir else inputs.load(None, "digits")
    steps = min(options.steps, 5) if options.quick else options.steps
    print(f"{images.source}; {counted(steps, 'update')} at learning rate {LEARNING_RATE}, raw pixels")
    found = {name: compare(images, name, steps=steps) for name in ("relu", "abs")}
    for agreement in found.values():
        print("\n" + describe(agreement))
    agrees = all(agreement.agrees for agreement in found.values())
    print("\nagree" if agrees else "\nDIFFER")
    return {
        "agrees": agrees,
        "images": images.source,
        "machine": facts(),
        "activations": {name: agreement.to_dict() for name, agreement in found.items()},
    }


def describe(found: Agreement) -> str:
    """A few lines for a person."""
    final = found.final
    lines = [
        f"{found.activation}: {'agrees' if found.agrees else 'DIFFERS'}",
        f"  largest relative difference of the loss   {found.loss_difference:.2e}  bar {found.loss_bar:.2e}",
        f"  PyTorch with the images in another order  {found.torch_own_difference:.2e}",
        f"  largest difference of correct images      {found.count_difference}",
    ]
    for program, values in final.items():
        lines.append(
            f"  {program:<8} loss {values['loss']:.6f}  train {100 * values['train_accuracy']:.3f} %"
            f"  test {100 * values['test_accuracy']:.2f} %"
        )
    lines.append(f"  first gradients, relative error against float64 (bar {GRADIENT_BAR:.0e})")
    for tensor in found.gradient_errors["jaxdist"]:
        each = "  ".join(f"{program} {errors[tensor]:.1e}" for program, errors in found.gradient_errors.items())
        lines.append(f"    {tensor:<14}  {each}")
    return "\n".join(lines)


def compare(images: Images, activation: str, *, steps: int, seed: int = 0, hidden: int = HIDDEN) -> Agreement:
    """Train one network in both programs from the same weights and compare; PyTorch twice, in two orders."""
    from benchmarks import paper_torch

    initial = initial_weights(images, seed, hidden)
    train_set, test_set = (paper_torch.as_tensors(*split) for split in (images[:2], images[2:4]))
    torch_train = functools.partial(
        paper_torch.train, initial, activation, test_set=test_set, steps=steps, learning_rate=LEARNING_RATE
    )
    order = np.random.default_rng(seed).permutation(len(images.train_y))
    _, torchs = torch_train(train_set)
    _, reordered = torch_train(paper_torch.as_tensors(images.train_x[order], images.train_y[order]))
    stacked = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf)[None], initial)
    ours = jax.tree.map(np.asarray, jaxdist_trainer(stacked, activation, images, steps=steps)[0]()[1])

    trained_on, tested_on = len(images.train_y), len(images.test_y)
    # Entry k of ours belongs to the weights after k updates; PyTorch's test accuracy is taken after the update.
    ours_correct = np.rint(ours.train_accuracy[:-1, 0] * trained_on).astype(int)
    reference = reference_gradient(initial, activation, images)
    gradients = {
        "jaxdist": jaxdist_gradient(images, initial, activation),
        "torch": paper_torch.gradient(initial, activation, *train_set),
    }
    return Agreement(
        activation=activation,
        steps=steps,
        loss_difference=largest_relative(ours.loss[:-1, 0], torchs.loss),
        torch_own_difference=largest_relative(reordered.loss, torchs.loss),
        count_difference=int(np.abs(ours_correct - torchs.train_correct).max()),
        final={
            "jaxdist": {
                "loss": float(ours.loss[-2, 0]),
                "train_accuracy": float(ours.train_accuracy[-2, 0]),
                "test_accuracy": float(ours.test_accuracy[-1, 0]),
            },
            "torch": {
                "loss": float(torchs.loss[-1]),
                "train_accuracy": float(torchs.train_correct[-1] / trained_on),
                "test_accuracy": float(torchs.test_correct[-1] / tested_on),
            },
        },
        gradient_errors={name: errors_in_norm(found, reference) for name, found in gradients.items()},
    )


def initial_weights(images: Images, seed: int, hidden: int = HIDDEN) -> dict[str, dict[str, np.ndarray]]:
    """One network's initial weights, drawn by jaxdist."""
    sizes = (images.train_x.shape[1], hidden, int(images.train_y.max()) + 1)
    return jax.tree.map(np.asarray, mlp.init(jax.random.key(seed), sizes))


def jaxdist_trainer(
    params: Params,
    activation: str,
    images: Images,
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
    backend: Backend = "float32",
    in_order: bool = False,
) -> tuple[Callable[[], training.Trained], np.ndarray]:
    """Training of stacked networks as a run of jaxdist does it, and the pixels [K] that it uses.

    Calling it gives the parameters of these pixels and the metrics [steps + 1, S].
    """
    laid_out = place(images, seeds=jax.tree.leaves(params)[0].shape[0], backend=backend, in_order=in_order)
    train = functools.partial(
        training.train,
        mlp.model(activation, background=laid_out.background),
        mlp.narrow(params, laid_out.used),
        laid_out.splits["train"],
        laid_out.splits["test"],
        steps=steps,
        optimizer=training.optimizer("sgd", learning_rate),
    )
    return train, laid_out.used


def jaxdist_gradient(images: Images, initial: Params, activation: str) -> dict[str, dict[str, np.ndarray]]:
    """The gradient of jaxdist's training step, of all D inputs, in the layout of the weights."""
    laid_out = place(images)
    model = mlp.model(activation, background=laid_out.background)

    stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], initial)
    narrow, size = mlp.narrow(stacked, laid_out.used), blocks.default_size(HIDDEN)
    found, _ = over_networks(training.Gradient(model), narrow, None, laid_out.splits["train"], size=size)
    whole = mlp.widen(found, laid_out.used, jax.tree.map(np.zeros_like, stacked))
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), whole)


def reference_gradient(
    weights: Params, activation: str, images: Images, *, signs: np.ndarray | None = None, block: int = 5_000
) -> dict[str, dict[str, np.ndarray]]:
    """The same gradient in NumPy float64, written out by hand; the chain rule of mean cross-entropy.

    `signs` [N, H] says on which side of the activation's kink each unit is taken to be, instead of where it is. The
    activation is relu, or else abs.
    """
    w0, b0, w1, b1 = (np.asarray(weights[layer][leaf], np.float64) for layer in weights for leaf in ("weight", "bias"))
    total = {name: {leaf: np.zeros(weights[name][leaf].shape) for leaf in ("weight", "bias")} for name in weights}
    for start in range(0, len(images.train_y), block):
        x = images.train_x[start : start + block].astype(np.float64)
        y = images.train_y[start : start + block]
        h = x @ w0.T + b0
        sign = np.sign(h) if signs is None else signs[start : start + block]
        slope = np.maximum(sign, 0) if activation == "relu" else sign
        a = h * slope
        logits = a @ w1.T + b1
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        d_logits = odds / odds.sum(axis=1, keepdims=True)
        d_logits[np.arange(len(y)), y] -= 1
        d_hidden = (d_logits @ w1) * slope
        for name, d, value in (("dense0", d_hidden, x), ("dense1", d_logits, a)):
            total[name]["weight"] += d.T @ value
            total[name]["bias"] += d.sum(axis=0)
    return jax.tree.map(lambda leaf: leaf / len(images.train_y), total)


def errors_in_norm(found: Params, expected: Params) -> dict[str, float]:
    """Relative error of each tensor, in the Euclidean norm."""
    return {
        f"{layer}.{leaf}": float(np.linalg.norm(found[layer][leaf] - value) / np.linalg.norm(value))
        for layer, leaves in expected.items()
        for leaf, value in leaves.items()
    }


def largest_relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest relative difference of two curves."""
    return float(np.max(np.abs(found - expected) / np.abs(expected)))
