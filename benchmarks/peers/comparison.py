"""The same job by every peer that is installed, each in a process of its own: seconds, lines of code, answers."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import tokenize
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import images as inputs
from benchmarks import jax_contenders, machine, show
from benchmarks.parity import HIDDEN
from benchmarks.sweep import ACTIVATION, WARM_UP_STEPS
from benchmarks.timing import Row, largest_difference
from jaxdist.errors import InputError, nearest
from jaxdist.formatting import counted
from jaxdist.networks import mlp

HERE = Path(__file__).parent

REFERENCE = "plain_vmap"
"""Whose counts all others are compared with."""

SHARED = "torch_network"
"""The module that those for PyTorch have in common; its lines count for each of them."""

LIBRARY = {
    "torch_hooks": "torch",
    "with_nnsight": "nnsight",
    "with_pyvene": "pyvene",
    "with_transformer_lens": "transformer_lens",
    "with_penzai": "penzai",
    REFERENCE: "jax",
    "with_jaxdist": "jaxdist",
}
"""What each module of this folder needs."""

ALLOWED = 2
"""Images by which counts may differ, from rounding in another order."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run every peer on the same networks and images, print the table and return the numbers."""
    names = options.only.split(",") if options.only else list(LIBRARY)
    for name in names:
        if name not in LIBRARY:
            raise InputError(f"--only: unknown contender '{name}'{nearest(name, LIBRARY)}")
    if REFERENCE not in names:
        raise InputError(f"--only: expected {REFERENCE} among them, with which the others' counts are compared")
    missing = [name for name in names if importlib.util.find_spec(LIBRARY[name]) is None]
    if missing:
        print(f"not installed, so left out: {', '.join(LIBRARY[name] for name in missing)}", file=sys.stderr)
    images = inputs.for_speed(options)
    seeds, points = (2, 5) if options.quick else (20, 100)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.npz"
        arrays: Any = _job(images, seeds, points)
        np.savez(path, **arrays)
        answers = {}
        for name in names:
            if name not in missing:
                print(f"{name} ...", file=sys.stderr, flush=True)
                answers[name] = _of(name, path, options.repeats)
    expected = answers.get(REFERENCE)
    rows: dict[str, Row] = {}
    for name, answer in answers.items():
        off = None
        if expected is not None:
            off = max(largest_difference(np.ravel(answer[what]), np.ravel(expected[what])) for what in ("one", "all"))
        seconds = {key: answer[key] for key in answer if key.endswith("_s")}
        rows[name] = {"lines": lines(name), **seconds, "largest_count_difference": off}
    what = f"{counted(points, 'scale')} of one layer, {counted(f'{len(images.test_y):,}', 'image')}, one network and "
    what += counted(seeds, "network")
    show.table(what, rows)
    return {
        "what": what,
        "images": images.source,
        "repeats": options.repeats,
        "machine": machine.facts(),
        "contenders": rows,
        "agrees": all(row["largest_count_difference"] in (None, *range(ALLOWED + 1)) for row in rows.values()),
    }


def _job(images: inputs.Images, seeds: int, points: int) -> dict[str, np.ndarray]:
    """The test images, their labels, the factors, and the stacked arrays of networks that are right about something."""
    sizes = (images.train_x.shape[1], HIDDEN, inputs.CLASSES)
    initial = mlp.init_ensemble(jax.random.key(0), range(seeds), sizes)
    trained = jax_contenders.trained(initial, ACTIVATION, images, WARM_UP_STEPS)
    weights = {f"{layer}_{part}": trained[layer][part] for layer in ("dense0", "dense1") for part in ("weight", "bias")}
    factors = np.geomspace(0.01, 10, points).astype(np.float32)
    arrays = {"x": images.test_x, "y": images.test_y, "factors": factors, **weights}
    return {name: np.asarray(array) for name, array in arrays.items()}


def _of(name: str, path: Path, repeats: int) -> dict[str, Any]:
    """What a peer's process prints; raises `InputError` with its last line where it fails."""
    command = [sys.executable, "-m", "benchmarks.peers.job", name, str(path), str(repeats)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise InputError(f"{name}: {said[-1] if said else 'failed'}")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def lines(name: str) -> int:
    """The lines of code of a peer, with those of the module that it shares, if it does."""
    path = HERE / f"{name}.py"
    shares = SHARED in path.read_text(encoding="utf-8")
    return lines_of(path) + (lines_of(HERE / f"{SHARED}.py") if shares else 0)


def lines_of(path: Path) -> int:
    """The lines of a module that hold code: no comment, no docstring, no blank."""
    text = path.read_text(encoding="utf-8")
    kinds = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    held: set[int] = set()
    first_of_line = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds:
            first_of_line = first_of_line or token.type == tokenize.NEWLINE
            continue
        if not (first_of_line and token.type == tokenize.STRING):
            held.update(range(token.start[0], token.end[0] + 1))
        first_of_line = False
    return len(held)
