"""First crossings against a walk point by point, on random curves with plateaus, ties, gaps and returns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxdist.analysis import one_network, preference
from jaxdist.errors import InputError
from jaxdist.sweep import crossings

CASES = range(60)


def walk(positions, values, level):
    """Where a curve, a point after the other, first reaches a level: the place, and the points on either side.

    By bisection of the straight line between the two, not by its formula.
    """
    for k in range(1, len(values)):
        if values[k] >= level:
            low, high = 0.0, 1.0
            for _ in range(200):
                middle = (low + high) / 2
                reached = (1 - middle) * values[k - 1] + middle * values[k] >= level
                low, high = (low, middle) if reached else (middle, high)
            return (1 - high) * positions[k - 1] + high * positions[k], k
    return math.nan, None


def curves(rng, seeds, points):
    """Costs [S, P] in steps of 1/20: most have plateaus, values equal to a level, and ways back below it."""
    steps = rng.choice([-2, -1, 0, 0, 0, 1, 1, 2, 3], (seeds, points))
    scale = rng.choice([0.05, 0.05, 0.005])
    return np.clip(np.cumsum(steps, axis=1) * scale, -1, 1)


def grid(rng, points, coordinate):
    """An increasing grid on both sides of its identity, which is among the points or not."""
    values = np.sort(rng.choice(np.arange(1, 400), points, replace=False)) / 100
    if coordinate == "log":
        return values, float(rng.choice([values[len(values) // 2], 1.005, 0.001, 9.0]))
    return values - 2, float(rng.choice([values[len(values) // 2] - 2, 0.0, -3.0, 3.0]))


@pytest.mark.parametrize("coordinate", ["linear", "log"])
@pytest.mark.parametrize("case", CASES)
def test_first_exits_are_those_of_a_walk(case, coordinate):
    rng = np.random.default_rng(case)
    points = int(rng.integers(1, 14))
    fractions, identity = grid(rng, points, coordinate)
    drops = curves(rng, 5, points)
    margin = float(rng.choice([0.05, 0.1, 0.025, 0.33]))
    to, back = (math.log, math.exp) if coordinate == "log" else (float, float)
    for side in ("below", "above"):
        found = crossings.first_exit(
            fractions, drops, identity=identity, coordinate=coordinate, side=side, margin=margin
        )
        order = [k for k in range(points) if (fractions[k] > identity if side == "above" else fractions[k] < identity)]
        order = order if side == "above" else order[::-1]
        path = [identity, *(fractions[k] for k in order)]
        for seed in range(5):
            values = [0.0, *(round(drops[seed, k], 12) for k in order)]
            place, at = walk([to(value) for value in path], values, round(margin, 12))
            bracket = [float(ends[seed]) for ends in found.bracket]
            assert found.censored[seed] == (at is None)
            if at is None:
                assert found.exit[seed] == (math.inf if side == "above" else -math.inf)
                assert all(map(math.isnan, bracket))
                assert not found.reentered[seed]
                continue
            assert found.exit[seed] == pytest.approx(back(place), rel=1e-9, abs=1e-9)
            assert bracket == [path[at - 1], path[at], values[at - 1], values[at]]
            assert found.reentered[seed] == any(value < round(margin, 12) for value in values[at + 1 :])


def test_the_random_curves_are_of_every_kind():
    """Or else the comparison with a walk would show little."""
    kinds = dict.fromkeys(("censored below", "censored above", "reentered", "plateau", "equal", "no points"), 0)
    for case in CASES:
        rng = np.random.default_rng(case)
        points = int(rng.integers(1, 14))
        fractions, identity = grid(rng, points, "linear")
        drops = curves(rng, 5, points)
        margin = float(rng.choice([0.05, 0.1, 0.025, 0.33]))
        for side in ("below", "above"):
            found = crossings.first_exit(
                fractions, drops, identity=identity, coordinate="linear", side=side, margin=margin
            )
            beyond = len(crossings.outward(fractions, identity, side))
            kinds[f"censored {side}"] += int(found.censored.sum()) if beyond else 0
            kinds["no points"] += beyond == 0
            kinds["reentered"] += int(found.reentered.sum())
            kinds["equal"] += int((found.drop_outside == round(margin, 12)).sum())
        kinds["plateau"] += int((np.diff(drops, axis=1) == 0).sum())
    assert min(kinds.values()) > 10, kinds


@pytest.mark.parametrize("case", CASES)
def test_something_else_along_a_curve_is_that_at_its_crossing(case):
    """Curves with gaps, several levels of each, and a second quantity that is read there."""
    rng = np.random.default_rng(100 + case)
    values = np.concatenate([np.zeros((4, 1)), curves(rng, 4, 9)], axis=1)
    values[:, 1:][rng.random((4, 9)) < 0.1] = np.nan
    other = rng.normal(size=(4, 10))
    levels = np.array([0.05, 0.1, 0.2])
    crossing = crossings.first_crossing(values[:, None, :], np.broadcast_to(levels, (4, 3)))
    found = crossing.along(other[:, None, :])
    for seed in range(4):
        for k, level in enumerate(levels):
            place, at = walk(other[seed], values[seed], level)
            assert crossing.reached[seed, k] == (at is not None)
            if at is not None and math.isnan(values[seed, at - 1]):
                place = math.nan  # between a point and a gap nothing is known
            np.testing.assert_allclose(found[seed, k], place, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_doses_at_flips_and_flips_at_doses_are_those_of_a_walk(case):
    rng = np.random.default_rng(200 + case)
    dose = np.abs(curves(rng, 4, 8)) + rng.choice([0, 0.01])
    flips = np.abs(curves(rng, 4, 8))
    path = preference.path(np.arange(1, 9) / 8, dose, flips, identity=0, side="above")
    taken = preference.dose_at(path, 0.05)
    there = preference.flips_at(path, np.array([0.05, 0.2]))
    for seed in range(4):
        place, at = walk(path.dose[seed], path.flips[seed], 0.05)
        assert taken.censored[seed] == (at is None)
        np.testing.assert_allclose(taken.dose[seed], np.inf if at is None else place, rtol=1e-9, atol=1e-9)
        for k, level in enumerate((0.05, 0.2)):
            place, _ = walk(path.flips[seed], path.dose[seed], level)
            np.testing.assert_allclose(there[seed, k], place, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_robust_ends_are_those_of_a_walk(case):
    rng = np.random.default_rng(300 + case)
    fractions, identity = grid(rng, 9, "linear")
    passes, untested = rng.random(9) < 0.8, rng.random(9) < 0.3
    ends = []
    for side in ("below", "above"):
        end, tested = identity, False
        order = [k for k in range(9) if (fractions[k] > identity if side == "above" else fractions[k] < identity)]
        last = identity
        for k in order if side == "above" else order[::-1]:
            if not passes[k]:
                break
            last, tested = fractions[k], tested or not untested[k]
        ends.append(last if tested else end)
    assert preference.robust_over(fractions, passes, identity=identity, untested=untested) == tuple(ends)


@pytest.mark.parametrize("case", CASES[:20])
def test_a_single_networks_interval_is_where_the_bounds_of_its_drop_reach_the_margin(case):
    rng = np.random.default_rng(400 + case)
    lost = np.sort(rng.integers(0, 200, 7))
    images = one_network.Images(lost, rng.integers(0, 10, 7), 900, 1000)
    fractions = np.arange(1, 8) / 7
    found = one_network.radius_interval(
        fractions, images, identity=0, coordinate="linear", side="above", margin=0.05, confidence=0.9
    )
    places = []
    for bound in one_network.drop_interval(images, 0.9):
        place, at = walk([0.0, *fractions], [0.0, *bound], 0.05)
        places.append(math.inf if at is None else place)
    np.testing.assert_allclose(found, sorted(places), rtol=1e-9)


def test_a_curve_that_reaches_no_level_and_one_that_has_no_points():
    found = crossings.first_crossing(np.array([[0.0, 0.1, 0.2], [0.0, np.nan, 0.3]]), np.array([0.3, 0.3]))
    assert found.reached.tolist() == [False, True]
    assert np.isnan(found.along(np.arange(3.0))).all()  # nothing is known between a gap and the next point
    assert found.before.tolist() == [2, 1]
    alone = crossings.first_crossing(np.zeros((2, 1)), np.array([0.1, 0.2]))
    assert not alone.reached.any()
    assert np.isnan(alone.along(np.zeros(1))).all()


def test_costs_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(InputError, match="fractions: expected 3 strictly increasing values, one per point"):
        crossings.first_exit(
            np.arange(2.0), np.zeros((1, 3)), identity=0, coordinate="linear", side="above", margin=0.1
        )
    with pytest.raises(InputError, match="side: expected one of below, above, got 'up'"):
        crossings.outward(np.arange(2.0), 0.0, "up")
