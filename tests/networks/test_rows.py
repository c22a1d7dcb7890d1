"""Whether examples stay apart: programs that keep them so, that do not, and of which it cannot be told."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxdist.networks.modules import from_equinox, from_linen, from_nnx
from jaxdist.networks.rows import examine
from jaxdist.networks.site_values import site, trace

KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "into": jax.random.normal(KEYS[0], (64, 32)) / 8,
    "gate": jax.random.normal(KEYS[1], (32, 4)),
    "experts": jax.random.normal(KEYS[2], (4, 32, 32)) / 3,
    "out": jax.random.normal(KEYS[3], (32, 10)),
}
X = np.random.default_rng(0).normal(size=(12, 64)).astype("f4")
KEY = jax.random.key(0)


def experts(params, x, capacity):
    """A mixture of experts, which with a limited capacity have room for the first that come."""
    h = jax.nn.relu(site("hidden", x @ params["into"]))
    chosen = (h @ params["gate"]).argmax(-1)
    place = jnp.take_along_axis(jnp.cumsum(jax.nn.one_hot(chosen, 4), 0), chosen[:, None], 1)[:, 0]
    room = place <= len(x) / 4 if capacity else jnp.ones(len(x), bool)
    out = jnp.einsum("nd,ndf->nf", h, params["experts"][chosen])
    return (h + jnp.where(room[:, None], out, 0)) @ params["out"]


def halved(row):
    return lax.while_loop(lambda c: jnp.abs(c[1]).max() > 0.1, lambda c: (c[0] + 1, c[1] * 0.5), (0.0, row))


def two_orders(params, x):
    """The same images with positions in front, and a table of positions, as many networks have it."""
    positions = jnp.broadcast_to(jnp.arange(8)[None], (len(x), 8))
    h = site("tokens", x.reshape(-1, 8, 8)) + params["experts"][0, :8, :8][positions]
    return site("positions first", h.swapaxes(0, 1)).sum((0, 2))


APART = {
    "a perceptron": lambda p, x: jax.nn.relu(x @ p["into"]) @ p["out"],
    "units first": lambda p, x: p["out"].T @ jax.nn.relu(p["into"].T @ x.T),
    "experts with room for all": lambda p, x: experts(p, x, capacity=False),
    "noise that all share": lambda p, x: x + jax.random.normal(KEY, x.shape[1:])[None],
    "tokens flattened and back": lambda p, x: (x.reshape(-1, 8) @ p["into"][:8]).reshape(len(x), 8, 32).sum(1),
    "tiles": lambda p, x: jnp.tile(x, (3, 1)).reshape(3, len(x), 64).sum(0),
    "a roll over columns": lambda p, x: jnp.roll(x, 1, 1) @ p["into"],
    "a sort within an example": lambda p, x: lax.top_k(jnp.sort(x), 4)[0],
    "a while loop under vmap": lambda p, x: jax.vmap(halved)(x),
    "a cond under vmap": lambda p, x: jax.vmap(lambda r: lax.cond(r[0] > 0, jnp.sin, jnp.cos, r))(x),
    "a loop of known length": lambda p, x: lax.fori_loop(
        0, 5, lambda i, z: jnp.tanh(z @ p["experts"][0] + x @ p["into"]), jnp.zeros((len(x), 32))
    ),
    "a scan over positions": lambda p, x: lax.scan(
        lambda h, row: (jnp.tanh(h + row), h.sum(-1)), jnp.zeros((len(x), 8)), x.reshape(-1, 8, 8).swapaxes(0, 1)
    ),
    "copies stacked and taken apart": lambda p, x: jnp.stack(jnp.unstack(x.reshape(-1, 8, 8), axis=1), 0).sum(0),
    "a table looked up": lambda p, x: p["experts"][0][(x @ p["into"]).argmax(-1)],
    "values picked by each": lambda p, x: jnp.take_along_axis(x, x.argmax(-1)[:, None], 1),
    "a column replaced": lambda p, x: x.at[:, 0].set(x[:, 1]),
    "forces": lambda p, x: jax.vmap(jax.grad(lambda r: jnp.sum(jnp.tanh(r @ p["into"]) ** 2)))(x),
    "equations solved": lambda p, x: jax.vmap(lambda r: jnp.linalg.solve(jnp.eye(8) + r.reshape(8, 8), r[:8]))(x),
    "jax.lax.map": lambda p, x: lax.map(lambda row: jnp.cumsum(row) @ p["into"] / row.sum(), x),
    "numbers drawn by a key that all share": lambda p, x: jax.vmap(lambda r: jax.random.gamma(KEY, jnp.abs(r) + 1))(x),
    "a constant the same for all": lambda p, x: x * np.ones((len(x), 64), np.float32),
    "a mean that nothing depends on": lambda p, x: (x.mean(0), 2 * x)[1],
    "two orders": two_orders,
    "outputs of any kind": lambda p, x: {"logits": x @ p["into"], "tokens": (x.reshape(-1, 8), 3.0)},
    "a custom rule": lambda p, x: jax.checkpoint(jax.jit(jax.nn.relu))(jax.nn.silu(x)),
}

PLACE = "brings in an array with an entry for each row of the block"
TOGETHER = {
    "experts of limited capacity": (lambda p, x: experts(p, x, capacity=True), "cumsum works along the batch axis"),
    "the mean of a block": (
        lambda p, x: (x - x.mean(0, keepdims=True)) @ p["into"],
        "reduce_sum works along the batch",
    ),
    "the norm of a block": (lambda p, x: x / jnp.linalg.norm(x), "reduce_sum works along the batch axis"),
    "a sort of rows": (lambda p, x: jnp.sort(x, 0), "sort works along the batch axis"),
    "attention among rows": (
        lambda p, x: jax.nn.softmax((x @ p["into"]) @ (x @ p["into"]).T) @ x,
        "dot_general brings each example together with others",
    ),
    "distances of pairs": (
        lambda p, x: ((x[:, None] - x[None]) ** 2).sum(-1),
        "sub brings each example together with others",
    ),
    "a loss": (lambda p, x: (x @ p["into"]).mean(), "reduce_sum works along the batch axis"),
    "the number of a row": (lambda p, x: x + jnp.arange(len(x), dtype=x.dtype)[:, None], PLACE),
    "weights by rows": (lambda p, x: jnp.einsum("nd,n->nd", x, jnp.arange(len(x), dtype=x.dtype)), PLACE),
    "noise drawn for a block": (lambda p, x: x + jax.random.normal(KEY, x.shape), PLACE),
    "numbers drawn for a block": (
        lambda p, x: jax.random.gamma(KEY, 1 + jnp.abs(x)),
        "random_gamma draws for the whole block with one key",
    ),
    "a constant by rows": (lambda p, x: x * np.arange(len(x), dtype=np.float32)[:, None], PLACE),
    "steps of a while loop, averaged": (
        lambda p, x: x + jax.vmap(halved)(x)[0].mean(),
        "reduce_sum works along the batch axis",
    ),
    "a scan over rows that carries": (
        lambda p, x: lax.scan(lambda c, row: (c + row.sum(), row * c), 0.0, x)[1],
        "scan carries values from one example to the next",
    ),
    "the number of rows as a factor": (lambda p, x: x / len(x), "div computes with the number of examples"),
    "the number of rows as a power": (
        lambda p, x: lax.integer_pow(x, len(x)),
        "integer_pow computes with the number of examples",
    ),
    "the number of rows as a length": (
        lambda p, x: lax.fori_loop(0, len(x), lambda i, z: 0.9 * z, x),
        "scan takes as many steps as there are examples",
    ),
    "the number of rows in a constant": (
        lambda p, x: x * np.full((len(x), 1), 1 / len(x), np.float32),
        "a constant of the program depends on the number of examples",
    ),
}

UNDECIDED = {
    "a roll over rows": (lambda p, x: jnp.roll(x, 1, 0), "slice splits the batch axis"),
    "rows picked": (lambda p, x: x[jnp.arange(len(x)), x.argmax(-1)], "together with other arrays"),
    "a while loop until all rows are done": (
        lambda p, x: lax.while_loop(lambda c: jnp.any(jnp.abs(c) > 0.1), lambda c: c * 0.5, x),
        "while repeats until a condition on all examples holds",
    ),
    "a row replaced": (lambda p, x: x.at[0].set(1.0), "scatter writes to rows of the block"),
    "ones added up": (lambda p, x: x / jnp.ones(len(x)).sum(), "works along as many rows as there are examples"),
    "a program for large blocks": (lambda p, x: x if len(x) > 55 else 2 * x + 1, "differs with the number of examples"),
    "a scan over rows that counts": (
        lambda p, x: lax.scan(lambda c, row: (c + 1, row * c), 0.0, x)[1],
        "scan loops over the examples and carries a value",
    ),
    "tiles that are cut": (
        lambda p, x: jnp.tile(x.T, (1, 64))[:, : 64 * 32].reshape(64, 32, 64).sum(1),
        "slice splits the batch axis",
    ),
    "another reshape": (lambda p, x: x.T.reshape(-1, 64).sum(1), "reshape splits the batch axis"),
    "a callback": (
        lambda p, x: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        "pure_callback is not known to this check",
    ),
    "pairs": (lambda p, x: x.reshape(-1, 2, 64).sum(1).repeat(2, 0), "cannot be traced for 53 examples"),
}


@pytest.mark.parametrize("name", APART)
def test_networks_whose_examples_stay_apart(name):
    verdict = examine(APART[name], PARAMS, X)
    assert verdict.independent is True, str(verdict)
    assert str(verdict) == ""


@pytest.mark.parametrize("name", TOGETHER)
def test_networks_whose_examples_depend_on_others_or_on_their_place(name):
    network, sentence = TOGETHER[name]
    verdict = examine(network, PARAMS, X)
    assert verdict.independent is False, str(verdict)
    assert sentence in verdict.reason
    assert not any(axis is not None for axis in verdict.axes)


@pytest.mark.parametrize("name", UNDECIDED)
def test_networks_of_which_it_cannot_be_told(name):
    network, sentence = UNDECIDED[name]
    verdict = examine(network, PARAMS, X)
    assert verdict.independent is None, str(verdict)
    assert sentence in verdict.reason


@pytest.mark.parametrize("name", APART)
def test_of_networks_judged_apart_each_example_comes_out_the_same_by_itself(name):
    """The judgement itself is true: in another order, examples come out in that order, bit for bit or nearly."""
    order = np.random.default_rng(1).permutation(len(X))
    straight, shuffled = (jax.tree.leaves(APART[name](PARAMS, jnp.asarray(x))) for x in (X, X[order]))
    for one, other in zip(straight, shuffled, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if one.ndim == 0:
            assert one == other
            continue
        axes = [axis for axis, size in enumerate(one.shape) if size % len(X) == 0]
        in_order = [
            np.take(
                one,
                np.add.outer(order * (one.shape[axis] // len(X)), np.arange(one.shape[axis] // len(X))).ravel(),
                axis,
            )
            for axis in axes
        ]
        assert any(np.allclose(each, other, rtol=1e-4, atol=1e-5) for each in in_order)


def test_the_users_line_is_named():
    def network(params, x):
        return x - x.max(0, keepdims=True)

    verdict = examine(network, PARAMS, X)
    assert verdict.reason == "reduce_max works along the batch axis"
    assert __file__ in verdict.line
    assert str(verdict).startswith("reduce_max works along the batch axis, in ")


def test_the_axis_of_examples_of_each_site():
    assert examine(two_orders, PARAMS, X).axes == (0, 1)

    def network(params, x):
        def step(h, row):
            return site("units first", jnp.tanh(h + row)), None

        rows = site("scaled", 2 * x).reshape(-1, 8, 8).transpose(1, 2, 0)
        h = lax.scan(step, jnp.zeros((8, len(x))), rows)[0]
        mapped = jax.vmap(lambda row: site("mapped", row), in_axes=1, out_axes=1)(h)
        return site("flat", mapped.T.reshape(-1)), site("weights", params["out"])

    names = [each.name for each in trace(network, PARAMS, X).every_site]
    assert dict(zip(names, examine(network, PARAMS, X).axes, strict=True)) == {
        "scaled": 0,
        "units first": 1,
        "mapped": 0,
        "flat": None,  # eight entries for each example
        "weights": None,
    }


def test_several_inputs_share_their_examples():
    def network(params, x):
        return x["one"] @ params["into"] + x["two"].sum((1, 2))[:, None]

    block = {"one": X, "two": X.reshape(-1, 8, 8)}
    assert examine(network, PARAMS, block).independent is True

    def mixed(params, x):
        return x["one"] @ x["two"].sum(2).T

    assert examine(mixed, PARAMS, {"one": X[:, :8], "two": X.reshape(-1, 8, 8)}).independent is False


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3))(x.reshape(-1, 8, 8, 1))
        x = nn.max_pool(nn.relu(nn.BatchNorm(use_running_average=not train)(x)), (2, 2), (2, 2))
        x = nn.Conv(16, (3, 3), feature_group_count=2)(nn.Dropout(0.5, deterministic=not train)(x))
        x = nn.GroupNorm(4)(nn.avg_pool(x, (2, 2), (2, 2)))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16)(x.reshape(-1, 8, 8))
        layers = nn.scan(nn.remat(Attention), variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return nn.Dense(10)(layers()(x, None)[0].mean(1))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        h = nn.LayerNorm()(x)
        return x + nn.Dense(16)(nn.gelu(nn.MultiHeadDotProductAttention(2)(h, h))), None


class Recurrent(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.RNN(self.cell)(x.reshape(-1, 8, 8))[:, -1])


class NNXRecurrent(nnx.Module):
    def __init__(self, rngs):
        self.rnn, self.head = nnx.RNN(nnx.GRUCell(8, 16, rngs=rngs)), nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x.reshape(-1, 8, 8))[:, -1])


@pytest.mark.parametrize(
    "module",
    [Transformer(), Recurrent(nn.OptimizedLSTMCell(16)), Recurrent(nn.GRUCell(16))],
    ids=["Transformer", "LSTM", "GRU"],
)
def test_linen_modules_keep_examples_apart(module):
    variables = jax.eval_shape(module.init, KEY, X)
    apply, params = from_linen(module, variables)
    verdict = examine(apply, params, X)
    assert verdict.independent is True, str(verdict)


def test_batch_statistics_are_seen_where_they_are_those_of_the_block():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = jax.eval_shape(lambda: Convolutional().init(KEY, X, False))
        apply, params = from_linen(Convolutional(), variables, train=False)
        verdict = examine(apply, params, X)
    assert verdict.independent is True, str(verdict)
    assert verdict.axes == (0,) * 6
    module = Normalised()
    variables = module.init(KEY, X)

    def network(params, x):
        return module.apply(params, x, mutable=["batch_stats"])[0]

    verdict = examine(network, variables, X)
    assert (verdict.independent, verdict.reason) == (False, "reduce_sum works along the batch axis")
    assert "normalization.py" in verdict.line


def test_nnx_and_equinox_modules_keep_examples_apart():
    verdict = examine(*from_nnx(NNXRecurrent(nnx.Rngs(0))), X)
    assert verdict.independent is True, str(verdict)
    equinox = pytest.importorskip("equinox")

    class Convolutions(equinox.Module):
        convolution: Any
        attention: Any
        norm: Any
        pool: Any

        def __call__(self, x):
            h = self.pool(self.norm(jax.nn.relu(self.convolution(x.reshape(1, 8, 8)))))
            h = h.reshape(8, -1).T
            return self.attention(h, h, h).mean(0)

    model = Convolutions(
        equinox.nn.Conv2d(1, 8, 3, padding=1, key=KEY),
        equinox.nn.MultiheadAttention(2, 8, key=KEY),
        equinox.nn.GroupNorm(2, 8),
        equinox.nn.MaxPool2d(2, 2),
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        verdict = examine(*from_equinox(model), X)
    assert verdict.independent is True, str(verdict)
    assert set(verdict.axes) == {0}
