"""Ranges: against a direct computation, whatever the blocks, and which units are dead."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import config
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.networks import model as networks_model
from jaxdist.networks.model import Model
from jaxdist.perturbations import ranges, rules
from jaxdist.perturbations.rules import Rule
from jaxdist.sweep import results
from jaxdist.types import Ranges
from tests.conftest import place

SITE = "dense0/pre"


def direct(params, train_set, seed):
    x = np.asarray(train_set.x, np.float64)[:301].reshape(301, -1)
    layer = jax.tree.map(lambda leaf: np.asarray(leaf[seed], np.float64), params["dense0"])
    return x @ layer["weight"].T + layer["bias"]


@pytest.mark.parametrize("block", [None, 1, 100])
@pytest.mark.parametrize("activation", ["relu", "abs"])
@pytest.mark.parametrize("side", ["post", "pre"])
def test_ranges_equal_a_direct_computation(side, activation, block, trained, train_set):
    params = trained[activation]
    found = ranges.measure(mlp.model(activation), params, train_set, (SITE,), measured_on=side, block=block)[SITE]
    for seed in range(3):
        value = direct(params, train_set, seed)
        if side == "post":
            value = np.maximum(value, 0) if activation == "relu" else np.abs(value)
        np.testing.assert_allclose(found.low[seed], value.min(axis=0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.high[seed], value.max(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["post", "pre"])
def test_a_unit_is_dead_if_its_activation_is_always_zero(side, trained, train_set):
    params = jax.tree.map(jnp.array, trained["relu"])
    params["dense0"]["weight"] = params["dense0"]["weight"].at[1, 4].set(0.0)
    params["dense0"]["bias"] = params["dense0"]["bias"].at[1, 4].set(-2.0)
    dead = ranges.measure(mlp.model("relu"), params, train_set, (SITE,), measured_on=side)[SITE].dead
    for seed in range(3):
        np.testing.assert_array_equal(dead[seed], (direct(params, train_set, seed) <= 0).all(axis=0))
    assert dead[1, 4]
    params["dense0"]["bias"] = params["dense0"]["bias"].at[1, 4].set(2.0)
    alive = ranges.measure(mlp.model("relu"), params, train_set, (SITE,), measured_on=side)[SITE].dead
    assert not alive[1, 4], "a constant that is not zero still speaks"


def test_every_layer_is_measured_in_one_pass(train_set):
    params = mlp.init_ensemble(jax.random.key(0), range(2), (64, 9, 5, 10))
    found = ranges.measure(mlp.model("abs", 2), params, train_set, ("dense0/pre", "dense1/pre"))
    assert [found[site].low.shape for site in found] == [(2, 9), (2, 5)]


def test_a_site_without_a_declared_activation_is_measured_in_front_of_it_alone(trained, train_set):
    model = Model(mlp.model("relu").apply, unit_axis=0, class_axis=0)
    with pytest.raises(
        InputError, match=r"after the activation need post=\{'dense0/pre': fn\}; pass that, or use measured_on 'pre'"
    ):
        ranges.measure(model, trained["relu"], train_set, (SITE,))
    params = jax.tree.map(jnp.array, trained["relu"])
    params["dense0"] = jax.tree.map(lambda leaf: leaf.at[1, 4].set(-1.0), params["dense0"])
    known = ranges.measure(mlp.model("relu"), params, train_set, (SITE,), measured_on="pre")[SITE]
    found = ranges.measure(model, params, train_set, (SITE,), measured_on="pre")[SITE]
    np.testing.assert_array_equal(found.low, known.low)
    np.testing.assert_array_equal(found.high, known.high)
    assert known.dead[1, 4]
    assert not found.dead.any()


RULES = (Rule("quantile", quantile=0.02), Rule("quantile", quantile=0.25), Rule("sd", deviations=2.0))


def expected(rule, value):
    """The range of value[N, H] by NumPy in float64."""
    if rule.kind == "sd":
        around = rule.deviations * value.std(axis=0)
        return value.mean(axis=0) - around, value.mean(axis=0) + around
    return np.quantile(value, [rule.quantile, 1 - rule.quantile], axis=0, method="inverted_cdf")


@pytest.mark.parametrize("block", [None, 100])
@pytest.mark.parametrize("side", ["post", "pre"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_equals_numpy(rule, side, block, trained, train_set):
    params = trained["relu"]
    model = mlp.model("relu")
    found = ranges.measure(model, params, train_set, (SITE,), measured_on=side, rule=rule, block=block)[SITE]
    extremes = ranges.measure(model, params, train_set, (SITE,))[SITE]
    np.testing.assert_array_equal(found.dead, extremes.dead)
    for seed in range(3):
        value = direct(params, train_set, seed)
        low, high = expected(rule, np.maximum(value, 0) if side == "post" else value)
        np.testing.assert_allclose(found.low[seed], low, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.high[seed], high, rtol=1e-4, atol=1e-4)


def read_whole(params, x, tap):
    """Integer weights of integer pixels: values that float32 holds exactly, in any order of summation."""
    return tap("h", x.reshape(len(x), -1) @ params)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_blocks_and_devices_give_the_same_range(rule, digits):
    """To the bit for quantiles, which are counted."""
    params = np.random.default_rng(0).integers(-3, 4, (2, 64, 6)).astype(np.float32)
    model = Model(read_whole)
    found = [
        ranges.measure(model, params, place(digits, 301, used), ("h",), measured_on="pre", rule=rule, block=block)["h"]
        for used, block in ((1, None), (2, None), (2, 100))
    ]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            if rule.kind == "quantile":
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-6)
    if rule.kind == "quantile":
        x = np.asarray(place(digits, 301, 1).x, np.float64).reshape(301, -1)
        for seed in range(2):
            low, high = expected(rule, x @ params[seed])
            np.testing.assert_array_equal((found[0].low[seed], found[0].high[seed]), (low, high))


def with_positions(params, x, tap):
    """A site [n, positions, H], as behind a convolution."""
    value = tap("h", x[..., None] * params[None, None, None])
    return value.sum((1, 2))


@pytest.mark.parametrize("rule", [Rule(), *RULES], ids=str)
def test_a_range_is_over_examples_and_positions(rule, digits):
    params = np.array([[1.0, -2.0, 0.5]], np.float32)
    examples = place(digits, 70, 2)
    found = ranges.measure(Model(with_positions), params, examples, ("h",), measured_on="pre", rule=rule)["h"]
    value = np.asarray(examples.x, np.float64)[:70].reshape(-1, 1) * params[0].astype(np.float64)
    low, high = (value.min(0), value.max(0)) if rule.kind == "minmax" else expected(rule, value)
    np.testing.assert_allclose((found.low[0], found.high[0]), (low, high), rtol=1e-5)


def test_the_spread_of_values_far_from_zero_is_not_lost(digits):
    """Mean 1e5 with a spread near 6: the mean of squares less the squared mean would lose every digit."""

    def far(params, x, tap):
        return tap("h", x.reshape(len(x), -1)[:, 20:24] + params[None])

    examples = place(digits, 301, 2)
    rule = Rule("sd", deviations=1.0)
    shift = np.full((1, 4), 1e5, np.float32)
    found = ranges.measure(Model(far), shift, examples, ("h",), measured_on="pre", rule=rule, block=64)["h"]
    sd = np.asarray(examples.x, np.float64)[:301].reshape(301, -1)[:, 20:24].std(axis=0)
    # A float32 near 1e5 resolves 1/128.
    np.testing.assert_allclose((found.high[0] - found.low[0]) / 2, sd, atol=0.01)


def test_keys_keep_the_order_of_values():
    values = np.array([-np.inf, -3e38, -1.0, -1e-30, 0.0, 1e-30, 0.5, 7.0, np.inf], np.float32)
    keys = np.asarray(rules.ordered(jnp.asarray(values)))
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(rules.unordered(jnp.asarray(keys)), values)


@pytest.mark.parametrize(
    ("fn", "passes"),
    [
        (jax.nn.relu, True),
        (jnp.abs, True),
        (jax.nn.leaky_relu, True),
        (jax.nn.elu, True),
        (jax.nn.gelu, True),
        (jax.nn.silu, True),
        (jax.nn.softplus, True),
        (lambda h: h, True),
        (lambda h: jnp.where(h > 0, h, jnp.arange(24, dtype=h.dtype)[:, None] * h), True),
        (jnp.tanh, False),
        (jax.nn.sigmoid, False),
        (jnp.sin, False),
        (lambda h: -jax.nn.relu(h), False),
        (jax.nn.relu6, False),
        (lambda h: jax.nn.softmax(h, axis=0), False),
    ],
)
def test_ranges_behind_an_activation_need_one_that_passes_large_values(fn, passes):
    """Of plain functions, by what they give; the 24 units are on the first axis."""
    assert ranges.passes_large_values(fn, (24, 1)) == passes
    model = Model(mlp.model("relu").apply, ((SITE, fn),), unit_axis=0, class_axis=0)
    found = networks_model.trace(mlp.model("relu"), mlp.init(jax.random.key(0), (64, 24, 10)), jnp.ones((1, 64)))
    ranges.check(model, found, (SITE,), "pre")
    if passes:
        ranges.check(model, found, (SITE,), "post")
    else:
        with pytest.raises(
            InputError, match=r"'dense0/pre': its activation changes large values.*use measured_on 'pre'"
        ):
            ranges.check(model, found, (SITE,), "post")


def test_an_activation_given_as_a_site_is_accepted(trained, train_set):
    model = Model(mlp.model("relu").apply, ((SITE, "dense0/post"),), unit_axis=0, class_axis=0)
    for a, b in zip(
        ranges.measure(model, trained["relu"], train_set, (SITE,))[SITE],
        ranges.measure(mlp.model("relu"), trained["relu"], train_set, (SITE,))[SITE],
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_a_rule_out_of_bounds_is_refused(trained, train_set):
    for rule, message in ((Rule("quantile", quantile=0.5), "quantile: expected"), (Rule("sd", deviations=0), "deviat")):
        with pytest.raises(InputError, match=message):
            ranges.measure(mlp.model("relu"), trained["relu"], train_set, (SITE,), rule=rule)
    with pytest.raises(InputError, match=r"fewer than 2\*\*31"):
        rules.check(Rule("sd"), {"h": 2**31})


def test_a_config_names_the_rule_and_its_bounds():
    options = config.from_toml("[ranges]\nrule = 'quantile'\nquantile = 0.01").ranges
    assert rules.rule_of(options) == Rule("quantile", 0.01, 3.0)
    with pytest.raises(InputError, match=r"above 0 and below 0\.5"):
        config.from_toml("[ranges]\nquantile = 0.5")


def test_a_results_ranges_say_their_rule_and_its_number():
    measured = {"relu": {SITE: Ranges(np.zeros((2, 3)), np.ones((2, 3)), np.zeros((2, 3), bool))}}
    for rule, number in (("minmax", {}), ("quantile", {"quantile": 0.001}), ("sd", {"deviations": 3.0})):
        attrs = results.ranges(measured, [0, 1], config.RangesConfig(rule=rule)).attrs
        assert {name: value for name, value in attrs.items() if name != "made"} == {
            "measured_on": "post",
            "rule": rule,
            **number,
        }
