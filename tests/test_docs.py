"""The Python in README and docs runs as written, block after block, and what it prints fits a terminal."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]


def blocks_of(name: str) -> list[tuple[str, int]]:
    """A page's Python blocks, with the line that each starts on."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(match[1], text[: match.start()].count("\n") + 1) for match in found]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/own-networks.md"])
@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_python_of_a_page_runs_as_written(name):
    blocks, names, shown = blocks_of(name), {}, io.StringIO()
    assert len(blocks) >= 3
    # As a user has them, not as strict as these tests.
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        contextlib.redirect_stdout(shown),
    ):
        for block, line in blocks:
            exec(compile("\n" * line + block, name, "exec"), names)
    assert "This network only" in shown.getvalue()
    tables = [line for line in shown.getvalue().splitlines() if not line.startswith("(Site")]
    assert max(map(len, tables)) <= 80


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
