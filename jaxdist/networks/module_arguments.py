"""Functions of (apply, params, ...) that take a module, which holds its parameters, in place of the two."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from jaxdist.errors import InputError
from jaxdist.networks import site_values

Result = TypeVar("Result")


def or_a_module(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a function of (apply, params, ...) be called as (module, ...), with a module of Flax NNX or Equinox.

    It is turned into the two by `modules.from_nnx` or `modules.from_equinox`, without options of its call.

    Raises:
      InputError: for an NNX module with parameters beside it, and a module of Linen, which holds none.
    """
    signature = inspect.signature(function)
    name = function.__name__

    @functools.wraps(function)
    def with_parameters(*args: Any, **options: Any) -> Result:
        module = args[0] if args else options.get(next(iter(signature.parameters)))
        if _is_of("flax.linen", module):
            raise InputError(
                f"{name}: a Linen module does not hold its parameters; pass the function and the parameters that "
                "jaxdist.from_linen(module, variables) returns"
            )
        if isinstance(module, (list, tuple)) and any(_maker(each) for each in module):
            raise InputError(
                f"{name}: expected one network, got a {type(module).__name__} of modules; for several seeds, pass the "
                "function of one and the parameters of each, as jaxdist.from_nnx returns them, to probe with "
                "stacked=True"
            )
        complete = _fits(signature, args, options)
        if complete and _is_of("flax.nnx", module):
            raise InputError(
                f"{name}: {type(module).__name__} already holds its parameters; leave params out, as in "
                f"{name}(module, ...)"
            )
        make = None if complete or not args else _maker(module)
        # What lacks an argument is left to Python to say.
        return function(*args, **options) if make is None else function(*make(module), *args[1:], **options)

    return with_parameters


def _fits(signature: inspect.Signature, args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **options)
    except TypeError:
        return False
    return True


def _maker(module: object) -> Callable[[Any], tuple[Any, Any]] | None:
    """What makes a function and parameters of a module that holds its parameters; None of anything else."""
    for library in ("flax.nnx", "equinox"):
        if _is_of(library, module):
            from jaxdist.networks import modules  # late, for those who have no module and need not wait for Flax

            return modules.from_nnx if library == "flax.nnx" else modules.from_equinox
    return None


def _is_of(library: str, module: object) -> bool:
    """Whether this is a module of a library; nobody has one of a library that is not imported."""
    kind = getattr(sys.modules.get(library), "Module", None)  # None while another thread imports it
    return isinstance(kind, type) and isinstance(module, kind)


sites = or_a_module(site_values.sites)
read = or_a_module(site_values.read)
edit = or_a_module(site_values.edit)
