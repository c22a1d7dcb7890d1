"""The file of a result: what is saved is read again, and takes no more room than it needs."""

from __future__ import annotations

import h5py
import numpy as np
import xarray as xr

import jaxdist
from jaxdist import results
from tests import results_support


def with_training():
    """A result whose training has many steps, as in earnest."""
    loss = np.random.default_rng(0).gamma(2.0, size=(2, 6, 5001)).astype(np.float32)
    return xr.DataTree.from_dict(
        {
            **{node.path: node.to_dataset() for node in results_support.made_up(full=True).subtree},
            "/training": xr.Dataset({"loss": (("network", "seed", "step"), loss)}, {"step": np.arange(5001)}),
        }
    )


def test_what_is_read_is_what_was_saved_and_is_saved_again_as_the_same_bytes(tmp_path):
    given = with_training()
    results.save(given, tmp_path / "a.nc")
    found = jaxdist.load(tmp_path / "a.nc")
    xr.testing.assert_identical(found, given)
    results.save(found, tmp_path / "b.nc")
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


def test_large_arrays_are_compressed_and_small_ones_have_no_index(tmp_path):
    results.save(with_training(), tmp_path / "a.nc")
    with h5py.File(tmp_path / "a.nc") as file:
        for array in (file["training/loss"], file["training/step"]):
            assert array.compression == "gzip"
            assert array.id.get_storage_size() < array.nbytes
        assert file["scale/total"].chunks is None
