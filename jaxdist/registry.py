"""The names of families of edits, metrics and optimisers, each with a sentence: all that a config and its errors need.

Nothing here imports JAX. The records of the names load on use: `jaxdist.perturbations.families` holds those of
families, `jaxdist.sweep.metrics` those of metrics, optax those of optimisers. Names that are registered in a process
stand here too, until it ends. `Register` is how records of one kind are kept.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from jaxdist import own_code
from jaxdist.errors import InputError, nearest

PAPER = ("scale", "clip", "offset")
"""The families of the paper."""

FAMILIES = {
    "scale": "every value times p",
    "clip": "nothing above a fraction p of the unit's range passes",
    "offset": "the value moves by p times the range, and its slope with it",
    "shift": "the value moves by p times the range, its slope stays",
    "random_offset": "the offset, up or down at random for each unit",
    "restored_offset": "the offset, with the mean logits of the training images restored",
    "random_scale": "each unit's value times exp(p*z), z a normal number of its own",
    "noise": "normal noise of standard deviation p times the range, its own for each unit and example",
    "floor": "activations below a fraction p of the range are raised to it",
    "dead_zone": "activations up to a fraction p of the range become 0",
    "clip_both": "no magnitude above a fraction p of the unit's largest passes",
    "collapse_small": "the smallest activations become their mean, as many as erases a share p of the unit's variance",
    "collapse_large": "the largest activations become their mean, as many as erases a share p of the unit's variance",
    "zero": "the value goes a fraction p of the way to 0",
    "mean": "the value goes a fraction p of the way to the unit's mean over the training images",
    "mean_position": "the same to the unit's mean at that position, and in that call and iteration",
    "resample": "the value goes a fraction p of the way to that of another image of the split, drawn at random",
    "patch": "the value goes a fraction p of the way to that of the source which probe is given",
}
"""The families of edits by name, with a sentence on each."""

COUNTED = {
    "accuracy": "the share of examples whose largest output is their label's",
    "flips": "the share of examples whose largest output is another than without the edit",
}
"""The metrics that every sweep counts, as whole numbers of examples, with a sentence on each."""

METRICS = {
    **COUNTED,
    "cross_entropy": "minus the log-probability of the label",
    "kl": "the Kullback-Leibler divergence of the edited from the unedited network's probabilities",
    "logit_difference": "the label's logit less the largest other",
    "top_5": "1 where the label's logit is among the five largest, else 0",
    "squared_error": "the mean square of the difference between outputs and the label's one-hot vector",
}
"""The metrics by name, with a sentence on each."""

OPTIMIZERS = {
    "sgd": "gradient descent, with momentum if that is given; plain, it is the paper's",
    "adam": "Adam",
    "adamw": "Adam with weight decay of its own",
    "lion": "Lion: the sign of a moving average",
    "rmsprop": "gradients divided by their root mean square",
}
"""Optimisers by name, with a sentence on each; every other one of optax can be named as well."""

REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
"""The form "package.module:name"."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def is_reference(text: str) -> bool:
    """Whether a text is of the form "package.module:name".

    >>> is_reference("mine.edits:family"), is_reference("clip")
    (True, False)
    """
    return REFERENCE.fullmatch(text) is not None


def imported(reference: str, where: str) -> Any:
    """What "package.module:name" names; modules of the working directory are there too, behind installed ones.

    Raises:
      InputError: in one sentence that starts with `where`, if there is no such module or name, or the module fails.
    """
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(f'{where}: expected "package.module:name", got {reference!r}')
    module, name = match.groups()
    try:
        with _from_here():
            loaded = importlib.import_module(module)
            own_code.note(loaded)
    except ModuleNotFoundError as error:
        missing = error.name or module
        behind = "" if f"{module}.".startswith(f"{missing}.") else f", since it imports {missing}, which was not found"
        raise InputError(
            f"{where}: {reference!r} cannot be imported{behind}; put a module {module} in the working directory or on "
            "PYTHONPATH"
        ) from None
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise InputError(
            f"{where}: {reference!r} cannot be imported: {module} raises {type(error).__name__}: {said}"
        ) from error
    if not hasattr(loaded, name):
        raise InputError(f"{where}: the module {module} has no {name!r}")
    return getattr(loaded, name)


def code_of(reference: str, record: object) -> str | None:
    """What tells the code behind what a config names: a module's file, or else the functions of what it leads to.

    None where nothing of it is a user's own.
    """
    match = REFERENCE.fullmatch(reference)
    return (own_code.of_module(match.group(1)) if match else None) or own_code.of_function(record)


@contextmanager
def _from_here() -> Iterator[None]:
    """Modules of the working directory can be imported, as ``python -m`` allows and an installed command does not."""
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


class Record(Protocol):
    """What is registered: a frozen dataclass with a name and a sentence on it."""

    @property
    def name(self) -> str: ...

    @property
    def text(self) -> str: ...


R = TypeVar("R", bound=Record)


class Register(Generic[R]):
    """The records of one kind by name: those built in, and those that are added in this process."""

    def __init__(
        self,
        noun: str,
        kind: type[R],
        expected: str,
        built_in: Sequence[R],
        texts: dict[str, str],
        check: Callable[[R], None],
        function: str,
    ) -> None:
        """Begin with the records that are built in.

        Args:
          noun: of a record, in sentences.
          kind: the records' class.
          expected: its public name, in sentences.
          texts: where the sentence on each name stands for configs.
          check: refuses a record that cannot be used, with `InputError`.
          function: the field whose function tells one record of a name from another.
        """
        self.noun, self.kind, self.expected, self.texts = noun, kind, expected, texts
        self.check, self.function = check, function
        self.records: dict[str, R] = {record.name: record for record in built_in}
        """Every record that is known in this process, the built-in ones first."""
        self.built_in = tuple(self.records)
        self._told: dict[str, tuple[R, str, str | None]] = {}
        self.references: dict[str, str] = {}
        """The names of the records that references, "package.module:name", have led to."""

    def add(self, record: R) -> R:
        """Make a record known by its name; added again, as in a notebook, that of the same function replaces it.

        Raises:
          InputError: in one sentence, for a record that cannot be used, or a name that another record has.
        """
        if any(each is record for each in self.records.values()):
            return record
        self.check(record)
        before = self.records.get(record.name)
        if record.name in self.built_in and before != record:
            raise InputError(f"{self.noun} '{record.name}': this name is built in; choose another")
        if before is not None and self._source(before) != self._source(record):
            raise InputError(
                f"{self.noun} '{record.name}': {self._source(before)[0]} has already registered this name; choose "
                "another"
            )
        self.records[record.name] = record
        self.texts[record.name] = record.text
        self.code_of(record.name)  # now, as a function may change what it holds whenever it is called
        return record

    def _source(self, record: R) -> tuple[str, str]:
        function = getattr(record, self.function)
        return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))

    def get(self, name: str) -> R:
        """The record of that name; raises `InputError` that names the nearest one there is."""
        if name not in self.records:
            raise InputError(f"unknown {self.noun} '{name}'{nearest(name, self.records)}")
        return self.records[name]

    def code_of(self, reference: str) -> str | None:
        """What tells the code of the record that a config names, as the function `code_of` does; none built in has."""
        name = self.references.get(reference, reference)
        if name in self.built_in or name not in self.records:
            return None
        told = self._told.get(name)
        if told is None or told[0] is not self.records[name] or told[1] != reference:
            told = self._told[name] = self.records[name], reference, code_of(reference, self.records[name])
        return told[2]

    def named(self, reference: str, where: str) -> str:
        """The name of the record that a config means: itself, or that of "package.module:name", imported and added.

        Raises:
          InputError: in one sentence that starts with `where`, if there is no such record.
        """
        if not is_reference(reference):
            return self.get(reference).name
        record = imported(reference, where)
        if not isinstance(record, self.kind):
            raise InputError(f"{where}: {reference!r} is {kind_of(record)}; expected a {self.expected}")
        try:
            self.references[reference] = self.add(record).name
        except InputError as error:
            raise InputError(f"{where}: {reference!r}, {error}") from None
        return self.references[reference]

    def knows(self, reference: str) -> bool:
        """Whether what a config names is known here already, without an import."""
        return reference in self.records or reference in self.references


def check_name(record: object, kind: type, expected: str, noun: str, most: int) -> None:
    """Refuse what is no record of a kind, or has no name that can be one.

    Args:
      record: what is to be registered.
      kind: the records' class.
      expected: its public name, for messages.
      noun: of a record, for messages.
      most: letters of a name, at most.

    Raises:
      InputError: in one sentence.
    """
    if not isinstance(record, kind):
        raise InputError(f"register: expected a {expected}, got {kind_of(record)}")
    name = getattr(record, "name", None)
    if not isinstance(name, str) or len(name) > most or not _NAME.fullmatch(name):
        raise InputError(
            f"{noun} {name!r}: expected a name of at most {most} lowercase letters, digits and underscores, starting "
            "with a letter"
        )


def kind_of(value: object) -> str:
    """A value's type, for a sentence.

    >>> kind_of(3), kind_of("text"), kind_of(str)
    ('an int', 'a str', 'the class str')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
