"""``jaxdist import-torch``: a run folder of networks trained in PyTorch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from jaxdist import config as configs
from jaxdist.cli.options import Parser, add_fields, changes

HELP = "make a run folder of networks trained in PyTorch"
USAGE = "PATH [PATH ...] --out FOLDER [OPTIONS]"
EXAMPLES = (
    ("jaxdist import-torch results --out runs/theirs", "the paper's result tree"),
    ("jaxdist import-torch mine.pt --model.activations relu --out runs/mine", "a state_dict of one's own"),
    (
        "jaxdist import-torch a.pt b.pt --model.activations relu --out runs/two",
        "a seed each; or a folder of such files",
    ),
)


def add(parser: Parser) -> None:
    """Its options."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="the paper's result tree, an exported folder, or state_dicts or safetensors, a seed each, or their folder",
    )
    parser.add_argument("--out", metavar="FOLDER", required=True, help="run folder to make; must be new or empty")
    add_fields(parser, ("data.", "model.activations", "ranges.", "sweep.", "statistics.", "compute."))


def command(options: argparse.Namespace) -> None:
    """Import, and say what comes next."""
    from jaxdist import data, interop

    result = interop.import_run(options.paths, changes(options))
    config = configs.from_toml(result.attrs["config"])
    networks = ", ".join(config.model.activations)
    for note in json.loads(result.attrs["origin"])["notes"]:
        print(f"note: {note}")
    print(f"imported {config.train.seeds} x {networks} into {config.out}; next: jaxdist sweep {config.out}")
    if config.data.name not in data.EMBEDDED and not config.data.dir:
        print(f"its images are read then; if {config.data.name} is not prepared here, add --data.dir FOLDER")
