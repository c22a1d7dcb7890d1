"""``jaxdist gallery``: the diagrams of the paper's Figures 2 and 3."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli.options import Parser
from jaxdist.formatting import counted

HELP = "draw the feature-space diagrams of the paper's Figures 2 and 3"
USAGE = "[--out FOLDER]"
EXAMPLES = (
    ("jaxdist gallery", "into the folder gallery"),
    ("jaxdist gallery --out figures", "into another"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("--out", type=Path, default=Path("gallery"), help="folder to write to [gallery]")


def command(options: argparse.Namespace) -> None:
    """Draw, and say how much."""
    from jaxdist.report import gallery

    written = gallery.write(options.out.expanduser())
    print(f"{counted(len(written), 'picture')} in {options.out}")
