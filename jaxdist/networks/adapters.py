"""Flax networks, of Linen and of NNX, as model functions: every submodule is a site, and nothing of them is changed.

A site is named by the submodule's path, as "Dense_0" or "blocks/1/attention"; its value is what the submodule's
``__call__`` returns, where that is one array. The module itself is no site. Functions such as ``nn.relu`` have no
path: say in `taps.Model`'s `post` which of them follows a site.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from typing import Any

from flax import linen, nnx
from flax.errors import InvalidRngError, ModifyScopeVariableError
from jax import Array

from jaxdist.errors import InputError
from jaxdist.networks.taps import identity
from jaxdist.types import Apply, Params, Tap


def from_linen(module: linen.Module, variables: Mapping[str, Any], **call: Hashable) -> tuple[Apply, Params]:
    """Make a model function of a Linen module, with its parameters: `variables` as they are.

    Equal modules with equal options give equal functions, so a second use compiles nothing.

    Args:
      variables: what ``module.init`` gave, ``{"params": ..., "batch_stats": ...}``; or stacked, with a leading S.
      call: keyword arguments of the module's call, such as ``train=False``. All collections are frozen.

    Raises:
      InputError: if this is no Linen module or these are not its variables.
    """
    if not isinstance(module, linen.Module):
        raise InputError(_not_a_module("from_linen", "flax.linen.Module", module))
    if not isinstance(variables, Mapping) or (variables and "params" not in variables):
        got = (
            f"the keys {', '.join(map(str, variables))}" if isinstance(variables, Mapping) else type(variables).__name__
        )
        raise InputError(
            "from_linen: expected the variables that module.init gave, with the key 'params', "
            f"got {got}; give {{'params': params}} where you hold the parameters alone"
        )
    apply = _LinenApply(module, tuple(sorted(call.items())))
    _check_hashable("from_linen", "the module's fields and the options of its call", apply)
    return apply, linen.meta.unbox(variables)


@dataclasses.dataclass(frozen=True)
class _LinenApply:
    module: linen.Module
    call: tuple[tuple[str, Any], ...]

    def __call__(self, params: Params, x: Array, tap: Tap = identity) -> Array:
        def tapped(call: Any, args: Any, kwargs: Any, context: linen.module.InterceptorContext) -> Any:
            output = call(*args, **kwargs)
            path = context.module.path if context.method_name == "__call__" else ()
            return tap("/".join(path), output) if path and isinstance(output, Array) else output

        try:
            with linen.intercept_methods(tapped):
                logits: Any = self.module.apply(params, x, **dict(self.call))
                return logits
        except (InvalidRngError, ModifyScopeVariableError) as error:
            raise InputError(
                f"from_linen: {type(self.module).__name__} cannot be called as a frozen network; give the options of "
                f"its evaluation mode, such as train=False or deterministic=True; Flax says: {error}"
            ) from error


def from_nnx(module: nnx.Module) -> tuple[Apply, Params]:
    """Make a model function of an NNX module, with its parameters: nested dictionaries of arrays.

    It works on a copy in evaluation mode, as ``module.eval()`` sets it, without random state; statistics of
    normalisation are among the parameters. A shared submodule goes by the first of its paths. Equal modules give equal
    functions, so a second use compiles nothing. Arrays may be stacked, with a leading S, as ``nnx.vmap`` makes them.

    Raises:
      InputError: if this is no NNX module.
    """
    if not isinstance(module, nnx.Module):
        raise InputError(_not_a_module("from_nnx", "flax.nnx.Module", module))
    copy = nnx.clone(module)
    copy.eval()  # type: ignore[no-untyped-call]
    nnx.pop(copy, nnx.RngState)
    for path, part in list(nnx.iter_modules(copy)):
        if path and callable(part):
            # The graph definition keeps the class, so what is merged from it passes its values through the tap.
            object.__setattr__(part, "__class__", _tapped_class(type(part), "/".join(map(str, path))))
    graphdef, state = nnx.split(copy)
    apply = _NNXApply(graphdef)
    _check_hashable("from_nnx", "the module's static attributes", apply)
    return apply, nnx.to_pure_dict(state)


@dataclasses.dataclass(frozen=True)
class _NNXApply:
    graphdef: nnx.GraphDef[Any]

    def __call__(self, params: Params, x: Array, tap: Tap = identity) -> Array:
        before = _TAP.set(tap)
        try:
            return nnx.merge(self.graphdef, params)(x)
        except AttributeError as error:
            if not isinstance(error.obj, nnx.RngStream):
                raise
            raise InputError(
                "from_nnx: the module draws random numbers in evaluation mode, which a frozen network has none of; "
                "take from it what does not obey module.eval()"
            ) from error
        finally:
            _TAP.reset(before)


_TAP: ContextVar[Tap] = ContextVar("_TAP", default=identity)
"""The tap of the call that is under way; modules merged within a call find it here."""


@functools.cache
def _tapped_class(cls: type[nnx.Module], site: str) -> type[nnx.Module]:
    """A subclass whose call passes its value through the tap under this name; one a class and name, as they compare."""

    @functools.wraps(cls.__call__)
    def call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        output = cls.__call__(self, *args, **kwargs)
        return _TAP.get()(site, output) if isinstance(output, Array) else output

    names = {"__call__": call, "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    made: type[nnx.Module] = types.new_class(
        cls.__name__, (cls,), {"pytree": cls._pytree__is_pytree}, lambda namespace: namespace.update(names)
    )
    return made


def _not_a_module(function: str, expected: str, got: object) -> str:
    other = {"from_linen": "from_nnx takes flax.nnx", "from_nnx": "from_linen takes flax.linen"}[function]
    return (
        f"{function}: expected a {expected}, made and not yet jitted or wrapped, got "
        f"{'the class ' + got.__name__ if isinstance(got, type) else type(got).__name__}; {other}"
    )


def _check_hashable(function: str, what: str, apply: Apply) -> None:
    try:
        hash(apply)
    except TypeError as error:
        raise InputError(
            f"{function}: expected {what} to be hashable, so that equal modules share compiled programs, got an "
            f"{error}; give tuples in place of lists and functions in place of arrays"
        ) from error
