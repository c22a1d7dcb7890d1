"""Narrow products turned: the same values, whatever surrounds them, and only where a CPU gains by it."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdist
from jaxdist.networks import layouts

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
    turned = layouts.with_transposed_products(lambda scale: network(values, scale), SCALE)
    np.testing.assert_allclose(turned(SCALE), network(values, SCALE), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(turned(SCALE + 1), network(values, SCALE + 1), rtol=1e-5, atol=1e-4)
    # The product before the site does not depend on the argument and is computed before.
    assert products(lambda scale: network(values, scale), SCALE).count((ROWS, 10)) == 1
    assert sorted(products(turned, SCALE)) == [(12, ROWS), (12, ROWS), (64, ROWS), (64, ROWS)]


def test_under_vmap_jit_and_map_as_well(values):
    scales = jnp.linspace(0.5, 2, 30).reshape(3, 10)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), values)

    def all_of(values):
        return jax.lax.map(layouts.with_transposed_products(lambda scale: network(values, scale), scales[0]), scales)

    expected = [[network(jax.tree.map(lambda leaf, k=k: leaf[k], stacked), scale) for scale in scales] for k in (0, 1)]
    np.testing.assert_allclose(jax.jit(jax.vmap(all_of))(stacked), np.asarray(expected), rtol=1e-5, atol=1e-4)


def test_several_results_and_arguments_keep_their_structure(values):
    def fn(point):
        logits = network(values, point["scale"])
        return {"logits": logits, "sums": (jnp.sum(logits, 0), point["factor"]), "none": None}

    like = {"factor": jnp.float32(3), "scale": SCALE}
    turned, found, expected = (
        layouts.with_transposed_products(fn, like),
        layouts.with_transposed_products(fn, like)(like),
        fn(like),
    )
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


def _with_the_precision_of_an_algorithm(values, scale):
    edited = values["x"] @ values["hidden"] * scale[None]
    return jnp.matmul(edited, values["wide"][:, :12], precision=jax.lax.DotAlgorithmPreset.F32_F32_F32)


def _with_an_effect(values, scale):
    jax.debug.callback(lambda _: None, values["x"][0, 0])
    return values["x"] @ values["hidden"] * scale[None] @ values["wide"][:, :12]


def _of_few_rows(values, scale):
    return (values["x"] @ values["hidden"])[:8] * scale[None] @ values["wide"][:, :12]


LEFT_ALONE = (
    _also_needed_as_it_is,
    _returned,
    _after_a_sort,
    _matrix_of_the_argument,
    _wide,
    _of_sequences,
    _contracted_elsewhere,
    _with_the_precision_of_an_algorithm,
    _with_an_effect,
    _of_few_rows,
)


@pytest.mark.parametrize("fn", LEFT_ALONE, ids=[fn.__name__[1:] for fn in LEFT_ALONE])
def test_what_has_no_rule_or_other_uses_is_left_alone(values, fn):
    def one(scale):
        return fn(values, scale)

    assert layouts.with_transposed_products(one, SCALE) is one


def test_what_nobody_reads_does_not_keep_a_product_from_being_turned(values):
    def fn(scale):
        edited = values["x"] @ values["hidden"] * scale[None]
        jnp.sum(edited)
        return edited @ values["wide"][:, :12]

    assert products(layouts.with_transposed_products(fn, SCALE), SCALE) == [(12, ROWS)]


def test_random_bits_are_those_of_the_context_in_which_they_were_drawn(values):
    def fn(scale):
        with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
            kept = jax.random.bernoulli(jax.random.key(3), 0.5, (10,))
            drawn = jax.random.normal(jax.random.fold_in(jax.random.key(1), scale[0].astype(jnp.int32)), (10,))
        edited = jnp.where(kept[None], values["x"] @ values["hidden"] * scale[None] + drawn[None], 0)
        return edited @ values["wide"][:, :12]

    turned = layouts.with_transposed_products(fn, SCALE)
    assert products(turned, SCALE) == [(12, ROWS)]
    np.testing.assert_allclose(turned(SCALE), fn(SCALE), rtol=1e-5, atol=1e-4)


def test_constants_that_are_literals_of_what_was_traced_are_not_mistaken(values):
    mask = np.tri(ROWS, 10, dtype=np.float32)

    def fn(values, scale):
        return jax.lax.map(
            layouts.with_transposed_products(
                lambda s: (values["x"] @ values["hidden"] * s[None] * mask) @ values["wide"][:, :12], scale[0]
            ),
            scale,
        )

    scales = jnp.stack([SCALE, SCALE + 1])
    expected = jax.jit(fn)(values, scales)
    before = jax.config.jax_use_simplified_jaxpr_constants
    jax.config.update("jax_use_simplified_jaxpr_constants", True)
    try:
        np.testing.assert_allclose(jax.jit(fn)(values, scales), expected, rtol=1e-5, atol=1e-4)
    finally:
        jax.config.update("jax_use_simplified_jaxpr_constants", before)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10, name="head")(nn.relu(nn.Dense(16, name="hidden")(x)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_a_sweep_of_a_flax_network_takes_turned_products(kind, monkeypatch):
    """And counts the same without."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(256, 8)), jnp.float32), jnp.asarray(rng.integers(0, 10, 256))
    if kind == "linen":
        site, (apply, params) = "hidden", jaxdist.from_linen(Linen(), Linen().init(jax.random.key(0), x))
    else:
        rngs = nnx.Rngs(0)
        net = nnx.Sequential(nnx.Linear(8, 16, rngs=rngs), nnx.relu, nnx.Linear(16, 10, rngs=rngs))
        site, (apply, params) = "layers/0", jaxdist.from_nnx(net)
    planned = []
    plan = layouts._plan
    monkeypatch.setattr(layouts, "_plan", lambda *given: planned.append(plan(*given)) or planned[-1])

    def counts():
        result = jaxdist.probe(apply, params, train=(x, y), sites=[site], families=["clip"], post={site: jax.nn.relu})
        return result["clip"].correct.values

    turned = counts()
    assert len(planned) == 1
    assert all(roots and len(inside) > 3 for roots, inside in planned)
    jax.clear_caches()
    monkeypatch.setattr(layouts, "with_transposed_products", lambda fn, like: fn)
    assert np.abs(counts() - turned).max() <= 1


def test_one_product_is_turned_beside_another_that_cannot_be(values):
    def fn(scale):
        edited = values["x"] @ values["hidden"] * scale[None]
        return edited @ values["wide"][:, :12], jnp.sort(edited * 2, axis=0) @ values["wide"][:, :9]

    assert layouts.with_transposed_products(fn, SCALE) is fn  # both start from the same edited values

    def apart(scale):
        h = values["x"] @ values["hidden"]
        return (h * scale[None]) @ values["wide"][:, :12], jnp.sort(h + scale[None], axis=0) @ values["wide"][:, :9]

    turned = layouts.with_transposed_products(apart, SCALE)
    assert sorted(products(turned, SCALE)) == [(12, ROWS), (ROWS, 9)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), turned(SCALE), apart(SCALE))


def test_elsewhere_than_on_a_cpu_nothing_changes(values, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")

    def fn(scale):
        return network(values, scale)

    assert layouts.with_transposed_products(fn, SCALE) is fn
