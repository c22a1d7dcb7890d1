"""The code of README and docs runs as written and prints what the pages show, which fits a terminal."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from jaxdist import config as configs
from jaxdist.cli import parser
from jaxdist.report import figures, gallery
from tests import page_support
from tests.page_support import OPTIONAL, ROOT, SKIPPED

PAGES = [page for page in page_support.pages() if page_support.to_run(page)]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_blocks_of_a_page_run_as_written_and_print_what_it_shows(page):
    # As a user has them, not as strict as these tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        ran = list(page_support.run(page))
    for block, printed, shown in ran:
        assert all(len(line) <= 80 for line in printed.splitlines() if "│" in line), printed
        if shown:
            assert_alike(printed, shown.text, f"{page}, line {block.line}")
    of_one = page in ("README.md", "docs/own-networks.md", "docs/tutorial.md")
    assert of_one == any("This network only" in printed for _, printed, _ in ran)


def assert_alike(printed: str, shown: str, where: str) -> None:
    """Words are the same, and numbers near: training on another machine ends a little elsewhere."""
    words, expected = (
        re.sub(r"[\s─━┃│┏┓┗┛┡┩┳┻╇└┘┴┼]+", " ", NUMBER.sub("#", text)).strip() for text in (printed, shown)
    )
    assert words == expected, where
    found, told = (np.array([float(number) for number in NUMBER.findall(text)]) for text in (printed, shown))
    np.testing.assert_allclose(found, told, rtol=0.2, atol=1.5, err_msg=where)


def test_the_pages_that_say_most_have_blocks_that_run():
    assert {"README.md", "docs/tutorial.md", "docs/own-networks.md", "docs/how-to/own-family.md"} <= set(PAGES)


@pytest.mark.parametrize(("page", "begin"), [*SKIPPED, *OPTIONAL])
def test_what_is_not_run_is_still_there(page, begin):
    assert any(block.begins(page, begin) for block in page_support.blocks(page)), (page, begin)


def test_blocks_of_packages_that_are_absent_are_left_out(monkeypatch):
    (page, begin), package = next(iter(OPTIONAL.items()))
    (block,) = (block for block in page_support.blocks(page) if block.begins(page, begin))
    monkeypatch.setattr(page_support.importlib.util, "find_spec", lambda name: None if name == package else name)
    assert block.skipped == f"it needs {package}"
    assert block not in [each for each, _ in page_support.to_run(page)]


@pytest.mark.parametrize("page", page_support.pages())
def test_every_command_is_one_that_the_parser_takes(page, monkeypatch):
    """Also of the blocks that are not run."""
    monkeypatch.chdir(ROOT)
    types = configs.field_types()
    for block in page_support.blocks(page):
        for program, *arguments in page_support.commands(block) if block.language == "sh" else []:
            if program != "jaxdist":
                continue
            options = parser.build().parse_args(arguments)
            start = configs.load(options.config) if getattr(options, "config", None) else configs.Config()
            changes = {key: value for key, value in vars(options).items() if key in types and type(value) is str}
            configs.override(start, changes)


@pytest.mark.parametrize("page", page_support.pages())
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("stem", gallery.diagrams())
def test_the_diagrams_of_a_page_are_what_the_gallery_draws(stem, tmp_path):
    """`jaxdist gallery` makes them; fonts may be hinted otherwise elsewhere."""
    (now,) = figures.save(gallery.diagrams()[stem], tmp_path, stem, ["png"])
    committed = ROOT / "docs" / "images" / "gallery" / f"{stem}.png"
    page_support.assert_drawn_alike(committed, now)
