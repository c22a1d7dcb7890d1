"""Reading, editing and replacing named values, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from jaxdist.errors import InputError
from jaxdist.networks import mlp, taps


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

    message = "site 'here': the model reaches it 2 times, as where a module is used twice; its sites are here; give"
    with pytest.raises(InputError, match=message):
        taps.edit(twice, network, x, {"here": lambda value: value})
    with pytest.raises(InputError, match=message):
        taps.check(twice, network, x, ["here"])


def test_an_action_that_changes_the_shape_is_refused(network, x):
    with pytest.raises(ValueError, match=r"'dense0/pre' to keep the shape \(5, 7\) and float32, got \(1, 7\)"):
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


def behind_a_jit(params, x, tap):
    return jax.jit(lambda x: tap("inner", x @ params))(tap("outer", x)) @ params


def behind_a_scan(params, x, tap):
    return jax.lax.scan(lambda x, _: (tap("inner", x @ params), None), tap("outer", x), length=2)[0]


def behind_remat(params, x, tap):
    return jax.checkpoint(lambda x: tap("inner", x @ params))(tap("outer", x)) @ params


def behind_vmap(params, x, tap):
    return jax.vmap(lambda row: tap("inner", row @ params))(tap("outer", x))


def behind_grad(params, x, tap):
    return jax.grad(lambda x: jnp.sum(tap("inner", x @ params) ** 2))(tap("outer", x))


@pytest.mark.parametrize("model", [behind_a_jit, behind_a_scan, behind_remat, behind_vmap, behind_grad])
@pytest.mark.parametrize("use", ["read", "edit", "check"])
def test_a_value_within_a_transformation_of_the_model_is_listed_but_refused(model, use, x):
    params = jnp.eye(6)
    assert [site[::2] for site in taps.sites(model, params, x)] == [("outer", False), ("inner", True)]
    message = r"site 'inner': the model reaches it within a jax\.jit, .* leave that .*; within reach are outer(\n|$)"
    run = {
        "read": lambda site: taps.read(model, params, x, [site])[0],
        "edit": lambda site: jax.jit(lambda x: taps.edit(model, params, x, {site: jnp.sin}))(x),
        "check": lambda site: taps.check(model, params, x, [site]),
    }[use]
    with pytest.raises(InputError, match=message):
        run("inner")
    run("outer")  # and nothing of the refused trace is left behind


def test_a_jitted_part_hides_its_sites_and_the_sentence_says_so(x):
    jitted = jax.jit(lambda params, x: APPLY(params, x, taps.identity))

    def model(params, x, tap):
        return jitted(params, tap("image", x))

    network = mlp.init(jax.random.key(1), (6, 5, 4, 3))
    for use in (taps.check, taps.read):
        with pytest.raises(InputError, match=r"never reaches it; its sites are image .*under jax\.jit hides its own"):
            use(model, network, x, ["dense0/pre"])


def test_check_lists_what_sites_lists(network, x):
    names = ["dense0/pre", "dense1/post"]
    assert taps.check(APPLY, network, x, names) == taps.check(APPLY, network, x) == taps.sites(APPLY, network, x)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), network)
    assert taps.sites_for_one(APPLY, stacked, x, names) == taps.sites(APPLY, network, x[:1])


def test_a_value_that_does_not_reach_the_logits_is_refused(x):
    def model(params, x, tap):
        hidden = tap("hidden", x @ params)
        tap("looked at", hidden)
        side = tap("side", jnp.sin(hidden))
        shape_only = tap("shape only", side * side)
        late = tap("late", jax.jit(jnp.cos)(hidden))
        return tap("logits", late + jnp.ones_like(shape_only))

    params = jnp.eye(6)
    assert len(taps.check(model, params, x, ["hidden", "late", "logits"])) == 6
    for dead in ("looked at", "side", "shape only"):
        sentence = f"site '{dead}': its value does not reach the logits, .* sites are hidden, looked at, side, shape"
        with pytest.raises(InputError, match=sentence):
            taps.check(model, params, x, ["hidden", dead])
        # What is refused can indeed not change the logits.
        changed = taps.edit(model, params, x, {dead: jnp.zeros_like})
        np.testing.assert_array_equal(changed, model(params, x, taps.identity))


@pytest.mark.parametrize("name", ["jaxdist site hidden", "jaxdist_site", "name", ""])
def test_names_that_look_like_marks_are_none(name, x):
    """A value that reaches nothing stays refused, whatever other value bears a name."""

    def model(params, x, tap):
        tap("hidden", x @ params)
        tap(name, jnp.cos(x))
        return checkpoint_name(jnp.sin(x @ params), name)

    for dead in ("hidden", name):
        with pytest.raises(InputError, match=f"site '{dead}': its value does not reach the logits"):
            taps.check(model, jnp.eye(6), x, [dead])


@pytest.mark.parametrize("name", ["hidden", "jaxdist site hidden", "x"])
def test_a_name_and_a_site_of_the_same_name_are_told_apart(name, x):
    def model(params, x, tap):
        side = checkpoint_name(x @ params, name)
        used = tap("used", jnp.sin(side))
        tap(name, used)
        return checkpoint_name(used, name)

    with pytest.raises(InputError, match=f"site '{name}': its value does not reach the logits"):
        taps.check(model, jnp.eye(6), x, [name])
    assert len(taps.check(model, jnp.eye(6), x, ["used"])) == 2


def test_the_name_of_the_logits_as_a_site_is_refused_where_edits_restore_them(x):
    model = taps.with_logits(taps.Model(lambda params, x, tap: tap(taps.LOGITS, x @ params)))
    with pytest.raises(InputError, match=r"site '\(logits\)': edits that restore the logits use this name"):
        taps.check(model.apply, jnp.eye(6), x, [taps.LOGITS])


@pytest.mark.parametrize("kind", [bool, jnp.int8, jnp.int32, jnp.uint32, jnp.complex64])
def test_values_that_are_no_floating_point_numbers_are_listed_but_refused(kind, x):
    def model(params, x, tap):
        return tap("h", (x @ params).astype(kind)).real.astype(jnp.float32) @ tap("w", params)

    name = np.dtype(kind).name
    with pytest.raises(
        InputError, match=f"site 'h': its value is of {name}, where edits need floating-point numbers of 16 "
    ):
        taps.check(model, jnp.eye(6), x, ["h"])
    assert [site.name for site in taps.check(model, jnp.eye(6), x, ["w"])] == ["h", "w"]
    for half in (jnp.float16, jnp.bfloat16):
        taps.check(lambda p, x, tap, k=half: tap("h", (x @ p).astype(k)), jnp.eye(6), x, ["h"])


def test_tokens_stay_integers(x):
    tokens = jnp.array([[0, 2, 1], [1, 1, 0]])

    def model(params, tokens, tap):
        return tap("embedded", params[tokens]).sum(axis=1)

    found = taps.check(model, jnp.ones((3, 4)), tokens, ["embedded"])
    assert found == (taps.Site("embedded", (2, 3, 4)),)
