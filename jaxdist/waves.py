"""An ensemble swept some networks at a time: there is progress to show, and what is finished can be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxdist import edits, sweep
from jaxdist.devices import SEED, Examples, mesh_of
from jaxdist.sweep import Counts
from jaxdist.taps import Model
from jaxdist.types import Params


class Subject(NamedTuple):
    """An ensemble to measure."""

    model: Model
    params: Params  # leading S


def in_waves(
    subject: Subject,
    made: Mapping[str, edits.Edit],
    examples: Examples,
    tell: Callable[[int], None],
    scales: np.ndarray | None,
    once: Callable[[slice, Callable[[], Counts]], Counts],
    *,
    block: int | None = None,
) -> Counts:
    """Sweep an ensemble some networks at a time, so that there is progress to show; all waves run one program.

    `once` is given each wave's networks and what sweeps them, and returns its counts, perhaps from an earlier time.
    """
    seeds = jax.tree.leaves(subject.params)[0].shape[0]
    points = jax.tree.leaves(made)[0].shape[1] + (0 if scales is None else len(scales))
    together = wave_size(seeds, points * examples.y.shape[0], mesh_of(examples).shape[SEED])
    waves = []
    for first in range(0, seeds, together):

        def wave(first: int = first) -> Counts:
            some, edit = jax.tree.map(lambda leaf: leaf[first : first + together], (subject.params, made))
            return sweep.sweep(subject.model, some, edit, examples, scale_shortcut=scales, block=block)

        waves.append(once(slice(first, first + together), wave))
        tell(first + together)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *waves)


def wave_size(seeds: int, evaluations: int, rows: int) -> int:
    """How many networks to sweep in one call: the most that divide the ensemble evenly and stay near a few seconds.

    A multiple of the mesh's rows where they divide the ensemble.
    """
    rows = math.gcd(seeds, rows)
    most = max(rows, int((1e8 if jax.default_backend() == "cpu" else 1e10) / evaluations))
    return max(d for d in range(rows, seeds + 1, rows) if seeds % d == 0 and d <= most)
