"""``jaxdist report``: the tables and figures of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli import output
from jaxdist.cli.options import Parser, add_fields, add_output, changes, experiment
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.report import table

HELP = "write tables, figures and page of a run, or a page of several"
USAGE = "RUN [RUN ...] [OPTIONS]"
EXAMPLES = (
    ("jaxdist report runs/mine", "tables, figures, report.html and the summary"),
    ("jaxdist report runs/a runs/b --out compared", "both over each other in compared/report.html"),
    ("jaxdist report runs/mine --statistics.margin 0.02", "where two points of accuracy are lost"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder; several for one page of all")
    parser.add_argument(
        "--out", dest="page_folder", type=Path, metavar="FOLDER", help="of several runs: folder for the page"
    )
    add_output(parser)
    add_fields(parser, ("statistics.",))


def command(options: argparse.Namespace) -> None:
    """Write what a run folder shows, and say what was found; of several, write the page."""
    several = len(options.runs) > 1
    if several != (options.page_folder is not None):
        raise InputError(
            "several runs make a page of their own; say where by --out FOLDER"
            if several
            else "--out: is for the page of several runs; that of one lies in its folder"
        )
    experiment()
    from jaxdist.experiment import finished
    from jaxdist.storage import folders
    from jaxdist.sweep import results

    if several:
        page = finished.report_folders(options.runs, options.page_folder, changes(options))
        output.write_json(options, lambda: table.document({"page": str(page)}))
        output.say(options, f"{counted(len(options.runs), 'run')} are over each other in {page}")
        return
    (run,) = options.runs
    result = finished.report_folder(run, changes(options))
    output.summarise(options, result, results.options_of(result).statistics, folders.of(run))
