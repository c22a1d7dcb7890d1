"""A run that SIGKILL ends, in whichever stage, is finished by the same command, with all numbers as undisturbed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import survive
from jaxdist import files
from jaxdist.storage import folders, manifests, places, unfinished, weights

pytestmark = pytest.mark.slow

SMALL = (
    *("--model.hidden=8", "--sweep.families=clip,restored_offset", "--sweep.splits=test"),
    *("--train.save_every=0", "-q"),
)
OPTIONS = ("--train.seeds=20", "--train.steps=12", "--train.snapshots=true", *SMALL)
MANY = ("--train.seeds=300", "--train.steps=3", *SMALL)

KILLER = """
import importlib, os, signal, sys
module, name, calls, *arguments = sys.argv[1:]
*owners, name = name.split(".")
owner = importlib.import_module(module)
for part in owners:
    owner = getattr(owner, part)
whole, left = getattr(owner, name), int(calls)

def killed(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args, **kwargs)

setattr(owner, name, killed)
from jaxdist import cli
sys.exit(cli.main(arguments))
"""

STAGES = {
    "training, of the second network": ("jaxdist.networks.training", "_steps", 2),
    "a state's checksums": ("jaxdist.storage.unfinished", "_checksums", 2),
    "ranges": ("jaxdist.sweep.counting", "measure_ranges", 2),
    "the sweep": ("jaxdist.sweep.waves", "ensemble_sweep.sweep_sums", 2),
    "what edits move the logits by": ("jaxdist.sweep.restored", "moved", 2),
    "the sweep along training": ("jaxdist.sweep.waves", "ensemble_sweep.sweep_sums", 6),
    "saving, of the second weights": ("jaxdist.storage.weights", "save", 2),
    "saving, of the config": ("jaxdist.storage.folders", "configs.to_toml", 3),
    "saving, of the result": ("jaxdist.storage.result_files", "save", 1),
    "saving, of the list": ("jaxdist.storage.manifests", "_Record.finish", 1),
    "clearing": ("jaxdist.storage.unfinished", "Store.clear", 1),
    "tables": ("jaxdist.report.markdown", "tolerance", 1),
    "figures": ("jaxdist.report.figures", "save", 3),
    "the page": ("jaxdist.report.pages", "write", 1),
}


def numbers(folder: Path) -> dict[str, np.ndarray]:
    """All of a run's numbers, with the weights kept along training, if any are."""
    resumed = survive.arrays(folder)
    for name in ("relu", "abs"):
        if not folders.passed_path(folder, name).exists():
            continue
        leaves = jax.tree_util.tree_leaves_with_path(weights.load(folders.passed_path(folder, name)))
        resumed |= {f"{name} passed {jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    return resumed


def ran(folder: Path, options: tuple[str, ...]) -> Path:
    assert survive.run(folder, options)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return ran(tmp_path_factory.mktemp("undisturbed") / "run", OPTIONS)


@pytest.fixture(scope="module")
def undisturbed_300(tmp_path_factory) -> Path:
    return ran(tmp_path_factory.mktemp("undisturbed_300") / "run", MANY)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_a_run_of_20_seeds_with_snapshots_ends_as_undisturbed(stage, undisturbed, tmp_path):
    killed_and_resumed(stage, OPTIONS, undisturbed, tmp_path / "run")


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "the sweep along training"])
def test_killed_in_any_stage_a_run_of_300_seeds_ends_as_undisturbed(stage, undisturbed_300, tmp_path):
    killed_and_resumed(stage, MANY, undisturbed_300, tmp_path / "run")


def killed_and_resumed(stage: str, options: tuple[str, ...], undisturbed: Path, folder: Path) -> None:
    """Kill a run in a stage, run it again, and compare it with one that was left alone."""
    module, name, calls = STAGES[stage]
    command = [sys.executable, "-c", KILLER, module, name, str(calls), "run", "--out", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert survive.run(folder, options)
    expected, resumed = numbers(undisturbed), numbers(folder)
    assert resumed.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(resumed[key], values, err_msg=key)
    both = [{path.relative_to(run).as_posix() for path in run.rglob("*")} for run in (folder, undisturbed)]
    assert both[0] == both[1]
    assert not any(files.is_temporary(Path(name).name) for name in both[0])
    assert not (folder / unfinished.FOLDER).exists()
    listed = manifests.read(folder)
    assert set(listed.files) == set(manifests.read(undisturbed).files)
    assert listed.files == {name: manifests.Entry(manifests.content_of(folder / name)) for name in listed.files}


@pytest.mark.parametrize("stage", ["training, of the second network", "the sweep", "saving, of the result"])
def test_killed_while_it_grows_a_run_ends_with_whole_files(stage, undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    module, name, calls = STAGES[stage]
    more = [*OPTIONS, "--train.seeds=22"]
    command = [sys.executable, "-c", KILLER, module, name, str(calls), "run", "--out", str(folder), *more]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert survive.arrays(folder)["relu['dense0']['bias']"].shape[0] in (20, 22)  # its files are whole meanwhile
    assert survive.run(folder, more)
    resumed, before = numbers(folder), numbers(undisturbed)
    for key in ("/clip/correct", "/snapshots_clip/correct"):
        np.testing.assert_array_equal(resumed[key][:, :20], before[key])
    listed = manifests.read(folder).files
    assert listed == {name: manifests.Entry(manifests.content_of(folder / name)) for name in listed}
    assert places.RESULT in listed
