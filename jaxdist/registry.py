"""The names of families of edits and of optimisers, each with a sentence: all that a config and its errors need.

Nothing here imports JAX. The records behind the names load on use: `jaxdist.perturbations.families` holds those of
families, optax those of optimisers. Names that are registered in a process stand here too, until it ends.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxdist.errors import InputError

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
}
"""The families of edits by name, with a sentence on each."""

OPTIMIZERS = {
    "sgd": "gradient descent, with momentum if that is given; plain, it is the paper's",
    "adam": "Adam",
    "adamw": "Adam with weight decay of its own",
    "lion": "Lion: the sign of a moving average",
    "rmsprop": "gradients divided by their root mean square",
}
"""Optimisers by name, with a sentence on each; every other one of optax can be named as well."""

_REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def is_reference(text: str) -> bool:
    """Whether a text is of the form "package.module:name".

    >>> is_reference("mine.edits:family"), is_reference("clip")
    (True, False)
    """
    return _REFERENCE.fullmatch(text) is not None


def imported(reference: str, where: str) -> Any:
    """What "package.module:name" names; modules of the working directory are there too, behind installed ones.

    Raises:
      InputError: in one sentence that starts with `where`, if there is no such module or name, or the module fails.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(f'{where}: expected "package.module:name", got {reference!r}')
    module, name = match.groups()
    try:
        with _from_here():
            loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        behind = "" if f"{module}.".startswith(f"{missing}.") else f", as it imports {missing}, which there is none of"
        raise InputError(
            f"{where}: {reference!r} cannot be imported{behind}; there must be a module {module} in the working "
            "directory or on PYTHONPATH"
        ) from None
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise InputError(
            f"{where}: {reference!r} cannot be imported: {module} raises {type(error).__name__}: {said}"
        ) from error
    if not hasattr(loaded, name):
        raise InputError(f"{where}: the module {module} has no {name!r}")
    return getattr(loaded, name)


@contextmanager
def _from_here() -> Iterator[None]:
    """Modules of the working directory can be imported, as ``python -m`` allows and an installed command does not."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
