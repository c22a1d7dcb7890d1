"""The errors a user can cause; each message is one sentence: what, where, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used; the command line prints its message and exits with code 2."""


class TrainingDivergedError(InputError):
    """A network's loss stopped being finite during training, or its weights or logits are not finite after it."""


class MeaninglessError(InputError):
    """A rule or a formula that means nothing for the values of a trained network."""


DAMAGED = (EOFError, ValueError, ArithmeticError, TypeError, LookupError, AttributeError, RuntimeError)
"""What libraries raise that read a damaged file, besides `OSError`, which may be the disk's.

`InputError` and broken TOML or JSON are ValueErrors.
"""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to `name`, or the list of known names.

    >>> nearest("leaning_rate", ["learning_rate", "steps"])
    "; did you mean 'learning_rate'?"
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"
