"""jaxdist against PyTorch from the same weights: curves, first gradients, and a whole sweep of counts."""

from __future__ import annotations

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is an optional extra; parity needs it")

from benchmarks import images, paper_torch, parity
from jaxdist.config import SweepConfig
from jaxdist.networks import mlp
from jaxdist.perturbations import edits, families, ranges
from jaxdist.sweep import ensemble_sweep

# It is about rounding.
pytestmark = pytest.mark.usefixtures("optimised")

ACTIVATIONS = ("relu", "abs")


@pytest.fixture(scope="module")
def mnist(shared) -> images.Images:
    """The real 60,000 and 10,000 images."""
    return images.load(str(shared / "data" / "mnist"))


@pytest.fixture(scope="module")
def digits_images() -> images.Images:
    """The embedded digits."""
    return images.load(None, "digits")


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_training_differs_from_pytorch_no_more_than_rounding_does(activation, digits_images):
    found = parity.compare(digits_images, activation, steps=30)
    assert found.loss_difference <= found.loss_bar
    assert found.loss_bar < 1e-3
    assert max(found.gradient_errors["jaxdist"].values()) <= parity.GRADIENT_BAR
    assert found.agrees
    assert found.final["jaxdist"]["test_accuracy"] == pytest.approx(found.final["torch"]["test_accuracy"], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_first_gradient_of_real_mnist_is_float32_grade(activation, mnist):
    """All 60,000 images and 784 inputs, against NumPy float64."""
    initial = parity.initial_weights(mnist, seed=0)
    expected = parity.reference_gradient(initial, activation, mnist)
    errors = parity.errors_in_norm(parity.jaxdist_gradient(mnist, initial, activation), expected)
    assert set(errors) == {"dense0.weight", "dense0.bias", "dense1.weight", "dense1.bias"}
    assert max(errors.values()) <= parity.GRADIENT_BAR, errors


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_count_of_a_sweep_equals_pytorchs(activation, digits_images):
    """Not one image of 1,437 at one of 325 points may differ by more than a tie's rounding."""
    initial = parity.initial_weights(digits_images, seed=1, hidden=24)
    x, y = paper_torch.as_tensors(*digits_images[:2])
    trained, _ = paper_torch.train(initial, activation, (x, y), (x, y), steps=20, learning_rate=0.01)
    grids = {name: families.get(name).grid() for name in families.PAPER}
    points = [(name, float(p)) for name, grid in grids.items() for p in grid]
    expected = paper_torch.sweep(trained, activation, x, y, points)

    model, site = mlp.model(activation), "dense0/pre"
    laid_out = images.place(digits_images)
    train_set = laid_out.splits["train"]
    params = mlp.narrow(jax.tree.map(lambda leaf: jax.numpy.asarray(leaf)[None], trained), laid_out.used)
    measured = ranges.measure(model, params, train_set, (site,))[site]
    made = edits.concatenate([families.build(name, measured, grid, SweepConfig()) for name, grid in grids.items()])
    counts = ensemble_sweep.sweep(model, params, {site: made}, train_set)
    assert np.abs(np.asarray(counts.correct[0]) - expected).max() <= 2
    assert counts.unperturbed[0] == expected[66]
    assert len(set(expected.tolist())) > 50


def test_a_wrong_gradient_is_seen(digits_images):
    """The reference is independent of the program that it judges: another activation's gradient is far off."""
    initial = parity.initial_weights(digits_images, seed=0)
    expected = parity.reference_gradient(initial, "relu", digits_images)
    wrong = parity.errors_in_norm(parity.jaxdist_gradient(digits_images, initial, "abs"), expected)
    assert min(wrong.values()) > 0.01
