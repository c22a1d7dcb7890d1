"""The multilayer perceptron as pure functions: any depth, any activation and form, named sites.

Values are kept feature-major, [H, n]: the layout in which XLA's CPU products are fastest. Parameters have PyTorch's
layout, ``{"dense0": {"weight": [H, D], "bias": [H]}, "dense1": ...}``; the last layer gives the logits. What else a
layer may hold depends on the form: ``slope``, of an activation that is learned; ``alpha`` and ``offset``.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Key, Num

from jaxdist.compute import products
from jaxdist.networks import forms
from jaxdist.networks.model import Action, Model
from jaxdist.networks.site_primitives import site
from jaxdist.types import AnyArray, Tap

MLPParams: TypeAlias = dict[str, dict[str, Array]]
"""Each layer's arrays by name; stacked ones have a leading S."""


Which: TypeAlias = 'Bool[np.ndarray, " D"] | Int[np.ndarray, " K"]'
"""Some inputs: where it is true, or their numbers."""


def init(
    key: Key[Array, ""], sizes: Sequence[int], scheme: str = "pytorch", activation: forms.Kind = "relu"
) -> MLPParams:
    """Draw the parameters of one network.

    Args:
      key: the same gives the same weights, whatever the form, in all layers that the forms have in common.
      sizes: the layer widths (D, H, ..., C).
      scheme: ``pytorch`` is torch.nn.Linear's default, weights and biases both U(-1/sqrt(fan_in), 1/sqrt(fan_in));
        others are names in `jax.nn.initializers`, with biases of zero.
      activation: as in `model`.

    Raises:
      InputError: as `forms.of` does.
    """
    return _init(key, tuple(sizes), scheme, _layout(sizes, activation))


def init_ensemble(
    key: Key[Array, ""],
    seeds: Sequence[int] | Int[Array, " S"],
    sizes: Sequence[int],
    scheme: str = "pytorch",
    activation: forms.Kind = "relu",
) -> MLPParams:
    """Draw one network for each of the given seed numbers, stacked on a leading S.

    Args:
      key: seed k's weights depend on it and k alone: not on which other seeds are drawn, nor on the activation.
      seeds: their numbers [S].
      sizes, scheme, activation: as in `init`.

    Raises:
      InputError: as `forms.of` does.
    """
    return _init_ensemble(key, jnp.asarray(seeds), tuple(sizes), scheme, _layout(sizes, activation))


Layout: TypeAlias = tuple[tuple[forms.Layer, tuple[tuple[str, float], ...]], ...]
"""What initial parameters depend on: each layer's kind, and its activation's parameters."""


def _layout(sizes: Sequence[int], activation: forms.Kind) -> Layout:
    layers = forms.of(activation).layers(len(sizes) - 1)
    return tuple((layer, act.parameters if act else ()) for layer, act in layers)


def _init(key: Array, sizes: tuple[int, ...], scheme: str, layout: Layout) -> MLPParams:
    params: MLPParams = {}
    for k, ((layer, learned), (inputs, units)) in enumerate(zip(layout, itertools.pairwise(sizes), strict=True)):
        drawn = layer.init(jax.random.fold_in(key, k), inputs, units, scheme)
        params[f"dense{k}"] = drawn | {name: jnp.float32(value) for name, value in learned}
    return params


@functools.partial(jax.jit, static_argnames=("sizes", "scheme", "layout"))
def _init_ensemble(key: Array, seeds: Array, sizes: tuple[int, ...], scheme: str, layout: Layout) -> MLPParams:
    # One after the other: the same program whatever the number of seeds, and compiled in less than half of vmap's time.
    return lax.map(lambda seed: _init(jax.random.fold_in(key, seed), sizes, scheme, layout), seeds)


def apply(
    params: MLPParams,
    x: Num[AnyArray, "n ..."],
    tap: Tap = site,
    *,
    activation: forms.Kind,
    background: float | None = None,
) -> Float[Array, "C n"]:
    """Map inputs x[n, ...] to logits [C, n]; sites are ``dense0/pre``, ``dense0/post``, ``dense1/pre``, ...

    The last layer has sites only where something follows it.

    Args:
      x: may be stored as `products.pack` does, for exact products in the first layer.
      background: what has been taken from every input, where images are laid out as a staircase (`staircases`): x may
        then lack the last inputs, which are 0 but for that. None where x is whole.
    """
    form = forms.of(activation)
    value = jnp.asarray(x).reshape(len(x), -1)
    for k, (layer, act) in enumerate(form.layers(len(params))):
        layer_params = params[f"dense{k}"]
        # Only the inputs are not feature-major.
        value = layer.apply(layer_params, value, operator.matmul if k else functools.partial(_first, background))
        if act:
            value = tap(f"dense{k}/pre", value)
            value = tap(f"dense{k}/post", act(value, *(layer_params[name] for name, _ in act.parameters)))
    return -value if form.sign < 0 else value


def _first(background: float | None, weight: Array, x: Array) -> Array:
    """The products [H, n] of the first layer with inputs from which a constant has been taken."""
    product = products.product(weight, x, cut=background is not None)
    return product + background * jnp.sum(weight, axis=1, keepdims=True) if background else product


def narrow(params: MLPParams, used: Which) -> MLPParams:
    """Keep the first layer's weights of the `used` inputs, in their order, whatever axes lead the parameters.

    Exact where the other inputs are zero for every example: they add nothing and their weights have no gradient.
    """
    return params | {"dense0": params["dense0"] | {"weight": params["dense0"]["weight"][..., used]}}


def widen(params: MLPParams, used: Which, initial: MLPParams) -> MLPParams:
    """Undo `narrow`: the weights of inputs that are not used stay as in `initial`."""
    weight = jnp.asarray(initial["dense0"]["weight"]).at[..., used].set(params["dense0"]["weight"])
    return params | {"dense0": params["dense0"] | {"weight": weight}}


def model(activation: forms.Kind, hidden_layers: int = 1, background: float | None = None) -> Model:
    """The perceptron of that name, activation, function or form, with values and logits that are feature-major.

    `background` is as in `apply`. Equal arguments give equal models. Raises `InputError` as `forms.of` does.

    >>> model("abs_l2").after("dense1/pre").name
    'root'
    """
    return _model(forms.of(activation), hidden_layers, background)


@functools.cache  # two partial functions are never equal
def _model(form: forms.Form, hidden_layers: int, background: float | None) -> Model:
    post: list[tuple[str, Action | str]] = []
    for k, (_, act) in enumerate(form.layers(hidden_layers + 1)):
        if act:
            # With parameters of its own, an activation is no function of the value alone.
            post.append((f"dense{k}/pre", f"dense{k}/post" if act.parameters else act))
    applied = functools.partial(apply, activation=form, background=background)
    return Model(applied, post=tuple(post), unit_axis=0, class_axis=0)
