"""The numbers as a table of 80 columns, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Rows = Mapping[str, Mapping[str, float | int | None]]

_COLUMNS = {
    "median_s": ("median s", "{:.4g}"),
    "spread_s": ("spread s", "{:.2g}"),
    "compile_s": ("compile s", "{:.2g}"),
    "ratio_to_paper": ("x paper", "{:.3g}"),
    "first_s": ("first call s", "{:.3g}"),
    "ratio_to_own": ("x in order", "{:.3f}"),
    "ratio_to_hand": ("x hand's s", "{:.3f}"),
    "lines": ("lines", "{}"),
    "import_s": ("import s", "{:.2g}"),
    "one_first_s": ("one: first", "{:.3g}"),
    "one_again_s": ("again s", "{:.3g}"),
    "all_first_s": ("all: first", "{:.3g}"),
    "all_again_s": ("again s", "{:.3g}"),
    "wall_s": ("seconds", "{:.3g}"),
    "cpu_s": ("CPU s", "{:.3g}"),
    "x_loop": ("x loop", "{:.2f}"),
    "x_loop_cpu": ("CPU x loop", "{:.2f}"),
    "x_plain": ("x plain", "{:.2f}"),
    "share_of_floor": ("of floor", "{:.0%}"),
    "executed_share_of_gemm": ("of GEMM", "{:.0%}"),
    "largest_count_difference": ("counts off", "{}"),
    "rms_gradient_error": ("rms error", "{:.1e}"),
    "largest_gradient_error": ("largest", "{:.1e}"),
    "flips": ("flipped", "{:,}"),
    "values": ("of", "{:,}"),
}


def table(title: str, rows: Rows) -> None:
    """Print one line a contender."""
    keys = [key for key in _COLUMNS if any(key in row for row in rows.values())]
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("", no_wrap=True)
    for key in keys:
        # A heading may wrap where there is little room; a number is never cut.
        longest = max(len(_shown(key, row.get(key))) for row in rows.values())
        made.add_column(_COLUMNS[key][0], justify="right", min_width=longest)
    for name, row in rows.items():
        made.add_row(name, *(_shown(key, row.get(key)) for key in keys))
    Console(width=80).print(made)


def _shown(key: str, value: float | None) -> str:
    return "" if value is None else _COLUMNS[key][1].format(value)


def figure(found: Mapping[str, Any], path: Path) -> None:
    """Write a bar for each contender: seconds, on a logarithmic axis, with the spread; the floor is a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = {name: row for name, row in found["contenders"].items() if name != "floor"}
    floor = found["contenders"]["floor"]["median_s"]
    fig, axes = plt.subplots(figsize=(7, 0.5 * len(rows) + 1.4), layout="constrained")
    names = list(rows)[::-1]
    medians = [rows[name]["median_s"] for name in names]
    axes.barh(names, medians, xerr=[rows[name]["spread_s"] / 2 for name in names], color="tab:blue", height=0.6)
    for k, name in enumerate(names):
        ratio = rows[name]["ratio_to_paper"]
        text = f" {medians[k]:.3g} s" + ("" if ratio is None else f", {ratio:.3g}x")
        axes.annotate(text, (medians[k], k), xytext=(12, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(floor, color="black", linestyle="--", linewidth=1)
    axes.annotate(" floor", (floor, len(names) - 0.5), fontsize=8, va="bottom")
    axes.set_xscale("log")
    axes.set_xlim(min(floor, *medians) * 0.7, max(medians) * 4)
    axes.set_xlabel(found["what"])
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)
    plt.close(fig)
