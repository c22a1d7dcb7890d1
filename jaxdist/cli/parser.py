"""The parser, put together from the records of the commands."""

from __future__ import annotations

import argparse
import difflib
import itertools
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxdist.cli import preparing, pytorch, reporting, running
from jaxdist.cli.command import Command, Examples
from jaxdist.cli.options import Parser
from jaxdist.cli.output import STDOUT
from jaxdist.errors import InputError
from jaxdist.storage import manifests
from jaxdist.version import __version__

DESCRIPTION = "Do neural networks read their activations as intensity or as distance?"
EXAMPLES: Examples = (
    ("jaxdist run", "the quickstart, on embedded data"),
    ("jaxdist run configs/paper.toml --data.dir MNIST", "the paper, on a folder of IDX files"),
    ("jaxdist run --train.seeds 6 --out runs/six", "any field of the config as an option"),
    ("jaxdist run --train.seeds 9 --out runs/six", "trains only the three new seeds; a killed run resumes"),
    ("jaxdist list", "the runs in the folder runs, and their progress"),
)

COMMANDS: tuple[Command, ...] = (
    running.RUN,
    running.TRAIN,
    running.PLAN,
    running.SWEEP,
    running.MERGE,
    reporting.REPORT,
    reporting.VERDICT,
    reporting.LIST,
    pytorch.IMPORT_TORCH,
    pytorch.EXPORT_TORCH,
    reporting.COMPARE,
    reporting.GEOMETRY,
    reporting.CONTROLS,
    reporting.GALLERY,
    preparing.DATA,
    preparing.SCHEMA,
)


def build() -> Parser:
    """The parser of the whole command line."""
    return _built()[0]


def _built() -> tuple[Parser, Mapping[str, Parser]]:
    """The parser of the whole command line, and those of its commands by name."""
    parser = Parser(
        prog="jaxdist",
        usage="jaxdist COMMAND [OPTIONS]",
        description=f"{DESCRIPTION}\n\ncommands:\n{_commands()}",
        formatter_class=_Help,
        allow_abbrev=False,
        epilog=_epilog(EXAMPLES),
    )
    parser.add_argument("--version", action="version", version=f"jaxdist {__version__}")
    subparsers = parser.add_subparsers(dest="name", metavar="COMMAND", help=argparse.SUPPRESS, parser_class=Parser)
    for command in COMMANDS:
        added: Parser = subparsers.add_parser(
            command.name,
            prog=f"jaxdist {command.name}",
            usage=f"jaxdist {command.name} {command.usage}",
            description=command.help,
            formatter_class=_Help,
            allow_abbrev=False,
            epilog=_epilog(command.examples),
        )
        added.set_defaults(command=command.run)
        command.add(added)
    return parser, subparsers.choices


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line; raises `InputError` for what cannot be read, and `SystemExit` after ``--help``."""
    parser, commands = _built()
    options, unknown = parser.parse_known_args(_as_meant(arguments))
    if unknown:
        raise InputError(_unknown(unknown[0], options.name, commands))
    if options.name is None:
        options.command = _short_help
    elif getattr(options, "json", None) not in (None, STDOUT):
        manifests.refuse_own(Path(options.json))
    return options


def _as_meant(arguments: Sequence[str]) -> list[str]:
    """``--quiet`` may come before the command, and a run is planned by ``--dry-run``.

    >>> _as_meant(["-q", "run", "a.toml"]), _as_meant(["run", "a.toml", "--dry-run"])
    (['run', '-q', 'a.toml'], ['plan', 'a.toml'])
    """
    quiet = list(itertools.takewhile(("-q", "--quiet").__contains__, arguments))
    name, rest = arguments[len(quiet) : len(quiet) + 1], arguments[len(quiet) + 1 :]
    words = [*name, *quiet, *rest]
    if words[:1] in (["run"], ["train"]) and "--dry-run" in words:
        words = ["plan", *(word for word in words[1:] if word not in ("--dry-run", "-q", "--quiet"))]
    return words


def _short_help(_: argparse.Namespace) -> None:
    start = ("jaxdist run", "the quickstart, on embedded data"), ("jaxdist COMMAND --help", "options and examples")
    sys.stdout.write("\n".join(["usage: jaxdist COMMAND [OPTIONS]", "", _commands(), "", _listed(start), ""]))


def _commands() -> str:
    width = max(len(command.name) for command in COMMANDS)
    return "\n".join(f"  {command.name:{width}}  {command.help}" for command in COMMANDS)


class _Help(argparse.HelpFormatter):
    """Text of one line is wrapped, text that has lines keeps them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(shutil.get_terminal_size().columns, 100))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def _epilog(examples: Examples) -> str:
    return f"examples:\n{_listed(examples)}"


def _listed(examples: Examples) -> str:
    """Examples with what they are for, beside them where there is room in 80 columns, else below."""
    width = max(len(command) for command, _ in examples)
    beside = all(2 + width + 3 + len(words) <= 80 for _, words in examples)
    if beside:
        return "\n".join(f"  {command:{width}}   {words}" for command, words in examples)
    return "\n".join(f"  {command}\n      {words}" for command, words in examples)


def _unknown(argument: str, command: str | None, parsers: Mapping[str, Parser]) -> str:
    name = argument.split("=")[0]
    if command is None:
        return f"unknown option '{name}'; see 'jaxdist --help'"
    if not argument.startswith("-"):
        return f"unexpected argument '{argument}' for '{command}'; see 'jaxdist {command} --help'"
    if name in parsers[command].options:
        return f"{name}: options come after the command, 'jaxdist {command} {name}'"
    if any(name in parser.options for parser in parsers.values()):
        return f"{name}: not an option of '{command}'; see 'jaxdist {command} --help'"
    # One that has the section left out, as --steps, or else the nearest.
    long = [option.removeprefix("--") for option in parsers[command].options if option.startswith("--")]
    word = name.lstrip("-")
    near = [option for option in long if option.rpartition(".")[2] == word]
    near = near or difflib.get_close_matches(word, long, n=1)
    meant = f"did you mean '--{near[0]}'?" if near else f"see 'jaxdist {command} --help'"
    return f"unknown option '{name}'; {meant}"
