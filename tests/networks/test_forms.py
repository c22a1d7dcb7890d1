"""The forms: their sites, what a state_dict makes of them, distances, and that they train."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.errors import InputError
from jaxdist.networks import forms, mlp, training
from jaxdist.networks import model as networks_model
from jaxdist.storage.torch import perceptrons
from tests import oracle

SITE = "dense0/pre"


def test_the_sites_of_the_logits_are_named_only_where_something_follows_them():
    for name in forms.names():
        model = mlp.model(name)
        params = jax.eval_shape(lambda name=name: mlp.init(jax.random.key(0), (6, 5, 3), activation=name))
        found = [site.name for site in networks_model.trace(model, params, jax.ShapeDtypeStruct((2, 6), jnp.float32))]
        logits = ["dense1/pre", "dense1/post"] if name in oracle.FORMS else []
        assert found == ["dense0/pre", "dense0/post", *logits]
        assert (model.after("dense1/pre") is not None) == (name in oracle.FORMS)


def direct(layer, a):
    """OffsetL2 by its formula: a [H, n] -> [C, n]."""
    apart = a.T[:, None, :] - layer["offset"][None]
    return jnp.sqrt(jnp.maximum((layer["alpha"][None] * apart**2).sum(axis=2), 1e-12)).T


def test_distances_by_products_are_those_of_the_formula_with_its_gradient():
    rng = np.random.default_rng(0)
    layer = {name: jnp.asarray(rng.normal(size=(10, 24)), jnp.float32) for name in ("alpha", "offset")}
    layer["alpha"] = jnp.abs(layer["alpha"]) + 0.1
    a = jnp.asarray(np.abs(rng.normal(size=(24, 40))) * 20, jnp.float32)

    def by_products(layer, a):
        return forms.ROOT(forms.DISTANCES.apply(layer, a, jnp.matmul))

    @jax.jit
    def both(layer, a):
        def with_gradient(fn):
            return fn(layer, a), jax.grad(lambda layer: fn(layer, a).sum())(layer)

        return with_gradient(by_products), with_gradient(direct)

    with jax.default_matmul_precision("float32"):
        found, expected = both(layer, a)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3), found, expected)


def test_the_gradient_of_distances_is_finite_on_the_point_itself_and_below_zero():
    layer = {"alpha": jnp.ones((3, 4)), "offset": jnp.ones((3, 4))}
    layer["alpha"] = layer["alpha"].at[1].set(-1.0)

    @jax.jit
    def gradient(layer, a):
        return jax.grad(lambda p, a: forms.ROOT(forms.DISTANCES.apply(p, a, jnp.matmul)).sum(), argnums=(0, 1))(
            layer, a
        )

    for a in (jnp.ones((4, 5)), jnp.full((4, 5), 3.0), jnp.full((4, 5), 1e4)):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(layer, a)))


def test_distances_of_packed_inputs_are_refused():
    layer = {"alpha": np.ones((3, 4), np.float32), "offset": np.ones((3, 4), np.float32)}
    with pytest.raises(ValueError, match="expected float values before a layer of distances, got uint8"):
        forms.DISTANCES.apply(layer, np.ones((5, 4), np.uint8), np.matmul)


@pytest.mark.parametrize("name", ["relu2_neg", "abs_l2_neg"])
def test_forms_train(name, train_set):
    initial = mlp.init_ensemble(jax.random.key(0), range(2), (64, 24, 10), activation=name)
    trained, metrics, _ = training.train(
        mlp.model(name), initial, train_set, train_set, steps=60, optimizer=training.optimizer("sgd", 0.002)
    )
    assert (metrics.loss[-1] < metrics.loss[0] - 0.02).all()
    for before, after in zip(jax.tree.leaves(initial), jax.tree.leaves(trained), strict=True):
        assert not np.array_equal(before, after)


def test_what_a_state_dict_of_linear_layers_cannot_hold_is_refused():
    for name, what in (("relu_l2", "alpha and offset"), ("abs_l2_neg", "alpha and offset")):
        with pytest.raises(InputError, match=f"network '{name}' has {what} besides weights and biases"):
            perceptrons.refuse_other_layers(name, "runs/mine")
    for name in ("relu", "gelu", "prelu", "relu2", "abs2_neg"):
        perceptrons.refuse_other_layers(name, "runs/mine")


def test_tensors_become_a_network_without_last_bias_only_where_there_is_none():
    params = jax.tree.map(np.asarray, mlp.init(jax.random.key(0), (6, 5, 3), activation="abs2"))
    tensors = perceptrons.to_tensors(params)
    assert list(tensors) == ["0.weight", "0.bias", "2.weight"]
    jax.tree.map(np.testing.assert_array_equal, perceptrons.network_of(tensors, "abs2", "file"), params)
    zero = tensors | {"2.bias": np.zeros(3, np.float32)}
    jax.tree.map(np.testing.assert_array_equal, perceptrons.network_of(zero, "abs2", "file"), params)
    assert set(perceptrons.network_of(tensors, "abs", "file")["dense1"]) == {"weight", "bias"}
    with pytest.raises(InputError, match="file: its last layer has a bias, which a network 'abs2' does not have"):
        perceptrons.network_of(tensors | {"2.bias": np.ones(3, np.float32)}, "abs2", "file")
