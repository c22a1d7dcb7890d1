"""Activations: their definitions, facts and derivatives, learned ones, and those that a user brings."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.errors import InputError
from jaxdist.networks import activations, forms, mlp, training
from jaxdist.networks import model as networks_model
from jaxdist.networks.activations import Activation
from jaxdist.perturbations import ranges
from tests import oracle
from tests.conftest import to_numpy

GRID = np.linspace(-12, 12, 1201, dtype=np.float32)
FAR = np.array([-1e30, -1e4, -100, -1e-30, 0, 1e-30, 100, 1e4, 1e30], np.float32)


def start(activation):
    """The activation with its parameters at the values that they start from."""
    return lambda h: activation(h, *(jnp.float32(value) for _, value in activation.parameters))


@pytest.fixture(scope="module")
def found():
    """Values and derivatives of all activations, by one program, with what the facts are judged by."""

    @jax.jit
    def all_of_them(h):
        known = {name: start(activations.get(name)) for name in activations.names()}
        return {
            name: {
                "value": fn(h),
                "mirrored": fn(-h),
                "times 3.7": fn(3.7 * h),
                "far": fn(1e6 * h),
                "derivative": jax.vmap(jax.grad(fn))(h),
                "derivative far": jax.vmap(jax.grad(fn))(jnp.asarray(FAR)),
            }
            for name, fn in known.items()
        }

    return jax.tree.map(np.asarray, all_of_them(GRID))


def test_the_oracle_knows_every_activation():
    assert set(activations.names()) == set(oracle.ACTIVATIONS)
    assert set(forms.names()) == set(oracle.ACTIVATIONS) | set(oracle.FORMS)


@pytest.mark.parametrize("name", activations.names())
def test_an_activation_and_its_derivative_equal_their_definition_in_float64(name, found):
    define, h = oracle.ACTIVATIONS[name], GRID.astype(np.float64)
    np.testing.assert_allclose(found[name]["value"], define(h), rtol=2e-6, atol=2e-6)
    smooth = np.abs(h) > 1e-3  # where no kink lies between the two points
    slope = (define(h + 1e-5) - define(h - 1e-5)) / 2e-5
    np.testing.assert_allclose(found[name]["derivative"][smooth], slope[smooth], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", activations.names())
def test_the_facts_of_an_activation_are_true_and_those_it_lacks_are_false(name, found):
    fn, values = activations.get(name), found[name]
    assert fn.even == (values["mirrored"] == values["value"]).all()
    assert fn.bounded == (np.abs(values["far"]).max() < 1e3)


@pytest.mark.parametrize("name", activations.names())
def test_derivatives_are_finite_at_0_and_far_from_it(name, found):
    assert np.isfinite(found[name]["derivative far"]).all()


def test_gelu_is_the_exact_one_and_not_its_approximation(found):
    apart = np.abs(found["gelu"]["value"] - np.asarray(jax.nn.gelu(GRID, approximate=True)))
    assert apart.max() > 1e-4


def test_an_unknown_activation_is_named_with_the_nearest_known_one():
    with pytest.raises(InputError, match="unknown activation 'rely'; did you mean 'relu'"):
        activations.get("rely")
    with pytest.raises(InputError, match="unknown activation 'abs2neg'; did you mean 'abs2_neg'"):
        mlp.model("abs2neg")
    with pytest.raises(InputError, match="unknown activation 'swooosh'; known: relu, abs, leaky_relu"):
        forms.get("swooosh")


def test_prelu_has_one_slope_a_layer_that_training_moves(train_set):
    initial = mlp.init_ensemble(jax.random.key(0), range(2), (64, 12, 6, 10), activation="prelu")
    for k in range(2):
        np.testing.assert_array_equal(initial[f"dense{k}"]["slope"], np.float32([0.25, 0.25]))
    assert "slope" not in initial["dense2"]
    model = mlp.model("prelu", 2)
    trained, metrics, _ = training.train(
        model, initial, train_set, train_set, steps=30, optimizer=training.optimizer("sgd", 0.01)
    )
    assert (metrics.loss[-1] < metrics.loss[0]).all()
    slopes = np.stack([trained[f"dense{k}"]["slope"] for k in range(2)])
    assert slopes.shape == (2, 2)
    assert (np.abs(slopes - 0.25) > 1e-3).all()
    # The activation of each layer is the one with its own learned slope.
    x = np.asarray(train_set.x)[:20]
    one, of_one = (jax.tree.map(lambda leaf: leaf[1], tree) for tree in (trained, to_numpy(trained)))
    _, _, behind = networks_model.read_after(model, one, x, ["dense0/pre", "dense1/pre"])
    for k in range(2):
        pre = oracle.preactivations(of_one, "prelu", x.astype(np.float64), k)
        expected = np.where(pre > 0, pre, slopes[k, 1] * pre)
        np.testing.assert_allclose(behind[f"dense{k}/pre"].T, expected, rtol=1e-4, atol=1e-3)


def test_a_function_of_ones_own_is_an_activation_and_one_compilation(train_set):
    traced = []

    def bent(h):
        traced.append(h.shape)
        return jnp.where(h > 0, h, 0.25 * h)

    params = mlp.init_ensemble(jax.random.key(0), range(2), (64, 6, 10))
    site = ("dense0/pre",)
    first = ranges.measure(mlp.model(bent), params, train_set, site)
    blocks = [shape for shape in traced if shape[1] > 1]  # to list the sites, one example is looked at each time
    again = ranges.measure(mlp.model(bent), params, train_set, site)
    assert [shape for shape in traced if shape[1] > 1] == blocks != []
    jax.tree.map(np.testing.assert_array_equal, first, again)
    learned = mlp.init_ensemble(jax.random.key(0), range(2), (64, 6, 10), activation="prelu")
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6),
        first,
        ranges.measure(mlp.model("prelu"), learned, train_set, site),
    )


def test_equal_arguments_give_equal_models():
    def bent(h):
        return h

    with_facts = [Activation("bent", bent, even=True) for _ in range(2)]
    same = [
        (mlp.model("gelu"), mlp.model(activations.get("gelu"))),
        (mlp.model("relu2", 2), mlp.model(forms.get("relu2"), 2)),
        (mlp.model(bent), mlp.model(bent)),
        (mlp.model(with_facts[0]), mlp.model(with_facts[1])),
    ]
    for one, other in same:
        assert one == other
        assert hash(one) == hash(other)
    assert len({one for one, _ in same} | {mlp.model("relu2", 1)}) == 5
    assert not forms.of(bent).hidden.even  # nothing is taken to be known


def test_what_is_no_activation_is_refused():
    class Table:
        __hash__ = None

        def __call__(self, h):
            return h

    with pytest.raises(InputError, match="expected a name, a function of the preactivations or a Form, got 3"):
        mlp.model(3)
    with pytest.raises(InputError, match="'Table' is not hashable"):
        mlp.model(Table())
