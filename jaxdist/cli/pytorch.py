"""Commands that exchange networks with PyTorch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from jaxdist import config as configs
from jaxdist.cli import output
from jaxdist.cli.command import Command
from jaxdist.cli.options import Parser, add_fields, changes, experiment, truth
from jaxdist.formatting import counted

_ROWS = 24
"""Files that are listed one by one."""


def _add_import_torch(parser: Parser) -> None:
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="the paper's result tree, an exported folder, files of PyTorch, safetensors, NumPy, Keras, Flax or Orbax, "
        "one per seed, or a folder of them",
    )
    parser.add_argument("--out", metavar="FOLDER", required=True, help="run folder to make; must be new or empty")
    parser.add_argument(
        "--layers",
        metavar="NAMES",
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        default=(),
        help="the layers in the order in which the network computes them, such as input,hidden,output; needed if their "
        "shapes and names allow more than one order",
    )
    parser.add_argument(
        "--entry",
        metavar="NAME",
        default="",
        help="the key under which the network lies, in files that hold several, such as ema",
    )
    parser.add_argument(
        "--leave-out",
        metavar="NAMES",
        default="",
        help="entries of the files that no output depends on, such as version,mean",
    )
    parser.add_argument(
        "--pattern",
        metavar="TEXT",
        default="",
        help="where in the folder the files lie, if their names do not tell activation and seed, such as "
        "{activation}/run{seed}/net.pt; a star stands for anything else in a name",
    )
    for name, help in (
        (
            "--as-seeds",
            "true: each file is from a separate training run, even if names or weights look like stages of one [false]",
        ),
        ("--allow-chance", "true: import networks that do no better than chance, as a control [false]"),
    ):
        parser.add_argument(name, metavar="VALUE", type=truth, nargs="?", const=True, default=False, help=help)
    add_fields(parser, ("data.", "model.activations", "ranges.", "sweep.", "statistics.", "compute."))


def import_torch(options: argparse.Namespace) -> None:
    """Make a run folder of networks trained in PyTorch, and say what comes next."""
    experiment()
    from jaxdist.storage import import_run

    result = import_run(
        options.paths,
        changes(options),
        layers=options.layers,
        entry=options.entry,
        leave_out=options.leave_out,
        pattern=options.pattern,
        as_seeds=options.as_seeds,
        allow_chance=options.allow_chance,
    )
    config = configs.from_toml(result.attrs["config"], kept=True)
    origin = json.loads(result.attrs["origin"])
    networks = ", ".join(config.model.activations)
    rows = [(network, seed, file) for network, files in origin["files"].items() for seed, file in files.items()]
    if len(rows) > 1:
        print(f"{'network':<12} seed  file")
        for network, seed, file in rows[:_ROWS]:
            print(f"{network:<12} {seed:>4}  {file}")
        if len(rows) > _ROWS:
            print(f"and {counted(len(rows) - _ROWS, 'more file', 'more files')}")
    for note in origin["notes"]:
        print(f"note: {note}")
    for line in origin.get("unedited", {}).get("words", ()):
        print(line)
    print(f"imported {config.train.seeds} x {networks} into {config.out}; {output.next_step('sweep', config.out)}")
    if "unedited" not in origin:
        absent = f"{config.data.dir} is not here"
        if not config.data.dir:
            absent = f"{config.data.name} is not prepared here, so add --data.dir FOLDER"
        print(f"their accuracy without edits is measured then; {absent}")


IMPORT_TORCH = Command(
    "import-torch",
    help="make a run folder of networks trained in PyTorch",
    usage="PATH [PATH ...] --out FOLDER [OPTIONS]",
    examples=(
        ("jaxdist import-torch results --out runs/theirs", "the paper's result tree"),
        ("jaxdist import-torch mine.pt --model.activations relu --out runs/mine", "your own state_dict"),
        (
            "jaxdist import-torch a.pt b.pt --model.activations relu --out runs/two",
            "one file per seed; a folder of such files works too",
        ),
    ),
    add=_add_import_torch,
    run=import_torch,
)


def _add_export_torch(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, required=True, help="new folder to write to")


def export_torch(options: argparse.Namespace) -> None:
    """Write the networks of a run for PyTorch, and say how many files."""
    experiment()
    from jaxdist.storage import export_run, torch_code

    written = export_run(options.run, options.out)
    print(f"{counted(len(written), 'file')} in {options.out}; in PyTorch:")
    print()
    print(torch_code(options.run, options.out))


EXPORT_TORCH = Command(
    "export-torch",
    help="write the networks of a run as state_dicts and safetensors",
    usage="RUN --out FOLDER",
    examples=(
        ("jaxdist export-torch runs/paper --out for-torch", "state_dicts and safetensors of every seed"),
        ("jaxdist import-torch for-torch --out runs/again", "and back"),
    ),
    add=_add_export_torch,
    run=export_torch,
)
