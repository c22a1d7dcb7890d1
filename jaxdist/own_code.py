"""What tells a user's own code, so that work that was begun with one version of it is not continued with another.

A module that a config names is told by its file, as it is when it is first met or met again after it was loaded anew;
other modules that it imports are not followed. Functions and objects that are registered in Python are told by their
own source and by what it is made of: defaults, closures, partial arguments, state, and what of their module they name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import re
import sys
import sysconfig
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Seen: TypeAlias = dict[int, object]
"""Objects by their place in memory, in the order in which they were met; held, so that no other takes the place."""

_MET = re.compile(r"(\w+: )?<\d+>")

_SEEN: dict[str, tuple[object, str | None]] = {}
"""By a module's name, its import and the SHA-256 of its file at that time."""


def note(module: types.ModuleType) -> None:
    """Remember a module's file as it is when the module is first met, or has been loaded again."""
    if module.__name__ in _SEEN and _SEEN[module.__name__][0] is module.__spec__:
        return
    try:
        digest = hashlib.sha256(Path(module.__file__ or "").read_bytes()).hexdigest()
    except (AttributeError, OSError):  # in an archive, or made in memory
        digest = None
    _SEEN[module.__name__] = module.__spec__, digest


def of_module(name: str) -> str | None:
    """The SHA-256 of the file of a module that `note` has been given; None where it has no file."""
    return _SEEN[name][1] if name in _SEEN else None


def of_function(value: object) -> str | None:
    """What tells a function, or the functions that a record holds; None where none is a user's own."""
    fields = () if callable(value) or not dataclasses.is_dataclass(value) else dataclasses.fields(value)
    named = [(field.name, getattr(value, field.name)) for field in fields] if fields else [("", value)]
    texts = [f"{name}: {text}" for name, each in named if callable(each) and (text := _told(each, {}))]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest() if texts else None


def _told(part: Any, seen: Seen) -> str:
    """A value in text that is the same in every process, nested as the value is; empty where there is nothing to tell.

    Args:
      part: numbers, text, arrays, containers, functions, objects.
      seen: what has been told of already.
    """
    if part is None or part is ... or isinstance(part, bool | int | float | complex | str | bytes):
        return repr(part)
    if isinstance(part, tuple):
        return _listed(_told(each, seen) for each in part)
    if isinstance(part, frozenset):
        return _listed(sorted(_told(each, seen) for each in part))
    if isinstance(part, types.CodeType):
        return _code(part, seen)
    if id(part) in seen:
        return f"<{list(seen).index(id(part))}>"
    seen[id(part)] = part
    if isinstance(part, list):
        return _listed(_told(each, seen) for each in part)
    if isinstance(part, set):
        return _listed(sorted(_told(each, seen) for each in part))
    if isinstance(part, types.SimpleNamespace):
        return _told(vars(part), seen)
    if isinstance(part, Mapping):
        return _listed(f"{_told(key, seen)}: {_told(value, seen)}" for key, value in part.items())
    if hasattr(part, "__array__") and not isinstance(part, type):
        return _array(part)
    if isinstance(part, functools.partial):
        return _listed(_told(each, seen) for each in (part.func, part.args, part.keywords))
    if isinstance(part, types.MethodType):
        return _listed(_told(each, seen) for each in (part.__func__, part.__self__))
    if isinstance(part, types.FunctionType):
        own = _function(part, seen)
    elif isinstance(part, types.ModuleType | types.BuiltinFunctionType):
        return ""
    else:
        own = _object(part, seen)
    # What jax.jit, functools.wraps and others have put around a function.
    wrapped = getattr(part, "__wrapped__", None)
    return own if wrapped is None else _listed((own, _told(wrapped, seen)))


def _listed(texts: Iterable[str]) -> str:
    """Nothing where nothing is told of any but that it was met before; else the place of each counts."""
    told = list(texts)
    return f"[{', '.join(told)}]" if any(text and not _MET.fullmatch(text) for text in told) else ""


def _array(part: Any) -> str:
    try:
        array = np.asarray(part)
    except Exception:  # whatever says so of other libraries' arrays, and of typed keys of random numbers
        import jax

        if not isinstance(part, jax.Array):
            return type(part).__qualname__
        array = np.asarray(jax.random.key_data(part))
    if array.dtype == object:  # of which there are only places in memory
        return f"object {array.shape}"
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def _function(function: types.FunctionType, seen: Seen) -> str:
    cells = {
        name: cell.cell_contents
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        if _is_filled(cell)
    }
    if _is_of_a_library(function.__globals__.get("__name__", "")):
        return _listed(_told(value, seen) for value in cells.values() if _is_handed(value))
    module = function.__globals__
    named = {name: module[name] for name in sorted(_names(function.__code__)) if name in module}
    parts = cells, function.__defaults__, function.__kwdefaults__, named
    return f"({_code(function.__code__, seen)}; {', '.join(_told(part, seen) for part in parts)})"


def _code(code: types.CodeType, seen: Seen) -> str:
    """The source; where there is none, or other things stand on its line, what it is compiled to."""
    if code.co_name != "<lambda>":
        try:
            return inspect.getsource(code)
        except (OSError, TypeError):
            pass
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {_told(code.co_consts, seen)}"


def _is_handed(value: Any) -> bool:
    """Whether what a library's function or object holds may be a user's, as the factor of optax.scale."""
    return not isinstance(value, str | bool | None)


def _names(code: types.CodeType) -> set[str]:
    """What a function names that may be its module's, with those of functions within it."""
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _object(value: Any, seen: Seen) -> str:
    """A class, or an object: what its classes hold, and what it holds itself."""
    of = value if isinstance(value, type) else type(value)
    own = [each for each in of.__mro__ if each.__module__ != "builtins" and not _is_of_a_library(each.__module__)]
    state = {} if value is of else {**_slots(value), **getattr(value, "__dict__", {})}
    if not own:  # a library's, which may hold a user's functions, as a derivative's rules
        held = {name: each for name, each in state.items() if callable(each) and name != "__wrapped__"}
        return _listed(f"{name}: {text}" for name, each in held.items() if (text := _told(each, seen)))
    classes = {each.__qualname__: {k: v for k, v in vars(each).items() if k not in _OF_CLASSES} for each in own}
    for held in classes.values():
        for name, each in held.items():
            held[name] = getattr(each, "__func__", None) or getattr(each, "fget", None) or each
    return f"({_told(classes, seen)}; {_told(state, seen)})"


_OF_CLASSES = frozenset(
    (
        *("__module__", "__dict__", "__weakref__", "__doc__", "__slots__", "__annotations__", "__abstractmethods__"),
        *("__firstlineno__", "__static_attributes__", "__dataclass_params__", "__dataclass_fields__", "_abc_impl"),
    )
)
"""What Python itself writes into a class."""


def _slots(value: Any) -> dict[str, Any]:
    slots = [of.__dict__.get("__slots__", ()) for of in type(value).__mro__]
    names = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    return {name: getattr(value, name) for name in names if name != "__dict__" and hasattr(value, name)}


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (raises where a function is not defined yet)
    except ValueError:
        return False
    return True


@functools.cache
def _is_of_a_library(module: str) -> bool:
    """Whether a module is jaxdist's, Python's or an installed one, whose code is not told, but what it is handed."""
    top = module.partition(".")[0]
    if top in (__package__, "jax", "jaxlib", "optax", "flax", "numpy"):
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:  # built in, or typed
        return top in sys.stdlib_module_names and top != "__main__"
    installed = not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
    return installed or Path(file).is_relative_to(sysconfig.get_path("stdlib"))
