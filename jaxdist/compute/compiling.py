"""How the driver's programs are compiled: with the options of a platform, as far as this JAX knows them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from jaxdist.compute import tuning

Options: TypeAlias = tuple[tuple[str, Any], ...]


class Compiled:
    """A function as ``jax.jit`` makes it with the platform's compiler options.

    JAX takes options of outermost programs only, so it cannot be called where JAX traces another.
    """

    def __init__(self, function: Callable[..., Any], static: tuple[str, ...]) -> None:
        functools.update_wrapper(self, function)
        self.program = functools.cache(functools.partial(_jitted, function, static))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._of_platform()(*arguments, **named)

    def lower(self, *arguments: Any, **named: Any) -> Any:
        """As ``jax.jit(...).lower``."""
        return self._of_platform().lower(*arguments, **named)

    def _of_platform(self) -> Any:
        return self.program(supported(tuning.current().compiler_options))


def compiled(*static: str) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function whose arguments of these names are static."""
    return functools.partial(Compiled, static=static)


def _jitted(function: Callable[..., Any], static: tuple[str, ...], options: Options = ()) -> Any:
    return jax.jit(function, static_argnames=static, compiler_options=dict(options) or None)


@functools.cache
def supported(options: Options) -> Options:
    """The options, or none where this version of XLA does not have all of them."""
    try:
        jax.jit(lambda: None, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return ()
    return options
