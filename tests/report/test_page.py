"""The page of a run, read in a browser that has no network, and what it says against the tables.

The result is the committed one of real MNIST: two networks, eleven families, both splits, doses.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import jaxdist
from jaxdist import cli
from jaxdist.analysis import tables
from jaxdist.errors import InputError
from jaxdist.experiment import finished
from jaxdist.report import pages, writing
from jaxdist.sweep import results

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FOLDER = Path(__file__).parents[2] / "docs" / "findings" / "mnist"
HOSTILE = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 2'>"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result():
    return jaxdist.load(FOLDER)


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    """The page of the run; and one of two runs whose names, networks and paths are markup."""
    out = tmp_path_factory.mktemp("pages")
    options = results.options_of(result).statistics
    (plain,) = writing.write_page([FOLDER], [result], options, out)
    small = {name: result[name].to_dataset() for name in ("training", "ranges", "scale", "offset")}
    hostile = xr.DataTree.from_dict(
        {name: group.assign_coords(network=[f"{HOSTILE}{k}" for k in range(2)]) for name, group in small.items()}
    )
    hostile.attrs = result.attrs | {"data_source": HOSTILE, "data_name": HOSTILE}
    runs = [pages.Run(name, hostile, Path(HOSTILE)) for name in (HOSTILE, "<script>window.taken = 3</script>")]
    return plain, pages.write(pages.page(runs, options), out / "hostile.html")


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium is installed; with one, such as Debian's package chromium, the page is tried in it")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser):
    """Open a page with the network cut; anything that it says to the console, or asks for, fails the test."""
    contexts, wrong = [], []

    def open_page(path, width=1280, height=900, scheme="light"):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        )
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
        tab.goto(path.as_uri())
        until(tab, "window.Plotly !== undefined")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def until(tab, expression):
    """Wait for something to be true of a page; what Playwright has for that is not allowed in ours."""
    for _ in range(400):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def draw_all(tab):
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(tab, "[...document.querySelectorAll('.chart')].every((c) => c._fullLayout !== undefined)")


def shown(tab, chart=0):
    """The traces of a chart that can be seen, as (network, family)."""
    found = tab.evaluate(
        "(k) => document.querySelectorAll('.chart')[k].data.filter((t) => t.visible).map((t) => t.meta)", chart
    )
    return {(meta["network"], meta["family"], meta["split"]) for meta in found}


def test_every_chart_is_drawn_and_described(written, opened):
    tab = opened(written[0])
    assert written[0].stat().st_size < 6e6
    draw_all(tab)
    charts = tab.locator(".chart").all()
    assert len(charts) > 25  # two panels, eight controls, two networks at equal dose, fifteen radii, training
    for chart in charts:
        assert chart.locator(".main-svg").count() >= 1
        assert chart.locator(".scatterlayer .trace").count() >= 2
        assert len(chart.get_attribute("aria-label")) > 20
    for picture in tab.locator("img").all():
        assert picture.get_attribute("alt")


def test_a_point_says_its_fraction_accuracy_and_interval(written, opened, result):
    tab = opened(written[0])
    until(tab, "document.querySelector('.chart')._fullLayout !== undefined")
    points = tables.points(result, results.options_of(result).statistics)
    clip = points[(points.network == "abs") & (points.family == "clip") & (points.split == "train")]
    row = clip.iloc[len(clip) // 4]
    place = tab.evaluate(
        """([x, y]) => {
          const chart = document.querySelector(".chart"), layout = chart._fullLayout;
          chart.scrollIntoView({ block: "center" });
          const box = chart.getBoundingClientRect(), [across, down] = [layout.xaxis, layout.yaxis];
          return [box.x + across._offset + across.d2p(x), box.y + down._offset + down.d2p(y)];
        }""",
        [100 * row.fraction, 100 * row.accuracy],
    )
    tab.mouse.move(*place)
    tab.locator(".hovertext").first.wait_for()
    said = " ".join(tab.locator(".hovertext").all_text_contents())
    assert "abs, clip, train images" in said
    numbers = [float(text) for text in re.findall(r"\d+\.?\d*(?:e[-+]?\d+)?", said.split("at ", 1)[1])]
    expected = [row.fraction, row.accuracy, row.low, row.high]
    np.testing.assert_allclose(numbers[:4], 100 * np.array(expected), rtol=2e-3)


def test_networks_families_and_splits_switch_on_and_off(written, opened):
    tab = opened(written[0])
    until(tab, "document.querySelector('.chart')._fullLayout !== undefined")
    everything = shown(tab)
    assert everything == {(network, family, 0) for network in (0, 1) for family in (0, 1)}
    tab.get_by_label("relu", exact=True).uncheck()
    assert shown(tab) == {one for one in everything if one[0] == 1}
    tab.get_by_label("clip", exact=True).focus()
    tab.keyboard.press("Space")
    assert shown(tab) == {(1, 0, 0)}
    tab.get_by_label("test images", exact=True).check()
    assert shown(tab) == {(1, 0, 1)}
    for label in ("relu", "clip"):
        tab.get_by_label(label, exact=True).check()
    assert shown(tab) == {(network, family, 1) for network in (0, 1) for family in (0, 1)}
    # What is drawn later knows what is switched off.
    tab.get_by_label("abs", exact=True).uncheck()
    draw_all(tab)
    drawn = tab.evaluate(
        "[...document.querySelectorAll('.chart')].flatMap((c) => c.data).filter((t) => t.visible).map((t) => t.meta)"
    )
    assert {meta["network"] for meta in drawn if meta} == {0}


def test_tables_sort_by_any_column_with_the_missing_last(written, opened):
    tab = opened(written[0])
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    table = tab.locator("table", has=tab.locator("caption", has_text="Until accuracy is lost")).first
    header = table.locator("th", has_text="median")

    def column():
        return table.locator("tbody tr td:nth-child(5)").evaluate_all("(c) => c.map((d) => Number(d.dataset.key))")

    before = column()
    # Charts that come into view meanwhile may move a button from under the pointer.
    header.locator("button").dispatch_event("click")
    assert column() == sorted(before)
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").focus()
    tab.keyboard.press("Enter")
    assert column() == sorted(before, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    table.locator("th", has_text="network").locator("button").dispatch_event("click")
    assert table.locator("tbody tr td:nth-child(1)").all_text_contents() == sorted(
        table.locator("tbody tr td:nth-child(1)").all_text_contents()
    )
    assert header.get_attribute("aria-sort") is None
    missing = table.locator("tbody tr").nth(3).locator("td:nth-child(5)")
    missing.evaluate("(cell) => { cell.dataset.key = ''; cell.textContent = 'missing'; }")
    for _ in range(2):
        header.locator("button").dispatch_event("click")
        assert table.locator("tbody tr").last.locator("td:nth-child(5)").text_content() == "missing"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_reads_well_on_wide_and_narrow_screens_light_and_dark(written, opened, width, scheme):
    tab = opened(written[0], width=width, scheme=scheme)
    draw_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    texts = ["body", "a[href='#s1']", ".of", "th", "td", "legend", "pre", ".chart text.xtitle"]
    for selector in texts:
        ratio = tab.evaluate(CONTRAST, selector)
        assert ratio >= 4.5, f"{selector}: {ratio:.2f}"


CONTRAST = """(selector) => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const element = document.querySelector(selector);
  const style = getComputedStyle(element);
  let back = element;
  const filled = (e) => { const c = rgb(getComputedStyle(e).backgroundColor); return c.length === 3 || c[3] > 0; };
  while (back && !filled(back)) back = back.parentElement;
  const front = light(rgb(element.namespaceURI.endsWith("svg") ? style.fill : style.color));
  const behind = light(rgb(getComputedStyle(back).backgroundColor));
  return (Math.max(front, behind) + 0.05) / (Math.min(front, behind) + 0.05);
}"""


def test_markup_in_names_labels_and_paths_shows_as_text(written, opened):
    tab = opened(written[1])
    draw_all(tab)
    assert tab.evaluate("window.taken") is None
    assert tab.locator("img").count() == 0
    assert HOSTILE in tab.locator("h1").text_content()
    assert HOSTILE in tab.locator(".switches").text_content()
    assert any("<script>window.taken = 1" in text for text in tab.locator("pre").all_text_contents())
    radii = tab.locator("figure", has=tab.get_by_text("Scaled down to", exact=True)).locator(".ytick text")
    assert any("<script>" in text for text in radii.all_text_contents())


def test_a_print_has_everything(written, opened):
    tab = opened(written[0])
    tab.emulate_media(media="print")
    draw_all(tab)
    assert tab.locator("details:not([open])").count() == 0
    assert not tab.locator(".switches").is_visible()
    assert tab.pdf()[:5] == b"%PDF-"


def listed(page: str) -> list[str]:
    """The tables of a page, as HTML that begins with the caption."""
    return [part.partition("</table>")[0] for part in page.split("<caption>")[1:]]


def test_the_page_says_what_the_summary_says(written, result):
    text = written[0].read_text(encoding="utf-8")
    for sentence in ("mnist relu, dense0/pre, test images: reads distance", "carries no information"):
        assert sentence in text
    assert result.attrs["data_digest"] in text
    assert "jaxdist run" in text
    tables_of = {re.sub(r"<[^>]+>", "", one[: one.index("</caption>")]).strip(): one for one in listed(text)}
    # Scaling up never costs a point; six seeds have no dead unit.
    assert ">6/6</td>" in tables_of["Until accuracy is lost"]
    assert ">0/6</td>" in tables_of["Dead units"]


def test_a_result_without_anything_swept_still_has_its_training_on_a_page(result, tmp_path):
    trained = xr.DataTree.from_dict({"training": result["training"].to_dataset()})
    trained.attrs = result.attrs
    page = pages.page([pages.Run("trained", trained, tmp_path)], results.options_of(result).statistics)
    assert [section.title for section in page.sections] == ["Training", "Protocol: trained"]
    assert [choice.label for choice in page.choices] == ["relu", "abs"]


def test_switches_and_tables_of_training_are_of_the_networks_they_name(result, tmp_path):
    """Also where a run beside has no training, and where names are numbers."""
    swept = {name: result[name].to_dataset() for name in ("scale", "ranges")}
    imported = xr.DataTree.from_dict(
        {name: group.assign_coords(network=["2024", "100 %{y} $x$"]) for name, group in swept.items()}
    )
    imported.attrs = result.attrs | {"origin": '{"kind": "files", "unknown": ["train.steps", "model.init"]}'}
    runs = [pages.Run("imported", imported, tmp_path), pages.Run("own", result, tmp_path)]
    page = pages.page(runs, results.options_of(result).statistics)
    assert [c.label for c in page.choices if c.kind == "network"] == [
        "imported: 2024", "imported: 100 %{y} $x$", "own: relu", "own: abs"
    ]  # fmt: skip
    protocol = next(section for section in page.sections if section.title == "Protocol: imported")
    assert any("train.steps, model.init is not known" in row[1] for row in protocol.tables[0].rows)
    training = next(section for section in page.sections if section.title == "Training")
    for chart in training.charts:
        assert {trace.meta["network"] for trace in chart.figure.data} == {2, 3}
    assert {row[0] for row in training.tables[0].rows} == {"own: relu", "own: abs"}
    radii = next(section for section in page.sections if section.title == "How far an edit goes").charts[0].figure
    assert radii.layout.yaxis.type == "category"
    assert not any(sign in trace.hovertemplate for trace in radii.data for sign in ("%{y} $", "$x$"))


def test_sites_whose_short_names_are_alike_keep_rows_of_their_own(result, tmp_path):
    sites = [f"EncoderTransformerBlock_{k}/MultiHeadDotProductAttention_0/query" for k in range(4)]
    group = result["scale"].to_dataset()
    many = xr.DataTree.from_dict(
        {"scale": xr.concat([group.assign_coords(site=[site]) for site in sites], "site", data_vars="minimal")}
    )
    many.attrs = result.attrs
    page = pages.page([pages.Run("many", many, tmp_path)], results.options_of(result).statistics)
    chart = next(section for section in page.sections if section.title == "How far an edit goes").charts[0]
    assert list(chart.figure.layout.yaxis.tickvals) == sites
    assert set(chart.figure.data[0].y) == set(sites)


def test_pictures_are_shown_of_what_the_result_has_and_not_of_an_earlier_sweep(result, tmp_path):
    (tmp_path / "figures").mkdir()
    shutil.copy(FOLDER.parents[1] / "images" / "figure1.png", tmp_path / "figures" / "layers.png")
    group = result["scale"].to_dataset()
    two = xr.concat([group, group.assign_coords(site=["dense1/pre"])], "site", data_vars="minimal")
    for groups, shown in (({"scale": group}, False), ({"scale": two}, True)):
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = result.attrs
        page = pages.page([pages.Run("run", tree, tmp_path)], results.options_of(result).statistics)
        assert ("Tolerance, layer by layer" in [section.title for section in page.sections]) == shown


def test_several_runs_lie_over_each_other_and_stay_as_they_are(opened, tmp_path):
    runs = [FOLDER, FOLDER.parent / "fashion_mnist"]
    before = [sorted(path.iterdir()) for path in runs]
    path = finished.report_folders(runs, tmp_path / "both")
    assert [sorted(path.iterdir()) for path in runs] == before
    assert path == tmp_path / "both" / "report.html"
    assert path.stat().st_size < 6e6
    tab = opened(path)
    until(tab, "document.querySelector('.chart')._fullLayout !== undefined")
    labels = tab.locator(".switches fieldset", has_text="Networks").locator("label").all_text_contents()
    names = [f"{run}: {network}" for run in ("mnist", "fashion_mnist") for network in ("relu", "abs")]
    assert [label.strip() for label in labels] == names
    assert {network for network, _, _ in shown(tab)} == {0, 1, 2, 3}


def test_a_run_that_is_given_twice_or_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="named twice"):
        finished.report_folders([FOLDER, FOLDER.parent / "mnist"], tmp_path / "out")
    with pytest.raises(InputError, match="no result found"):
        finished.report_folders([FOLDER, tmp_path], tmp_path / "out")
    with pytest.raises(InputError, match="is a run folder"):
        finished.report_folders([FOLDER, FOLDER.parent / "fashion_mnist"], FOLDER)
    assert not (tmp_path / "out").exists()


def test_the_command_of_several_runs_needs_a_place_for_their_page_and_that_of_one_has_its_own(capsys):
    for arguments in (["a", "b"], ["a", "--out", "c"]):
        assert cli.main(["report", *arguments]) == 2
        assert "--out" in capsys.readouterr().err
