"""An ensemble swept some networks at a time: there is progress to show, and what is finished can be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdist.compute import SEED, Examples, mesh_of
from jaxdist.networks import Model
from jaxdist.perturbations import Edit
from jaxdist.sweep import doses, ensemble_sweep
from jaxdist.sweep.kernel import Watch
from jaxdist.types import Params, Values


class Subject(NamedTuple):
    """An ensemble to measure."""

    model: Model
    params: Params  # leading S


class Dosing(NamedTuple):
    """How the doses of an ensemble's edits are measured."""

    watch: Watch
    squared: Values  # [S, H] weights of the units
    outgoing: bool  # whether they are the outgoing weights; else all are 1


class Found(NamedTuple):
    """What a sweep finds: the counts of `kernel.Counts`, the doses of `doses.Doses`; [S, P], but for `unperturbed`."""

    correct: np.ndarray
    agree: np.ndarray
    kept: np.ndarray
    unperturbed: np.ndarray  # [S]
    angular: np.ndarray
    rms: np.ndarray
    rms_plain: np.ndarray


def in_waves(
    subject: Subject,
    made: Mapping[str, Edit],
    examples: Examples,
    tell: Callable[[int], None],
    once: Callable[[slice, Callable[[], tuple[Any, ...]]], tuple[Any, ...]],
    *,
    dosing: Dosing | None = None,
    block: int | None = None,
) -> Found:
    """Sweep an ensemble some networks at a time, so that there is progress to show; all waves run one program.

    `once` is given each wave's networks and what sweeps them, and returns its arrays, perhaps from an earlier time.
    Doses are NaN where they are not measured.
    """
    seeds = jax.tree.leaves(subject.params)[0].shape[0]
    points = jax.tree.leaves(made)[0].shape[1]
    together = wave_size(seeds, points * examples.y.shape[0], mesh_of(examples).shape[SEED])
    waves = []
    for first in range(0, seeds, together):
        here = slice(first, first + together)

        def wave(here: slice = here) -> tuple[Any, ...]:
            some, edit = jax.tree.map(lambda leaf: leaf[here], (subject.params, dict(made)))
            watch = dosing.watch if dosing else None
            counts, moments = ensemble_sweep.sums(subject.model, some, edit, examples, watch=watch, block=block)
            if moments is None or dosing is None:
                return (*counts, *(np.full(np.shape(counts.correct), np.nan) for _ in doses.Doses._fields))
            return (*counts, *doses.of(moments, dosing.squared[here]))

        waves.append(once(here, wave))
        tell(first + together)
    return Found(*(np.concatenate(leaves) for leaves in zip(*waves, strict=True)))


def wave_size(seeds: int, evaluations: int, rows: int) -> int:
    """How many networks to sweep in one call: the most that divide the ensemble evenly and stay near a few seconds.

    A multiple of the mesh's rows where they divide the ensemble.
    """
    rows = math.gcd(seeds, rows)
    most = max(rows, int((1e8 if jax.default_backend() == "cpu" else 1e10) / evaluations))
    return max(d for d in range(rows, seeds + 1, rows) if seeds % d == 0 and d <= most)
