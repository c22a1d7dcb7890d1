"""The page on the sequel's networks says what the committed result has, and its config what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import jaxdist
from jaxdist import config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sequel.md").read_text(encoding="utf-8")


def test_the_accuracies_are_those_of_the_committed_result():
    steps = jaxdist.load(ROOT / "docs" / "sequel")["training"].to_dataset()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\d.]+) \| ([\d.]+), ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert {name for name, *_ in rows} == set(steps.network.to_numpy())
    for name, *printed in rows:
        each = 100 * steps.test_accuracy.sel(network=name).to_numpy()[:, -1].astype(float)
        np.testing.assert_allclose([*map(float, printed)], [each.mean(), *each], atol=0.00501, err_msg=name)


def test_what_is_said_of_them():
    steps = jaxdist.load(ROOT / "docs" / "sequel")["training"].to_dataset()
    accuracy = 100 * steps.test_accuracy.isel(step=-1).to_series().unstack("network")
    mean, apart = accuracy.mean(), np.ptp(accuracy, axis=0)
    assert mean.relu2 < mean.drop("relu2").min() - 40
    assert mean.abs2_neg < min(mean["abs"], mean.abs2) - 5
    assert {name for name, width in zip(accuracy, apart, strict=True) if width > 1} == {
        "relu2",
        "relu2_neg",
        "abs2_neg",
    }
    assert 8 < mean.relu - mean.relu2_neg < 12
    learned = mean[[name for name in mean.index if "_l2" in name]]
    assert len(learned) == 4
    assert np.ptp(learned) < 1


def test_the_result_is_of_the_config():
    given = config.from_toml(jaxdist.load(ROOT / "docs" / "sequel").attrs["config"])
    ready = config.load(ROOT / "configs" / "sequel.toml")
    assert (given.train.seeds, given.train.steps) == (2, 500)
    assert given.model == ready.model
    assert (given.data.name, given.data.normalisation) == (ready.data.name, ready.data.normalisation)
    assert (given.train.optimizer, given.train.learning_rate) == (ready.train.optimizer, ready.train.learning_rate)
