"""One network over its images: brute force, agreement with statsmodels, limits, and stated error rates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from jaxdist import config
from jaxdist.analysis import one_network, statistics, tables
from jaxdist.analysis.one_network import Images
from jaxdist.analysis.series import every_series
from jaxdist.errors import InputError
from jaxdist.sweep import crossings
from tests.results_support import made_up

OPTIONS = config.StatisticsConfig()


def every(total):
    """Every pair of images lost and won that so many images can have, half of them right unedited."""
    half = total // 2
    lost, won = np.array(list(itertools.product(range(half + 1), range(total - half + 1)))).T
    return Images(lost, won, half, total)


def test_images_lost_and_won_are_those_of_the_images_themselves():
    rng = np.random.default_rng(0)
    before, after = rng.random(60) < 0.8, rng.random((5, 60)) < 0.6
    kept = (before & after).sum(1)
    found = one_network.images(after.sum(1), kept, before.sum(), 60)
    np.testing.assert_array_equal(found.lost, (before & ~after).sum(1))
    np.testing.assert_array_equal(found.won, (~before & after).sum(1))
    np.testing.assert_array_equal(found.correct, after.sum(1))
    np.testing.assert_allclose(found.drop, before.mean() - after.mean(1))


@pytest.mark.parametrize(
    ("correct", "kept", "unperturbed"), [([5], [6], 8), ([8], [7], 6), ([9], [2], 8), ([5, 5], [5], 8), ([5], [5], 11)]
)
def test_counts_that_no_images_can_have_are_refused(correct, kept, unperturbed):
    with pytest.raises(InputError, match="kept: expected"):
        one_network.images(np.array(correct), np.array(kept), unperturbed, 10)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilsons_interval_is_that_of_statsmodels(confidence):
    counts = np.arange(41)
    low, high = one_network.wilson(counts, 40, confidence)
    expected = proportion_confint(counts, 40, 1 - confidence, "wilson")
    np.testing.assert_allclose([low, high], expected, atol=1e-12)
    assert (low[0], high[-1]) == (0, 1)


def test_mcnemars_test_is_that_of_statsmodels():
    counted = every(14)
    p = one_network.mcnemar(counted)
    expected = [
        mcnemar([[0, lost], [won, 0]], exact=True).pvalue for lost, won in zip(counted.lost, counted.won, strict=True)
    ]
    np.testing.assert_allclose(p, expected, atol=1e-12)
    assert p[0] == 1, "no image changes"


def test_the_drops_interval_is_the_wald_interval_with_two_images_more():
    lost, won, total = 9, 4, 50
    low, high = one_network.drop_interval(Images(np.array([lost]), np.array([won]), 40, total), 0.9)
    each = DescrStatsW(np.repeat([1.0, -1.0, 0.0], [lost + 1, won + 1, total - lost - won]))
    # statsmodels has the standard error with ddof 1; the interval's is the maximum likelihood one.
    half = stats.norm.ppf(0.95) * each.std_mean * np.sqrt((total + 1) / (total + 2))
    np.testing.assert_allclose([low[0], high[0]], [each.mean - half, each.mean + half], rtol=1e-12)


@pytest.mark.parametrize("total", [1, 2, 12, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_drop_lies_in_its_interval_whatever_the_counts(total, confidence):
    counted = every(total)
    low, high = one_network.drop_interval(counted, confidence)
    assert (low <= counted.drop).all()
    assert (counted.drop <= high).all()
    assert (low >= -1).all()
    assert (high <= 1).all()


def test_limits():
    alike = Images(np.zeros(1, int), np.zeros(1, int), 900, 1000)
    low, high = one_network.drop_interval(alike, 0.95)
    assert low == -high
    assert high == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(2) / 1002), "no discordant pair still has a width"
    all_lost = Images(np.array([1000]), np.zeros(1, int), 1000, 1000)
    low, high = one_network.drop_interval(all_lost, 0.95)
    assert high == 1
    assert 0.99 < low < 1
    found = one_network.corrected(all_lost, margin=0.01, confidence=0.95)
    assert found.mean == found.low == 0
    assert found.smallest_margin == 1
    assert not found.noninferior
    assert found.p < 1e-300
    many = Images(np.array([20]), np.array([10]), 900, 10**7)
    assert np.ptp(one_network.drop_interval(many, 0.95)) < 5e-6, "more images, narrower"


def test_the_drops_interval_covers_at_its_stated_rate():
    """Exact coverage by enumeration, then 20,000 draws against it with a false alarm of 1e-6."""
    total, chances, confidence = 60, (0.06, 0.02), 0.95
    lost, won = np.array([(b, c) for b in range(total + 1) for c in range(total + 1 - b)]).T
    counted = Images(lost, won, total, total)
    low, high = one_network.drop_interval(counted, confidence)
    covers = (low <= 0.04) & (high >= 0.04)
    likely = stats.multinomial(total, [*chances, 1 - sum(chances)]).pmf(np.stack([lost, won, total - lost - won], -1))
    exact = float(likely[covers].sum())
    assert 0.94 < exact < 0.99
    drawn = np.random.default_rng(1).multinomial(total, [*chances, 1 - sum(chances)], 20_000)
    low, high = one_network.drop_interval(Images(drawn[:, 0], drawn[:, 1], total, total), confidence)
    within = stats.binom(len(drawn), exact).ppf([5e-7, 1 - 5e-7])
    assert within[0] <= ((low <= 0.04) & (high >= 0.04)).sum() <= within[1]


def test_mcnemars_test_rejects_no_more_often_than_it_says():
    """Given so many changed images, each as likely lost as won: the exact chance of p below the level is at most it."""
    for changed in range(1, 60):
        lost = np.arange(changed + 1)
        p = one_network.mcnemar(Images(lost, changed - lost, 100, 200))
        assert stats.binom.pmf(lost, changed, 0.5)[p < 0.05].sum() <= 0.05 + 1e-12


def test_noninferiority_passes_at_its_stated_rate_at_the_margin():
    """A true drop of the margin passes in about 5 % of 20,000 draws: the normal approximation may be off by 1 %."""
    total, margin = 2000, 0.01
    drawn = np.random.default_rng(2).multinomial(total, [0.02, 0.01, 0.97], 20_000)
    found = one_network.corrected(Images(drawn[:, 0], drawn[:, 1], 1900, total), margin=margin, confidence=0.95)
    low, high = stats.binom(len(drawn), [0.04, 0.06]).ppf([5e-7, 1 - 5e-7])
    assert low <= found.noninferior.sum() <= high
    np.testing.assert_array_equal(found.noninferior, found.noninferiority_p < 1 - 0.95)


def test_the_smallest_margin_is_where_noninferiority_turns():
    counted = Images(np.array([30]), np.array([10]), 900, 1000)
    smallest = one_network.corrected(counted, margin=0.05, confidence=0.95).smallest_margin[0]
    for margin, passes in ((smallest - 1e-9, False), (smallest + 1e-9, True)):
        assert one_network.corrected(counted, margin=margin, confidence=0.95).noninferior[0] == passes


WAYS = {"identity": 0.0, "coordinate": "linear", "side": "above", "margin": 0.05}


def test_the_radius_interval_covers_at_its_stated_rate():
    """Each image is lost from a fraction of its own on, exponential with mean 1: the drop is 5 % at -log 0.95.

    500 networks; the band's tails are at most about 2.5 % each, so at least 93 % covered: false alarm 1e-6.
    """
    rng, grid, total = np.random.default_rng(3), np.linspace(0.01, 0.2, 39), 400
    truth, covered = -np.log(0.95), 0
    for _ in range(500):
        lost = np.searchsorted(np.sort(rng.exponential(size=total)), grid)
        counted = Images(lost, 0 * lost, total, total)
        low, high = one_network.radius_interval(grid, counted, **WAYS, confidence=0.95)
        point = crossings.tolerance(grid, 1 - lost[None] / total, np.ones(1), **WAYS).exit[0]
        assert low <= point <= high
        covered += low <= truth <= high
    assert covered >= stats.binom(500, 0.93).ppf(1e-6)
    assert covered < 500


def test_the_radius_interval_of_a_curve_worked_by_hand():
    grid, total = np.array([0.1, 0.2, 0.3]), 10_000
    lost = np.array([0, 500, 1000])
    counted = Images(lost, 0 * lost, 9000, total)
    found = one_network.radius_interval(grid, counted, **WAYS, confidence=0.95)
    low, high = one_network.drop_interval(counted, 0.95)
    early = 0.1 + 0.1 * (0.05 - high[0]) / (high[1] - high[0])
    late = 0.2 + 0.1 * (0.05 - low[1]) / (low[2] - low[1])
    np.testing.assert_allclose(found, [early, late], rtol=1e-9)


@pytest.mark.parametrize(("side", "end"), [("below", -np.inf), ("above", np.inf)])
def test_a_radius_may_be_censored_at_one_end_or_both(side, end):
    ways, grid = WAYS | {"side": side}, np.array([0.1, 0.2]) * (1 if side == "above" else -1)
    grid = np.sort(grid)
    none = Images(np.zeros(2, int), np.zeros(2, int), 900, 1000)
    assert one_network.radius_interval(grid, none, **ways, confidence=0.95) == (end, end)
    nearly = Images(np.array([45, 45]), np.zeros(2, int), 900, 1000)
    found = one_network.radius_interval(grid, nearly, **ways, confidence=0.95)
    assert found[0 if side == "below" else 1] == end
    assert np.isfinite(found[1 if side == "below" else 0])


def test_bad_options_are_refused():
    counted = Images(np.ones(1, int), np.ones(1, int), 5, 10)
    with pytest.raises(InputError, match="margin: expected"):
        one_network.corrected(counted, margin=0, confidence=0.95)
    with pytest.raises(InputError, match="confidence: expected"):
        one_network.wilson(np.ones(1), 10, 95)


def test_tables_take_images_where_there_is_one_seed_and_what_is_kept_is_known():
    one = made_up(seeds=1)
    points, reach = tables.points(one, OPTIONS), tables.tolerance(one, OPTIONS)
    assert set(points.over) == set(reach.over) == {"images"}
    assert points[["low", "high", "drop_low", "drop_high", "p", "p_holm", "smallest_margin"]].notna().to_numpy().all()
    assert points[["t", "effect_size", "published_t", "published_p"]].isna().to_numpy().all()
    assert (points.low <= points.accuracy).all()
    assert (points.accuracy <= points.high).all()
    assert (reach.low <= reach["median"]).all()
    assert (reach["median"] <= reach.high).all()
    row = points[(points.family == "clip") & (points.network == "abs") & (points.split == "test")].iloc[5]
    counts = one["clip"].sel(network="abs", seed=0, site="dense0/pre", split="test")
    lost = int(counts.unperturbed) - int(counts.kept[5])
    won = int(counts.correct[5]) - int(counts.kept[5])
    assert row.p == pytest.approx(stats.binomtest(lost, lost + won).pvalue)


@pytest.mark.parametrize("made", [{"seeds": 3}, {"seeds": 1, "kept": False}])
def test_tables_take_seeds_everywhere_else(made):
    result = made_up(**made)
    points, one = tables.points(result, OPTIONS), next(every_series(result))
    assert set(points.over) == {"seeds"}
    over_seeds = statistics.corrected(
        one.accuracy, one.unperturbed, margin=OPTIONS.margin, confidence=OPTIONS.confidence
    )
    found = points.iloc[: len(one.fraction)]
    for name in ("drop", "drop_low", "drop_high", "p", "smallest_margin"):
        np.testing.assert_array_equal(found[name], getattr(over_seeds, name))
    assert found.drop_low.isna().all() == (made["seeds"] == 1)
