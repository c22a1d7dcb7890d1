"""``jaxdist plan``: what a run will cost."""

from __future__ import annotations

import argparse

from jaxdist.cli.options import Parser, add_config, config_of, count, experiment

HELP = "say what a run will cost, from a measurement of seconds"
USAGE = "[CONFIG] [OPTIONS]"
EXAMPLES = (
    ("jaxdist plan configs/paper.toml --data.dir MNIST", "work, memory and time of the paper's run"),
    ("jaxdist plan --train.seeds 100 --devices 4", "the quickstart with 100 seeds, on four devices"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("--devices", type=count, help="devices like those here that the run will have [those here]")
    add_config(parser)


def command(options: argparse.Namespace) -> None:
    """Measure, and print the plan."""
    config = config_of(options)
    experiment()
    from jaxdist.experiment import planning

    print(planning.rendered(planning.plan(config, options.devices), config))
