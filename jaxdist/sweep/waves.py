"""An ensemble swept some networks at a time: there is progress to show, and what is finished can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdist.compute import Examples
from jaxdist.networks import Model
from jaxdist.perturbations import Edit
from jaxdist.sweep import doses, ensemble_sweep
from jaxdist.sweep.kernel import Sums, Watch
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

    def wave(these: slice, compute: Callable[[], Sums]) -> tuple[Any, ...]:
        def counted() -> tuple[Any, ...]:
            counts, moments = compute()
            if moments is None or dosing is None:
                return (*counts, *(np.full(np.shape(counts.correct), np.nan) for _ in doses.Doses._fields))
            return (*counts, *doses.of(moments, dosing.squared[these]))

        arrays = once(these, counted)
        tell(these.stop)
        return arrays

    watch = dosing.watch if dosing else None
    return Found(
        *ensemble_sweep.sums(subject.model, subject.params, made, examples, watch=watch, block=block, each=wave)
    )
