"""Further tables and pictures: layers, pairs of families, units, networks along training, and what is written."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from rich.console import Console

from jaxdist import config, formatting
from jaxdist.analysis import breakdowns, tables
from jaxdist.perturbations import families
from jaxdist.report import markdown, pictures, profiles, summary, writing
from jaxdist.report.figures import looks
from jaxdist.sweep import crossings, results
from tests.report.figure_support import assert_legible, grey
from tests.results_support import LONG, THRESHOLDS, TOTAL, made_up

OPTIONS = config.StatisticsConfig()
SITES = ("dense0/pre", LONG, "all")
MARGIN = OPTIONS.margin


@pytest.fixture(scope="module")
def result():
    return made_up(sites=SITES, full=True)


@pytest.fixture(scope="module")
def lone():
    return made_up(("convnet",), 1, ("Conv_0",), config_=False, full=True)


@pytest.fixture(scope="module")
def reach(result):
    frame = tables.tolerance(result, OPTIONS)
    return frame[frame.split == "train"].reset_index(drop=True)


def shown(frame, site="dense0/pre", split="train"):
    return frame[(frame.site == site) & (frame.split == split)]


def markers(ax, colour):
    """The points of the markers in a panel of one colour, in the order drawn."""
    lines = [line for line in ax.get_lines() if line.get_marker() != "None"]
    return np.concatenate([line.get_xydata() for line in lines if colour in (line.get_color(), line.get_mec())])


class TestLayers:
    def test_every_network_has_a_dot_at_its_median_in_every_row_of_every_panel(self, reach):
        figure = pictures.layers(reach)
        edges = [("scale", "below"), ("scale", "above"), ("clip", "below"), ("offset", "below"), ("offset", "above")]
        assert [ax.get_title(loc="left") for ax in figure.axes] == [
            families.get(name).outward(side) for name, side in edges
        ]
        for ax, (family, side) in zip(figure.axes, edges, strict=True):
            part = reach[(reach.family == family) & (reach.side == side)]
            for network, look in looks(reach.network.unique()).items():
                drawn = markers(ax, look.colour)
                np.testing.assert_allclose(drawn[:, 0], 100 * part[part.network == network]["median"])
                assert np.round(drawn[:, 1]).tolist() == [0, 1, 2], "one row a site, in the network's order"
        assert_legible(figure)

    def test_what_is_kept_to_the_end_of_the_grid_is_open_and_has_an_arrow(self, reach):
        kept = reach.copy()
        here = (kept.family == "offset") & (kept.side == "below") & (kept.network == "abs") & (kept.site == LONG)
        kept.loc[here, ["median", "low"]] = -np.inf
        ax = pictures.layers(kept).axes[3]
        (mark,) = [line for line in ax.get_lines() if line.get_marker() != "None" and line.get_mfc() == "white"]
        assert mark.get_xdata()[0] == 100 * kept[here].grid_end.iloc[0] == -200
        (arrow,) = ax.texts
        assert arrow.xyann[0] < 0, "away from no edit"
        assert ax.get_xlim()[0] < -200
        assert pictures.layers(reach).axes[3].texts[:] == []

    @pytest.mark.parametrize(("networks", "count"), [(("relu",), 1), (("relu", "abs", "gelu"), 12)])
    def test_one_site_or_twelve_with_long_names_are_legible(self, networks, count):
        sites = [LONG.replace("0", str(k), 1) for k in range(count - 1)] + ["all"]
        frame = tables.tolerance(made_up(networks, 6, sites), OPTIONS)
        figure = pictures.layers(frame[frame.split == "train"], title="How far\nwith an interval")
        assert_legible(figure)
        assert len(figure.axes[0].get_yticks()) == count

    def test_without_intervals_there_are_only_dots(self):
        frame = tables.tolerance(made_up(seeds=2, sites=("a", "b")), OPTIONS)
        ax = pictures.layers(frame[frame.split == "train"]).axes[0]
        assert all(len(line.get_xdata()) == 1 for line in ax.get_lines() if line.get_ydata()[0] not in (0, 0.5, 1))


class TestPairs:
    def test_means_are_over_the_seeds_and_the_cells_hold_them(self, result):
        (pair,) = breakdowns.pairs(result)
        group = result["grid_scale_offset"]
        part = shown(pair.points)[lambda frame: frame.network == "abs"]
        here = group.sel(network="abs", site="dense0/pre", split="train")
        mean = (here["correct"] / TOTAL).mean("seed")
        np.testing.assert_allclose(part.pivot(index="first", columns="second", values="accuracy"), mean)
        figure = pictures.heat_map(pair._replace(points=shown(pair.points)), MARGIN, title="Both")
        mesh = next(child for child in figure.axes[1].get_children() if isinstance(child, QuadMesh))
        np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(11, 13), 100 * mean.T)
        assert_legible(figure)

    def test_the_unedited_point_is_marked_inside_the_contour(self, result):
        (pair,) = breakdowns.pairs(result)
        figure = pictures.heat_map(pair._replace(points=shown(pair.points)), MARGIN)
        for ax in figure.axes[:2]:
            assert ax.get_xscale() == "log"
            np.testing.assert_allclose([line.get_xydata()[0] for line in ax.get_lines()], [[100, 0]])
            (contour,) = [c for c in ax.collections if not isinstance(c, QuadMesh)]
            assert contour.get_paths()[0].contains_point((100, 0))

    def test_no_contour_where_nothing_is_lost_and_no_cross_without_an_unedited_point(self, result):
        (pair,) = breakdowns.pairs(result)
        flat = shown(pair.points).assign(drop=0.0)
        figure = pictures.heat_map(pair._replace(points=flat, identity=(None, 0.0)), MARGIN)
        assert len(figure.axes[0].get_lines()) == 0
        assert all(isinstance(c, QuadMesh) for c in figure.axes[0].collections)

    def test_the_map_gets_lighter_all_the_way_in_grey(self):
        colours = [grey(to_hex(matplotlib.colormaps[pictures.MAP](place))) for place in np.linspace(0, 1, 20)]
        assert (np.diff(colours) > 0).all()


class TestUnits:
    def test_each_seeds_units_are_ranked_by_flips_and_narrower_sites_have_fewer(self, result):
        frame = breakdowns.units(result)
        assert len(frame) == 2 * 6 * 2 * 2 * 2 * (12 + 12 + 9)
        for _, part in frame.groupby(breakdowns.RANKED):
            assert part["rank"].tolist() == list(range(1, len(part) + 1))
            assert (np.diff(part.flips) <= 0).all()
        row = frame.iloc[1234]
        place = {name: row[name] for name in (*breakdowns.UNIT, "fraction")}
        counts = result[f"units_{row.family}"].sel(place)
        assert row.flips == pytest.approx(1 - int(counts.agree) / TOTAL)
        assert row["drop"] == pytest.approx((int(counts.unperturbed) - int(counts.correct)) / TOTAL)
        measured = result["sensitivity"].sel({name: row[name] for name in breakdowns.UNIT})
        assert row.sensitivity_offset == float(measured["offset"])

    def test_sensitivities_alone_are_a_table_too_and_nothing_is_an_empty_one(self, result):
        alone = results.tree({"sensitivity": result["sensitivity"].to_dataset()}, {})
        assert "flips" not in breakdowns.units(alone)
        assert len(breakdowns.units(alone)) == 2 * 6 * 3 * 2 * 12
        assert breakdowns.units(results.tree({}, {})).empty

    def test_the_picture_has_the_median_over_seeds_by_rank(self, result):
        frame = shown(breakdowns.units(result))
        figure = profiles.units(frame)
        assert [ax.get_title(loc="left") for ax in figure.axes] == ["scale at 0 %", "offset at -50 %"]
        look = looks(["relu", "abs"])
        flips = 100 * (1 - result["units_scale"]["agree"] / TOTAL).sel(site="dense0/pre", split="train", fraction=0.0)
        for network in ("relu", "abs"):
            ranked = -np.sort(-flips.sel(network=network).to_numpy(), axis=1)
            (line,) = [line for line in figure.axes[0].get_lines() if line.get_color() == look[network].colour]
            np.testing.assert_allclose(line.get_ydata(), np.median(ranked, axis=0), atol=1e-9)
        assert_legible(figure)

    def test_markdown_lists_the_ten_most_important_of_each_seed(self, lone):
        text = markdown.units(breakdowns.units(lone))
        assert "## convnet, seed 0, Conv_0" in text
        rows = [line for line in text.splitlines() if line.startswith("| ") and "rank" not in line]
        assert len(rows) == markdown.MOST_UNITS
        first = [cell.strip() for cell in rows[0].split("|")]
        flips = 1 - lone["units_scale"]["agree"].sel(split="train", fraction=0.0).to_numpy().ravel() / TOTAL
        assert first[2] == str(int(flips.argmax()))
        assert first[3] == formatting.percent(float(flips.max()))


class TestAlongTraining:
    def test_means_are_over_the_seeds_that_passed(self, result):
        points, reach = breakdowns.along_training(result, OPTIONS)
        counts = points.groupby(["network", "threshold"]).seeds.first()
        assert counts["relu"].tolist() == [6, 6, 6, 4]
        assert counts["abs"].tolist() == [6, 6, 6, 6]
        assert set(points.of) == {6}
        part = shown(points)[lambda f: (f.network == "relu") & (f.threshold == 0.99) & (f.family == "clip")]
        group = result["snapshots_clip"].sel(network="relu", site="dense0/pre", split="train", threshold=0.99)
        np.testing.assert_allclose(part.accuracy, (group["correct"][:4] / TOTAL).mean("seed"))
        row = reach[(reach.network == "relu") & (reach.threshold == 0.99) & (reach.family == "clip")].iloc[0]
        found = crossings.tolerance(
            group["fraction"].to_numpy(),
            group["correct"].to_numpy()[:4] / TOTAL,
            group["unperturbed"].to_numpy()[:4] / TOTAL,
            identity=1.0,
            coordinate="linear",
            side="below",
            margin=MARGIN,
        )
        assert row["median"] == np.median(found.exit)
        assert row.seeds == 4

    def test_curves_darken_along_training_and_the_legend_counts_seeds(self, result):
        figure = profiles.snapshots(shown(breakdowns.along_training(result, OPTIONS)[0]), title="Edits")
        assert [len(ax.get_lines()) for ax in figure.axes] == [1 + len(THRESHOLDS)] * 6
        colours = [grey(to_hex(line.get_color())) for line in figure.axes[0].get_lines()[1:]]
        assert (np.diff(colours) < -20).all()
        texts = [t.get_text() for t in figure.axes[2].get_legend().get_texts()]
        assert texts == ["99 % (4 of 6)", "90 % (6)", "50 % (6)", "10 % (6)"]
        assert_legible(figure)

    def test_radii_are_drawn_against_training_accuracy(self, result):
        reach = shown(breakdowns.along_training(result, OPTIONS)[1])
        figure = profiles.radii_along_training(reach, title="Where\nMedians")
        part = reach[(reach.family == "clip") & (reach.network == "abs")]
        line = next(line for line in figure.axes[2].get_lines() if line.get_color() == looks(["abs"])["abs"].colour)
        np.testing.assert_allclose(line.get_xydata(), 100 * part[["threshold", "median"]])
        assert_legible(figure)


class TestReport:
    @pytest.fixture
    def stems(self, monkeypatch):
        found = []
        monkeypatch.setattr(writing.figures, "save", lambda figure, folder, stem: found.append(stem) or [])
        return found

    def test_every_group_has_its_files(self, result, stems, tmp_path, monkeypatch):
        # What they draw is tested above.
        drawn = {
            writing.figures: ("figure1", "intensity_figure", "distance_figure"),
            pictures: ("layers", "heat_map"),
            profiles: ("units", "snapshots", "radii_along_training"),
        }
        for module, names in drawn.items():
            for name in names:
                monkeypatch.setattr(module, name, lambda *_, **__: None)
        names = {path.name for path in writing.write(result, OPTIONS, tmp_path)}
        named = (
            "points",
            "tolerance",
            "tolerance_flips",
            "units",
            "snapshots",
            "snapshots_tolerance",
            "grid_scale_offset",
        )
        assert names == {f"{name}.csv" for name in named} | {
            "published.md",
            "corrected.md",
            "tolerance.md",
            "summary.json",
            "report.html",
        }
        ends = ["-" + site.replace("/", "_") for site in SITES]
        starts = ("figure1", "figure1_intensity", "figure1_distance", "grid_scale_offset", "units", "snapshots")
        expected = [start + end for start in (*starts, "snapshots_tolerance") for end in ends]
        assert sorted(stems) == sorted([*expected, "layers"])
        assert len(pd.read_csv(tmp_path / "tables" / "units.csv")) == len(breakdowns.units(result))

    @pytest.mark.usefixtures("stems")
    def test_further_families_along_training_are_in_the_tables_and_not_in_the_pictures(
        self, result, tmp_path, monkeypatch
    ):
        drawn = []
        for name in ("snapshots", "radii_along_training"):
            monkeypatch.setattr(profiles, name, lambda frame, **_: drawn.append(set(frame.family)))
        groups = {name: result[name].to_dataset() for name in ("scale", "snapshots_scale")}
        groups["snapshots_noise"] = result["snapshots_offset"].to_dataset().isel(fraction=slice(20, None))
        writing.write(results.tree(groups, result.attrs), OPTIONS, tmp_path)
        assert drawn == [{"scale"}] * 2 * len(SITES)
        for name in ("snapshots", "snapshots_tolerance"):
            assert set(pd.read_csv(tmp_path / "tables" / f"{name}.csv").family) == {"scale", "noise"}

    def test_units_that_are_never_positive_are_said_once_for_all_families_that_they_concern(self):
        given = made_up(("gelu",))
        below = given["ranges"].to_dataset()
        given["ranges"] = below.assign(high=below.high.where(below.unit != 3, -0.1), low=below.low - 1)
        for name in ("random_offset", "restored_offset"):
            given[name] = given["offset"].to_dataset()
        (said,) = (note for note in summary._notes(given, OPTIONS) if "never positive" in note)
        assert said.endswith("never positive; offset, random_offset and restored_offset leave them as they are")

    def test_a_plain_result_has_no_more_than_before(self, stems, tmp_path):
        names = {path.name for path in writing.write(made_up(), OPTIONS, tmp_path)}
        tables_ = {"points.csv", "tolerance.csv", "tolerance_flips.csv", "summary.json", "report.html"}
        tables_ |= {"published.md", "corrected.md", "tolerance.md"}
        assert names == tables_
        assert stems == ["figure1", "figure1_intensity", "figure1_distance"]

    @pytest.mark.usefixtures("stems")
    def test_a_result_of_units_alone_is_written_too(self, result, tmp_path):
        alone = results.tree({"units_scale": result["units_scale"].to_dataset()}, {})
        assert [path.name for path in writing.write(alone, OPTIONS, tmp_path)] == [
            "units.csv",
            "summary.json",
            "report.html",
        ]
        assert "unit alone" in printed(alone)

    @pytest.mark.usefixtures("stems")
    def test_one_network_is_said_to_be_one_everywhere(self, lone, tmp_path):
        titles = [figure.get_suptitle() for _, figure in writing._figures1(tables.points(lone, OPTIONS))]
        assert titles == ["This network only: bands over images"] * 3
        writing.write(lone, OPTIONS, tmp_path)
        for name in ("corrected", "tolerance"):
            text = (tmp_path / "tables" / f"{name}.md").read_text()
            assert "**This network only**" in text
            assert "over seeds" not in text
        assert "This network only: 95 % interval over its images" in printed(lone)

    def test_several_seeds_are_not(self, result):
        text = printed(result) + markdown.tolerance(tables.tolerance(result, OPTIONS), OPTIONS)
        assert "network only" not in text
        assert "Median of 6 seeds with 95 % interval" in text

    @pytest.mark.parametrize("seeds", [1, 6])
    def test_the_summary_fits_80_columns_with_layers_of_long_names(self, seeds):
        text = printed(made_up(seeds=seeds, sites=("dense0/pre", "dense1/pre", LONG, "all")))
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert sum("offset down to" in line for line in lines) == 4
        assert any("Block_0/Mult" in line and "/query" in line for line in lines)

    def test_dead_units_are_told_by_either_kind_of_options(self, lone, result):
        assert results.options_of(lone).sweep.dead_units == "nan"
        assert results.options_of(result).sweep.dead_units == "identity"
        assert results.options_of(results.tree({}, {})).sweep == config.SweepConfig()
        odd = results.tree({}, {"options": json.dumps({"sweep": {"dead_unit": "nan"}})})
        with pytest.raises(config.InputError, match=r"options: unknown key 'sweep\.dead_unit'"):
            results.options_of(odd)
        assert "edited by the formula" in " ".join(printed(lone).split())
        assert "left as they are" in printed(result)


def printed(result):
    console = Console(width=summary.WIDTH)
    with console.capture() as text:
        console.print(summary.summary(result, OPTIONS))
    return text.get()
