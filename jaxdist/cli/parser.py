"""The parser, put together from the modules of the commands."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from jaxdist.cli.commands import (
    compare,
    data,
    export_torch,
    gallery,
    import_torch,
    plan,
    report,
    run,
    schema,
    sweep,
    train,
    verdict,
)
from jaxdist.cli.commands import list as list_
from jaxdist.cli.options import Parser
from jaxdist.errors import InputError, nearest
from jaxdist.version import __version__

Examples = tuple[tuple[str, str], ...]
"""Commands as a user would type them, and what each is for."""

DESCRIPTION = "Do neural networks read their activations as intensity or as distance?"
EXAMPLES: Examples = (
    ("jaxdist run", "the quickstart, on embedded data"),
    ("jaxdist run configs/paper.toml --data.dir MNIST", "the paper, on a folder of IDX files"),
    ("jaxdist run --train.seeds 6 --out runs/six", "any field of the config as an option"),
    ("jaxdist run --train.seeds 9 --out runs/six", "only the three new seeds; a killed run goes on"),
    ("jaxdist list", "what is in the folder runs, and how far it is"),
)


class Command(Protocol):
    """A command's module; its constants are properties here, hence in capitals."""

    __name__: str

    @property
    def HELP(self) -> str: ...  # noqa: N802

    @property
    def USAGE(self) -> str: ...  # noqa: N802

    @property
    def EXAMPLES(self) -> Examples: ...  # noqa: N802

    def add(self, parser: Parser) -> None:
        """Add the command's options."""

    def command(self, options: argparse.Namespace) -> int | None:
        """Do it; returns the exit code, None for 0."""


COMMANDS: tuple[Command, ...] = (
    run,
    train,
    plan,
    sweep,
    report,
    verdict,
    list_,
    import_torch,
    export_torch,
    compare,
    gallery,
    data,
    schema,
)


def name_of(command: Command) -> str:
    """What a user types for a command."""
    return command.__name__.rpartition(".")[2].replace("_", "-")


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
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", help=argparse.SUPPRESS, parser_class=Parser)
    for module in COMMANDS:
        added: Parser = commands.add_parser(
            name_of(module),
            prog=f"jaxdist {name_of(module)}",
            usage=f"jaxdist {name_of(module)} {module.USAGE}",
            description=module.HELP,
            formatter_class=_Help,
            allow_abbrev=False,
            epilog=_epilog(module.EXAMPLES),
        )
        added.set_defaults(command=module.command)
        module.add(added)
    return parser, commands.choices


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line; raises `InputError` for what cannot be read, and `SystemExit` after ``--help``."""
    parser, commands = _built()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise InputError(_unknown(unknown[0], options.name, commands))
    if options.name is None:
        options.command = _short_help
    return options


def _short_help(_: argparse.Namespace) -> None:
    start = ("jaxdist run", "the quickstart, on embedded data"), ("jaxdist COMMAND --help", "options and examples")
    sys.stdout.write("\n".join(["usage: jaxdist COMMAND [OPTIONS]", "", _commands(), "", _listed(start), ""]))


def _commands() -> str:
    width = max(len(name_of(module)) for module in COMMANDS)
    return "\n".join(f"  {name_of(module):{width}}  {module.HELP}" for module in COMMANDS)


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
        return f"'{argument}': one argument too many for '{command}'; see 'jaxdist {command} --help'"
    if any(name in parser.options for parser in parsers.values()):
        return f"{name}: cannot be given to '{command}'; see 'jaxdist {command} --help' for what can"
    return f"unknown option '{name}'{nearest(name, [one for one in parsers[command].options if one.startswith('--')])}"
