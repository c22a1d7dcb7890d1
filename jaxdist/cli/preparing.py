"""Commands for what is made ready before a run: data sets, and the schema by which editors complete a config."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jaxdist import config as configs
from jaxdist import files
from jaxdist.cli.command import Command
from jaxdist.cli.options import Parser
from jaxdist.storage import manifests


def _add_data(parser: Parser) -> None:
    parser.add_argument("action", choices=["prepare"], help="prepare a TFDS data set")
    parser.add_argument("dataset", help="mnist, fashion_mnist, or a new name for files of your own")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="folder of the four IDX files")
    source.add_argument("--download", action="store_true", help="fetch the IDX files over the network")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="TFDS data folder [TFDS_DATA_DIR, else TFDS's own]")


def data(options: argparse.Namespace) -> None:
    """Prepare a data set for the other commands, and say where."""
    from jaxdist import data as data_sets

    path = data_sets.prepare(
        options.dataset, source=options.source, data_dir=options.to, download=options.download, report=print
    )
    print(f"prepared in {path}")


DATA = Command(
    "data",
    help="prepare data sets",
    usage="prepare NAME (--from FOLDER | --download) [--to FOLDER]",
    examples=(
        ("jaxdist data prepare mnist --download", "fetched over the network"),
        ("jaxdist data prepare mnist --from FOLDER", "from the four IDX files, without network access"),
    ),
    add=_add_data,
    run=data,
)


def _add_schema(parser: Parser) -> None:
    parser.add_argument("file", nargs="?", type=Path, help="file to write [stdout]")


def schema(options: argparse.Namespace) -> None:
    """Write what a config may hold, for editors."""
    text = json.dumps(configs.schema(), indent=2) + "\n"
    if options.file is None:
        sys.stdout.write(text)
    else:
        manifests.refuse_own(options.file)
        files.write_named(files.expanded(options.file), text)


SCHEMA = Command(
    "schema",
    help="write the JSON schema of a config, for editors",
    usage="[FILE]",
    examples=(
        ("jaxdist schema config.schema.json", 'for a config that begins with "#:schema config.schema.json"'),
        ("jaxdist schema", "to stdout"),
    ),
    add=_add_schema,
    run=schema,
)
