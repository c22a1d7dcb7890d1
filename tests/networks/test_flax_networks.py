"""Flax modules, unmodified, are swept at any site: convolutions, attention, residuals, tokens; by hand."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxdist.compute import devices
from jaxdist.config import SweepConfig
from jaxdist.networks import model as networks_model
from jaxdist.networks import modules
from jaxdist.networks.model import Model
from jaxdist.perturbations import edits, families, ranges
from jaxdist.sweep import ensemble_sweep
from tests import oracle

GRIDS = {"scale": [0.3], "clip": [0.4], "offset": [-0.6, 0.4]}


def pooled(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def same(value):
    """What follows a site that no activation follows."""
    return value


class LinenCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = pooled(nn.relu(nn.Conv(6, (3, 3))(x[..., None] / 16)))
        x = pooled(nn.relu(nn.Conv(8, (3, 3))(x)))
        return nn.Dense(10)(x.reshape(len(x), -1))


class NNXCNN(nnx.Module):
    def __init__(self, rngs):
        # The test draws the weights: Flax's own would take seconds to compile.
        options = {"kernel_init": nnx.initializers.zeros, "rngs": rngs}
        self.convolutions = nnx.List([nnx.Conv(1, 6, (3, 3), **options), nnx.Conv(6, 8, (3, 3), **options)])
        self.head = nnx.Linear(32, 10, **options)

    def __call__(self, x):
        x = x[..., None] / 16
        for convolution in self.convolutions:
            x = pooled(nnx.relu(convolution(x)))
        return self.head(x.reshape(len(x), -1))


class Transformer(nn.Module):
    """One block over the rows of an image as tokens."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12, name="embed")(x / 16)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(nn.LayerNorm(name="norm")(x))
        h = nn.gelu(nn.Dense(16, name="mlp_in")(x))
        x = x + nn.Dense(12, name="mlp_out")(h)
        return nn.Dense(10, name="head")(x.mean(axis=1))


def in_parts(layers, params, replaced):
    """A function that applies one layer by itself, and the values it gave; `replaced` are what it gives instead.

    Each of `replaced` says whether it holds, so that all of them run through one program.
    """
    values = {}

    def layer(name, x):
        values[name] = layers[name].apply({"params": params[name]}, x)
        if name not in replaced:
            return values[name]
        holds, value = replaced[name]
        return jnp.where(holds, value, values[name])

    return layer, values


def linen_cnn_by_hand(params, x, replaced):
    layers = {"Conv_0": nn.Conv(6, (3, 3)), "Conv_1": nn.Conv(8, (3, 3)), "Dense_0": nn.Dense(10)}
    layer, values = in_parts(layers, params["params"], replaced)
    x = pooled(nn.relu(layer("Conv_0", x[..., None] / 16)))
    x = pooled(nn.relu(layer("Conv_1", x)))
    return layer("Dense_0", x.reshape(len(x), -1)), values


def nnx_cnn_by_hand(params, x, replaced):
    """The NNX network's weights in Linen's layers, which have the same layout."""
    first, second = (params["convolutions"][k] for k in (0, 1))
    names = {"Conv_0": "convolutions/0", "Conv_1": "convolutions/1", "Dense_0": "head"}
    as_linen = {"params": {"Conv_0": first, "Conv_1": second, "Dense_0": params["head"]}}
    inside = {linen: replaced[ours] for linen, ours in names.items() if ours in replaced}
    logits, values = linen_cnn_by_hand(as_linen, x, inside)
    return logits, {names[linen]: value for linen, value in values.items()}


def transformer_by_hand(params, x, replaced):
    widths = {"embed": 12, "mlp_in": 16, "mlp_out": 12, "head": 10}
    layers = {name: nn.Dense(width) for name, width in widths.items()}
    layers |= {"attention": nn.MultiHeadDotProductAttention(num_heads=2), "norm": nn.LayerNorm()}
    layer, values = in_parts(layers, params["params"], replaced)
    x = layer("embed", x / 16)
    x = x + layer("attention", layer("norm", x))
    x = x + layer("mlp_out", nn.gelu(layer("mlp_in", x)))
    return layer("head", x.mean(axis=1)), values


def fit(apply, params, x, y):
    """Train one network for a few steps."""
    optimizer = optax.sgd(0.1, momentum=0.9)

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y).mean()

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), length=60)[0][0]


def two_seeds(shapes):
    """Parameters of two networks, stacked, drawn by NumPy: what Flax would compile for seconds."""
    rng = np.random.default_rng(0)

    def values(path, leaf):
        if leaf.ndim == 1:
            return np.full((2, *leaf.shape), jax.tree_util.keystr(path).endswith("['scale']"), np.float32)
        return (rng.normal(size=(2, *leaf.shape)) / np.sqrt(leaf.shape[0] * 2)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(values, shapes)


def drawn(module, x):
    """A Linen module as a model function, and two seeds of it, not trained."""
    return modules.from_linen(module, two_seeds(jax.eval_shape(module.init, jax.random.key(0), x[:1])))


def first(examples):
    """The examples that `train_set` holds, on one device."""
    return tuple(jnp.asarray(np.asarray(leaf)[:301]) for leaf in (examples.x, examples.y))


def trained_linen(module, examples):
    x, y = first(examples)
    apply, params = drawn(module, x)
    train = jax.jit(functools.partial(fit, apply))
    each = [train(jax.tree.map(lambda leaf, k=k: jnp.asarray(leaf[k]), params), x, y) for k in range(2)]
    return apply, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


@pytest.fixture(scope="module")
def linen_cnn(train_set):
    return *trained_linen(LinenCNN(), train_set), linen_cnn_by_hand


@pytest.fixture(scope="module")
def nnx_cnn(linen_cnn):
    """The same weights in the NNX network."""
    layers = linen_cnn[1]["params"]
    apply, _ = modules.from_nnx(NNXCNN(nnx.Rngs(0)))
    params = {"convolutions": {0: layers["Conv_0"], 1: layers["Conv_1"]}, "head": layers["Dense_0"]}
    return apply, params, nnx_cnn_by_hand


@pytest.fixture(scope="module")
def transformer(train_set):
    return *trained_linen(Transformer(), train_set), transformer_by_hand


AFTER = {
    "linen_cnn": {"Conv_0": jax.nn.relu, "Conv_1": jax.nn.relu, "Dense_0": same},
    "nnx_cnn": {"convolutions/0": jax.nn.relu, "convolutions/1": jax.nn.relu, "head": same},
    "transformer": {
        "embed": same,
        "attention": same,
        "mlp_in": jax.nn.gelu,
        "norm": same,
        "mlp_out": same,
        "head": same,
    },
}
"""What follows each site; the first three of each are swept, since compiling takes seconds a site."""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(AFTER))
def test_ranges_and_counts_at_every_site_equal_a_forward_pass_by_hand(name, train_set, request):
    apply, params, by_hand = request.getfixturevalue(name)
    after, (x, y) = AFTER[name], first(train_set)
    model = Model(apply, post=tuple(after.items()))
    measured = ranges.measure(model, params, train_set, tuple(after))
    by_hand = jax.jit(by_hand)
    networks = [jax.tree.map(lambda leaf, k=k: leaf[k], params) for k in range(2)]
    shapes = jax.eval_shape(by_hand, networks[0], x, {})[1]
    nothing = {site: (False, np.zeros(value.shape, np.float32)) for site, value in shapes.items()}
    seen = [by_hand(network, x, nothing) for network in networks]
    for k, (logits, values) in enumerate(seen):
        np.testing.assert_allclose(apply(networks[k], x), logits, rtol=1e-3, atol=1e-3)
        assert (logits.argmax(axis=1) == y).mean() > 0.6
        for site, follows in after.items():
            behind = np.asarray(follows(values[site])).reshape(-1, values[site].shape[-1])
            np.testing.assert_allclose(measured[site].low[k], behind.min(axis=0), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(measured[site].high[k], behind.max(axis=0), rtol=1e-3, atol=1e-4)
    points = [(family, p) for family, grid in GRIDS.items() for p in grid]
    for site in list(after)[:3]:
        made = families.joined(measured[site], GRIDS, SweepConfig())
        counts = ensemble_sweep.sweep(model, params, {site: made}, train_set)
        for k, (logits, values) in enumerate(seen):
            for point, (family, p) in enumerate(points):
                of_seed = (np.asarray(leaf[k]) for leaf in measured[site])
                value = oracle.edited(family, p, np.asarray(values[site], np.float64), *of_seed)
                edited, _ = by_hand(networks[k], x, nothing | {site: (True, value.astype(np.float32))})
                classes, unedited = edited.argmax(axis=1), logits.argmax(axis=1)
                expected = ((classes == y).sum(), (classes == unedited).sum())
                found = (counts.correct[k, point], counts.agree[k, point])
                np.testing.assert_allclose(found, expected, atol=2, err_msg=f"{site} {family} {p}")
        assert (counts.agree < 301).any(), site


def test_an_edit_of_channels_holds_at_every_position(train_set):
    """One number a channel, [n, height, width, channels]: a clip at the channel's largest value edits nothing."""
    x = first(train_set)[0][:9]
    apply, params = drawn(LinenCNN(), x)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    channels = edits.unedited(6)._replace(offset=jnp.arange(6.0))
    _, values = networks_model.read(Model(apply), one, x, ["Conv_0"])
    assert values["Conv_0"].shape == (9, 8, 8, 6)
    moved = channels.apply(values["Conv_0"], jnp.arange(9), -1)
    np.testing.assert_allclose(moved - values["Conv_0"], np.broadcast_to(np.arange(6.0), (9, 8, 8, 6)), atol=1e-4)


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(17, 6)(tokens.reshape(len(tokens), -1))
        x = nn.relu(nn.Dense(8)(x))
        return nn.Dense(10)(x.mean(axis=1))


def test_whole_numbers_as_inputs_stay_whole_numbers(digits):
    images = digits.train.images[:301].astype(np.int32)
    mesh = devices.make_mesh(jax.devices()[:2])
    examples = devices.place(images, digits.train.labels[:301], mesh, dtype=images.dtype)
    assert examples.x.dtype == jnp.int32
    apply, params = drawn(Tokens(), jnp.asarray(images))
    model = Model(apply, post=(("Dense_0", jax.nn.relu),))
    measured = ranges.measure(model, params, examples, ("Dense_0",))["Dense_0"]
    made = {"Dense_0": families.joined(measured, {"scale": [0.0, 1.0]}, SweepConfig())}
    counts = ensemble_sweep.sweep(model, params, made, examples)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    logits = Tokens().apply(one, images)
    assert abs(counts.unperturbed[0] - (logits.argmax(axis=1) == digits.train.labels[:301]).sum()) <= 2
    constant = one["params"]["Dense_1"]["bias"].argmax()
    assert counts.correct[0, 0] == (digits.train.labels[:301] == constant).sum()
    assert counts.agree[0, 1] == 301
