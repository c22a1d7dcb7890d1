"""The code blocks of README and docs: found, run in their order, and what they print.

``python -m tests.page_support docs/tutorial.md`` writes what the blocks print now into the page.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from jaxdist import cli

ROOT = Path(__file__).parents[1]
INSTALLS = "it installs packages"
NETWORK = "it needs a network"
TORCH = "it needs PyTorch"
ELSEWHERE = "other tests run its parts, on smaller networks"
HOURS = "it takes minutes to hours, on data that is not in the repository"

SKIPPED = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -e . &&"): INSTALLS,
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'"): INSTALLS,
    ("docs/how-to/paper.md", "jaxdist data prepare mnist --download"): NETWORK,
    ("docs/how-to/paper.md", "jaxdist train --out runs/mine"): ELSEWHERE,
    ("docs/how-to/paper.md", "jaxdist sweep runs/mine"): ELSEWHERE,
    ("docs/how-to/data.md", "jaxdist data prepare mnist --download"): NETWORK,
    ("docs/comparing.md", "jaxdist import-torch results"): TORCH,
    ("docs/comparing.md", "relu = nn.Sequential("): TORCH,
    ("docs/how-to/own-family.md", "jaxdist run --sweep.families"): ELSEWHERE,
    ("docs/how-to/own-metric.md", "jaxdist run --sweep.metrics cross_entropy,own_metric"): ELSEWHERE,
    ("docs/findings.md", "jaxdist run configs/comparison.toml"): HOURS,
    ("docs/how-to/accelerators.md", "pip install"): INSTALLS,
    ("docs/index.md", "python3 -m venv"): INSTALLS,
    ("docs/reproduction.md", "jaxdist train configs/paper.toml"): HOURS,
    ("docs/reproduction.md", "jaxdist run configs/paper.toml"): HOURS,
    ("docs/resuming.md", "jaxdist run configs/paper.toml"): HOURS,
    ("docs/scripts.md", "jaxdist run --out runs/six"): ELSEWHERE,
    ("docs/tutorial.md", "python3 -m venv"): INSTALLS,
    ("docs/sequel.md", "jaxdist train configs/sequel.toml"): HOURS,
    ("docs/variants.md", "jaxdist train configs/paper-as-described.toml"): HOURS,
}
"""Why blocks are not run, by their page and how they begin."""
OPTIONAL = {("docs/own-networks.md", "import equinox"): "equinox"}
"""Packages that an installation may be without, by the blocks that need them, which are then not run."""

_SHELL = ("|", ">", "&&")
_PROGRESS = re.compile(r"^(train|sweep|report)\b.*\bin \d+ s\b")


class Block(NamedTuple):
    """A fenced block: its page, language, text, and where in the page the text begins."""

    page: str
    language: str
    text: str
    start: int
    line: int

    @property
    def skipped(self) -> str | None:
        """Why it is not run, if it is not."""
        absent = {
            block: f"it needs {package}" for block, package in OPTIONAL.items() if not importlib.util.find_spec(package)
        }
        return next((why for (page, begin), why in (SKIPPED | absent).items() if self.begins(page, begin)), None)

    def begins(self, page: str, text: str) -> bool:
        return self.page == page and self.text.startswith(text)


class Ran(NamedTuple):
    """A block that ran, what it printed, and the text block behind it that says so, if there is one."""

    block: Block
    printed: str
    shown: Block | None


def pages() -> list[str]:
    """README and every page of the documentation."""
    return ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[Block]:
    """A page's fenced blocks that name a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, m[1], m[2], m.start(2), text[: m.start()].count("\n") + 1) for m in found]


def to_run(page: str) -> list[tuple[Block, Block | None]]:
    """The blocks that are run, each with the text block that comes next, if one does."""
    found = [block for block in blocks(page) if block.language in ("python", "sh", "text")]
    following = [*found, None][1:]
    return [
        (block, after if after and after.language == "text" else None)
        for block, after in zip(found, following, strict=True)
        if block.language != "text" and not block.skipped
    ]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, without what a pipe, a redirection or ``&&`` makes of its output."""
    lines = block.text.replace("\\\n", " ").splitlines()
    found = [itertools.takewhile(lambda word: word not in _SHELL, shlex.split(line, comments=True)) for line in lines]
    return [words for words in map(list, found) if words]


def run(page: str) -> Iterator[Ran]:
    """Run a page's blocks in the folder that is current, one after the other, as parts of one program."""
    names: dict[str, Any] = {}
    for block, shown in to_run(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if block.language == "python":
                exec(compile("\n" * block.line + block.text, page, "exec"), names)
            else:
                for program, *arguments in commands(block):
                    assert program == "jaxdist", f"{page}, line {block.line}: run {program}, or name it in SKIPPED"
                    assert cli.main(arguments) == 0, f"{page}, line {block.line}: jaxdist {' '.join(arguments)}"
        lines = (line.rstrip() for line in printed.getvalue().splitlines() if not _PROGRESS.match(line))
        yield Ran(block, "\n".join(lines).strip("\n"), shown)


def _fill(page: str) -> None:
    """Write what a page's blocks print into the text blocks behind them."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        ran = list(run(page))
    text = (ROOT / page).read_text(encoding="utf-8")
    for _, printed, shown in reversed(ran):
        if shown:
            text = f"{text[: shown.start]}{printed}\n{text[shown.start + len(shown.text) :]}"
    (ROOT / page).write_text(text, encoding="utf-8")


def assert_drawn_alike(committed: Path, now: Path) -> None:
    """The picture in the repository is what is drawn now; fonts may be hinted otherwise elsewhere."""
    old, new = (
        np.asarray(Image.open(path).convert("RGB").filter(ImageFilter.GaussianBlur(2)), np.float64)
        for path in (committed, now)
    )
    assert old.shape == new.shape
    # A letter's edge moves by a fraction of a pixel, which the blur spreads thin; a marker or line elsewhere stays.
    apart = float((np.abs(old - new).max(axis=2) > 40).mean())
    assert apart < 1e-4, f"draw {committed.name} again: {apart:.1e} of it differs"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        _fill(name)
