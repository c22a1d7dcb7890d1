"""A network trained by the paper's own code, swept on the real 60,000 images."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jaxdist import data, devices, edits, families, mlp, ranges, sweep
from jaxdist.config import DataConfig, SweepConfig

SITE = "dense0/pre"
TOLERANCE = 2
"""Images of 60,000 by which float32 rounding in another order may move a count."""


@pytest.mark.slow
def test_the_counts_of_the_papers_code_at_all_325_points(shared):
    reference = json.loads((shared / "reference" / "relu_seed0_sweep_counts.json").read_text())["PerturbationReLU"][0]
    with np.load(shared / "reference" / "relu_seed0_weights.npz") as stored:
        params = {f"dense{k}": {"weight": stored[f"w{k}"][None], "bias": stored[f"b{k}"][None]} for k in range(2)}
    config = DataConfig(name="mnist", dir=str(shared / "data" / "mnist"))
    dataset = data.load(config)
    x, _ = data.scaled(dataset, config)
    examples = devices.place(x, dataset.train.labels, devices.make_mesh())
    model = mlp.model("relu")
    measured = ranges.measure(model, params, examples, (SITE,))[SITE]
    options = SweepConfig(dead_units="nan")
    made = [families.build(name, measured, families.get(name).grid(), options) for name in families.PAPER]
    counts = sweep.sweep(model, params, {SITE: edits.concatenate(made)}, examples)
    expected = np.concatenate([reference[f"{name}_accuracies"] for name in families.PAPER])
    difference = np.abs(np.asarray(counts.correct[0]) - expected)
    assert len(difference) == 325
    assert difference.max() <= TOLERANCE, f"{(difference > TOLERANCE).sum()} points differ by up to {difference.max()}"
    # The expected counts are not constant, so that agreement means something.
    assert np.ptp(expected) > 40_000
    assert jax.tree.leaves(counts.unperturbed)[0] == expected[66]
