"""The documentation site: ``sphinx-build -W --keep-going -n -b html docs docs/_build``, without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from sphinx.application import Sphinx

import jaxdist

project = "jaxdist"
author = "The jaxdist authors"
copyright = "the jaxdist authors"
release = version = jaxdist.__version__

extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension", "sphinxarg.ext", "config_fields"]
autoapi_dirs = ["../jaxdist"]
autoapi_file_patterns = ["*.py"]  # not the stubs, which only say what a package gives to others
autoapi_generate_api_docs = False
suppress_warnings = ["autoapi.python_import_resolution"]  # packages' names are imported on first use
autoapi_options = ["members", "undoc-members"]
autodoc_member_order = "bysource"
exclude_patterns = ["_build", "findings/*", "reproduction/*"]
html_theme = "furo"
html_title = f"jaxdist {release}"

myst_heading_anchors = 3

# Docstrings have single backticks around whatever is code.
default_role = "literal"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

OTHERS = (
    "jax|jaxlib|jaxtyping|flax|linen|nnx|optax|numpy|np|xarray|xr|pandas|pd|matplotlib|rich|collections|pathlib"
    "|contextlib|pydantic|annotated_types"
)
INNER = "fields|blocks|waves|moments|sensitivity|data|progress|probes|units|unedited|site_programs"
TYPE_VARIABLES = "SomeEdit|T"
nitpick_ignore_regex = [
    # Other projects' pages, and Python's, could only be linked to with a network at hand.
    ("py:.*", rf"({OTHERS})\..*"),
    # Types of inner parts that have no page of their own.
    ("py:.*", rf"(jaxdist\.)?(\w+\.)?({INNER})\..*"),
    # Packages' public names, which have their entries where they are defined.
    ("py:.*", r"(jaxdist\.)?(compute|data|networks|perturbations|sweep|storage|analysis|report|experiment)\.\w+"),
    ("py:class", TYPE_VARIABLES),
    # Types of options, which the reference has in words.
    ("py:class", r"Annotated.*|Integer|Number|Text|Truth|Many|Distinct|Names|OrRange|Strict|Ge|Gt|Lt|[\d.]+"),
    # The axes of a shape with a single one, which look like a name.
    ("py:class", "[SPNDHCTKn]"),
]


def skipped(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: object) -> bool | None:
    """Leave out what a module only imports, and type variables."""
    return True if obj.imported or name in TYPE_VARIABLES.split("|") else None


def prose(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from reading what comes before a colon in a variable's docstring as its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # a comment


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", skipped)
    app.connect("autodoc-process-docstring", prose, priority=400)  # before napoleon
