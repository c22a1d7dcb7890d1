"""The networks of a config: their models, where they are edited, and the weights that training begins with."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdist.config import Config
from jaxdist.data import Inputs
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import forms, mlp, optimizers, paper_weights, targets
from jaxdist.networks.model import Model
from jaxdist.types import PRNG, Params

_INIT = 0
"""The purpose of the key that initial weights are drawn from."""


def model_of(config: Config, activation: str, background: float | None) -> Model:
    """The model of one of the config's networks; `background` is as in `mlp.apply`."""
    return mlp.model(activation, len(config.model.hidden), background)


def targets_of(config: Config) -> targets.Targets:
    """What a run edits: every layer's preactivation by itself, and all of them together."""
    return targets.targets_of([f"dense{k}/pre" for k in range(len(config.model.hidden))], config.sweep.layers)


def check(config: Config) -> None:
    """Raise `InputError` for networks that cannot be made, or an optimiser that cannot train them."""
    for name in config.model.activations:
        forms.get(name)
    if config.model.from_paper:
        paper_weights.check_networks(
            config.model.init, config.model.activations, config.model.hidden, config.train.numbers.stop
        )
    optimizers.optimizer(config.train.optimizer, config.train.learning_rate)


def refuse_too_large(config: Config, inputs: Inputs) -> None:
    """Raise `InputError` where the weights of all networks, once, are more than the machine's memory."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    networks = len(config.model.activations) * config.train.seeds
    needed = 4 * networks * sum(units * (fan_in + 1) for fan_in, units in itertools.pairwise(_sizes(config, inputs)))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise InputError(
            f"train.seeds, model.hidden: the weights of {counted(networks, 'network')} take {needed / 2**30:,.1f} GiB, "
            f"more than this machine's memory of {memory / 2**30:,.1f} GiB; use fewer seeds or hidden units"
        )


def initial(config: Config, inputs: Inputs, seeds: Sequence[int], network: str) -> Params:
    """The weights of some seeds before training.

    They are drawn from keys of ``train.seed``, the same for every network; with ``paper_code`` and
    ``paper_cuda`` from the seed of the paper's code, others for each network.

    Args:
      config: the run's.
      inputs: its data, for D and C.
      seeds: their numbers [S].
      network: one of ``model.activations``.

    Raises:
      InputError: for an unknown network, and as `paper_weights.initial` does.
    """
    sizes = _sizes(config, inputs)
    if config.model.from_paper:
        blocks = paper_weights.blocks_of(config.model.init)
        return jax.tree.map(jnp.asarray, paper_weights.initial(network, seeds, sizes, blocks))
    init_key = jax.random.fold_in(jax.random.key(config.train.seed, impl=PRNG), _INIT)
    return mlp.init_ensemble(init_key, seeds, sizes, str(config.model.init), network)


def shapes(config: Config, inputs: Inputs, seeds: int, network: str) -> Params:
    """What `initial` returns, without its values.

    Args:
      config: the run's.
      inputs: its data, for D and C.
      seeds: S.
      network: one of ``model.activations``.

    Raises:
      InputError: for an unknown network.
    """
    sizes = _sizes(config, inputs)
    return jax.eval_shape(lambda: mlp.init_ensemble(jax.random.key(0), range(seeds), sizes, activation=network))


def _sizes(config: Config, inputs: Inputs) -> tuple[int, ...]:
    return (inputs.size, *config.model.hidden, inputs.dataset.classes)
