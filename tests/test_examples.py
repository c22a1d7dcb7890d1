"""The examples run as they are, and say what they are there to say; the citation is of this version.

After a change of the notebook: ``jupyter execute --inplace examples/quickstart.ipynb``, and look at its figures.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient

import jaxdist

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NUMBER = r"-?\d+\.\d+|inf|nan"


def texts(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """What the notebook's cells show as text, in their order; figures by their size."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield output.text if output.output_type == "stream" else output.data["text/plain"]


def words_and_numbers(text: str) -> tuple[list[str], np.ndarray]:
    """Apart, since rounding differs from machine to machine, and with it how columns are aligned."""
    return re.sub(NUMBER, "#", text).split(), np.array([float(each) for each in re.findall(NUMBER, text)])


def run(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def answer(name: str, folder: Path) -> str:
    """What an example prints; it complains of nothing and leaves nothing behind."""
    done = run(name, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not list(folder.iterdir())
    return done.stdout


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)


def test_the_notebook_is_small_and_was_executed_from_top_to_bottom(committed):
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    images = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(images) == 2
    assert (EXAMPLES / "quickstart.ipynb").stat().st_size < 1e6


def imported(code: str) -> Iterator[tuple[str, str]]:
    """The modules of the package that code imports from, each with a name that it takes of it."""
    tree = ast.parse(code)
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "jaxdist":
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.module, alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


def missing(code: str) -> list[str]:
    """The names that code takes of the package's modules and that these do not have."""
    absent = []
    for owner, name in imported(code):
        package, _, last = owner.rpartition(".")
        try:
            thing = importlib.import_module(owner)
        except ImportError:
            thing = getattr(importlib.import_module(package), last, None)
        if not hasattr(thing, name):
            absent.append(f"{owner}.{name}")
    return absent


def test_names_that_the_examples_take_of_the_package_are_there(committed):
    cells = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "code")
    notebook = re.sub(r"^%.*$", "", cells, flags=re.MULTILINE)
    scripts = {path.name: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
    assert len(scripts) == 5
    assert not {name: names for name, code in {"notebook": notebook, **scripts}.items() if (names := missing(code))}


def test_a_name_that_is_not_there_is_seen():
    code = "from jaxdist.analysis import tables, verdicts\ntables.points(1)\ntables.gone(1)"
    assert missing(code) == ["jaxdist.analysis.verdicts", "jaxdist.analysis.tables.gone"]


@pytest.mark.slow
def test_the_notebook_shows_again_what_is_committed(committed, tmp_path):
    fresh = nbformat.from_dict(committed)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    NotebookClient(fresh, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "notebook" / "result.nc").is_file()
    before, after = list(texts(committed)), list(texts(fresh))
    assert len(before) == len(after) > 6
    for old, new in zip(before, after, strict=True):
        (old_words, old_numbers), (new_words, new_numbers) = words_and_numbers(old), words_and_numbers(new)
        assert new_words == old_words
        # Training sums in another order on another machine: a few images may be counted otherwise.
        np.testing.assert_allclose(new_numbers, old_numbers, rtol=0.05, atol=0.02)


@pytest.mark.slow
def test_an_activation_of_ones_own_learns_and_has_tolerance_radii(tmp_path):
    said = answer("own_activation.py", tmp_path)
    accuracies = dict(re.findall(r"^(\w+): test accuracy ([\d.]+) %", said, re.MULTILINE))
    assert list(accuracies) == ["smooth_abs", "abs"]
    assert min(map(float, accuracies.values())) > 85
    rows = dict(re.findall(r"(below|above) +(\S+ +\S+)$", said.partition("scale")[2], re.MULTILINE))
    # Abs is homogeneous, so that a common scale acts by the output bias alone; the smooth one turns into a square.
    known, own = map(float, rows["below"].split())
    assert 0 < known < own < 100
    assert rows["above"].split() == ["inf", "inf"]


@pytest.mark.slow
def test_a_flax_network_of_ones_own_is_edited_at_both_its_layers(tmp_path):
    said = answer("own_flax_model.py", tmp_path)
    test_accuracy = re.search(r"test accuracy ([\d.]+) % unedited", said)
    assert float(test_accuracy[1]) > 85
    clips = dict(re.findall(r"^(\w+): cutting all above (\d+) %", said, re.MULTILINE))
    assert list(clips) == ["conv", "hidden"]
    assert all(0 < int(fraction) < 100 for fraction in clips.values())
    assert "This network only" in said


@pytest.mark.slow
def test_a_family_of_ones_own_stands_beside_the_papers(tmp_path):
    done = run("own_family.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"│ squeezed by +│ +\d+(\.\d+)? % │", done.stdout)
    folder = tmp_path / "runs" / "own_family"
    assert "squeezed by" in (folder / "tables" / "tolerance.md").read_text(encoding="utf-8")
    assert "Squeeze" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "figures" / "figure1_further.png").is_file()


@pytest.mark.slow
def test_a_metric_of_ones_own_is_tabulated_and_drawn(tmp_path):
    done = run("own_metric.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "runs" / "own_metric"
    assert "## Entropy (nats)" in (folder / "tables" / "metrics.md").read_text(encoding="utf-8")
    assert (folder / "figures" / "metric_entropy.svg").is_file()


@pytest.mark.slow
def test_the_counts_of_a_pytorch_network_are_those_of_its_own_forward_passes(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is an optional extra: pip install 'jaxdist[torch]'")
    said = answer("compare_with_pytorch.py", tmp_path)
    families = re.findall(r"^(\w+): (\d+) points, counts differ by at most (\d+) images$", said, re.MULTILINE)
    assert [(name, int(points)) for name, points, _ in families] == [("scale", 100), ("clip", 100), ("offset", 125)]
    assert max(int(images) for *_, images in families) <= 2
    assert said.endswith("The counts agree.\n")


@pytest.mark.slow
def test_without_pytorch_the_comparison_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('hidden by a test')\n", encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = run("compare_with_pytorch.py", tmp_path, PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr == "PyTorch is not installed; install it with: pip install 'jaxdist[torch]'\n"
    assert done.stdout == ""


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == jaxdist.__version__
    assert citation["license"] == "MIT"
    assert citation["authors"] == [{"name": "The jaxdist authors"}]
    paper, sequel, theory, *data = citation["references"]
    assert sequel["url"] == "https://arxiv.org/abs/2502.02103"
    assert theory["url"] == "https://arxiv.org/abs/2410.19352"
    assert [other["type"] for other in data] == ["data", "data"]
    assert paper["title"] == "Neural Networks Use Distance Metrics"
    assert paper["authors"] == [{"family-names": "Oursland", "given-names": "Alan"}]
    assert paper["year"] == 2024
    assert paper["url"] == "https://arxiv.org/abs/2411.17932"
