"""The multilayer perceptron as pure functions: any depth, any activation, named sites.

Values are kept feature-major, [H, n]: the layout in which XLA's CPU products are fastest. Parameters have PyTorch's
layout, ``{"dense0": {"weight": [H, D], "bias": [H]}, "dense1": ...}``; the last layer gives the logits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdist import activations, products
from jaxdist.taps import Model, identity
from jaxdist.types import Tap

MLPParams: TypeAlias = dict[str, dict[str, Array]]


def init(key: Array, sizes: Sequence[int], scheme: str = "pytorch") -> MLPParams:
    """Draw the parameters of one network with layer widths `sizes` = (D, H, ..., C).

    `pytorch` is torch.nn.Linear's default, weights and biases both U(-1/sqrt(fan_in), 1/sqrt(fan_in)); the other
    schemes are those of `jax.nn.initializers`, with biases of zero.
    """
    params: MLPParams = {}
    for k, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        layer_key = jax.random.fold_in(key, k)
        if scheme == "pytorch":
            bound = 1 / math.sqrt(fan_in)
            both = jax.random.uniform(layer_key, (fan_out, fan_in + 1), minval=-bound, maxval=bound)
            weight, bias = both[:, :-1], both[:, -1]
        else:
            draw = getattr(jax.nn.initializers, scheme)(in_axis=1, out_axis=0)
            weight, bias = draw(layer_key, (fan_out, fan_in)), jnp.zeros(fan_out)
        params[f"dense{k}"] = {"weight": weight, "bias": bias}
    return params


def init_ensemble(key: Array, seeds: Sequence[int] | Array, sizes: Sequence[int], scheme: str = "pytorch") -> MLPParams:
    """Draw one network for each of the given seed numbers, stacked on a leading S.

    Seed k's weights depend on `key` and k alone: not on the activation, nor on which other seeds are drawn.
    """
    return _init_ensemble(key, jnp.asarray(seeds), tuple(sizes), scheme)


@functools.partial(jax.jit, static_argnames=("sizes", "scheme"))
def _init_ensemble(key: Array, seeds: Array, sizes: tuple[int, ...], scheme: str) -> MLPParams:
    # One after the other: the same program whatever the number of seeds, and compiled in less than half of vmap's time.
    return lax.map(lambda seed: init(jax.random.fold_in(key, seed), sizes, scheme), seeds)


def apply(params: MLPParams, x: Array, tap: Tap = identity, *, activation: activations.Activation) -> Array:
    """Map inputs x[n, ...] to logits [C, n]; sites are ``dense0/pre``, ``dense0/post``, ``dense1/pre``, ...

    The inputs may be stored as `products.pack` does, for exact products in the first layer.
    """
    value = x.reshape(len(x), -1)
    for k in range(len(params)):
        layer = params[f"dense{k}"]
        value = (products.product(layer["weight"], value) if k == 0 else layer["weight"] @ value) + layer["bias"][
            :, None
        ]
        if k < len(params) - 1:
            value = tap(f"dense{k}/pre", value)
            value = tap(f"dense{k}/post", activation(value))
    return value


def narrow(params: MLPParams, used: np.ndarray) -> MLPParams:
    """Keep the first layer's weights of the inputs in `used` [D] (bool), whatever axes lead the parameters.

    Exact where the other inputs are zero for every example: they add nothing and their weights have no gradient.
    """
    return params | {"dense0": params["dense0"] | {"weight": params["dense0"]["weight"][..., used]}}


def widen(params: MLPParams, used: np.ndarray, initial: MLPParams) -> MLPParams:
    """Undo `narrow`: the weights of inputs that are not used stay as in `initial`."""
    weight = jnp.asarray(initial["dense0"]["weight"]).at[..., used].set(params["dense0"]["weight"])
    return params | {"dense0": params["dense0"] | {"weight": weight}}


@functools.cache
def model(activation: str, hidden_layers: int = 1) -> Model:
    """The perceptron with that activation, as a model whose values and logits are feature-major."""
    fn = activations.get(activation)
    return Model(
        functools.partial(apply, activation=fn),
        post=tuple((f"dense{k}/pre", fn) for k in range(hidden_layers)),
        unit_axis=0,
        class_axis=0,
    )
