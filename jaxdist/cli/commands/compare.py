"""``jaxdist compare``: whether two results agree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jaxdist.cli import output
from jaxdist.cli.options import Parser, add_fields, add_output, changes, count, experiment, given
from jaxdist.errors import InputError

HELP = "say whether two runs, or a run and the paper, agree"
USAGE = "A B [OPTIONS]"
EXAMPLES = (
    ("jaxdist compare runs/mine runs/again", "two runs, by what they have in common"),
    ("jaxdist compare runs/paper published", "a run and the paper's published tables"),
    ("jaxdist compare runs/mine runs/again --quiet", "only the exit code: 0 agree, 1 not, 2 cannot be compared"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("a", metavar="A", help="run folder, result file, the paper's result file, or 'published'")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument(
        "--weights",
        choices=["auto", "shared", "independent"],
        default="auto",
        help="are the networks the same? [auto: by their weights]",
    )
    parser.add_argument("--images", type=count, help="images by which shared networks' counts may differ [2]")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="folder for pictures and tables [comparisons/ in the run]"
    )
    add_output(parser, any_name=True)
    add_fields(parser, ("data.dir", "statistics."))


def command(options: argparse.Namespace) -> int:
    """Compare, and answer in words and by the exit code."""
    experiment()
    from jaxdist.report import compare

    found = compare.compare(
        options.a, options.b, weights=options.weights, changes=changes(options), **given(options, "images")
    )
    if output.answers(options):
        output.say(options, compare.rendered(found))
    output.write_json(options, found.to_json)
    pictures = options.pictures or (found.folder or Path()) / "comparisons"
    where = ""
    try:
        where = _said(compare.save(found, pictures), pictures)
    except (OSError, InputError) as error:
        # The exit code is the answer to the question asked, with or without a picture of it.
        output.complain(f"not everything could be written to {pictures} ({error}); choose a folder with --pictures")
    output.say(options, compare.conclusion(found) + where)
    return found.exit_code


def _said(written: Sequence[Path], folder: Path) -> str:
    """Where the picture is, or the folder of several files; of a picture's formats, the one that opens anywhere."""
    images = [path for path in written if path.suffix == ".png"]
    tables = [path.name for path in written if path.suffix == ".md"]
    if len(images) == 1 and not tables:
        return f" The picture is {images[0]}"
    return f" The {' and '.join(['pictures', *tables])} are in {folder}"
