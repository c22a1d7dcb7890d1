"""Statistics: hand-worked numbers, agreement with SciPy, degenerate samples, and stated error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from jaxdist.analysis import statistics
from jaxdist.errors import InputError
from jaxdist.sweep import crossings

ROOT3 = math.sqrt(3)

# Three networks, three points, worked by hand; columns against the middle one.
# ref - column 0 = (.01, .02, .03): mean .02, sd .01, so t = .02 / (.01 / sqrt 3) = 2 sqrt 3.
# ref - column 2 = (-.03, -.01, -.02): mean -.02, sd .01, so t = -2 sqrt 3.
# With df = 2, P(|T| < t) = t / sqrt(t^2 + 2): p = 1 - sqrt(12 / 14) = 0.0742, and the 95 % quantile solves
# t / sqrt(t^2 + 2) = .95, giving .95 sqrt(2 / (1 - .9025)) = 4.3027.
HAND = np.array([[0.89, 0.90, 0.93], [0.90, 0.92, 0.93], [0.91, 0.94, 0.96]])
HAND_P = 1 - math.sqrt(12 / 14)
T95_DF2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))


def test_published_analysis_of_the_worked_example() -> None:
    result = statistics.as_published(HAND, baseline_index=1, confidence=0.95)
    np.testing.assert_allclose(result.mean, [0.90, 0.92, 0.94], rtol=1e-12)
    # Squared deviations sum to 2e-4, 8e-4, 6e-4; the population variance divides them by 3, the sample variance by 2.
    np.testing.assert_allclose(result.sd, np.sqrt([2e-4 / 3, 8e-4 / 3, 2e-4]), rtol=1e-12)
    half = T95_DF2 * np.sqrt([1e-4 / 3, 4e-4 / 3, 3e-4 / 3])
    np.testing.assert_allclose(result.low, result.mean - half, rtol=1e-10)
    np.testing.assert_allclose(result.high, result.mean + half, rtol=1e-10)
    np.testing.assert_allclose(result.t, [2 * ROOT3, 0, -2 * ROOT3], rtol=1e-8)
    np.testing.assert_allclose(result.p, [HAND_P, 1, HAND_P], rtol=1e-8)
    assert abs(HAND_P - 0.0742) < 5e-5
    assert abs(T95_DF2 - 4.3027) < 5e-5


def test_published_analysis_follows_the_baseline_index() -> None:
    result = statistics.as_published(HAND, baseline_index=0, confidence=0.95)
    np.testing.assert_allclose(result.t[:2], [0, -2 * ROOT3], rtol=1e-8)


@pytest.mark.parametrize("index", [-1, 3, 50])
def test_baseline_outside_the_grid_is_refused(index: int) -> None:
    with pytest.raises(InputError, match=f"0 to 2, got {index}"):
        statistics.as_published(HAND, baseline_index=index, confidence=0.95)


def test_corrected_analysis_of_the_worked_example() -> None:
    result = statistics.corrected(HAND, HAND[:, 1], margin=0.05, confidence=0.95)
    np.testing.assert_allclose(result.mean, [0.90, 0.92, 0.94], rtol=1e-12)
    np.testing.assert_allclose(result.drop, [0.02, 0, -0.02], atol=1e-12)
    half = T95_DF2 * 0.01 / ROOT3
    np.testing.assert_allclose(result.drop_low, [0.02 - half, 0, -0.02 - half], atol=1e-12)
    np.testing.assert_allclose(result.drop_high, [0.02 + half, 0, -0.02 + half], atol=1e-12)
    np.testing.assert_allclose(result.t, [2 * ROOT3, 0, -2 * ROOT3], rtol=1e-8)
    np.testing.assert_allclose(result.p, [HAND_P, 1, HAND_P], rtol=1e-8)
    # Holm multiplies the two equal smallest of three p-values by 3, and by 2 raised to the first.
    np.testing.assert_allclose(result.p_holm, [3 * HAND_P, 1, 3 * HAND_P], rtol=1e-8)
    np.testing.assert_allclose(result.effect_size, [2, 0, -2], rtol=1e-8)
    # t = (.02 - .05) sqrt 3 / .01 = -3 sqrt 3 and (-.02 - .05) sqrt 3 / .01 = -7 sqrt 3; P(T < t) with df = 2 is
    # 1/2 + t / (2 sqrt(t^2 + 2)). The one-sided 95 % quantile solves t / sqrt(t^2 + 2) = .9: 2.9200.
    lower_tail = [0.5 - 0.5 * math.sqrt(27 / 29), 0, 0.5 - 0.5 * math.sqrt(147 / 149)]
    np.testing.assert_allclose(result.noninferiority_p, lower_tail, rtol=1e-8)
    bound = 0.02 + 0.9 * math.sqrt(2 / 0.19) * 0.01 / ROOT3
    assert bound == pytest.approx(0.02 + 2.9200 * 0.0057735, abs=1e-6)
    # The last bound, -.02 + .0169, is negative: every positive margin passes.
    np.testing.assert_allclose(result.smallest_margin, [bound, 0, 0], rtol=1e-8)
    assert result.noninferior.tolist() == [True, True, True]


def test_noninferiority_turns_at_the_smallest_margin() -> None:
    smallest = statistics.corrected(HAND, HAND[:, 1], margin=0.05, confidence=0.95).smallest_margin[0]
    for margin, passes in ((smallest - 1e-9, False), (smallest + 1e-9, True)):
        result = statistics.corrected(HAND, HAND[:, 1], margin=margin, confidence=0.95)
        assert result.noninferior[0] == passes
        assert result.noninferiority_p[0] == pytest.approx(0.05, abs=1e-6)
        assert (result.noninferiority_p[0] < 0.05) == passes


@pytest.mark.parametrize("seeds", [2, 6, 20])
def test_paired_t_and_noninferiority_agree_with_scipy(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    reference = rng.uniform(0.9, 0.95, seeds)
    values = reference[:, None] - rng.normal(0.01, 0.02, (seeds, 40))
    expected = stats.ttest_rel(reference[:, None], values)
    result = statistics.paired_t(reference, values)
    np.testing.assert_allclose(result.t, expected.statistic, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(result.p, expected.pvalue, rtol=1e-7)

    ours = statistics.corrected(values, reference, margin=0.02, confidence=0.9)
    one_sided = stats.ttest_rel(reference[:, None] - 0.02, values, alternative="less")
    np.testing.assert_allclose(ours.noninferiority_p, one_sided.pvalue, rtol=1e-7)
    np.testing.assert_array_equal(ours.noninferior, ours.noninferiority_p < 1 - 0.9)
    assert 0 < ours.noninferior.sum() < 40, "the example must contain both answers"
    interval = expected.confidence_interval(0.9)
    np.testing.assert_allclose(ours.drop_low, interval.low, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.drop_high, interval.high, rtol=1e-7, atol=1e-9)
    drops = reference[:, None] - values
    np.testing.assert_allclose(ours.effect_size, drops.mean(0) / drops.std(0, ddof=1), rtol=1e-7, atol=1e-9)


def test_t_is_positive_where_accuracy_is_below_the_reference() -> None:
    reference = np.array([0.98, 0.97, 0.99])
    lower, higher = reference - np.array([0.1, 0.2, 0.15]), reference + np.array([0.001, 0.002, 0.0])
    t, _ = statistics.paired_t(reference, np.stack([lower, higher], axis=1))
    assert t[0] > 0 > t[1]


def test_paired_t_of_differences_without_a_spread_is_no_test() -> None:
    # 0.12 - 0.11, 0.97 - 0.96 and 0.5 - 0.49 differ in their last bits; as counts of images they are one drop.
    reference = np.array([0.12, 0.97, 0.5])
    lower = np.array([0.11, 0.96, 0.49])
    assert len(set(reference - lower)) > 1
    values = np.stack([reference, lower, reference + 0.25], axis=1)
    assert np.isnan(statistics.paired_t(reference, values)).all()
    t, p = statistics.paired_t(reference, values, exact=np.array([True, False, False]))
    np.testing.assert_array_equal(t, [0, np.nan, np.nan])
    np.testing.assert_array_equal(p, [1, np.nan, np.nan])


@pytest.mark.parametrize("seeds", [2, 3, 6, 20])
def test_seeds_that_lose_alike_have_a_drop_and_nothing_else(seeds: int) -> None:
    unperturbed = np.random.default_rng(seeds).integers(300, 970, seeds) / 1000
    drops = np.array([0.0, 0.005, 0.01, 0.02, -0.02, 0.15])
    accuracy = unperturbed[:, None] - drops
    result = statistics.corrected(accuracy, unperturbed, margin=0.01, confidence=0.95)
    np.testing.assert_allclose(result.drop, drops, atol=1e-12)
    for name in ("t", "p", "p_holm", "effect_size", "drop_low", "drop_high", "noninferiority_p", "smallest_margin"):
        assert np.isnan(getattr(result, name)[1:]).all(), name
    assert not result.noninferior[1:].any()
    # No change of any network is what no edit is.
    assert [float(values[0]) for values in (result.t, result.p, result.drop_low, result.drop_high)] == [0, 1, 0, 0]
    assert result.noninferior[0]
    published = statistics.as_published(accuracy, baseline_index=0, confidence=0.95)
    assert (published.t[0], published.p[0]) == (0, 1)
    assert np.isnan([published.t[1:], published.p[1:]]).all()


@pytest.mark.parametrize("seeds", [2, 3])
def test_whatever_the_sample_no_statistic_is_infinite_or_certain(seeds: int) -> None:
    """Accuracies of few images, where seeds are often alike."""
    rng = np.random.default_rng(seeds)
    unperturbed = rng.integers(14, 17, seeds) / 20
    accuracy = rng.integers(12, 15, (seeds, 400)) / 20
    result = statistics.corrected(accuracy, unperturbed, margin=0.2, confidence=0.95)
    alike = np.ptp(np.round(unperturbed[:, None] - accuracy, 9), axis=0) == 0
    changed = np.abs(result.drop) > 1e-9
    assert (alike & changed).sum() > 3
    assert not np.isinf([*result[:-3], result.smallest_margin]).any()
    for p in (result.p, result.p_holm, result.noninferiority_p):
        assert ((p[changed] > 0) | np.isnan(p[changed])).all()
    np.testing.assert_array_equal(np.isnan(result.p), alike & changed)
    tested = ~np.isnan(result.p)
    np.testing.assert_allclose(result.p_holm[tested], statistics.holm(result.p[tested], hypotheses=400))


def test_one_seed_has_means_but_no_inference() -> None:
    interval = statistics.mean_interval(np.array([[0.9, 0.8]]), 0.95)
    assert interval.mean.tolist() == [0.9, 0.8]
    assert interval.sd.tolist() == [0, 0]
    assert np.isnan([interval.low, interval.high]).all()
    t, p = statistics.paired_t(np.array([0.9]), np.array([[0.9, 0.8]]))
    assert np.isnan([t, p]).all()
    result = statistics.corrected(np.array([[0.9, 0.8]]), np.array([0.9]), margin=0.01, confidence=0.95)
    np.testing.assert_allclose(result.drop, [0, 0.1], atol=1e-12)
    undefined = result._asdict()
    for name in ("mean", "drop"):
        undefined.pop(name)
    assert undefined.pop("noninferior").tolist() == [False, False]
    assert np.isnan(list(undefined.values())).all()


def test_equal_values_have_a_mean_and_no_interval() -> None:
    # numpy's mean of three 0.1 is not 0.1.
    assert np.full(3, 0.1).mean() != 0.1
    values = np.full((3, 2), 0.1)
    mean, low, high, sd = statistics.mean_interval(values, 0.95)
    assert (mean == 0.1).all()
    assert np.isnan([low, high, statistics.upper_bound(values, 0.95)]).all()
    assert (sd == 0).all()
    _, low, high, _ = statistics.mean_interval(values, 0.95, exact=np.array([True, False]))
    assert low[0] == high[0] == 0.1
    assert np.isnan([low[1], high[1]]).all()


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([[0.5]], [False]),
        ([[0.5, 0.5], [0.5, 0.6]], [False, True]),
        ([[1.0, 0.0], [1.0, 0.0], [1.0, 1e-9]], [False, True]),
        (np.zeros((0, 3)), [False] * 3),
    ],
)
def test_a_spread_takes_two_seeds_that_are_not_alike(values: object, spread: list[bool]) -> None:
    assert statistics.shows_spread(np.array(values)).tolist() == spread


def test_mean_interval_keeps_trailing_axes() -> None:
    values = np.random.default_rng(0).uniform(size=(5, 2, 3))
    result = statistics.mean_interval(values, 0.9)
    one = statistics.mean_interval(values[:, 1, 2], 0.9)
    for whole, single in zip(result, one, strict=True):
        assert whole.shape == (2, 3)
        np.testing.assert_allclose(whole[1, 2], single, rtol=1e-12)


def test_holm_by_hand() -> None:
    # Sorted and multiplied by 3, 2, 1: .03, .04, .03; made increasing: .03, .04, .04.
    np.testing.assert_allclose(statistics.holm(np.array([0.01, 0.02, 0.03])), [0.03, 0.04, 0.04])
    np.testing.assert_allclose(statistics.holm(np.array([0.03, 0.01, 0.02])), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(statistics.holm(np.array([0.6, 0.9])), [1, 1])


def test_holm_leaves_nan_out_of_the_count() -> None:
    np.testing.assert_allclose(statistics.holm(np.array([0.01, np.nan, 0.04])), [0.02, np.nan, 0.04])
    assert np.isnan(statistics.holm(np.full(2, np.nan))).all()


@pytest.mark.slow  # statsmodels takes half a minute to import
@pytest.mark.parametrize("size", [0, 1, 2, 7, 40])
def test_holm_is_that_of_statsmodels(size: int) -> None:
    """With ties, certainties and p-values that are not defined."""
    rng = np.random.default_rng(size)
    for draw in range(25):
        p = rng.uniform(size=size) ** 3
        if draw % 2:
            p = np.round(p, 1)
        p[rng.uniform(size=size) < 0.2 * (draw % 3)] = np.nan
        tested = ~np.isnan(p)
        expected = p.copy()
        if tested.any():
            expected[tested] = multipletests(p[tested], method="holm")[1]
        given = p.copy()
        np.testing.assert_allclose(statistics.holm(p), expected, rtol=1e-12)
        np.testing.assert_array_equal(p, given, "what was given is as it was")
        # Hypotheses without a p-value count as not rejected, as those of p = 1 do.
        padded = np.concatenate([p[tested], np.ones(size - tested.sum() + 2)])
        adjusted = multipletests(padded, method="holm")[1][: tested.sum()]
        np.testing.assert_allclose(statistics.holm(p, hypotheses=size + 2)[tested], adjusted, rtol=1e-12)


def test_holm_refuses_fewer_hypotheses_than_there_are_p_values() -> None:
    with pytest.raises(InputError, match="at least as many as the 3 p-values, got 2"):
        statistics.holm(np.array([0.1, 0.2, np.nan, 0.3]), hypotheses=2)


def test_a_median_of_equal_values_has_its_interval_which_takes_no_spread() -> None:
    assert statistics.median_interval(np.full(6, 0.3), 0.95) == (0.3, 0.3, 0.3)


def test_noninferiority_error_rate_at_the_margin() -> None:
    """A true mean drop equal to the margin passes in 5 % of experiments: 20,000 binomial draws, false alarm 1e-6."""
    experiments, seeds, margin = 20_000, 8, 0.01
    rng = np.random.default_rng(0)
    unperturbed = rng.uniform(0.8, 0.9, seeds)
    accuracy = unperturbed[:, None] - rng.normal(margin, 0.004, (seeds, experiments))
    passed = statistics.corrected(accuracy, unperturbed, margin=margin, confidence=0.95).noninferior.sum()
    low, high = stats.binom(experiments, 0.05).ppf([5e-7, 1 - 5e-7])
    assert low <= passed <= high


def test_median_interval_of_six_and_of_five() -> None:
    # Six values: from the smallest to the largest misses the median with probability 2 / 2^6 = 3.1 %; five: 6.3 %.
    assert statistics.median_interval(np.array([5.0, 1, 4, 2, 3, 9]), 0.95) == (3.5, 1, 9)
    median, low, high = statistics.median_interval(np.array([5.0, 1, 4, 2, 3]), 0.95)
    assert median == 3
    assert math.isnan(low)
    assert math.isnan(high)
    assert statistics.median_interval(np.array([5.0, 1, 4, 2, 3]), 0.9) == (3, 1, 5)
    assert statistics.median_interval(np.array([2.0]), 0.95).median == 2


def test_median_interval_of_censored_values() -> None:
    inf = math.inf
    assert statistics.median_interval(np.array([1, 2, 3, 4, 5, inf]), 0.95) == (3.5, 1, inf)
    assert statistics.median_interval(np.array([1, 2, 3, inf, inf, inf]), 0.95) == (inf, 1, inf)
    assert statistics.median_interval(np.full(6, inf), 0.95) == (inf, inf, inf)
    assert statistics.median_interval(np.array([-inf, -inf, -inf, 1, 2, 3]), 0.95) == (-inf, -inf, 3)


def test_median_interval_coverage() -> None:
    """Twenty values, the 6th to the 15th: misses if at most 5 fall on one side, 4.14 %. 2,000 draws, false alarm 1e-6.

    The values are skewed, and censored above 1.2, which must not matter to an interval of order statistics.
    """
    samples = np.random.default_rng(1).lognormal(size=(2_000, 20))
    samples[samples > 1.2] = np.inf
    covered = 0
    for sample in samples:
        _, low, high = statistics.median_interval(sample, 0.95)
        covered += low <= 1 <= high
    coverage = 1 - 2 * sum(math.comb(20, k) for k in range(6)) / 2**20
    assert coverage == pytest.approx(0.9586, abs=5e-5)
    low, high = stats.binom(len(samples), coverage).ppf([5e-7, 1 - 5e-7])
    assert low <= covered <= high


def exits(
    drops: list[list[float]], fractions: list[float], identity: float = 0, coordinate: str = "linear", **options: str
) -> crossings.Tolerance:
    """Tolerance at a margin of one point for networks of unperturbed accuracies 0.9, 0.81, 0.72, ..."""
    unperturbed = 0.9 - 0.09 * np.arange(len(drops))
    return crossings.tolerance(
        np.array(fractions),
        unperturbed[:, None] - np.array(drops).reshape(len(drops), -1),
        unperturbed,
        identity=identity,
        coordinate=coordinate,  # type: ignore[arg-type]
        side=options.get("side", "above"),  # type: ignore[arg-type]
        margin=0.01,
    )


def test_tolerance_of_every_kind_of_curve() -> None:
    curves = {
        # drop at fractions 0.1, 0.2, 0.3, 0.4: exit, censored, re-entered
        (0.0, 0.005, 0.015, 0.03): (0.25, False, False),  # halfway between 0.2 and 0.3
        (0.0, 0.02, 0.0, 0.0): (0.15, False, True),  # re-enters and stays
        (0.0, 0.02, 0.0, 0.02): (0.15, False, True),  # re-enters and leaves again: the first exit counts
        (0.0, 0.0, 0.009, 0.0099): (math.inf, True, False),  # never leaves
        (0.0, 0.0, 0.0, 0.0): (math.inf, True, False),  # flat
        (0.04, 0.04, 0.04, 0.04): (0.025, False, False),  # leaves before the first point: a quarter of the way
        (0.0, 0.01, 0.01, 0.01): (0.2, False, False),  # exactly the margin is out, and stays out
        (0.0, 0.0, 0.0, 0.01): (0.4, False, False),  # exactly the margin at the end of the grid
        (-0.01, -0.01, 0.03, 0.03): (0.25, False, False),  # gains accuracy first
    }
    result = exits([list(curve) for curve in curves], [0.1, 0.2, 0.3, 0.4])
    expected = list(curves.values())
    np.testing.assert_allclose(result.exit, [exit for exit, _, _ in expected], rtol=1e-9)
    assert result.censored.tolist() == [censored for _, censored, _ in expected]
    assert result.reentered.tolist() == [reentered for _, _, reentered in expected]


@pytest.mark.parametrize("counts", [(120, 110), (970, 960), (999, 989), (10, 0)])
def test_a_drop_of_exactly_the_margin_is_out_whatever_the_rounding(counts: tuple[int, int]) -> None:
    accuracy = np.array([[counts[1] / 1000]])
    result = crossings.tolerance(
        np.array([0.5]),
        accuracy,
        np.array([counts[0] / 1000]),
        identity=0,
        coordinate="linear",
        side="above",
        margin=0.01,
    )
    assert result.exit == pytest.approx(0.5)
    third = statistics.corrected(np.array([[2 / 3], [1 / 3]]), np.array([1, 2 / 3]), margin=1 / 3, confidence=0.95)
    assert not third.noninferior[0]


def test_tolerance_in_log_coordinates() -> None:
    # Half of the margin at 0.5, one and a half at 0.25: halfway in the logarithm is sqrt(0.5 * 0.25) = 0.35355.
    # Above: 2 % at 2, so half of the way from 1 to 2 in the logarithm, sqrt 2.
    drops, grid = [[0.015, 0.005, 0.0, 0.02]], [0.25, 0.5, 1, 2]
    below = exits(drops, grid, 1, "log", side="below")
    above = exits(drops, grid, 1, "log", side="above")
    assert below.exit == pytest.approx(math.sqrt(0.125), rel=1e-9)
    assert above.exit == pytest.approx(math.sqrt(2), rel=1e-9)
    assert exits(drops, grid, 1, "linear", side="below").exit == pytest.approx(0.375, rel=1e-9)


def test_tolerance_walks_each_side_by_itself() -> None:
    drops, grid = [[0.03, 0.0, 0.0, 0.02], [0.0, 0.0, 0.0, 0.02]], [-0.2, -0.1, 0.1, 0.2]
    below, above = exits(drops, grid, side="below"), exits(drops, grid, side="above")
    np.testing.assert_allclose(below.exit, [-0.1 - 0.1 / 3, -math.inf], rtol=1e-9)
    assert below.censored.tolist() == [False, True]
    np.testing.assert_allclose(above.exit, [0.15, 0.15], rtol=1e-9)


def test_the_drop_at_the_identity_is_zero_by_definition() -> None:
    # Without the point at 0, and with it whatever was measured there: from (0, 0) to (0.1, 0.02) the exit is at 0.05.
    assert exits([[0.02]], [0.1]).exit == pytest.approx(0.05, rel=1e-9)
    assert exits([[0.05, 0.02]], [0.0, 0.1]).exit == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize(("side", "end"), [("below", -math.inf), ("above", math.inf)])
def test_a_side_without_points_is_censored(side: str, end: float) -> None:
    grid = [0.0, 0.1] if side == "below" else [-0.1, 0.0]
    result = exits([[0.5, 0.5], [0.5, 0.5]], grid, side=side)
    assert result.exit.tolist() == [end, end]
    assert result.censored.tolist() == [True, True]
    assert result.reentered.tolist() == [False, False]


def test_the_order_of_the_seeds_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    unperturbed = rng.uniform(0.85, 0.9, 7)
    accuracy = unperturbed[:, None] - rng.normal(0.01, 0.01, (7, 12))
    order = rng.permutation(7)
    assert (order != np.arange(7)).any()

    def analyses(accuracy: np.ndarray, unperturbed: np.ndarray) -> list[np.ndarray]:
        published = statistics.as_published(accuracy, baseline_index=5, confidence=0.95)
        corrected = statistics.corrected(accuracy, unperturbed, margin=0.01, confidence=0.95)
        return [*published, *corrected, *statistics.median_interval(unperturbed, 0.95)]

    for one, other in zip(analyses(accuracy, unperturbed), analyses(accuracy[order], unperturbed[order]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)

    def radius(accuracy: np.ndarray, unperturbed: np.ndarray) -> crossings.Tolerance:
        grid = np.arange(1, 13) / 10
        return crossings.tolerance(
            grid, accuracy, unperturbed, identity=0, coordinate="linear", side="above", margin=0.02
        )

    for one, other in zip(radius(accuracy, unperturbed), radius(accuracy[order], unperturbed[order]), strict=True):
        np.testing.assert_array_equal(one[order], other)


GRID, ACCURACY, UNPERTURBED = np.array([0.1, 0.2]), np.full((3, 2), 0.9), np.full(3, 0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 100 * ACCURACY}, "accuracy: expected fractions from 0 to 1 with 2 axes, got .* 90.0"),
        ({"accuracy": np.full((3, 2), np.nan)}, "accuracy: expected fractions"),
        ({"unperturbed": ACCURACY}, "unperturbed: expected fractions from 0 to 1 with 1 axis,"),
        ({"unperturbed": UNPERTURBED[:2]}, r"same seeds, got \(2,\) and \(3, 2\)"),
        ({"fractions": GRID[:1]}, "fractions: expected 2 strictly increasing"),
        ({"fractions": GRID[::-1]}, "fractions: expected 2 strictly increasing"),
        ({"coordinate": "log"}, "fractions: expected positive"),
        ({"coordinate": "sqrt"}, "coordinate: expected one of linear, log, got 'sqrt'"),
        ({"side": "left"}, "side: expected one of below, above, got 'left'"),
        ({"margin": 0.0}, "margin: expected a positive fraction, got 0.0"),
    ],
)
def test_tolerance_refuses(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "fractions": GRID,
        "accuracy": ACCURACY,
        "unperturbed": UNPERTURBED,
        "identity": 0,
        "coordinate": "linear",
        "side": "above",
        "margin": 0.01,
    }
    with pytest.raises(InputError, match=message):
        crossings.tolerance(**{**arguments, **changes})  # type: ignore[arg-type]


def test_others_refuse() -> None:
    with pytest.raises(InputError, match="margin: expected"):
        statistics.corrected(ACCURACY, UNPERTURBED, margin=-0.01, confidence=0.95)
    with pytest.raises(InputError, match="confidence: expected"):
        statistics.mean_interval(UNPERTURBED, 95)
    with pytest.raises(InputError, match="at least one seed"):
        statistics.mean_interval(np.zeros((0, 2)), 0.95)
    with pytest.raises(InputError, match="NaN"):
        statistics.median_interval(np.array([1, np.nan]), 0.95)
    with pytest.raises(InputError, match="-inf and inf"):
        statistics.median_interval(np.array([-np.inf, 1, np.inf]), 0.95)
    with pytest.raises(InputError, match="one value per seed"):
        statistics.median_interval(np.zeros(0), 0.95)
