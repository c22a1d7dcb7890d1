"""What tells a user's own code, so that work that was begun with one version of it is not continued with another.

A module that a config names is told by its file, as it was when it was loaded; other modules that it imports are not
followed. Functions that are registered in Python are told by their own source, with their defaults, closures and
partial arguments; functions that they call are not followed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_LIBRARIES = frozenset(("jaxdist", "jax", "jaxlib", "optax", "flax", "chex", "numpy", "scipy", "functools", "math"))
"""Packages whose own code is not told; what users hand to their functions is."""

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
    functions = [getattr(value, field.name) for field in fields] if fields else [value]
    texts = {text for each in functions if callable(each) for text in _of_callable(each, [])}
    return hashlib.sha256("\0".join(sorted(texts)).encode()).hexdigest() if texts else None


def _of_callable(function: Any, within: list[object]) -> Iterator[str]:
    if any(function is outer for outer in within):
        return
    within = [*within, function]
    if isinstance(function, functools.partial):
        yield from _of_part((function.func, function.args, function.keywords), within)
    elif isinstance(function, types.MethodType):
        yield from _of_part((function.__func__, function.__self__), within)
    elif isinstance(function, types.FunctionType):
        cells = tuple(cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
        if not _is_of_a_library(function.__globals__.get("__name__", "")):
            yield _source(function.__code__)
            cells += function.__defaults__ or (), function.__kwdefaults__ or {}
        yield from _of_part(cells, within)
    elif not isinstance(function, types.BuiltinFunctionType):
        yield from _of_class(function, within)
    # What jax.jit, functools.wraps and others have put around a function.
    if (wrapped := getattr(function, "__wrapped__", None)) is not None:
        yield from _of_part(wrapped, within)


def _of_class(value: Any, within: list[object]) -> Iterator[str]:
    """The methods of a class, or of an instance's class with what the instance holds."""
    of = value if isinstance(value, type) else type(value)
    if _is_of_a_library(of.__module__) or of.__module__ == "builtins":
        return
    for method in vars(of).values():
        yield from _of_callable(method, within) if isinstance(method, types.FunctionType) else ()
    if value is not of:
        yield from _of_part(dict(getattr(value, "__dict__", {})), within)


def _of_part(part: Any, within: list[object]) -> Iterator[str]:
    """What belongs to a function: numbers, text, arrays, containers of these, and other functions."""
    if part is None or isinstance(part, bool | int | float | complex | str | bytes):
        yield repr(part)
    elif hasattr(part, "__array__") and not isinstance(part, type):
        array = np.asarray(part)
        if array.dtype == object:  # of which there are only places in memory
            return
        yield f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from (f"{key!r}: {text}" for text in _of_part(value, within))
    elif isinstance(part, tuple | list | set | frozenset):
        for value in part:
            yield from _of_part(value, within)
    elif callable(part):
        yield from _of_callable(part, within)


def _source(code: types.CodeType) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # typed where nothing keeps the text
        inner = [_source(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
        return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {inner}"


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (raises where a function is not defined yet)
    except ValueError:
        return False
    return True


def _is_of_a_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES
