"""Gradients of training's loss by each way of making products, against float64, as `benchmarks.rounding` takes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import images, parity, rounding
from jaxdist.compute import products
from tests.compute.test_products import EXACT, papers_network
from tests.conftest import to_numpy
from tests.networks.test_training import numpy_loss_and_gradient

# It is about rounding.
pytestmark = pytest.mark.usefixtures("optimised")

NO_TEST = (np.zeros((0, 1), np.float32), np.zeros(0, np.int32))


def some_digits(digits, count=301):
    """The first training digits as the benchmarks take images."""
    x = digits.train.images[:count].reshape(count, -1).astype(np.float32)
    return images.Images(x, digits.train.labels[:count], *NO_TEST, "digits")


@pytest.mark.slow
@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_gradient_at_trained_weights_errs_at_most_twice_as_much_as_float32s(backend, activation, trained, digits):
    """Digits are cut at 24 bits of a row's largest, which shows most here: float32 rounds little in 64 inputs."""
    errors_of = {"float32": [], backend: []}
    for seed in range(3):
        one = jax.tree.map(lambda leaf, k=seed: np.asarray(leaf[k]), trained[activation])
        for name, found in errors_of.items():
            error, flips = rounding.measure(one, activation, some_digits(digits), name)
            found.append(error)
            assert flips <= 2
    ours, float32s = (np.sqrt(np.mean(np.square(errors_of[name]))) for name in (backend, "float32"))
    assert ours <= 2 * float32s
    assert ours < 1e-5


@pytest.mark.parametrize("backend", EXACT)
def test_the_gradient_of_the_papers_network_on_mnist(backend, shared):
    x, y, params = papers_network(shared)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    some = images.Images(x[:4000].astype(np.float32), y[:4000], *NO_TEST, "MNIST")
    ours, flips = rounding.measure(one, "relu", some, backend)
    float32s, _ = rounding.measure(one, "relu", some, "float32")
    assert flips <= 4
    assert ours <= 2 * float32s


def test_the_float64_oracles_agree(trained, digits):
    """The reference of benchmarks, with sides given and without, and the oracle of the training tests."""
    some = some_digits(digits)
    x, y = some.train_x.astype(np.float64), some.train_y
    one = jax.tree.map(lambda leaf: leaf[0], to_numpy(trained["relu"]))
    signs = np.sign(x @ one["dense0"]["weight"].T + one["dense0"]["bias"])
    _, expected, _ = numpy_loss_and_gradient(one, "relu", x, y)
    for given in (None, signs):
        found = parity.reference_gradient(one, "relu", some, signs=given)
        jax.tree.map(np.testing.assert_allclose, found, expected)
    other = parity.reference_gradient(one, "relu", some, signs=-signs)
    assert parity.errors_in_norm(other, expected)["dense0.weight"] > 0.1


def test_a_unit_that_rounding_puts_on_the_other_side_is_counted(trained, digits):
    """A bias puts one image's value between what float32 makes of it and what it is."""
    some = some_digits(digits)
    one = jax.tree.map(lambda leaf: np.asarray(leaf[0]), trained["relu"])
    weight = one["dense0"]["weight"]
    exact = some.train_x.astype(np.float64) @ weight.T.astype(np.float64)
    rounded = np.asarray(jax.jit(products.product)(weight, jnp.asarray(some.train_x))).T
    # The value that float32 puts highest above the truth; half of that error below 0, float32 still sees it above.
    row, unit = np.unravel_index(np.argmax(rounded - exact), exact.shape)
    bias = one["dense0"]["bias"].copy()
    bias[unit] = -np.float32((rounded[row, unit] + exact[row, unit]) / 2)
    found = rounding.measure({**one, "dense0": {"weight": weight, "bias": bias}}, "relu", some, "float32")
    assert found.flips >= 1
    assert found.error < 1e-5
