"""Activation functions by name, each with what is known about it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxdist.compute import elementwise
from jaxdist.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Activation:
    """A pure elementwise function and what is known about it.

    `even` means ``fn(-h) == fn(h)``; `bounded`, that its values stay within fixed limits. False says that it is not so,
    or not known to be.

    `parameters` are learned with the layer: the name and initial value of each, a number a layer. They are the
    function's further arguments, in this order: ``fn(h, *parameters)``.
    """

    name: str
    fn: Callable[..., Array]
    even: bool = False
    bounded: bool = False
    parameters: tuple[tuple[str, float], ...] = ()

    def __call__(self, value: Array, *parameters: Array) -> Array:
        return self.fn(value, *parameters)


def _identity(value: Array) -> Array:
    return value


IDENTITY = Activation("identity", _identity)

_KNOWN = {
    activation.name: activation
    for activation in (
        Activation("relu", elementwise.relu),
        Activation("abs", jnp.abs, even=True),
        Activation("leaky_relu", functools.partial(elementwise.leaky_relu, slope=0.01)),
        # torch.nn.PReLU's default: one slope for all units of a layer, 0.25 at the start.
        Activation("prelu", elementwise.leaky_relu, parameters=(("slope", 0.25),)),
        Activation("elu", jax.nn.elu),
        # h * Phi(h) with the exact normal distribution function, PyTorch's default; not the approximation by tanh.
        Activation("gelu", functools.partial(jax.nn.gelu, approximate=False)),
        Activation("silu", jax.nn.silu),
        Activation("softplus", jax.nn.softplus),
        Activation("tanh", jnp.tanh, bounded=True),
        Activation("sigmoid", jax.nn.sigmoid, bounded=True),
        Activation("sine", jnp.sin, bounded=True),
        IDENTITY,
    )
}


def names() -> tuple[str, ...]:
    """The activations that have a name.

    >>> names()[:3]
    ('relu', 'abs', 'leaky_relu')
    """
    return tuple(_KNOWN)


def get(name: str) -> Activation:
    """Return the activation of that name; raises `InputError` that names the nearest known one."""
    if name not in _KNOWN:
        raise InputError(f"unknown activation '{name}'{nearest(name, _KNOWN)}")
    return _KNOWN[name]
