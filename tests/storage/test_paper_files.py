"""The tree and the result file that the paper's code leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import jaxdist
from jaxdist import config
from jaxdist.analysis import tables
from jaxdist.analysis.series import every_series
from jaxdist.perturbations import families
from jaxdist.report.compare import sides
from jaxdist.storage.torch import paper, perceptrons, transfer
from jaxdist.sweep import results
from tests.storage.torch_support import network, refused, run, torch

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def tree(folder, runs, steps=3, activation="ReLU"):
    """A tree as the paper's code leaves it, with state_dicts under the paper's aliased names."""
    for number in runs:
        module = network(seed=number)
        state = {
            **{f"linear0.{k}": v for k, v in module[0].state_dict().items()},
            **{f"perturb_layer.{k}": v for k, v in neutral().items()},
            **{f"layers.0.{k}": v for k, v in module[0].state_dict().items()},
            **{f"layers.1.{k}": v for k, v in neutral().items()},
            **{f"layers.3.{k}": v for k, v in module[2].state_dict().items()},
        }
        place = folder / "models" / f"Perturbation{activation}" / str(number)
        place.mkdir(parents=True)
        torch.save(state, place / f"Perturbation{activation}.pt")
        rising = [0.1 * (k + number) for k in range(steps + 1)]
        said = {"loss": [9.0, *[9.0 - v for v in rising[:-1]]], "train_acc": [10.0, *rising[:-1]], "test_acc": rising}
        (place / "metrics.json").write_text(json.dumps(said))
    (folder / "models" / "experiment_config.json").write_text(
        json.dumps({"epochs": steps, "learning_rate": 0.01, "data_transform": "Normalize((0.1307,), (0.3081,))"})
    )


def neutral(units=12):
    return {"s": torch.ones(units), "t": torch.zeros(units), "clip": torch.full((units,), torch.inf)}


def test_the_papers_tree_keeps_run_numbers_and_shifts_its_metrics(tmp_path):
    tree(tmp_path / "results", runs=(0, 2, 10))
    found = transfer.import_run(tmp_path / "results", {"out": "paper", "data.name": "digits"})
    assert results.seeds_of(found) == [0, 2, 10]
    assert list(found["training"].seed.values) == [0, 2, 10]
    settings = results.config_of(found)
    assert (settings.train.steps, settings.train.learning_rate) == (3, 0.01)
    assert settings.data.normalisation == "raw", "the false note on normalisation is not believed"
    training = found["training"].to_dataset().sel(network="relu", seed=2)
    np.testing.assert_allclose(training.test_accuracy, [0.002, 0.003, 0.004, 0.005], rtol=1e-6)
    np.testing.assert_allclose(training.train_accuracy[:-1], [0.002, 0.003, 0.004], rtol=1e-6)
    assert np.isnan(training.loss[-1])
    assert run("sweep", "paper") == 0
    assert list(jaxdist.load("paper")["offset"].seed.values) == [0, 2, 10]
    assert tables.training(jaxdist.load("paper"), settings.statistics)["mean"].notna().all()


def test_a_tree_whose_networks_have_unlike_runs_is_refused_with_what_to_do(capsys, tmp_path):
    tree(tmp_path / "results", runs=(0, 1))
    tree(tmp_path / "results", runs=(0,), activation="Abs")
    refused(capsys, "import-torch", "results", "--out", "out", message="relu 0, 1; abs 0")
    assert run("import-torch", "results", "--model.activations", "relu", "--out", "relu") == 0
    # The result file beside such a tree is still compared with what was imported from it.
    (tmp_path / "results" / "perturbation").mkdir()
    file = tmp_path / "results" / "perturbation" / "perturbation_results.pt"
    fake_results(file, {"PerturbationReLU": 2, "PerturbationAbs": 1})
    side = sides.open_side(str(file))
    assert set(sides.networks(side)) == {"relu", "abs"}
    assert side.config.train.steps == 3, "as the tree says, not as the paper does"


def test_missing_curves_are_said_and_wrong_ones_refused(capsys, tmp_path):
    tree(tmp_path / "results", runs=(0, 1))
    metrics = tmp_path / "results" / "models" / "PerturbationReLU" / "1" / "metrics.json"
    said = json.loads(metrics.read_text())
    metrics.write_text(json.dumps({name: values[:-1] for name, values in said.items()}))
    refused(capsys, "import-torch", "results", "--out", "out", message="expected 4 entries")
    metrics.write_text(json.dumps(said | {"loss": [float("nan")] * 4}))
    refused(capsys, "import-torch", "results", "--out", "out", message="a network that diverged cannot be imported")
    metrics.unlink()
    assert run("import-torch", "results", "--out", "in") == 0
    assert "without training curves, since" in capsys.readouterr().out
    assert "training" not in jaxdist.load("in").children


def test_what_a_file_does_not_say_is_not_known():
    torch.save(network().state_dict(), "mine.pt")
    found = transfer.read_networks(Path("mine.pt"), {"model.activations": "relu"})
    assert set(found.origin["unknown"]) == {"model.init", "train.steps", "train.optimizer", "train.learning_rate"}


def test_aliases_that_disagree_and_saved_edits_are_refused():
    weight, bias = np.zeros((2, 3), np.float32), np.zeros(2, np.float32)
    head = {"layers.3.weight": np.zeros((4, 2), np.float32), "layers.3.bias": np.zeros(4, np.float32)}
    first = {"linear0.weight": weight, "linear0.bias": bias, "layers.0.weight": weight + 1, "layers.0.bias": bias}
    with pytest.raises(ValueError, match="are one tensor in the paper's networks but differ"):
        perceptrons.from_tensors(first | head, "file")
    edited = {"layers.0.weight": weight, "layers.0.bias": bias, "layers.1.s": np.array([1, 0.5], np.float32)}
    with pytest.raises(ValueError, match=r"'layers.1.s' holds an edit"):
        perceptrons.from_tensors(edited | head, "file")


@pytest.mark.slow
def test_the_papers_own_tree_has_the_weights_of_the_reference(shared):
    found = transfer.read_networks(shared / "reference" / "results", {})
    assert found.config.train.steps == 5000
    assert list(found.networks) == ["relu"]
    with np.load(shared / "reference" / "relu_seed0_weights.npz") as stored:
        for k in range(2):
            layer = found.networks["relu"][f"dense{k}"]
            np.testing.assert_array_equal(layer["weight"][0], stored[f"w{k}"])
            np.testing.assert_array_equal(layer["bias"][0], stored[f"b{k}"])
    metrics = found.metrics["relu"]
    assert metrics.loss.shape == (5001, 1)
    assert metrics.test_accuracy[-1] == pytest.approx(0.9564)
    assert metrics.train_accuracy[-2] == pytest.approx(0.9769833)


def test_the_papers_result_file_is_read_as_counts(shared):
    result = jaxdist.load(shared / "reference" / "results" / "perturbation" / "perturbation_results.pt")
    expected = json.loads((shared / "reference" / "relu_seed0_sweep_counts.json").read_text())["PerturbationReLU"][0]
    for name in families.PAPER:
        group = result[name].to_dataset().sel(network="relu", seed=0, site="dense0/pre", split="train")
        np.testing.assert_array_equal(group.correct, expected[f"{name}_accuracies"])
        np.testing.assert_allclose(group.fraction, families.get(name).grid())
        assert int(group.unperturbed) == 58619
    assert jaxdist.load(shared / "reference" / "results")["clip"].equals(result["clip"])


def fake_results(path, runs_by_model, **changes):
    content = {}
    rng = np.random.default_rng(3)
    for model, runs in runs_by_model.items():
        content[model] = []
        for _ in range(runs):
            one = {}
            for name in families.PAPER:
                grid = families.get(name).grid()
                one[f"{name}_values"] = grid
                counts = rng.integers(0, 60_000, grid.shape)
                one[f"{name}_accuracies"] = [float(np.float32(c) / np.float32(60_000)) * 100 for c in counts]
            content[model].append(one | changes)
    torch.save(content, path)


def test_a_result_file_with_unlike_numbers_of_runs_marks_what_is_missing():
    fake_results("r.pt", {"PerturbationReLU": 2, "PerturbationAbs": 3})
    result = jaxdist.load("r.pt")
    by_network = {one.network: one for one in every_series(result) if one.family == "clip"}
    assert by_network["relu"].correct.shape == (2, 100)
    assert by_network["abs"].correct.shape == (3, 100)
    assert (result["clip"]["correct"].sel(network="relu", seed=2) == results.MISSING).all()
    points = tables.points(result, config.StatisticsConfig())
    assert set(points[points.network == "relu"].seeds) == {2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_accuracies": [1.0]}, "expected an accuracy at each point"),
        ({"clip_accuracies": [12.34567] * 100}, "are not percentages of 60000 images"),
        ({"clip_accuracies": [101.0] * 100}, "are not percentages of 60000 images"),
        ({"clip_accuracies": ["x"] * 100}, "expected a list of numbers 'clip_accuracies'"),
        ({"clip_values": 3.0}, "expected a list of finite numbers 'clip_values'"),
        ({"clip_values": []}, "expected a list of finite numbers 'clip_values'"),
        ({"clip_values": "x"}, "expected a list of numbers 'clip_values'"),
    ],
)
def test_result_files_that_are_not_what_they_should_be(changes, message):
    fake_results("r.pt", {"PerturbationReLU": 1}, **changes)
    with pytest.raises(ValueError, match=message):
        paper.read_result(Path("r.pt"))
    for content in (
        {"other": []},
        {"PerturbationReLU": 5},
        {"PerturbationReLU": torch.zeros(3)},
        {"PerturbationReLU": []},
    ):
        torch.save(content, "o.pt")
        with pytest.raises(ValueError, match="expected sweep results"):
            paper.read_result(Path("o.pt"))
