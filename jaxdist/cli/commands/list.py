"""``jaxdist list``: the runs below a folder, with their main numbers."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from rich.console import Console

from jaxdist.cli import output
from jaxdist.cli.listing import listed
from jaxdist.cli.options import Parser, add_output
from jaxdist.report import table

HELP = "list the runs below a folder with their main numbers"
USAGE = "[FOLDER] [OPTIONS]"
EXAMPLES = (
    ("jaxdist list", "the runs in the folder runs, the newest last"),
    ("jaxdist list experiments --sort name", "those of another folder, by name"),
    ("jaxdist list --json", "everything that is known of them, for a script"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="folder of run folders [runs]")
    parser.add_argument("--sort", choices=["date", "name"], default="date", help="date: the newest last [date]")
    add_output(parser)


def command(options: argparse.Namespace) -> None:
    """Look, and print the table."""
    from jaxdist.storage import overview

    found = overview.runs(options.folder, options.sort)
    document = {"folder": str(options.folder), "runs": [dataclasses.asdict(one) for one in found]}
    output.write_json(options, lambda: table.document(document))
    if not output.answers(options):
        return
    if found:
        Console().print(table.terminal(listed(found, options.folder.expanduser()), Console().width))
    else:
        output.say(options, f"no runs in {options.folder}; 'jaxdist run' makes one")
