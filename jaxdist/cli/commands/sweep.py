"""``jaxdist sweep``: edits of networks that are trained."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli import output
from jaxdist.cli.options import Parser, add_cluster, add_fields, add_output, changes, experiment

HELP = "sweep the trained networks of a run folder"
USAGE = "RUN [OPTIONS]"
EXAMPLES = (
    ("jaxdist sweep runs/mine", "the families of its config"),
    ("jaxdist sweep runs/mine --sweep.dead_units nan", "again, with the paper's 0/0 for dead units"),
    (
        "jaxdist sweep runs/mine --sweep.families clip,offset,noise --sweep.dose true",
        "other families, with doses",
    ),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("run", type=Path, help="run folder")
    add_output(parser)
    add_fields(parser, ("data.dir", "ranges.", "sweep.", "statistics.", "compute."))
    add_cluster(parser)


def command(options: argparse.Namespace) -> None:
    """Sweep, and say what comes next."""
    stages = experiment(options)
    with output.progress(options) as show:
        result = stages.sweep_folder(options.run, changes(options), show=show)
    from jaxdist.storage import folders
    from jaxdist.sweep import results

    output.write_numbers(options, result, results.options_of(result).statistics, folders.of(options.run))
    output.say(options, f"swept {options.run}; next: jaxdist report {options.run}")
    output.say_left(options, folders.of(options.run))
