"""A run beside the paper's published tables."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import jaxdist
from jaxdist import config
from jaxdist.analysis import paper_cells
from jaxdist.perturbations import families
from jaxdist.report import compare as compare_package
from jaxdist.report.compare import cell_tables, compare, pictures, saving, sides
from jaxdist.storage import published, result_files
from tests.report.compare_support import copy, draw_nothing, make, shown, subset

# Six networks on all digits compute for longer than they compile.
pytestmark = pytest.mark.usefixtures("optimised", "in_an_empty_folder")


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    return draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of six seeds."""
    return make(tmp_path_factory.mktemp("runs") / "first", "--train.seeds", "6", "--train.steps", "40")


def test_the_picture_beside_the_published_tables_has_the_sign_of_their_table(run, monkeypatch):
    kept = []
    monkeypatch.setattr(pictures.figures, "save", lambda figure, *_: kept.append(figure) or [])
    found = compare(run, "published")
    pictures.write(found, Path("p"))
    titles = [ax.get_title(loc="left") for ax in kept[0].axes]
    assert titles == [
        f"({panel} edits, {of}"
        for panel in ("a) Intensity", "b) Distance")
        for of in ("the paper's tables, 20 seeds", "this run, 6 seeds")
    ]
    paper, ours = (
        next(line for line in ax.lines if len(line.get_xdata()) in (20, 125) and line.get_color() == "#084f9a")
        for ax in kept[0].axes[2:]
    )
    assert 11.04 in paper.get_ydata()
    assert len(paper.get_xdata()) == 20
    assert len(ours.get_xdata()) == 125
    below = kept[1].axes[2]
    assert below.get_ylabel() == "ours - paper (points)"
    cells = found.points[(found.points.table == "scale") & (found.points.network == "relu")]
    drawn = [sorted(bars.lines[0].get_ydata()) for bars in below.containers]
    assert any(
        len(each) == len(cells) and np.allclose(each, sorted(100 * (cells.ours - cells.paper))) for each in drawn
    )
    assert (np.sign(cells.ours - cells.paper) == np.sign(cells.z)).all()


def test_what_is_only_swept_on_test_images_is_not_beside_the_published_tables(capsys, run):
    other = copy(run, "other")
    result = jaxdist.load(other)
    for family in families.PAPER:
        result[family] = result[family].to_dataset().assign_coords(split=["test"])
    result_files.save(result, other / "result.nc")
    code, text = shown(capsys, other, "published")
    assert code == 2
    assert "holds no sweep of relu or abs on the training images" in text


def test_the_last_line_names_what_was_written_beside_the_published_tables(capsys, run, monkeypatch):
    monkeypatch.setattr(compare_package, "save", saving.save)
    monkeypatch.setattr(pictures.figures, "save", lambda figure, folder, stem: [folder / f"{stem}.png"])
    _, text = shown(capsys, run, "published", "--pictures", "here")
    assert text.splitlines()[-1].endswith(" The pictures, cells.md and claims.md are in here")
    said = Path("here/cells.md").read_text()
    assert "data.name is digits here, mnist in the paper." in said
    assert "Note: on different images" in said
    assert "## Offset, abs" in said


def test_cells_of_a_single_seed_claim_nothing(run):
    said = cell_tables.markdown(compare(subset(run, "one", [0]), "published"))
    assert "Cannot judge: one seed has no standard error" in said
    assert "Of the drops" not in said
    tests = [line.split("|") for line in said.split("## Tests")[1].splitlines() if line.startswith("| Baseline")]
    assert len(tests) == 6
    assert all(cells[7].strip() == "–" for cells in tests)
    assert not re.search(r"[+|-] ?nan", said)


def test_networks_with_fewer_seeds_are_said(run):
    """The caption of a picture, and a network that the run does not have."""
    frame = compare(run, "published")
    fewer = frame.points.assign(seeds=np.where(frame.points.network == "abs", 2, 6))
    drawn = pictures.figure1(dataclasses.replace(frame, points=fewer))
    assert drawn.get_suptitle() == "Bands from two seeds, 1 degree of freedom, cut at 0 and 100 %"
    assert not pictures.figure1(frame).get_suptitle()
    titles = [ax.get_title(loc="left") for ax in drawn.axes]
    assert titles[1] == "(a) Intensity edits, this run, 2 to 6 seeds"
    assert titles[0] == "(a) Intensity edits, the paper's tables, 20 seeds"


def test_every_published_cell_stands_beside_ours(capsys, run):
    code, text = shown(capsys, run, "published", "--json", "p.json")
    assert code == 1
    assert "They differ: " in text.splitlines()[-1]
    for label in ("-200%", "+100%", "Baseline", "1000%", "train accuracy", "data.name"):
        assert label in text
    said = json.loads(Path("p.json").read_text())
    worst = max((c for c in said["points"] if c["quantity"] != "loss"), key=lambda c: abs(c["ours"] - c["paper"]))
    named = f"most {worst['table']} {worst['network']} {worst['label']}, ours - paper "
    assert f"{named}{100 * (worst['ours'] - worst['paper']):+.3g} points" in text.splitlines()[-1]
    cells = {(c["table"], c["network"], c["label"]): c for c in said["points"]}
    assert len(cells) == len(published.cells()) + len(published.finals()) == 78
    result = jaxdist.load(run)
    grid = families.offset_grid()
    at = int(np.abs(grid - 0.05).argmin())
    ours = result["offset"]["correct"].sel(network="abs", split="train").squeeze("site").values[:, at] / 1437
    cell = cells["offset", "abs", "+5%"]
    assert cell["ours"] == pytest.approx(ours.mean())
    se = np.sqrt(ours.var(ddof=1) * (1 / 6 + 1 / 20) + 0.0001**2 / 12)
    assert cell["z"] == pytest.approx((ours.mean() - 0.95) / se)
    t = stats.ttest_rel(
        result["offset"]["correct"].sel(network="abs", split="train").squeeze("site").values[:, 50] / 1437, ours
    )
    assert (cell["t"], cell["p"]) == (pytest.approx(t.statistic), pytest.approx(t.pvalue))
    unedited = cells["scale", "relu", "Baseline"]
    own = result["scale"]["unperturbed"].sel(network="relu", split="train").values / 1437
    se = np.sqrt(own.var(ddof=1) / 6 + 0.0015**2 / 19 + 0.0001**2 / 12)
    assert unedited["z"] == pytest.approx((own.mean() - 0.9833) / se)
    loss = cells["trained", "relu", "loss"]
    assert loss["ours"] == pytest.approx(
        float(result["training"]["loss"].sel(network="relu", step=39).mean()), rel=1e-6
    )
    test = cells["trained", "relu", "test accuracy"]
    assert test["ours"] == pytest.approx(
        float(result["training"]["test_accuracy"].sel(network="relu", step=40).mean()), rel=1e-6
    )


def test_a_run_that_says_what_the_paper_says_agrees_with_it(run):
    """Put the published accuracies into a run, with the seeds scattered around them."""
    side = sides.open_side(str(run))
    result = side.result.copy()
    noise = np.array([-2, -1, -0.5, 0.5, 1, 2]) * 3e-5
    for family in families.PAPER:
        group = result[family].to_dataset()
        correct = group.correct.values.copy()
        for cell in published.cells():
            if cell.family == family:
                at = int(np.abs(group.fraction.values - cell.row).argmin())
                network = list(group.network.values).index(cell.network)
                correct[network, :, 0, 0, at] = np.round(60_000 * (cell.accuracy + noise))
        result[family] = group.assign(correct=(group.correct.dims, correct), total=("split", [60_000]))
    agreeing = paper_cells.cells(result, side.config.statistics)
    edited = agreeing[agreeing.table != "trained"]
    assert edited.z.abs().max() < 0.5
    trained = agreeing[agreeing.table == "trained"]
    assert paper_cells.verdict(trained)[0] == "differ"
    assert paper_cells.verdict(agreeing)[0] == "agree", "4 of 76 cells may lie far off"
    few = paper_cells.verdict(agreeing.assign(seeds=5))
    assert few[0] == "not shown"
    assert "5 seeds are too few" in few[1]
    assert paper_cells.verdict(agreeing[agreeing.network == "abs"].assign(z=0.0))[0] == "not shown"
    assert paper_cells.verdict(agreeing.assign(z=np.nan))[0] == "cannot judge"


def test_the_paper_as_a_config_file_is_the_published_protocol():
    settings = config.load(Path(__file__).parents[2] / "configs" / "paper.toml")
    assert settings == published.PROTOCOL
