"""The documentation site builds without a warning, and no link in it is dead."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx", reason="the site is built with Sphinx: pip install 'jaxdist[docs]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """The links of an HTML page to others, to its own parts and to files, and the places that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        self.links += [found[name] for name in ("href", "src") if name in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; the command is that of docs/conf.py."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", folder / "doctrees", ROOT / "docs", folder / "html"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def built(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_no_link_of_the_site_is_dead(built):
    dead, checked = [], 0
    for path, page in built.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            checked += 1
            if not target.exists() or (target in built and place and place not in built[target].places):
                dead.append(f"{path.name}: {link}")
    assert checked > 1000
    assert not dead


def test_every_page_of_the_docs_is_in_the_site(site):
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert all((site / path.with_suffix(".html")).exists() for path in sources)


def test_the_reference_has_what_a_user_of_python_meets(site, built):
    text = "".join(page.text for path, page in built.items() if path.parent == site / "reference")
    for name in (
        "jaxdist.experiment.probes.probe",
        "jaxdist.networks.model.Model",
        "jaxdist.sweep.ensemble_sweep.sweep",
        "jaxdist.analysis.statistics.corrected",
    ):
        assert f'id="{name}"' in text
    for words in (
        "--sweep.offset_formula",
        "--train.seeds",
        "import-torch",
        "share of changed predictions that matters",
    ):
        assert words in text


def test_names_of_the_public_api_have_their_entries(site, built):
    import jaxdist

    text = built[site / "reference" / "api.html"].text
    assert all(f">{name}<" in text or f".{name}" in text for name in jaxdist.__all__ if name != "__version__")
