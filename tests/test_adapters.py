"""Flax modules, unmodified, are swept at any site: against this package's own networks, and by hand."""

from __future__ import annotations

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxdist
from jaxdist import adapters, devices, edits, mlp, ranges, sweep, taps
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from tests import oracle

FAMILIES = tuple(edits.FAMILIES)
GRIDS = {"scale": [0.3], "clip": [0.4], "offset": [-0.6, 0.4]}


def counts_at(model, params, examples, site, grids):
    """Ranges and counts at the grids' points."""
    measured = ranges.measure(model, params, examples, (site,))[site]
    made = edits.joined(measured, grids, SweepConfig())
    return measured, sweep.sweep(model, params, {site: made}, examples)


# The same perceptron in every form.


class LinenMLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(24)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


class NNXMLP(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 24, rngs=rngs)
        self.head = nnx.Linear(24, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def plain(params, x, tap):
    hidden, head = params
    h = tap("hidden", x.reshape(len(x), -1) @ hidden["kernel"] + hidden["bias"][None])
    return jnp.maximum(h, 0) @ head["kernel"] + head["bias"][None]


def as_flax(params):
    """Both layers of this package's stacked perceptron in Flax's layout."""
    return [
        {"kernel": jnp.swapaxes(layer["weight"], -1, -2), "bias": layer["bias"]}
        for layer in (params["dense0"], params["dense1"])
    ]


def in_linen(params):
    hidden, head = as_flax(params)
    return *adapters.from_linen(LinenMLP(), {"params": {"Dense_0": hidden, "Dense_1": head}}), "Dense_0"


def in_nnx(params):
    hidden, head = as_flax(params)
    apply, _ = adapters.from_nnx(NNXMLP(nnx.Rngs(0)))
    return apply, {"hidden": hidden, "head": head}, "hidden"


def in_equinox(params):
    eqx = pytest.importorskip("equinox")

    class EquinoxMLP(eqx.Module):
        hidden: eqx.nn.Linear
        head: eqx.nn.Linear

        def __call__(self, x, tap):
            h = tap("hidden", jax.vmap(self.hidden)(x.reshape(len(x), -1)))
            return jax.vmap(self.head)(jax.nn.relu(h))

    layers = [eqx.nn.Linear(*sizes, key=jax.random.key(0)) for sizes in ((64, 24), (24, 10))]
    arrays, static = eqx.partition(EquinoxMLP(*layers), eqx.is_array)
    names = ("dense0", "dense1")
    arrays = eqx.tree_at(
        lambda net: [net.hidden.weight, net.hidden.bias, net.head.weight, net.head.bias],
        arrays,
        [params[name][leaf] for name in names for leaf in ("weight", "bias")],
    )
    return (lambda arrays, x, tap: eqx.combine(arrays, static)(x, tap)), arrays, "hidden"


FORMS = {"plain": lambda params: (plain, as_flax(params), "hidden"), "linen": in_linen, "nnx": in_nnx}
FORMS["equinox"] = in_equinox


@pytest.fixture(scope="module")
def ours(trained, train_set):
    """Ranges and counts of this package's own perceptron at all 325 points."""
    grids = {name: edits.get(name).grid() for name in FAMILIES}
    return counts_at(mlp.model("relu"), trained["relu"], train_set, "dense0/pre", grids)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_same_perceptron_in_any_form_has_the_same_counts_at_all_points(form, ours, trained, train_set):
    apply, params, site = FORMS[form](trained["relu"])
    grids = {name: edits.get(name).grid() for name in FAMILIES}
    measured, counts = counts_at(taps.Model(apply, post=((site, jax.nn.relu),)), params, train_set, site, grids)
    chex.assert_trees_all_close(measured, ours[0], rtol=1e-5, atol=1e-4)
    for found, expected in zip(counts, ours[1], strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2)
    assert len(np.unique(counts.correct)) > 50


# Networks trained here, probed at each of their sites.


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
        self.convolutions = nnx.List([nnx.Conv(1, 6, (3, 3), rngs=rngs), nnx.Conv(6, 8, (3, 3), rngs=rngs)])
        self.head = nnx.Linear(32, 10, rngs=rngs)

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
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x, taps.identity), y).mean()

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), length=60)[0][0]


def two_seeds(shapes):
    """Parameters of two networks, stacked, drawn by NumPy: what Flax would compile for seconds."""
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        if leaf.ndim == 1:
            return np.full((2, *leaf.shape), jax.tree_util.keystr(path).endswith("['scale']"), np.float32)
        return (rng.normal(size=(2, *leaf.shape)) / np.sqrt(leaf.shape[0] * 2)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def drawn_linen(module, x):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x[:1])
    return adapters.from_linen(module, two_seeds(shapes))


def drawn_nnx(module, x):
    apply, params = adapters.from_nnx(module(nnx.Rngs(0)))
    return apply, two_seeds(params)


NETWORKS = {
    "linen cnn": (
        functools.partial(drawn_linen, LinenCNN()),
        linen_cnn_by_hand,
        {"Conv_0": jax.nn.relu, "Conv_1": jax.nn.relu, "Dense_0": same},
    ),
    "nnx cnn": (
        functools.partial(drawn_nnx, NNXCNN),
        nnx_cnn_by_hand,
        {"convolutions/0": jax.nn.relu, "convolutions/1": jax.nn.relu, "head": same},
    ),
    "transformer": (
        functools.partial(drawn_linen, Transformer()),
        transformer_by_hand,
        {"embed": same, "norm": same, "attention": same, "mlp_in": jax.nn.gelu, "mlp_out": same, "head": same},
    ),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_ranges_and_counts_at_every_site_equal_a_forward_pass_by_hand(name, train_set):
    draw, by_hand, after = NETWORKS[name]
    x, y = (jnp.asarray(np.asarray(leaf)[:301]) for leaf in train_set[:2])
    apply, params = draw(x)
    networks = [jax.tree.map(lambda leaf, k=k: jnp.asarray(leaf[k]), params) for k in range(2)]
    train = jax.jit(functools.partial(fit, apply))
    networks = [train(network, x, y) for network in networks]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    model = taps.Model(apply, post=tuple(after.items()))
    measured = ranges.measure(model, params, train_set, tuple(after))
    by_hand = jax.jit(by_hand)
    seen = [by_hand(network, x, {}) for network in networks]
    nothing = {site: (False, jnp.zeros_like(value)) for site, value in seen[0][1].items()}
    for network, (logits, _) in zip(networks, seen, strict=True):
        np.testing.assert_allclose(apply(network, x), logits, rtol=1e-3, atol=1e-3)
        assert (logits.argmax(axis=1) == y).mean() > 0.6
    for site, follows in after.items():
        if name == "transformer" and site in ("norm", "mlp_out", "head"):
            continue  # compiling takes seconds a site, and the other three show every path through the block
        made = edits.joined(measured[site], GRIDS, SweepConfig())
        counts = sweep.sweep(model, params, {site: made}, train_set)
        for k, (logits, values) in enumerate(seen):
            value = np.asarray(values[site], np.float64)
            behind = np.asarray(follows(values[site])).reshape(-1, value.shape[-1])
            low, high, dead = (np.asarray(leaf[k]) for leaf in measured[site])
            np.testing.assert_allclose(low, behind.min(axis=0), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(high, behind.max(axis=0), rtol=1e-3, atol=1e-4)
            points = [(family, p) for family, grid in GRIDS.items() for p in grid]
            for point, (family, p) in enumerate(points):
                by_oracle = oracle.edited(family, p, value, low, high, dead)
                edited, _ = by_hand(networks[k], x, nothing | {site: (True, jnp.asarray(by_oracle, jnp.float32))})
                classes, unedited = edited.argmax(axis=1), logits.argmax(axis=1)
                expected = ((classes == y).sum(), (classes == unedited).sum())
                found = (counts.correct[k, point], counts.agree[k, point])
                np.testing.assert_allclose(found, expected, atol=2, err_msg=f"{site} {family} {p}")
        assert (counts.agree < 301).any(), site


def test_an_edit_of_channels_holds_at_every_position(train_set):
    """One number a channel, [n, height, width, channels]: a clip at the channel's largest value edits nothing."""
    x = jnp.asarray(np.asarray(train_set.x)[:9])
    apply, params = drawn_linen(LinenCNN(), x)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    channels = edits.unedited(6)._replace(offset=jnp.arange(6.0))
    _, values = taps.read(apply, one, x, ["Conv_0"])
    assert values["Conv_0"].shape == (9, 8, 8, 6)
    moved = channels.apply(values["Conv_0"], jnp.arange(9), -1)
    np.testing.assert_allclose(moved - values["Conv_0"], np.broadcast_to(np.arange(6.0), (9, 8, 8, 6)), atol=1e-4)


# Sites: their names, and which submodules have none.


class Pair(nn.Module):
    def __call__(self, x):
        return x, 2 * x


class Nested(nn.Module):
    @nn.compact
    def __call__(self, x, scale=1.0):
        a, b = Pair()(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)])(x))
        return scale * (a + b)


def test_linen_sites_are_paths_of_submodules_that_give_one_array():
    x = jnp.ones((5, 2))
    apply, variables = adapters.from_linen(Nested(), Nested().init(jax.random.key(0), x), scale=3.0)
    found = taps.sites(apply, variables, x)
    # Layers given to a Sequential belong to the module that made them.
    assert {site.name: site.shape for site in found} == {"Dense_0": (5, 4), "Dense_1": (5, 3), "Sequential_0": (5, 3)}
    np.testing.assert_array_equal(apply(variables, x), Nested().apply(variables, x, scale=3.0))


class Shared(nnx.Module):
    """One layer under two names, a dictionary of layers, and a layer within a Sequential."""

    def __init__(self, rngs, twice=False):
        self.first = nnx.Linear(2, 2, rngs=rngs)
        self.again = self.first
        self.named = nnx.Dict(a=nnx.Linear(2, 3, rngs=rngs))
        self.rest = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 3, rngs=rngs))
        self.twice = twice

    def __call__(self, x):
        x = self.again(x)
        x = self.first(x) if self.twice else x
        return self.rest(self.named["a"](x))


def test_nnx_sites_are_paths_and_a_shared_layer_has_one():
    module, x = Shared(nnx.Rngs(0)), jnp.ones((5, 2))
    apply, params = adapters.from_nnx(module)
    shapes = {site.name: site.shape for site in taps.sites(apply, params, x)}
    rest = {"named/a": (5, 3), "rest/layers/0": (5, 4), "rest/layers/2": (5, 3), "rest": (5, 3)}
    assert shapes in ({"again": (5, 2), **rest}, {"first": (5, 2), **rest})
    np.testing.assert_array_equal(apply(params, x), module(x))
    zeroed = taps.edit(apply, params, x, {"rest/layers/2": jnp.zeros_like})
    np.testing.assert_array_equal(zeroed, jnp.zeros((5, 3)))


# What cannot be edited.


class Twice(nn.Module):
    def setup(self):
        self.layer = nn.Dense(2)

    def __call__(self, x):
        return self.layer(self.layer(x))


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="outside")(nn.remat(nn.Dense)(2, name="layer")(x))


class Step(nn.Module):
    @nn.compact
    def __call__(self, carry, _):
        return nn.Dense(2, name="layer")(carry), None


class Scan(nn.Module):
    @nn.compact
    def __call__(self, x):
        steps = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return nn.Dense(2, name="outside")(steps(name="steps")(x, None)[0])


class Jitted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="outside")(nn.jit(nn.Dense)(2, name="layer")(x))


class Unused(nn.Module):
    @nn.compact
    def __call__(self, x):
        nn.Dense(3, name="aside")(x)
        return nn.Dense(2, name="outside")(x)


@pytest.mark.parametrize(
    ("module", "site", "sentence"),
    [
        (Twice(), "layer", "reaches it 2 times, as where a module is used twice"),
        (Remat(), "layer", "reaches it within a jax.jit, scan, remat, .* within reach are .*outside"),
        (Scan(), "steps/layer", "reaches it within a jax.jit, scan, remat, .* within reach are .*outside"),
        (Jitted(), "layer", "reaches it within a jax.jit, scan, remat, .* within reach are .*outside"),
        (Unused(), "aside", "its value does not reach the logits, .* sites are aside, outside"),
        (Unused(), "missing", "never reaches it; its sites are aside, outside"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_linen_sites_that_cannot_be_edited_are_refused(module, site, sentence):
    x = jnp.ones((5, 2))
    apply, variables = adapters.from_linen(module, module.init(jax.random.key(0), x))
    with pytest.raises(InputError, match=f"site '{site}': .*{sentence}"):
        taps.check(apply, variables, x, [site])


class NNXInside(nnx.Module):
    """A layer within a transformation of the model, by name."""

    def __init__(self, rngs, how):
        self.layer = nnx.Linear(2, 2, rngs=rngs)
        self.outside = nnx.Linear(2, 2, rngs=rngs)
        self.how = how

    def __call__(self, x):
        return self.outside(self.how(lambda layer, x: layer(x))(self.layer, x))


@pytest.mark.parametrize("how", [nnx.jit, nnx.remat])
def test_nnx_sites_that_cannot_be_edited_are_refused(how):
    x = jnp.ones((5, 2))
    apply, params = adapters.from_nnx(NNXInside(nnx.Rngs(0), how))
    with pytest.raises(InputError, match=r"site 'layer': the model reaches it within .* within reach are outside"):
        taps.check(apply, params, x, ["layer"])
    taps.check(apply, params, x, ["outside"])
    twice, params = adapters.from_nnx(Shared(nnx.Rngs(0), twice=True))
    (site,) = {site.name for site in taps.sites(twice, params, x)} & {"first", "again"}
    with pytest.raises(InputError, match=f"site '{site}': the model reaches it 2 times, as where a module is used"):
        taps.check(twice, params, x, [site])


# Evaluation mode.


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


def test_linen_in_evaluation_mode_uses_running_statistics_and_drops_nothing():
    module, x = Normalised(), jax.random.normal(jax.random.key(1), (7, 2))
    variables = module.init(jax.random.key(0), x, train=False)
    _, updated = module.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)})
    variables = {**variables, **updated}
    apply, params = adapters.from_linen(module, variables, train=False)
    expected = module.apply(variables, x, train=False)
    np.testing.assert_array_equal(apply(params, x), expected)
    assert not np.allclose(apply({**params, **module.init(jax.random.key(0), x, train=False)}, x), expected)
    # Each example by itself: nothing depends on the block that it is in.
    np.testing.assert_allclose(apply(params, x[:1]), expected[:1], rtol=1e-5)
    assert [site.name for site in taps.check(apply, params, x, ["BatchNorm_0", "Dropout_0"])] == [
        "Dense_0",
        "BatchNorm_0",
        "Dropout_0",
        "Dense_1",
    ]
    with pytest.raises(InputError, match=r"Normalised cannot be called as a frozen network; .* Flax says: "):
        adapters.from_linen(module, variables, train=True)[0](params, x)


class NNXNormalised(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(self.norm(x)))


def test_nnx_runs_in_evaluation_mode_and_the_users_module_stays_as_it_was():
    module, x = NNXNormalised(nnx.Rngs(0)), jax.random.normal(jax.random.key(1), (7, 2)) + 3
    module(x)  # in training mode: updates the statistics, draws from the dropout's stream
    classes = [type(part) for _, part in nnx.iter_modules(module)]
    graphdef, state = nnx.split(nnx.clone(module))
    apply, params = adapters.from_nnx(module)
    logits, values = taps.read(apply, params, x, ["norm", "dropout"])
    norm = module.norm
    expected = (x - norm.mean[None]) / jnp.sqrt(norm.var[None] + norm.epsilon) * norm.scale[None] + norm.bias[None]
    np.testing.assert_allclose(values["norm"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(values["dropout"], values["norm"])
    np.testing.assert_allclose(apply(params, x[:1]), logits[:1], rtol=1e-5)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    # The user's module: its classes, modes, statistics and random state.
    after, state_after = nnx.split(module)
    assert after == graphdef
    chex.assert_trees_all_equal(
        jax.tree.leaves(nnx.to_pure_dict(state)), jax.tree.leaves(nnx.to_pure_dict(state_after))
    )
    assert [type(part) for _, part in nnx.iter_modules(module)] == classes
    assert module.dropout.deterministic is False
    assert module.norm.use_running_average is False


def test_an_nnx_module_that_always_draws_random_numbers_is_refused():
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.rngs = rngs.fork()

        def __call__(self, x):
            return x + jax.random.normal(self.rngs.noise(), x.shape)

    apply, params = adapters.from_nnx(Noisy(nnx.Rngs(noise=0)))
    with pytest.raises(InputError, match="draws random numbers in evaluation mode"):
        apply(params, jnp.ones((2, 2)))


# Equal modules, and what is no module.


@pytest.mark.parametrize("form", ["linen", "nnx"])
def test_a_second_use_with_an_equal_module_compiles_nothing(form, trained, train_set):
    def run():
        apply, params, site = FORMS[form](trained["relu"])
        model = taps.Model(apply, post=((site, jax.nn.relu),))
        return apply, counts_at(model, params, train_set, site, {"scale": [0.5], "clip": [0.5]})[1]

    first, counts = run()
    compiled = sweep._sweep._cache_size(), ranges._measure._cache_size()
    second, again = run()
    assert first == second
    assert first is not second
    assert hash(first) == hash(second)
    assert (sweep._sweep._cache_size(), ranges._measure._cache_size()) == compiled
    chex.assert_trees_all_equal(counts, again)


def test_other_modules_and_other_options_are_other_functions():
    variables = {"params": {}}
    wide, narrow = (adapters.from_linen(nn.Dense(units), variables)[0] for units in (3, 2))
    assert wide != narrow
    module = Normalised()
    assert (
        adapters.from_linen(module, variables, train=False)[0] != adapters.from_linen(module, variables, train=True)[0]
    )
    assert adapters.from_nnx(Shared(nnx.Rngs(0)))[0] == adapters.from_nnx(Shared(nnx.Rngs(1)))[0]
    assert adapters.from_nnx(Shared(nnx.Rngs(0)))[0] != adapters.from_nnx(Shared(nnx.Rngs(0), twice=True))[0]


def test_probing_a_linen_module_leaves_it_and_its_variables_as_they_were():
    module, x = Nested(), jnp.ones((5, 2))
    variables = module.init(jax.random.key(0), x)
    before, described = jax.tree.map(np.array, variables), repr(module)
    apply, params = adapters.from_linen(module, variables)
    taps.edit(apply, params, x, {"Dense_0": jnp.zeros_like})
    chex.assert_trees_all_equal(variables, before)
    assert repr(module) == described
    np.testing.assert_array_equal(apply(params, x), module.apply(variables, x))


def test_what_is_no_module_is_refused_in_one_sentence():
    x = jnp.ones((5, 2))
    variables = nn.Dense(3).init(jax.random.key(0), x)
    with pytest.raises(
        InputError, match=r"from_linen: expected a flax\.linen\.Module, .* got PjitFunction; from_nnx takes"
    ):
        adapters.from_linen(jax.jit(nn.Dense(3).apply), variables)
    with pytest.raises(InputError, match=r"expected a flax\.linen\.Module, .* got the class Dense"):
        adapters.from_linen(nn.Dense, variables)
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=r"from_nnx: expected a flax\.nnx\.Module, .* got Dense; from_linen takes"):
        adapters.from_nnx(nn.Dense(3))
    with pytest.raises(InputError, match=r"from_nnx: expected a flax\.nnx\.Module"):
        adapters.from_nnx(nnx.jit(layer))
    with pytest.raises(
        InputError, match=r"with the key 'params', got the keys bias, kernel; give \{'params': params\}"
    ):
        adapters.from_linen(nn.Dense(3), dict(sorted(variables["params"].items())))
    with pytest.raises(InputError, match="options of its call to be hashable"):
        adapters.from_linen(nn.Dense(3), variables, mask=jnp.ones(3))
    layer.sizes = nnx.static([1, 2])
    with pytest.raises(InputError, match="static attributes to be hashable"):
        adapters.from_nnx(layer)


# Inputs of other shapes and types.


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
    apply, params = drawn_linen(Tokens(), jnp.asarray(images))
    model = taps.Model(apply, post=(("Dense_0", jax.nn.relu),))
    _, counts = counts_at(model, params, examples, "Dense_0", {"scale": [0.0, 1.0]})
    one = jax.tree.map(lambda leaf: leaf[0], params)
    logits = Tokens().apply(one, images)
    assert abs(counts.unperturbed[0] - (logits.argmax(axis=1) == digits.train.labels[:301]).sum()) <= 2
    constant = one["params"]["Dense_1"]["bias"].argmax()
    assert counts.correct[0, 0] == (digits.train.labels[:301] == constant).sum()
    assert counts.agree[0, 1] == 301


def test_adapters_are_at_the_top_of_the_package():
    assert jaxdist.from_linen is adapters.from_linen
    assert jaxdist.from_nnx is adapters.from_nnx
