"""A metric of one's own from a config to tables and figures, and reports without its module."""

from __future__ import annotations

import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxdist
from jaxdist import cli
from jaxdist.sweep import Metric, metric, metrics, results
from tests.page_support import ROOT

pytestmark = pytest.mark.slow

NAMED = "--sweep.metrics=kl,own_metric:metric,accuracy"
SMALL = ["--train.seeds=2", "--train.steps=30", "--model.hidden=16", "--sweep.families=scale,noise", "-q"]


def forget():
    """As another process has it."""
    metrics.REGISTER.records.pop("entropy", None)
    metrics.REGISTER.texts.pop("entropy", None)
    metrics.REGISTER.references.clear()
    sys.modules.pop("own_metric", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose sweep has the example's metric, in a folder without the example."""
    here, there = tmp_path_factory.mktemp("with_module"), tmp_path_factory.mktemp("without")
    shutil.copy(ROOT / "examples" / "own_metric.py", here)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert cli.main(["run", "--out", str(there / "run"), NAMED, *SMALL]) == 0
    forget()
    return there / "run"


@pytest.fixture
def elsewhere(folder, monkeypatch):
    """Where there is no such module."""
    forget()
    monkeypatch.chdir(folder.parent)
    yield folder
    forget()


def test_the_result_holds_the_metric_and_tells_of_it(folder):
    result = jaxdist.load(folder)
    assert results.config_of(result).sweep.metrics == ("kl", "own_metric:metric", "accuracy")
    group = result["scale"]
    assert list(group.metric.data) == ["kl", "entropy"]
    told = metric.traits_of(group.attrs)["entropy"]
    assert told.text.startswith("the entropy of the network's probabilities")
    assert told.unit == "nats"
    np.testing.assert_allclose(told.chance, np.log(10), rtol=1e-6)
    # Without an edit nothing changes, and networks diverge from themselves by nothing.
    whole = group.to_dataset().sel(fraction=1.0)
    np.testing.assert_allclose(whole.metric_change, 0, atol=1e-6)
    np.testing.assert_allclose(whole.metric_mean.sel(metric="kl"), 0, atol=1e-6)
    np.testing.assert_allclose(
        whole.metric_mean.sel(metric="entropy").isel(site=0), whole.metric_unedited.sel(metric="entropy"), rtol=1e-6
    )
    # Multiplied to almost nothing, logits are their biases, and the entropy is near that of chance.
    small = group.metric_mean.sel(metric="entropy").isel(fraction=0)
    assert (np.abs(small - np.log(10)) < 0.1).all()
    assert result["noise"].metric_mean.dims == ("network", "seed", "site", "split", "draw", "fraction", "metric")


def test_reports_need_no_module(elsewhere, capsys):
    for made in ("tables", "figures"):
        shutil.rmtree(elsewhere / made)
    assert cli.main(["report", str(elsewhere)]) == 0
    capsys.readouterr()
    assert "own_metric" not in sys.modules
    frame = pd.read_csv(elsewhere / "tables" / "metrics.csv")
    assert set(frame.metric) == {"kl", "entropy"}
    unedited = frame[(frame.metric == "entropy") & (frame.family == "scale") & frame.unedited_point]
    np.testing.assert_allclose(unedited["mean"], unedited.unedited, rtol=1e-6)
    np.testing.assert_allclose(frame["mean"] - frame.unedited, frame.change, atol=2e-5)
    text = (elsewhere / "tables" / "metrics.md").read_text(encoding="utf-8")
    assert "## Entropy (nats), test images" in text
    assert "## KL divergence (nats)" in text
    for name in ("metric_entropy", "metric_kl"):
        assert (elsewhere / "figures" / f"{name}.svg").is_file()
    assert "Further metrics: metric entropy" in (elsewhere / "report.html").read_text(encoding="utf-8")


def test_a_sweep_of_the_folder_asks_for_the_option_again(elsewhere, capsys):
    assert cli.main(["sweep", str(elsewhere), "-q"]) == 2
    error = capsys.readouterr().err
    assert "metric 'own_metric:metric', whose module is imported only on request" in error
    assert "--sweep.metrics kl,own_metric:metric,accuracy" in error
    assert error.count("\n") == 1
    assert cli.main(["sweep", str(elsewhere), "-q", "--sweep.metrics=cross_entropyy"]) == 2
    assert "sweep.metrics: expected" in capsys.readouterr().err


def test_a_sweep_that_is_given_other_metrics_measures_those(elsewhere, tmp_path):
    copied = shutil.copytree(elsewhere, tmp_path / "run")
    before = jaxdist.load(copied)["scale"]
    assert cli.main(["sweep", str(copied), "-q", "--sweep.metrics=cross_entropy"]) == 0
    after = jaxdist.load(copied)["scale"]
    assert list(after.metric.data) == ["cross_entropy"]
    np.testing.assert_array_equal(before.correct, after.correct)
    assert not (copied / "figures" / "metric_entropy.svg").exists()


def test_probe_takes_a_record_its_name_or_a_reference_and_finds_the_same(monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    weights = {"a": x[:5].T @ x[:5], "b": np.eye(5, 3, dtype=np.float32)}

    def apply(params, x, tap):
        return jax.nn.relu(tap("h", x @ params["a"])) @ params["b"]

    def probed(which):
        y = np.arange(60) % 3
        return jaxdist.probe(apply, weights, train=(x, y), post={"h": jax.nn.relu}, metrics=(which, "flips"))

    by_reference = probed("own_metric:metric")
    record = metrics.REGISTER.get("entropy")
    by_name = probed("entropy")
    forget()
    by_record = probed(record)
    for result in (by_name, by_record):
        np.testing.assert_array_equal(result["scale"].metric_mean, by_reference["scale"].metric_mean)
    forget()
    jaxdist.show(by_record)
    # Of one network intervals are over its examples, and the numbers are those of plain JAX.
    logits = jax.nn.relu(x @ weights["a"]) @ weights["b"]
    p = jax.nn.log_softmax(logits, -1)
    entropy = -(jnp.exp(p) * p).sum(-1)
    group = by_record["scale"]
    np.testing.assert_allclose(group.metric_unedited.squeeze(), np.float64(entropy).mean(), rtol=1e-5)
    np.testing.assert_allclose(group.metric_unedited_sd.squeeze(), np.float64(entropy).std(), rtol=1e-5)


def test_a_metric_whose_name_is_taken_is_refused():
    def second(outputs, labels):
        return outputs[:, 1]

    one = Metric(name="entropy", text="one", of=lambda outputs, labels: outputs[:, 0])
    metrics.REGISTER.add(one)
    with pytest.raises(jaxdist.InputError, match=r"metric 'entropy': \S+ has already registered this name"):
        metrics.REGISTER.add(Metric(name="entropy", text="one", of=second))
    forget()
