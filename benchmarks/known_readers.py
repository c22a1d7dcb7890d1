"""How often `jaxdist controls` is right about networks whose reading is known, since they are made so.

Units come in pairs whose output weights are opposite: what is the same in both cancels, and what differs is read. Each
is near its boundary or far from it at random, both units of a pair alike. *Distance*: they differ where they are near.
*Intensity*: where they are far. *Both*: everywhere. *Neither*: nowhere, and the weights are equal, so that small and
large values are read alike. Faults leave that as it is, but may mislead a rule: most activations are exactly 0; all
units speak for some class; large values are of very unlike sizes from image to image.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.images import Images, load
from jaxdist.analysis import LogRatio, preference, reading
from jaxdist.compute import Examples, devices
from jaxdist.formatting import counted
from jaxdist.networks import mlp
from jaxdist.perturbations import families
from jaxdist.sweep import readers

PAIRS, CLASSES, SEEDS = 32, 10, 20
KINDS = ("distance", "intensity", "both", "neither")
FAULTS = ("zeros", "class", "sizes")
COMBINATIONS: list[tuple[str, ...]] = [(), *((fault,) for fault in FAULTS), FAULTS]
HIDDEN, ALPHA = 128, 0.05
DRAWS = PERMUTATIONS = 8


class Pool(NamedTuple):
    """Networks, of which ensembles are drawn: x and y of each, [levels, networks]."""

    x: LogRatio
    y: LogRatio


def images(kind: str, faults: Sequence[str], activation: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Preactivations [count, 2 * PAIRS], the two units of a pair PAIRS apart."""
    pairs = (count, PAIRS)
    far, silent = rng.random(pairs) < 0.5, rng.random(pairs) < 0.8
    near, beyond = (rng.random((2, *pairs)) for _ in range(2))
    if kind in ("distance", "neither"):
        beyond[1] = beyond[0]
    if kind in ("intensity", "neither"):
        near[1] = near[0]
    if "sizes" in faults:
        beyond = beyond * np.exp(rng.normal(size=(count, 1)))
    values = np.where(far, 2 + beyond, near)
    if "zeros" in faults:
        values = np.where(silent, 0, values)
    if activation == "abs":
        values = values * rng.choice([-1, 1], values.shape)
    return np.concatenate(list(values), axis=1).astype(np.float32)


def networks(kind: str, faults: Sequence[str], activations: np.ndarray, count: int, rng: np.random.Generator) -> Any:
    """Parameters of so many networks that read activations [N, H] as its kind says, stacked."""
    units = 2 * PAIRS
    weight = rng.normal(size=(count, CLASSES, PAIRS))
    weight = np.concatenate([weight, weight if kind == "neither" else -weight], axis=2)
    if "class" in faults:
        weight = weight + 0.3 * rng.normal(size=(count, CLASSES, 1))
    bias = -weight @ activations.mean(0)
    same = np.broadcast_to(np.eye(units, dtype=np.float32), (count, units, units))
    return {
        "dense0": {"weight": same, "bias": np.zeros((count, units), np.float32)},
        "dense1": {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)},
    }


def measured(activation: str, params: Any, training: Examples, tried: Examples, numbers: Sequence[int]) -> Pool:
    """x and y of every network, with thresholds of training examples, and flips and doses of those that are counted."""
    keys = families.keys("permuted readers", numbers, PERMUTATIONS)
    made = {"trained": readers.Reader(params, "trained")}
    for k in range(PERMUTATIONS):
        made[f"permuted {k + 1}"] = readers.Reader(readers.permuted(params, "dense1", keys[:, k]), "trained")
    fractions = families.get("collapse_small").grid()
    curves = readers.measure(
        mlp.model(activation), made, ("dense0/pre", "dense0/post"), (training, tried), fractions[fractions > 0],
        numbers, draws=DRAWS, tell=lambda *_: None,
    )  # fmt: skip
    each = reading.contrasts([(of.dose, of.flips) for of in curves.values()])
    return Pool(LogRatio(each.low[0], each.high[0]), reading.mean(LogRatio(each.low[1:], each.high[1:]), 0))


def pool(kind: str, faults: Sequence[str], activation: str, size: int, count: int, seed: int) -> Pool:
    """So many networks of a kind: SEEDS of them on each set of images."""
    parts = []
    for start in range(0, size, SEEDS):
        rng = np.random.default_rng([seed, start, KINDS.index(kind), *(FAULTS.index(fault) for fault in faults)])
        inputs = images(kind, faults, activation, count, rng)
        number = min(SEEDS, size - start)
        params = networks(kind, faults, np.abs(inputs), number, rng)
        placed = devices.place(inputs, np.zeros(len(inputs), np.int32), devices.make_mesh())
        parts.append(measured(activation, params, placed, placed, range(start, start + number)))
    return joined(parts)


def joined(parts: Sequence[Pool]) -> Pool:
    """One pool of several."""

    def of(each: Sequence[LogRatio]) -> LogRatio:
        return LogRatio(*(np.concatenate([getattr(some, end) for some in each], axis=1) for end in ("low", "high")))

    return Pool(of([part.x for part in parts]), of([part.y for part in parts]))


def answers(of: Pool, ensembles: int, seed: int) -> dict[str, int]:
    """How often each answer is given to ensembles of SEEDS networks drawn from a pool."""
    rng = np.random.default_rng(seed)
    given = dict.fromkeys(("distance", "intensity", "no difference", "undecided"), 0)
    for _ in range(ensembles):
        chosen = rng.choice(of.x.low.shape[1], SEEDS, replace=of.x.low.shape[1] < 2 * SEEDS)
        x, y = (LogRatio(ends.low[:, chosen], ends.high[:, chosen]) for ends in of)
        given[reading.decide({"": reading.read(x, y, flips=False)})[""].answer] += 1
    return given


def untrained(activation: str, at: Images, size: int) -> Pool:
    """So many networks as they are drawn, on images that thresholds are measured on, and on others that are counted."""
    parts = []
    for start in range(0, size, SEEDS):
        numbers = range(start, min(start + SEEDS, size))
        params = mlp.init_ensemble(jax.random.key(1), numbers, (at.train_x.shape[1], HIDDEN, CLASSES))
        training = devices.place(at.train_x, at.train_y, devices.make_mesh())
        tried = devices.place(at.test_x, at.test_y, devices.make_mesh())
        parts.append(measured(activation, params, training, tried, numbers))
    return joined(parts)


def false_claims(of: Pool, ensembles: int, seed: int) -> dict[str, float]:
    """How often a claim is made that is false, at its border: the mean of one of its four tests exactly 0.

    The other means are 1 on the claim's side. The largest rate of the four, for either claim.
    """
    rng = np.random.default_rng(seed)
    x, apart = of.x.low, reading.less(of.x, of.y).low
    tests = np.concatenate([x, apart])
    tests = tests - tests.mean(axis=1, keepdims=True)
    rates = {}
    for claim, sign in (("distance", -1), ("intensity", 1)):
        made = np.zeros(len(tests))
        for border in range(len(tests)):
            means = np.where(np.arange(len(tests)) == border, 0, sign)[:, None]
            for _ in range(ensembles):
                four = (tests + means)[:, rng.choice(tests.shape[1], SEEDS, replace=False)]
                x, y = four[:2], four[:2] - four[2:]
                made[border] += getattr(reading.read(LogRatio(x, x), LogRatio(y, y), flips=False), claim).t <= ALPHA
        rates[claim] = float((made / ensembles).max())
    return rates


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Print how often each answer is given to every kind of reader, and false claims of untrained networks."""
    size, ensembles, count = (8, 20, 200) if options.quick else (200, 200, 500)
    rows: dict[str, Any] = {}
    print(f"{ensembles} ensembles of {SEEDS} networks from a pool of {size}; {counted(count, 'image')} each")
    print("reader; faults; median x and x - y at 1 %, then at 10 %: answers")
    for activation, kind, faults in itertools.product(("relu", "abs"), KINDS, COMBINATIONS):
        # What is read of either activation is the same, so that few are tried of the second.
        few = [()] if options.quick else [(), FAULTS] if activation == "abs" else COMBINATIONS
        if faults not in few:
            continue
        of = pool(kind, faults, activation, size, count, seed=1)
        given = answers(of, ensembles, seed=2)
        apart = reading.less(of.x, of.y)
        means = [float(np.median(each.low[level])) for level in range(2) for each in (of.x, apart)]
        name = f"{activation}, {kind}, {'+'.join(faults) or 'none'}"
        told = ", ".join(f"{answer} {number}" for answer, number in given.items() if number)
        print(f"{name}: {', '.join(f'{mean:+.2f}' for mean in means)}: {told}", flush=True)
        rows[name] = {"answers": given, "medians": means}
    found = {"pool": size, "ensembles": ensembles, "images": count, "levels": list(preference.LEVELS), "rows": rows}
    at = load(options.data_dir) if options.data_dir else load(None, "digits")
    at = at.first(300 if options.quick else 6_000)
    number, studies = (SEEDS, 20) if options.quick else (400, 2_000)
    print(
        f"false claims at their borders, {counted(number, 'untrained network')} on the {at.source}, "
        f"{counted(studies, 'ensemble')} of {SEEDS}"
    )
    for activation in ("relu", "abs"):
        of = untrained(activation, at, number)
        if not np.isfinite([*of.x, *of.y]).all():
            print(f"{activation}: some doses are not reached, so that the border is not known")
            continue
        rates = false_claims(of, studies, seed=3)
        print(f"{activation}: {', '.join(f'{claim} {rate:.3f}' for claim, rate in rates.items())}", flush=True)
        rows[f"{activation}, untrained"] = rates
    return found
