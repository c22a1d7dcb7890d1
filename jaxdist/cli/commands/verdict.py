"""``jaxdist verdict``: distance or intensity, at equal dose."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli import output
from jaxdist.cli.options import Parser, add_output, experiment, fraction

HELP = "say whether networks read distance or intensity, at equal dose"
USAGE = "RUN [OPTIONS]"
EXAMPLES = (
    ("jaxdist verdict runs/comparison", "a sentence a network, and tables"),
    ("jaxdist verdict runs/comparison --margin 0.02", "what matters is 2 % of changed predictions"),
    ("jaxdist verdict runs/comparison --json verdict.json", "all numbers into a file too"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("run", type=Path, help="run folder, swept with --sweep.dose true")
    parser.add_argument(
        "--margin",
        type=fraction,
        metavar="SHARE",
        help="share of changed predictions that matters, kept for later reports [statistics.flips]",
    )
    parser.add_argument("--site", metavar="NAME", help="print one site only [all]")
    add_output(parser, any_name=True)


def command(options: argparse.Namespace) -> None:
    """Compare at equal dose, and say the verdict."""
    experiment()
    from jaxdist.experiment import finished
    from jaxdist.report import verdicts
    from jaxdist.storage import folders

    result, found, statistics = finished.verdict_folder(options.run, options.margin)

    if options.site is not None:
        found = found.at(options.site)
    if output.answers(options):
        output.say(options, verdicts.rendered(result, found, statistics))
    output.write_json(options, lambda: verdicts.json_of(result, found, statistics))
    output.say(options, f"tables/verdict.md, tables/doses.csv and figures/doses are in {options.run}")
    output.say_left(options, folders.of(options.run))
