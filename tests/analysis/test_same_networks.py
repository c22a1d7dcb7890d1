"""Whether networks are the paper's own: known ensembles, their t by SciPy, and what chance does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jaxdist.analysis import same_networks
from jaxdist.storage import published

CELLS = [cell for cell in published.cells() if cell.network == "relu"]
FINALS = [cell for cell in published.finals() if cell.network == "relu"]


def frame(shift=0.0):
    """The published cells of ReLU beside equal means, but for a shift of all accuracies."""
    rows = [("trained", c.quantity, c.mean, c.mean, np.nan) for c in FINALS]
    rows += [(c.family, "accuracy", c.accuracy, c.accuracy + shift, c.t_source) for c in CELLS]
    made = pd.DataFrame(rows, columns=["table", "quantity", "paper", "ours", "paper_t_source"])
    return made.assign(network="relu")


def scores(rng, size):
    """Of so many networks at every cell, of mean 0 and variance 1 (ddof 1)."""
    drawn = rng.normal(size=(size, len(CELLS)))
    drawn -= drawn.mean(axis=0)
    return drawn / drawn.std(axis=0, ddof=1)


def differences(standard):
    """To the baseline, of 20 networks whose t is as published where scores have mean 0 and variance 1."""
    t = np.array([c.t_source for c in CELLS])
    return 0.1 * (np.sign(t) + standard * np.sqrt(20) / np.abs(t))


def test_the_very_networks_are_told_by_every_digit_and_every_t():
    (own,) = same_networks.compare(frame(), {"relu": differences(scores(np.random.default_rng(0), 20))})
    assert (own.cells, own.equal, own.adjacent, own.beyond) == (39, 39, 0, 0)
    assert (own.t_cells, own.t_near) == (36, 36)
    assert own.t_apart < 1e-9
    assert own.p < 1e-4
    assert own.same
    assert own.nearer


def two_samples(rng):
    """Differences of 20 networks, drawn like the paper's from a population in which those have the published t."""
    t = np.array([c.t_source for c in CELLS])
    theirs, ours = rng.normal(size=(2, 20, len(CELLS)))
    mean = np.abs(t) * theirs.std(axis=0, ddof=1) / np.sqrt(20) - theirs.mean(axis=0)
    return np.sign(t) * (mean + ours)


def test_other_networks_of_the_same_distribution_are_as_near_as_chance_makes_them(monkeypatch):
    monkeypatch.setattr(same_networks, "DRAWN", 5_000)
    rng, shares = np.random.default_rng(1), []
    for _ in range(20):
        (other,) = same_networks.compare(frame(), {"relu": two_samples(rng)})
        assert not other.same
        shares.append(other.p)
    assert np.mean(np.array(shares) < 0.05) <= 0.2  # four of twenty or fewer
    assert 0.2 < np.median(shares) < 0.8


@pytest.mark.parametrize(
    ("shift", "counts"), [(0.4e-4, (36, 0)), (0.9e-4, (0, 36)), (1.4e-4, (0, 36)), (-2e-4, (0, 0))]
)
def test_means_are_counted_by_the_digits_that_they_are_off(shift, counts):
    standard = differences(scores(np.random.default_rng(2), 20))
    (like,) = same_networks.compare(frame(shift), {"relu": standard})
    assert (like.equal - 3, like.adjacent) == counts
    assert like.beyond == 36 - sum(counts)
    assert like.same == (like.equal == 39)


def test_t_of_an_ensemble_that_is_drawn_is_scipys_of_the_networks_in_it():
    rng = np.random.default_rng(3)
    values = rng.normal(0.7, 0.01, (20, 5))
    drawn = rng.integers(0, 20, (50, 20))
    counts = np.stack([np.bincount(row, minlength=20) for row in drawn]).astype(float)
    expected = np.stack([stats.ttest_1samp(values[row], 0).statistic for row in drawn])
    assert same_networks._t(values, counts) == pytest.approx(expected, rel=1e-9)


def test_fewer_networks_than_the_papers_have_no_chance_to_compare_with():
    (few,) = same_networks.compare(frame(), {"relu": differences(scores(np.random.default_rng(4), 6))})
    assert np.isnan(few.p)
    assert not few.same
    assert not few.nearer


def test_constant_differences_have_no_t_and_are_left_out():
    standard = differences(scores(np.random.default_rng(5), 20))
    standard[:, 3] = 0.0
    (like,) = same_networks.compare(frame(), {"relu": standard})
    assert (like.t_cells, like.t_near) == (35, 35)
