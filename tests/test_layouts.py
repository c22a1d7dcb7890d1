"""Narrow products turned: the same values, whatever surrounds them, and only where a CPU gains by it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import layouts

# It is about rounding.
pytestmark = pytest.mark.usefixtures("optimised")

ROWS = 48


def products(fn, like):
    """The shape of every product in a traced function."""
    eqns = jax.make_jaxpr(fn)(like).jaxpr.eqns
    return [eqn.outvars[0].aval.shape for eqn in eqns if eqn.primitive.name == "dot_general"]


@pytest.fixture
def values():
    rng = np.random.default_rng(3)
    sizes = {"x": (ROWS, 6), "hidden": (6, 10), "wide": (10, 64), "head": (64, 12), "by": (10,), "b": (64,), "c": (12,)}
    return {name: jnp.asarray(rng.normal(size=size), jnp.float32) for name, size in sizes.items()}


def network(values, scale):
    """Edits of a site, two layers after it, a path around both, and functions that are calls when traced."""
    h = values["x"] @ values["hidden"]
    h = jnp.where(scale[None] > h, scale[None], h * scale.reshape(1, -1)) + 2 * values["by"][None]
    h = jax.nn.gelu(jax.nn.relu(h) + jax.jit(jnp.tanh)(h))
    wide = jax.nn.leaky_relu(h @ values["wide"] + values["b"][None]) + 0.5
    return wide @ values["head"] + jnp.sin(h) @ values["wide"] @ values["head"] + values["c"][None]


SCALE = jnp.linspace(0.5, 2, 10)


def test_the_same_values_from_turned_products(values):
    turned = layouts.turned(lambda scale: network(values, scale), SCALE)
    np.testing.assert_allclose(turned(SCALE), network(values, SCALE), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(turned(SCALE + 1), network(values, SCALE + 1), rtol=1e-5, atol=1e-4)
    # The product before the site does not depend on the argument and is computed before.
    assert products(lambda scale: network(values, scale), SCALE).count((ROWS, 10)) == 1
    assert sorted(products(turned, SCALE)) == [(12, ROWS), (12, ROWS), (64, ROWS), (64, ROWS)]


def test_under_vmap_jit_and_map_as_well(values):
    scales = jnp.linspace(0.5, 2, 30).reshape(3, 10)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), values)

    def all_of(values):
        return jax.lax.map(layouts.turned(lambda scale: network(values, scale), scales[0]), scales)

    expected = [[network(jax.tree.map(lambda leaf, k=k: leaf[k], stacked), scale) for scale in scales] for k in (0, 1)]
    np.testing.assert_allclose(jax.jit(jax.vmap(all_of))(stacked), np.asarray(expected), rtol=1e-5, atol=1e-4)


def test_several_results_and_arguments_keep_their_structure(values):
    def fn(point):
        logits = network(values, point["scale"])
        return {"logits": logits, "sums": (jnp.sum(logits, 0), point["factor"]), "none": None}

    like = {"factor": jnp.float32(3), "scale": SCALE}
    turned, found, expected = layouts.turned(fn, like), layouts.turned(fn, like)(like), fn(like)
    assert (12, ROWS) in products(turned, like)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3), found, expected)


def _also_needed_as_it_is(values, scale):
    edited = values["x"] @ values["hidden"] * scale[None]
    return edited @ values["wide"][:, :12], jnp.sum(edited * edited, 0)


def _returned(values, scale):
    edited = values["x"] @ values["hidden"] * scale[None]
    return edited @ values["wide"][:, :12], edited


def _after_a_sort(values, scale):
    return jnp.sort(values["x"] @ values["hidden"] * scale[None], axis=-1) @ values["wide"][:, :12]


def _matrix_of_the_argument(values, scale):
    return (values["x"] @ values["hidden"]) @ (values["wide"][:, :12] * scale[:, None])


def _wide(values, scale):
    return values["x"] @ values["hidden"] * scale[None] @ values["wide"]


def _of_sequences(values, scale):
    return (values["x"] @ values["hidden"] * scale[None]).reshape(4, -1, 10) @ values["wide"][:, :12]


def _contracted_elsewhere(values, scale):
    return jnp.einsum("nk,nc->kc", values["x"] @ values["hidden"] * scale[None], jnp.ones((ROWS, 12)))


LEFT_ALONE = (
    _also_needed_as_it_is,
    _returned,
    _after_a_sort,
    _matrix_of_the_argument,
    _wide,
    _of_sequences,
    _contracted_elsewhere,
)


@pytest.mark.parametrize("fn", LEFT_ALONE, ids=[fn.__name__[1:] for fn in LEFT_ALONE])
def test_what_has_no_rule_or_other_uses_is_left_alone(values, fn):
    def one(scale):
        return fn(values, scale)

    assert layouts.turned(one, SCALE) is one


def test_one_product_is_turned_beside_another_that_cannot_be(values):
    def fn(scale):
        edited = values["x"] @ values["hidden"] * scale[None]
        return edited @ values["wide"][:, :12], jnp.sort(edited * 2, axis=0) @ values["wide"][:, :9]

    assert layouts.turned(fn, SCALE) is fn  # both start from the same edited values

    def apart(scale):
        h = values["x"] @ values["hidden"]
        return (h * scale[None]) @ values["wide"][:, :12], jnp.sort(h + scale[None], axis=0) @ values["wide"][:, :9]

    turned = layouts.turned(apart, SCALE)
    assert sorted(products(turned, SCALE)) == [(12, ROWS), (ROWS, 9)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), turned(SCALE), apart(SCALE))


def test_elsewhere_than_on_a_cpu_nothing_changes(values, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")

    def fn(scale):
        return network(values, scale)

    assert layouts.turned(fn, SCALE) is fn
