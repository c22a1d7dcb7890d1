"""The rule that says what networks read: first crossings in logarithms, contrasts between ends, and its tests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy

from jaxdist.analysis import reading
from jaxdist.analysis.preference import LogRatio
from jaxdist.errors import InputError

GRID = np.geomspace(2e-4, 1, 33)


def exact(values):
    return LogRatio(np.asarray(values, float), np.asarray(values, float))


@pytest.mark.parametrize(("power", "factor"), [(1.0, 0.3), (2.5, 0.7), (0.4, 0.2)])
def test_curves_that_are_powers_of_the_dose_are_met_exactly(power, factor):
    dose = 0.9 * np.sqrt(GRID)
    flips = factor * dose**power
    for level in (0.01, 0.1):
        if flips[0] < level <= flips[-1]:
            at = reading.log_dose_at(dose, flips, level)
            assert at.low == at.high == pytest.approx(np.log(level / factor) / power, abs=1e-9)


def test_the_first_crossing_counts_and_a_point_that_meets_the_level_reaches_it():
    dose = np.array([0.1, 0.2, 0.3, 0.4])
    assert reading.log_dose_at(dose, np.array([0.0, 0.01, 0.0, 0.5]), 0.01).low == pytest.approx(np.log(0.2))
    # From a point without flips the dose is linear in them, and so it is from no edit.
    assert reading.log_dose_at(dose, np.array([0.0, 0.04, 0.0, 0.5]), 0.01).low == pytest.approx(np.log(0.125))
    assert reading.log_dose_at(dose, np.array([0.05, 0.3, 0.4, 0.5]), 0.01).low == pytest.approx(np.log(0.02))


def test_doses_that_are_not_reached_lie_beyond_the_largest():
    at = reading.log_dose_at(np.array([[0.1, 0.7, 0.6], [np.nan] * 3]), np.array([[0.0, 0.001, 0.002], [0] * 3]), 0.01)
    assert at.low[0] == pytest.approx(np.log(0.7))
    assert at.high[0] == np.inf
    assert np.isnan([at.low[1], at.high[1]]).all()


@pytest.mark.parametrize(
    ("dose", "flips", "level"), [([0.1], [0.1, 0.2], 0.1), ([0.1], [1.2], 0.1), ([0.1], [0.2], 0), ([0.1], [0.2], 2)]
)
def test_what_are_no_curves_is_refused(dose, flips, level):
    with pytest.raises(InputError, match="expected doses and flips of one shape, flips from 0 to 1 and a level above"):
        reading.log_dose_at(np.array(dose), np.array(flips), level)


def curves(costs):
    """Curves (dose, flips) [S, edits, draws, P] that reach 1 % at the doses `costs` [S, edits, draws], as squares."""
    dose = np.broadcast_to(np.geomspace(1e-3, 0.9, 40), (*costs.shape, 40))
    return dose, np.clip(0.01 * (dose / costs[..., None]) ** 2, 0, 1)


def test_a_contrast_is_the_mean_over_draws_of_logarithms():
    costs = np.random.default_rng(0).uniform(0.01, 0.2, (5, 2, 4))
    x = reading.contrast(*curves(costs), 0.01)
    logs = np.log(costs)
    expected = (logs[:, 0, 0] - logs[:, 0, 1:].mean(-1)) - (logs[:, 1, 0] - logs[:, 1, 1:].mean(-1))
    np.testing.assert_allclose(x.low, expected, atol=1e-9)
    np.testing.assert_array_equal(x.low, x.high)


@pytest.mark.parametrize(("edit", "draw", "open_end"), [(0, 0, "high"), (1, 0, "low"), (0, 2, "low"), (1, 2, "high")])
def test_a_censored_dose_leaves_the_end_open_that_it_may_move(edit, draw, open_end):
    costs = np.full((3, 2, 4), 0.05)
    costs[1, edit, draw] = 100.0
    x = reading.contrast(*curves(costs), 0.01)
    shut = "low" if open_end == "high" else "high"
    assert np.isinf(getattr(x, open_end)[1])
    assert np.isfinite(getattr(x, shut)).all()
    assert np.isfinite(getattr(x, open_end)[[0, 2]]).all()
    spread = np.random.default_rng(0).normal(0, 0.01, 3)
    both = LogRatio(*(np.stack([end + spread] * 2) for end in x))
    read = reading.read(both, exact(np.zeros((2, 3))))
    against = read.distance if open_end == "high" else read.intensity
    assert against == (1, 1)


def test_sign_flips_are_all_of_them():
    values = np.random.default_rng(1).normal(-0.4, 1, 9)
    means = [np.mean(np.array(signs) * values) for signs in itertools.product([1, -1], repeat=9)]
    assert reading.sign_flips(values) == pytest.approx(np.mean(np.array(means) <= values.mean() + 1e-12))


def test_a_claim_is_as_good_as_its_weakest_test():
    rng = np.random.default_rng(2)
    x, y = rng.normal(-0.3, 0.2, (2, 20)), rng.normal(-0.1, 0.2, (2, 20))
    read = reading.read(exact(x), exact(y))
    tests = [scipy.stats.ttest_1samp(row, 0, alternative="less").pvalue for row in (*x, *(x - y))]
    assert read.distance.t == pytest.approx(max(tests))
    greater = [scipy.stats.ttest_1samp(row, 0, alternative="greater").pvalue for row in (*x, *(x - y))]
    assert read.intensity.t == pytest.approx(max(greater))
    near = [
        scipy.stats.ttest_1samp(row, bound, alternative=side).pvalue
        for row in (*x, *(x - y))
        for bound, side in ((np.log(1.25), "less"), (np.log(0.8), "greater"))
    ]
    assert read.equal.t == pytest.approx(max(near))
    assert 0 < read.distance.flips < 0.05


def test_a_difference_that_is_small_is_answered_as_a_difference():
    small = made(-0.1, 0, spread=0.02)
    assert small.equal.t < 1e-6
    assert reading.decide({"": small})[""].answer == "distance"


def test_many_seeds_are_tried_by_random_flips():
    values = np.random.default_rng(3).normal(-0.3, 1, 25)
    tried = np.random.default_rng(4).choice([-1, 1], (200_000, 25)) @ values <= values.sum()
    assert 0.01 < tried.mean() < 0.5
    assert reading.sign_flips(values) == pytest.approx(tried.mean(), abs=5e-3)
    assert 0 < reading.sign_flips(np.full(70, -1.0)) < 2e-6


def test_the_point_of_a_crossing_is_the_first_that_reaches_the_level():
    agree = np.array([9999, 9000, 5000])
    flips = 1 - agree / 10_000  # the second is a little below a tenth, by rounding
    assert flips[1] < 0.1
    assert reading.point_at(flips, 0.1) == 1
    assert reading.log_dose_at(np.array([0.1, 0.2, 0.3]), flips, 0.1).low == pytest.approx(np.log(0.2))
    assert reading.point_at(flips, 0.6) == -1


def test_the_mirror_of_distance_is_intensity():
    rng = np.random.default_rng(3)
    x, y = rng.normal(-0.3, 0.2, (2, 12)), rng.normal(0, 0.2, (2, 12))
    one, other = reading.read(exact(x), exact(y)), reading.read(exact(-x), exact(-y))
    assert one.distance == pytest.approx(other.intensity)
    assert one.intensity == pytest.approx(other.distance)
    assert one.equal == pytest.approx(other.equal)


def test_an_infinite_end_supports_no_claim_against_which_it_counts():
    x, y = np.full((2, 12), -0.5) + np.random.default_rng(4).normal(0, 0.05, (2, 12)), np.zeros((2, 12))
    high = x.copy()
    high[0, 3] = np.inf
    read = reading.read(LogRatio(x, high), exact(y))
    assert read.distance == (1, 1)
    low = x.copy()
    low[0, 3] = -np.inf
    assert reading.read(LogRatio(low, x), exact(y)).distance.t < 1e-6


def made(x, y, spread=0.1, seeds=20, seed=0):
    rng = np.random.default_rng(seed)
    return reading.read(*(exact(mean + rng.normal(0, spread, (2, seeds))) for mean in (x, y)))


def test_answers_and_their_correction():
    readings = {"a": made(-0.5, 0), "b": made(0.5, 0), "c": made(0, 0), "d": made(-0.5, -0.5), "e": made(0, 0, 3)}
    decided = reading.decide(readings)
    answers = [each.answer for each in decided.values()]
    # What small values alone would show, as of a reader that has learned nothing, is no answer.
    assert answers == ["distance", "intensity", "no difference", "undecided", "undecided"]
    raw = np.array([p for each in readings.values() for p in (each.distance.t, each.intensity.t)])
    corrected = np.array([p for each in decided.values() for p in (each.distance, each.intensity)])
    smallest = np.sort(raw)
    stepped = np.minimum(1, np.maximum.accumulate(smallest * np.arange(10, 0, -1)))
    np.testing.assert_allclose(np.sort(corrected), stepped)
    alone = reading.decide({"a": readings["a"]})["a"]
    assert alone.distance == pytest.approx(2 * readings["a"].distance.t)
    assert alone.equal == readings["a"].equal.t


def test_networks_without_a_number_and_single_seeds_are_refused():
    lost = np.zeros((2, 5))
    lost[0, 1] = np.nan
    for x in (np.zeros((2, 1)), lost):
        with pytest.raises(InputError, match="expected at least two seeds, all with a dose, got"):
            reading.read(exact(x), exact(np.zeros_like(x)))


@pytest.mark.parametrize("which", range(4))
def test_at_the_border_of_a_claim_it_is_made_too_often_in_one_of_twenty_at_most(which):
    """One of the four means is exactly 0 and the others are far on the claim's side."""
    rng, wrong, studies = np.random.default_rng(which), 0, 1000
    for _ in range(studies):
        x, apart = rng.normal(-1, 0.3, (2, 20)), rng.normal(-1, 0.3, (2, 20))
        (x, apart)[which // 2][which % 2] += 1
        wrong += reading.read(exact(x), exact(x - apart), flips=False).distance.t <= reading.ERROR
    assert wrong / studies < 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
