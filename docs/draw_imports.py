"""Draw which package imports which: ``python docs/draw_imports.py`` writes docs/images/imports.svg.

The order is that of the contract in pyproject.toml; a number is how many modules of a package import from the other, as
grimp reads it from them.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import grimp
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "imports.svg"
SMALL = "small files"


def floors() -> list[str]:
    """The packages, the topmost first; the small files at the bottom are one."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        (contract,) = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers: list[str] = [layer for layer in contract["layers"] if layer != "__main__"]
    return [*layers[: layers.index("config")], SMALL]


def imports() -> Counter[tuple[str, str]]:
    """How many modules of a package import from another, by the names of both."""
    graph = grimp.build_graph("jaxdist", exclude_type_checking_imports=True)
    names = floors()

    def package(module: str) -> str | None:
        _, _, rest = module.partition(".")
        name = rest.partition(".")[0]
        return name if name in names else SMALL if name and name != "__main__" else None

    arrows: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        below = {package(each) for each in graph.find_modules_directly_imported_by(module)}
        start = package(module)
        arrows.update((start, end) for end in below if start and end and start != end)
    return arrows


def written(arrows: Counter[tuple[str, str]]) -> str:
    """What the picture shows, as text, which it carries along."""
    order = floors()
    ordered = sorted(arrows, key=lambda arrow: [order.index(name) for name in arrow])
    return "; ".join(f"{start} -> {end} {arrows[start, end]}" for start, end in ordered)


def draw(path: Path) -> None:
    """A square for each pair of packages; imports that go up would lie below the diagonal."""
    names, arrows = floors(), imports()
    counts = np.array([[arrows[start, end] for end in names] for start in names])
    with plt.rc_context({"svg.hashsalt": "imports", "svg.fonttype": "none"}):
        figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        axes.imshow(np.where(counts, counts, np.nan), cmap="Blues", vmin=-6, vmax=32)
        for row, column in zip(*counts.nonzero(), strict=True):
            shade = "white" if counts[row, column] > 16 else "#1a202c"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=9, color=shade)
        for k in range(len(names)):
            axes.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, facecolor="#e2e8f0"))
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("a package, by how many modules of those on the left it is imported")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        figure.savefig(path, metadata={"Date": None, "Description": written(arrows)} if path.suffix == ".svg" else None)
        plt.close(figure)


if __name__ == "__main__":
    draw(PICTURE)
    print(PICTURE.relative_to(ROOT))
