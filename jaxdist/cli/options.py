"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NoReturn, get_type_hints

from jaxdist import config as configs
from jaxdist.cli import surroundings
from jaxdist.cli.output import STDOUT
from jaxdist.compute import hosts
from jaxdist.config import Config
from jaxdist.errors import InputError


class Parser(argparse.ArgumentParser):
    """Errors in one sentence, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")

    @property
    def options(self) -> tuple[str, ...]:
        """All that may be given, such as ``-q`` and ``--quiet``."""
        return tuple(self._option_string_actions)


def add_config(parser: Parser) -> None:
    """The config file, and every field of it."""
    parser.add_argument("config", nargs="?", help="TOML file; if omitted, the quickstart")
    add_fields(parser, ("",))


def add_run(parser: Parser) -> None:
    """What commands take that make a run: a config with its fields, output, and other processes."""
    add_output(parser)
    add_config(parser)
    add_cluster(parser)


def add_fields(parser: Parser, prefixes: tuple[str, ...]) -> None:
    """Config fields whose names start so, in a group for each section; given ones alone are in the namespace."""
    kinds = get_type_hints(Config)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for key, help in configs.field_help().items():
        if not key.startswith(prefixes):
            continue
        section = key.partition(".")[0]
        if section not in groups:
            kind = kinds[section]
            words = (kind.__doc__ or "").rstrip(".") if dataclasses.is_dataclass(kind) else "Where the run goes"
            title = f"config, [{section}]" if dataclasses.is_dataclass(kind) else "config"
            groups[section] = parser.add_argument_group(title, f"{words}. Lists are written as a,b,c.")
        groups[section].add_argument(
            f"--{key}", metavar="VALUE", help=help.replace("%", "%%"), default=argparse.SUPPRESS
        )


def add_cluster(parser: Parser) -> None:
    """Where several processes meet."""
    group = parser.add_argument_group("several processes", "Run the same command in each process; see docs/hosts.md.")
    for name, help in hosts.HELP.items():
        group.add_argument(f"--distributed.{name}", metavar="VALUE", help=help, default=argparse.SUPPRESS)


def add_output(parser: Parser, *, any_name: bool = False) -> None:
    """``--quiet`` and ``--json``, whose file ends in .json unless `any_name` is allowed.

    Where arguments may follow that are not required, a config or a folder must not be taken for the file to write.
    """
    group = parser.add_argument_group("output", "Written for people by default; docs/scripts.md describes the JSON.")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary; errors still on stderr")
    group.add_argument(
        "--json",
        nargs="?",
        const=STDOUT,
        type=str if any_name else _json_file,
        metavar="FILE",
        help="write the main numbers as JSON; without FILE, or with -, to stdout, where nothing else is then printed",
    )


def _json_file(text: str) -> str:
    if text != STDOUT and not text.endswith(".json"):
        raise argparse.ArgumentTypeError(
            f"expected a file name ending in .json, or - for stdout, got {text!r}; if that is another argument, put "
            "--json after it"
        )
    return text


def count(text: str) -> int:
    """A whole number."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def truth(text: str) -> bool:
    """True or false, as in a config."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def fraction(text: str) -> float:
    """A fraction between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, got {text!r}")
    return value


def given_options(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given, so that what is left out keeps the default of the function behind it."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def changes(options: argparse.Namespace) -> dict[str, str]:
    """The config fields that were given."""
    return {key: value for key, value in vars(options).items() if key in configs.field_types()}


def config_of(options: argparse.Namespace) -> Config:
    """The config of the file with the fields that were given."""
    start = configs.load(options.config) if options.config is not None else Config()
    return configs.override(start, changes(options))


def experiment(options: argparse.Namespace | None = None) -> ModuleType:
    """Import what computes, with all cores in use and other processes met; late, so that mistakes answer at once."""
    values: Mapping[str, Any] = vars(options) if options else {}
    cluster = hosts.cluster({n: values[key] for n in hosts.HELP if (key := f"distributed.{n}") in values})
    surroundings.start_jax(cluster)
    from jaxdist.experiment import running

    return running
