"""How many examples a block has: by what every point reads, and never more than memory has room for."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.compute import blocks, elementwise, products, tuning
from jaxdist.networks import mlp, sizes
from jaxdist.networks import model as networks_model
from jaxdist.networks.model import Model
from jaxdist.sweep import kernel


def size(apply, shapes, inputs, block=None, dtype=np.float32):
    """The block of a model of so many inputs, from the shapes of one network's weights; nothing is computed."""
    params = [jax.ShapeDtypeStruct((3, *shape), np.float32) for shape in shapes]
    model = apply if isinstance(apply, Model) else Model(apply)
    sites = networks_model.sites_for_one(model, params, jax.ShapeDtypeStruct((5, *inputs), dtype))
    return sizes.of_block(block, sites)


def dense(params, x, tap):
    return jax.nn.relu(tap("h", x @ params[0])) @ params[1]


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


@pytest.mark.parametrize("activation", ["relu", "abs", "prelu", "relu2", "abs_l2", "relu_l2_neg"])
@pytest.mark.parametrize("networks", [1, 4, 20])
def test_the_papers_networks_have_blocks_by_their_hidden_layer(activation, networks, backend):
    """As wide as 128 units, whatever their 784 inputs."""
    model, params = (
        mlp.model(activation),
        mlp.init_ensemble(jax.random.key(0), range(2), (784, 128, 10), activation=activation),
    )
    kinds = {np.float32: 784}
    if activation in ("relu", "abs"):  # stored as exact products need them
        kinds |= {np.uint8: 784, np.int8: products._width(784)}
    for dtype, inputs in kinds.items():
        x = jax.ShapeDtypeStruct((60000, inputs), dtype)
        sites = networks_model.sites_for_one(model, params, x)
        with tuning.using(networks=networks):
            together = networks * (1 if backend == "cpu" else 32)
            expected = max(64, (3 * 2**14 if backend == "cpu" else 2**28) // together // 128 // 64 * 64)
            assert sizes.of_block(None, sites) == expected == blocks.default_size(128)


@pytest.mark.parametrize("classes", [10, 100, 1000, 20_000, 1_000_000])
def test_logits_count_as_wide_as_they_are(classes, backend):
    examples = size(dense, [(64, 8), (8, classes)], (64,))
    chosen = tuning.current()
    values, most = chosen.values // (chosen.networks * chosen.points), chosen.most // chosen.networks
    assert examples * classes <= max(values, min(64 * classes, most))
    assert examples >= min(values // classes // 64 * 64, most // classes)
    # And classes that come first.
    turned = Model(lambda p, x, tap: (jax.nn.relu(tap("h", p[0].T @ x.T)).T @ p[1]).T, unit_axis=0, class_axis=0)
    assert size(turned, [(64, 8), (8, classes)], (64,)) == examples


def feature_maps(params, x, tap):
    """The only site is narrow, behind what is wide."""
    maps = jax.nn.relu(x[..., None] * params[0][None, None, None])
    return tap("h", maps.mean((1, 2))) @ params[1]


def images_only(params, x, tap):
    """Nothing is wide but the inputs."""
    return tap("h", x.reshape(len(x), -1)[:, :64]) @ params[1]


def within_transformations(params, x, tap):
    """What is wide is within a scan within a jit."""

    def twice(x):
        return jax.lax.scan(lambda z, _: (z + feature_maps(params, x, lambda _, value: value), None), z, length=2)[0]

    z = tap("h", x.mean((1, 2))[:, None] * params[0][None]) @ params[1]
    return jax.jit(twice)(x)


@pytest.mark.parametrize("side", [8, 64, 512, 4096])
@pytest.mark.parametrize(("apply", "wide"), [(feature_maps, 64), (images_only, 1), (within_transformations, 64)])
def test_what_no_site_holds_is_bounded(apply, wide, side, backend):
    most = tuning.current().most // tuning.current().networks
    shapes, inputs = [(64,), (64, 10)], (side, side)
    assert 1 <= size(apply, shapes, inputs) <= max(1, most // (wide * side**2))
    assert size(apply, shapes, inputs) == min(blocks.default_size(64), size(apply, shapes, inputs))
    with tuning.using(networks=16):
        assert size(apply, shapes, inputs) >= 1


def test_weights_that_are_cast_or_turned_on_the_way_do_not_count(backend):
    def apply(params, x, tap):
        weight = params[0].T.astype(jnp.bfloat16).astype(jnp.float32).T
        return jax.nn.relu(tap("h", x @ weight)) @ (params[1] * 2)

    shapes = [(1000, 128), (128, 10)]
    assert size(apply, shapes, (1000,)) == size(dense, shapes, (1000,)) == blocks.default_size(128)


def scanned(params, x, tap):
    """Weights of several layers, cast within a scan, and a value that starts from nothing and is carried on."""

    def layer(carry, weight):
        h, total = carry
        h = jax.nn.relu(h @ weight.astype(jnp.bfloat16).astype(jnp.float32))
        return (h, total + h.sum(-1, keepdims=True) * jnp.ones((1, 128))), None

    h = tap("h", x @ params[0])
    (h, total), _ = jax.lax.scan(layer, (h, jnp.zeros((len(x), 128))), params[2])
    return (h + total) @ params[1]


def while_wide(params, x, tap):
    """Carries a thousand times as much as the site has, from nothing, and looks at weights besides."""
    h = tap("h", x @ params[0])
    weight = params[2].sum()

    def body(state):
        k, z = state
        return k + 1, z + h.sum(-1, keepdims=True) * weight

    z = jax.lax.while_loop(lambda state: state[0] < 3, body, (0, jnp.zeros((len(x), 128_000))))[1]
    return (h + z[:, :128]) @ params[1]


def branches(params, x, tap):
    h = tap("h", x @ params[0])

    def wide(h):
        return jnp.repeat(h, 1000, axis=1)[:, ::1000]

    return jax.lax.cond(params[2][0, 0, 0] > 0, wide, lambda h: h, h) @ params[1]


@pytest.mark.parametrize(("apply", "wide"), [(scanned, 1), (while_wide, 1000), (branches, 1000)])
def test_loops_and_branches_are_looked_into(apply, wide, backend):
    """The weights within are no example's, and what is carried on is, though it starts from nothing."""
    shapes = [(16, 128), (128, 10), (3, 128, 128)]
    most = tuning.current().most // tuning.current().networks
    bound = most // (128 * wide)
    expected = min(blocks.default_size(128), bound // 64 * 64 or bound)
    assert size(apply, shapes, (16,)) == expected


def test_a_block_that_is_given_is_taken(backend):
    for block in (1, 7, 10**9):
        assert size(dense, [(16, 128), (128, 10)], (16,), block=block) == block


def test_no_module_but_one_chooses_the_default():
    """Every stage's blocks are sized by the same function."""
    from tests.test_layers import PACKAGE

    users = {path.stem for path in PACKAGE.rglob("*.py") if "default_size(" in path.read_text(encoding="utf-8")}
    assert users == {"blocks", "sizes"}


def test_what_a_block_counts_by_does_not_grow_with_classes():
    for classes in (10, 50_000):
        rows = jax.eval_shape(
            lambda z, y, valid: kernel.expected_classes(
                elementwise.argmax(z, 1), blocks.Block(z, y, y, valid, valid[0])
            ),
            jax.ShapeDtypeStruct((64, classes), np.float32),
            jax.ShapeDtypeStruct((64,), np.int32),
            jax.ShapeDtypeStruct((64,), bool),
        )
        assert rows.shape == (3, 64)


WIDE = """
import resource, sys
import jax, numpy as np, jaxdist

rng, classes = np.random.default_rng(0), int(sys.argv[1])
params = {"w": rng.normal(size=(8, 8)).astype("f4"), "v": rng.normal(size=(8, classes)).astype("f4")}
apply = lambda p, x, tap: jax.nn.relu(tap("h", x @ p["w"])) @ p["v"]
x = rng.normal(size=(1024, 8)).astype("f4")
options = {"post": {"h": jax.nn.relu}, "families": ("scale",), "splits": ("train",)}
jaxdist.probe(apply, params, train=(x, rng.integers(0, classes, 1024)), **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_the_memory_of_many_classes_is_bounded():
    """1,024 examples' logits of 50,000 classes are 200 MB, and there would be several such values."""
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", WIDE, str(classes)], capture_output=True, check=True, text=True
            ).stdout
        )
        for classes in (10, 50_000)
    )
    assert many - few < 200
