"""A module imports only from modules nearer the data than itself."""

from __future__ import annotations

import ast
from pathlib import Path

import jaxdist

PACKAGE = Path(jaxdist.__file__).parent

LAYERS = (
    "errors",
    "types",
    "files",
    "text",
    "places",
    "manifests",
    "fields",
    "config",
    "overview",
    "progress",
    "elementwise",
    "activations",
    "forms",
    "data",
    "hosts",
    "devices",
    "blocks",
    "layouts",
    "taps",
    "sizes",
    "independence",
    "adapters",
    "edits",
    "formulas",
    "families",
    "moments",
    "products",
    "backends",
    "inputs",
    "mlp",
    "paper_weights",
    "training",
    "rules",
    "ranges",
    "kernel",
    "sweep",
    "restored",
    "heads",
    "units",
    "sensitivity",
    "unedited",
    "statistics",
    "doses",
    "waves",
    "preference",
    "one_network",
    "equivalence",
    "radii",
    "published",
    "results",
    "fitness",
    "groups",
    "counting",
    "family_sweeps",
    "matched",
    "study",
    "weights",
    "unfinished",
    "folders",
    "series",
    "tables",
    "paper_cells",
    "dosed",
    "dose_tables",
    "breakdowns",
    "figures",
    "gallery",
    "pictures",
    "profiles",
    "dose_figures",
    "markdown",
    "verdicts",
    "verdict_tables",
    "summary",
    "pages",
    "documents",
    "report",
    "own_data",
    "own_networks",
    "probes",
    "interop",
    "models",
    "experiment",
    "finished",
    "planning",
    "compare",
    "cli",
    "__main__",
)
"""From the data outward; the order of docs/architecture.md."""


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports outside ``if TYPE_CHECKING``."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.module == "jaxdist":
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxdist."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jaxdist."))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def test_every_module_has_its_layer_and_imports_only_from_below():
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert {module_of(path) for path in files} == set(LAYERS)
    for path in files:
        own = module_of(path)
        for name in imports(path) - {own}:
            assert name in LAYERS, f"{path.name} imports {name}"
            assert LAYERS.index(name) < LAYERS.index(own), f"{own} imports {name}, which is not below it"


def test_only_one_module_imports_tensorflow_datasets_and_the_config_knows_no_jax():
    users = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(alias.name == "tensorflow_datasets" for alias in node.names)
    }
    assert users == {"tfds_sets.py"}
    for name in (
        "config.py",
        "errors.py",
        "types.py",
        "statistics.py",
        "preference.py",
        "one_network.py",
        "figures.py",
        "gallery.py",
    ):
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        roots = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not any(root.split(".")[0] == "jax" for root in roots), name
