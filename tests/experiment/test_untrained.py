"""Networks that no step has changed are a run like any other, and are said to be untrained."""

from __future__ import annotations

import json
import sys

import jax
import numpy as np
import pytest

from jaxdist import cli
from jaxdist import config as configs
from jaxdist.analysis import paper_cells
from jaxdist.compute import devices
from jaxdist.data import inputs
from jaxdist.experiment import planning, running
from jaxdist.networks import models, training
from jaxdist.perturbations import families
from jaxdist.report import compare, writing
from jaxdist.storage import folders, overview, published, result_files, weights
from jaxdist.sweep import results
from tests import results_support

SMALL = ["--train.steps=0", "--model.hidden=8", "--sweep.families=clip", "--sweep.splits=test"]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(devices, "use_all_cores", lambda: None)
    monkeypatch.setattr(running.writing.figures, "save", lambda *_: [])


@pytest.fixture
def run(tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main(["run", "--out", str(folder), "--train.seeds=2", *SMALL]) == 0
    assert "untrained: train.steps is 0, so these networks are as their weights were drawn" in " ".join(
        capsys.readouterr().out.split()
    )
    return folder


def test_the_weights_are_those_that_were_drawn_and_training_has_one_entry(run):
    result = result_files.load(run)
    assert list(result["training"].step) == [0]
    config = results.config_of(result)
    initial = models.initial(config, inputs.load_inputs(config), range(2), "abs")
    jax.tree.map(np.testing.assert_array_equal, folders.load_networks(config, run)["abs"], initial)
    counted = result["clip"]["unperturbed"].sel(split="test") / 360
    np.testing.assert_allclose(counted, result["training"]["test_accuracy"].isel(step=0), atol=1.5 / 360)


def test_a_run_of_some_steps_has_the_same_first_entry(run, tmp_path):
    trained = ["--train.seeds=2", *SMALL, "--train.steps=2"]
    assert cli.main(["train", "--out", str(tmp_path / "trained"), "-q", *trained]) == 0
    both = [result_files.load(folder)["training"].isel(step=0) for folder in (run, tmp_path / "trained")]
    for name in ("loss", "train_accuracy", "test_accuracy"):
        np.testing.assert_array_equal(*(group[name] for group in both))


def test_it_is_listed_compared_and_told_as_of_0_steps(run, tmp_path, capsys):
    (seen,) = overview.runs(run.parent)
    assert (seen.state, seen.steps) == ("swept", 0)
    capsys.readouterr()
    assert cli.main(["list", str(run.parent)]) == 0
    assert "2 × 0" in capsys.readouterr().out
    assert json.loads((run / "tables" / "summary.json").read_text())["steps"] == 0
    assert "untrained: train.steps is 0" in (run / "report.html").read_text()
    assert compare.compare(str(run), str(run)).verdict == "agree"


@pytest.mark.slow
def test_it_grows_and_goes_on_where_it_was_killed(run, monkeypatch):
    before = weights.load(folders.weights_path(run, "relu"))
    more = ["run", "--out", str(run), "-q", *SMALL, "--train.seeds=3"]
    with monkeypatch.context() as patch:
        patch.setattr(running.folders, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli.main(more) == 130
    assert overview.read(run).progress == {"stage": "sweep", "done": 2, "of": None}
    assert cli.main(more) == 0
    grown = weights.load(folders.weights_path(run, "relu"))
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(new[:2], old), grown, before)
    assert result_files.load(run)["training"].sizes == {"network": 2, "seed": 3, "step": 1}


@pytest.mark.parametrize("command", ["run", "train"])
def test_no_weights_are_kept_along_training_and_that_is_said(command, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--train.seeds=1", "--train.snapshots=true", *SMALL]
    assert cli.main([command, "--out", str(folder), *options]) == 0
    assert "untrained" in capsys.readouterr().out
    for more in ([], ["--sweep.splits=train"]):
        assert cli.main(["sweep", str(folder), *more]) == 0
        assert cli.main(["report", str(folder)]) == 0
    assert "and no weights are kept along training" in " ".join(capsys.readouterr().out.split())
    assert not any(name.startswith("snapshots") for name in result_files.load(folder).children)
    assert not folders.passed_path(folder, "relu").exists()


def test_its_cost_is_planned_also_where_the_system_does_not_say_how_much_memory_there_is(tmp_path, monkeypatch):
    options = {"train.steps": "0", "train.seeds": "1", "model.hidden": "8", "sweep.families": "clip"}
    config = configs.override(configs.Config(), options)
    monkeypatch.setattr(planning, "_report_seconds", lambda *_: 0.0)
    assert "GiB resident" in planning.rendered(planning.plan(config), config)
    monkeypatch.setitem(sys.modules, "resource", None)
    cost = planning.plan(config)
    assert cost.memory is None
    assert cost.seconds["train"] == 0
    assert "memory     not measured on this system" in planning.rendered(cost, config)


def test_the_paper_s_networks_have_no_history_to_lay_beside_its_tables(tmp_path, monkeypatch):
    for name in results_support.GRIDS:
        monkeypatch.setitem(results_support.GRIDS, name, families.get(name).grid())
    result = results_support.made_up()
    result.attrs |= {"config": configs.to_toml(published.PROTOCOL), "data_name": "mnist", "data_digest": ""}
    history = {name: training.Metrics(*np.full((3, 1, 6), 0.1)) for name in ("relu", "abs")}
    result["training"] = results.training(history, range(6)).isel(step=slice(1))
    cells = paper_cells.cells(result, configs.StatisticsConfig())
    assert set(cells[cells.table == "trained"].quantity) == {"test_accuracy"}
    writing.write(result, configs.StatisticsConfig(), tmp_path)
    assert "Beside the paper" in (tmp_path / "report.html").read_text(encoding="utf-8")
