"""What is measured along training is what training had, with whatever else is measured there."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import jaxdist
from jaxdist import cli

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

SMALL = ("--train.steps=60", "--train.learning_rate=0.01", "--model.hidden=8", "--train.seeds=2", "-q")


def test_metrics_along_training_are_the_losses_that_it_had():
    """The mean cross-entropy without an edit, at the weights that first passed each accuracy."""
    options = ("--train.snapshots=true", "--sweep.metrics=cross_entropy", "--sweep.families=scale")
    assert cli.main(["run", *SMALL, *options, "--out", "run"]) == 0
    result = jaxdist.load("run")
    group, losses = result["snapshots_scale"].to_dataset(), result["training"].to_dataset().loss
    unedited = group.metric_mean.sel(split="train", metric="cross_entropy").isel(fraction=66).squeeze("site")
    passed = 0
    for network in group.network.to_numpy():
        for seed in group.seed.to_numpy():
            for threshold in group.threshold.to_numpy():
                at = {"network": network, "seed": seed, "threshold": threshold}
                step, mean = int(group.step.sel(at)), float(unedited.sel(at))
                if step < 0:
                    assert np.isnan(mean)
                    continue
                passed += 1
                assert mean == pytest.approx(float(losses.sel(network=network, seed=seed, step=step)), rel=1e-4)
    assert passed > 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two layers, trained and swept with nothing else."""
    folder = tmp_path_factory.mktemp("snapshots") / "run"
    options = ("--train.snapshots=true", "--sweep.families=offset", "--model.activations=abs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxdist.compute.devices.use_all_cores", lambda: None)
        patch.setattr("jaxdist.report.figures.save", lambda *_: [])
        assert cli.main(["run", *SMALL, *options, "--model.hidden=8,5", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    "option",
    [
        *(
            "metrics=logit_difference,cross_entropy",
            "grid=true",
            "units=true",
            "dose=true",
            "sensitivity=true",
            "splits=test",
        ),
        *("gauges=as_is,averaged,absolute", "layers=all", "layers=each", "draws=3"),
    ],
)
def test_counts_along_training_are_the_same_with_whatever_else_is_swept(option, trained):
    shutil.copytree(trained, "run")
    assert cli.main(["sweep", "run", f"--sweep.{option}", "-q"]) == 0
    group, plain = (jaxdist.load(path)["snapshots_offset"].to_dataset() for path in ("run", trained))
    plain = plain.sel(site=group.site, split=group.split)
    for name in ("correct", "agree", "step"):
        np.testing.assert_array_equal(group[name], plain[name])
    assert (group.step >= 0).sum() > 4
