"""Activation functions by name, each with what is known about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxdist import elementwise
from jaxdist.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Activation:
    """A pure elementwise function and what is known about it.

    `homogeneous` means ``fn(c * h) == c * fn(h)`` for every c > 0; `even`, ``fn(-h) == fn(h)``; `bounded`, that its
    values stay within fixed limits.
    """

    name: str
    fn: Callable[[Array], Array]
    homogeneous: bool
    even: bool
    bounded: bool

    def __call__(self, value: Array) -> Array:
        return self.fn(value)


_KNOWN = {
    activation.name: activation
    for activation in (
        Activation("relu", elementwise.relu, homogeneous=True, even=False, bounded=False),
        Activation("abs", jnp.abs, homogeneous=True, even=True, bounded=False),
    )
}


def names() -> tuple[str, ...]:
    """The activations that a config may name.

    >>> names()
    ('relu', 'abs')
    """
    return tuple(_KNOWN)


def get(name: str) -> Activation:
    """Return the activation of that name; raises `InputError` that names the nearest known one."""
    if name not in _KNOWN:
        raise InputError(f"unknown activation '{name}'{nearest(name, _KNOWN)}")
    return _KNOWN[name]
