"""Timing contenders side by side: one process, order interleaved, compilation apart."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from benchmarks import machine, show
from jaxdist.errors import InputError, nearest

PAPER = "paper_torch"
"""The contender that ratios and answers refer to."""


Row: TypeAlias = "dict[str, float | int | None]"
"""A contender's numbers by name."""


class Contender(NamedTuple):
    """A way to do the work: `run` does it and returns integer counts; `units` is how much of the work that is."""

    run: Callable[[], np.ndarray]
    units: float = 1.0


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds of the first call, which compiles, and seconds a unit of each later one; the last answer."""

    first_s: float
    each_s: tuple[float, ...]
    answer: np.ndarray

    @property
    def median_s(self) -> float:
        """Median seconds a unit."""
        return statistics.median(self.each_s)


def chosen(contenders: Mapping[str, Contender], only: str | None) -> dict[str, Contender]:
    """The contenders that ``--only`` names; raises `InputError` for a name that is not there."""
    names = only.split(",") if only else list(contenders)
    for name in names:
        if name not in contenders:
            raise InputError(f"--only: unknown contender '{name}'{nearest(name, contenders)}")
    return {name: contenders[name] for name in names}


class Measured(NamedTuple):
    """Contenders timed between two measurements of the machine's rates: the better of each sets the floor."""

    found: dict[str, Timed]
    rates: machine.Rates
    rows: dict[str, Row]


def measure(contenders: Mapping[str, Contender], options: argparse.Namespace, work: tuple[float, float]) -> Measured:
    """Time the contenders and the floor: `work` is the least arithmetic, in operations and elements mapped."""
    before = machine.measure_rates()
    found = interleave(contenders, options.repeats, turn_s=0 if options.quick else 1)
    rates = machine.Rates(*map(max, before, machine.measure_rates()))
    return Measured(found, rates, summary(found, contenders, rates.seconds(*work)))


def report(
    measured: Measured, what: str, images: str, options: argparse.Namespace, work: tuple[float, float]
) -> dict[str, Any]:
    """What a benchmark of contenders leaves: their rows with how and on what they were measured, and a picture."""
    content = {
        **described(what, images, options.repeats, measured.rows),
        "gemm_gflops": measured.rates.gemm / 1e9,
        "elementwise_gelements": measured.rates.elementwise / 1e9,
        "floor_gflop": work[0] / 1e9,
        "floor_gelements": work[1] / 1e9,
    }
    if options.figure:
        show.figure(content, options.figure)
    return content


def described(what: str, images: str, repeats: int, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Rows of contenders with what they are of and where they were measured."""
    return {
        "what": what,
        "images": images,
        "repeats": repeats,
        "spread": "largest less smallest",
        "machine": machine.facts(),
        "contenders": rows,
    }


def interleave(contenders: Mapping[str, Contender], repeats: int, turn_s: float = 0) -> dict[str, Timed]:
    """Run every contender once, then all of them in turn, `repeats` times over, each for `turn_s` seconds or one call.

    So a machine that slows down for a while slows all of them; and whose turn it is changes, since what ran before
    leaves the caches, the memory and the clock rate as it does.
    """
    order = np.random.default_rng(0)
    each: dict[str, list[float]] = {name: [] for name in contenders}
    firsts, answers = {}, {}
    for name, contender in contenders.items():
        firsts[name], answers[name] = timed(contender.run)
        print(f"{name}: first call {firsts[name]:.3g} s", file=sys.stderr, flush=True)
    for _ in range(repeats):
        for name in order.permutation(list(contenders)):
            left = turn_s
            while True:
                seconds, answers[name] = timed(contenders[name].run)
                each[name].append(seconds / contenders[name].units)
                left -= seconds
                if left <= 0:
                    break
    return {name: Timed(firsts[name], tuple(each[name]), answers[name]) for name in contenders}


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of one call, and what it returned: arrays on the host, so that it has really finished."""
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def summary(found: Mapping[str, Timed], contenders: Mapping[str, Contender], floor_s: float) -> dict[str, Row]:
    """The numbers of each contender; ratio and count difference are None where PyTorch is missing.

    `spread_s` is the largest less the smallest, `compile_s` what the first call took beyond a median one.
    """
    paper = found.get(PAPER)
    rows: dict[str, Row] = {}
    for name, one in found.items():
        rows[name] = {
            "median_s": one.median_s,
            "spread_s": max(one.each_s) - min(one.each_s),
            "compile_s": max(0.0, one.first_s - one.median_s * contenders[name].units),
            "ratio_to_paper": paper.median_s / one.median_s if paper else None,
            "share_of_floor": floor_s / one.median_s,
            "largest_count_difference": largest_difference(one.answer, paper.answer) if paper else None,
        }
    rows["floor"] = {
        "median_s": floor_s,
        "spread_s": None,
        "compile_s": None,
        "ratio_to_paper": paper.median_s / floor_s if paper else None,
        "share_of_floor": 1.0,
        "largest_count_difference": None,
    }
    return rows


def largest_difference(found: np.ndarray, expected: np.ndarray) -> int:
    """Largest difference of two arrays of counts over the points that both have."""
    both = min(len(found), len(expected))
    return int(np.abs(found[:both].astype(int) - expected[:both].astype(int)).max())


def fit_line(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, Any]:
    """Fit ``constant + slope * size`` by least squares of relative errors; the largest relative deviation from it."""
    x, y = np.asarray(sizes, float), np.asarray(seconds, float)
    design = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    (constant, slope), *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    off = np.abs((constant + slope * x) / y - 1)
    return {
        "constant_s": float(constant),
        "slope_s": float(slope),
        "largest_deviation": float(off.max()),
        "sizes": [float(v) for v in x],
        "seconds": [float(v) for v in y],
    }
