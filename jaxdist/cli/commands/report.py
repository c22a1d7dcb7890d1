"""``jaxdist report``: the tables and figures of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli import output
from jaxdist.cli.options import Parser, add_fields, add_output, changes, experiment

HELP = "write a run's tables and figures, and print its summary"
USAGE = "RUN [OPTIONS]"
EXAMPLES = (
    ("jaxdist report runs/mine", "tables, figures and the summary"),
    ("jaxdist report runs/mine --statistics.margin 0.02", "where two points of accuracy are lost"),
    ("jaxdist report runs/mine --json", "the main numbers for a script"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("run", type=Path, help="run folder")
    add_output(parser)
    add_fields(parser, ("statistics.",))


def command(options: argparse.Namespace) -> None:
    """Write what a run folder shows, and say what was found."""
    experiment()
    from jaxdist import finished, folders, results

    result = finished.report_folder(options.run, changes(options))
    output.summarise(options, result, results.options_of(result).statistics, folders.of(options.run))
