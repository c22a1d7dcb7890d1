"""Frozen dataclasses made of what a person wrote: fields with help and bounds, each mistake named in one sentence."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from jaxdist import registry
from jaxdist.errors import InputError, nearest

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Call:
    """A function by its name, with arguments by theirs: in TOML the table ``{name = "adamw", weight_decay = 1e-4}``.

    Arguments are numbers, texts, truth values, lists of these, or calls.
    """

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()
    """By name, in the order of the alphabet, so that equal calls are equal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", tuple(sorted(self.arguments, key=lambda pair: pair[0])))

    def table(self) -> dict[str, Any]:
        """The table that TOML has of it."""
        return {"name": self.name, **{key: _as_written(value) for key, value in self.arguments}}

    def __str__(self) -> str:
        """As one writes it in TOML."""
        return _toml(self.table())


def _as_written(value: Any) -> Any:
    if isinstance(value, Call):
        return value.table()
    return [_as_written(item) for item in value] if isinstance(value, tuple) else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    names: Collection[str] | None = None,
) -> Any:
    """A field with its help text and its bounds: `least` is inclusive, `above` and `below` are exclusive.

    Where there are `names`, a text is one of them as they are when it is read, or "package.module:name".
    """
    bounds = {"least": least, "above": above, "below": below, "names": names}
    return dataclasses.field(default=default, metadata={"help": help, **bounds})


_EXAMPLE = 'as {name = "adamw", weight_decay = 1e-4}'


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
    if Call in get_args(expected) and text.lstrip().startswith("{"):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            raise InputError(f"{where}: expected a table as TOML writes it, {_EXAMPLE}, got {text!r}") from None
    for kind in (int, float):
        if kind in (expected, *get_args(expected)):
            try:
                return kind(text)
            except ValueError:
                raise InputError(f"{where}: expected {_words(expected, {})}, got {text!r}") from None
    return text


def build(kind: type[T], tree: Mapping[str, Any], where: str, prefix: str = "", *, any_name: bool = False) -> T:
    """A dataclass from nested dictionaries; `prefix` is the name of what is built, with a dot, in errors.

    With `any_name`, fields that name one of several things may name others.

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
            values[field.name] = build(hint, value, where, f"{prefix}{field.name}.", any_name=any_name)  # type: ignore[arg-type]
        else:
            bounds = {**field.metadata, "names": None} if any_name else field.metadata
            values[field.name] = _checked(value, hint, bounds, name)
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
    if Call in get_args(expected):
        if isinstance(value, Mapping):
            return _call(value, where)
        return _checked(value, next(kind for kind in get_args(expected) if kind is not Call), bounds, where)
    if expected is float and type(value) is int:
        value = float(value)
    if type(value) is not expected or (expected is not str and not _within(value, bounds)):
        raise problem
    names = bounds.get("names")
    if names is not None and value not in names and not registry.is_reference(value):
        raise problem
    return value


def _call(table: Mapping[str, Any], where: str) -> Call:
    """A call from its table; raises `InputError` for one without a name, or with what is no argument."""
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: expected a table with a name, {_EXAMPLE}, got {json.dumps(table, default=str)}")

    def plain(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return _call(value, f"{where}.{key}")
        if isinstance(value, list):
            return tuple(plain(item, key) for item in value)
        if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
            return value
        raise InputError(f"{where}.{key}: expected a number, text, truth value or table, got {value}")

    return Call(name, tuple((key, plain(value, key)) for key, value in table.items() if key != "name"))


def set_type(expected: Any) -> Any:
    """The type of an option where it is set: int for ``int | None``."""
    if isinstance(expected, types.UnionType) and type(None) in get_args(expected):
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
    if Call in get_args(expected):
        return _words(next(kind for kind in get_args(expected) if kind is not Call), bounds)
    if bounds.get("names") is not None:
        return f"one of {', '.join(bounds['names'])}, or 'package.module:name'"
    names = {"least": "at least", "above": "above", "below": "below"}
    limits = " and ".join(f"{word} {bounds[key]}" for key, word in names.items() if bounds.get(key) is not None)
    kinds = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return f"{kinds[expected]} {limits}".strip()
