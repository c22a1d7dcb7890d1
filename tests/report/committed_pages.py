"""Pages whose blocks are what commands make of committed results: these blocks, and the numbers of the text around.

A block stands between ``<!-- jaxdist COMMAND ... -->`` and ``<!-- end -->``. It is what the command prints, or, where
``: FILE`` follows, the Markdown file that it writes, its headings one level lower. ``python -m tests.committed_pages
PAGE`` writes a page's blocks anew.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from jaxdist import cli
from jaxdist.report import figures

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- (jaxdist [^>]*?) -->\n(.*?)\n?<!-- end -->", re.S)
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


def blocks(page: Path) -> dict[str, str]:
    """The page's blocks by their commands."""
    return dict(BLOCK.findall(page.read_text(encoding="utf-8")))


def made(command: str) -> str:
    """What a block should say. Nothing of the committed results' folders is written."""
    words, _, file = command.partition(": ")
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        _, verb, *arguments = words.split()
        for k, argument in enumerate(arguments):
            if (ROOT / argument).is_dir():
                arguments[k] = Path(argument).name
                shutil.copytree(ROOT / argument, arguments[k])
        printed = io.StringIO()
        # It is about what is printed and tabulated.
        with contextlib.redirect_stdout(printed), mock.patch.object(figures, "save", return_value=[]):
            code = cli.main([verb, *arguments])
        if code not in (0, 1):
            raise ValueError(f"{words}: exit code {code}")
        if file:
            (path,) = Path().rglob(file)
            return re.sub(r"^#", "##", path.read_text(encoding="utf-8"), flags=re.M).strip()
        # Where files are, is another matter.
        kept = [line.rstrip() for line in printed.getvalue().splitlines() if not re.search(r" (are|is) in ", line)]
        return "```text\n" + "\n".join(kept).strip("\n") + "\n```"


def prose(page: Path) -> str:
    """A page's text without its blocks, headings, code and links."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"```.*?```|`[^`]*`|\[[^\]]*\]\([^)]*\)|^#[^\n]*$", " ", text, flags=re.S | re.M)


def unfounded(page: Path) -> Iterator[str]:
    """Numbers of the page's text that are in none of its blocks, nor in those of its page of tables.

    Decimals, rounded as they are, and "m of n".

    Text may leave out a minus, as in "0.2 points less", but not add one.
    """
    beside = page.with_stem(f"{page.stem}-tables")  # what a page leaves to one of its own
    pages = [page, beside] if beside.exists() else [page]
    told = " ".join(" ".join(body for each in pages for body in blocks(each).values()).split())
    known = [float(number) for number in re.findall(NUMBER, told)]
    for number in re.findall(r"(?<![\w.])-?\d+\.\d+(?:e-\d+)?", prose(page)):
        value, digits = float(number), len(number.partition("e")[0].partition(".")[2])
        if "e" in number:
            found = value in known
        else:
            found = any(round(one, digits) == value or round(abs(one), digits) == value for one in known)
        if not found:
            yield number
    for share in re.findall(r"\d+ of \d+", " ".join(prose(page).split())):
        if not re.search(rf"(?<!\d){share}(?!\d)", told):
            yield share


def rewrite(page: Path) -> None:
    """Write every block of a page anew."""
    text = page.read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(lambda m: f"<!-- {m[1]} -->\n{made(m[1])}\n<!-- end -->", text), encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        rewrite(Path(argument))
