"""The perceptron: its forward pass, its initial weights, its activations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import activations, mlp
from jaxdist.errors import InputError


@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 3), (6, 5, 4, 3)])
@pytest.mark.parametrize("name", activations.names())
def test_forward_equals_numpy(sizes, name):
    params = mlp.init(jax.random.key(0), sizes)
    x = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)
    value = x.reshape(9, 6).astype(np.float64)
    for k in range(len(sizes) - 1):
        layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[f"dense{k}"])
        value = value @ layer["weight"].T + layer["bias"]
        if k < len(sizes) - 2:
            value = np.maximum(value, 0) if name == "relu" else np.abs(value)
    logits = mlp.model(name, len(sizes) - 2).apply(params, jnp.asarray(x), lambda _, v: v)
    np.testing.assert_allclose(logits.T, value, rtol=1e-5, atol=1e-5)


def test_pytorch_initialisation_is_uniform_within_one_over_root_fan_in():
    params = mlp.init(jax.random.key(0), (400, 500, 10))
    for name, fan_in in (("dense0", 400), ("dense1", 500)):
        for leaf in params[name].values():
            values = np.asarray(leaf) * np.sqrt(fan_in)
            assert np.abs(values).max() <= 1
        weights = np.asarray(params[name]["weight"]).ravel() * np.sqrt(fan_in)
        # A mean of n uniforms on [-1, 1] has sd 1/sqrt(3 n), their mean square has sd sqrt(4/45/n): six sd each.
        assert abs(weights.mean()) < 6 / np.sqrt(3 * weights.size)
        assert abs((weights**2).mean() - 1 / 3) < 6 * np.sqrt(4 / 45 / weights.size)


@pytest.mark.parametrize("scheme", ["lecun_normal", "he_normal", "glorot_uniform"])
def test_other_schemes_have_their_variance_and_no_bias(scheme):
    params = mlp.init(jax.random.key(0), (400, 500, 10), scheme)
    variance = {"lecun_normal": 1 / 400, "he_normal": 2 / 400, "glorot_uniform": 2 / 900}[scheme]
    assert np.asarray(params["dense0"]["weight"]).var() == pytest.approx(variance, rel=0.03)
    assert (params["dense0"]["bias"] == 0).all()


def test_a_seed_starts_from_the_same_weights_whatever_the_ensemble():
    key = jax.random.key(5)
    twenty = mlp.init_ensemble(key, range(20), (8, 4, 3))
    for seeds in ([3, 7], [0, 3], [19, 3]):
        few = mlp.init_ensemble(key, seeds, (8, 4, 3))
        k = seeds.index(3)
        jax.tree.map(lambda a, b, k=k: np.testing.assert_array_equal(a[3], b[k]), twenty, few)
    assert not np.array_equal(twenty["dense0"]["weight"][0], twenty["dense0"]["weight"][1])


@pytest.mark.parametrize("name", activations.names())
def test_the_facts_of_an_activation_are_true(name):
    fn = activations.get(name)
    h = jnp.linspace(-5, 5, 1001)
    assert fn.homogeneous == bool(jnp.allclose(fn(3.7 * h), 3.7 * fn(h), rtol=1e-6))
    assert fn.even == bool((fn(-h) == fn(h)).all())
    assert fn.bounded == bool(jnp.abs(fn(1e6 * h)).max() < 1e3)


def test_an_unknown_activation_is_named_with_the_nearest_known_one():
    with pytest.raises(InputError, match="unknown activation 'rely'; did you mean 'relu'"):
        activations.get("rely")


def test_narrowing_to_the_used_inputs_and_back_changes_nothing():
    params = mlp.init_ensemble(jax.random.key(0), range(2), (6, 4, 3))
    used = np.array([True, False, True, True, False, True])
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32) * used
    apply = mlp.model("abs").apply
    small = mlp.narrow(params, used)
    for k in range(2):
        whole, part = (jax.tree.map(lambda leaf, k=k: leaf[k], tree) for tree in (params, small))
        full = apply(whole, x, lambda _, v: v)
        np.testing.assert_allclose(apply(part, x[:, used], lambda _, v: v), full, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda p: apply(p, x, lambda _, v: v).sum())(jax.tree.map(lambda leaf: leaf[0], params))
    assert (gradient["dense0"]["weight"][:, ~used] == 0).all()
    jax.tree.map(np.testing.assert_array_equal, mlp.widen(small, used, params), params)
    moved = jax.tree.map(lambda leaf: leaf + 1, small)
    weight = mlp.widen(moved, used, params)["dense0"]["weight"]
    np.testing.assert_array_equal(weight[:, :, ~used], params["dense0"]["weight"][:, :, ~used])
    np.testing.assert_array_equal(weight[:, :, used], params["dense0"]["weight"][:, :, used] + 1)
