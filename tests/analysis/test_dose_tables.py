"""The fair comparison as tables, of results whose doses are known."""

from __future__ import annotations

import dataclasses
import shlex

import numpy as np
import pytest

from jaxdist import config
from jaxdist.analysis import dose_tables, dosed, one_network, preference, statistics, tables
from jaxdist.errors import InputError
from jaxdist.perturbations import families
from jaxdist.report import markdown
from tests import dose_support, results_support
from tests.dose_support import DISTANCE, INTENSITY, NEITHER, TOTAL, made_up

OPTIONS = dose_support.OPTIONS


result, found = dose_support.result, dose_support.found


class TestDoses:
    def test_one_row_a_network_seed_site_split_family_gauge_and_fraction(self, result, found):
        frame = found.doses
        keys = ["network", "seed", "site", "split", "family", "gauge", "fraction"]
        assert not frame.duplicated(keys).any()
        assert list(frame.columns) == [*keys, "dose", "rms", "rms_plain", "flips", "flips_sd", "drop"]
        points = sum(result[name].sizes["fraction"] for name in dose_support.FAMILIES)
        assert (frame.gauge == "as_is").sum() == 2 * 6 * 2 * points
        assert set(frame[frame.gauge != "as_is"].network) == {"abs"}
        row = frame[(frame.family == "floor") & (frame.network == "abs") & (frame.seed == 3) & (frame.split == "test")]
        group = result["floor"].to_dataset().sel(network="abs", seed=3, site="dense0/pre", split="test")
        np.testing.assert_allclose(row.flips, 1 - group.agree / TOTAL, atol=1e-12)
        np.testing.assert_allclose(row["drop"], (group.unperturbed - group.correct) / TOTAL, atol=1e-12)
        np.testing.assert_array_equal(row.rms, group.rms)

    def test_draws_have_a_spread_and_others_none(self, found):
        drawn = found.doses.groupby(["family", "gauge"]).flips_sd.apply(lambda sd: sd.notna().all())
        assert {name for name, gauge in drawn[drawn].index if gauge == "as_is"} == set(dose_support.RANDOM)
        assert drawn["clip", "averaged"]
        assert not drawn["clip", "absolute"]

    def test_missing_seeds_and_the_site_of_all_have_no_doses(self):
        given = made_up(sites=("dense0/pre", "all"))
        for family in dose_support.FAMILIES:
            group = given[family].to_dataset()
            seed = group.seed == 2
            for name in ("correct", "agree", "kept"):
                group[name] = group[name].where(~seed, -1)
            for name in ("dose", "rms", "rms_plain"):
                group[name] = group[name].where(~seed & (group.site != "all"))
            given[family] = group
        found = dose_tables.compare(given, OPTIONS)
        assert set(found.doses.site) == {"dense0/pre", "all"}
        assert 2 not in set(found.doses.seed)
        assert {(one.site, one.seeds) for one in found.findings} == {("dense0/pre", 5)}
        assert {one.verdict.answer for one in found.findings if one.network == "relu"} == {"distance"}

    def test_a_result_without_doses_is_refused_with_what_to_do(self):
        with pytest.raises(InputError, match=r"--sweep\.dose true"):
            dose_tables.compare(results_support.made_up(), OPTIONS)


class TestCosts:
    def test_are_the_doses_that_the_curves_were_made_from(self, found):
        shown = found.costs[(found.costs.gauge == "as_is") & (found.costs.network == "relu")]
        for row in shown[shown.family != "scale"].itertuples():
            cost = (dose_support.OTHERS | DISTANCE)[row.family] * np.sqrt(row.level / 0.01)
            assert row.median == pytest.approx(cost, rel=0.15)
            assert row.low <= row.median <= row.high

    def test_a_scale_has_none_and_is_not_counted_as_one(self, found):
        scale = found.costs[found.costs.family == "scale"]
        assert (scale.reached == 0).all()

    def test_what_no_point_of_a_grid_costs_is_censored_with_a_bound(self):
        found = dose_tables.compare(made_up({"relu": DISTANCE | {"clip_both": 5.0}}), OPTIONS)
        rows = found.costs[found.costs.family == "clip_both"]
        assert np.isinf(rows["median"]).all()
        assert (rows.censored == 6).all()
        np.testing.assert_allclose(rows.reached, 0.9 * 0.999)
        # What never costs anything costs less, so the verdict stands.
        assert found.findings[0].verdict.answer == "distance"

    def test_undefined_doses_are_counted_and_left_out(self):
        given = made_up({"relu": DISTANCE})
        group = given["floor"].to_dataset()
        given["floor"] = group.assign(dose=group.dose.where(group.seed != 0))
        found = dose_tables.compare(given, OPTIONS)
        rows = found.costs[found.costs.family == "floor"]
        assert set(zip(rows.seeds, rows.missing, strict=True)) == {(5, 1)}
        assert found.findings[0].verdict.answer == "distance"

    def test_equal_doses_give_the_flips_of_the_curve_and_nothing_beyond_it(self, found):
        shown = found.equal[(found.equal.network == "abs") & (found.equal.family == "noise")]
        expected = dose_support.flips(np.array(dose_tables.EQUAL_DOSES), 0.1)
        np.testing.assert_allclose(shown[shown.split == "test"].flips, expected, rtol=0.3)
        assert found.equal[found.equal.family == "scale"].flips.isna().all()


class TestRho:
    def test_is_the_ratio_of_the_costs_and_pairs_networks_by_seed(self, found):
        frame = dose_tables.rho_frame(found.rhos)
        one = frame[(frame.split == "test") & (frame.gauge == "as_is") & (frame.side == "above")].set_index(
            ["network", "against", "level"]
        )
        for level in preference.LEVELS:
            relu, odd, both = (
                one.loc[key] for key in (("relu", "", level), ("abs", "", level), ("relu", "abs", level))
            )
            assert relu.at_least == pytest.approx(0.2 / 0.05, rel=0.2)
            assert odd.at_least == pytest.approx(0.02 / 0.05, rel=0.2)
            assert both.at_least == pytest.approx(relu.at_least / odd.at_least)
            assert relu.p_greater < 0.05
            assert odd.p_less < 0.05

    def test_pairing_takes_the_seeds_in_common(self):
        given = made_up()
        for family in ("clip", "offset"):
            group = given[family].to_dataset()
            gone = (group.network == "abs") & (group.seed < 2)
            for name in ("correct", "agree", "kept"):
                group[name] = group[name].where(~gone, -1)
            given[family] = group
        frame = dose_tables.rho_frame(dose_tables.compare(given, OPTIONS).rhos)
        assert set(frame[frame.against == "abs"].seeds) == {4}
        assert set(frame[(frame.against == "") & (frame.network == "relu")].seeds) == {6}

    def test_equal_costs_are_equivalent(self):
        costs = NEITHER | {"clip": 0.05}
        given = made_up({"relu": costs}, spread=0.03)
        assert all(one.ratio.equivalent for one in dose_tables.compare(given, OPTIONS).rhos)


class TestRobust:
    def test_every_point_within_passes_and_the_next_fails(self, found):
        options = dataclasses.replace(OPTIONS, flips=0.02)
        for one in found.swept[:12]:
            frame = dose_tables.robust([one], options)
            row = frame[frame.outcome == "flips"].iloc[0]
            # Where seeds flip alike, their flips have no bound, and are walked over as they are.
            margin = preference.flips_margin(one.flips, 0.95)
            margin = np.where(np.isnan(margin), one.flips.max(axis=0), margin)
            grid = one.series.fraction
            inside = (grid >= row.low) & (grid <= row.high)
            assert (margin[inside & (grid != one.series.identity)] < 0.02).all()
            for beyond in (grid < row.low, grid > row.high):
                at = np.flatnonzero(beyond)
                if len(at):
                    nearest = at[-1] if grid[at[0]] < row.low else at[0]
                    side = (grid > one.series.identity) == (grid[nearest] > one.series.identity)
                    assert margin[nearest] >= 0.02 or not statistics.shows_spread(one.flips)[side].any()

    @pytest.mark.parametrize(("loss", "end"), [(0.004, 0.4), (0.01, 0.2), (0.3, 0.2)])
    def test_a_point_where_seeds_flip_alike_is_walked_over_within_the_margin_only(self, loss, end):
        given = made_up({"relu": DISTANCE}, seeds=2)
        (one,) = (each for each in dosed.swept(given) if each.place[2] == "test" and each.series.family == "noise")
        flips = np.array([[0, 0.001, loss, 0.002, 0.5], [0, 0.002, loss, 0.0021, 0.9]])
        series = one.series._replace(
            fraction=np.array([0, 0.2, 0.3, 0.4, 0.5]), correct=np.tile(one.series.correct[:, :1], 5)
        )
        row = dose_tables.robust([one._replace(series=series, flips=flips)], dataclasses.replace(OPTIONS, flips=0.0099))
        assert row[row.outcome == "flips"].high.tolist() == [end]

    def test_seeds_that_flip_alike_everywhere_show_no_robustness(self):
        given = made_up({"relu": DISTANCE}, seeds=2)
        for one in dosed.swept(given):
            alike = one._replace(flips=one.flips[[0, 0]])
            row = dose_tables.robust([alike], dataclasses.replace(OPTIONS, flips=0.02))
            assert (row[row.outcome == "flips"][["low", "high"]] == one.series.identity).all(axis=None)

    def test_one_network_is_judged_over_its_images(self):
        found = dose_tables.compare(made_up(seeds=1), OPTIONS)
        assert (found.robust.over == "images").all()
        assert {one.verdict.reason for one in found.findings} == {"one seed, and tests are over seeds"}
        one = next(one for one in found.swept if one.series.family == "clip")
        expected = one_network.corrected(one.series.images, margin=0.01, confidence=0.95).noninferior
        row = found.robust[(found.robust.family == "clip") & (found.robust.outcome == "accuracy")].iloc[0]
        assert row.low == one.series.fraction[np.flatnonzero(~expected).max() + 1]


class TestGauges:
    def test_are_side_by_side_with_how_far_they_are_apart(self, found):
        assert set(found.gauges.network) == {"abs"}
        assert set(found.gauges.family) == {"clip", "offset", "shift"}
        means = found.gauges[["as_is", "averaged", "absolute"]]
        np.testing.assert_allclose(found.gauges.apart, means.max(axis=1) - means.min(axis=1))
        assert (found.gauges.apart <= found.gauges.most_apart).all()
        assert not found.gauges.duplicated(["network", "split", "family", "fraction"]).any()

    def test_are_left_out_where_there_is_one(self):
        assert dose_tables.compare(made_up(), OPTIONS).gauges.empty


class TestSites:
    def test_one_site_of_several_keeps_its_rows_only(self):
        found = dose_tables.compare(made_up(sites=("dense0/pre", "dense1/pre")), OPTIONS)
        one = found.at("dense1/pre")
        for frame in (one.doses, one.costs, one.equal, one.robust):
            assert set(frame.site) == {"dense1/pre"}
        assert 2 * len(one.findings) == len(found.findings)
        assert 2 * len(one.rhos) == len(found.rhos)
        with pytest.raises(InputError, match=r"expected one with doses \(dense0/pre, dense1/pre"):
            found.at("dense2/pre")


def test_what_is_lacking_is_named_and_the_command_keeps_what_is_there():
    given = made_up(left_out=("noise", "floor"))
    assert dosed.lacking(given) == ["noise", "floor"]
    command = dosed.command(given, "runs/x")
    assert command.startswith("jaxdist sweep runs/x --sweep.families scale,clip,offset,")
    assert command.endswith("--sweep.dose true")
    assert set(command.split()[4].split(",")) == set(dose_support.FAMILIES)
    assert dosed.lacking(results_support.made_up()) == list(dosed.NEEDED)


def test_the_command_asks_for_what_the_families_need_and_is_fit_for_a_shell():
    given = made_up(left_out=("noise",))
    options = config.override(config.Config(), {"ranges.measured_on": "pre", "sweep.layers": "all"})
    given.attrs["config"] = config.to_toml(options)
    _, *arguments = shlex.split(dosed.command(given, "my runs/x"))
    assert arguments[:2] == ["sweep", "my runs/x"]
    changes = dict(zip((name.removeprefix("--") for name in arguments[2::2]), arguments[3::2], strict=True))
    wanted = config.override(options, changes)
    assert (wanted.ranges.measured_on, wanted.sweep.layers, wanted.sweep.dose) == ("post", "each", True)


def test_a_network_measured_from_python_is_to_be_probed_again():
    given = made_up(left_out=("noise",))
    del given.attrs["config"]
    assert dosed.remedy(given, "x").startswith("probe again with dose=True and families=('scale', 'clip', 'offset',")


@pytest.mark.parametrize("kept", ["offset", "noise"])
def test_frames_have_their_columns_also_without_rows(kept):
    """As where the one family with doses is the literal offset, which edits at every fraction."""
    whole = dose_tables.compare(made_up(), OPTIONS)
    given = made_up(left_out=tuple(name for name in dose_support.FAMILIES if name != kept))
    del given[kept].attrs["identity"]
    found = dose_tables.compare(given, OPTIONS)
    for name in ("costs", "equal", "robust"):
        assert getattr(found, name).empty
        assert list(getattr(found, name)) == list(getattr(whole, name))


def test_every_side_of_every_family_has_its_words_and_they_are_short():
    words = [family.outward(side) for family in families.ALL.values() for side in family.sides]
    assert len(set(words)) == len(words) == 22
    assert max(map(len, words)) <= families.MOST_LETTERS == 16


def flips_radii(flips, fractions=(0.0, 0.1, 0.2, 0.4), side="above"):
    """The row of the tolerance on flips of one seed, 1000 images."""
    agree = 1000 - np.round(1000 * np.atleast_2d(flips)).astype(int)
    kept = np.full(len(agree), 900)
    one = tables.Series(
        families.get("floor"), "relu", "s", "test", 0.0, np.arange(len(agree)), np.array(fractions), 1000, agree, agree,
        None, kept,
    )  # fmt: skip
    (row,) = tables.radii(one, OPTIONS, "flips")
    return row


class TestToleranceOfFlips:
    @pytest.mark.parametrize(
        ("flips", "median", "censored", "reentered"),
        [
            ([0, 0.005, 0.015, 0.3], 0.15, 0, 0),
            ([0, 0.02, 0.0, 0.3], 0.05, 0, 1),  # comes back
            ([0, 0.5, 0.5, 0.5], 0.002, 0, 0),  # leaves at the first point
            ([0, 0, 0, 0], np.inf, 1, 0),  # flat
            ([0, 0.005, 0.009, 0.009], np.inf, 1, 0),  # never leaves
        ],
    )
    def test_of_every_kind_of_curve(self, flips, median, censored, reentered):
        row = flips_radii(flips)
        assert row["median"] == pytest.approx(median)
        assert (row["censored"], row["reentered"], row["outcome"], row["margin"]) == (
            censored,
            reentered,
            "flips",
            0.01,
        )

    def test_takes_the_margin_of_flips_and_every_side_by_itself(self):
        given = results_support.made_up(seeds=6)
        options = dataclasses.replace(OPTIONS, flips=0.3)
        reach = tables.tolerance(given, options, "flips")
        assert set(reach.margin) == {0.3}
        accuracy = tables.tolerance(given, options)
        assert set(accuracy.margin) == {0.01}
        assert set(accuracy.outcome) == {"accuracy"}
        keys = ["family", "network", "site", "split", "side"]
        assert reach[keys].equals(accuracy[keys])
        # The widest margin of flips goes further than a point of accuracy.
        inner = np.abs(accuracy["median"] - (accuracy.family != "offset"))
        assert (inner <= np.abs(reach["median"] - (reach.family != "offset"))).all()

    def test_one_network_has_an_interval_over_images(self):
        reach = tables.tolerance(made_up({"relu": DISTANCE}, seeds=1), OPTIONS, "flips")
        assert set(reach.over) == {"images"}
        shown = reach[reach.family != "scale"]
        assert ((shown.low <= shown["median"]) & (shown["median"] <= shown.high)).all()
        assert (shown.low < shown.high).all()

    def test_both_outcomes_stand_in_the_markdown(self):
        given = made_up({"relu": INTENSITY})
        text = markdown.tolerance(tables.tolerance(given, OPTIONS), OPTIONS, tables.tolerance(given, OPTIONS, "flips"))
        assert "## Accuracy" in text
        assert "## Flips" in text
        assert text.count("dead zone up to") == 4

    def test_counts_that_are_means_of_draws_keep_within_the_images(self):
        rng = np.random.default_rng(0)
        kept, won = rng.uniform(0, 900, 200), rng.uniform(0, 100, 200)
        kept[:2], won[:2] = (0.5, 899.5), (99.5, 100.0)
        agree = np.array([kept + rng.uniform(0, 100 - won)])
        one = tables.Series(
            families.get("noise"), "relu", "s", "test", 0.0, np.arange(1), np.arange(200.0), 1000,
            np.array([kept + won]), agree, np.array([kept]), np.array([900]),
        )  # fmt: skip
        np.testing.assert_allclose(one.images.correct, kept + won, atol=1)
        np.testing.assert_allclose(one.flipped.lost, 1000 - agree[0], atol=0.5)


def test_points_have_the_smallest_margin_of_flips():
    frame = tables.points(made_up({"relu": DISTANCE}), OPTIONS)
    assert len(frame) == sum(len(dose_support.grid(name)) for name in dose_support.FAMILIES) * 2
    upper = statistics.upper_bound(np.array([[0.1], [0.2], [0.4]]), 0.95)
    assert upper > 0.7 / 3
    known = frame.flips_smallest_margin.notna()
    assert (frame.flips_smallest_margin >= 1 - frame.agree - 1e-12)[known].all()
    assert frame[~known].agree.lt(1).all(), "there is none only where all seeds flip alike"
    assert known.mean() > 0.5
