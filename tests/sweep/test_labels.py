"""The labels of a sweep's arrays: means over draws, as results of earlier versions hold them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from jaxdist.sweep import labels

DIMS = ("network", "seed", "site", "split", "draw", "fraction")


def drawn():
    """Counts and doses of two networks in three draws; the second network lacks its second seed."""
    rng = np.random.default_rng(0)
    shape = (2, 2, 1, 1, 3, 4)
    counts = {name: (DIMS, rng.integers(0, 100, shape, np.int32)) for name in ("correct", "agree", "kept")}
    group = xr.Dataset(counts | {"dose": (DIMS, rng.random(shape))}, attrs={"draws": 3})
    group = group.assign(unperturbed=(("network", "seed", "split"), rng.integers(0, 100, (2, 2, 1))))
    for name in ("correct", "agree", "kept"):
        group[name][1, 1] = labels.MISSING
    group.dose[1, 1] = np.nan
    return group


def test_means_over_draws_are_those_of_the_draws():
    group = drawn()
    means = labels.over_draws(group)
    assert means.attrs == group.attrs
    assert "draw" not in means.dims
    xr.testing.assert_identical(means.unperturbed, group.unperturbed)
    for name in ("correct", "agree", "kept", "dose"):
        assert means[name].dims == tuple(dim for dim in DIMS if dim != "draw")
        assert means[name].dtype == np.float64
        np.testing.assert_array_equal(means[name], group[name].to_numpy().mean(axis=-2))
    there = np.array([[True, True], [True, False]])
    for name in ("correct", "agree"):
        deviations = means[f"{name}_sd"].to_numpy()
        np.testing.assert_allclose(deviations[there], group[name].to_numpy().std(axis=-2, ddof=1)[there], rtol=1e-12)


def test_what_is_missing_has_no_mean_and_no_deviation():
    group = drawn()
    group.dose[0, 0, 0, 0, 2, 1] = np.nan
    means = labels.over_draws(group)
    assert (means.correct[1, 1] == labels.MISSING).all()
    assert np.isnan(means.correct_sd[1, 1]).all()
    assert np.isnan(means.agree_sd[1, 1]).all()
    assert np.isnan(means.dose[1, 1]).all()
    # The mean of the draws that remain would be of other edits than at the points beside it.
    assert np.isnan(means.dose[0, 0, 0, 0]).to_numpy().tolist() == [False, True, False, False]


def test_a_group_without_draws_stays_as_it_is():
    group = drawn().isel(draw=0)
    assert labels.over_draws(group) is group
