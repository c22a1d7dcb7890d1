"""docs/findings.md shows what the commands on it print, from the committed results."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from jaxdist import cli, figures

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "findings.md"
SETS = ("mnist", "fashion_mnist")
COMMANDS = ("report", "verdict")


def blocks():
    """The page's text blocks by the command and folder that they come from."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"`jaxdist (\w+) docs/findings/(\w+)`[^`]*```text\n(.*?)```", text, re.S)
    return {(command, name): block for command, name, block in found}


def printed(command, name, folder, capsys):
    """What the command prints on a copy of the committed result, but for where it has put files."""
    shutil.copytree(DOCS / "findings" / name, folder / name)
    assert cli.main([command, str(folder / name)]) == 0
    out = capsys.readouterr().out
    kept = [line.rstrip() for line in out.splitlines() if str(folder) not in line and " are in" not in line]
    return "\n".join(kept).strip("\n")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_block_is_what_its_command_prints(command, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "save", lambda *_: [])  # it is about what is printed
    shown = "\n".join(line.rstrip() for line in blocks()[command, name].splitlines()).strip("\n")
    assert shown == printed(command, name, tmp_path, capsys)


def test_every_number_of_the_text_is_in_a_block():
    """Prose may round what a block says, but not say what none does."""
    text = PAGE.read_text(encoding="utf-8")
    known = {float(number.replace("−", "-")) for number in re.findall(r"-?\d+\.?\d*", " ".join(blocks().values()))}
    prose = re.sub(r"```.*?```|`[^`]*`|\[[^\]]*\]\([^)]*\)|^#.*$", " ", text, flags=re.S | re.M)
    for number in re.findall(r"(?<![\w.])\d+\.\d+", prose):
        digits = len(number.partition(".")[2])
        assert any(round(abs(one), digits) == float(number) for one in known), number
