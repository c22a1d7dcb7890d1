"""Figures: what is drawn is what was given, and what is written is the same every time."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from jaxdist.errors import InputError
from jaxdist.report import figures
from jaxdist.report.figures import Curve
from tests.report.figure_support import assert_legible, grey, vertical_lines

GRIDS = {
    "scale": np.logspace(-2, 1, 100),
    "clip": np.logspace(-2, 1, 100),
    "offset": np.linspace(-2, 1, 125),
}


def curve(family: str, steepness: float, *, band: float = 0.02) -> Curve:
    """A curve of the published shape: saturating for intensity edits, a peak at zero for offsets."""
    fraction = GRIDS[family]
    mean = 0.1 + 0.88 * (np.exp(-steepness * fraction**2) if family == "offset" else 1 - np.exp(-steepness * fraction))
    return Curve(fraction, mean, mean - band, mean + band)


@pytest.fixture(scope="module")
def curves() -> dict[str, dict[str, Curve]]:
    return {family: {"abs": curve(family, 9.0), "relu": curve(family, 4.0)} for family in GRIDS}


@pytest.fixture(scope="module")
def both(curves) -> Figure:
    return figures.figure1(curves)


def data_lines(ax: Axes) -> dict[tuple[str, str], np.ndarray]:
    """(colour, dash) -> [P, 2] data of the curves, which are the lines that carry markers."""
    return {
        (line.get_color(), line.get_linestyle()): line.get_xydata()
        for line in ax.get_lines()
        if line.get_marker() != "None"
    }


class TestFigure1:
    def test_panels_are_the_papers(self, both):
        assert tuple(both.get_size_inches()) == (10.0, 4.5)
        intensity, distance = both.axes
        assert intensity.get_xlim() == (0, 120)
        assert distance.get_xlim() == (-200, 100)
        assert intensity.get_ylim() == distance.get_ylim() == (0, 102)
        assert intensity.get_xscale() == "linear"
        assert intensity.get_title(loc="left").startswith("(a)")
        assert distance.get_title(loc="left").startswith("(b)")
        for ax in both.axes:
            assert "%" in ax.get_xlabel()
            assert ax.get_ylabel() == "Accuracy (%)"

    def test_curves_are_drawn_in_percent_with_their_dash_and_colour(self, both, curves):
        look = figures.looks(["abs", "relu"])
        intensity, distance = (data_lines(ax) for ax in both.axes)
        assert len(intensity) == 4
        assert len(distance) == 2
        for name in ("abs", "relu"):
            for family, dash, drawn in (
                ("scale", "-", intensity),
                ("clip", "--", intensity),
                ("offset", "-", distance),
            ):
                given = curves[family][name]
                np.testing.assert_allclose(drawn[look[name].colour, dash][:, 0], 100 * given.fraction)
                np.testing.assert_allclose(drawn[look[name].colour, dash][:, 1], 100 * given.mean)

    def test_bands_span_low_to_high(self, both, curves):
        assert [len(ax.collections) for ax in both.axes] == [4, 2]
        vertices = both.axes[1].collections[0].get_paths()[0].vertices
        given = curves["offset"]["abs"]
        for x, low, high in zip(100 * given.fraction, 100 * given.low, 100 * given.high, strict=True):
            here = vertices[np.isclose(vertices[:, 0], x), 1]
            assert here.min() == pytest.approx(low)
            assert here.max() == pytest.approx(high)
        assert 0 < both.axes[1].collections[0].get_alpha() < 1

    def test_the_unedited_point_is_marked(self, both):
        assert [vertical_lines(ax, ":") for ax in both.axes] == [[100], [0]]

    def test_networks_are_told_apart_in_colour_and_in_grey(self):
        look = figures.looks(["abs", "relu"])
        red, _, blue = to_rgb(look["abs"].colour)
        assert blue > 2 * red
        red, _, blue = to_rgb(look["relu"].colour)
        assert red > 2 * blue
        assert abs(grey(look["abs"].colour) - grey(look["relu"].colour)) > 40
        assert look["abs"].marker != look["relu"].marker

    def test_legend_covers_no_panel_and_texts_do_not_meet(self, both):
        (legend,) = both.legends
        assert [t.get_text() for t in legend.get_texts()] == ["Abs", "ReLU", "scale, offset", "clip", "unedited"]
        box = legend.get_window_extent()
        assert not any(box.overlaps(ax.get_window_extent()) for ax in both.axes)
        assert_legible(both)

    def test_a_title_is_legible_too(self, curves):
        figure = figures.figure1(curves, title="MNIST, 20 seeds")
        assert figure.get_suptitle() == "MNIST, 20 seeds"
        assert_legible(figure)


class TestIncompleteInput:
    def test_nan_band_draws_no_fill(self):
        given = curve("offset", 9.0, band=np.nan)
        figure = figures.distance_figure({"offset": {"abs": given}})
        assert len(figure.axes[0].collections) == 0
        assert len(data_lines(figure.axes[0])) == 1

    def test_a_band_may_have_gaps(self):
        given = curve("offset", 9.0)
        given.low[:60] = np.nan
        (band,) = figures.distance_figure({"offset": {"abs": given}}).axes[0].collections
        assert min(path.vertices[:, 0].min() for path in band.get_paths()) == pytest.approx(100 * given.fraction[60])

    def test_a_diverged_network_leaves_a_gap_and_stays_in_the_legend(self):
        given = curve("offset", 9.0)
        absent = Curve(given.fraction, *(np.full_like(given.mean, np.nan),) * 3)
        figure = figures.distance_figure({"offset": {"abs": absent, "relu": given}})
        assert np.isnan(data_lines(figure.axes[0])[figures.LOOKS["abs"].colour, "-"][:, 1]).all()
        assert len(figure.axes[0].collections) == 1
        assert [t.get_text() for t in figure.legends[0].get_texts()] == ["Abs", "ReLU", "unedited"]

    def test_missing_families_and_networks(self, curves):
        figure = figures.figure1({"clip": {"relu": curves["clip"]["relu"]}, "scale": {}})
        intensity, distance = figure.axes
        assert list(data_lines(intensity)) == [(figures.LOOKS["relu"].colour, "--")]
        assert data_lines(distance) == {}
        assert "not measured" in [t.get_text() for t in distance.texts]
        assert intensity.texts[:] == []

    def test_no_curves_at_all(self):
        assert all("not measured" in [t.get_text() for t in ax.texts] for ax in figures.figure1({}).axes)

    def test_a_single_point_is_drawn(self):
        point = Curve(*(np.array([value]) for value in (0.5, 0.9, np.nan, np.nan)))
        figure = figures.intensity_figure({"clip": {"abs": point}})
        figure.draw_without_rendering()
        np.testing.assert_allclose(data_lines(figure.axes[0])[figures.LOOKS["abs"].colour, "--"], [[50, 90]])

    def test_further_activations_get_looks_of_their_own(self):
        names = ["gelu", "relu", "softplus", "tanh", "abs", "sigmoid", "swish", "elu"]
        look = figures.looks(names)
        assert list(look) == names
        assert look["gelu"].label == "gelu"
        assert len({(each.colour, each.marker) for each in look.values()}) == len(names)
        assert not {look["gelu"].colour, look["elu"].colour} & {each.colour for each in figures.LOOKS.values()}

    def test_a_network_keeps_its_colour_across_the_single_panels(self, curves):
        given = {"scale": {"gelu": curve("scale", 9.0)}, "offset": {"elu": curve("offset", 4.0), **curves["offset"]}}
        look = figures.looks(["gelu", "elu"])
        ((colour, _),) = data_lines(figures.intensity_figure(given).axes[0])
        assert colour == look["gelu"].colour
        assert (look["elu"].colour, "-") in data_lines(figures.distance_figure(given).axes[0])


class TestBeside:
    def test_the_legend_has_the_networks_of_all_sides(self):
        sides = {
            "a": {"scale": {"relu": curve("scale", 1.0)}},
            "b": {"scale": {"abs": curve("scale", 2.0)}, "offset": {}},
        }
        figure = figures.figure1_beside(sides)
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()][:2] == ["ReLU", "Abs"]
        assert_legible(figure)


class TestRefusals:
    def test_unknown_family(self, curves):
        with pytest.raises(InputError, match="unknown family 'ofset'; did you mean 'offset'"):
            figures.figure1({"ofset": curves["offset"]})

    def test_percent_instead_of_fractions(self, curves):
        given = curves["clip"]["abs"]
        with pytest.raises(InputError, match=r"curves\['clip'\]\['abs'\].mean: expected fractions in 0..1"):
            figures.figure1({"clip": {"abs": given._replace(mean=100 * given.mean)}})

    def test_unlike_lengths(self, curves):
        given = curves["clip"]["abs"]
        with pytest.raises(InputError, match="four arrays of one length"):
            figures.figure1({"clip": {"abs": given._replace(low=given.low[1:])}})

    def test_unknown_format(self, both, tmp_path):
        with pytest.raises(InputError, match="expected svg, png or pdf, got 'jpg'"):
            figures.save(both, tmp_path, "f", ("png", "jpg"))
        assert list(tmp_path.iterdir()) == []


class TestSinglePanels:
    @pytest.mark.parametrize("draw", [figures.intensity_figure, figures.distance_figure])
    def test_fits_a_column_and_is_legible(self, draw, curves):
        figure = draw(curves)
        assert tuple(figure.get_size_inches()) == (3.4, 2.8)
        assert_legible(figure)
        (legend,) = figure.legends
        assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())

    def test_shows_the_panel_of_figure_1(self, curves, both):
        for single, panel in zip((figures.intensity_figure, figures.distance_figure), both.axes, strict=True):
            ax = single(curves).axes[0]
            assert (ax.get_xlim(), ax.get_ylim(), ax.get_xlabel()) == (
                panel.get_xlim(),
                panel.get_ylim(),
                panel.get_xlabel(),
            )
            for key, data in data_lines(panel).items():
                np.testing.assert_array_equal(data_lines(ax)[key], data)

    def test_a_long_legend_does_not_shrink_the_panel(self, curves):
        many = {
            "scale": {name: curve("scale", 9.0) for name in ("abs", "relu", "gelu", "elu", "tanh", "swish", "selu")}
        }
        figure = figures.intensity_figure(many)
        few = figures.intensity_figure({"scale": curves["scale"]})
        assert figure.axes[0].get_window_extent().height == pytest.approx(
            few.axes[0].get_window_extent().height, rel=0.1
        )
        assert_legible(figure)


class TestSave:
    def test_same_bytes_every_time(self, curves, tmp_path):
        figure = figures.distance_figure(curves)
        first = [path.read_bytes() for path in figures.save(figure, tmp_path / "one", "f", ("svg", "png", "pdf"))]
        again = [path.read_bytes() for path in figures.save(figure, tmp_path / "one", "f", ("pdf", "png", "svg"))]
        # Settings of the user's own neither enter the figure nor its file.
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
            rebuilt = figures.save(figures.distance_figure(curves), tmp_path / "two", "f", ("svg", "png"))
        assert first == again[::-1]
        assert first[:2] == [path.read_bytes() for path in rebuilt]
        svg, png, pdf = first
        assert b"dc:date" not in svg
        assert b"Date" not in pdf
        with Image.open(io.BytesIO(png)) as image:
            assert image.size == (680, 560)
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)

    def test_returns_the_paths_and_leaves_nothing_else(self, both, tmp_path):
        folder = tmp_path / "new" / "folder"
        paths = figures.save(both, str(folder), "f", ("png",))
        assert paths == [folder / "f.png"] == list(folder.iterdir())

    def test_an_interrupted_save_keeps_the_old_file(self, both, tmp_path, monkeypatch):
        (tmp_path / "f.png").write_bytes(b"old")

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            figures.save(both, tmp_path, "f", ("png",))
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]

    def test_global_settings_are_left_alone(self, curves, tmp_path):
        before = matplotlib.rcParams.copy()
        figures.save(figures.intensity_figure(curves), tmp_path, "f", ("svg",))
        assert matplotlib.rcParams.copy() == before
