"""A small run for the tests of commands on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.terminal_support import small_runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The run folder, which is not to be changed."""
    root = tmp_path_factory.mktemp("runs")
    small_runs(root)
    return root / "swept"


@pytest.fixture
def swept(made, in_an_empty_folder):
    """A copy of it in a folder of its own."""
    shutil.copytree(made, "swept")
    return Path("swept")
