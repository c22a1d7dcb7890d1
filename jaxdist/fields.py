"""Options in frozen dataclasses of pydantic, checked wherever they are made; each mistake is named in one sentence.

What pydantic finds wrong is said in words made of the field's own type and bounds, the same for a config in Python, in
TOML and on a command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import tomllib
import types
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import annotated_types
import pydantic
import pydantic.dataclasses
from pydantic import AllowInfNan, ConfigDict, Strict, TypeAdapter, ValidationInfo
from pydantic_core import ErrorDetails, core_schema

from jaxdist import registry
from jaxdist.errors import InputError, nearest

T = TypeVar("T")
E = TypeVar("E")

LONGEST = 200
"""Letters of a value that a sentence quotes."""

_EXAMPLE = 'as {name = "adamw", weight_decay = 1e-4}'


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A function by its name, with arguments by theirs: in TOML the table ``{name = "adamw", weight_decay = 1e-4}``.

    Arguments are numbers, texts, truth values, lists of these, or calls.
    """

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()
    """By name, in the order of the alphabet, so that equal calls are equal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", tuple(sorted(self.arguments, key=lambda pair: pair[0])))

    def __eq__(self, other: object) -> bool:
        # By what is written, as true is no 1.
        return isinstance(other, Call) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def table(self) -> dict[str, Any]:
        """The table that TOML has of it."""
        return {"name": self.name, **{key: _as_written(value) for key, value in self.arguments}}

    def __str__(self) -> str:
        """As one writes it in TOML."""
        return _toml(self.table())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(_call)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"name": {"type": "string", "minLength": 1}}, "required": ["name"]}


def _refuse_odd_call(call: Call, path: str) -> None:
    """Refuse a call made in Python that no table could be."""
    keys = [key for key, _ in call.arguments]
    if not all(isinstance(key, str) and key != "name" for key in keys) or len(set(keys)) != len(keys):
        raise InputError(f"{path}: expected arguments by different names other than 'name', got {_json(keys)}")


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


def _call(value: Any, path: str = "") -> Call:
    """A call from its table; raises `InputError` for one without a name, or with what is no argument.

    The message is what follows the field's name, and `path` what lies between the two.
    """
    if isinstance(value, Call):
        _refuse_odd_call(value, path)
        value = {"name": value.name, **dict(value.arguments)}
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: expected a table with a name, {_EXAMPLE}, got {_json(value)}")
    _printable(name, f"{path}.name")

    def argument(value: Any, key: str) -> Any:
        if isinstance(value, Mapping | Call):
            return _call(value, f"{path}.{key}")
        if isinstance(value, list | tuple):
            return tuple(argument(item, key) for item in value)
        if isinstance(value, str):
            return _printable(value, f"{path}.{key}")
        if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        raise InputError(f"{path}.{key}: expected a number, text, truth value or table, got {_json(value)}")

    return Call(name, tuple((key, argument(item, key)) for key, item in value.items() if key != "name"))


_RANGE = "[0-9]+:[0-9]+"

_MOST_SEEDS = 2**31 - 1
"""What JAX's keys take as numbers of seeds."""


class Seeds(int):
    """How many seeds, and the number of the first: 20, or in TOML "20:40" for twenty that do not begin with 0.

    It counts as the number of seeds; two are equal if they are the same seeds.

    >>> seeds = Seeds.parse("20:30")
    >>> seeds, str(seeds), seeds.numbers, seeds == 10, seeds != Seeds(10), seeds == Seeds(10, first=20)
    (20:30, '10', range(20, 30), False, True, True)
    """

    first: int

    def __new__(cls, count: int, first: int = 0) -> Seeds:
        seeds = super().__new__(cls, count)
        seeds.first = first
        return seeds

    @classmethod
    def parse(cls, text: str) -> Seeds:
        """From "20:40"; raises `ValueError` for other texts, and for ranges that are empty."""
        begin, end = map(int, text.split(":")) if re.fullmatch(_RANGE, text) else (0, 0)
        if not begin < end <= _MOST_SEEDS:
            raise ValueError
        return cls(end - begin, begin)

    @property
    def numbers(self) -> range:
        """The numbers of the seeds."""
        return range(self.first, self.first + int(self))

    @property
    def written(self) -> int | str:
        """As a config has it."""
        return f"{self.first}:{self.first + int(self)}" if self.first else int(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and (int(self), self.first) == (int(other), getattr(other, "first", 0))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __repr__(self) -> str:
        return str(self.written)  # tells them apart

    __str__ = int.__repr__  # counts them


@dataclasses.dataclass(frozen=True)
class OrRange:
    """An annotation of an integer: it counts seeds, which a text may also give as a range."""

    words = ", or a range such as 20:40"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def read(value: Any, integer: Any) -> Seeds:
            if isinstance(value, Seeds):
                return Seeds(integer(int(value)), value.first)
            return Seeds.parse(value) if isinstance(value, str) else Seeds(integer(value))

        return core_schema.no_info_wrap_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [handler(schema["schema"]), {"type": "string", "pattern": f"^{_RANGE}$"}]}


@dataclasses.dataclass(frozen=True, eq=False)
class Names:
    """An annotation of texts: one of the `names` that there are when it is read, or "package.module:name".

    In pydantic's context, ``also`` holds further names, and ``any_name``, as for what a run has kept, allows any text.
    """

    names: Collection[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.with_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {
            "anyOf": [{"enum": list(self.names)}, {"type": "string", "pattern": f"^(?:{registry.REFERENCE.pattern})$"}]
        }

    def _checked(self, name: str, info: ValidationInfo) -> str:
        context = info.context or {}
        if (
            name in self.names
            or registry.is_reference(name)
            or context.get("any_name")
            or name in context.get("also", ())
        ):
            return name
        raise ValueError


def _plain(value: Any) -> Any:
    """As TOML has it: no numbers and arrays of NumPy and JAX, no paths; lists are tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) in (0, 1):
        with contextlib.suppress(AttributeError, TypeError):  # shapes without values, and JAX's tracers
            value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _printable(text: str, path: str = "") -> str:
    """Refuse text that would do something to a terminal, end a file's name, or cannot be written as UTF-8."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise InputError(f"{path}: expected text without control characters, got {_json(text)}")
    return text


def _without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError
    return values


_LARGE = 10**18
"""Beyond every integer that an array holds."""

Text: TypeAlias = Annotated[str, Strict(), pydantic.AfterValidator(_printable)]
Truth: TypeAlias = Annotated[bool, Strict()]
Integer: TypeAlias = Annotated[int, Strict(), annotated_types.Ge(-_LARGE), annotated_types.Lt(_LARGE)]
Number: TypeAlias = Annotated[float, Strict(), AllowInfNan(False)]
Many: TypeAlias = Annotated[tuple[E, ...], Strict(), annotated_types.MinLen(1)]
"""At least one."""
Distinct: TypeAlias = Annotated[
    Many[E], pydantic.AfterValidator(_without_repeats), pydantic.Field(json_schema_extra={"uniqueItems": True})
]
"""At least one, without repeats."""


def option(default: Any, help: str) -> Any:
    """A field with its default and its help text."""
    return pydantic.Field(default=default, description=help)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def options(*, section: str = "") -> Callable[[type[T]], type[T]]:
    """A frozen dataclass of pydantic whose mistakes are an `InputError`; its `section` is named in them."""

    def decorate(kind: type[T]) -> type[T]:
        checked: Any = pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))(kind)
        plain = checked.__init__

        @functools.wraps(plain)
        def construct(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                plain(self, *map(_plain, args), **_plain(kwargs))
            except pydantic.ValidationError as error:
                raise InputError(_sentence(error, checked, f"{section}." if section else "")) from None

        checked.__init__ = construct
        decorated: type[T] = checked
        return decorated

    return decorate


def help_of(owner: Any, name: str) -> str:
    """The help text of a field of a dataclass made by `options`, or of an instance of it."""
    return str(owner.__pydantic_fields__[name].description)


def build(
    kind: type[T], tree: Mapping[str, Any], where: str, *, any_name: bool = False, also: Collection[str] = ()
) -> T:
    """A dataclass from nested dictionaries.

    Args:
      kind: a dataclass made by `options`.
      tree: values by the names of its fields.
      where: what they are of, for messages.
      any_name: fields that name one of several things may name others.
      also: names that such fields may hold besides those that there are.

    Raises:
      InputError: with `where` and the field's name, for unknown keys and for values of another type or out of bounds.
    """
    try:
        return TypeAdapter(kind).validate_python(_plain(tree), context={"any_name": any_name, "also": also})
    except pydantic.ValidationError as error:
        raise InputError(f"{where}: {_sentence(error, kind)}") from None


def schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a dataclass, for editors that complete and check what is typed."""
    return TypeAdapter(kind).json_schema()


def parse(text: str, expected: Any, where: str) -> Any:
    """Turn command-line text into the value that TOML would have given; text that is none of the kind stays text.

    Raises:
      InputError: with `where`, for a table that is not written as TOML writes it.
    """
    if get_origin(expected) is tuple:
        element = get_args(expected)[0]
        text = text.strip().removesuffix(",")  # as TOML allows one after the last
        return [parse(part.strip(), element, where) for part in text.split(",")] if text else []
    if Call in get_args(expected) and text.lstrip().startswith("{"):
        try:
            ((_, value),) = tomllib.loads(f"value = {text}").items()
            return value
        except (ValueError, RecursionError):  # more than the value, thousands of levels or digits
            raise InputError(
                f"{where}: expected a table as TOML writes it, {_EXAMPLE}, got {text[:LONGEST]!r}"
            ) from None
    if {int, float, bool}.isdisjoint((expected, *get_args(expected))):
        return text
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def set_type(expected: Any) -> Any:
    """The type of an option where it is set: int for ``int | None``."""
    if get_origin(expected) in (Union, types.UnionType) and type(None) in get_args(expected):
        return next(kind for kind in get_args(expected) if kind is not type(None))
    return expected


def _json(value: Any) -> str:
    """A value in a sentence, as JSON has it, or by its type."""
    try:
        text = json.dumps(value, default=str)
    except (ValueError, TypeError, RecursionError):  # integers of thousands of digits, and the like
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _sentence(error: pydantic.ValidationError, kind: type, prefix: str = "") -> str:
    """An unknown key, or else the first of the mistakes; `prefix` comes before the names of the fields of `kind`."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "unexpected_keyword_argument"), errors[0])
    hint, path = _field_of(first, kind)
    name = prefix + ".".join(path)
    if first["type"] == "unexpected_keyword_argument":
        key = _json(str(first["loc"][-1]))[1:-1]
        elsewhere = [place for place in _places(kind, prefix) if place.rpartition(".")[2] == key]
        near = f"; did you mean '{elsewhere[0]}'?" if elsewhere else nearest(key, get_type_hints(hint))
        return f"unknown key '{name}{'.' if path else ''}{key}'{near}"
    if first["type"] in ("unexpected_positional_argument", "multiple_argument_values"):
        return f"{kind.__name__}: expected options by name, each once"
    if dataclasses.is_dataclass(hint):
        return f"{name or 'the config'} must be a table of options, got {_json(first['input'])}"
    # A table is meant to be a call, whatever else the field may be.
    for each in errors if isinstance(first["input"], Mapping | Call) else [first]:
        own = each.get("ctx", {}).get("error")
        if each["loc"][: len(path)] == path and isinstance(own, InputError):
            return f"{name}{own}"
    value = first["input"]
    if type(value) is int and abs(value) >= _LARGE and _split(hint)[0] is int:
        return f"{name}: expected an integer of at most 18 digits, got one of {value.bit_length() * 3 // 10} or more"
    return f"{name}: expected {_words(hint)}, got {_json(value)}"


def _places(kind: Any, prefix: str) -> Iterator[str]:
    """The dotted names of all fields, those of sections too."""
    for name, hint in get_type_hints(kind).items():
        yield from _places(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [f"{prefix}{name}"]


def _field_of(error: ErrorDetails, kind: type) -> tuple[Any, tuple[str, ...]]:
    """The type of the field, or of the item of one, that an error is about, and the names that lead to the field."""
    hint: Any = kind
    path: list[str] = []
    for part in error["loc"]:
        if dataclasses.is_dataclass(hint):
            hints = get_type_hints(hint, include_extras=True)
            if isinstance(part, int) and part < len(hints):  # given by its place
                part = list(hints)[part]
            if part not in hints:
                break
            hint = hints[part]
            path.append(str(part))
        elif isinstance(part, int):
            hint = get_args(_split(hint)[0])[0]
    return hint, tuple(path)


def _split(hint: Any) -> tuple[Any, Sequence[Any]]:
    """A type where it is set, and its annotations."""
    hint = set_type(hint)
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _words(hint: Any) -> str:
    """Say a type and its bounds as a reader would."""
    kind, annotations = _split(hint)
    if get_origin(kind) is tuple:
        repeats = "" if pydantic.AfterValidator(_without_repeats) not in annotations else ", without repeats"
        return f"a list of at least one{repeats}, each {_words(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if Call in get_args(kind):
        return _words(next(each for each in get_args(kind) if each is not Call))
    for each in annotations:
        if isinstance(each, Names):
            return f"one of {', '.join(each.names)}, or 'package.module:name'"
    bounds = {annotated_types.Ge: "at least", annotated_types.Gt: "above", annotated_types.Lt: "below"}
    ends = [(bounds[type(each)], *dataclasses.astuple(each)) for each in annotations if type(each) in bounds]
    limits = [f"{word} {end}" for word, end in ends if abs(end) != _LARGE]
    other = "".join(each.words for each in annotations if isinstance(each, OrRange))
    kinds = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return f"{kinds[kind]} {' and '.join(limits)}".strip() + other
