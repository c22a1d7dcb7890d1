"""What the fair comparison says, draws and writes; its command."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from rich.console import Console

from jaxdist import cli
from jaxdist.analysis import dose_tables
from jaxdist.config import StatisticsConfig
from jaxdist.perturbations import families
from jaxdist.report import dose_figures, figures, summary, verdicts, writing
from jaxdist.storage import result_files
from jaxdist.sweep import results
from tests import dose_support, results_support
from tests.dose_support import DISTANCE, INTENSITY, NEITHER, made_up

OPTIONS = dose_support.OPTIONS
LONG = results_support.LONG


result, found = dose_support.result, dose_support.found


def printed(thing):
    console = Console(width=80, file=io.StringIO(), legacy_windows=False)
    console.print(thing, highlight=False)
    return console.file.getvalue()


def said(given):
    return verdicts.sentences(given, dose_tables.compare(given, OPTIONS))


class TestSentences:
    def test_say_the_answer_with_its_numbers_on_test_images(self, result, found):
        relu, odd, scale = verdicts.sentences(result, found)
        assert relu.startswith("mnist relu, dense0/pre, test images: reads distance (p ")
        assert "1 % of predictions: floor 0.03" in relu
        assert relu.endswith("Medians of 6 seeds.")
        assert odd.startswith("mnist abs, dense0/pre, test images: reads intensity (p ")
        assert scale == "The common scale carries no information on this: its angular dose is 0 by construction."

    def test_take_the_train_images_where_no_others_were_swept(self):
        assert "dense0/pre, train images" in said(made_up({"relu": NEITHER}, splits=("train",)))[0]

    def test_say_why_nothing_is_shown(self):
        assert "needs equal doses, within 0.8 to 1.25" in said(made_up({"relu": NEITHER}, spread=0.03))[0]
        assert "one seed, and tests are over seeds" in said(made_up({"relu": DISTANCE}, seeds=1))[0]
        assert "not swept: noise" in said(made_up({"relu": DISTANCE}, left_out=("noise",)))[0]
        flat = said(made_up({"relu": dict.fromkeys(NEITHER, np.inf)}))[0]
        assert "no edit changes 1 % of predictions up to the end of its grid" in flat
        assert "floor > 0.90" in flat

    def test_are_the_same_of_the_outline(self):
        given = made_up(even=("abs",), sites=("dense0/pre", "all"))
        for name in given.children:
            group = given[name].to_dataset()
            doses = {key: group[key].where(group.site != "all") for key in ("dose", "rms") if key in group}
            given[name] = group.assign(doses)
        outline = verdicts.sentences(given, dose_tables.outline(given, OPTIONS))
        assert outline == said(given)
        assert len(outline) == 3

    def test_say_what_is_unweighted_and_what_is_missing(self):
        given = made_up({"relu": DISTANCE})
        for name in given.children:
            given[name] = given[name].to_dataset().assign(weighted=(("network", "site"), [[0]]))
        group = given["floor"].to_dataset()
        given["floor"] = group.assign(dose=group.dose.where(group.seed != 0))
        assert "6 seeds, 1 without a defined dose left out; dose unweighted" in said(given)[0]

    def test_a_scale_that_few_networks_have_a_dose_of_has_none(self):
        # As where a unit is dead on the training images, which spares it, and not on others.
        given = made_up()
        group = given["scale"].to_dataset()
        given["scale"] = group.assign(dose=group.dose.where((group.seed > 1) | (group.split == "train"), 0.1))
        assert said(given)[-1].startswith("The common scale carries no information")
        drawn = dose_figures.figure(dose_tables.compare(given, OPTIONS), OPTIONS)
        assert "common scale: dose 0" in [text.get_text() for text in drawn.legends[0].get_texts()]

    def test_a_scale_that_has_a_dose_is_not_said_to_have_none(self):
        given = made_up()
        group = given["scale"].to_dataset()
        given["scale"] = group.assign(dose=group.dose.where(group.network == "relu", 0.2))
        assert "The common scale of relu carries" in said(given)[-1]


class TestTerminal:
    @pytest.mark.parametrize(
        "given",
        [
            made_up(),
            made_up({"leaky_relu": DISTANCE, "softplus": INTENSITY, "abs": NEITHER}, sites=(LONG, "dense1/pre")),
            made_up({"relu": DISTANCE | {"clip_both": 5.0, "clip": 5.0}}, seeds=1),
        ],
    )
    def test_fits_80_columns_and_has_every_side(self, given):
        text = printed(verdicts.rendered(given, dose_tables.compare(given, OPTIONS), OPTIONS))
        assert max(map(len, text.splitlines())) <= 80
        for words in ("dead zone up to", "clipped both at", "offset down to", "not reached", "relu"):
            assert words in text

    def test_the_summary_ends_with_the_sentences(self, result):
        text = " ".join(printed(summary.summary(result, OPTIONS)).split())
        assert "reads distance" in text
        assert "carries no information" in text
        assert max(map(len, printed(summary.summary(result, OPTIONS)).splitlines())) <= 80
        assert "distance" not in printed(summary.summary(results_support.made_up(), OPTIONS))

    @pytest.mark.parametrize(
        ("ends", "expected"),
        [
            ((0.5, 0.5, 0.4, 0.6), "0.50 [0.40, 0.60]"),
            ((0.5, np.inf, 0.4, np.inf), "> 0.50 [0.40, ∞]"),
            ((0.0, 0.5, 0.0, 0.6), "< 0.50 [0.00, 0.60]"),
            ((0.0, np.inf, 0.0, np.inf), "–"),
            ((0.5, 0.5, np.nan, np.nan), "0.50"),
            ((np.nan, np.nan, np.nan, np.nan), "–"),
        ],
    )
    def test_ratios_say_what_is_known_of_them(self, found, ends, expected):
        names = ("at_least", "at_most", "low", "high")
        ratio = found.rhos[0].ratio._replace(**dict(zip(names, ends, strict=True)))
        assert verdicts.ratio_words(ratio) == expected

    def test_rho_is_judged_from_both_sides_and_a_claim_from_one(self, found):
        ratio = found.rhos[0].ratio._replace(equivalent=False, p_less=0.04, p_greater=0.96)
        assert verdicts.answer(ratio, OPTIONS) == "less"
        assert verdicts.answer(ratio, OPTIONS, sides=2) == "open"


class TestMarkdown:
    def test_has_every_network_split_and_number(self, result, found):
        text = verdicts.document(result, found, OPTIONS)
        for words in ("## relu, dense0/pre, train images", "## abs, dense0/pre, test images", "## Rho", "## Gauges"):
            assert words in text
        assert text.count("| dead_zone | noise") == 2 * 2 * 2
        assert "nan" not in text.lower().replace("nan}", "")

    def test_gauges_are_left_out_where_there_are_none(self):
        given = made_up({"relu": DISTANCE})
        assert "Gauges" not in verdicts.document(given, dose_tables.compare(given, OPTIONS), OPTIONS)


class TestFigure:
    def test_every_network_has_its_panel_with_every_family_and_rho(self, found):
        drawn = dose_figures.figure(found, OPTIONS)
        assert [ax.get_title(loc="left") for ax in drawn.axes] == ["ReLU", "Abs"]
        for ax in drawn.axes:
            assert ax.get_yscale() == "log"
            assert len(ax.child_axes) == 1
            # 11 families, four of which have two sides, and the margin.
            assert len(ax.lines) == 11 + 4 + 1
        words = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert "common scale: dose 0" in words
        assert len(words) == len(set(words)) == 11 + 2 + 1

    def test_lines_differ_in_colour_or_dash_and_colours_in_grey(self):
        lines = [dose_figures.line(family) for family in families.ALL.values()]
        assert len({(line.colour, str(line.dash)) for line in lines}) == len(lines)
        kinds = [dose_figures.COLOURS[effect] for effect in ("small", "large", "control", "moved", "other")]
        grey = np.sort([np.dot(to_rgb(colour), [0.299, 0.587, 0.114]) for colour in kinds])
        assert np.diff(grey).min() > 0.13

    def test_a_curve_is_the_median_of_the_seeds_with_all_of_them_in_its_band(self, found):
        swept = next(one for one in found.swept if one.series.family == "noise" and one.series.split == "test")
        (curve,) = dose_figures._curves(swept)
        assert ((curve.low <= curve.flips) & (curve.flips <= curve.high)).all()
        at = np.abs(curve.dose - 0.3).argmin()
        each = [np.interp(curve.dose[at], dose, flips) for dose, flips in zip(swept.dose, swept.flips, strict=True)]
        assert curve.flips[at] == pytest.approx(np.median(each))
        assert curve.high[at] == pytest.approx(max(each))

    @pytest.mark.parametrize("seeds", [1, 6])
    def test_flat_networks_and_single_seeds_are_drawn(self, seeds):
        given = made_up({"relu": dict.fromkeys(NEITHER, np.inf), "gelu": DISTANCE, "abs": INTENSITY}, seeds=seeds)
        assert isinstance(dose_figures.figure(dose_tables.compare(given, OPTIONS), OPTIONS), Figure)


class TestFiles:
    @pytest.mark.slow
    def test_a_report_has_them_where_the_result_has_doses(self, result, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(writing.figures, "save", lambda figure, folder, stem: drawn.append(stem) or [])
        written = {path.name for path in writing.write(result, OPTIONS, tmp_path)}
        assert written >= {"verdict.md", "doses.csv", "gauges.md", "tolerance_flips.csv"}
        assert drawn[-1] == "doses"
        frame = pd.read_csv(tmp_path / "tables" / "doses.csv")
        assert set(frame.gauge) == {"as_is", "averaged", "absolute"}

    def test_a_family_that_edits_everywhere_alone_is_reported_too(self, tmp_path, monkeypatch):
        given = made_up(left_out=tuple(name for name in dose_support.FAMILIES if name != "offset"))
        del given["offset"].attrs["identity"]
        monkeypatch.setattr(writing.figures, "save", lambda *_: [])
        writing.write(given, OPTIONS, tmp_path)
        assert "swept: " in (tmp_path / "tables" / "verdict.md").read_text()
        found = dose_tables.compare(given, OPTIONS)
        assert "not swept" in printed(verdicts.rendered(given, found, OPTIONS))
        assert "not swept" in printed(summary.summary(given, OPTIONS))
        assert json.loads(verdicts.json_of(given, found, OPTIONS))["costs"] == []

    def test_json_has_every_number_and_is_strict(self, result, found):
        def refuse(constant):
            raise AssertionError(constant)

        whole = json.loads(verdicts.json_of(result, found, OPTIONS), parse_constant=refuse)
        assert {one["answer"] for one in whole["verdicts"]} == {"distance", "intensity"}
        assert len(whole["verdicts"][0]["comparisons"]) == 10
        assert len(whole["costs"]) == len(found.costs)
        assert {row["against"] for row in whole["rhos"]} == {"", "abs"}
        assert whole["flips_margin"] == 0.01


def small(**options):
    """What a verdict is made of and no more, which is written and read in less time."""
    needed = ("clip", "offset", "noise", "floor", "dead_zone", "clip_both")
    return made_up(
        {"relu": DISTANCE}, left_out=tuple(name for name in dose_support.FAMILIES if name not in needed), **options
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.figures, "save", lambda *_: [])
    monkeypatch.chdir(tmp_path)

    def made(given):
        (tmp_path / "run").mkdir()
        result_files.save(given, tmp_path / "run" / "result.nc")
        return "run"

    return made


@pytest.mark.usefixtures("in_an_empty_folder")
class TestCommand:
    def test_prints_the_verdict_and_writes_its_files(self, folder, capsys, tmp_path):
        run = folder(small(sites=("dense0/pre", "dense1/pre")))
        given = ["verdict", run, "--margin", "0.02", "--site", "dense1/pre", "--json", "all.json"]
        assert cli.main(given) == 0
        text = capsys.readouterr().out
        assert "mnist relu, dense1/pre, test images: reads distance" in text
        assert "dense0/pre" not in text
        assert max(map(len, text.splitlines())) <= 80
        whole = json.loads((tmp_path / "all.json").read_text())
        assert whole["flips_margin"] == 0.02
        assert {one["site"] for one in whole["verdicts"]} == {"dense1/pre"}
        # What is written holds all sites.
        assert set(pd.read_csv(tmp_path / "run/tables/doses.csv").site) == {"dense0/pre", "dense1/pre"}
        assert "keeps flips below 2.00 %" in (tmp_path / "run/tables/verdict.md").read_text()

    @pytest.mark.slow
    def test_what_lacks_some_families_has_doses_to_show_and_no_verdict(self, folder, capsys, monkeypatch):
        monkeypatch.setattr(figures, "save", lambda *_: [])
        assert cli.main(["verdict", folder(made_up(left_out=("floor",)))]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "no verdict: not swept: floor" in text
        assert "Dose for 1 % of predictions: dead_zone" in text

    def test_names_the_command_where_there_are_no_doses(self, folder, capsys):
        assert cli.main(["verdict", folder(results_support.made_up())]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert "'jaxdist sweep run --sweep.families scale,clip,offset," in message
        assert "noise,floor,dead_zone,clip_both --sweep.dose true'" in message

    @pytest.mark.parametrize("of", ["a run", "a network measured from Python"])
    def test_a_margin_is_kept_for_later_reports(self, of, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(figures, "save", lambda *_: [])  # pictures take long and do not matter here
        given = small(splits=("test",))
        if of != "a run":
            del given.attrs["config"]
        run = folder(given)
        assert cli.main(["verdict", run, "--margin", "0.05"]) == 0
        written = (tmp_path / "run/tables/verdict.md").read_text()
        assert "keeps flips below 5.00 %" in written
        assert cli.main(["report", run]) == 0
        assert (tmp_path / "run/tables/verdict.md").read_text() == written
        assert results.options_of(result_files.load(tmp_path / "run")).statistics == StatisticsConfig(flips=0.05)

    @pytest.mark.parametrize("margin", ["0", "1", "-0.1", "nan", "x"])
    def test_refuses_a_margin_that_is_no_share(self, margin, capsys):
        assert cli.main(["verdict", "run", f"--margin={margin}"]) == 2
        assert "expected a fraction between 0 and 1" in capsys.readouterr().err

    def test_refuses_a_site_that_there_is_not(self, folder, capsys):
        assert cli.main(["verdict", folder(small(splits=("test",))), "--site", "x"]) == 2
        assert "expected one with doses (dense0/pre), got 'x'" in capsys.readouterr().err
