"""Doses at equal flips and what follows from them, on curves and simulated studies with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxdist.analysis import preference
from jaxdist.analysis.preference import LEVELS, DosesAtLevel, LogRatio
from jaxdist.errors import InputError

INF, NAN = np.inf, np.nan


def outward(dose, flips, *, fractions=None, identity=0.0, side="above"):
    dose, flips = np.atleast_2d(dose), np.atleast_2d(flips)
    fractions = np.arange(1, 1 + dose.shape[1]) if fractions is None else fractions
    return preference.path(fractions, dose, flips, identity=identity, side=side)


def exact(values):
    values = np.asarray(values, float)
    return DosesAtLevel(values, values)


class TestDoseAt:
    def test_is_linear_in_flips_between_the_points_around_it_from_no_edit_on(self):
        path = outward([[0.1, 0.2, 0.5], [0.1, 0.2, 0.5]], [[0.0, 0.02, 0.3], [0.04, 0.5, 0.5]])
        np.testing.assert_allclose(preference.dose_at(path, 0.01).dose, [0.15, 0.025])

    def test_takes_the_first_crossing_of_flips_that_fall_again_and_of_doses_that_do(self):
        assert preference.dose_at(outward([0.1, 0.2, 0.3], [0.02, 0.0, 0.5]), 0.02).dose == 0.1
        # Back to less dose where flips are reached: the dose there counts, not the largest before.
        found = preference.dose_at(outward([0.6, 0.4], [0.0, 0.02]), 0.02)
        assert (found.dose, found.reached) == (0.4, 0.6)

    def test_a_level_that_is_reached_exactly_is_reached(self):
        # 1 - 0.99 is not 0.01 in floating point.
        assert preference.dose_at(outward([0.3], [1 - 0.99]), 0.01).dose == 0.3

    def test_walks_each_side_by_itself_and_from_an_identity_that_is_no_grid_point(self):
        fractions = np.array([-2.0, -1.0, 1.0, 2.0])
        given = {"fractions": fractions, "dose": [0.8, 0.4, 0.1, 0.2], "flips": [0.5, 0.1, 0.0, 0.1]}
        below = preference.dose_at(outward(**given, side="below"), 0.1)
        above = preference.dose_at(outward(**given, side="above"), 0.1)
        assert (below.dose, above.dose) == (0.4, 0.2)

    def test_never_is_censored_with_the_largest_dose_as_a_bound(self):
        found = preference.dose_at(outward([0.1, 0.7, 0.6], [0.0, 0.005, 0.005]), 0.01)
        assert (found.dose, found.reached, found.censored) == (INF, 0.7, True)

    def test_undefined_doses_are_missing_only_where_they_matter(self):
        doses = [[NAN, NAN], [0.1, NAN], [NAN, 0.2], [NAN, 0.2]]
        found = preference.dose_at(outward(doses, [[0.0, 0.5], [0.5, 0.9], [0.0, 0.5], [0.0, 0.0]]), 0.1)
        np.testing.assert_array_equal(found.missing, [True, False, True, False])
        assert found.dose[3] == INF
        assert found.reached[3] == 0.2

    @pytest.mark.parametrize("level", [0, -0.1, 1.5, NAN])
    def test_refuses_a_level_that_is_no_share(self, level):
        with pytest.raises(InputError, match="level"):
            preference.dose_at(outward([0.1], [0.5]), level)

    @pytest.mark.parametrize("points", [(3, 2, 2), (2, 3, 2), (2, 2, 3), (2, 1, 2), (1, 2, 2)])
    def test_refuses_unlike_shapes(self, points):
        fractions, doses, flips = points
        with pytest.raises(InputError, match="dose: expected shapes"):
            preference.path(np.arange(fractions), np.ones((2, doses)), np.ones((2, flips)), identity=0, side="above")

    def test_refuses_sides_and_percentages(self):
        with pytest.raises(InputError, match="side"):
            outward([0.1], [0.5], side="up")
        with pytest.raises(InputError, match="flips"):
            outward([0.1], [50.0])


class TestFlipsAt:
    def test_inverts_the_dose_of_a_level_on_a_rising_path(self):
        rng = np.random.default_rng(0)
        path = outward(np.cumsum(rng.uniform(0.01, 0.1, (4, 9)), 1), np.cumsum(rng.uniform(0.001, 0.1, (4, 9)), 1))
        dose = preference.dose_at(path, 0.02).dose
        found = [preference.flips_at(path, dose[k : k + 1])[k, 0] for k in range(4)]
        np.testing.assert_allclose(found, 0.02)

    def test_is_missing_beyond_the_end_and_on_a_path_without_points(self):
        found = preference.flips_at(outward([0.2, 0.4], [0.1, 0.3]), np.array([0.1, 0.3, 0.4, 0.5]))
        np.testing.assert_allclose(found, [[0.05, 0.2, 0.3, NAN]])
        nothing = outward(np.zeros((2, 0)), np.zeros((2, 0)))
        assert np.isnan(preference.flips_at(nothing, np.array([0.1]))).all()

    def test_a_path_that_stays_at_dose_0_gets_nowhere(self):
        assert np.isnan(preference.flips_at(outward([0.0, 0.0], [0.1, 0.3]), np.array([0.1]))).all()


class TestRatio:
    def test_is_the_paired_t_test_and_interval_of_the_logarithm(self):
        rng = np.random.default_rng(1)
        a, b = np.exp(rng.normal(0, 0.3, (2, 9)))
        found = preference.summarise(preference.log_ratio(exact(a), exact(b)), 0.9)
        logs = np.log(a / b)
        interval = stats.ttest_1samp(logs, 0).confidence_interval(0.9)
        np.testing.assert_allclose([found.at_least, found.low, found.high], np.exp([logs.mean(), *interval]))
        assert found.at_least == found.at_most
        for name, mean, way in (("p_less", 0, "less"), ("p_greater", 0, "greater")):
            assert getattr(found, name) == pytest.approx(stats.ttest_1samp(logs, mean, alternative=way).pvalue)
        both = [stats.ttest_1samp(logs, np.log(m), alternative=w).pvalue for m, w in ((1.25, "less"), (0.8, "greater"))]
        assert found.p_equivalent == pytest.approx(max(both))

    def test_the_inverse_ratio_gives_the_inverse_answers(self):
        rng = np.random.default_rng(2)
        a, b = (exact(row) for row in np.exp(rng.normal(0, 0.3, (2, 6))))
        one, other = (preference.summarise(preference.log_ratio(*pair), 0.95) for pair in ((a, b), (b, a)))
        np.testing.assert_allclose(
            [one.low, one.at_least, one.high], 1 / np.array([other.high, other.at_most, other.low])
        )
        assert (one.p_less, one.p_equivalent) == pytest.approx((other.p_greater, other.p_equivalent))

    @pytest.mark.parametrize("doses", [[0.1, 0.2, 0.3], [0.1, 0.1], [0.2, 0.4, 0.1, 0.3, 0.7, 0.5]])
    @pytest.mark.parametrize("ratio", [1, 0.8, 1.1, 40, 0.001])
    def test_ratios_that_are_alike_have_a_mean_and_no_test(self, ratio, doses):
        alike = preference.summarise(preference.log_ratio(exact(np.array(doses) * ratio), exact(doses)), 0.95)
        assert np.isnan([alike.p_less, alike.p_greater, alike.p_equivalent, alike.low, alike.high]).all()
        assert not alike.equivalent
        assert not alike.tested
        assert alike.at_least == alike.at_most == pytest.approx(ratio)

    def test_one_seed_has_a_ratio_and_nothing_else(self):
        found = preference.summarise(preference.log_ratio(exact([0.1]), exact([0.2])), 0.95)
        assert found.at_least == found.at_most == pytest.approx(0.5)
        assert np.isnan([found.low, found.high, found.p_less, found.p_greater, found.p_equivalent]).all()
        assert not found.equivalent
        assert preference.summarise(LogRatio(np.array([NAN]), np.array([NAN])), 0.95)[:3] == (0, 0, 1)

    def test_a_censored_numerator_can_only_show_more(self):
        rng = np.random.default_rng(3)
        reached = np.exp(rng.normal(0, 0.1, 6))
        censored, small = DosesAtLevel(np.full(6, INF), reached), exact(0.1 * np.ones(6))
        above = preference.summarise(preference.log_ratio(censored, small), 0.95)
        assert above.censored == 6
        assert above.p_greater < 1e-4
        assert (above.p_less, above.p_equivalent) == (1, 1)
        assert above.at_most == above.high == INF
        assert above.low == pytest.approx(np.exp(stats.ttest_1samp(np.log(reached / 0.1), 0).confidence_interval()[0]))
        below = preference.summarise(preference.log_ratio(small, censored), 0.95)
        assert below.p_less < 1e-4
        assert (below.p_greater, below.p_equivalent, below.at_least, below.low) == (1, 1, 0, 0)

    def test_the_bounds_hold_whatever_the_censored_dose_is(self):
        rng = np.random.default_rng(4)
        true, other = np.exp(rng.normal(0.2, 0.3, (2, 8)))
        end = np.quantile(true, 0.6)
        seen = DosesAtLevel(np.where(true > end, INF, true), np.full(8, end))
        whole, part = (preference.summarise(preference.log_ratio(d, exact(other)), 0.95) for d in (exact(true), seen))
        assert part.at_least <= whole.at_least <= part.at_most
        assert part.p_less == 1

    def test_two_censored_doses_say_nothing(self):
        both = DosesAtLevel(np.full(6, INF), np.ones(6))
        found = preference.summarise(preference.log_ratio(both, both), 0.95)
        assert (found.p_less, found.p_greater, found.p_equivalent) == (1, 1, 1)
        assert (found.at_least, found.at_most) == (0, INF)

    def test_missing_seeds_and_doses_of_0_are_left_out_and_counted(self):
        found = preference.summarise(
            preference.log_ratio(exact([0.1, NAN, 0.0, 0.2]), exact([0.1, 0.1, 0.1, 0.1])), 0.95
        )
        assert (found.seeds, found.missing) == (2, 2)

    def test_of_two_ratios_is_their_ratio_with_both_ones_bounds(self):
        first = preference.log_ratio(exact([0.4, 0.8]), exact([0.1, 0.1]))
        second = preference.log_ratio(DosesAtLevel(np.array([0.2, INF]), np.array([0.2, 0.3])), exact([0.1, 0.1]))
        paired = preference.over(first, second)
        np.testing.assert_allclose(np.exp(paired.high), [2, 8 / 3])
        np.testing.assert_allclose(np.exp(paired.low), [2, 0])


class TestRobust:
    def test_the_smallest_margin_is_the_upper_one_sided_bound(self):
        flips = np.array([[0.0, 0.01, 0.02], [0.0, 0.03, 0.02], [0.0, 0.02, 0.02]])
        found = preference.flips_margin(flips, 0.95)
        expected = 0.02 + stats.t.ppf(0.95, 2) * np.std([0.01, 0.02, 0.03], ddof=1) / np.sqrt(3)
        np.testing.assert_allclose(found, [0, expected, np.nan])
        assert np.isnan(preference.flips_margin(flips[:1], 0.95)).all()

    @pytest.mark.parametrize(
        ("passes", "expected"),
        [
            ([1, 1, 1, 1, 1], (-2, 2)),
            ([1, 0, 1, 1, 0], (0, 1)),  # a point that passes beyond a failure does not count
            ([0, 0, 0, 0, 0], (0, 0)),  # no edit is robust by definition
        ],
    )
    def test_walks_outward_until_the_first_failure(self, passes, expected):
        found = preference.robust_over(np.arange(-2.0, 3.0), np.array(passes, bool), identity=0.0)
        assert found == expected

    @pytest.mark.parametrize(
        ("untested", "expected"),
        [
            ([0, 0, 0, 0, 0], (-2, 1)),
            ([0, 1, 0, 1, 0], (-2, 0)),  # beside no other a point without a test counts for nothing
            ([1, 1, 0, 0, 0], (0, 1)),
            ([1, 0, 0, 0, 0], (-2, 1)),
        ],
    )
    def test_points_without_a_test_count_beside_others_that_pass(self, untested, expected):
        ends = preference.robust_over(
            np.arange(-2.0, 3.0), np.array([1, 1, 1, 1, 0], bool), identity=0.0, untested=np.array(untested, bool)
        )
        assert ends == expected

    def test_a_side_without_edits_is_not_walked(self):
        found = preference.robust_over(np.arange(3.0), np.ones(3, bool), identity=1.0, sides=("below",))
        assert found == (0, 1)


def study(ratios, rng=None, seeds=6, spread=0.2):
    """The doses of every family and level in one study: a common base times a family's ratio, seeds spread about it."""
    rng = rng or np.random.default_rng(0)
    noise = spread * rng.standard_normal((len(ratios), len(LEVELS), seeds))
    return {
        (family, level): exact(ratio * level**0.5 * np.exp(noise[f, k]))
        for f, (family, ratio) in enumerate(ratios.items())
        for k, level in enumerate(LEVELS)
    }


READS = {
    "distance": {"floor": 0.3, "dead_zone": 0.4, "clip_both": 2.0, "noise": 1.0},
    "intensity": {"floor": 2.0, "dead_zone": 3.0, "clip_both": 0.3, "noise": 1.0},
    "neither": {"floor": 1.0, "dead_zone": 1.0, "clip_both": 1.0, "noise": 1.0},
}


class TestVerdict:
    @pytest.mark.parametrize("answer", list(READS))
    @pytest.mark.parametrize("seeds", [2, 6])
    def test_ratios_without_a_spread_support_no_claim(self, answer, seeds):
        verdict = preference.verdict(study(READS[answer], seeds=seeds, spread=0.0), 0.95)
        assert verdict.answer == "neither"
        assert np.isnan([verdict.p_distance, verdict.p_intensity]).all()
        whole = {2: "both seeds", 6: "all 6 seeds"}[seeds]
        assert verdict.reason == f"no test, since {whole} have the same ratios of doses"

    def test_a_single_comparison_without_a_spread_is_named(self):
        costs = study(READS["distance"], spread=0.05)
        costs["floor", LEVELS[1]] = exact(0.1 * costs["clip_both", LEVELS[1]].dose)
        verdict = preference.verdict(costs, 0.95)
        assert (verdict.answer, verdict.p_distance) == ("neither", pytest.approx(np.nan, nan_ok=True))
        assert (
            verdict.reason == "no test, since all 6 seeds have the same ratios of doses of floor to clip_both at 10 %"
        )

    @pytest.mark.parametrize("answer", list(READS))
    def test_is_right_of_networks_that_read_one_the_other_or_neither(self, answer):
        found = preference.verdict(study(READS[answer], spread=0.05), 0.95)
        assert found.answer == answer
        shown = {"distance": found.p_distance, "intensity": found.p_intensity}
        assert [name for name, p in shown.items() if p < 0.05] == [name for name in shown if name == answer]
        if answer == "neither":
            assert "needs equal doses" in found.reason

    @pytest.mark.parametrize(
        ("ratios", "claim"),
        [
            (READS["neither"], "distance"),
            # One part is on the border of its hypothesis, and all others are far beyond it: the worst case.
            (READS["distance"] | {"floor": 1.0}, "distance"),
            (READS["distance"] | {"dead_zone": 2.0}, "distance"),
            (READS["intensity"] | {"clip_both": 1.0, "floor": 4.0, "dead_zone": 4.0}, "intensity"),
            (READS["intensity"] | {"floor": 0.3}, "intensity"),
        ],
    )
    def test_is_wrong_as_often_as_it_says_at_most(self, ratios, claim):
        rng, studies, alpha = np.random.default_rng(6), 200, 0.05
        wrong = sum(preference.verdict(study(ratios, rng), 1 - alpha).answer == claim for _ in range(studies))
        assert wrong <= stats.binom.ppf(0.999, studies, alpha)

    @pytest.mark.parametrize("answer", ["distance", "intensity"])
    def test_finds_what_is_there(self, answer):
        rng = np.random.default_rng(7)
        found = [preference.verdict(study(READS[answer], rng), 0.95).answer for _ in range(50)]
        assert found.count(answer) >= 48

    def test_is_wrong_no_more_often_where_grids_end_before(self):
        rng, studies = np.random.default_rng(8), 200
        wrong = 0
        for _ in range(studies):
            costs = study(READS["distance"] | {"floor": 2.0}, rng)
            ended = {
                key: DosesAtLevel(np.where(d.dose > 0.19 + 0 * d.dose, INF, d.dose), np.full(6, 0.19))
                for key, d in costs.items()
            }
            wrong += preference.verdict(ended, 0.95).answer == "distance"
        assert wrong <= stats.binom.ppf(0.999, studies, 0.05)

    def test_large_values_that_never_cost_anything_do_not_stand_in_the_way(self):
        costs = study(READS["distance"], spread=0.05)
        costs |= {("clip_both", level): DosesAtLevel(np.full(6, INF), np.full(6, 0.9)) for level in LEVELS}
        assert preference.verdict(costs, 0.95).answer == "distance"

    def test_small_values_that_never_cost_anything_are_not_shown_to_be_read(self):
        costs = study(READS["distance"], spread=0.05)
        costs |= {("floor", level): DosesAtLevel(np.full(6, INF), np.full(6, 0.9)) for level in LEVELS}
        found = preference.verdict(costs, 0.95)
        assert found.answer == "neither"
        assert found.p_distance == 1
        assert "floor and dead_zone disagree" in found.reason or "only less" in found.reason

    @pytest.mark.parametrize(
        ("ratios", "reason"),
        [
            ({"floor": 0.3, "dead_zone": 3.0, "clip_both": 1.0, "noise": 0.5}, "floor and dead_zone disagree"),
            (
                READS["distance"] | {"noise": 0.3},
                "than noise: floor at 1 %, dead_zone at 1 %, floor at 10 %, dead_zone at 10 %",
            ),
            (
                READS["intensity"] | {"noise": 0.1},
                "erasing large values needs less dose than erasing small ones, but is not shown",
            ),
            (READS["distance"] | {"dead_zone": 2.0}, "undecided: only less dose than clip_both for floor at 1 %"),
        ],
    )
    def test_says_why_neither_is_shown(self, ratios, reason):
        rng = np.random.default_rng(9)
        found = preference.verdict(study(ratios, rng, spread=0.1), 0.95)
        assert found.answer == "neither"
        assert reason in found.reason

    def test_levels_that_disagree_are_said_to(self):
        costs = study(READS["distance"], spread=0.05)
        costs |= {(f, 0.1): exact(9 * costs[f, 0.1].dose) for f in ("floor", "dead_zone")}
        assert "levels disagree" in preference.verdict(costs, 0.95).reason

    def test_of_much_spread_it_is_undecided(self):
        found = preference.verdict(study(READS["neither"], spread=1.0), 0.95)
        assert found.answer == "neither"
        small, large = "erasing small values", "erasing large ones"
        assert found.reason == f"undecided: {small} is not shown to need another dose than {large}", "nothing censored"

    def test_a_flat_network_one_seed_and_a_missing_family_have_their_answers(self):
        flat = {key: DosesAtLevel(np.full(6, INF), np.full(6, 0.9)) for key in study(READS["neither"])}
        assert "no edit changes 1 % of predictions" in preference.verdict(flat, 0.95).reason
        one = preference.verdict(study(READS["distance"], seeds=1), 0.95)
        assert (one.answer, one.reason) == ("neither", "one seed, and tests are over seeds")
        assert np.isnan(one.p_distance)
        less = {key: doses for key, doses in study(READS["distance"]).items() if key[0] != "noise"}
        assert preference.verdict(less, 0.95)[:2] == ("neither", "not swept: noise")

    def test_seeds_without_a_dose_are_left_out_of_what_they_are_missing_of(self):
        costs = study(READS["distance"], spread=0.05)
        costs |= {("floor", level): exact(np.r_[NAN, costs["floor", level].dose[1:]]) for level in LEVELS}
        found = preference.verdict(costs, 0.95)
        assert found.answer == "distance"
        assert {c.ratio.missing for c in found.comparisons if c.first == "floor"} == {1}
        costs |= {("floor", level): exact(np.full(6, NAN)) for level in LEVELS}
        found = preference.verdict(costs, 0.95)
        assert (found.answer, found.reason) == ("neither", "doses are defined for fewer than two seeds")
