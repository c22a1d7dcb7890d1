"""Commands that make a run, whole or a stage of it, and the one that says what it will cost."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from jaxdist import files
from jaxdist.cli import output
from jaxdist.cli.command import Command
from jaxdist.cli.options import (
    Parser,
    add_cluster,
    add_config,
    add_fields,
    add_output,
    add_run,
    changes,
    config_of,
    count,
    experiment,
)
from jaxdist.compute import hosts
from jaxdist.formatting import counted
from jaxdist.storage import places


def run(options: argparse.Namespace) -> None:
    """Do a whole run, or the rest of one, and say what was found."""
    config = config_of(options)
    stages = experiment(options)
    began = time.time()
    with output.progress(options) as show:
        result = stages.run(config, show=show)
    output.summarise(options, result, config.statistics, Path(config.out))
    if hosts.writes() and (files.expanded(config.out) / places.RESULT).stat().st_mtime < began:
        output.say(
            options,
            "This run was already finished: only tables and figures were made again. For a new run, choose another "
            "--out",
        )


RUN = Command(
    "run",
    help="train, sweep and report in a run folder, or resume a run",
    usage="[CONFIG] [OPTIONS]",
    examples=(
        ("jaxdist run", "the quickstart, on embedded data, into runs/quickstart"),
        ("jaxdist run configs/comparison.toml --data.dir MNIST", "with doses, on a folder of IDX files"),
        (
            "jaxdist run --train.seeds 2 --train.steps 50 --out runs/look --json look.json",
            "also write the main numbers to a file",
        ),
    ),
    add=add_run,
    run=run,
)


def train(options: argparse.Namespace) -> None:
    """Train the networks of a run, without a sweep, and say where they are."""
    config = config_of(options)
    stages = experiment(options)
    with output.progress(options) as show:
        result = stages.train(config, show=show)
    output.write_numbers(options, result, config.statistics, Path(config.out))
    kind = "trained" if config.train.steps else "untrained"
    output.say(options, f"{kind} networks in {config.out}; {output.next_step('sweep', config.out)}")


TRAIN = Command(
    "train",
    help="only train, in a run folder, or resume training",
    usage="[CONFIG] [OPTIONS]",
    examples=(
        ("jaxdist train --out runs/mine --train.seeds 6", "six seeds of each network, on embedded data"),
        ("jaxdist train configs/paper.toml --data.dir MNIST", "the paper's networks; killed training resumes"),
    ),
    add=add_run,
    run=train,
)


def _add_sweep(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run folder")
    add_output(parser)
    add_fields(parser, ("data.dir", "ranges.", "sweep.", "statistics.", "compute."))
    add_cluster(parser)


def sweep(options: argparse.Namespace) -> None:
    """Edit networks that are trained, and say what comes next."""
    stages = experiment(options)
    with output.progress(options) as show:
        result = stages.sweep_folder(options.run, changes(options), show=show)
    from jaxdist.storage import folders
    from jaxdist.sweep import results

    output.write_numbers(options, result, results.options_of(result).statistics, folders.of(options.run))
    output.say(options, f"swept {options.run}; {output.next_step('report', options.run)}")
    output.say_left(options, folders.of(options.run))


SWEEP = Command(
    "sweep",
    help="sweep the trained networks of a run folder",
    usage="RUN [OPTIONS]",
    examples=(
        ("jaxdist sweep runs/mine", "the families of its config"),
        ("jaxdist sweep runs/mine --sweep.dead_units nan", "again, with the paper's 0/0 for dead units"),
        (
            "jaxdist sweep runs/mine --sweep.families clip,offset,noise --sweep.dose true",
            "other families, with doses",
        ),
    ),
    add=_add_sweep,
    run=sweep,
)


def _add_merge(parser: Parser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders of the parts, in any order")
    parser.add_argument(
        "--out", dest="whole", type=Path, metavar="FOLDER", required=True, help="folder of the whole run"
    )
    add_output(parser)


def merge(options: argparse.Namespace) -> None:
    """Put runs of other seeds or activations together, and say what comes next."""
    experiment()
    from jaxdist.experiment import merging, running
    from jaxdist.sweep import results

    result = merging.merge_folders(options.runs, options.whole)
    output.write_numbers(options, result, results.options_of(result).statistics, options.whole)
    following = "report" if running.is_swept(result) else "sweep"
    output.say(
        options,
        f"merged {counted(len(options.runs), 'run')} into {options.whole}; "
        f"{output.next_step(following, options.whole)}",
    )


MERGE = Command(
    "merge",
    help="put runs of other seeds or networks together, as one",
    usage="RUN RUN [RUN ...] --out FOLDER [OPTIONS]",
    examples=(
        ("jaxdist train --train.seeds 0:10 --out runs/a", "on one machine"),
        ("jaxdist train --train.seeds 10:20 --out runs/b", "on another"),
        ("jaxdist merge runs/a runs/b --out runs/whole", "a run of 20 seeds"),
    ),
    add=_add_merge,
    run=merge,
)


def _add_plan(parser: Parser) -> None:
    parser.add_argument(
        "--devices", type=count, help="number of devices that the run will have, of the same kind as here [those here]"
    )
    add_config(parser)


def plan(options: argparse.Namespace) -> None:
    """Measure what a run will cost, and print the plan."""
    config = config_of(options)
    experiment()
    from jaxdist.experiment import planning

    print(planning.rendered(planning.plan(config, options.devices), config))


PLAN = Command(
    "plan",
    help="estimate what a run will cost, by measuring for a few seconds",
    usage="[CONFIG] [OPTIONS]",
    examples=(
        ("jaxdist plan configs/paper.toml --data.dir MNIST", "work, memory and time of the paper's run"),
        ("jaxdist plan --train.seeds 100 --devices 4", "the quickstart with 100 seeds, on four devices"),
    ),
    add=_add_plan,
    run=plan,
)
