"""The named values of Flax Linen modules, which are their submodules' outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxdist.errors import InputError
from jaxdist.networks.modules import from_linen
from jaxdist.networks.site_values import edit, read, sites, trace
from tests.networks.site_support import X, assert_edits, assert_same, listed, twice


def linen(module, *arguments, x=X, **call):
    return from_linen(module, jax.jit(module.init)(jax.random.key(0), x, *arguments, **call))


class LinenSowing(nn.Module):
    wrap: Any = None

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(16, name="layer")(x))
        if self.wrap is not None:
            return nn.Dense(10)(self.wrap(lambda module, h: (module.sow("intermediates", "h", h), h)[1])(self, h))
        self.sow("intermediates", "h", h)
        return nn.Dense(10, name="head")(self.perturb("p", jnp.tanh(h)) + h)


def test_values_that_linen_sows_and_perturbs_are_sites():
    module = LinenSowing()
    variables = module.init(jax.random.key(0), X)
    assert set(variables) == {"params", "perturbations"}
    variables = {**variables, **module.apply(variables, X, mutable=["intermediates"])[1]}
    apply, params = from_linen(module, variables)
    assert listed(apply, params, X[:5]) == ["layer", "h", "p", "head"]
    sow, perturb = nn.Module.sow, nn.Module.perturb

    def by_hand(factor_h, factor_p):
        def run(params, x):
            layer, head = (params["params"][name] for name in ("layer", "head"))
            h = factor_h * nn.relu(x @ layer["kernel"] + layer["bias"][None])
            return (factor_p * jnp.tanh(h) + h) @ head["kernel"] + head["bias"][None]

        return run

    assert_edits(apply, params, X, {"h": twice}, by_hand(2, 1), 1e-6)
    assert_edits(apply, params, X, {"p": twice}, by_hand(1, 2), 1e-6)
    assert (nn.Module.sow, nn.Module.perturb) == (sow, perturb)


def test_a_value_sown_within_a_transformation_that_does_not_make_it_is_read_and_not_edited():
    apply, params = linen(LinenSowing(nn.jit))
    assert sites(apply, params, X)[1].refusal.startswith("its value is sown inside a transformation")
    _, values = read(apply, params, X, ["h", "layer"])
    assert_same(values["h"], nn.relu(values["layer"]))
    with pytest.raises(InputError, match="site 'h': its value is sown inside a transformation"):
        edit(apply, params, X, {"h": twice})


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x.reshape(-1, 8, 8, 1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.max_pool(x, (2, 2), (2, 2)))
        return nn.Dense(10)(x.reshape(len(x), -1))


def intercepted(module, variables, name, change, *arguments, **call):
    """A Linen module with one submodule's output changed by Flax's own interceptors."""

    def intercept(following, args, kwargs, context):
        output = following(*args, **kwargs)
        own = "/".join(context.module.path) == name and context.method_name == "__call__"
        return change(output) if own else output

    def run(params, x):
        with nn.intercept_methods(intercept):
            return module.apply(params, x, *arguments, **call)

    return run


def test_linen_convolutional_network_in_evaluation_mode():
    module = Convolutional()
    variables = module.init(jax.random.key(0), X, train=False)
    apply, params = from_linen(module, variables, train=False)
    assert listed(apply, params, X) == ["Conv_0", "BatchNorm_0", "Dropout_0", "Dense_0"]
    for name in ("Conv_0", "Dropout_0"):
        by_hand = intercepted(module, variables, name, twice, train=False)
        assert_edits(apply, params, X, {name: twice}, by_hand)
    with pytest.raises(InputError, match=r"Convolutional cannot be called as a frozen network; .* Flax says: "):
        from_linen(module, variables, train=True)[0](params, X)


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(h, h)
        return x + nn.Dense(16, name="down")(nn.gelu(nn.Dense(24, name="up")(x))), None


class LinenTransformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16, name="embed")(x.reshape(-1, 8, 8))
        block = nn.remat(LinenBlock, prevent_cse=False)
        layers = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
        x, _ = layers(name="layers")(x, None)
        return nn.Dense(10, name="head")(x.mean(1))


def test_linen_transformer_with_a_scan_over_rematerialised_layers():
    module = LinenTransformer()
    apply, params = linen(module)
    (up,) = (each for each in sites(apply, params, X) if each.name == "layers/up")
    assert (up.shape, up.loops) == ((12, 8, 24), (4,))
    assert {"scan", "remat2"} <= set(up.inside)
    assert_edits(apply, params, X, {"layers/up": twice}, intercepted(module, params, "layers/up", twice), 1e-6)

    def unrolled(params, x):
        layers, x = (
            params["params"]["layers"],
            nn.Dense(16).apply({"params": params["params"]["embed"]}, x.reshape(-1, 8, 8)),
        )
        for k in range(4):
            own = {"params": jax.tree.map(lambda leaf, k=k: leaf[k], layers)}
            block = LinenBlock()
            run = intercepted(block, own, "up", twice, None) if k == 2 else lambda p, x: LinenBlock().apply(p, x, None)
            x, _ = run(own, x)
        return nn.Dense(10).apply({"params": params["params"]["head"]}, x.mean(1))

    split = assert_edits(apply, params, X, {"layers/up@2": twice}, unrolled, 1e-5)
    assert [eqn.params["length"] for eqn in split.first if eqn.primitive.name == "scan"] == [2]
    assert read(apply, params, X, ["layers/up"])[1]["layers/up"].shape == (4, 12, 8, 24)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(8, name="out")(nn.relu(nn.Dense(16, name="in")(x)))


class Siamese(nn.Module):
    def setup(self):
        self.encoder, self.head = Encoder(), nn.Dense(10)

    def __call__(self, x):
        return self.head(jnp.abs(self.encoder(x[:, :32]) - self.encoder(x[:, 32:])))


def test_linen_module_that_is_called_twice():
    apply, params = linen(Siamese())
    assert listed(apply, params, X)[:3] == ["encoder/in#0", "encoder/out#0", "encoder#0"]
    for key, (first, second) in {"encoder": (2, 2), "encoder#0": (2, 1), "encoder#1": (1, 2)}.items():

        def by_hand(params, x, a=first, b=second):
            def encoder(x):
                return Encoder().apply({"params": params["params"]["encoder"]}, x)

            h = jnp.abs(a * encoder(x[:, :32]) - b * encoder(x[:, 32:]))
            return nn.Dense(10).apply({"params": params["params"]["head"]}, h)

        assert_edits(apply, params, X, {key: twice}, by_hand)
    patched = edit(apply, params, X, {"encoder#1": read(apply, params, X, ["encoder#0"])[1]["encoder#0"]})
    assert_same(patched, jnp.broadcast_to(params["params"]["head"]["bias"], (12, 10)))


class LinenRecurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.RNN(nn.OptimizedLSTMCell(16))(x.reshape(-1, 8, 8))[:, -1])


def test_linen_recurrent_network_lists_no_weights_as_sites():
    apply, params = linen(LinenRecurrent())
    cell = "OptimizedLSTMCell_0"
    assert listed(apply, params, X) == [f"{cell}[0][0]", f"{cell}[0][1]", f"{cell}[1]", "RNN_0", "Dense_0"]
    # A key can name them all the same.
    weights = f"{cell}/hi[0]#0"
    assert weights in {each.key for each in trace(apply, params, X).every_site}
    assert read(apply, params, X, [weights])[1][weights].shape == (16, 16)
    cut = edit(apply, params, X, {f"{cell}[1]@7": jnp.zeros_like})
    assert_same(cut, jnp.broadcast_to(params["params"]["Dense_0"]["bias"], (12, 10)), 1e-6)


class LinenJitted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.jit(nn.Dense)(16, name="hidden")(x)))


def test_linen_jit_that_was_called_before():
    module = LinenJitted()
    variables = module.init(jax.random.key(0), X)
    jax.jit(module.apply)(variables, X)
    module.apply(variables, X)
    apply, params = from_linen(module, variables)
    for _ in range(2):
        assert listed(apply, params, X) == ["hidden", "Dense_0"]


@dataclasses.dataclass
class Config:
    width: int = 16


class Sized(nn.Module):
    features: Sequence[int]
    config: Any = None

    @nn.compact
    def __call__(self, x):
        for width in self.features[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.features[-1])(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(10)]),
        Sized([16, 10]),
        Sized((16, 10), {"a": 1}),
        Sized((16, 10), Config()),
    ],
    ids=["Sequential", "list", "dict", "dataclass"],
)
def test_linen_modules_with_unhashable_fields(module):
    variables = module.init(jax.random.key(0), X)
    apply, params = from_linen(module, variables)
    assert len(listed(apply, params, X)) == 2
    assert apply == from_linen(module, variables)[0]
    assert hash(apply) == hash(from_linen(module, variables)[0])
    assert_same(jax.jit(apply)(params, X), jax.jit(module.apply)(variables, X))
