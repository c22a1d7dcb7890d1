"""The mesh: its shape, and the same counts on one device and on many, in ensembles of any size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdist.compute import devices
from tests.mesh_support import CASES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Metrics and counts of every case; JAX's number of devices is fixed when it starts, so in another process."""
    path = tmp_path_factory.mktemp("meshes") / "found.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.mesh_support", path],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=True,
    )
    with np.load(path) as stored:
        return {
            name: {key.split("/")[1]: stored[key] for key in stored if key.startswith(f"{name}/")} for name in CASES
        }


@pytest.mark.slow
def test_seeds_come_first_and_no_row_of_the_mesh_is_idle(found):
    shapes = {name: tuple(of["mesh"].tolist()) for name, of in found.items()}
    assert shapes == {
        "6 on 1": (1, 1),
        "6 on 2": (2, 1),
        "6 on 4": (2, 2),
        "6 on 8": (2, 4),
        "8 seeds' mesh": (8, 1),
        "3 on 1": (1, 1),
        "3 on 8": (1, 8),
    }


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("1")])
def test_counts_are_the_same_on_any_mesh(name, found):
    one = found["3 on 1" if name.startswith("3") else "6 on 1"]
    np.testing.assert_allclose(found[name]["loss"], one["loss"], rtol=1e-4)
    assert one["unperturbed"].min() > 200
    for counts in ("correct", "agree", "unperturbed"):
        assert found[name][counts].shape == one[counts].shape
        assert np.abs(found[name][counts] - one[counts]).max() <= 2, counts


def test_matches_too_are_counted_for_seeds_that_fill_no_row(found):
    same = found["8 seeds' mesh"]["same"]
    assert same.shape == (6, 325)
    assert (same == 301).all()


def test_what_is_spread_comes_back_whole():
    mesh = devices.make_mesh(seeds=2)
    values = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.arange(3)[:, None] > 1}
    back = devices.to_host(devices.spread(values, mesh))
    np.testing.assert_array_equal(back["a"][:3], values["a"])
    np.testing.assert_array_equal(back["b"], [[False], [False], [True], [True]])  # the last seed again
    assert devices.same(7, mesh).is_fully_replicated
    assert devices.of_each(np.array([4.0, 5.0], np.float32), mesh).tolist() == [[4, 5]] * len(jax.devices())
