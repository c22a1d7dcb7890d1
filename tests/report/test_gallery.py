"""The diagrams of the paper's Figures 2 and 3: what each network makes of five features."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxdist.errors import InputError
from jaxdist.report import figures, gallery
from tests.report.figure_support import assert_legible, vertical_lines


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FORMATS", ("svg", "png", "pdf"))  # as users have them
        return folder, gallery.write(folder)


@pytest.fixture(scope="module")
def diagrams() -> dict[str, Figure]:
    return gallery.diagrams()


@pytest.fixture(scope="module")
def composed() -> list[Figure]:
    return [gallery.figure2(), gallery.figure3()]


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
