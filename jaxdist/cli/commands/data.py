"""``jaxdist data``: data sets for the others."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli.options import Parser

HELP = "make data sets available"
USAGE = "prepare NAME (--from FOLDER | --download) [--to FOLDER]"
EXAMPLES = (
    ("jaxdist data prepare mnist --download", "fetched over the network"),
    ("jaxdist data prepare mnist --from FOLDER", "from the four IDX files, without a network"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("action", choices=["prepare"], help="make a prepared TFDS data set")
    parser.add_argument("dataset", help="mnist, fashion_mnist, or a new name for files of your own")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="folder of the four IDX files")
    source.add_argument("--download", action="store_true", help="fetch the IDX files over the network")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="TFDS data folder [TFDS_DATA_DIR, else TFDS's own]")


def command(options: argparse.Namespace) -> None:
    """Prepare, and say where."""
    from jaxdist import data

    path = data.prepare(
        options.dataset, source=options.source, data_dir=options.to, download=options.download, report=print
    )
    print(f"prepared in {path}")
