"""An ensemble swept some networks at a time: there is progress to show, and what is finished can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdist.compute import Examples
from jaxdist.networks import Model
from jaxdist.perturbations import Edit
from jaxdist.sweep import averages, doses, ensemble_sweep
from jaxdist.sweep.kernel import Sums, Watch
from jaxdist.sweep.metric import Metric
from jaxdist.types import Params, Ranges, Values


class Subject(NamedTuple):
    """An ensemble to measure."""

    model: Model
    params: Params  # leading S
    ranges: Mapping[str, Ranges] | None = None  # [S, H] by site, where they have been measured already


class Dosing(NamedTuple):
    """How the doses of an ensemble's edits are measured."""

    watch: Watch
    squared: Values  # [S, H] weights of the units
    outgoing: bool  # whether they are the outgoing weights; else all are 1


def in_waves(
    subject: Subject,
    made: Mapping[str, Edit],
    examples: Examples,
    tell: Callable[[int], None],
    kept_or_computed: Callable[[slice, Callable[[], tuple[Any, ...]]], tuple[Any, ...]],
    *,
    dosing: Dosing | None = None,
    dosed: bool = False,
    metrics: tuple[Metric, ...] = (),
    block: int | None = None,
) -> dict[str, np.ndarray]:
    """Sweep an ensemble some networks at a time, so that there is progress to show; all waves run one program.

    Args:
      kept_or_computed: is given each wave's networks and what sweeps them, and returns its arrays, perhaps from an
        earlier time.
      dosing: how doses are measured; where they are not, but others are `dosed`, they are NaN.

    Returns:
      The variables of `labels.OWN`, [S, ...].
    """
    counted = () if subject.model.task == "regression" else COUNTED
    names = [*counted, *(DOSES if dosed else ()), *(METRICS if metrics else ())]

    def wave(these: slice, compute: Callable[[], Sums]) -> tuple[Any, ...]:
        def measured() -> tuple[Any, ...]:
            counts, moments, measures, _ = compute()
            arrays: list[Any] = [*(counts or ())]
            if moments is not None and dosing is not None:
                arrays += doses.of(moments, dosing.squared[these])
            elif dosed:
                arrays += [np.full(np.shape(arrays[0]), np.nan)] * len(DOSES)
            if measures is not None:
                edited, change, unedited, *squared, examples = measures
                arrays += [array for each in measures[:3] for array in (each.value, np.asarray(each.sd))]
                arrays += [
                    averages.error(each, by, np.asarray(examples)[:, None]).astype(np.float32)
                    for each, by in zip((edited, change), squared, strict=True)
                ]
                arrays += [unedited.weight, np.asarray(examples, np.float64)]
            return tuple(arrays)

        arrays = kept_or_computed(these, measured)
        tell(these.stop)
        return arrays

    watch = dosing.watch if dosing else None
    swept = ensemble_sweep.sweep_sums(
        subject.model, subject.params, made, examples, watch=watch, metrics=metrics, block=block, each=wave
    )
    return dict(zip(names, swept, strict=True))


COUNTED = ("correct", "agree", "kept", "unperturbed")
"""The fields of `kernel.Counts`, by the names that they have in results."""
DOSES = ("dose", "rms", "rms_plain")
"""Those of `doses.Doses`."""
METRICS = (
    "metric_mean", "metric_sd", "metric_change", "metric_change_sd", "metric_unedited", "metric_unedited_sd",
    "metric_error", "metric_change_error", "metric_weight", "metric_examples",
)  # fmt: skip
"""Those of `kernel.Measures`: means and standard deviations, standard errors, and the examples and their weights."""
