"""Shapes that signatures state, checked at every call of a test."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jax import Array
from jaxtyping import AbstractArray
from numpy import ndarray


def shapes_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the annotations of jaxtyping, and no others: what is left are matters of mypy."""
    stated = {name: hint for name, hint in inspect.get_annotations(function).items() if _states_shape(hint)}
    if not stated:
        return function
    function.__annotations__ = stated
    return beartype(function)


def _states_shape(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return hint.array_type in (Array, ndarray)
    return any(map(_states_shape, get_args(hint)))
