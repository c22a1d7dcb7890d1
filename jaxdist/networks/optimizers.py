"""Optimisers by name: any of optax, one that was registered in this process, or "package.module:function"."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdist import registry
from jaxdist.errors import InputError, nearest
from jaxdist.fields import Call

_registered: dict[str, Callable[..., optax.GradientTransformation]] = {}
_codes: dict[str, str | None] = {}
"""What tells the code of those that are registered, as they were then."""


def register(name: str, function: Callable[..., optax.GradientTransformation], text: str) -> None:
    """Make an optimiser known in this process by a name that optax has not, with a sentence that says what it is.

    Raises:
      InputError: in one sentence, if the name is taken.
    """
    if name in _registered and _registered[name] is not function:
        raise InputError(f"optimiser '{name}': this name is already registered; choose another")
    if name in _of_optax("optimiser"):
        raise InputError(f"optimiser '{name}': this is the name of an optax optimiser; choose another")
    _registered[name] = function
    _codes[name] = registry.code_of(name, function)
    registry.OPTIMIZERS[name] = text


def optimizer(name: str | Call, learning_rate: float | Call) -> optax.GradientTransformation:
    """The optimiser of a name, or of a call with its arguments; `sgd` is plain, as in the paper.

    The learning rate, a number or a schedule's call, is for those that take one and are called without.

    Raises:
      InputError: in one sentence, for an unknown name or argument, a value of the wrong type, or an optimiser that
        training has no use for.
    """
    call = name if isinstance(name, Call) else Call(name)
    function = _function(call.name, "optimiser", "train.optimizer")
    try:
        return _made(function, call, learning_rate)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return _made.__wrapped__(function, call, learning_rate)


@functools.cache  # two updates made alike are never equal, and each would be compiled anew
def _made(function: Callable[..., Any], call: Call, learning_rate: float | Call) -> optax.GradientTransformation:
    where = "train.optimizer"
    arguments = dict(call.arguments)
    takes = "learning_rate" in _parameters(function)
    if takes and "learning_rate" not in arguments:
        arguments["learning_rate"] = learning_rate
    transformation = _called(function, Call(call.name, tuple(arguments.items())), where)
    if not isinstance(transformation, optax.GradientTransformation):
        raise InputError(
            f"{where}: {call.name} returns a {type(transformation).__name__}; expected an optax.GradientTransformation"
        )
    _try(transformation, call.name, where)
    return transformation


def code_of(*calls: str | float | Call) -> dict[str, str | None]:
    """What tells the code of functions that are not optax's, in calls and their arguments, by name in a config."""
    digests: dict[str, str | None] = {}
    for call in calls:
        if isinstance(call, Call):
            digests |= code_of(*(value for _, value in call.arguments if isinstance(value, Call)))
        name = call.name if isinstance(call, Call) else call
        if isinstance(name, str) and (name in _registered or registry.is_reference(name)):
            function = _function(name, "optimiser", "train.optimizer")
            digests[name] = _codes[name] if name in _codes else registry.code_of(name, function)
    return digests


def _function(name: str, what: str, where: str) -> Callable[..., Any]:
    if name in _registered and what == "optimiser":
        return _registered[name]
    if registry.is_reference(name):
        function = registry.imported(name, where)
        if not callable(function):
            raise InputError(f"{where}: {name!r} is a {type(function).__name__}; expected a function")
        return typing.cast(Callable[..., Any], function)
    functions = _of_optax(what)
    if name not in functions:
        names = [each for each in functions if what == "schedule" or "learning_rate" in _parameters(functions[each])]
        raise InputError(f"{where}: unknown {what} {name!r}{nearest(name, [*names, *_registered])}")
    return functions[name]


@functools.cache
def _of_optax(what: str) -> dict[str, Callable[..., Any]]:
    """The public functions of optax that give a transformation of gradients, or a schedule, by name."""
    functions: dict[str, Callable[..., Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in dir(optax):
            function = getattr(optax, name)
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            gives = _signature(function).return_annotation
            if what == "optimiser" and inspect.isclass(gives) and issubclass(gives, optax.GradientTransformation):
                functions[name] = function
            if what == "schedule" and gives == optax.Schedule:
                functions[name] = function
    return functions


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(_signature(function).parameters)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # whatever a function of somebody else's is annotated with
        return inspect.signature(function)


def _called(function: Callable[..., Any], call: Call, where: str) -> Any:
    """What a function gives for a call's arguments, each of which is checked first."""
    parameters = _parameters(function)
    anything = any(param.kind is param.VAR_KEYWORD for param in parameters.values())
    values = {}
    for key, value in call.arguments:
        if key not in parameters and not anything:
            raise InputError(f"{where}: {call.name} has no argument {key!r}; it takes {', '.join(parameters)}")
        hint = parameters[key].annotation if key in parameters else Any
        values[key] = _value(value, hint, f"{where}: {call.name}'s {key}")
    empty = inspect.Parameter.empty
    lacking = [
        key
        for key, param in parameters.items()
        if param.default is empty and key not in values and param.kind not in (param.VAR_KEYWORD, param.VAR_POSITIONAL)
    ]
    if lacking:
        raise InputError(f"{where}: {call.name} needs {', '.join(lacking)}")
    try:
        return function(**values)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where}: {call.name} rejects {call}: {str(error).partition(chr(10))[0]}") from None


def _value(value: Any, hint: Any, where: str) -> Any:
    """An argument as the function takes it; a call becomes the schedule that it names."""
    kinds = set(_kinds(hint))
    if isinstance(value, Call):
        if kinds and collections.abc.Callable not in kinds and object not in kinds:
            raise InputError(f"{where}: expected {_words(kinds)}, got {value}")
        return _called(_function(value.name, "schedule", where), value, where)
    plain = kinds & {bool, int, float, str}
    # Where arrays are taken, so are numbers of any type, among which optax lists truth values.
    if object in kinds or not plain:
        return value
    if isinstance(value, tuple):
        if not kinds & {tuple, list, collections.abc.Sequence}:
            raise InputError(f"{where}: expected {_words(kinds)}, got {list(value)}")
        return value
    numbers = bool(plain & {int, float})
    fits = (
        (isinstance(value, bool) and plain == {bool})
        or (isinstance(value, str) and str in plain)
        or (isinstance(value, int) and not isinstance(value, bool) and numbers)
        or (isinstance(value, float) and float in plain)
    )
    if not fits:
        raise InputError(f"{where}: expected {_words(kinds)}, got {str(value).lower()}")
    return value


def _kinds(hint: Any) -> Iterator[Any]:
    """The plain types that a hint allows, functions as `collections.abc.Callable`, anything as `object`."""
    if hint is Any or hint is inspect.Parameter.empty or isinstance(hint, str):
        yield object
    elif typing.get_origin(hint) in (typing.Union, type(int | str)):
        for part in typing.get_args(hint):
            yield from _kinds(part)
    elif typing.get_origin(hint) is typing.Literal:
        yield from {type(each) for each in typing.get_args(hint)}
    else:
        yield typing.get_origin(hint) or hint


def _words(kinds: set[Any]) -> str:
    """Say what a value may be."""
    words = []
    if float in kinds:
        words.append("a number")
    elif int in kinds:
        words.append("an integer")
    elif bool in kinds:
        words.append("true or false")
    if str in kinds:
        words.append("text")
    if collections.abc.Callable in kinds:
        words.append("a schedule's table")
    return " or ".join(words) or "another value"


def _try(transformation: optax.GradientTransformation, name: str, where: str) -> None:
    """Refuse what does not take gradients, its state and the weights alone, or changes the form of its state."""

    def step(params: Any) -> tuple[Any, Any, Any]:
        state = transformation.init(params)
        updates, after = transformation.update(params, state, params)
        return state, after, optax.apply_updates(params, updates)

    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    try:
        before, after, moved = jax.eval_shape(step, params)
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise InputError(
            f"{where}: {name} cannot be used for training, which passes it only gradients: {said}"
        ) from None
    forms = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(before)]
    before_and_after = {jax.tree.structure(before), jax.tree.structure(after)}
    if len(before_and_after) > 1 or forms != [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(after)]:
        raise InputError(
            f"{where}: {name} changes the form of its state from step to step, which training cannot handle"
        )
    if any(jnp.issubdtype(dtype, jax.dtypes.prng_key) for _, dtype in forms):
        raise InputError(f"{where}: {name} keeps random keys, which would be the same for every seed")
    if jax.tree.map(lambda leaf: leaf.shape, moved) != jax.tree.map(lambda leaf: leaf.shape, params):
        raise InputError(f"{where}: {name} changes the shape of weights")
