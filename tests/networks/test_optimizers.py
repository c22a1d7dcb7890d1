"""Optimisers by name, with their arguments and schedules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdist import config as configs
from jaxdist.config import Config, TrainConfig
from jaxdist.errors import InputError
from jaxdist.fields import Call
from jaxdist.networks import mlp, optimizers, training

pytestmark = pytest.mark.usefixtures("as_users_have_it")

PARAMS, GRADS = {"w": jnp.ones((2, 3))}, {"w": jnp.full((2, 3), 0.5)}


@pytest.fixture
def as_users_have_it():
    """Optax's schedules multiply numbers by counts of steps, which these tests' strict types would refuse."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def of(text):
    return configs.from_toml(f"[train]\n{text}").train


def built(text):
    train = of(text)
    return optimizers.optimizer(train.optimizer, train.learning_rate)


def steps(optimizer, count=3):
    state, params = optimizer.init(PARAMS), PARAMS
    for _ in range(count):
        updates, state = optimizer.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["w"])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('optimizer = "sgd"\nlearning_rate = 0.1', optax.sgd(0.1)),
        ('optimizer = "lion"\nlearning_rate = 0.1', optax.lion(0.1)),
        ('optimizer = {name = "sgd", momentum = 0.9}\nlearning_rate = 0.1', optax.sgd(0.1, momentum=0.9)),
        (
            'optimizer = {name = "adamw", learning_rate = 1e-3, weight_decay = 0.1, nesterov = true}',
            optax.adamw(1e-3, weight_decay=0.1, nesterov=True),
        ),
        (
            "learning_rate = {name = 'cosine_decay_schedule', init_value = 0.1, decay_steps = 2}",
            optax.sgd(optax.cosine_decay_schedule(0.1, 2)),
        ),
        (
            "optimizer = {name = 'adam', learning_rate = {name = 'linear_schedule', init_value = 1, end_value = 0, "
            "transition_steps = 2}}",
            optax.adam(optax.linear_schedule(1, 0, 2)),
        ),
    ],
)
def test_a_config_names_what_optax_would_be_called_for(text, same):
    np.testing.assert_array_equal(steps(built(text)), steps(same))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer = 'adm'", "train.optimizer: unknown optimiser 'adm'; did you mean 'adam'?"),
        ("optimizer = 'Schedule'", "unknown optimiser 'Schedule'; known: adabelief"),
        (
            "optimizer = {name = 'adamw', weight_decai = 1}",
            "adamw has no argument 'weight_decai'; it takes learning_rate",
        ),
        ("optimizer = {name = 'adamw', weight_decay = 'x'}", "adamw's weight_decay: expected a number"),
        ("optimizer = {name = 'adam', learning_rate = 'x'}", "adam's learning_rate: expected a number or a schedule's"),
        ("optimizer = {name = 'adamw', nesterov = 1}", "adamw's nesterov: expected true or false, got 1"),
        ("optimizer = {name = 'adam', b1 = true}", "adam's b1: expected a number, got true"),
        ("optimizer = {name = 'clip'}", "clip needs max_delta"),
        ("optimizer = 'lbfgs'", "lbfgs cannot be used for training, which passes it only gradients"),
        (f"optimizer = '{__name__}:noisy'", "noisy keeps random keys"),
        (
            "learning_rate = {name = 'cosine_schedule', init_value = 1}",
            "sgd's learning_rate: unknown schedule 'cosine_schedule'; did you mean 'cosine_decay_schedule'?",
        ),
        (
            "learning_rate = {name = 'cosine_decay_schedule', init_value = 1}",
            "sgd's learning_rate: cosine_decay_schedule needs decay_steps",
        ),
        (
            "learning_rate = {name = 'cosine_decay_schedule', init_value = 1, decay_steps = -5}",
            'cosine_decay_schedule rejects {name = "cosine_decay_schedule", decay_steps = -5, init_value = 1}',
        ),
        ("optimizer = 'no_optimizers:mine'", "train.optimizer: 'no_optimizers:mine' cannot be imported"),
        ("optimizer = 'math:pi'", "train.optimizer: 'math:pi' is a float; expected a function"),
        ("optimizer = 'math:sqrt'", "train.optimizer: math:sqrt needs x"),
        ("optimizer = 'os:getcwd'", "os:getcwd returns a str; expected an optax.GradientTransformation"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text, message):
    with pytest.raises(InputError) as caught:
        built(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer = {nam = 'sgd'}", "train.optimizer: expected a table with a name"),
        ("optimizer = 3", "train.optimizer: expected text, got 3"),
        ("learning_rate = 0", "train.learning_rate: expected a number above 0, got 0"),
        ("optimizer = {name = 'sgd', learning_rate = nan}", "train.optimizer.learning_rate: expected a number"),
    ],
)
def test_a_config_refuses_what_is_no_call(text, message):
    with pytest.raises(InputError) as caught:
        of(text)
    assert message in str(caught.value)


def test_a_call_is_written_as_it_was_read_and_read_from_the_command_line():
    table = '{name = "adamw", learning_rate = {name = "linear_schedule", init_value = 0.1}, weight_decay = 0.01}'
    config = configs.override(Config(), {"train.optimizer": table})
    assert str(config.train.optimizer) == table
    assert configs.from_toml(configs.to_toml(config)) == config
    assert configs.override(Config(), {"train.optimizer": "adam"}).train.optimizer == "adam"
    with pytest.raises(InputError, match=r"command line: train\.optimizer: expected a table as TOML writes it"):
        configs.override(Config(), {"train.optimizer": "{name = "})


def noisy(learning_rate):
    """Whose noise would be that of every network."""
    return optax.noisy_sgd(learning_rate, key=jax.random.key(0))


def plain(rate):
    """Of a user's own."""
    return optax.sgd(rate)


def test_a_function_of_ones_own_is_named_by_its_module_or_registered():
    call = Call(f"{__name__}:plain", (("rate", 0.1),))
    np.testing.assert_array_equal(steps(optimizers.optimizer(call, 1.0)), steps(optax.sgd(0.1)))
    optimizers.register("plain", plain, "gradient descent")
    np.testing.assert_array_equal(
        steps(optimizers.optimizer(Call("plain", (("rate", 0.1),)), 1.0)), steps(optax.sgd(0.1))
    )
    with pytest.raises(InputError, match="optimiser 'adam': this is the name of an optax optimiser"):
        optimizers.register("adam", plain, "gradient descent")
    with pytest.raises(InputError, match="optimiser 'plain': this name is already registered"):
        optimizers.register("plain", optax.sgd, "gradient descent")


def test_a_schedule_trains_every_network_as_optax_does(train_set):
    """The ensemble's state counts its own steps; two networks of two seeds."""
    schedule = Call("linear_schedule", (("init_value", 0.01), ("end_value", 0.001), ("transition_steps", 3)))
    optimizer = optimizers.optimizer("sgd", schedule)
    model, params = mlp.model("relu"), mlp.init_ensemble(jax.random.key(0), range(2), (64, 8, 10))
    trained = training.train(model, params, train_set, train_set, steps=4, optimizer=optimizer).params
    again = params
    for rate in (0.01, 0.007, 0.004, 0.001):
        again = training.train(
            model, again, train_set, train_set, steps=1, optimizer=optimizers.optimizer("sgd", rate)
        ).params
    for ours, theirs in zip(jax.tree.leaves(trained), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_default_is_the_papers():
    assert (TrainConfig().optimizer, TrainConfig().learning_rate) == ("sgd", 0.01)
