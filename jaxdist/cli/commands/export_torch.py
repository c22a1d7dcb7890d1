"""``jaxdist export-torch``: the networks of a run for PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxdist.cli.options import Parser
from jaxdist.formatting import counted

HELP = "write the networks of a run as state_dicts and safetensors"
USAGE = "RUN --out FOLDER"
EXAMPLES = (
    ("jaxdist export-torch runs/paper --out for-torch", "state_dicts and safetensors of every seed"),
    ("jaxdist import-torch for-torch --out runs/again", "and back"),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, required=True, help="new folder to write to")


def command(options: argparse.Namespace) -> None:
    """Export, and say how much."""
    from jaxdist.storage import export_run

    written = export_run(options.run, options.out)
    print(f"{counted(len(written), 'file')} in {options.out}")
