"""Small runs to compare, parts of them, and what the command says of two."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdist
from jaxdist import cli, config
from jaxdist.compute import devices
from jaxdist.report import compare as compare_package
from jaxdist.storage import result_files
from jaxdist.storage import weights as stored
from jaxdist.sweep import results

# The shapes of the tests of whole runs, whose compiled programs are then shared.
SMALL = ["--model.hidden", "16", "--sweep.splits", "train"]


def make(folder, *options):
    """Train and sweep a small run; without tables and figures, which no comparison reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "use_all_cores", lambda: None)
        assert cli.main(["train", "--out", str(folder), *SMALL, *options]) == 0
        assert cli.main(["sweep", str(folder)]) == 0
    return folder


def shown(capsys, *arguments):
    """Run the command; its exit code and its printed lines, which fit 80 columns but for the last, a sentence."""
    capsys.readouterr()
    code = cli.main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("They "))
    return code, captured.out + captured.err


def copy(run, name):
    shutil.copytree(run, name)
    return Path(name)


def subset(run, name, seeds):
    """A copy of a run with some of its seeds."""
    folder = copy(run, name)
    result = jaxdist.load(folder).isel(seed=seeds)
    settings = config.override(results.config_of(result), {"train.seeds": str(len(seeds))})
    result.attrs["config"] = config.to_toml(settings)
    result_files.save(result, folder / "result.nc")
    for path in (folder / "weights").iterdir():
        stored.save(jax.tree.map(lambda leaf: leaf[np.asarray(seeds)], stored.load(path)), path)
    return folder


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that pictures would be written to; one test writes them in earnest."""
    folders = []

    def write(comparison, folder):
        folders.append(folder)
        return [folder / f"picture.{kind}" for kind in ("svg", "png", "pdf")]

    monkeypatch.setattr(compare_package, "save", write)
    return folders
