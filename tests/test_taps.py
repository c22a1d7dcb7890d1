"""Reading, editing and replacing named values, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import mlp, taps
from jaxdist.errors import InputError


@pytest.fixture
def network():
    return mlp.init(jax.random.key(1), (6, 5, 4, 3))


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(2), (7, 6))


APPLY = mlp.model("relu", 2).apply


def test_sites_are_listed_in_call_order_with_shapes_and_nothing_is_computed(network):
    found = taps.sites(APPLY, network, jax.ShapeDtypeStruct((7, 6), jnp.float32))
    assert [site.name for site in found] == ["dense0/pre", "dense0/post", "dense1/pre", "dense1/post"]
    assert [site.shape for site in found] == [(5, 7), (5, 7), (4, 7), (4, 7)]


def test_read_gives_the_values_and_the_untouched_logits(network, x):
    logits, values = taps.read(APPLY, network, x, ["dense0/pre", "dense1/post"])
    first = np.asarray(network["dense0"]["weight"]) @ np.asarray(x).T + np.asarray(network["dense0"]["bias"])[:, None]
    np.testing.assert_allclose(values["dense0/pre"], first, rtol=1e-5, atol=1e-6)
    assert (values["dense1/post"] >= 0).all()
    np.testing.assert_array_equal(logits, APPLY(network, x, taps.identity))


def test_replacing_a_value_by_itself_changes_nothing_and_by_another_does(network, x):
    logits, values = taps.read(APPLY, network, x, ["dense1/pre"])
    same = taps.edit(APPLY, network, x, {"dense1/pre": lambda _: values["dense1/pre"]})
    np.testing.assert_array_equal(same, logits)
    np.testing.assert_array_equal(taps.replace(APPLY, network, x, values), logits)
    zero = taps.edit(APPLY, network, x, {"dense1/pre": jnp.zeros_like})
    np.testing.assert_allclose(zero, np.tile(network["dense2"]["bias"], (7, 1)).T, rtol=1e-6)


def test_an_unknown_site_is_refused_with_the_list_of_sites(network, x):
    with pytest.raises(
        InputError, match=r"site 'dense9/pre': the model never reaches it; its sites are dense0/pre, dense0"
    ):
        taps.read(APPLY, network, x, ["dense9/pre"])
    with pytest.raises(InputError, match="its sites are none"):
        taps.read(lambda params, x, tap: x, network, x, ["anything"])


def test_a_site_reached_twice_is_refused(network, x):
    def twice(params, x, tap):
        return tap("here", tap("here", x))

    with pytest.raises(InputError, match="site 'here': the model reaches it 2 times"):
        taps.edit(twice, network, x, {"here": lambda value: value})


def test_an_action_that_changes_the_shape_is_refused(network, x):
    with pytest.raises(ValueError, match=r"action at site 'dense0/pre' to keep the shape \(5, 7\), got \(1, 7\)"):
        taps.edit(APPLY, network, x, {"dense0/pre": lambda value: value[:1]})


def test_equal_models_are_one_compilation_key():
    assert mlp.model("abs") == mlp.model("abs")
    assert hash(mlp.model("abs")) == hash(mlp.model("abs"))
    assert mlp.model("abs") != mlp.model("relu")


def test_what_is_behind_a_site_comes_from_a_function_or_from_another_site(network, x):
    by_function = mlp.model("relu", 2)
    by_site = dataclasses.replace(by_function, post=(("dense0/pre", "dense0/post"),))
    for model in (by_function, by_site):
        logits, values, behind = taps.read_behind(model, network, x, ["dense0/pre", "dense1/pre"])
        assert set(values) == {"dense0/pre", "dense1/pre"}
        np.testing.assert_array_equal(behind["dense0/pre"], np.maximum(values["dense0/pre"], 0))
        np.testing.assert_array_equal(logits, APPLY(network, x, taps.identity))
    assert set(behind) == {"dense0/pre"}
