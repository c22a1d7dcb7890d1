"""How many small faults the tests notice: ``python -m tests.mutants PACKAGE [PACKAGE ...] --sample 100``.

A mutant is a copy of the checkout with one operator, number, comparison or loop of the package changed at one place, by
cosmic-ray. The places are drawn at random from a seed, and one change at each. A mutant is killed by the quick tests of
its package, or else by its long ones, or by the quick tests of packages that build on it. What survives is to be read:
some mutants are no faults, as where nothing depends on the place.

Needs ``pip install cosmic-ray``.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ABOVE = ("analysis", "sweep", "report")
"""Folders of quick tests that run packages below."""

OF_A_CHOICE = ("core/Variable",)
"""Operators that have to be told what they change."""

QUICK = "not slow and not long"

LIMIT_S = 900
"""A mutant whose tests take longer is killed: it loops."""


class Mutant(NamedTuple):
    """One change of one file."""

    path: str
    line: int
    operator: str
    occurrence: int

    def apply(self, folder: Path) -> str:
        """Make the change in a copy; returns the line before and after."""
        from cosmic_ray import mutating, plugins

        path = folder / self.path
        code = path.read_text(encoding="utf-8")
        changed = mutating.mutate_code(code, plugins.get_operator(self.operator)(), self.occurrence)
        assert changed is not None
        path.write_text(changed, encoding="utf-8")
        pairs = zip(code.splitlines(), changed.splitlines(), strict=False)
        before, after = next(((a, b) for a, b in pairs if a != b), ("", ""))
        return f"{before.strip()}  ->  {after.strip()}"


def mutants(path: Path) -> Iterator[tuple[tuple[int, int], Mutant]]:
    """All mutants of a file with their places; annotations and ``if __name__`` are left out, as nothing runs them."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    code = path.read_text(encoding="utf-8")
    passive = _annotations(ast.parse(code))
    tree = get_ast(code)
    for name in sorted(plugins.operator_names()):
        if name.startswith(OF_A_CHOICE):
            continue
        operator = plugins.get_operator(name)()
        count = 0
        for node in ast_nodes(tree):
            for (line, column), _ in operator.mutation_positions(node):
                if (line, column) not in passive:
                    yield (line, column), Mutant(path.relative_to(ROOT).as_posix(), line, name, count)
                count += 1


def _annotations(tree: ast.AST) -> set[tuple[int, int]]:
    """The places within annotations."""
    places: set[tuple[int, int]] = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            within = getattr(node, field, None)
            for part in ast.walk(within) if within is not None else ():
                if isinstance(part, ast.expr) and part.end_lineno is not None and part.end_col_offset is not None:
                    places |= {(part.lineno, column) for column in range(part.col_offset, part.end_col_offset + 1)}
    return places


def sample(package: str, count: int, seed: int) -> list[Mutant]:
    """So many places of a package, and at each one change."""
    at: dict[tuple[str, int, int], list[Mutant]] = {}
    for path in sorted((ROOT / "jaxdist" / package).rglob("*.py")):
        for (line, column), mutant in mutants(path):
            at.setdefault((mutant.path, line, column), []).append(mutant)
    draw = random.Random(seed)
    return [draw.choice(at[place]) for place in draw.sample(sorted(at), min(count, len(at)))]


def killed_by(folder: Path, package: str, module: str = "") -> str | None:
    """The tests that notice a change of a module, if any; those that name it come first."""
    naming = [
        path for path in sorted((folder / "tests" / package).glob("test_*.py")) if module and _names(path, module)
    ]
    stages = {
        **({f"quick tests that name {module}": [*map(str, naming), "-m", QUICK]} if naming else {}),
        f"quick tests of {package}": [f"tests/{package}", "-m", QUICK],
        f"tests of {package}": [f"tests/{package}", "-m", "long and not slow"],
        "quick tests above": [*(f"tests/{name}" for name in ABOVE if name != package), "-m", QUICK],
    }
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    for name, words in stages.items():
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-x", *words]
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{name}, by time"
        if done.returncode in (1, 2):  # tests fail, or cannot be collected
            return name
        if done.returncode == 4 and b"while loading conftest" in done.stderr + done.stdout:
            return f"{name}, which cannot be imported"
        if done.returncode not in (0, 5):  # 5: there are no such tests
            raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}")
    return None


def _names(path: Path, module: str) -> bool:
    return re.search(rf"\b{module}\b", path.read_text(encoding="utf-8")) is not None


def main() -> None:
    """Try a sample, and print how many were killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    dirty = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    if dirty:
        raise SystemExit("commit first: copies are clones of the last commit")
    with tempfile.TemporaryDirectory() as place:
        copies: Queue[Path] = Queue()
        for k in range(options.workers):
            copy = Path(place) / str(k)
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
            copies.put(copy)

        def attempt(mutant: Mutant) -> str | None:
            copy = copies.get()
            try:
                change = mutant.apply(copy)
                by = killed_by(copy, package, Path(mutant.path).stem)
            finally:
                shutil.copy(ROOT / mutant.path, copy / mutant.path)
                copies.put(copy)
            words = "survived" if by is None else f"killed by {by}"
            print(f"{words}: {mutant.path}:{mutant.line} {mutant.operator}: {change}", flush=True)
            return by

        for package in options.packages:
            by = None
            if not (ROOT / "jaxdist" / package).is_dir() or (by := killed_by(Path(place) / "0", package)):
                raise SystemExit(f"{package}: is no package, or its {by} fail without any mutant")
            began, drawn = time.monotonic(), sample(package, options.sample, options.seed)
            with ThreadPoolExecutor(options.workers) as pool:
                outcomes = list(pool.map(attempt, drawn))
            killed = sum(by is not None for by in outcomes)
            print(
                f"{package}: {killed} of {len(drawn)} killed in {(time.monotonic() - began) / 60:.0f} min", flush=True
            )


if __name__ == "__main__":
    main()
