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
from jaxdist.errors import InputError
from jaxdist.storage import manifests


def _add_data(parser: Parser) -> None:
    parser.add_argument("action", choices=["prepare", "show"], help="prepare a TFDS data set, or show what is in one")
    parser.add_argument(
        "dataset", help="mnist, fashion_mnist, or a new name for files of your own; to show also a file or folder"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--from", dest="source", type=Path, metavar="PATH", help="file or folder with the data set")
    source.add_argument("--download", action="store_true", help="fetch the IDX files over the network")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="TFDS data folder [TFDS_DATA_DIR, else TFDS's own]")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="show: draw examples of each class into a file")


def data(options: argparse.Namespace) -> None:
    """Prepare a data set for the other commands and say where, or show one."""
    from jaxdist import data as data_sets

    if options.action == "show":
        _show(options)
        return
    if options.picture:
        raise InputError("--picture: draws what 'data show' shows; leave it out, or show the data set")
    path = data_sets.prepare(
        options.dataset, source=options.source, data_dir=options.to, download=options.download, report=print
    )
    print(f"prepared in {path}")


def _show(options: argparse.Namespace) -> None:
    """Say what is in a data set: counts, classes, pixels, repeats and scalings; draw examples if asked to."""
    from jaxdist import data as data_sets
    from jaxdist.config import DataConfig

    if options.download or options.to:
        raise InputError("data show: --download and --to are for 'prepare'; leave them out")
    name, path = options.dataset, options.source
    if path is None and name not in data_sets.known_names() and files.expanded(name).exists():
        # Of no known name, since the files may hold any number of classes.
        name, path = "own", Path(name)
    dataset = data_sets.load(DataConfig(name=name, dir=str(path) if path else ""))
    print("\n".join(data_sets.describe(dataset).lines()))
    if options.picture:
        from jaxdist.report import contact_sheets

        manifests.refuse_own(options.picture)
        contact_sheets.draw(dataset, files.expanded(options.picture))
        print(f"examples of each class: {options.picture}")
    else:
        print("add --picture FILE.png for a picture with examples of each class")


DATA = Command(
    "data",
    help="prepare data sets, or show what is in one",
    usage="{prepare,show} NAME [--from PATH | --download] [OPTIONS]",
    examples=(
        ("jaxdist data prepare mnist --download", "fetched over the network"),
        ("jaxdist data prepare mine --from FOLDER", "from files, without network access"),
        ("jaxdist data show FOLDER --picture examples.png", "what is in it, and what it looks like"),
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
