"""Networks trained by the paper's own code, swept on the real 60,000 images as users sweep them."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdist import cli, data
from jaxdist.compute import devices
from jaxdist.config import DataConfig, SweepConfig
from jaxdist.networks import mlp
from jaxdist.perturbations import edits, families, ranges
from jaxdist.report import compare
from jaxdist.storage import weights as stored_weights
from jaxdist.sweep import ensemble_sweep
from tests.report.test_compare import shown

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

SITE = "dense0/pre"
TOLERANCE = 2
"""Images of 60,000 by which float32 rounding in another order may move a count."""


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
    counts = ensemble_sweep.sweep(model, params, {SITE: edits.concatenate(made)}, examples)
    expected = np.concatenate([reference[f"{name}_accuracies"] for name in families.PAPER])
    difference = np.abs(np.asarray(counts.correct[0]) - expected)
    assert len(difference) == 325
    assert difference.max() <= TOLERANCE, f"{(difference > TOLERANCE).sum()} points differ by up to {difference.max()}"
    # The expected counts are not constant, so that agreement means something.
    assert np.ptp(expected) > 40_000
    assert jax.tree.leaves(counts.unperturbed)[0] == expected[66]


@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_papers_networks_swept_here_agree_with_the_papers_sweep(capsys, monkeypatch, shared):
    pytest.importorskip("torch", reason="PyTorch is an optional extra: pip install 'jaxdist[torch]'")
    monkeypatch.setattr(compare, "save", lambda *_: [])
    tree = shared / "reference" / "results"
    assert cli.main(["import-torch", str(tree), "--out", "paper"]) == 0
    images = ("--data.dir", str(shared / "data" / "mnist"))
    assert cli.main(["sweep", "paper", *images, "--sweep.splits", "train"]) == 0
    file = tree / "perturbation" / "perturbation_results.pt"
    code, text = shown(capsys, "paper", file, "--json", "c.json")
    assert code == 0
    assert "weights equal bit for bit" in text
    points = json.loads(Path("c.json").read_text())["points"]
    assert len(points) == 325
    assert max(abs(point["difference"]) for point in points) <= 2
    path = Path("paper/weights/relu.safetensors")
    params = stored_weights.load(path)
    weight = params["dense1"]["weight"].copy()
    weight[0, 8, 13] *= 1.1
    stored_weights.save(params | {"dense1": params["dense1"] | {"weight": weight}}, path)
    assert cli.main(["sweep", "paper", *images]) == 0
    code, text = shown(capsys, "paper", file)
    assert code == 1
    assert "Beyond 2 images at" in text
    assert "1 of 1280 in relu dense1.weight" in " ".join(text.split())
