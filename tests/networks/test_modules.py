"""Modules of NNX, Equinox and Haiku: their sites, and edits of these against the same modules called by hand."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdist.errors import InputError
from jaxdist.networks.modules import from_equinox, from_haiku, from_linen, from_nnx
from jaxdist.networks.site_values import edit, read, sites, trace
from tests.networks.site_support import X, assert_edits, assert_same, listed, twice

# NNX.


class Tied(nnx.Module):
    """One layer within remat and outside of it."""

    def __init__(self, rngs):
        self.stem = nnx.Linear(64, 16, rngs=rngs)
        self.mix = nnx.Linear(16, 16, rngs=rngs)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    @nnx.remat
    def block(self, h):
        return nnx.relu(self.mix(h))

    def __call__(self, x):
        return self.head(nnx.relu(self.mix(self.block(nnx.relu(self.stem(x))))))


def test_nnx_layer_that_is_shared_by_remat_and_the_rest():
    module = Tied(nnx.Rngs(0))
    module(X)
    apply, params = from_nnx(module)
    for _ in range(3):
        assert listed(apply, params, X) == ["stem", "mix#0", "mix#1", "head"]
    for key, (first, second) in {"mix": (2, 2), "mix#0": (2, 1), "mix#1": (1, 2)}.items():

        def by_hand(params, x, a=first, b=second):
            h = nnx.relu(a * module.mix(nnx.relu(module.stem(x))))
            return module.head(nnx.relu(b * module.mix(h)))

        assert_edits(apply, params, X, {key: twice}, by_hand, 1e-6)


class Jitted(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.head = nnx.Linear(64, 16, rngs=rngs), nnx.Linear(16, 10, rngs=rngs)

    @nnx.jit
    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def test_nnx_jit_shows_its_sites_each_time():
    module = Jitted(nnx.Rngs(0))
    module(X)
    apply, params = from_nnx(module)
    for _ in range(2):
        assert listed(apply, params, X) == ["hidden", "head"]
    assert_edits(
        apply, params, X, {"hidden": lambda v: v - 1}, lambda p, x: module.head(nnx.relu(module.hidden(x) - 1))
    )


class Stack(nnx.Module):
    """A network that asks for the classes of its layers."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(64, 16, rngs=rngs), nnx.Linear(16, 16, rngs=rngs)])
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
            if type(layer) is nnx.Linear:
                x = nnx.relu(x)
        return self.head(x)


def test_no_class_is_changed_and_nothing_is_left_on_a_users_module():
    module, call = Stack(nnx.Rngs(0)), nnx.Linear.__call__
    attributes = [set(vars(part)) for _, part in nnx.iter_modules(module)]
    apply, params = from_nnx(module)

    def by_hand(params, x):
        return module.head(nnx.relu(module.layers[1](nnx.relu(3 * module.layers[0](x)))))

    assert_edits(apply, params, X, {"layers/0": lambda v: 3 * v}, by_hand)
    assert_same(jax.jit(apply)(params, X), jax.jit(lambda x: module(x))(X))
    assert nnx.Linear.__call__ is call
    assert [set(vars(part)) for _, part in nnx.iter_modules(module)] == attributes
    broken, params = from_nnx(Failing(nnx.Rngs(0)))
    with pytest.raises(ZeroDivisionError):
        trace(broken, params, X)
    assert nnx.Linear.__call__ is call
    assert "__call__" in vars(Failing)


class Failing(Stack):
    def __call__(self, x):
        return super().__call__(x) / (0 // 0)


@dataclasses.dataclass
class Config:
    width: int = 16


class Configured(nnx.Module):
    def __init__(self, config, rngs):
        self.config = config
        self.hidden, self.head = nnx.Linear(64, config.width, rngs=rngs), nnx.Linear(config.width, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def test_nnx_module_with_an_unhashable_attribute():
    module = Configured(Config(), nnx.Rngs(0))
    apply, params = from_nnx(module)
    assert_edits(apply, params, X, {"hidden": twice}, lambda p, x: module.head(nnx.relu(2 * module.hidden(x))))
    assert hash(apply) == hash(apply)
    assert apply == apply
    assert apply != from_nnx(module)[0]


class Recurrent(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(8, 16, rngs=rngs))
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x.reshape(-1, 8, 8))[:, -1])


@pytest.mark.parametrize("at", [None, 3])
def test_nnx_recurrent_network_in_all_steps_and_in_one(at):
    module = Recurrent(nnx.Rngs(0))
    apply, params = from_nnx(module)
    names = [f"rnn/cell{part}" for part in ("/dense_i", "/dense_h", "[0]", "[1]")]
    assert listed(apply, params, X) == [*names, "rnn", "head"]

    def by_hand(params, x):
        rows, carry = x.reshape(-1, 8, 8), jnp.zeros((len(x), 16))
        for k in range(8):
            carry, output = module.rnn.cell(carry, rows[:, k])
            carry = 0.5 * carry if at in (None, k) else carry
        return module.head(output)

    # The first part of a cell's output is its carry.
    key = "rnn/cell[0]" if at is None else f"rnn/cell[0]@{at}"
    assert_edits(apply, params, X, {key: lambda v: 0.5 * v}, by_hand, 1e-5)
    assert read(apply, params, X, ["rnn/cell[0]"])[1]["rnn/cell[0]"].shape == (8, 12, 16)


class Bridged(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.bridge.ToNNX(nn.Dense(16), rngs=rngs)
        self.hidden.lazy_init(X[:1])
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def test_linen_module_in_nnx():
    module = Bridged(nnx.Rngs(0))
    apply, params = from_nnx(module)
    assert listed(apply, params, X) == ["hidden", "head"]

    def by_hand(params, x):
        own = nnx.clone(module)  # whose counts of random keys can be changed here
        return own.head(nnx.relu(2 * own.hidden(x)))

    assert_edits(apply, params, X, {"hidden": twice}, by_hand)


class WithOptions(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.drop = nnx.Linear(64, 16, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x, train, scale=1.0):
        return scale * self.head(self.drop(nnx.relu(self.norm(self.hidden(x))), deterministic=not train))


def test_nnx_takes_arguments_of_the_call_and_refuses_random_numbers():
    module = WithOptions(nnx.Rngs(0))
    module(X, train=True)
    apply, params = from_nnx(module, train=False, scale=jnp.float32(3))
    norm = module.norm
    h = (module.hidden(X) - norm.mean[None]) / jnp.sqrt(norm.var[None] + norm.epsilon)
    h = h * norm.scale[None] + norm.bias[None]
    assert_same(apply(params, X), 3 * module.head(nnx.relu(h)), 1e-5)
    assert listed(apply, params, X) == ["hidden", "norm", "drop", "head"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    training, params = from_nnx(module, train=True)
    for attempt in (training, lambda params, x: sites(training, params, x)):
        with pytest.raises(InputError, match="from_nnx: WithOptions draws random numbers in evaluation mode"):
            attempt(params, X)
    assert module.drop.deterministic is False


class Block(nnx.Module):
    def __init__(self, rngs, width=16):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 2 * width, rngs=rngs), nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.down(nnx.gelu(self.up(x)))


class Vision(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Linear(8, 16, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.token = nnx.Param(jnp.ones((1, 1, 16)))
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x, change=lambda k, value: value):
        x = self.embed(x.reshape(-1, 8, 8))
        x = jnp.concatenate([jnp.broadcast_to(self.token[...], (len(x), 1, 16)), x], 1)
        for k, block in enumerate(self.blocks):
            x = change(k, block(x))
        return self.head(x[:, 0])


@pytest.mark.slow
def test_nnx_vision_transformer():
    module = Vision(nnx.Rngs(0))
    apply, params = from_nnx(module)

    def change(k, value):
        return 2 * value if k == 0 else value

    assert_edits(apply, params, X, {"blocks/0": twice}, lambda p, x: module(x, change), 1e-6)
    module.blocks[1].attention.query.kernel[...] = jnp.zeros_like(module.blocks[1].attention.query.kernel[...])
    zeroed = edit(apply, params, X, {"blocks/1/attention/query": jnp.zeros_like})
    assert_same(zeroed, module(X), 1e-5)


class Scanned(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make(rngs):
            return Block(rngs)

        self.embed, self.layers, self.head = nnx.Linear(8, 16, rngs=rngs), make(rngs), nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def step(x, layer):
            return layer(x)

        return self.head(step(self.embed(x.reshape(-1, 8, 8)), self.layers).mean(1))


@pytest.mark.slow
def test_nnx_scan_over_layers_in_one_and_in_all():
    module = Scanned(nnx.Rngs(0))
    apply, params = from_nnx(module)
    graphdef, state = nnx.split(module.layers)

    def by_hand(at):
        def run(params, x):
            x = module.embed(x.reshape(-1, 8, 8))
            for k in range(3):
                x = nnx.merge(graphdef, jax.tree.map(lambda leaf, k=k: leaf[k], state))(x)
                x = 2 * x if at in (k, None) else x
            return module.head(x.mean(1))

        return run

    split = assert_edits(apply, params, X, {"layers@1": twice}, by_hand(1), 1e-5)
    assert [eqn.params["length"] for eqn in split.first if eqn.primitive.name == "scan"] == [1]
    got = edit(apply, params, X, {"layers": twice})
    assert_same(got, by_hand(None)(params, X), 1e-5)


class Sowing(nnx.Module):
    def __init__(self, rngs):
        self.part = SowingPart(rngs)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(self.part(x))


class SowingPart(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(64, 16, rngs=rngs)

    def __call__(self, x):
        h = nnx.relu(self.layer(x))
        self.sow(nnx.Intermediate, "h", h)
        return self.perturb("p", jnp.tanh(h)) + h


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_values_that_nnx_sows_and_perturbs_are_sites():
    module = Sowing(nnx.Rngs(0))
    module(X)
    apply, params = from_nnx(module)
    assert set(params) == {"head", "part"}
    assert set(params["part"]) == {"layer"}
    assert listed(apply, params, X[:5]) == ["part/layer", "part/h", "part/p", "part", "head"]
    h = nnx.relu(module.part.layer(X))
    # From the line on where it is sown, the network computes with the edited value.
    assert_edits(apply, params, X, {"part/h": twice}, lambda p, x: module.head(jnp.tanh(2 * h) + 2 * h), 1e-6)
    assert_edits(apply, params, X, {"part/p": twice}, lambda p, x: module.head(2 * jnp.tanh(h) + h), 1e-6)
    assert_same(read(apply, params, X, ["part/h"])[1]["part/h"], h, 1e-6)


# Equinox and Haiku, where they are installed.


def per_layer(model, change):
    return jax.vmap(lambda row: model.layers[1](jax.nn.relu(change(model.layers[0](row)))))


def test_equinox_module_of_one_example():
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.MLP(64, 10, 16, 1, key=jax.random.key(0))
    call, described = equinox.nn.Linear.__call__, model.layers[0].__doc__
    apply, params = from_equinox(model)
    first, _ = sites(apply, params, X)
    assert (first.name, first.shape, first.batched) == ("layers/0", (12, 16), 1)
    assert_edits(apply, params, X, {"layers/0": twice}, lambda p, x: per_layer(model, twice)(x))
    assert equinox.nn.Linear.__call__ is call
    assert model.layers[0].__doc__ == described
    assert_same(apply(params, X), jax.vmap(model)(X))
    assert apply == from_equinox(model)[0]
    assert len({apply, from_equinox(model)[0]}) == 1
    with pytest.raises(
        InputError, match=r"from_equinox: expected an equinox\.Module that can be called and .* got a custom_jvp"
    ):
        from_equinox(jax.nn.relu)


def test_equinox_modules_that_take_a_block_and_loop_over_layers():
    equinox = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(1), 3)

    class Looped(equinox.Module):
        layers: Any
        head: Any
        drop: Any

        def __call__(self, x, *, scale):
            arrays, static = equinox.partition(self.layers, equinox.is_array)

            def step(x, layer):
                return jax.nn.relu(jax.vmap(equinox.combine(layer, static))(x)), None

            return scale * jax.vmap(self.head)(self.drop(jax.lax.scan(step, x, arrays)[0]))

    layers = equinox.filter_vmap(lambda key: equinox.nn.Linear(64, 64, key=key))(keys)
    # Dropout without a key works in inference mode alone.
    model = Looped(layers, equinox.nn.Linear(64, 10, key=keys[0]), equinox.nn.Dropout(0.5))
    apply, params = from_equinox(model, per_example=False, scale=2.0)
    assert [(each.key, each.loops) for each in sites(apply, params, X)] == [
        ("layers", (3,)),
        ("drop", ()),
        ("head", ()),
    ]

    def by_hand(params, x):
        for k in range(3):
            value = x @ layers.weight[k].T + layers.bias[k][None]
            x = jax.nn.relu(2 * value if k == 1 else value)
        return 2.0 * (x @ model.head.weight.T + model.head.bias[None])

    assert_edits(apply, params, X, {"layers@1": twice}, by_hand, 1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_haiku_functions():
    haiku = pytest.importorskip("haiku")

    def mlp(x, is_training=True):
        h = haiku.nets.MLP([16, 16], activate_final=True)(x)
        h = haiku.BatchNorm(True, True, 0.9)(h, is_training)
        return haiku.Linear(10, name="head")(h)

    transformed = haiku.transform_with_state(mlp)
    params, state = transformed.init(jax.random.key(0), X)
    apply, both = from_haiku(transformed, params, state, is_training=False)
    assert [name for name in listed(apply, both, X) if "batch_norm" not in name] == [
        "mlp/~/linear_0",
        "mlp/~/linear_1",
        "mlp",
        "head",
    ]
    assert_same(apply(both, X), transformed.apply(params, state, None, X, is_training=False)[0])

    def by_hand(p, x):
        return transformed.apply(
            {**params, "head": {**params["head"], "w": 2 * params["head"]["w"], "b": 2 * params["head"]["b"]}},
            state,
            None,
            x,
            is_training=False,
        )[0]

    assert_edits(apply, both, X, {"head": twice}, by_hand, 1e-6)
    with pytest.raises(InputError, match="expected the state that init returned"):
        from_haiku(transformed, params)

    def recurrent(x):
        core, rows = haiku.LSTM(16), x.reshape(-1, 8, 8).swapaxes(0, 1)
        outputs, _ = haiku.dynamic_unroll(core, rows, core.initial_state(len(x)))
        return haiku.Linear(10)(outputs[-1])

    for wrap in (lambda f: f, haiku.without_apply_rng):
        transformed = wrap(haiku.transform(recurrent))
        params = jax.jit(transformed.init)(jax.random.key(0), X)
        apply, params = from_haiku(transformed, params)
        assert listed(apply, params, X) == ["lstm/linear", "lstm[0]", "lstm[1].hidden", "lstm[1].cell", "linear"]
        got = edit(apply, params, X, {"lstm[0]@7": jnp.zeros_like})
        assert_same(got, jnp.broadcast_to(params["linear"]["b"], (12, 10)), 1e-6)
    with pytest.raises(InputError, match=r"from_haiku: expected what haiku\.transform or .* returned, got a function"):
        from_haiku(recurrent, params)


# What is common to all.


def test_equal_modules_give_equal_functions_and_others_other_ones():
    assert from_nnx(Tied(nnx.Rngs(0)))[0] == from_nnx(Tied(nnx.Rngs(1)))[0]
    assert from_nnx(WithOptions(nnx.Rngs(0)), train=False)[0] == from_nnx(WithOptions(nnx.Rngs(1)), train=False)[0]
    assert from_nnx(WithOptions(nnx.Rngs(0)), train=False)[0] != from_nnx(WithOptions(nnx.Rngs(0)), train=True)[0]
    narrow, wide, again = (from_linen(nn.Dense(units), {"params": {}})[0] for units in (2, 3, 3))
    assert narrow != wide
    assert (wide, hash(wide)) == (again, hash(again))


def test_networks_stacked_by_vmap_are_sliced_like_any_other_parameters():
    stacked = nnx.vmap(lambda rngs: Tied(rngs))(nnx.Rngs(0).split(2))
    apply, params = from_nnx(stacked)
    one = jax.tree.map(lambda leaf: leaf[1], params)
    graphdef, state = nnx.split(stacked)
    module = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[1], state))
    assert_same(edit(apply, one, X, {}), module(X), 1e-6)
    edited = jax.vmap(lambda params: edit(apply, params, X, {"mix": jnp.zeros_like}))(params)
    assert_same(edited[1], jnp.broadcast_to(module.head.bias[...], (12, 10)))


def test_networks_are_traced_and_called_in_threads_at_once():
    apply, params = from_nnx(Stack(nnx.Rngs(0)))
    alone = listed(apply, params, X)
    expected = np.asarray(apply(params, X))
    results, errors = [], []
    start = threading.Barrier(8)

    def work(number):
        try:
            start.wait()
            for _ in range(3):
                if number % 2:
                    results.append(listed(apply, params, X) == alone)
                else:  # a plain call names nothing, whatever others do meanwhile
                    results.append("jaxdist_site" not in str(jax.make_jaxpr(lambda x: apply(params, x))(X)))
                    results.append(bool((np.asarray(apply(params, X)) == expected).all()))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(results)
    assert len(results) == 4 * 3 + 4 * 3 * 2


def test_what_is_no_module_is_refused_in_one_sentence():
    variables = nn.Dense(3).init(jax.random.key(0), X)
    with pytest.raises(
        InputError, match=r"from_linen: expected an instance of flax\.linen\.Module, .* got PjitFunction; from_nnx"
    ):
        from_linen(jax.jit(nn.Dense(3).apply), variables)
    with pytest.raises(
        InputError, match=r"with the key 'params', got the keys bias, kernel; .* pass \{'params': params\}"
    ):
        from_linen(nn.Dense(3), dict(sorted(variables["params"].items())))
    with pytest.raises(
        InputError, match=r"from_nnx: expected an instance of flax\.nnx\.Module, .* got Dense; from_linen takes"
    ):
        from_nnx(nn.Dense(3))
