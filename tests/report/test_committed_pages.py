"""The findings and the reproduction say what the commands on them print, from the committed results."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

import jaxdist
from jaxdist import cli
from jaxdist.analysis import dose_tables, dosed, paper_cells, preference, tables
from jaxdist.config import StatisticsConfig
from jaxdist.perturbations import families
from jaxdist.storage import published
from tests import page_support
from tests.report import committed_pages
from tests.report.committed_pages import ROOT

PAGES = ("findings", "reproduction", "reproduction-tables", "variants")
BLOCKS = [(page, command) for page in PAGES for command in committed_pages.blocks(ROOT / "docs" / f"{page}.md")]
REPRODUCTION = ROOT / "docs" / "reproduction"
IMAGES = ROOT / "docs" / "images" / "reproduction"
TOTAL = 60_000


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), BLOCKS)
def test_every_block_is_what_its_command_makes(page, command):
    shown = committed_pages.blocks(ROOT / "docs" / f"{page}.md")[command]
    assert "\n".join(line.rstrip() for line in shown.splitlines()) == committed_pages.made(command)


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_the_text_is_in_a_block(page):
    """Prose may round what a block says, but not say what none does."""
    assert not list(committed_pages.unfounded(ROOT / "docs" / f"{page}.md"))


def test_a_number_that_no_block_has_is_found(tmp_path):
    page = tmp_path / "page.md"
    text = "# A page\n\nHere 1.5, 0.8, -1.5, 2.25, 4.1e-05, 3.0e-02, 3 of 4, 3 of 41 and 2 of 4.\n\n"
    page.write_text(
        text + "## More\n\nIt is 7.77.\n\n<!-- jaxdist x -->\n1.52, -0.8, 4.1e-05, 2 of 4, 13 of 4\n<!-- end -->\n"
    )
    assert list(committed_pages.unfounded(page)) == ["-1.5", "2.25", "3.0e-02", "7.77", "3 of 4", "3 of 41"]


@pytest.mark.parametrize("page", [page for page in PAGES if not page.endswith("-tables")])
def test_the_text_is_looked_at_to_its_end(page):
    path = ROOT / "docs" / f"{page}.md"
    text = committed_pages.BLOCK.sub("", path.read_text(encoding="utf-8"))
    assert len(committed_pages.prose(path)) > len(text) / 2


@pytest.mark.parametrize("path", sorted(REPRODUCTION.rglob("result.nc")), ids=lambda path: path.parent.name)
def test_the_committed_results_are_whole_and_name_no_place(path):
    result = jaxdist.load(path)
    texts = json.dumps([(node.path, str(k), str(v)) for node in result.subtree for k, v in node.attrs.items()])
    assert not re.search(r"(?<![\w.])/(home|tmp|work|root|Users)/", texts)
    assert "weights" not in result.children
    for family in families.PAPER:
        group = result[family].to_dataset()
        assert list(group.total.values) == [TOTAL, 10_000]
        assert group.sizes["fraction"] == {"scale": 100, "clip": 100, "offset": 125}[family]
    steps = result["training"].to_dataset()
    assert steps.sizes["step"] == 5001
    assert np.isfinite(steps.loss.values[..., :-1]).all()  # the paper does not record that of the last weights


def rows(text, title):
    """The rows of the Markdown table under a heading, as lists of words."""
    part = re.split(r"\n#+ ", text.split(f"# {title}\n", 1)[1])[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[word.strip() for word in line.strip("|").split("|")] for line in lines[2:]]


def number(word):
    return float(word.replace("−", "-").replace("∞", "inf").replace("–", "nan").removesuffix("%"))


OWN = "forty"
"""The paper's own networks."""


def cells(name):
    """The block of published cells beside a result."""
    blocks = committed_pages.blocks(ROOT / "docs" / "reproduction-tables.md")
    return blocks[f"jaxdist compare docs/reproduction/{name} published: cells.md"]


@pytest.fixture(scope="module")
def paper_run():
    return jaxdist.load(REPRODUCTION / "mnist")


@pytest.fixture(scope="module")
def own_run():
    return jaxdist.load(REPRODUCTION / OWN)


@pytest.mark.parametrize(("name", "network"), [("mnist", "relu"), ("mnist", "abs"), (OWN, "relu"), (OWN, "abs")])
@pytest.mark.parametrize("family", families.PAPER)
def test_every_published_cell_by_an_independent_computation(family, name, network):
    """From the committed counts, by NumPy and SciPy alone."""
    group = jaxdist.load(REPRODUCTION / name)[family].to_dataset().sel(network=network, split="train").squeeze("site")
    correct, unedited, grid = group.correct.values, group.unperturbed.values, group.fraction.values
    seeds = len(correct)
    printed = [cell for cell in published.cells() if (cell.family, cell.network) == (family, network)]
    title = f"{family.capitalize()}, {network}"
    same, own = student_t(correct[:, 50:51] - correct), student_t(unedited[:, None] - correct)
    p = 2 * stats.t.sf(np.abs(own), seeds - 1)
    holm = np.empty(len(grid))
    holm[np.argsort(p)] = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(grid), 0, -1)))
    compared = rows(cells(name), title)
    tested = rows(cells(name), f"{title}: tests")
    assert len(compared) == len(tested) == len(printed)
    for cell, one, test in zip(printed, compared, tested, strict=True):
        at = int(np.abs(grid - cell.row).argmin())
        ours = correct[:, at] / TOTAL
        theirs = ours.var(ddof=1) / 20
        if cell.label == "Baseline":
            theirs = (0.0015 if network == "relu" else 0.0) ** 2 / 19
        se = np.sqrt(ours.var(ddof=1) / seeds + theirs + 1e-8 / 12)
        assert one[0] == test[0] == cell.label
        found = np.array([number(word) for word in one[1:7]])
        difference = ours.mean() - cell.accuracy
        expected = np.array(
            [*(100 * np.array([grid[at], cell.accuracy, ours.mean(), difference, se])), difference / se]
        )
        half = np.array([0.06 * max(1, abs(grid[at])), 0.0051, 0.0051, 0.0051, 0.00051, 0.051])
        assert (np.abs(found - expected) <= half).all(), (cell, found, expected)
        drops = 100 * (unedited - correct[:, at]) / TOTAL
        error = drops.std(ddof=1) / seeds**0.5
        paper_drop = 100 * (printed[[c.label for c in printed].index("Baseline")].accuracy - cell.accuracy)
        near(number(one[7]), paper_drop, 0.0051)
        near(number(one[8]), drops.mean(), 0.0051)
        if cell.label != "Baseline":
            se = np.sqrt(drops.var(ddof=1) * (1 / seeds + 1 / 20) + 2e-4 / 12)
            near(number(one[9]), (drops.mean() - paper_drop) / se, 0.051)
        low, high, bound = (drops.mean() + stats.t.ppf(q, seeds - 1) * error for q in (0.025, 0.975, 0.95))
        for word, value in zip(test[1:4], (cell.t, same[at], own[at]), strict=True):
            near(number(word), value, 0.051)
        near(number(test[4]), holm[at], 0.06 * holm[at])
        for word, value in zip(re.findall(r"-?[\d.]+", test[5]), (drops.mean(), low, high), strict=True):
            near(float(word), value, 0.0051)
        implied = spread_implied(cell, printed, grid, correct)
        near(number(test[7]), 100 * implied, 0.0051) if np.isfinite(implied) else test.index("–", 7)
        near(number(test[8]), 100 * (correct[:, 50] - correct[:, at]).std(ddof=1) / TOTAL, 0.0051)
        assert test[6] == ("yes" if bound < 1 else "no")


def spread_implied(cell, printed, grid, correct):
    """The paper's standard deviation of the difference to index 50, from its t and a baseline that is not printed."""
    at = {int(np.abs(grid - one.row).argmin()): one.accuracy for one in printed}
    left, right = max(k for k in at if k <= 50), min(k for k in at if k >= 50)
    mean = correct.mean(axis=0) / TOTAL
    shift = {k: at[k] - mean[k] for k in (left, right)}
    weight = (50 - left) / max(right - left, 1)
    difference = mean[50] + (1 - weight) * shift[left] + weight * shift[right] - cell.accuracy
    if abs(difference) <= 3 * (1e-4 + abs(shift[right] - shift[left]) / 2):
        return np.nan
    return abs(difference) * 20**0.5 / abs(cell.t)


@pytest.mark.parametrize(
    ("network", "equal", "adjacent", "near", "median"), [("relu", 37, 2, 31, 0.11), ("abs", 22, 7, 11, 1.75)]
)
def test_the_networks_are_the_papers_own_by_an_independent_computation(network, equal, adjacent, near, median, own_run):
    """Digits of the means, and t to the three decimals that the paper's repository had, by NumPy and SciPy alone."""
    apart, digits, near_baseline = {}, [], set()
    for cell in published.cells():
        if cell.network != network:
            continue
        group = own_run[cell.family].to_dataset().sel(network=network, split="train").squeeze("site")
        correct, grid = group.correct.values, group.fraction.values
        at = int(np.abs(grid - cell.row).argmin())
        digits.append(1e4 * abs(correct[:, at].mean() / TOTAL - cell.accuracy))
        apart[cell.family, cell.label] = stats.ttest_rel(correct[:, 50], correct[:, at]).statistic / cell.t_source - 1
        if abs((correct[:, 50] - correct[:, at]).mean()) < 10:
            near_baseline.add((cell.family, cell.label))
    steps = own_run["training"].to_dataset()
    for final in published.finals():
        if final.network == network:
            last = -1 if final.quantity == "test_accuracy" else -2
            mean = float(steps[final.quantity].sel(network=network).values[:, last].mean())
            digits.append(1e4 * abs(mean - final.mean))
    # What lies in the middle may have been rounded either way.
    assert (len(digits), sum(off < 0.501 for off in digits)) == (39, equal)
    assert sum(off < 1.501 for off in digits) == equal + adjacent
    assert max(digits) < (1.5 if network == "relu" else 11.5)
    far = {place for place, ratio in apart.items() if abs(ratio) > 0.01}
    assert (len(apart), len(apart) - len(far)) == (36, near)
    assert round(100 * float(np.median(np.abs(list(apart.values())))), 2) == median
    if network == "relu":
        assert far == near_baseline | {("offset", "-25%")}
        assert near_baseline == {("scale", label) for label in ("25%", "50%", "Baseline", "1000%")}


def test_the_order_of_sums_moves_abs_networks_by_what_the_page_says(own_run):
    """Two networks at the published rows, and the mean of 20 that are moved independently, as far."""
    moved, others = [], []
    run = jaxdist.load(REPRODUCTION / "other_sums")
    for cell in published.cells():
        if cell.network == "abs":
            first, second = (
                each[cell.family].to_dataset().sel(network="abs", split="train").squeeze("site")
                for each in (own_run, run)
            )
            at = int(np.abs(first.fraction.values - cell.row).argmin())
            moved.append(second.correct.values[:, at] - first.correct.values[:2, at])
            others.append(first.correct.values[:, at].mean() - TOTAL * cell.accuracy)
    assert np.abs(moved).max() == 80
    of_means = np.sqrt(np.mean(np.square(moved)) / 20) / np.sqrt(np.mean(np.square(others)))
    assert of_means == pytest.approx(0.25, abs=0.05)


def test_the_spread_of_the_papers_own_networks_is_that_which_its_t_imply(own_run):
    frame = paper_cells.cells(own_run, StatisticsConfig())
    known = frame[frame.paper_spread.notna()]
    for network, apart in (("relu", 0.02), ("abs", 0.03)):
        some = known[known.network == network]
        assert len(some) > 25
        np.testing.assert_allclose(some.spread, some.paper_spread, rtol=apart)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_what_every_third_point_does_to_the_doses_of_clip_both(name):
    """Behind ReLU it is the clip; the pages' results have every third of the clip's points for it."""
    doses = {}
    for one in dosed.swept(jaxdist.load(ROOT / "docs" / "findings" / name)):
        if one.gauge == "as_is" and one.place[::2] == ("relu", "test") and one.series.family in ("clip", "clip_both"):
            ((_, path),) = one.paths()
            doses |= {(one.series.family, level): preference.dose_at(path, level).dose for level in preference.LEVELS}
    coarse = {level: doses["clip_both", level] / doses["clip", level] for level in preference.LEVELS}
    assert coarse[0.01].max() < 1.05
    assert coarse[0.01].min() < (0.9 if name == "fashion_mnist" else 0.96)
    np.testing.assert_allclose(coarse[0.1], 1, atol=0.01)


def test_which_offset_costs_relu_more_depends_on_data_and_training(own_run):
    """As docs/ideas.md says of a point of training accuracy."""

    def sides(result):
        reach = tables.tolerance(result, StatisticsConfig())
        reach = reach[(reach.network == "relu") & (reach.split == "train") & (reach.family == "offset")]
        return {row.side: np.sort(np.abs([row.low, row.high])) for row in reach.itertuples()}

    mnist, fashion = (sides(jaxdist.load(ROOT / "docs" / "findings" / name)) for name in ("mnist", "fashion_mnist"))
    assert mnist["below"][1] < mnist["above"][0]
    assert fashion["above"][1] < fashion["below"][0]
    longer = sides(own_run)
    assert longer["above"][1] < longer["below"][0]


def test_from_the_same_weights_training_here_is_that_of_the_papers_code(paper_run):
    theirs, ours = (jaxdist.load(REPRODUCTION / name)["training"].to_dataset() for name in ("paper_code", "same_start"))
    apart = np.abs(ours.loss.values[..., :-1] - theirs.loss.values[..., :-1])
    assert apart.shape[-1] == 5000
    assert apart.max() < 3e-5
    ends = paper_run["training"].to_dataset().train_accuracy.sel(network="relu").values[..., -2]
    assert ends.min() > theirs.train_accuracy.values[..., -2].max()


@pytest.mark.slow
def test_what_is_said_of_fashion_mnist(paper_run):
    """Rho at 1 % seed by seed, and how its training ends."""
    fashion = jaxdist.load(REPRODUCTION / "fashion_mnist")

    def rhos(result):
        found = {}
        for seed in range(result["scale"].sizes["seed"]):
            for one in dose_tables.compare(result.isel(seed=[seed]), StatisticsConfig()).rhos:
                if (one.against, one.split, one.gauge, one.level) == ("", "test", "as_is", 0.01):
                    found.setdefault((one.network, one.side), []).append(one.ratio.at_least)
        return found

    there, here = rhos(paper_run), rhos(fashion)
    assert len(here) == 4
    for key, values in here.items():
        assert len(values) == 2
        assert len(there[key]) == 6
        assert min(values) > max(there[key])
    steps = fashion["training"].to_dataset()
    late, last = steps.loss.values[..., -1001:-501], steps.loss.values[..., -501:-1]
    assert (last.mean(axis=-1) < late.mean(axis=-1)).all()
    swing = np.abs(np.diff(steps.train_accuracy.sel(network="abs").values[..., -501:-1])).max(axis=-1)
    assert (swing > 0.001).all()
    assert (swing < 0.01).all()


def student_t(counts):
    """t of differences of counts[S, P] against 0; of equal ones its limit."""
    error = counts.std(axis=0, ddof=1) / np.sqrt(len(counts))
    limit = np.where(counts[0] == 0, 0.0, np.copysign(np.inf, counts[0]))
    return np.where(np.ptp(counts, axis=0) == 0, limit, counts.mean(axis=0) / np.where(error == 0, 1, error))


def near(found, expected, within):
    assert found == expected or abs(found - expected) <= within + 1e-12, (found, expected)


def test_the_trained_networks_by_an_independent_computation(paper_run):
    steps = paper_run["training"].to_dataset()
    printed = {(one.network, one.quantity): one for one in published.finals()}
    found = rows(cells("mnist"), "After training")
    assert len(found) == len(printed) == 6
    for name, label, *words in found:
        quantity = label.replace(" ", "_")
        paper = printed[name, quantity]
        values = steps[quantity].sel(network=name).values[:, -1 if quantity == "test_accuracy" else -2].astype(float)
        unit, half = (1, 5.1e-5) if quantity == "loss" else (100, 0.0051)
        se = np.sqrt(values.var(ddof=1) / len(values) + paper.sd**2 / 19 + 1e-8 / 12)
        difference = values.mean() - paper.mean
        expected = [paper.mean, values.mean(), difference, se, difference / se / unit, paper.sd, values.std(ddof=1)]
        for word, value, within in zip(words, unit * np.array(expected), (*[half] * 4, 0.051, half, half), strict=True):
            near(number(word), value, within)


BESIDE = "published"
"""The picture of the comparison with the paper; the others are Figure 1 of the result whose name they have."""


@pytest.mark.slow
def test_the_picture_beside_the_paper_is_what_the_command_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = cli.main(["compare", f"docs/reproduction/{OWN}", "published", "--pictures", str(tmp_path), "--quiet"])
    assert code in (0, 1)
    page_support.assert_drawn_alike(IMAGES / f"{BESIDE}.png", tmp_path / f"{BESIDE}.png")


@pytest.mark.slow
def test_where_boundaries_lie_is_what_the_command_finds(shared, tmp_path):
    run = tmp_path / "relu"
    shutil.copytree(REPRODUCTION / OWN, run)
    assert cli.main(["geometry", str(run), "--data.dir", str(shared / "data" / "mnist"), "--quiet"]) == 0
    ((command, shown),) = committed_pages.blocks(ROOT / "docs" / "ideas.md").items()
    assert command == f"jaxdist geometry docs/reproduction/{OWN} --data.dir MNIST: geometry.md"
    made = (run / "geometry" / "geometry.md").read_text(encoding="utf-8")
    assert re.sub(r"^#", "##", made, flags=re.M).strip() == shown
    page_support.assert_drawn_alike(ROOT / "docs" / "images" / "geometry.png", run / "geometry" / "geometry.png")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({path.stem for path in IMAGES.glob("*.png")} - {BESIDE}))
def test_figure_1_of_a_variant_is_what_its_report_draws(name, tmp_path):
    run = tmp_path / name
    shutil.copytree(REPRODUCTION / name, run)
    assert cli.main(["report", str(run), "--quiet"]) == 0
    page_support.assert_drawn_alike(IMAGES / f"{name}.png", run / "figures" / "figure1.png")
