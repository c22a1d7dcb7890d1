"""Names of modules' members that documentation and docstrings give in backticks are there."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxdist
from jaxdist import config as configs
from tests import page_support
from tests.page_support import ROOT

PACKAGE = Path(jaxdist.__file__).parent
MODULES = {
    name.rpartition(".")[2]: name
    for depth in (2, 1)  # a module of a package hides one of a folder in it
    for module in pkgutil.walk_packages([str(PACKAGE)], "jaxdist.")
    if (name := module.name.removeprefix("jaxdist.")).count(".") < depth
    if name.rpartition(".")[2] not in ("torch", "options", "dataset")
}
"""Modules by the name that texts call them by, without their package; these three are other things in texts."""
FILES = {"csv", "html", "json", "md", "nc", "npz", "pdf", "pickle", "png", "pt", "py", "safetensors", "svg", "toml"}
"""Endings of files, some of which are called as modules are."""
DOTTED = re.compile(r"(?P<top>jaxdist\.)?(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?=$|[\s(,\[=])")


def spans(text: str) -> Iterator[str]:
    """What stands in backticks, without blocks of code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    for span in re.findall(r"``(.+?)``|`([^`]+)`", text, flags=re.S):
        yield " ".join("".join(span).split())


def named(text: str) -> Iterator[str]:
    """The names of the package's that are in backticks, from the package down."""
    fields = configs.field_types()
    for span in spans(text):
        match = DOTTED.match(span)
        if not match:
            continue
        top, path = match["top"], match["path"]
        first, _, rest = path.partition(".")
        # Fields of a config have sections called as modules are, and so have files of a run.
        if top:
            yield path
        elif rest and first in MODULES and path not in fields and path.rpartition(".")[2] not in FILES:
            yield f"{MODULES[first]}.{rest}"


def resolves(path: str) -> bool:
    """Whether a dotted name leads from the package to something: through modules, then attributes."""
    thing: object = jaxdist
    taken = "jaxdist"
    for part in path.split("."):
        taken = f"{taken}.{part}"
        if hasattr(thing, part):
            thing = getattr(thing, part)
        elif part in getattr(thing, "__annotations__", {}):  # a field without a default is no attribute of its class
            return path.endswith(f".{part}")
        else:
            try:
                thing = importlib.import_module(taken)
            except ImportError:
                return False
    return True


def docstrings(path: Path) -> str:
    """Every string of a module that stands for itself: docstrings, also those below a value."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return "\n".join(s.value for s in strings if isinstance(s, ast.Constant) and isinstance(s.value, str))


SOURCES = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("page", page_support.pages())
def test_names_in_pages_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not [name for name in named(text) if not resolves(name)]


def test_names_in_docstrings_are_there():
    missing = {
        source: names
        for source in SOURCES
        if (names := [name for name in named(docstrings(ROOT / source)) if not resolves(name)])
    }
    assert not missing


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`edits.build` and `families.build`", ["perturbations.edits.build"]),
        ("`jaxdist.nothing(x)`, ``jaxdist.analysis.statistics.holm``, `statistics.holm(p, ...)`", ["nothing"]),
        ("`statistics.Corrected.drop`, `series.Series.at`, `series.Series.gone`", ["analysis.series.Series.gone"]),
        ("`sweep.dose`, `report.html`, `--data.dir`, `result.seeds`, `np.nothing`", []),
        ("```python\nedits.build()\n```", []),
    ],
)
def test_a_name_that_is_not_there_is_seen(text, missing):
    assert [name for name in named(text) if not resolves(name)] == missing


MANY = 3
"""Arguments that need no section of their own."""
OF_A_PROTOCOL = {"update", "show", "__call__"}
"""Methods whose arguments the protocol explains that they implement: a reducer's, progress."""


def functions(path: Path) -> Iterator[tuple[str, set[str], str]]:
    """The public functions and methods of a module, with their parameters and docstrings; none within functions."""
    bodies = [ast.parse(path.read_text(encoding="utf-8")).body]
    for body in bodies:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bodies.append(node.body)
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = node.args
                every = [
                    *arguments.posonlyargs,
                    *arguments.args,
                    *arguments.kwonlyargs,
                    arguments.vararg,
                    arguments.kwarg,
                ]
                yield node.name, {each.arg for each in every if each} - {"self", "cls"}, ast.get_docstring(node) or ""


def explained(docstring: str) -> list[str]:
    """The parameters that an Args section explains."""
    section = re.search(r"^Args:\n((?:  .*\n?|\n)+)", docstring, flags=re.M)
    found = re.findall(r"^  (\w[\w, ]*): ", section[1], flags=re.M) if section else []
    return [name for names in found for name in names.split(", ")]


@pytest.mark.parametrize("source", [source for source in SOURCES if source.startswith("jaxdist")])
def test_functions_of_many_arguments_have_a_section_on_them_and_no_others(source):
    for name, parameters, docstring in functions(ROOT / source):
        explains = explained(docstring)
        assert set(explains) <= parameters, f"{name}: {set(explains) - parameters} are no parameters"
        assert explains or len(parameters) <= MANY or name in OF_A_PROTOCOL, f"{name} has no Args"


def test_an_argument_that_is_not_there_is_seen(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('def f(a, b, *, c, **rest):\n    """One.\n\n    Args:\n      a, b: two.\n      d: none.\n    """\n')
    ((name, parameters, docstring),) = functions(path)
    assert (name, parameters, explained(docstring)) == ("f", {"a", "b", "c", "rest"}, ["a", "b", "d"])


def test_many_names_are_looked_up():
    pages = sum(len(list(named((ROOT / page).read_text(encoding="utf-8")))) for page in page_support.pages())
    sources = sum(len(list(named(docstrings(ROOT / source)))) for source in SOURCES)
    assert min(pages, sources) > 40
