"""What the outputs of each task can be measured by: metrics and options that mean nothing for them are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxdist import registry
from jaxdist.config import Options, Task
from jaxdist.errors import InputError
from jaxdist.perturbations import families
from jaxdist.sweep import crossings, metrics

WORDS: Mapping[Task, str] = {
    "classes": "a class per example",
    "tokens": "a class per token",
    "binary": "a single logit per example",
    "regression": "real numbers",
}


class Measured(NamedTuple):
    """What is measured of outputs of a task."""

    options: Options
    averaged: tuple[str, ...]
    """The counted metrics that are averaged as well."""


def measured(task: Task, each: tuple[int, ...], options: Options, thresholds: Mapping[str, float]) -> Measured:
    """What options ask for of a task, with the metrics of thresholds, and those that a task is measured by anyway.

    Args:
      task: what the outputs answer.
      each: the shape of one example's outputs.
      options: as they are given.
      thresholds: how far each metric's mean has to move, by its name.

    Raises:
      InputError: for an option, family or metric that means nothing for such outputs, and for thresholds of metrics
        that there are not.
    """
    for name, why in _refused(task, options):
        raise InputError(f"{name}: {why}, but these outputs are {WORDS[task]}; leave it out")
    names = list(options.sweep.metrics or ())
    if task == "regression" and not names:
        names = ["squared_error"]
    names += [name for name in thresholds if name not in (*names, *registry.COUNTED)]
    if task == "regression":
        counted = [name for name in (*names, *thresholds) if name in registry.COUNTED]
        if counted:
            raise InputError(f"metric '{counted[0]}': needs classes, but these outputs are {WORDS[task]}")
    averaged = tuple(registry.COUNTED) if task == "tokens" else tuple(set(thresholds) & set(registry.COUNTED))
    metrics.check_task(metrics.chosen(names), task, each)
    sweep = dataclasses.replace(options.sweep, metrics=tuple(names) or options.sweep.metrics)
    return Measured(dataclasses.replace(options, sweep=sweep), averaged)


def _refused(task: Task, options: Options) -> Iterator[tuple[str, str]]:
    """The options that mean nothing for a task, with the reason."""
    sweep = options.sweep
    if task in ("tokens", "regression"):
        if sweep.sensitivity:
            yield "sensitivity", "it measures the margin between an example's classes"
        if sweep.dose or sweep.matched:
            yield ("dose" if sweep.dose else "matched"), "doses are compared by the class of each example"
    if task == "tokens":
        restored = [name for name in sweep.families if families.get(name).kind == "restored"]
        yield from ((f"family '{name}'", "it restores the mean logits of examples") for name in restored)
    if task == "regression":
        asked = {"grid": sweep.grid, "units": sweep.units, "gauges": set(sweep.gauges) - {"as_is"}}
        yield from ((name, "it counts predictions that change") for name, is_asked in asked.items() if is_asked)


def thresholds_of(given: Mapping[str, float] | None, names: Sequence[str] | None) -> dict[str, float]:
    """How far the means of metrics have to move, by metric, checked.

    `names` are the metrics that are averaged anyway.

    Raises:
      InputError: for a metric that is not known, and an amount that is 0 or no finite number.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(f"thresholds: expected how far each metric has to move, as {{metric: amount}}, got {given!r}")
    for name, amount in given.items():
        if name not in (*registry.COUNTED, *(names or ())):
            metrics.REGISTER.get(name)
        crossings.check_amount(name, amount)
    return {str(name): float(amount) for name, amount in given.items()}
