"""The directive ``config-fields``: the fields of a config's section, with type, default and help, from the config."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args, get_origin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jaxdist import config as configs
from jaxdist.fields import Call


class ConfigFields(SphinxDirective):
    """Takes the section's name, or nothing for the fields that are in none."""

    optional_arguments = 1
    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        section = self.arguments[0] if self.arguments else ""
        kinds, helps = configs.field_types(), configs.field_help()
        names = [name for name in kinds if name.rpartition(".")[0] == section]
        if not names:
            raise self.error(f"no fields in section '{section}'")
        rows = [f"| `{name}` | {kind_of(kinds[name])} | {cell(helps[name])} |" for name in names]
        return self.parse_text_to_nodes("\n".join(["| field | value | meaning [default] |", "|---|---|---|", *rows]))


def kind_of(kind: object) -> str:
    """What a value is, in a word or two."""
    if get_origin(kind) is tuple:
        return {int: "list of integers", float: "list of numbers"}.get(get_args(kind)[0], "list of names")
    if get_origin(kind) is Literal:
        return "one of the names"
    if Call in get_args(kind):
        return "number or table" if float in get_args(kind) else "name or table"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}[kind]


def cell(text: str) -> str:
    """Text as a table's cell: what Markdown would read as markup stays as it is."""
    return "".join(f"\\{letter}" if letter in "|*[]<>_\\`" else letter for letter in text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("config-fields", ConfigFields)
    return {"parallel_read_safe": True}
