"""Figures: what is drawn is what was given, and what is written is the same every time."""

from __future__ import annotations

import io
import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from jaxdist import figures, gallery
from jaxdist.errors import InputError
from jaxdist.figures import Curve

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


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("gallery")
    return folder, gallery.write(folder)


@pytest.fixture(scope="module")
def diagrams() -> dict[str, Figure]:
    return gallery.diagrams()


@pytest.fixture(scope="module")
def composed() -> list[Figure]:
    return [gallery.figure2(), gallery.figure3()]


def data_lines(ax: Axes) -> dict[tuple[str, str], np.ndarray]:
    """(colour, dash) -> [P, 2] data of the curves, which are the lines that carry markers."""
    return {
        (line.get_color(), line.get_linestyle()): line.get_xydata()
        for line in ax.get_lines()
        if line.get_marker() != "None"
    }


def vertical_lines(ax: Axes, dash: str) -> list[float]:
    lines = [line for line in ax.get_lines() if line.get_linestyle() == dash and len(line.get_xdata()) == 2]
    return [float(line.get_xdata()[0]) for line in lines]


def grey(colour: str) -> float:
    """Luminance 0..255 as PIL's conversion to mode L weighs it (ITU-R 601-2)."""
    return 255 * float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def assert_legible(figure: Figure) -> None:
    """Every text lies inside the figure and none over another."""
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    # Of the ticks, an axis also holds those outside its limits and the ones that a shared axis hides.
    drawn = {id(t) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for t in shown_labels(axis)}
    ticks = {
        id(label)
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in (tick.label1, tick.label2)
    }
    boxes = [(t, t.get_window_extent(renderer)) for t in texts if id(t) not in ticks or id(t) in drawn]
    assert len(boxes) > 5
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)


def shown_labels(axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]


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
        first = [path.read_bytes() for path in figures.save(figure, tmp_path / "one", "f")]
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


class TestFeatures:
    """The lists are those of the paper's drawings, but for b at -1 under Abs, which is drawn whole there."""

    @pytest.mark.parametrize(
        ("boundary", "heights"),
        [
            (0.5, [0.01, 0.01, 0.01, 0.125, 0.125]),
            (-0.5, [0.01, 0.01, 0.125, 0.125, 0.125]),
            (1.5, [0.01, 0.01, 0.01, 0.125, 0.125]),
            (2.0, [0.01, 0.01, 0.01, 0.01, 0.125]),
        ],
    )
    def test_relu_suppresses_what_is_not_above_the_boundary(self, boundary, heights):
        expected = [gallery.Feature(*each) for each in zip("abcde", [-3, -1, 0, 2, 4], heights, strict=True)]
        assert gallery.features("relu", boundary) == expected

    @pytest.mark.parametrize(
        ("boundary", "expected"),
        [
            (0, [("c", 0, 0.25), ("b", 1, 0.125), ("d", 2, 0.125), ("a", 3, 0.125), ("e", 4, 0.125)]),
            (-1, [("b", -1, 0.25), ("c", 0, 0.125), ("a", 1, 0.125), ("d", 2, 0.125), ("e", 4, 0.125)]),
            (1, [("c, d", 2, 0.25), ("b", 3, 0.125), ("e", 4, 0.125), ("a", 5, 0.125)]),
        ],
    )
    def test_abs_folds_about_the_boundary(self, boundary, expected):
        assert gallery.features("abs", boundary) == expected

    def test_identity_leaves_five_features(self):
        assert gallery.features("identity", 0.7) == list(gallery.FEATURES)

    def test_features_near_the_boundary_pass_smoothly_from_one_height_to_two(self):
        heights = [gallery.features("abs", boundary)[0].height for boundary in (0, 0.05, 0.1, 0.2, 0.45)]
        assert heights == sorted(heights, reverse=True)
        assert heights[0] == 0.25
        assert heights[-1] == pytest.approx(0.125, rel=1e-3)

    @pytest.mark.parametrize("boundary", [-1.0, 0.0, 0.07, 1.0, 1.3])
    def test_folding_keeps_the_mass(self, boundary):
        # The grid has the boundary midway between two of its points.
        x = boundary + 0.001 * (np.arange(-10_000, 10_000) + 0.5)
        folded = [gallery.profile("abs", f, boundary, x) for f in gallery.features("abs", boundary)]
        whole = [gallery.profile("identity", f, boundary, x) for f in gallery.FEATURES]
        assert np.sum(folded) == pytest.approx(np.sum(whole), rel=1e-6)
        assert np.all(np.array(folded)[:, x < boundary] == 0)

    @pytest.mark.parametrize("activation", ["identity", "relu", "abs"])
    @pytest.mark.parametrize("boundary", [-1.0, 0.05, 1.0])
    def test_the_height_is_the_profiles_at_its_position(self, activation, boundary):
        for feature in gallery.features(activation, boundary):
            at = gallery.profile(activation, feature, boundary, np.array([feature.position]))
            assert at == pytest.approx([feature.height])

    def test_what_is_selected_follows_the_papers_discussion(self):
        assert gallery.selected("relu", 0.5) == gallery.selected("relu", 1.5) == ["a", "b", "c"]
        assert gallery.selected("relu", -0.5) == ["a", "b"]
        assert [gallery.selected("abs", boundary) for boundary in (0, -1, 1)] == [["c"], ["b"], []]

    def test_unknown_activation(self):
        with pytest.raises(InputError, match="'rellu'; did you mean 'relu'"):
            gallery.features("rellu", 0.0)


class TestDiagrams:
    def test_each_shows_its_boundary_as_a_red_dashed_line(self, diagrams):
        shown = {stem: vertical_lines(figure.axes[0], "--") for stem, figure in diagrams.items()}
        assert shown == {
            "figure2_relu_before": [0.5],
            "figure2_abs_before": [0.0],
            "figure2_relu_after": [0.5],
            "figure2_abs_after": [0.0],
            "figure3_relu_down": [-0.5],
            "figure3_abs_down": [-1.0],
            "figure3_relu_up": [1.5],
            "figure3_abs_up": [1.0],
        }

    @pytest.mark.parametrize("unit", ["relu", "abs"])
    @pytest.mark.parametrize(("p", "way"), [(0.1, "down"), (-0.1, "up")])
    def test_figure_3_is_named_by_the_boundary_and_gives_the_sign_of_p(self, diagrams, unit, p, way):
        # The offset edit of the paper's code where lo = 0: s = 1 - p, t = p*r; s*h + t vanishes at h = -t/s.
        r = 7.0
        moved = -p * r / (1 - p)
        ax = diagrams[f"figure3_{unit}_{way}"].axes[0]
        (boundary,), (former,) = vertical_lines(ax, "--"), vertical_lines(ax, ":")
        assert former == gallery.BOUNDARY[unit]
        assert np.sign(boundary - former) == np.sign(moved) == -np.sign(p)
        assert f"moved {way} (p {'>' if p > 0 else '<'} 0)" in ax.get_title(loc="left")

    def test_all_are_legible(self, diagrams, composed):
        for figure in [*diagrams.values(), *composed]:
            assert_legible(figure)

    def test_every_letter_appears_once(self, diagrams):
        for figure in diagrams.values():
            letters = [t.get_text() for t in figure.axes[0].texts if t.get_fontstyle() == "italic"]
            assert sorted("".join(letters).replace(", ", "")) == list("abcde")

    def test_composed_figures_hold_four_lettered_panels(self, composed):
        for figure in composed:
            assert [ax.get_title(loc="left")[:3] for ax in figure.axes] == ["(a)", "(b)", "(c)", "(d)"]

    @pytest.mark.slow
    def test_write_makes_thirty_files_that_open(self, written, diagrams):
        folder, paths = written
        assert sorted(paths) == sorted(folder.iterdir())
        stems = [*diagrams, "figure2", "figure3"]
        assert {path.name for path in paths} == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png", "pdf")}
        for path in paths:
            if path.suffix == ".png":
                with Image.open(path) as image:
                    image.load()
                    assert image.size == ((1400, 780) if path.stem in ("figure2", "figure3") else (680, 380))
            elif path.suffix == ".svg":
                assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
            else:
                content = path.read_bytes()
                assert content.startswith(b"%PDF-")
                assert content.rstrip().endswith(b"%%EOF")
