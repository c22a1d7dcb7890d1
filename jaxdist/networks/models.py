"""The networks of a config: their models, where they are edited, and the weights that training begins with."""

from __future__ import annotations

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


COPIES = 5
"""How often the weights of the networks in training, with what the optimiser keeps of them, are held at the most: on
devices, as they are and as a step makes them, with gradients; and on the host, before and after."""


def bytes_of(config: Config, inputs: Inputs, seeds: int) -> int:
    """What so many seeds take in memory where they are trained: all networks' weights, and those in training as copies.

    Measured as what further seeds add to a process that trains ReLU and Abs networks of the digits, it is 0.9 to 1.1
    times that.
    """
    weights = jax.eval_shape(lambda: mlp.init(jax.random.key(0), _sizes(config, inputs)))
    optimizer = optimizers.optimizer(config.train.optimizer, config.train.learning_rate)
    kept, each = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (jax.eval_shape(optimizer.init, weights), weights)
    )
    return seeds * (each * len(config.model.activations) + COPIES * (each + kept))


def refuse_too_large(config: Config, inputs: Inputs, seeds: int) -> None:
    """Raise `InputError` where so many seeds of networks that are to be trained are more than the machine's memory."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    needed = bytes_of(config, inputs, seeds)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        networks = len(config.model.activations) * seeds
        several = "fewer seeds at once, which 'jaxdist merge' joins" if bytes_of(config, inputs, 1) <= memory else ""
        raise InputError(
            f"train.seeds, model.hidden: training {counted(networks, 'network')} takes {needed / 2**30:,.1f} GiB, more "
            f"than this machine's memory of {memory / 2**30:,.1f} GiB; use {several or 'fewer hidden units'}"
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
