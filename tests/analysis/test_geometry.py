"""Where boundaries lie: units whose clusters, modes and boundaries are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jaxdist.analysis import geometry
from jaxdist.errors import InputError

N = 30_000


@pytest.fixture(scope="module")
def clusters():
    """Three classes at -6, 0 and 5 with standard deviations 0.5, 1 and 2, and the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, N)
    return rng.normal(np.array([-6.0, 0.0, 5.0])[labels], np.array([0.5, 1.0, 2.0])[labels]), labels


@pytest.mark.parametrize(
    ("shift", "cluster", "offset"),
    [(0.0, 1, 0.0), (-1.5, 1, 1.5), (6.0, 0, 0.0), (-5.0, 2, 0.0), (-9.0, 2, 2.0)],
)
def test_the_nearest_class_is_told_in_its_own_standard_deviations(clusters, shift, cluster, offset):
    """Moved by `shift`, the boundary lies `offset` standard deviations above the mean of the nearest class."""
    values, labels = clusters
    described = geometry.describe(values[None] + shift, labels)
    assert described.cluster[0] == cluster
    assert described.offset[0] == pytest.approx(offset, abs=0.05)
    assert described.distance[0] == pytest.approx(abs(offset), abs=0.05)
    assert described.above[0] == pytest.approx((values + shift > 0).mean())


@pytest.mark.parametrize(("shift", "mode"), [(0.0, 0.0), (1.0, 1.0), (6.3, 0.3), (40.0, 34.0)])
def test_the_nearest_mode_is_told_in_standard_deviations_of_all(clusters, shift, mode):
    """The modes of the three classes are far apart enough to be three."""
    values, labels = clusters
    described = geometry.describe(values[None] + shift, labels)
    assert described.mode[0] * values.std() == pytest.approx(-mode, abs=0.2)


def test_classes_are_named_by_their_labels(clusters):
    values, labels = clusters
    described = geometry.describe(values[None], np.array([3, 7, 8])[labels])
    assert described.cluster[0] == 7


def test_a_bump_of_noise_is_no_mode():
    rng = np.random.default_rng(1)
    for _ in range(10):
        values = rng.normal(3.0, 1.0, 2_000)
        described = geometry.describe(values[None], np.zeros(2_000, int))
        assert described.mode[0] == pytest.approx(-3.0, abs=0.35)


def test_a_mode_may_stand_at_the_end():
    """Values that pile up at one end, as behind a ReLU, have their mode there."""
    values = np.concatenate([np.zeros(900), np.linspace(0, 10, 100)]) + 1
    assert geometry.describe(values[None], np.zeros(1000, int)).mode[0] == pytest.approx(-1 / values.std(), rel=0.05)


def test_classes_on_both_sides_are_counted(clusters):
    values, labels = clusters
    assert geometry.describe(values[None], labels).crossed[0] == 1  # 5 is 2.5 of its own away: 0.6 % lie below
    assert geometry.describe(values[None] - 1, labels).crossed[0] == 2
    assert geometry.describe(values[None] + 100, labels).crossed[0] == 0


def test_a_constant_unit_is_described_by_nothing(clusters):
    values, labels = clusters
    described = geometry.describe(np.stack([np.full(N, -2.0), values]), labels)
    for of in described:
        assert np.isnan(of[0])
        assert not np.isnan(of[1])


def test_density_is_one_in_all():
    places, height = geometry.density(np.random.default_rng(2).normal(2, 3, 10_000))
    assert np.trapezoid(height, places) == pytest.approx(1, abs=0.01)
    assert places[height.argmax()] == pytest.approx(2, abs=1)


@pytest.mark.parametrize("shape", [(3, 0), (3,), (3, 5)])
def test_values_without_labels_are_refused(shape):
    with pytest.raises(InputError, match="values: expected"):
        geometry.describe(np.zeros(shape), np.zeros(4))


def test_a_summary_pairs_the_seeds_medians():
    rng = np.random.default_rng(3)
    parts, medians = [], {"trained": [], "before": []}
    for when in medians:
        for seed in range(5):
            values = rng.normal(rng.normal(size=(8, 1)) + (when == "trained"), 1, (8, 500))
            described = geometry.describe(values, rng.integers(0, 2, 500))
            medians[when].append(np.median(described.above))
            parts.append(geometry.frame(described, network="relu", site="dense0/pre", seed=seed, when=when))
    table = geometry.summary(pd.concat(parts), 0.95)
    assert list(table.quantity) == list(geometry.QUANTITIES)
    row = table[table.quantity == "above"].iloc[0]
    learned = np.array(medians["trained"]) - medians["before"]
    assert row.trained == pytest.approx(np.mean(medians["trained"]))
    assert row.learned == pytest.approx(learned.mean())
    half = 2.776 * learned.std(ddof=1) / np.sqrt(5)
    assert (row.learned_low, row.learned_high) == pytest.approx(
        (learned.mean() - half, learned.mean() + half), abs=1e-3
    )


def test_a_summary_has_networks_in_their_own_order():
    described = geometry.describe(np.random.default_rng(0).normal(size=(3, 50)), np.arange(50) % 2)
    parts = [
        geometry.frame(described, network=network, site="dense0/pre", seed=seed, when="trained")
        for network in ("relu", "abs")
        for seed in range(2)
    ]
    assert list(geometry.summary(pd.concat(parts), 0.95).network.unique()) == ["relu", "abs"]
