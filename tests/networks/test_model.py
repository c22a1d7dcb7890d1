"""Reading, editing and replacing named values, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from jaxdist.errors import InputError
from jaxdist.networks import mlp, site
from jaxdist.networks import model as networks_model
from jaxdist.networks.model import Model
from jaxdist.networks.site_values import Site


@pytest.fixture
def network():
    return mlp.init(jax.random.key(1), (6, 5, 4, 3))


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(2), (7, 6))


MODEL = mlp.model("relu", 2)


def test_sites_are_listed_in_call_order_with_shapes_and_nothing_is_computed(network):
    found = networks_model.trace(MODEL, network, jax.ShapeDtypeStruct((7, 6), jnp.float32))
    assert [site.name for site in found] == ["dense0/pre", "dense0/post", "dense1/pre", "dense1/post"]
    assert [site.shape for site in found] == [(5, 7), (5, 7), (4, 7), (4, 7)]


def test_read_gives_the_values_and_the_untouched_logits(network, x):
    logits, values = networks_model.read(MODEL, network, x, ["dense0/pre", "dense1/post"])
    first = np.asarray(network["dense0"]["weight"]) @ np.asarray(x).T + np.asarray(network["dense0"]["bias"])[:, None]
    np.testing.assert_allclose(values["dense0/pre"], first, rtol=1e-5, atol=1e-6)
    assert (values["dense1/post"] >= 0).all()
    np.testing.assert_array_equal(logits, MODEL.logits(network, x))


def test_replacing_a_value_by_itself_changes_nothing_and_by_another_does(network, x):
    logits, values = networks_model.read(MODEL, network, x, ["dense1/pre"])
    same = networks_model.edit(MODEL, network, x, {"dense1/pre": lambda _: values["dense1/pre"]})
    np.testing.assert_array_equal(same, logits)
    np.testing.assert_array_equal(networks_model.edit(MODEL, network, x, values), logits)
    zero = networks_model.edit(MODEL, network, x, {"dense1/pre": jnp.zeros_like})
    np.testing.assert_allclose(zero, np.tile(network["dense2"]["bias"], (7, 1)).T, rtol=1e-6)


def test_an_unknown_site_is_refused_with_the_list_of_sites(network, x):
    with pytest.raises(
        InputError,
        match=r"site 'dense9/pre': the network has no such site; did you .*; its sites are dense0",
    ):
        networks_model.read(MODEL, network, x, ["dense9/pre"])
    with pytest.raises(InputError, match="its sites are none"):
        networks_model.read(Model(lambda params, x: x), network, x, ["anything"])


def test_an_edit_acts_on_every_call_of_a_site_or_on_the_one_that_is_named(x):
    def twice(params, x):
        return 2 * site("here", 3 * site("here", x @ params))

    model, params = Model(twice), jnp.eye(6)
    for key, factor in {"here": 4, "here#0": 2, "here#1": 2}.items():
        edited = networks_model.edit(model, params, x, {key: lambda value: 2 * value})
        np.testing.assert_array_equal(edited, factor * 6 * x)
    _, values = networks_model.read(model, params, x, ["here", "here#1"])
    np.testing.assert_array_equal(values["here"], jnp.stack([x, 3 * x], 1))
    np.testing.assert_array_equal(values["here#1"], 3 * x)
    listed = networks_model.trace(model, params, x)
    assert listed.whole_shape("here", -1) == values["here"].shape
    assert listed.shape("here") == (7, 6)


def test_the_iterations_of_a_loop_lie_after_the_examples(x):
    def apply(params, x):
        return jax.lax.scan(lambda h, w: (site("h", h @ w), None), x, params)[0]

    params = jnp.stack([jnp.eye(6), 2 * jnp.eye(6), 3 * jnp.eye(6)])
    for unit_axis in (-1, 0):
        model = Model(apply, unit_axis=unit_axis)
        rows = x if unit_axis else x[:6]
        values = networks_model.read(model, params, rows, ["h", "h@1"])[1]
        axis = 1 if unit_axis else 2
        np.testing.assert_allclose(values["h"], jnp.stack([rows, 2 * rows, 6 * rows], axis), rtol=1e-6)
        np.testing.assert_allclose(values["h@1"], 2 * rows, rtol=1e-6)
        assert networks_model.trace(model, params, rows).whole_shape("h", unit_axis) == values["h"].shape


def test_calls_of_different_shapes_have_to_be_named(x):
    def apply(params, x):
        return site("h", site("h", x @ params)[:, :3])

    listed = networks_model.trace(Model(apply), jnp.eye(6), x)
    with pytest.raises(InputError, match=r"its 2 calls have values of different shapes or loops, .* as 'h#0'"):
        networks_model.check_editable(listed, ["h"])
    networks_model.check_editable(listed, ["h#0", "h#1"])


def test_an_action_that_changes_the_shape_is_refused(network, x):
    with pytest.raises(
        ValueError, match=r"site 'dense0/pre': expected its action to keep the shape \(5, 7\) and float32, got \(1, 7\)"
    ):
        networks_model.edit(MODEL, network, x, {"dense0/pre": lambda value: value[:1]})


def test_equal_models_are_one_compilation_key():
    assert mlp.model("abs") == mlp.model("abs")
    assert hash(mlp.model("abs")) == hash(mlp.model("abs"))
    assert mlp.model("abs") != mlp.model("relu")


def test_what_is_behind_a_site_comes_from_a_function_or_from_another_site(network, x):
    by_function = mlp.model("relu", 2)
    by_site = dataclasses.replace(by_function, post=(("dense0/pre", "dense0/post"),))
    for model in (by_function, by_site):
        logits, values, behind = networks_model.read_after(model, network, x, ["dense0/pre", "dense1/pre"])
        assert set(values) == {"dense0/pre", "dense1/pre"}
        np.testing.assert_array_equal(behind["dense0/pre"], np.maximum(values["dense0/pre"], 0))
        np.testing.assert_array_equal(logits, MODEL.logits(network, x))
    assert set(behind) == {"dense0/pre"}


def in_a_jit(params, x):
    return jax.jit(lambda x: site("inner", x @ params))(site("outer", x)) @ params


def in_a_scan(params, x):
    return jax.lax.scan(lambda x, _: (site("inner", x @ params), None), site("outer", x), length=2)[0]


def in_remat(params, x):
    return jax.checkpoint(lambda x: site("inner", x @ params))(site("outer", x)) @ params


def in_vmap(params, x):
    return jax.vmap(lambda row: site("inner", row @ params))(site("outer", x))


@pytest.mark.parametrize("apply", [in_a_jit, in_a_scan, in_remat, in_vmap])
def test_a_value_within_a_transformation_of_the_network_is_edited_as_any_other(apply, x):
    params, model = 2 * jnp.eye(6), Model(apply)
    listed = networks_model.trace(model, params, x)
    assert listed.names == ["outer", "inner"]
    networks_model.check_editable(listed, ["outer", "inner"])
    unedited = apply(params, x)
    iterations = 2 if apply is in_a_scan else 1
    for key, factor in {"outer": 3, "inner": 3**iterations}.items():
        edited = jax.jit(lambda x, k=key: networks_model.edit(model, params, x, {k: lambda value: 3 * value}))(x)
        np.testing.assert_allclose(edited, factor * unedited, rtol=1e-6)


def checked(apply, params, x, keys):
    """The sites of a function, if these keys can be edited."""
    listed = networks_model.trace(Model(apply), params, x)
    networks_model.check_editable(listed, keys)
    return listed


def test_one_network_of_several_has_the_sites_of_one_example(network, x):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), network)
    listed = networks_model.sites_for_one(MODEL, stacked, x, ["dense0/pre", "dense1/post"])
    assert listed == networks_model.trace(MODEL, network, x[:1])


def test_a_value_that_does_not_reach_the_logits_is_refused(x):
    def model(params, x, tap):
        hidden = tap("hidden", x @ params)
        tap("looked at", hidden)
        side = tap("side", jnp.sin(hidden))
        shape_only = tap("shape only", side * side)
        late = tap("late", jax.jit(jnp.cos)(hidden))
        return tap("logits", late + jnp.ones_like(shape_only))

    params = jnp.eye(6)
    assert len(checked(model, params, x, ["hidden", "late", "logits"])) == 6
    for dead in ("looked at", "side", "shape only"):
        sentence = (
            f"site '{dead}': its value does not reach the network's output, .* sites are hidden, looked at, side, shape"
        )
        with pytest.raises(InputError, match=sentence):
            checked(model, params, x, ["hidden", dead])
        # What is refused can indeed not change the logits.
        changed = networks_model.edit(Model(model), params, x, {dead: jnp.zeros_like})
        np.testing.assert_array_equal(changed, Model(model).logits(params, x))


@pytest.mark.parametrize("name", ["jaxdist site hidden", "jaxdist_site", "name"])
def test_names_that_look_like_marks_are_none(name, x):
    """A value that reaches nothing stays refused, whatever other value bears a name."""

    def model(params, x, tap):
        tap("hidden", x @ params)
        tap(name, jnp.cos(x))
        return checkpoint_name(jnp.sin(x @ params), name)

    for dead in ("hidden", name):
        with pytest.raises(InputError, match=f"site '{dead}': its value does not reach the network's output"):
            checked(model, jnp.eye(6), x, [dead])


@pytest.mark.parametrize("name", ["hidden", "jaxdist site hidden", "x"])
def test_a_name_and_a_site_of_the_same_name_are_told_apart(name, x):
    def model(params, x, tap):
        side = checkpoint_name(x @ params, name)
        used = tap("used", jnp.sin(side))
        tap(name, used)
        return checkpoint_name(used, name)

    with pytest.raises(InputError, match=f"site '{name}': its value does not reach the network's output"):
        checked(model, jnp.eye(6), x, [name])
    assert len(checked(model, jnp.eye(6), x, ["used"])) == 2


def test_the_logits_are_a_site_of_their_own_whatever_the_names_of_others(x):
    model = Model(lambda params, x: site("(logits)", x @ params))
    extended = networks_model.with_logits(model)
    listed = networks_model.trace(extended, jnp.eye(6), x)
    assert listed.names == ["(logits)", networks_model.LOGITS]
    edited = networks_model.edit(extended, jnp.eye(6), x, {networks_model.LOGITS: lambda value: value + 1})
    np.testing.assert_array_equal(edited, x + 1)


@pytest.mark.parametrize("kind", [bool, jnp.int8, jnp.int32, jnp.uint32, jnp.complex64])
def test_values_that_are_no_floating_point_numbers_are_listed_but_refused(kind, x):
    def model(params, x, tap):
        return tap("h", (x @ params).astype(kind)).real.astype(jnp.float32) @ tap("w", params)

    name = np.dtype(kind).name
    with pytest.raises(
        InputError, match=f"site 'h': its value has type {name}, but edits need floating-point numbers of 16 "
    ):
        checked(model, jnp.eye(6), x, ["h"])
    assert [site.name for site in checked(model, jnp.eye(6), x, ["w"])] == ["h", "w"]
    for half in (jnp.float16, jnp.bfloat16):
        checked(lambda p, x, tap, k=half: tap("h", (x @ p).astype(k)), jnp.eye(6), x, ["h"])


def test_tokens_stay_integers(x):
    tokens = jnp.array([[0, 2, 1], [1, 1, 0]])

    def model(params, tokens, tap):
        return tap("embedded", params[tokens]).sum(axis=1)

    found = checked(model, jnp.ones((3, 4)), tokens, ["embedded"])
    assert found == (Site("embedded", (2, 3, 4), jnp.float32),)


def test_a_site_that_a_function_has_since_is_found():
    """Sites are listed once for equal arguments, but what is refused is looked at afresh."""
    named = ["a"]

    def apply(params, x):
        for name in named:
            x = site(name, x * params)
        return x

    shapes = jnp.ones((1, 1, 3)), jax.ShapeDtypeStruct((4, 3), jnp.float32)
    assert networks_model.sites_for_one(Model(apply), *shapes, ("a",)).names == ["a"]
    with pytest.raises(InputError, match="'b'"):
        networks_model.sites_for_one(Model(apply), *shapes, ("b",))
    named.append("b")
    assert networks_model.sites_for_one(Model(apply), *shapes, ("b",)).names == ["a", "b"]
