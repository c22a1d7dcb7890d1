"""``jaxdist schema``: what a config may hold, for editors."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jaxdist import config as configs
from jaxdist import files
from jaxdist.cli.options import Parser

HELP = "write the JSON schema of a config, for editors"
USAGE = "[FILE]"
EXAMPLES = (
    ("jaxdist schema config.schema.json", 'for a config that begins with "#:schema config.schema.json"'),
    ("jaxdist schema", "to stdout"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("file", nargs="?", type=Path, help="file to write [stdout]")


def command(options: argparse.Namespace) -> None:
    """Write it."""
    text = json.dumps(configs.schema(), indent=2) + "\n"
    if options.file is None:
        sys.stdout.write(text)
    else:
        files.write_text(options.file.expanduser(), text)
