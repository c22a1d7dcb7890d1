"""Commands that show what was found: of a run, of two side by side, of all below a folder; and the paper's diagrams."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxdist import files, formatting
from jaxdist.cli import output
from jaxdist.cli.command import Command
from jaxdist.cli.listing import listed
from jaxdist.cli.options import Parser, add_fields, add_output, changes, count, experiment, fraction, given_options
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.report import table


def _add_report(parser: Parser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folder; give several for one page that shows them all"
    )
    parser.add_argument(
        "--out", dest="page_folder", type=Path, metavar="FOLDER", help="for several runs: folder for their page"
    )
    add_output(parser)
    add_fields(parser, ("statistics.",))


def report(options: argparse.Namespace) -> None:
    """Write what a run folder shows, and say what was found; of several, write the page."""
    several = len(options.runs) > 1
    if several != (options.page_folder is not None):
        raise InputError(
            "the page of several runs needs a folder of its own; name the folder with --out FOLDER"
            if several
            else "--out: only for the page of several runs; leave it out for one run, whose page is written to its own "
            "folder"
        )
    experiment()
    from jaxdist.experiment import finished
    from jaxdist.storage import folders
    from jaxdist.sweep import results

    if several:
        page = finished.report_folders(options.runs, options.page_folder, changes(options))
        output.write_json(options, lambda: table.document({"page": str(page)}))
        output.say(options, f"{counted(len(options.runs), 'run')} are overlaid in {page}")
        return
    (run,) = options.runs
    result = finished.report_folder(run, changes(options))
    output.summarise(options, result, results.options_of(result).statistics, folders.of(run))


REPORT = Command(
    "report",
    help="write tables, figures and a page for a run, or for several",
    usage="RUN [RUN ...] [OPTIONS]",
    examples=(
        ("jaxdist report runs/mine", "tables, figures, report.html and the summary"),
        ("jaxdist report runs/a runs/b --out compared", "both overlaid in compared/report.html"),
        ("jaxdist report runs/mine --statistics.margin 0.02", "with a margin of two points of accuracy"),
    ),
    add=_add_report,
    run=report,
)


def _add_verdict(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run folder, swept with --sweep.dose true")
    parser.add_argument(
        "--margin",
        type=fraction,
        metavar="SHARE",
        help="share of changed predictions that matters, kept for later reports [statistics.flips]",
    )
    parser.add_argument("--site", metavar="NAME", help="print one site only [all]")
    add_output(parser, any_name=True)


def verdict(options: argparse.Namespace) -> None:
    """Compare a run's edits at equal dose, and say whether its networks read distance or intensity."""
    experiment()
    from jaxdist.experiment import finished
    from jaxdist.report import verdicts
    from jaxdist.storage import folders

    result, comparison, statistics = finished.verdict_folder(options.run, options.margin, options.site)

    if output.answers(options):
        output.say(options, verdicts.rendered(result, comparison, statistics))
    output.write_json(options, lambda: verdicts.json_of(result, comparison, statistics))
    output.say(options, f"tables/verdict.md, tables/doses.csv and figures/doses are in {options.run}")
    output.say_left(options, folders.of(options.run))


VERDICT = Command(
    "verdict",
    help="say whether networks read distance or intensity, at equal dose",
    usage="RUN [OPTIONS]",
    examples=(
        ("jaxdist verdict runs/comparison", "one sentence per network, and tables"),
        ("jaxdist verdict runs/comparison --margin 0.02", "with a margin of 2 % of changed predictions"),
        ("jaxdist verdict runs/comparison --json verdict.json", "also write all numbers to a file"),
    ),
    add=_add_verdict,
    run=verdict,
)


def _add_compare(parser: Parser) -> None:
    parser.add_argument("a", metavar="A", help="run folder, result file, the paper's result file, or 'published'")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument(
        "--weights",
        choices=["auto", "shared", "independent"],
        default="auto",
        help="whether both sides hold the same networks [auto: decided by their weights]",
    )
    parser.add_argument(
        "--images", type=count, help="number of images by which the counts of shared networks may differ [2]"
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="folder for pictures and tables [comparisons/ in the run]"
    )
    add_output(parser, any_name=True)
    add_fields(parser, ("data.dir", "statistics."))


def compare(options: argparse.Namespace) -> int:
    """Compare two results, and answer in words and by the exit code."""
    experiment()
    from jaxdist.report import compare as comparing

    comparison = comparing.compare(
        options.a, options.b, weights=options.weights, changes=changes(options), **given_options(options, "images")
    )
    if output.answers(options):
        output.say(options, comparing.rendered(comparison))
    output.write_json(options, comparison.to_json)
    pictures = options.pictures or (comparison.folder or Path()) / "comparisons"
    where = ""
    try:
        where = _where_pictures_are(comparing.save(comparison, pictures), pictures)
    except (OSError, InputError) as error:
        # The exit code is the answer to the question asked, with or without a picture of it.
        output.complain(f"not everything could be written to {pictures} ({error}); choose a folder with --pictures")
    output.say(options, comparing.conclusion(comparison) + where)
    return comparison.exit_code


def _where_pictures_are(written: Sequence[Path], folder: Path) -> str:
    """Where the picture is, or the folder of several files; of a picture's formats, the one that opens anywhere."""
    images = [path for path in written if path.suffix == ".png"]
    tables = [path.name for path in written if path.suffix == ".md"]
    if len(images) == 1 and not tables:
        return f" The picture is {images[0]}"
    return f" The {formatting.listed(['pictures', *tables])} are in {folder}"


COMPARE = Command(
    "compare",
    help="say whether two runs, or a run and the paper, agree",
    usage="A B [OPTIONS]",
    examples=(
        ("jaxdist compare runs/mine runs/again", "two runs, by what they have in common"),
        ("jaxdist compare runs/paper published", "a run and the paper's published tables"),
        ("jaxdist compare runs/mine runs/again --quiet", "only the exit code: 0 agree, 1 not, 2 cannot be compared"),
    ),
    add=_add_compare,
    run=compare,
)


def _add_geometry(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run folder, trained or swept")
    add_output(parser, any_name=True)
    add_fields(parser, ("data.dir", "statistics.confidence"))


def geometry(options: argparse.Namespace) -> None:
    """Say where the boundaries of a run's units lie among the training images."""
    experiment()
    from jaxdist.experiment import geometries
    from jaxdist.report import boundaries
    from jaxdist.storage import folders

    with output.progress(options) as show:
        described = geometries.describe_folder(options.run, changes(options), show=show)
    for part in boundaries.tabled(described.summary):
        output.say(options, table.terminal(part))
    output.write_json(options, lambda: table.document({"summary": table.records(table.of_frame(described.summary))}))
    output.say(options, f"geometry.md, units.csv and the figure are in {folders.of(options.run) / 'geometry'}")


GEOMETRY = Command(
    "geometry",
    help="say where units' boundaries lie among the images",
    usage="RUN [OPTIONS]",
    examples=(
        ("jaxdist geometry runs/paper --data.dir MNIST", "a table, and a figure of all units"),
        ("jaxdist geometry runs/paper --json geometry.json", "also write the numbers to a file"),
    ),
    add=_add_geometry,
    run=geometry,
)


def _add_controls(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run folder of plain networks, trained or swept")
    parser.add_argument("--permutations", type=count, metavar="N", help="readers with permuted output weights [8]")
    parser.add_argument("--draws", type=count, metavar="N", help="draws of random signs [8]")
    add_output(parser, any_name=True)
    add_fields(parser, ("data.dir", "statistics.confidence", "compute."))


def controls(options: argparse.Namespace) -> None:
    """Say what a run's networks read, beside readers of the same activations that have learned nothing."""
    experiment()
    from jaxdist.experiment import controls as controlling
    from jaxdist.report import readings
    from jaxdist.storage import folders

    given = given_options(options, "permutations", "draws")
    with output.progress(options) as show:
        findings = controlling.control_folder(options.run, changes(options), show=show, **given)
    for part in (readings.answers(findings), *readings.tabled(findings)):
        output.say(options, table.terminal(part))
    output.write_json(options, lambda: table.document(readings.json_of(findings)))
    where = folders.of(options.run) / "controls"
    output.say(options, f"controls.md, readers.csv, curves.nc and the figure are in {where}")


CONTROLS = Command(
    "controls",
    help="compare what networks read with readers that learned nothing",
    usage="RUN [OPTIONS]",
    examples=(
        ("jaxdist controls runs/paper --data.dir MNIST", "answers, tables and a figure"),
        ("jaxdist controls runs/paper --json controls.json", "also write the numbers to a file"),
    ),
    add=_add_controls,
    run=controls,
)


def _add_list(parser: Parser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="folder of run folders [runs]")
    parser.add_argument(
        "--sort", choices=["date", "name"], default="date", help="by date, the newest last, or by name [date]"
    )
    add_output(parser)


def list_(options: argparse.Namespace) -> None:
    """Look for the runs below a folder, and print the table of them with their main numbers."""
    from jaxdist.storage import overview

    runs = overview.runs(options.folder, options.sort)
    document = {"folder": str(options.folder), "runs": [dataclasses.asdict(run) for run in runs]}
    output.write_json(options, lambda: table.document(document))
    if not output.answers(options):
        return
    if runs:
        Console().print(table.terminal(listed(runs, files.expanded(options.folder)), Console().width))
    else:
        output.say(options, f"no runs in {options.folder}; 'jaxdist run' makes one")


LIST = Command(
    "list",
    help="list the runs below a folder with their main numbers",
    usage="[FOLDER] [OPTIONS]",
    examples=(
        ("jaxdist list", "the runs in the folder runs, the newest last"),
        ("jaxdist list experiments --sort name", "the runs in another folder, by name"),
        ("jaxdist list --json", "everything known about them, for a script"),
    ),
    add=_add_list,
    run=list_,
)


def _add_gallery(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=Path("gallery"), help="folder to write to [gallery]")


def gallery(options: argparse.Namespace) -> None:
    """Draw the diagrams of the paper's Figures 2 and 3, and say how many."""
    from jaxdist.report import gallery as diagrams

    written = diagrams.write(files.expanded(options.out))
    print(f"{counted(len(written), 'picture')} in {options.out}")


GALLERY = Command(
    "gallery",
    help="draw the feature-space diagrams of the paper's Figures 2 and 3",
    usage="[--out FOLDER]",
    examples=(
        ("jaxdist gallery", "into the folder gallery"),
        ("jaxdist gallery --out figures", "into another"),
    ),
    add=_add_gallery,
    run=gallery,
)
