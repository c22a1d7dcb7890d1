"""Training: the gradient, the steps, what is recorded, and that seeds are independent of each other."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdist.errors import TrainingDivergedError
from jaxdist.networks import mlp, training
from jaxdist.networks.model import Model
from tests.conftest import place, to_numpy, traced_at_most

KEY = jax.random.key(11)
SIZES = (64, 24, 10)


def ensemble(seeds=2):
    return mlp.init_ensemble(KEY, range(seeds), SIZES)


def train(activation="relu", *, params=None, examples, steps=5, optimizer=None, **kwargs):
    optimizer = optimizer or training.optimizer("sgd", 0.01)
    model = activation if isinstance(activation, Model) else mlp.model(activation)
    return training.train(model, params or ensemble(), examples, examples, steps=steps, optimizer=optimizer, **kwargs)[
        :2
    ]


def numpy_loss_and_gradient(params, activation, x, y):
    """Mean cross-entropy, its gradient and the accuracy in float64, written out by hand."""
    w0, b0, w1, b1 = (params[k][name] for k in ("dense0", "dense1") for name in ("weight", "bias"))
    h = x @ w0.T + b0
    a = np.maximum(h, 0) if activation == "relu" else np.abs(h)
    logits = a @ w1.T + b1
    shifted = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    d = p.copy()
    d[np.arange(len(y)), y] -= 1
    d /= len(y)
    dh = (d @ w1) * ((h > 0) if activation == "relu" else np.sign(h))
    gradient = {
        "dense0": {"weight": dh.T @ x, "bias": dh.sum(axis=0)},
        "dense1": {"weight": d.T @ a, "bias": d.sum(axis=0)},
    }
    return -np.log(p[np.arange(len(y)), y]).mean(), gradient, (logits.argmax(axis=1) == y).mean()


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_five_steps_of_gradient_descent_equal_numpy_float64(activation, train_set):
    params, metrics = train(activation, examples=train_set)
    x, y = np.asarray(train_set.x, np.float64)[:301].reshape(301, -1), np.asarray(train_set.y)[:301]
    for seed in range(2):
        now = jax.tree.map(lambda leaf, k=seed: leaf[k], to_numpy(ensemble()))
        for step in range(6):
            loss, gradient, accuracy = numpy_loss_and_gradient(now, activation, x, y)
            assert metrics.loss[step, seed] == pytest.approx(loss, rel=2e-5)
            assert metrics.train_accuracy[step, seed] == pytest.approx(accuracy, abs=1.5 / 301)
            if step < 5:
                now = jax.tree.map(lambda p, g: p - 0.01 * g, now, gradient)
        jax.tree.map(
            lambda ours, theirs, k=seed: np.testing.assert_allclose(ours[k], theirs, rtol=1e-3, atol=2e-6), params, now
        )


def test_metrics_belong_to_the_weights_after_as_many_updates(train_set, digits):
    """Entry k of a longer run is the last entry of a run of k updates; the last belongs to the returned weights."""
    test_set = place(digits, 200)
    model, optimizer = mlp.model("abs"), training.optimizer("sgd", 0.01)
    params, metrics, _ = training.train(model, ensemble(), train_set, test_set, steps=7, optimizer=optimizer)
    assert metrics.loss.shape == metrics.train_accuracy.shape == metrics.test_accuracy.shape == (8, 2)
    x, y = np.asarray(test_set.x)[:200], np.asarray(test_set.y)[:200]
    for seed in range(2):
        logits = model.logits(jax.tree.map(lambda leaf, k=seed: leaf[k], params), x)
        assert metrics.test_accuracy[-1, seed] == pytest.approx((np.asarray(logits).argmax(axis=0) == y).mean())
    _, shorter, _ = training.train(model, ensemble(), train_set, test_set, steps=3, optimizer=optimizer)
    for long, short in zip(metrics, shorter, strict=True):
        np.testing.assert_allclose(long[:4], short, rtol=1e-5)


def test_steps_beyond_the_last_change_nothing(train_set):
    """The compiled call makes a fixed number of steps; a run whose length does not divide by it stops in between."""
    full, _ = train(examples=train_set, steps=150)
    half, _ = train(examples=train_set, steps=70)
    rest, _ = train(examples=train_set, steps=80, params=half)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5), full, rest)


@pytest.mark.parametrize("block", [1, 50, 151, 5000])
def test_blocks_change_only_rounding(block, train_set):
    _, default = train(examples=train_set)
    _, chunked = train(examples=train_set, block=block)
    np.testing.assert_allclose(default.loss, chunked.loss, rtol=1e-5)
    np.testing.assert_array_equal(default.train_accuracy, chunked.train_accuracy)


def test_devices_change_only_rounding(train_set, digits):
    _, two = train(examples=train_set)
    _, one = train(examples=place(digits, 301, devices_used=1))
    np.testing.assert_allclose(two.loss, one.loss, rtol=1e-5)


def test_a_network_is_the_same_in_any_ensemble(train_set):
    _, many = train(examples=train_set, params=mlp.init_ensemble(KEY, range(7), SIZES))
    _, few = train(examples=train_set, params=mlp.init_ensemble(KEY, [5, 1], SIZES))
    np.testing.assert_allclose(many.loss[:, [5, 1]], few.loss, rtol=1e-5)


def test_any_optax_optimiser_trains_and_adam_is_optax_adam(train_set):
    params = ensemble(1)
    with jax.numpy_dtype_promotion("standard"):  # optax's adam mixes integers and floats
        ours, _ = train(examples=train_set, params=params, steps=4, optimizer=training.optimizer("adam", 0.003))
    x, y = jnp.asarray(np.asarray(train_set.x)[:301]), np.asarray(train_set.y)[:301]

    def loss(p):
        logits = mlp.model("relu").logits(p, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits.T, y).mean()

    plain = optax.adam(0.003)
    now = jax.tree.map(lambda leaf: leaf[0], params)
    with jax.numpy_dtype_promotion("standard"):
        state = plain.init(now)

        @jax.jit
        def step(now, state):
            updates, state = plain.update(jax.grad(loss)(now), state, now)
            return optax.apply_updates(now, updates), state

        for _ in range(4):
            now, state = step(now, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-3, atol=1e-4), ours, now)


def test_training_leaves_the_given_weights_as_they_are(train_set):
    params = ensemble()
    before = jax.tree.map(np.array, params)
    train(examples=train_set, params=params)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_divergence_is_reported_with_seeds_and_step(train_set):
    params = ensemble(3)
    params["dense0"]["weight"] = params["dense0"]["weight"].at[1].mul(1e38)
    with pytest.raises(TrainingDivergedError, match=r"loss of seed 1 is not finite after \d+ updates; try a smaller"):
        train(examples=train_set, params=params, steps=30)


def now_finished(train_set):
    optimizer = training.optimizer("sgd", 0.01)
    begin = training.start(ensemble(), 3, optimizer)
    *_, last = training.advance(mlp.model("relu"), begin, train_set, train_set, optimizer=optimizer)
    return last.snapshot()


def test_progress_is_reported_to_the_end(train_set):
    optimizer = training.optimizer("sgd", 0.01)
    begin = training.start(ensemble(), 130, optimizer)
    seen = [
        (now.step, now.steps, now.finished, float(now.mean.loss))
        for now in training.advance(mlp.model("relu"), begin, train_set, train_set, optimizer=optimizer)
    ]
    steps, whole, finished, losses = zip(*seen, strict=True)
    assert list(steps) == sorted(set(steps))
    assert steps[-1] == 130
    assert set(whole) == {130}
    assert list(finished) == [False] * (len(seen) - 1) + [True]
    assert losses[-1] < losses[0]
    *_, again = training.advance(mlp.model("relu"), now_finished(train_set), train_set, train_set, optimizer=optimizer)
    assert again.finished


def test_a_second_run_compiles_nothing(train_set):
    """Its optimiser is made anew, as by every run."""
    relu = mlp.model("relu")
    once = dataclasses.replace(relu, apply=traced_at_most(relu.apply, 4))  # three of them in the first run's program
    train(once, examples=train_set, steps=3)
    train(once, examples=train_set, steps=9, params=mlp.init_ensemble(KEY, [8, 9], SIZES))
