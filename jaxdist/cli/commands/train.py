"""``jaxdist train``: the networks of a run, without a sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli import output
from jaxdist.cli.options import Parser, add_run, config_of, experiment

HELP = "only train, in a run folder, or go on with it"
USAGE = "[CONFIG] [OPTIONS]"
EXAMPLES = (
    ("jaxdist train --out runs/mine --train.seeds 6", "six seeds of each network, on embedded data"),
    ("jaxdist train configs/paper.toml --data.dir MNIST", "the paper's networks; a killed training goes on"),
)


def add(parser: Parser) -> None:
    """Its options."""
    add_run(parser)


def command(options: argparse.Namespace) -> None:
    """Train, and say where the networks are."""
    config = config_of(options)
    stages = experiment(options)
    with output.progress(options) as show:
        result = stages.train(config, show=show)
    output.write_numbers(options, result, config.statistics, Path(config.out))
    kind = "trained" if config.train.steps else "untrained"
    output.say(options, f"{kind} networks in {config.out}; next: jaxdist sweep {config.out}")
