"""The package's floors: what imports what, past no package's face, and what stays free of JAX."""

from __future__ import annotations

import ast
import html
import importlib
import pkgutil
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxdist
from tests.page_support import ROOT

PACKAGE = Path(jaxdist.__file__).parent
PACKAGES = sorted(module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.ispkg)
SOURCES = sorted(path for folder in (PACKAGE, ROOT / "benchmarks", ROOT / "examples") for path in folder.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """The module and the name of everything that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def past_a_face(path: Path) -> list[str]:
    """What a file imports of other packages beside their public names."""
    own = path.relative_to(PACKAGE).parts[0] if path.is_relative_to(PACKAGE) else ""
    wrong = []
    for module, name in imports(path):
        top, _, rest = module.partition(".")
        package, _, deeper = rest.partition(".")
        if top != "jaxdist" or package not in PACKAGES or package == own:
            continue
        if deeper or name not in importlib.import_module(f"jaxdist.{package}").__all__:
            wrong.append(f"{module} {name}")
    return wrong


def test_packages_import_only_from_floors_below():
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command as lint; lint()"]
    pytest.importorskip("importlinter", reason="import-linter comes with the extra 'dev'")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_the_picture_of_the_imports_shows_those_that_there_are():
    """Else draw it again: ``python docs/draw_imports.py``."""
    pytest.importorskip("grimp", reason="grimp comes with import-linter, in the extra 'dev'")
    drawing = runpy.run_path(str(ROOT / "docs" / "draw_imports.py"))
    arrows, order = drawing["imports"](), drawing["floors"]()
    assert html.escape(drawing["written"](arrows)) in drawing["PICTURE"].read_text(encoding="utf-8")
    assert len(arrows) > 40
    assert all(order.index(start) < order.index(end) for start, end in arrows)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_through_the_face_of_a_package(path):
    assert past_a_face(path) == []


def test_an_import_past_a_face_is_seen(tmp_path):
    (tmp_path / "x.py").write_text(
        "from jaxdist.compute.blocks import fold\n"
        "from jaxdist.compute import blocks, progress\n"
        "import jaxdist.sweep.kernel\n"
    )
    assert past_a_face(tmp_path / "x.py") == [
        "jaxdist.compute.blocks fold",
        "jaxdist.compute progress",
        "jaxdist.sweep.kernel ",
    ]


@pytest.mark.parametrize("package", ["", *(f".{name}" for name in PACKAGES)])
def test_every_public_name_is_there(package):
    face = importlib.import_module(f"jaxdist{package}")
    assert face.__all__
    assert {*face.__all__} <= {*dir(face)}
    for name in face.__all__:
        assert getattr(face, name) is not None


def test_only_one_module_imports_tensorflow_datasets():
    users = {path.name for path in PACKAGE.rglob("*.py") if ("tensorflow_datasets", "") in imports(path)}
    assert users == {"tfds_sets.py"}


@pytest.mark.parametrize(
    "module",
    [
        "config",
        "errors",
        "types",
        "sweep.crossings",
        "analysis.statistics",
        "analysis.preference",
        "analysis.one_network",
        "storage.overview",
        "report.table",
        "cli.listing",
        "data",
    ],
)
def test_what_needs_no_jax_loads_without_it(module):
    code = f"import sys, jaxdist.{module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_probe_waits_for_nothing_that_it_does_not_need():
    """What draws, what tests hypotheses and Flax take as long to import as a small network to measure."""
    code = (
        "import sys, jax, numpy as np, jaxdist\n"
        "def network(w, x): return jax.nn.relu(jaxdist.site('hidden', x @ w)) @ w.T\n"
        "x, y = np.random.default_rng(0).normal(size=(40, 4)).astype('f'), np.arange(40) % 4\n"
        "post = {'hidden': jax.nn.relu}\n"
        "jaxdist.probe(network, np.eye(4, dtype='f'), train=(x, y), post=post, families=('scale',))\n"
        "needless = {'matplotlib', 'scipy.stats', 'flax', 'sklearn', 'orbax', 'plotly'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(needless)) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
