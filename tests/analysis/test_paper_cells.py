"""A run beside the paper's tables: every number of a cell, by NumPy alone, and the table of what training came to."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from jaxdist.analysis import paper_cells, tables
from jaxdist.config import StatisticsConfig
from jaxdist.perturbations import families
from jaxdist.storage import published
from tests import results_support

SEEDS = 6
OPTIONS = StatisticsConfig()


@pytest.fixture(scope="module")
def result():
    """Six seeds whose accuracies are scattered, at the points of the paper's own grids, and their training."""
    rng = np.random.default_rng(5)
    made = results_support.made_up(seeds=SEEDS)
    groups = {name: child.to_dataset() for name, child in made.children.items() if name not in families.PAPER}
    for family in families.PAPER:
        group = made[family].to_dataset()
        grid = families.get(family).grid()
        shape = (*group.correct.shape[:-1], len(grid))
        correct = rng.integers(300, 700, (*shape[:1], 1, 1, 1, *shape[-1:])) + rng.integers(-60, 60, shape)
        counts = dict.fromkeys(("correct", "agree", "kept"), (group.correct.dims, correct))
        kept = {name: (group[name].dims, group[name].to_numpy()) for name in ("unperturbed", "total")}
        coords = {name: group[name].to_numpy() for name in ("network", "seed", "site", "split")}
        groups[family] = xr.Dataset({**counts, **kept}, {**coords, "fraction": grid}, group.attrs)
    steps = 5
    curves = {
        name: (("network", "seed", "step"), rng.uniform(0.2, 0.9, (2, SEEDS, steps)))
        for name in ("loss", "train_accuracy", "test_accuracy")
    }
    curves["loss"][1][..., -1] = np.nan  # of an update that is not made any more
    coords = {"network": ["relu", "abs"], "seed": np.arange(SEEDS), "step": np.arange(steps)}
    groups["training"] = xr.Dataset(curves, coords, {"made": "{}"})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(made.attrs)
    return tree


def accuracies(result, family, network):
    """[S, P] on training images, and [S] without an edit."""
    group = result[family].to_dataset().sel(network=network, split="train", site="dense0/pre")
    total = float(group.total)
    return group.correct.to_numpy() / total, group.unperturbed.to_numpy() / total


def error(values, theirs, width):
    """Of the difference of two means, with the spread of numbers that are rounded to `width`."""
    return np.sqrt(np.var(values, ddof=1) / len(values) + theirs + width**2 / 12)


def test_every_cell_of_an_edit_is_numpys(result):
    frame = paper_cells.cells(result, OPTIONS)
    edited = paper_cells.edited(frame)
    assert len(edited) == len(published.cells()) == 72
    sds = {cell.network: cell.sd for cell in published.finals() if cell.quantity == "train_accuracy"}
    unedited = {(cell.family, cell.network): cell for cell in published.cells() if cell.label == paper_cells.UNEDITED}
    for cell, row in zip(published.cells(), edited.itertuples(), strict=True):
        grid = families.get(cell.family).grid()
        accuracy, without = accuracies(result, cell.family, cell.network)
        at = int(np.abs(grid - cell.row).argmin())
        values, to_baseline = accuracy[:, at], accuracy[:, 50] - accuracy[:, at]
        assert (row.table, row.network, row.label, row.seeds) == (cell.family, cell.network, cell.label, SEEDS)
        assert row.fraction == pytest.approx(grid[at])
        assert row.ours == pytest.approx(values.mean())
        assert row.sd == pytest.approx(values.std(ddof=1))
        is_unedited = cell.label == paper_cells.UNEDITED
        # The paper prints the spread of unedited networks, over 20 seeds with ddof 0; else ours stands for it.
        theirs = sds[cell.network] ** 2 / 19 if is_unedited else values.var(ddof=1) / 20
        assert row.se == pytest.approx(error(values, theirs, 1e-4))
        assert row.z == pytest.approx((row.ours - cell.accuracy) / row.se)
        assert row.spread == pytest.approx(to_baseline.std(ddof=1))
        if at != 50:
            assert row.t == pytest.approx(stats.ttest_rel(accuracy[:, 50], values).statistic)
        drops, paper_drop = without - values, unedited[cell.family, cell.network].accuracy - cell.accuracy
        assert row.drop == pytest.approx(drops.mean())
        assert row.paper_drop == pytest.approx(paper_drop)
        if is_unedited:
            assert np.isnan(row.drop_z)
        else:
            se = error(drops, drops.var(ddof=1) / 20, 2**0.5 * 1e-4)
            assert row.drop_z == pytest.approx((drops.mean() - paper_drop) / se)


def test_the_trained_networks_are_those_that_the_paper_records(result):
    """Loss and training accuracy of the weights before the last update, test accuracy after it."""
    frame = paper_cells.cells(result, OPTIONS)
    rows = frame[frame.table == "trained"]
    assert len(rows) == len(published.finals()) == 6
    for cell, row in zip(published.finals(), rows.itertuples(), strict=True):
        step = -1 if cell.quantity == "test_accuracy" else -2
        values = result["training"][cell.quantity].sel(network=cell.network).to_numpy()[:, step]
        assert row.ours == pytest.approx(values.mean())
        assert row.se == pytest.approx(error(values, cell.sd**2 / 19, 1e-4), rel=1e-6)


def test_what_training_came_to_is_of_the_last_step_that_recorded_it(result):
    frame = tables.training(result, OPTIONS)
    assert list(zip(frame.network, frame.quantity, strict=True)) == [
        (network, name) for network in ("relu", "abs") for name in ("loss", "train_accuracy", "test_accuracy")
    ]
    for row in frame.itertuples():
        step = -2 if row.quantity == "loss" else -1
        values = result["training"][row.quantity].sel(network=row.network).to_numpy()[:, step]
        # The paper prints standard deviations with ddof 0.
        half = stats.t.ppf(0.975, SEEDS - 1) * values.std(ddof=1) / SEEDS**0.5
        assert (row.mean, row.sd) == pytest.approx((values.mean(), values.std()))
        assert (row.low, row.high) == pytest.approx((values.mean() - half, values.mean() + half))
