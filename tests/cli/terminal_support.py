"""Small runs for the tests of what commands print, and how wide that is."""

from __future__ import annotations

import contextlib
import io
import shutil

import pytest

from jaxdist import cli
from jaxdist.report import writing

SMALL = (
    "--train.seeds=2",
    "--train.steps=3",
    "--model.hidden=4",
    "--model.activations=relu",
    "--sweep.families=offset",
)


def small_runs(root):
    """Make the run folders `trained` and `swept`, the latter with its tables, in a folder."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr("jaxdist.compute.devices.use_all_cores", lambda: None)
        patch.setattr(writing.figures, "save", lambda *_: [])
        assert cli.main(["train", "--out", str(root / "trained"), *SMALL]) == 0
        shutil.copytree(root / "trained", root / "swept")
        assert cli.main(["sweep", str(root / "swept")]) == 0
        assert cli.main(["report", str(root / "swept")]) == 0


def wide(text):
    """Letters of the longest line."""
    return max(map(len, text.splitlines()), default=0)
