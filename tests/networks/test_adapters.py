"""What a Flax module's sites are, what is refused, and what of the module stays as it was."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdist
from jaxdist.errors import InputError
from jaxdist.networks import adapters, taps


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
    assert shapes == {"again": (5, 2), **rest}
    np.testing.assert_array_equal(apply(params, x), module(x))
    zeroed = taps.edit(apply, params, x, {"rest/layers/2": jnp.zeros_like})
    np.testing.assert_array_equal(zeroed, jnp.zeros((5, 3)))


def test_networks_stacked_by_vmap_are_sliced_like_any_other_parameters():
    x = jnp.ones((5, 2))
    keys = jax.random.split(jax.random.key(0), 3)
    dense = nn.Dense(3)
    linen, of_linen = adapters.from_linen(dense, jax.vmap(dense.init, (0, None))(keys, x))
    stacked = nnx.vmap(lambda rngs: Shared(rngs))(nnx.Rngs(0).split(3))
    of_nnx_apply, of_nnx = adapters.from_nnx(stacked)
    assert of_nnx_apply == adapters.from_nnx(Shared(nnx.Rngs(0)))[0]
    for seed in range(3):
        one = jax.tree.map(lambda leaf, k=seed: leaf[k], of_linen)
        np.testing.assert_array_equal(linen(one, x), dense.apply(dense.init(keys[seed], x), x))
        graphdef, state = nnx.split(stacked)
        by_flax = nnx.merge(graphdef, jax.tree.map(lambda leaf, k=seed: leaf[k], state))
        one = jax.tree.map(lambda leaf, k=seed: leaf[k], of_nnx)
        np.testing.assert_array_equal(of_nnx_apply(one, x), by_flax(x))
    assert not np.allclose(*of_nnx["again"]["kernel"][:2])


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
    with pytest.raises(InputError, match="site 'again': the model reaches it 2 times, as where a module is used"):
        taps.check(twice, params, x, ["again"])


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


def test_adapters_are_at_the_top_of_the_package():
    assert jaxdist.from_linen is adapters.from_linen
    assert jaxdist.from_nnx is adapters.from_nnx
