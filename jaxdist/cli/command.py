"""What the parser has to know of a command."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from jaxdist.cli.options import Parser

Examples = tuple[tuple[str, str], ...]
"""Commands as a user would type them, and what each is for."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: what its help says, which options it has, and what it does."""

    name: str
    """As it is typed, such as import-torch."""
    help: str
    """What it is for, in one line."""
    usage: str
    """What may follow its name."""
    examples: Examples
    """At the end of its help, two or three."""
    add: Callable[[Parser], None]
    """``add(parser)`` gives its options to a parser of its own."""
    run: Callable[[argparse.Namespace], int | None]
    """``run(options)`` does it, with what was read of them; returns the exit code, None for 0."""
