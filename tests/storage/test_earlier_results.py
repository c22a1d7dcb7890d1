"""Results of schema 2 hold means over draws: they are read, listed and reported as they are, and extended as means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import jaxdist
from jaxdist import cli
from jaxdist.analysis import dose_tables, tables
from jaxdist.config import StatisticsConfig
from jaxdist.report import figures
from jaxdist.storage import places, result_files
from jaxdist.sweep import results

COMMITTED = Path(__file__).parents[2] / "docs" / "findings" / "mnist"
DRAWN = ("random_offset", "random_scale", "noise", "averaged_clip", "averaged_offset", "averaged_shift")
"""Its groups of several draws."""
AVERAGED = ("correct", "agree", "kept", "dose", "rms", "rms_plain")


def as_stored(path):
    """A result file's content, whatever its schema."""
    with xr.open_datatree(path, engine="h5netcdf") as file:
        return file.load()


@pytest.fixture(scope="module")
def stored():
    result = as_stored(COMMITTED / places.RESULT)
    assert result.attrs["schema"] == 2
    assert {name for name, group in result.children.items() if group.attrs.get("draws", 1) > 1} == set(DRAWN)
    return result


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(COMMITTED, tmp_path / "mnist"))


def test_an_earlier_result_is_read_as_it_is(stored):
    result = jaxdist.load(COMMITTED)
    assert list(result.children) == list(stored.children)
    for name, group in stored.children.items():
        xr.testing.assert_identical(result[name].to_dataset(), group.to_dataset())
    for name in DRAWN:
        assert "draw" not in result[name].dims
        assert {"correct_sd", "agree_sd"} <= set(result[name].data_vars)


def test_an_earlier_result_is_listed(folder, stored, capsys):
    assert cli.main(["list", str(folder), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["state"], run["problem"]) == ("swept", None)
    assert (run["seeds"], list(run["networks"])) == (6, ["relu", "abs"])
    accuracies = stored["training"].test_accuracy
    for name, numbers in run["networks"].items():
        last = accuracies.sel(network=name).dropna("step").isel(step=-1)
        assert numbers["test_accuracy"] == pytest.approx(float(last.mean()), rel=1e-6)


@pytest.mark.slow
def test_an_earlier_result_is_reported_by_its_means(folder, stored, monkeypatch, capsys):
    monkeypatch.setattr(figures, "save", lambda *_: [])
    assert cli.main(["report", str(folder), "--quiet"]) == 0
    capsys.readouterr()
    points = pd.read_csv(folder / "tables" / "points.csv").set_index(["family", "network", "split"])
    for name in ("random_offset", "random_scale", "noise"):
        group = stored[name].to_dataset()
        for network in ("relu", "abs"):
            for split in ("train", "test"):
                counts = group.sel(network=network, split=split, site=group.site[0])
                rows = points.loc[(name, network, split)]
                np.testing.assert_allclose(rows.accuracy, counts.correct.mean("seed") / counts.total, rtol=1e-9)
                np.testing.assert_allclose(rows.agree, counts.agree.mean("seed") / counts.total, rtol=1e-9)
    assert as_stored(folder / places.RESULT).identical(stored)  # a report leaves the result alone


def drawn(group):
    """A group of means as one of draws: whole numbers of images about them, and doses a little apart."""
    count, rng = int(group.attrs.get("draws", 1)), np.random.default_rng(0)
    if count == 1:
        return group
    draws = {name: group[name].expand_dims(draw=count, axis=-2) for name in AVERAGED if name in group}
    for name, values in draws.items():
        if name in ("correct", "agree", "kept"):
            counts = np.floor(values) + rng.integers(-3, 4, values.shape)
            draws[name] = counts.clip(0, int(group.total.max())).astype(np.int32)
        else:
            draws[name] = values * rng.uniform(0.99, 1.01, values.shape)
    return group.drop_vars(["correct_sd", "agree_sd"]).assign(draws)


def averaged(group):
    """The means and standard deviations that the earlier schema has in place of draws."""
    if "draw" not in group.dims:
        return group
    axis = group.correct.dims.index("draw")
    dims = [dim for dim in group.correct.dims if dim != "draw"]
    values = {name: group[name].to_numpy() for name in AVERAGED if name in group}
    means = {name: (dims, array.mean(axis)) for name, array in values.items()}
    spread = {f"{name}_sd": (dims, values[name].std(axis, ddof=1)) for name in ("correct", "agree")}
    return group.drop_vars(list(values)).assign({**means, **spread})


@pytest.fixture(scope="module")
def both(stored):
    """The same result with draws, and with means in their place; of two seeds and the test images."""
    groups = {}
    for name, group in stored.children.items():
        dataset = group.to_dataset().isel(seed=slice(2))
        groups[name] = drawn(dataset.sel(split=["test"]) if "split" in dataset.dims else dataset)
    newer = results.tree(groups, stored.attrs)
    assert all("draw" in newer[name].dims for name in DRAWN)
    return newer, results.tree({name: averaged(group) for name, group in groups.items()}, stored.attrs)


def test_draws_are_reported_as_their_means_are(both):
    options = StatisticsConfig()
    newer, earlier = (reported(result, options) for result in both)
    for name, frame in earlier.items():
        assert not frame.empty, name
        pd.testing.assert_frame_equal(newer[name], frame, obj=name)


def reported(result, options):
    """The frames that are made of a result's draws."""
    compared = dose_tables.compare(result, options)
    frames = {"points": tables.points(result, options), "tolerance": tables.tolerance(result, options)}
    frames |= {"flips": tables.tolerance(result, options, "flips"), "doses": compared.doses, "costs": compared.costs}
    return frames | {"equal": compared.equal, "robust": compared.robust, "gauges": compared.gauges}


def test_an_earlier_part_and_a_newer_one_are_joined_as_means(both, tmp_path):
    newer, earlier = both
    result = results.joined([earlier, newer], {})
    for name, group in result.children.items():
        first, second = (averaged(part[name].to_dataset()) for part in (earlier, newer))
        assert "draw" not in group.dims
        assert set(group.data_vars) == set(first.data_vars)
        for k, part in enumerate((first, second)):
            members = group.to_dataset().isel(seed=slice(2 * k, 2 * k + 2))
            xr.testing.assert_allclose(members, part, rtol=1e-12)
    assert {"correct_sd", "agree_sd"} <= set(result["noise"].data_vars)

    result_files.save(result, tmp_path / places.RESULT)
    read = jaxdist.load(tmp_path)
    for name in DRAWN:
        xr.testing.assert_identical(read[name].correct_sd, result[name].correct_sd)
    assert len(tables.points(read, StatisticsConfig())) == len(tables.points(earlier, StatisticsConfig()))


def test_two_newer_parts_keep_their_draws(both):
    newer, _ = both
    result = results.joined([newer, newer], {})
    for name in DRAWN:
        assert result[name].sizes["draw"] == newer[name].sizes["draw"]
        assert result[name].sizes["seed"] == 4
        assert result[name].correct.dtype.kind == "i"
