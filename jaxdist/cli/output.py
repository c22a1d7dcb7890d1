"""What a command says and where: the answer on stdout, errors on stderr, progress beside the answer or out of its way.

``--quiet`` leaves out progress and answer. With ``--json`` alone, stdout is one document and progress goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from jaxdist import files
from jaxdist.compute import Show, hosts, progress_display, silent
from jaxdist.config import StatisticsConfig
from jaxdist.report import table
from jaxdist.storage import manifests, places

if TYPE_CHECKING:
    import xarray as xr

STDOUT = "-"
"""In the place of a file, stdout."""


def complain(message: str) -> None:
    """Print an error: one line, which a terminal shows wrapped at words."""
    console = Console(stderr=True)
    console.print(Text(f"jaxdist: {message}"), soft_wrap=not console.is_terminal)


def answers(options: argparse.Namespace) -> bool:
    """Whether stdout is for people."""
    return not options.quiet and options.json != STDOUT


def next_step(command: str, folder: str | Path) -> str:
    """What to type next, as a shell takes it."""
    return f"next: jaxdist {command} {shlex.quote(str(folder))}"


def say(options: argparse.Namespace, *parts: RenderableType) -> None:
    """Print parts of the answer, in at most 80 columns but for paths, which are not broken."""
    if answers(options):
        for part in parts:
            # Titles of tables too are names as they are, so the console has no markup, not only what is printed.
            console = Console(width=table.WIDTH, markup=False, emoji=False)
            console.print(part, soft_wrap=isinstance(part, str), highlight=False)


def progress(options: argparse.Namespace) -> contextlib.AbstractContextManager[Show]:
    """What shows progress where the options want it."""
    if options.quiet:
        return contextlib.nullcontext(silent)
    return progress_display(Console(stderr=options.json == STDOUT))


def write_json(options: argparse.Namespace, document: Callable[[], str]) -> None:
    """Write a JSON document where ``--json`` says, if it was given; of several processes, one does."""
    if options.json is None or not hosts.writes():
        return
    if options.json == STDOUT:
        print(document(), end="", flush=True)
    else:
        manifests.refuse_own(Path(options.json))  # the command itself may have made the run
        files.write_named(files.expanded(options.json), document())


def summarise(options: argparse.Namespace, result: xr.DataTree, statistics: StatisticsConfig, folder: Path) -> None:
    """Say and write the main numbers of a swept run folder's result.

    Args:
      options: the command's, of which ``--quiet`` and ``--json`` say what goes where.
      result: the run's.
      statistics: how tests and intervals are made.
      folder: the run folder.
    """
    write_numbers(options, result, statistics, folder)
    if answers(options):
        from jaxdist.report import summary

        summary.show(result, statistics)
        say(options, f"Tables, figures, report.html and result.nc are in {folder}")
        say_left(options, folder)


def say_left(options: argparse.Namespace, folder: Path) -> None:
    """Say which files in a run folder are not of its result, if any; whoever edited them may look for them there."""
    say(options, *(f"note: {note}" for note in manifests.notes(files.expanded(folder))))


def write_numbers(options: argparse.Namespace, result: xr.DataTree, statistics: StatisticsConfig, folder: Path) -> None:
    """Write the main numbers of a run folder's result where ``--json`` says, if it was given.

    Args:
      options: the command's.
      result: the run's.
      statistics: how tests and intervals are made.
      folder: the run folder, which the document names.
    """

    def document() -> str:
        from jaxdist.report import documents

        config = files.expanded(folder) / places.CONFIG
        place = {"run": str(folder), "config": str(config) if config.exists() else None}
        return table.document(place | documents.main_numbers(result, statistics))

    write_json(options, document)
