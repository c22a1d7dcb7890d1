"""Kill a run at random moments, let the same command go on each time, and compare with an undisturbed run.

  python -m benchmarks.survive --kills 20

The kill is SIGKILL, which no code sees. A run that finishes before its next kill is compared and started anew, so that
the kills fall anywhere from the first import to the last picture.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxdist import files
from jaxdist.formatting import counted
from jaxdist.storage import folders, result_files, unfinished, weights
from jaxdist.sweep import results

OPTIONS = (
    *("--train.seeds", "6", "--train.steps", "1500", "--train.save_every", "0.5"),
    *("--sweep.splits", "train,test"),
)
"""A quarter of a minute on 2 cores, with several saved states, a sweep in waves, tables and figures."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, resume, compare, print; the exit code is 1 where anything differs or is left over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often to kill [20]")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments [0]")
    parser.add_argument("rest", nargs="*", help="after --: options of jaxdist run instead of the built-in ones")
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        run(folder / "undisturbed", options.rest)
        whole = time.monotonic() - started
        expected = arrays(folder / "undisturbed")
        print(f"undisturbed: {whole:.1f} s, {counted(len(expected), 'array')}")
        stages: Counter[str] = Counter()
        finished = 0
        wrong: list[str] = []
        k = 0
        while k < options.kills:
            disturbed = folder / f"disturbed-{finished}"
            after = moments.uniform(0, whole)
            if run(disturbed, options.rest, kill_after=after):
                wrong += differences(disturbed, expected)
                finished += 1
                continue
            k += 1
            stage = stage_of(disturbed)
            stages[stage.split(",")[0]] += 1
            print(f"kill {k:2} after {after:4.1f} s, in {stage}", flush=True)
        run(folder / f"disturbed-{finished}", options.rest)
        wrong += differences(folder / f"disturbed-{finished}", expected)
        print(
            f"{counted(options.kills, 'kill')}: "
            + ", ".join(f"{count} in {stage}" for stage, count in stages.most_common())
        )
        said = "; ".join(wrong) or f"all {counted(len(expected), 'array')} equal bit for bit, no temporary file left"
        print(f"{counted(finished + 1, 'run')} finished after them: {said}")
    return 1 if wrong else 0


def run(folder: Path, rest: Sequence[str], kill_after: float | None = None) -> bool:
    """Run or go on, perhaps killed after some seconds; whether it finished."""
    command = [sys.executable, "-m", "jaxdist.cli", "run", "--out", str(folder), *(rest or OPTIONS)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = process.wait(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    if code:
        raise SystemExit(f"{' '.join(command)}: exit code {code}")
    return True


def stage_of(folder: Path) -> str:
    """What a killed run was doing, by what it left."""
    work = folder / unfinished.FOLDER
    if (folder / result_files.FILE).exists():
        return "tables and figures"
    swept = sorted((work / "sweep").glob("*.npz"))
    if swept:
        return f"the sweep, {counted(len(swept), 'wave')} kept"
    steps = [(int(path.name), path.parent.name) for path in work.glob("training/*/*") if path.name.isdecimal()]
    if steps:
        step, network = max(steps, key=lambda found: (work / "training" / found[1] / str(found[0])).stat().st_mtime)
        return f"training, {network.split('-')[0]} kept at step {step}"
    return "the start, nothing kept"


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """All of a finished run's numbers by name: the result's variables and the weights."""
    result = result_files.load(folder)
    found = {f"{node.path}/{name}": data.values for node in result.subtree for name, data in node.data_vars.items()}
    for name in results.config_of(result).model.activations:
        leaves = jax.tree_util.tree_leaves_with_path(weights.load(folders.weights_path(folder, name)))
        found |= {f"{name}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    return found


def _equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], name: str) -> bool:
    return name in found and np.array_equal(found[name], expected[name], equal_nan=True)


def differences(folder: Path, expected: dict[str, np.ndarray]) -> list[str]:
    """What is not as in the undisturbed run, and what is left over; then the folder goes."""
    found = arrays(folder)
    wrong = [f"{name} differs" for name in expected if not _equal(found, expected, name)]
    left = [path.name for path in folder.rglob("*") if files.is_temporary(path.name) or path.name == unfinished.FOLDER]
    shutil.rmtree(folder)
    return wrong + [f"{name} left over" for name in left]


if __name__ == "__main__":
    sys.exit(main())
