"""``jaxdist run``: a whole run, or the rest of one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from jaxdist.cli import output
from jaxdist.cli.options import Parser, add_run, config_of, experiment
from jaxdist.compute import hosts
from jaxdist.storage import places

HELP = "train, sweep and report in a run folder, or go on with it"
USAGE = "[CONFIG] [OPTIONS]"
EXAMPLES = (
    ("jaxdist run", "the quickstart, on embedded data, into runs/quickstart"),
    ("jaxdist run configs/comparison.toml --data.dir MNIST", "with doses, on a folder of IDX files"),
    ("jaxdist run --train.seeds 2 --train.steps 50 --out runs/look --json look.json", "main numbers into a file too"),
)


def add(parser: Parser) -> None:
    """Its options."""
    add_run(parser)


def command(options: argparse.Namespace) -> None:
    """Run, and say what was found."""
    config = config_of(options)
    stages = experiment(options)
    began = time.time()
    with output.progress(options) as show:
        result = stages.run(config, show=show)
    output.summarise(options, result, config.statistics, Path(config.out))
    if hosts.writes() and (Path(config.out).expanduser() / places.RESULT).stat().st_mtime < began:
        output.say(
            options,
            "It was finished before: only tables and figures were made again. For a new run, give another --out",
        )
