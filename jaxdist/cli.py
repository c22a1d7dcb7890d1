"""The command line: it parses, calls `experiment`, and prints."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

import jaxdist
from jaxdist import config as configs
from jaxdist import files, hosts
from jaxdist.config import Config, StatisticsConfig
from jaxdist.errors import InputError, nearest
from jaxdist.progress import shown

if TYPE_CHECKING:
    import xarray as xr


class _Parser(argparse.ArgumentParser):
    """Errors in one sentence, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for input that cannot be used, 1 if another process is gone."""
    try:
        code = _answer(arguments)
    except Exception:
        if not hosts.joined():
            raise
        traceback.print_exc()
        code = 1
    if code and hosts.joined():
        hosts.leave(code)
    return code


def _answer(arguments: Sequence[str] | None) -> int:
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        command: Callable[[argparse.Namespace], int | None] = options.command
        return command(options) or 0
    except InputError as error:
        print(f"jaxdist: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe has seen enough; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(
            f"jaxdist: cannot read or write ({error}); what was finished is kept: make room or give permission, "
            "then give the same command again",
            file=sys.stderr,
        )
        return 2
    except (RuntimeError, ValueError) as error:
        if hosts.lost(error):
            print(f"jaxdist: another process is gone ({_first_line(error)}); start all of them again", file=sys.stderr)
            return 1
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"jaxdist: out of memory ({_first_line(error)}); use fewer seeds or units", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxdist: interrupted; finished files stay as they are", file=sys.stderr)
        return 130


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def parser() -> argparse.ArgumentParser:
    """The parser of the command line, from which the documentation's page of commands is made too."""
    parser = _Parser(
        prog="jaxdist",
        description="Do neural networks read their activations as intensity or as distance?",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="""examples:
  jaxdist run                                      the quickstart, on embedded data
  jaxdist run configs/paper.toml --data.dir MNIST  the paper, on a folder of IDX files
  jaxdist run --train.seeds 6 --out runs/six       any field of the config as an option
  jaxdist run --train.seeds 9 --out runs/six       only the three new seeds; a killed run goes on
  jaxdist sweep runs/six --sweep.dead_units nan    sweep trained networks again""",
    )
    parser.add_argument("--version", action="version", version=f"jaxdist {jaxdist.__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def command(name: str, help: str, function: Callable[[argparse.Namespace], int | None]) -> _Parser:
        added: _Parser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(command=function)
        return added

    for name, help, function in (
        ("run", "train, sweep and report in a run folder, or go on with it", _run),
        ("train", "only train, in a run folder, or go on with it", _train),
    ):
        added = command(name, help, function)
        added.add_argument("config", nargs="?", help="TOML file; none: the quickstart")
        _add_fields(added, ("",))
        _add_cluster(added)
    added = command("plan", "say what a run will cost before it runs, from a measurement of seconds", _plan)
    added.add_argument("config", nargs="?", help="TOML file; none: the quickstart")
    added.add_argument("--devices", type=_count, help="devices like those here that the run will have [those here]")
    _add_fields(added, ("",))
    added = command("sweep", "sweep the trained networks of a run folder", _sweep)
    added.add_argument("run", type=Path, help="run folder")
    _add_fields(added, ("data.dir", "ranges.", "sweep.", "statistics.", "compute."))
    _add_cluster(added)
    added = command("report", "write the tables and figures of a run folder, and print its summary", _report)
    added.add_argument("run", type=Path, help="run folder")
    _add_fields(added, ("statistics.",))
    added = command("verdict", "say whether a run's networks read distance or intensity, at equal dose", _verdict)
    added.add_argument("run", type=Path, help="run folder, swept with --sweep.dose true")
    added.add_argument(
        "--margin",
        type=_fraction,
        metavar="SHARE",
        help="share of changed predictions that matters, kept for later reports [statistics.flips]",
    )
    added.add_argument("--site", metavar="NAME", help="print one site only [all]")
    added.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers")
    added = command("import-torch", "make a run folder of networks trained in PyTorch", _import_torch)
    added.add_argument(
        "path", type=Path, help="the paper's result tree, an exported folder, a state_dict or safetensors"
    )
    added.add_argument("--out", metavar="FOLDER", required=True, help="run folder to make; must be new or empty")
    _add_fields(added, ("data.", "model.activations", "ranges.", "sweep.", "statistics.", "compute."))
    added = command("export-torch", "write the networks of a run as state_dicts and safetensors", _export_torch)
    added.add_argument("run", type=Path, help="run folder")
    added.add_argument("--out", type=Path, required=True, help="new folder to write to")
    added = command("compare", "say whether two runs, or a run and the paper, agree", _compare)
    added.add_argument("a", metavar="A", help="run folder, result file, the paper's result file, or 'published'")
    added.add_argument("b", metavar="B", help="the same")
    added.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was compared")
    added.add_argument(
        "--weights",
        choices=["auto", "shared", "independent"],
        default="auto",
        help="are the networks the same? [auto: by their weights]",
    )
    added.add_argument("--images", type=_count, help="images by which shared networks' counts may differ [2]")
    added.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="folder for the picture [comparisons/ in the run]"
    )
    _add_fields(added, ("data.dir", "statistics."))
    added = command("gallery", "draw the feature-space diagrams of the paper's Figures 2 and 3", _gallery)
    added.add_argument("--out", type=Path, default=Path("gallery"), help="folder to write to [gallery]")
    added = command("data", "make data sets available", _prepare)
    added.add_argument("action", choices=["prepare"], help="make a prepared TFDS data set")
    added.add_argument("dataset", help="mnist, fashion_mnist, or a new name for files of your own")
    source = added.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="folder of the four IDX files")
    source.add_argument("--download", action="store_true", help="fetch the IDX files over the network")
    added.add_argument("--to", type=Path, metavar="FOLDER", help="TFDS data folder [TFDS_DATA_DIR, else TFDS's own]")
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        raise InputError(_unknown(unknown[0], options.name))
    return options


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given, so that what is left out keeps the default of the function behind it."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, got {text!r}")
    return value


def _unknown(argument: str, command: str) -> str:
    known = [f"--{key}" for key in configs.field_types()] + [f"--distributed.{name}" for name in hosts.HELP]
    name = argument.split("=")[0]
    if not argument.startswith("-"):
        return f"'{argument}': one argument too many for '{command}'; see 'jaxdist {command} --help'"
    if name in known:
        return f"{name}: cannot be given to '{command}'; see 'jaxdist {command} --help' for what can"
    return f"unknown option '{name}'{nearest(name, known)}"


def _add_fields(parser: argparse.ArgumentParser, prefixes: tuple[str, ...]) -> None:
    group = parser.add_argument_group("config fields", "override the config; lists are given as a,b,c")
    for key, help in configs.field_help().items():
        if key.startswith(prefixes):
            group.add_argument(f"--{key}", metavar="VALUE", help=help.replace("%", "%%"), default=argparse.SUPPRESS)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several processes", "the same command in each, see docs/hosts.md")
    for name, help in hosts.HELP.items():
        group.add_argument(f"--distributed.{name}", metavar="VALUE", help=help, default=argparse.SUPPRESS)


def _changes(options: argparse.Namespace) -> dict[str, str]:
    return {key: value for key, value in vars(options).items() if key in configs.field_types()}


def _config(options: argparse.Namespace) -> Config:
    start = configs.load(options.config) if options.config else Config()
    return configs.override(start, _changes(options))


def _run(options: argparse.Namespace) -> None:
    config = _config(options)
    experiment = _experiment(options)
    began = time.time()
    with shown(Console()) as show:
        result = experiment.run(config, show=show)
    _summarise(result, config.statistics, Path(config.out))
    if hosts.writes() and (Path(config.out).expanduser() / "result.nc").stat().st_mtime < began:
        print("It was finished before: only tables and figures were made again. For a new run, give another --out")


def _train(options: argparse.Namespace) -> None:
    config = _config(options)
    experiment = _experiment(options)
    with shown(Console()) as show:
        experiment.train(config, show=show)
    print(f"trained networks in {config.out}; next: jaxdist sweep {config.out}")


def _plan(options: argparse.Namespace) -> None:
    config = _config(options)
    _experiment()
    from jaxdist import planning

    print(planning.rendered(planning.plan(config, options.devices), config))


def _sweep(options: argparse.Namespace) -> None:
    experiment = _experiment(options)
    with shown(Console()) as show:
        experiment.sweep_folder(options.run, _changes(options), show=show)
    print(f"swept {options.run}; next: jaxdist report {options.run}")


def _report(options: argparse.Namespace) -> None:
    _experiment()
    from jaxdist import finished, results

    result = finished.report_folder(options.run, _changes(options))

    _summarise(result, results.options_of(result).statistics, options.run)


def _verdict(options: argparse.Namespace) -> None:
    _experiment()
    from jaxdist import finished

    result, found, statistics = finished.verdict_folder(options.run, options.margin)
    from jaxdist import report, verdicts

    if options.site is not None:
        found = found.at(options.site)
    Console(width=report.WIDTH).print(verdicts.rendered(result, found, statistics), highlight=False)
    if options.json:
        files.write_text(options.json, verdicts.json_of(result, found, statistics))
    Console(width=report.WIDTH).print(
        f"tables/verdict.md, tables/doses.csv and figures/doses are in {options.run}", soft_wrap=True, highlight=False
    )


def _import_torch(options: argparse.Namespace) -> None:
    from jaxdist import interop

    changes = _changes(options)
    result = interop.import_run(options.path, changes)
    config = configs.from_toml(result.attrs["config"])
    networks = ", ".join(config.model.activations)
    for note in json.loads(result.attrs["origin"])["notes"]:
        print(f"note: {note}")
    print(f"imported {config.train.seeds} x {networks} into {config.out}; next: jaxdist sweep {config.out}")
    print(f"its images are read then; if {config.data.name} is not prepared here, add --data.dir FOLDER")


def _export_torch(options: argparse.Namespace) -> None:
    from jaxdist import interop

    written = interop.export_run(options.run, options.out)
    print(f"{len(written)} files in {options.out}")


def _compare(options: argparse.Namespace) -> int:
    _experiment()
    from jaxdist import compare, report

    found = compare.compare(
        options.a, options.b, weights=options.weights, changes=_changes(options), **_given(options, "images")
    )
    Console(width=report.WIDTH).print(compare.rendered(found), highlight=False)
    if options.json:
        found.write_json(options.json)
    pictures = options.pictures or (found.folder or Path()) / "comparisons"
    try:
        compare.write_picture(found, pictures)
        print(f"Pictures are in {pictures}")
    except OSError as error:
        # The exit code is the answer to the question asked, with or without a picture of it.
        print(f"jaxdist: no pictures in {pictures} ({error}); choose a folder with --pictures", file=sys.stderr)
    return found.exit_code


def _gallery(options: argparse.Namespace) -> None:
    from jaxdist import gallery

    written = gallery.write(options.out.expanduser())
    print(f"{len(written)} pictures in {options.out}")


def _prepare(options: argparse.Namespace) -> None:
    from jaxdist import data

    path = data.prepare(
        options.dataset, source=options.source, data_dir=options.to, download=options.download, report=print
    )
    print(f"prepared in {path}")


def _experiment(options: argparse.Namespace | None = None) -> ModuleType:
    """Import what computes, with all cores in use and other processes met; late, so that mistakes answer at once."""
    given = vars(options) if options else {}
    cluster = hosts.cluster({n: given[key] for n in hosts.HELP if (key := f"distributed.{n}") in given})
    from jaxdist import devices, experiment

    devices.use_all_cores()
    if cluster:
        hosts.join(cluster)
    return experiment


def _summarise(result: xr.DataTree, options: StatisticsConfig, folder: Path) -> None:
    from jaxdist import report

    report.show(result, options)
    Console(width=report.WIDTH).print(f"Tables, figures and result.nc are in {folder}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
