"""Write the records that `tests/test_frozen.py` compares with: ``python -m tests.frozen.record WHAT [WHAT ...]``.

WHAT is ``networks`` (the trained run folders), ``sweeps`` (what is measured of them; or the name of one sweep),
``help`` or ``sentences``.

A record may be written again only in a commit that means to change what a user sees, which its message says: another
number, another group, another option, another sentence. It may not be in a commit that moves or renames modules, nor to
make a failing test pass. After ``networks`` everything that is measured of them is new, so ``sweeps`` must follow; that
is only right where the configs beside this file have changed.

On another kind of CPU trained networks differ in rounding, and what is measured of the same networks does not.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests import frozen_cases, frozen_support


def networks(folder: Path) -> None:
    """Train the networks of every config, and keep the run folders."""
    for run in frozen_support.RUNS:
        frozen_support.command(folder, "train", str(frozen_support.FOLDER / f"{run}.toml"), "--quiet")
        (folder / run / ".lock").unlink()
        shutil.rmtree(frozen_support.FOLDER / run, ignore_errors=True)
        shutil.copytree(folder / run, frozen_support.FOLDER / run)


def sweeps(folder: Path, names: tuple[str, ...] = tuple(frozen_support.SWEEPS)) -> None:
    """Measure the kept networks, and keep what is found."""
    for name in names:
        (folder / name).mkdir()
        frozen_support.write(name, frozen_support.measured(name, folder / name))


def main(wanted: list[str]) -> None:
    """Write what is wanted."""
    parts = {"networks": networks, "sweeps": sweeps, "help": frozen_cases.write_help}
    parts["sentences"] = frozen_cases.write_sentences
    for what in wanted or sys.exit(__doc__):
        with tempfile.TemporaryDirectory() as folder:
            if what in frozen_support.SWEEPS:
                sweeps(Path(folder), (what,))
            else:
                parts[what](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
