"""The file of a result: what is saved is read again, and takes no more room than it needs."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray as xr

import jaxdist
from jaxdist.errors import InputError
from jaxdist.storage import overview, places, result_files
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
    result_files.save(given, tmp_path / "a.nc")
    found = jaxdist.load(tmp_path / "a.nc")
    xr.testing.assert_identical(found, given)
    result_files.save(found, tmp_path / "b.nc")
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


def test_large_arrays_are_compressed_and_small_ones_have_no_index(tmp_path):
    result_files.save(with_training(), tmp_path / "a.nc")
    with h5py.File(tmp_path / "a.nc") as file:
        for array in (file["training/loss"], file["training/step"]):
            assert array.compression == "gzip"
            assert array.id.get_storage_size() < array.nbytes
        assert file["scale/total"].chunks is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.nc"
    result_files.save(results_support.made_up(networks=("relu",), seeds=1), path)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_file_that_was_cut_is_refused(whole, tmp_path, share):
    (tmp_path / places.RESULT).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="not a readable result file"):
        result_files.load(tmp_path)
    assert overview.read(tmp_path).state == "damaged"


def damaged(content, rng, kind):
    """The content with a block of zeros, as a crash may leave, or with so many bytes changed."""
    changed = np.frombuffer(content, np.uint8).copy()
    if kind == "block":
        start = rng.integers(len(content) // 512) * 512
        changed[start : start + 512] = 0
    else:
        where = rng.choice(len(content), kind, replace=False)
        changed[where] ^= rng.integers(1, 256, kind, dtype=np.uint8)
    return changed.tobytes()


@pytest.mark.parametrize("kind", ["block", 1, 20])
def test_a_file_that_is_not_what_was_saved_is_refused(whole, tmp_path, kind):
    """The HDF5 library itself takes most single bytes for content, and never comes back from some blocks of zeros."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        content = damaged(whole, rng, kind)
        if content == whole:
            continue
        (tmp_path / places.RESULT).write_bytes(content)
        with pytest.raises(InputError, match="not a readable result file"):
            result_files.load(tmp_path)
        assert overview.read(tmp_path).state == "damaged"


def test_without_a_checksum_a_damaged_file_is_refused_or_read(whole, tmp_path):
    """Results may come from other programs; libraries find damage in their own ways, which differ."""
    rng, refused = np.random.default_rng(0), 0
    content = whole[: whole.rindex(b"\njaxdist sha256")]
    for _ in range(40):
        (tmp_path / places.RESULT).write_bytes(damaged(content, rng, 20))
        try:
            result_files.load(tmp_path)
        except InputError:
            refused += 1
        overview.read(tmp_path)
    assert refused >= 30


@pytest.mark.parametrize("schema", [np.inf, "x", [1, 1], []])
def test_a_schema_that_is_none_is_refused(tmp_path, schema):
    result = results_support.made_up(networks=("relu",), seeds=1)
    result.attrs["schema"] = np.asarray(schema, float) if isinstance(schema, list) else schema
    result_files.save(result, tmp_path / places.RESULT)
    with pytest.raises(InputError, match="expected a result of schema"):
        result_files.load(tmp_path)
    assert overview.read(tmp_path).state == "damaged"
