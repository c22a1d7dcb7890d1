"""PyTorch networks in and out; nothing read from a file is executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdist
from jaxdist import cli, config, data, devices, edits, folders, mlp, results, tables, weights
from jaxdist.compare import sides
from jaxdist.interop import paper, perceptrons, transfer

torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: pip install 'jaxdist[torch]'")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "use_all_cores", lambda: None)
    monkeypatch.chdir(tmp_path)


def network(hidden=12, inputs=64, classes=10, activation=torch.nn.ReLU, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(inputs, hidden), activation(), torch.nn.Linear(hidden, classes))


def run(*arguments):
    return cli.main([*map(str, arguments)])


def refused(capsys, *arguments, message):
    """The command ends with code 2 and one sentence, and makes no run folder."""
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdist: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("out").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two seeds of two networks, trained here."""
    folder = tmp_path_factory.mktemp("runs") / "own"
    options = ["--train.seeds", "2", "--train.steps", "5", "--model.hidden", "12", "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "use_all_cores", lambda: None)
        assert cli.main(["train", *options]) == 0
    return folder


class Executed:
    """Pickles to a call of `mkdir`, which would leave a trace."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


class Foreign(torch.nn.Module):
    """A class that the importer does not know."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)


def test_a_trap_would_work_where_pickles_are_trusted():
    pickle.loads(pickle.dumps(Executed()))
    assert Path("executed").is_dir()


@pytest.mark.parametrize("save", [torch.save, lambda content, path: Path(path).write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("wrap", [lambda trap: trap, lambda trap: {"0.weight": trap}])
def test_a_hostile_pickle_executes_nothing(capsys, save, wrap):
    save(wrap(Executed()), "hostile.pt")
    refused(capsys, "import-torch", "hostile.pt", "--out", "out", message="executed")
    assert not Path("executed").exists()
    with pytest.raises(ValueError, match="executed"):
        jaxdist.load("hostile.pt")
    assert not Path("executed").exists()


def test_a_truncated_file(capsys):
    torch.save(network().state_dict(), "whole.pt")
    Path("cut.pt").write_bytes(Path("whole.pt").read_bytes()[:2000])
    refused(capsys, "import-torch", "cut.pt", "--out", "out", message="not a readable PyTorch file")


def test_an_unknown_class(capsys):
    torch.save(Foreign(), "foreign.pt")
    refused(capsys, "import-torch", "foreign.pt", "--out", "out", message="test_interop.Foreign', which is not on the")


def test_wrong_shapes(capsys):
    state = network().state_dict()
    state["2.weight"] = torch.zeros(10, 13)
    torch.save(state, "shapes.pt")
    options = ("--model.activations", "relu", "--out", "out")
    refused(capsys, "import-torch", "shapes.pt", *options, message="layer '2' expects 13 inputs, but '0' before it")
    state["2.weight"] = torch.zeros(10, 3, 3, 3)
    torch.save(state, "shapes.pt")
    refused(capsys, "import-torch", "shapes.pt", *options, message="layer '2' has a weight of shape [10, 3, 3, 3]")


def test_weights_that_are_not_finite(capsys):
    state = network().state_dict()
    state["0.weight"][3, 4] = torch.nan
    torch.save(state, "nan.pt")
    refused(
        capsys, "import-torch", "nan.pt", "--out", "out", message="tensor '0.weight' holds values that are not finite"
    )


def test_other_things_that_are_no_perceptron(capsys):
    options = ("--model.activations", "relu", "--out", "out")
    torch.save({"model": network().state_dict(), "epoch": 3}, "nested.pt")
    refused(capsys, "import-torch", "nested.pt", *options, message="tensor 'model' is a OrderedDict; expected a tensor")
    torch.save(network().double().state_dict(), "double.pt")
    refused(capsys, "import-torch", "double.pt", *options, message="is torch.float64, expected float32")
    torch.save({"0.running_mean": torch.zeros(3)}, "norm.pt")
    refused(capsys, "import-torch", "norm.pt", *options, message="is not the weight or bias of a linear layer")
    torch.save(network().state_dict(), "good.pt")
    refused(capsys, "import-torch", "good.pt", "--out", "out", message="say it, such as --model.activations relu")
    refused(
        capsys, "import-torch", "good.pt", *options[:1], "gelu2", *options[2:], message="unknown activation 'gelu2'"
    )
    refused(capsys, "import-torch", "good.pt", *options[:2], message="the following arguments are required: --out")
    refused(capsys, "import-torch", "nowhere.pt", *options, message="nowhere.pt: no such file or folder")
    Path("empty").mkdir()
    refused(capsys, "import-torch", "empty", *options, message="holds no networks")
    Path("x.safetensors").write_bytes(b"not one")
    refused(capsys, "import-torch", "x.safetensors", *options, message="not a safetensors file of float32 tensors")


def test_a_missing_torch_is_said_with_what_to_do(capsys, monkeypatch):
    torch.save(network().state_dict(), "good.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(capsys, "import-torch", "good.pt", "--out", "out", message="pip install 'jaxdist[torch]'")


def test_a_state_dict_becomes_a_run_that_sweeps_and_reports():
    module = network()
    torch.save(module.state_dict(), "mine.pt")
    assert run("import-torch", "mine.pt", "--model.activations", "relu", "--out", "mine") == 0
    assert run("sweep", "mine") == 0
    assert run("report", "mine") == 0
    result = jaxdist.load("mine")
    assert "training" not in result.children
    dataset = data.load(config.DataConfig())
    x = torch.tensor(dataset.train.images.reshape(len(dataset.train.images), -1).astype(np.float32))
    with torch.no_grad():
        correct = int((module(x).argmax(1).numpy() == dataset.train.labels).sum())
    assert abs(int(result["scale"]["unperturbed"].sel(split="train").squeeze()) - correct) <= 1


def test_a_whole_pickled_module_tells_its_activation():
    torch.save(network(), "whole.pt")
    found = transfer.read(Path("whole.pt"), {})
    assert found.config.model.activations == ("relu",)
    assert found.config.model.hidden == (12,)
    np.testing.assert_array_equal(found.networks["relu"]["dense1"]["bias"][0], network()[2].bias.detach().numpy())


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("LRLL", "computes linear, relu, linear, linear"),
        ("LRLR", "computes linear, relu, linear, relu"),
        ("L", "computes linear;"),
        ("RL", "computes relu, linear"),
    ],
)
def test_a_module_that_computes_something_else_is_refused(capsys, layers, said):
    kinds = {"L": lambda: torch.nn.Linear(64, 64), "R": torch.nn.ReLU}
    torch.save(torch.nn.Sequential(*(kinds[one]() for one in layers)), "other.pt")
    refused(capsys, "import-torch", "other.pt", "--out", "out", message=said)


def test_dropout_flatten_and_nesting_change_nothing():
    inner = torch.nn.Sequential(torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), inner, torch.nn.Linear(12, 10)), "nested.pt")
    found = transfer.read(Path("nested.pt"), {})
    np.testing.assert_array_equal(found.networks["relu"]["dense0"]["weight"][0], inner[0].weight.detach().numpy())


def crafted(name):
    """Modules that no ordinary program writes."""
    module = network()
    if name == "cycle":
        for k in range(60):
            module._modules[f"again{k}"] = module
    elif name == "members":
        module.__dict__["_modules"] = 5
    elif name == "parameters":
        module[0].__dict__["_parameters"] = [1]
    elif name == "activation":
        module[1].__dict__["activation"] = ["abs"]
        module[1].__dict__["role"] = "linear"
    elif name == "expanded":
        module[0].__dict__["_parameters"]["weight"] = torch.zeros(1).expand(10**6, 10**6)
    elif name == "sparse":
        return {"0.weight": torch.zeros(3, 4).to_sparse()}
    elif name == "meta":
        return {"0.weight": torch.zeros(3, 4, device="meta")}
    elif name == "control":
        return {"a\n\x1b[31m.weight": torch.zeros(3, 4, 5, 6)}
    return module


@pytest.mark.parametrize("name", ["cycle", "members", "parameters", "expanded", "sparse", "meta", "control"])
def test_crafted_files_get_one_sentence(capsys, name):
    torch.save(crafted(name), "crafted.pt")
    refused(capsys, "import-torch", "crafted.pt", "--model.activations", "relu", "--out", "out", message="crafted.pt")


def test_attributes_in_a_file_do_not_pass_for_facts_of_its_class():
    torch.save(crafted("activation"), "crafted.pt")
    assert transfer.read(Path("crafted.pt"), {}).config.model.activations == ("relu",)


def test_half_precision_is_widened_exactly():
    half = network().half()
    torch.save(half.state_dict(), "half.pt")
    found = transfer.read(Path("half.pt"), {"model.activations": "relu"})
    np.testing.assert_array_equal(
        found.networks["relu"]["dense0"]["weight"][0], half[0].weight.detach().float().numpy()
    )


def test_an_export_that_cannot_be_whole_leaves_nothing(trained):
    broken = Path("broken")
    shutil.copytree(trained, broken)
    path = folders.weights_path(broken, "abs")
    weights.save(jax.tree.map(lambda leaf: leaf[:1], weights.load(path)), path)
    assert run("export-torch", broken, "--out", "torch") == 2
    assert not Path("torch").exists()
    assert not list(Path().glob(".torch*"))


def test_layers_without_bias_and_deeper_ones():
    torch.manual_seed(0)
    deep = torch.nn.Sequential(*(torch.nn.Linear(a, b, bias=False) for a, b in ((6, 5), (5, 4), (4, 3))))
    params = perceptrons.from_tensors({k: v.numpy() for k, v in deep.state_dict().items()}, "deep")
    assert perceptrons.hidden_of(params) == (5, 4)
    assert not params["dense2"]["bias"].any()


def test_export_loads_into_torch_and_comes_back_bit_equal(trained):
    assert run("export-torch", trained, "--out", "torch") == 0
    params = folders.load_networks(results.config_of(jaxdist.load(trained)), trained)
    x = np.random.default_rng(0).uniform(0, 16, (40, 64)).astype(np.float32)
    for name, activation in (("relu", torch.nn.ReLU), ("abs", Absolute)):
        for seed in range(2):
            module = network(activation=activation)
            module.load_state_dict(torch.load(f"torch/{name}/{seed}.pt", weights_only=True))
            with torch.no_grad():
                expected = module(torch.tensor(x)).numpy()
            one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params[name])
            with jax.default_matmul_precision("float32"):
                logits = np.asarray(mlp.apply(one, x, activation=mlp.activations.get(name))).T
            assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    for suffix in ("pt", "safetensors"):
        shutil.copytree("torch", f"only-{suffix}")
        for path in Path(f"only-{suffix}").glob("*/*"):
            if path.suffix != f".{suffix}":
                path.unlink()
        assert run("import-torch", f"only-{suffix}", "--out", f"back-{suffix}") == 0
        for name in ("relu", "abs"):
            stored = weights.load(folders.weights_path(Path(f"back-{suffix}"), name))
            jax.tree.map(np.testing.assert_array_equal, stored, params[name])
        assert results.config_of(jaxdist.load(f"back-{suffix}")).train.steps == 5


class Absolute(torch.nn.Module):
    def forward(self, x):
        return x.abs()


def test_stacked_safetensors_of_a_run_import_as_all_its_seeds(trained):
    path = folders.weights_path(trained, "abs")
    assert run("import-torch", path, "--model.activations", "abs", "--out", "stacked") == 0
    stored = weights.load(folders.weights_path(Path("stacked"), "abs"))
    jax.tree.map(np.testing.assert_array_equal, stored, weights.load(path))


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
    found = transfer.read(Path("mine.pt"), {"model.activations": "relu"})
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
    found = transfer.read(shared / "reference" / "results", {})
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
    for name in edits.FAMILIES:
        group = result[name].to_dataset().sel(network="relu", seed=0, site="dense0/pre", split="train")
        np.testing.assert_array_equal(group.correct, expected[f"{name}_accuracies"])
        np.testing.assert_allclose(group.fraction, edits.get(name).grid())
        assert int(group.unperturbed) == 58619
    assert jaxdist.load(shared / "reference" / "results")["clip"].equals(result["clip"])


def fake_results(path, runs_by_model, **changes):
    content = {}
    rng = np.random.default_rng(3)
    for model, runs in runs_by_model.items():
        content[model] = []
        for _ in range(runs):
            one = {}
            for name in edits.FAMILIES:
                grid = edits.get(name).grid()
                one[f"{name}_values"] = grid
                counts = rng.integers(0, 60_000, grid.shape)
                one[f"{name}_accuracies"] = [float(np.float32(c) / np.float32(60_000)) * 100 for c in counts]
            content[model].append(one | changes)
    torch.save(content, path)


def test_a_result_file_with_unlike_numbers_of_runs_marks_what_is_missing():
    fake_results("r.pt", {"PerturbationReLU": 2, "PerturbationAbs": 3})
    result = jaxdist.load("r.pt")
    by_network = {one.network: one for one in tables.series(result) if one.family == "clip"}
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
