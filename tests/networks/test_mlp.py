"""The perceptron: its forward pass in every form, and its initial weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.networks import forms, mlp
from tests import oracle
from tests.conftest import to_numpy

ONE, TWO, NONE = (6, 5, 3), (6, 5, 4, 3), (6, 3)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *((name, TWO) for name in forms.names()),
        *((name, sizes) for name in ("abs", "relu2_neg") for sizes in (ONE, NONE)),
    ],
)
def test_forward_equals_numpy(name, sizes):
    params = mlp.init(jax.random.key(0), sizes, activation=name)
    x = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)
    one = to_numpy(params)
    if sizes == NONE:
        expected = oracle.linear(one["dense0"], x.reshape(9, 6).astype(np.float64))
        expected = -np.maximum(expected, 0) if name == "relu2_neg" else expected
    else:
        expected = oracle.logits(one, name, oracle.hidden(one, x.astype(np.float64)))
    logits = jax.jit(mlp.model(name, len(sizes) - 2).logits)(params, jnp.asarray(x))
    np.testing.assert_allclose(logits.T, expected, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize(("scheme", "names"), [("pytorch", forms.names()), ("he_normal", ("abs2",))])
def test_networks_of_one_seed_start_from_the_same_weights_whatever_their_form(scheme, names):
    key, sizes = jax.random.key(5), (8, 4, 3)
    plain = mlp.init_ensemble(key, [3, 7], sizes, scheme)
    for name in names:
        first, last = mlp.init_ensemble(key, [3, 7], sizes, scheme, name).values()
        assert set(first) == {"weight", "bias"} | ({"slope"} if name == "prelu" else set())
        tail = oracle.FORMS.get(name, ("", "", 1))[1]
        assert set(last) == {"": {"weight", "bias"}, "2": {"weight"}, "_l2": {"alpha", "offset"}}[tail]
        for found, expected in ((first, plain["dense0"]), (last, plain["dense1"])):
            for leaf in set(found) & set(expected):
                np.testing.assert_array_equal(found[leaf], expected[leaf])


def test_a_seeds_weights_are_the_uniform_draw_of_its_own_key():
    """What earlier runs started from: the key of the seed, then of the layer, one draw with the bias as last column."""
    found = mlp.init_ensemble(jax.random.key(5), [3, 7], (8, 4, 3), activation="gelu")
    for k, (inputs, units) in enumerate(((8, 4), (4, 3))):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 7), k)
        both = jax.random.uniform(key, (units, inputs + 1), minval=-(inputs**-0.5), maxval=inputs**-0.5)
        # One program may fuse a product and a sum that are two roundings by themselves.
        for leaf, expected in (("weight", both[:, :-1]), ("bias", both[:, -1])):
            np.testing.assert_allclose(found[f"dense{k}"][leaf][1], expected, rtol=1e-6, atol=1e-7)


def test_points_of_distances_start_normal_and_their_weights_at_one():
    last = mlp.init(jax.random.key(0), (4, 500, 10), activation="abs_l2")["dense1"]
    assert (last["alpha"] == 1).all()
    offset = np.asarray(last["offset"])
    # Six standard deviations of the mean and of the standard deviation of 5,000 normal numbers.
    assert abs(offset.mean()) < 6 * 0.1 / np.sqrt(offset.size)
    assert abs(offset.std() - 0.1) < 6 * 0.1 / np.sqrt(2 * offset.size)


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
