"""Forms of the perceptron: what its layers compute, as data.

A plain form has an activation behind every hidden layer and a linear last layer. The others are those of Oursland 2025,
*Neural Networks Learn Distance Metrics* (arXiv:2502.02103), which constrain what the logits can be: a second activation
behind the last layer, the negative of it, or distances to learned points in place of the last layer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from jaxdist.compute import elementwise
from jaxdist.errors import InputError, nearest
from jaxdist.networks import activations
from jaxdist.networks.activations import IDENTITY, Activation

Product: TypeAlias = Callable[[Array, Array], Array]
"""Multiplies weights [units, inputs] with the values before the layer, however these lie, to [units, n]."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A kind of layer, as functions: `init` draws its parameters, `apply` gives its preactivations [units, n]."""

    name: str
    init: Callable[[Array, int, int, str], dict[str, Array]]  # (key, inputs, units, scheme)
    apply: Callable[[Mapping[str, Array], Array, Product], Array]
    parameters: tuple[str, ...]
    products: int = 1
    """Matrix products a block."""
    affine: bool = True


def _draw(key: Array, inputs: int, units: int, scheme: str) -> dict[str, Array]:
    if scheme == "pytorch":
        bound = 1 / math.sqrt(inputs)
        both = jax.random.uniform(key, (units, inputs + 1), jnp.float32, minval=-bound, maxval=bound)
        return {"weight": both[:, :-1], "bias": both[:, -1]}
    draw = getattr(jax.nn.initializers, scheme)(in_axis=1, out_axis=0)
    return {"weight": draw(key, (units, inputs), jnp.float32), "bias": jnp.zeros(units, jnp.float32)}


def _draw_unbiased(key: Array, inputs: int, units: int, scheme: str) -> dict[str, Array]:
    # The same draw, so that a seed's weights are those of the plain networks.
    return {"weight": _draw(key, inputs, units, scheme)["weight"]}


def _draw_points(key: Array, inputs: int, units: int, scheme: str) -> dict[str, Array]:  # noqa: ARG001  (Layer.init)
    offset = 0.1 * jax.random.normal(key, (units, inputs), jnp.float32)
    return {"alpha": jnp.ones_like(offset), "offset": offset}


def _linear(layer: Mapping[str, Array], value: Array, product: Product) -> Array:
    return product(layer["weight"], value) + layer["bias"][:, None]


def _unbiased(layer: Mapping[str, Array], value: Array, product: Product) -> Array:
    return product(layer["weight"], value)


def _squared_distances(layer: Mapping[str, Array], value: Array, product: Product) -> Array:
    """``sum_j alpha_cj (a_j - x0_cj)^2`` by products, where the differences themselves would be [C, H, n].

    The sum cancels where a is near x0: its error is that of its largest term, about 1e-7 of ``sum alpha a^2``, so
    that distances below some 3e-4 of the norm of a are rounding, and may come out below 0 even for positive alpha.
    Points start near 0 and hidden values are far from it, so nothing cancels in what is trained here.
    """
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"expected float values before a layer of distances, got {value.dtype}")
    alpha, offset = layer["alpha"], layer["offset"]
    constant = jnp.sum(alpha * offset**2, axis=1)
    return product(alpha, value**2) - 2 * product(alpha * offset, value) + constant[:, None]


LINEAR = Layer("linear", _draw, _linear, ("weight", "bias"))
UNBIASED = Layer("linear without bias", _draw_unbiased, _unbiased, ("weight",))
DISTANCES = Layer("squared distances", _draw_points, _squared_distances, ("alpha", "offset"), 2, affine=False)
"""With the root behind it, the layer OffsetL2; alpha is 1 and the points are N(0, 0.1^2) at the start."""


def _root(value: Array) -> Array:
    # Bounded away from 0, where the root's derivative is infinite; alpha may be learned to be negative, too.
    return jnp.sqrt(elementwise.at_least(value, 1e-12))


ROOT = Activation("root", _root)


@dataclasses.dataclass(frozen=True)
class Form:
    """What a perceptron computes: linear layers each with an activation, then a last layer, `output` and a sign."""

    name: str
    hidden: Activation
    last: Layer = LINEAR
    output: Activation = IDENTITY
    sign: Literal[1, -1] = 1

    def layers(self, count: int) -> list[tuple[Layer, Activation | None]]:
        """Each layer's kind and the activation behind it, of `count` layers in all.

        None only where the logits are affine in the last hidden values: other last layers have an activation, if
        only the identity.
        """
        plain = self.last.affine and self.output == IDENTITY
        return [(LINEAR, self.hidden)] * (count - 1) + [(self.last, None if plain else self.output)]


Kind: TypeAlias = str | Form | Activation | Callable[[Array], Array]
"""A form, or what stands for one: a name, or the activation behind the hidden layers of a plain form."""


def _built_in_forms() -> dict[str, Form]:
    forms = {name: Form(name, activations.get(name)) for name in activations.names()}
    for name in ("relu", "abs"):
        act = activations.get(name)
        # Without a bias in the last layer, as in the paper's code: with one, a network could undo the constraint.
        for suffix, last, output in (("2", UNBIASED, act), ("_l2", DISTANCES, ROOT)):
            forms[name + suffix] = Form(name + suffix, act, last, output)
            forms[f"{name}{suffix}_neg"] = Form(f"{name}{suffix}_neg", act, last, output, sign=-1)
    return forms


_KNOWN = _built_in_forms()


def names() -> tuple[str, ...]:
    """The networks that a config may name: one of each activation, and the other forms.

    >>> [name for name in names() if name.startswith("abs")]
    ['abs', 'abs2', 'abs2_neg', 'abs_l2', 'abs_l2_neg']
    """
    return tuple(_KNOWN)


def get(name: str) -> Form:
    """Return the form of that name; raises `InputError` that names the nearest known one."""
    if name not in _KNOWN:
        raise InputError(f"unknown activation '{name}'{nearest(name, _KNOWN)}")
    return _KNOWN[name]


def of(activation: Kind) -> Form:
    """Return the form that a name, an activation or a user's elementwise function stands for.

    Nothing is taken to be known of a function; an `Activation` says more. Equal arguments give equal forms.

    Raises:
      InputError: for an unknown name, or what is none of these or not hashable.
    """
    if isinstance(activation, str):
        return get(activation)
    if isinstance(activation, Form):
        return activation
    if not callable(activation):
        raise InputError(f"activation: expected a name, a function of the preactivations or a Form, got {activation!r}")
    if not isinstance(activation, Activation):
        activation = Activation(getattr(activation, "__name__", type(activation).__name__), activation)
    try:
        hash(activation)
    except TypeError:
        raise InputError(
            f"activation: '{activation.name}' is not hashable, so its compiled programs could not be reused; pass a "
            "plain function"
        ) from None
    return Form(activation.name, activation)
