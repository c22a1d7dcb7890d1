"""Frozen dataclasses made of what a person wrote: fields with help and bounds, each mistake named in one sentence."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from jaxdist.errors import InputError, nearest

T = TypeVar("T")


def option(
    default: Any, help: str, *, least: float | None = None, above: float | None = None, below: float | None = None
) -> Any:
    """A field with its help text and its bounds: `least` is inclusive, `above` and `below` are exclusive."""
    return dataclasses.field(default=default, metadata={"help": help, "least": least, "above": above, "below": below})


def parse(text: str, expected: Any, where: str) -> Any:
    """Turn command-line text into the kind of value that TOML would have given."""
    if get_origin(expected) is tuple:
        element = get_args(expected)[0]
        return [parse(part.strip(), element, where) for part in text.split(",") if part.strip()]
    if expected is bool:
        known = {"true": True, "false": False}
        if text.lower() not in known:
            raise InputError(f"{where}: expected {_words(expected, {})}, got {text!r}")
        return known[text.lower()]
    for kind in (int, float):
        if kind in (expected, *get_args(expected)):
            try:
                return kind(text)
            except ValueError:
                raise InputError(f"{where}: expected {_words(expected, {})}, got {text!r}") from None
    return text


def build(kind: type[T], tree: Mapping[str, Any], where: str, prefix: str = "") -> T:
    """A dataclass from nested dictionaries; `prefix` is the name of what is built, with a dot, in errors.

    Raises:
      InputError: with `where` and the field's name, for unknown keys and for values of another type or out of bounds.
    """
    if not isinstance(tree, Mapping):
        raise InputError(f"{where}: {prefix.rstrip('.') or 'the config'} must be a table of options, got {tree!r}")
    hints = get_type_hints(kind)
    for key in tree:
        if key not in hints:
            raise InputError(f"{where}: unknown key '{prefix}{key}'{nearest(key, hints)}")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # every T here is one of the dataclasses above
        if field.name not in tree:
            continue
        value, name = tree[field.name], f"{where}: {prefix}{field.name}"
        hint = set_type(hints[field.name])
        if dataclasses.is_dataclass(hint):
            values[field.name] = build(hint, value, where, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            values[field.name] = _checked(value, hint, field.metadata, name)
    return kind(**values)


def _checked(value: Any, expected: Any, bounds: Mapping[str, Any], where: str) -> Any:
    """Return `value` if it is of the expected type and within bounds; only integers are converted, to floats."""
    problem = InputError(f"{where}: expected {_words(expected, bounds)}, got {json.dumps(value, default=str)}")
    if get_origin(expected) is tuple:
        element = get_args(expected)[0]
        if not isinstance(value, list) or not value:
            raise problem
        # Layers may be equally wide; names that repeat are a mistake.
        if element is not int and len(set(map(str, value))) != len(value):
            raise problem
        return tuple(_checked(item, element, bounds, where) for item in value)
    if get_origin(expected) is Literal:
        if value not in get_args(expected):
            raise problem
        return value
    if expected is float and type(value) is int:
        value = float(value)
    if type(value) is not expected or (expected is not str and not _within(value, bounds)):
        raise problem
    return value


def set_type(expected: Any) -> Any:
    """The type of an option where it is set: int for ``int | None``."""
    if isinstance(expected, types.UnionType):
        return next(kind for kind in get_args(expected) if kind is not type(None))
    return expected


def _within(value: float, bounds: Mapping[str, Any]) -> bool:
    least, above, below = (bounds.get(key) for key in ("least", "above", "below"))
    return (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def _words(expected: Any, bounds: Mapping[str, Any]) -> str:
    """Say a type and its bounds as a reader would."""
    if get_origin(expected) is tuple:
        element = get_args(expected)[0]
        return f"a list of at least one{'' if element is int else ', without repeats'}, each {_words(element, bounds)}"
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(str, get_args(expected)))
    names = {"least": "at least", "above": "above", "below": "below"}
    limits = " and ".join(f"{word} {bounds[key]}" for key, word in names.items() if bounds.get(key) is not None)
    kinds = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return f"{kinds[expected]} {limits}".strip()
