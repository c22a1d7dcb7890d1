"""``jaxdist import-torch``: a run folder of networks trained in PyTorch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from jaxdist import config as configs
from jaxdist.cli.options import Parser, add_fields, changes, truth

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
    parser.add_argument(
        "--layers",
        metavar="NAMES",
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        default=(),
        help="the layers in the order in which the network computes them, as input,hidden,output; needed where their "
        "shapes and names leave more than one order",
    )
    for name, help in (
        ("--as-seeds", "true: the files are a training each, though names or weights look like moments of one [false]"),
        ("--allow-chance", "true: import networks that are right no more often than by chance, as a control [false]"),
    ):
        parser.add_argument(name, metavar="VALUE", type=truth, nargs="?", const=True, default=False, help=help)
    add_fields(parser, ("data.", "model.activations", "ranges.", "sweep.", "statistics.", "compute."))


def command(options: argparse.Namespace) -> None:
    """Import, and say what comes next."""
    from jaxdist.storage import import_run

    result = import_run(
        options.paths,
        changes(options),
        layers=options.layers,
        as_seeds=options.as_seeds,
        allow_chance=options.allow_chance,
    )
    config = configs.from_toml(result.attrs["config"], kept=True)
    origin = json.loads(result.attrs["origin"])
    networks = ", ".join(config.model.activations)
    for note in origin["notes"]:
        print(f"note: {note}")
    for line in origin.get("unedited", {}).get("words", ()):
        print(line)
    print(f"imported {config.train.seeds} x {networks} into {config.out}; next: jaxdist sweep {config.out}")
    if "unedited" not in origin:
        absent = f"{config.data.dir} is not here"
        if not config.data.dir:
            absent = f"{config.data.name} is not prepared here, so add --data.dir FOLDER"
        print(f"how often they are right unedited is found out then; {absent}")
