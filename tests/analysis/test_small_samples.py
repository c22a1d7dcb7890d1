"""Samples that allow little: seeds that are all alike have no test, and two seeds are said to be two."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import jaxdist
from jaxdist import config
from jaxdist.analysis import dose_tables, paper_cells, tables
from jaxdist.analysis.series import every_series
from jaxdist.report import dose_figures, markdown, verdicts, writing
from jaxdist.report.compare import cell_tables, means
from jaxdist.report.pages import content
from tests import dose_support, page_support, results_support
from tests.report import figure_support

OPTIONS = config.StatisticsConfig()
PAPER_RUN = jaxdist.load(page_support.ROOT / "docs" / "reproduction" / "mnist")
DEGREE = "1 degree of freedom"


def alike(result, seeds):
    """The first seed of a result, as often as that."""
    groups = {}
    for name, group in result.children.items():
        part = group.to_dataset()
        if "seed" in part.dims:
            part = part.isel(seed=[0] * seeds).assign_coords(seed=np.arange(seeds))
        groups[name] = part
    copy = xr.DataTree.from_dict(groups)
    copy.attrs = result.attrs
    return copy


def shown(renderable):
    """What the terminal shows, as one line."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(renderable)
    return " ".join(console.export_text().split())


@pytest.fixture(scope="module", params=[2, 3, 6, 11], ids="{} seeds".format)
def seeds(request):
    return request.param


@pytest.fixture(scope="module")
def swept(seeds):
    return alike(results_support.made_up(), seeds)


@pytest.fixture(scope="module")
def dosed(seeds):
    networks = {"relu": dose_support.DISTANCE, "abs": dose_support.INTENSITY}
    return alike(dose_support.made_up(networks, even=("abs",)), seeds)


def test_points_of_seeds_that_are_alike_have_no_test_and_no_interval(swept):
    points = tables.points(swept, OPTIONS)
    changed = points[points["drop"].abs() > 1e-9]
    assert len(changed) > 100
    tested = ["low", "high", "drop_low", "drop_high", "t", "p", "p_holm", "effect_size", "noninferiority_p"]
    assert changed[[*tested, "smallest_margin"]].isna().all(axis=None)
    assert not changed.noninferior.any()
    unedited = points[points.unedited & (points["drop"] == 0)]
    assert len(unedited) == 12
    assert (unedited.p == 1).all()
    assert unedited.noninferior.all()


def test_tables_of_seeds_that_are_alike_say_so_and_print_no_certainty(swept, dosed, seeds):
    points = tables.points(swept, OPTIONS)
    compared = dose_tables.compare(dosed, OPTIONS)
    texts = {
        "published": markdown.published(points.assign(published_p=np.where(points.unedited, 1, np.nan)), None, OPTIONS),
        "corrected": markdown.corrected(points, OPTIONS),
        "verdict": verdicts.document(dosed, compared, OPTIONS),
        "gauges": verdicts.gauges(compared, OPTIONS),
    }
    whole = "both seeds" if seeds == 2 else f"all {seeds} seeds"
    for name, text in texts.items():
        assert f"– where {whole} are alike: no test, no interval." in text, name
        assert not re.search(r"\b(inf|nan)\b|∞", text), name
        assert DEGREE not in text, f"{name}: nothing is tested but no edit"
    rows = [line for line in texts["corrected"].splitlines() if line.startswith("|") and "no edit" not in line]
    assert not any("yes" in row or "| no " in row for row in rows)


def test_no_verdict_and_no_ratio_is_claimed_of_seeds_that_are_alike(dosed, seeds):
    compared = dose_tables.compare(dosed, OPTIONS)
    assert {finding.verdict.answer for finding in compared.findings} == {"neither"}
    ratios = [rho.ratio for rho in compared.rhos] + [
        comparison.ratio for finding in compared.findings for comparison in finding.verdict.comparisons
    ]
    assert {verdicts.answer(ratio, OPTIONS, sides) for ratio in ratios for sides in (1, 2)} == {"–"}
    assert not any("[" in verdicts.ratio_words(ratio) for ratio in ratios)
    printed = shown(verdicts.rendered(dosed, compared, OPTIONS))
    assert "no test, since all seeds are alike" in printed
    whole = "both seeds" if seeds == 2 else f"all {seeds} seeds"
    assert f"neither distance nor intensity is shown: no test, since {whole} have the same ratios of doses." in printed


@pytest.mark.parametrize(("count", "said"), [(2, True), (3, False), (6, False)])
class TestTwoSeeds:
    """Everything that has an interval or a test says of two seeds that it is from two."""

    def test_in_tables(self, count, said):
        points = tables.points(results_support.made_up(seeds=count), OPTIONS)
        tested = points.assign(published_p=points.p)
        given = dose_support.made_up(seeds=count, even=("abs",))
        compared = dose_tables.compare(given, OPTIONS)
        for text in (
            markdown.corrected(points, OPTIONS),
            markdown.published(tested, None, OPTIONS),
            verdicts.document(given, compared, OPTIONS),
            verdicts.gauges(compared, OPTIONS),
        ):
            assert (DEGREE in text) == said

    def test_in_the_sentence_and_the_tables_of_the_verdict(self, count, said):
        given = dose_support.made_up(seeds=count)
        compared = dose_tables.compare(given, OPTIONS)
        for sentence in verdicts.sentences(given, compared)[:2]:
            assert sentence.endswith(f"Medians of {count} seeds{', whose tests have ' + DEGREE if said else ''}.")
        printed = shown(verdicts.rendered(given, compared, OPTIONS))
        assert ("interval (from two seeds, 1 degree of freedom);" in printed) == said
        (panel, *_) = dose_figures.panels(compared, OPTIONS)
        assert np.isfinite(panel.rhos[0].low).any()
        assert (DEGREE in dose_figures.figure(compared, OPTIONS).get_suptitle()) == said

    def test_in_figure_1_whose_bands_end_where_accuracies_do(self, count, said):
        points = tables.points(results_support.made_up(seeds=count), OPTIONS)
        assert ((points.low < 0) | (points.high > 1)).any() or not said, "the example must reach beyond"
        drawn = dict(writing._figures1(points))
        assert set(drawn) == {"figure1", "figure1_intensity", "figure1_distance"}
        for figure in drawn.values():
            assert (f"{DEGREE}, cut at 0 and 100 %" in " ".join(figure.get_suptitle().split())) == said
            figure_support.assert_legible(figure)
            for ax in figure.axes:
                for band in ax.collections:
                    heights = band.get_paths()[0].vertices[:, 1]
                    assert heights.min() >= 0
                    assert heights.max() <= 100

    def test_on_the_page(self, count, said, tmp_path):
        page = content.page([content.Run("run", results_support.made_up(seeds=count), tmp_path)], OPTIONS)
        for title in ("Accuracy under edits", "Statistics: dense0/pre, train images"):
            section = next(section for section in page.sections if section.title == title)
            assert (DEGREE in " ".join(section.words)) == said

    def test_between_networks_of_their_own_seeds(self, count, said):
        pairs = {
            (one.family, one.network, one.site, one.split): (one, other)
            for one, other in zip(
                every_series(results_support.made_up(seeds=6)),
                every_series(results_support.made_up(seeds=count)),
                strict=True,
            )
        }
        points = means.points(pairs, OPTIONS)
        notes = ["intervals and tests are, on a side, from two seeds, 1 degree of freedom"]
        assert means.cautions(points) == notes * said

    def test_beside_the_published_tables(self, count, said):
        cells = paper_cells.cells(PAPER_RUN.isel(seed=list(range(count))), OPTIONS)
        assert (DEGREE in " ".join(cell_tables.cautions(cells))) == said


@pytest.mark.parametrize("which", [0, 1])
def test_networks_of_their_own_seeds_are_not_shown_to_agree_where_a_side_is_alike(which):
    sides = [results_support.made_up(networks=("relu",)), alike(results_support.made_up(networks=("relu",)), 4)]
    series = zip(*(every_series(side) for side in (sides[which], sides[1 - which])), strict=True)
    pairs = {(one.family, one.network, one.site, one.split): (one, other) for one, other in series}
    options = config.StatisticsConfig(margin=0.9)
    points = means.points(pairs, options)
    assert points.p.isna().all()
    for verdict in means.verdicts(points, options):
        assert verdict.verdict == "not shown"
        count = {"scale": 25, "clip": 25, "offset": 31}[verdict.what.split()[0]]
        assert f"at 0 of {count} points; no test at {count}, where all seeds of a side are alike" in verdict.words


def test_the_papers_own_test_has_no_answer_where_seeds_differ_from_its_baseline_alike():
    cells = paper_cells.cells(alike(PAPER_RUN, 4), OPTIONS)
    edited = paper_cells.edited(cells)
    assert edited[["t", "p"]].isna().all(axis=None)
    assert cell_tables.cautions(cells) == ["– where all 4 seeds are alike: no test, no interval."]
