"""Reading checkpoints that others wrote: nothing is executed, and what is no perceptron is refused."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxdist
from jaxdist.storage.torch import perceptrons, transfer
from tests.storage.torch_support import network, refused, save_file, torch

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


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
    refused(
        capsys, "import-torch", "foreign.pt", "--out", "out", message="test_checkpoints.Foreign', which is not on the"
    )


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
    torch.save({"net": {"0": network().state_dict()}, "epoch": 3}, "nested.pt")
    refused(capsys, "import-torch", "nested.pt", *options, message="tensor 'net' is a dict; expected a tensor")
    torch.save(network().double().state_dict(), "double.pt")
    refused(capsys, "import-torch", "double.pt", *options, message="is torch.float64, expected float32")
    torch.save({"0.scale": torch.zeros(3)}, "scale.pt")
    refused(capsys, "import-torch", "scale.pt", *options, message="is not the weight or bias of a linear layer")
    torch.save(network().state_dict(), "good.pt")
    refused(capsys, "import-torch", "good.pt", "--out", "out", message="using --model.activations, one of relu")
    refused(
        capsys, "import-torch", "good.pt", *options[:1], "gelu2", *options[2:], message="unknown activation 'gelu2'"
    )
    refused(capsys, "import-torch", "good.pt", *options[:2], message="the following arguments are required: --out")
    refused(capsys, "import-torch", "nowhere.pt", *options, message="nowhere.pt: no such file or folder")
    Path("empty").mkdir()
    refused(capsys, "import-torch", "empty", *options, message="holds no networks")
    Path("x.safetensors").write_bytes(b"not one")
    refused(capsys, "import-torch", "x.safetensors", *options, message="not a safetensors file of float32 tensors")


def test_a_batch_norm_is_named_with_what_to_do(capsys):
    linear = torch.nn.Linear
    state = torch.nn.Sequential(linear(64, 12), torch.nn.BatchNorm1d(12), torch.nn.ReLU(), linear(12, 10)).state_dict()
    torch.save(state, "norm.pt")
    save_file(state, "norm.safetensors")
    for path in ("norm.pt", "norm.safetensors"):
        options = ("--model.activations", "relu", "--out", "out")
        refused(capsys, "import-torch", path, *options, message="layer '1' is a BatchNorm")
        refused(capsys, "import-torch", path, *options, message="with jaxdist.probe")


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "net", "weights", "params", "network", 0])
def test_a_state_dict_in_what_a_training_script_saved(key):
    module = network()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    saved = {"epoch": 3, "loss": torch.tensor(0.5), "optimizer_state_dict": optimizer.state_dict()}
    torch.save({**saved, key: module.state_dict()}, "nested.pt")
    found = transfer.read_networks(Path("nested.pt"), {"model.activations": "relu"})
    np.testing.assert_array_equal(found.networks["relu"]["dense0"]["weight"][0], module[0].weight.detach().numpy())


def test_of_two_state_dicts_in_one_file_none_is_chosen(capsys):
    torch.save({"model": network().state_dict(), "ema": network(seed=1).state_dict()}, "two.pt")
    options = ("--model.activations", "relu", "--out", "out")
    refused(capsys, "import-torch", "two.pt", *options, message="several networks, under 'model' and 'ema'")


def test_a_missing_torch_is_said_with_what_to_do(capsys, monkeypatch):
    torch.save(network().state_dict(), "good.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(capsys, "import-torch", "good.pt", "--out", "out", message="pip install 'jaxdist[torch]'")


def test_a_whole_pickled_module_tells_its_activation():
    torch.save(network(), "whole.pt")
    found = transfer.read_networks(Path("whole.pt"), {})
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
    found = transfer.read_networks(Path("nested.pt"), {})
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
    assert transfer.read_networks(Path("crafted.pt"), {}).config.model.activations == ("relu",)


def test_half_precision_is_widened_exactly():
    half = network().half()
    torch.save(half.state_dict(), "half.pt")
    found = transfer.read_networks(Path("half.pt"), {"model.activations": "relu"})
    np.testing.assert_array_equal(
        found.networks["relu"]["dense0"]["weight"][0], half[0].weight.detach().float().numpy()
    )


def test_layers_without_bias_and_deeper_ones():
    torch.manual_seed(0)
    deep = torch.nn.Sequential(*(torch.nn.Linear(a, b, bias=False) for a, b in ((6, 5), (5, 4), (4, 3))))
    params = perceptrons.from_tensors({k: v.numpy() for k, v in deep.state_dict().items()}, "deep")
    assert perceptrons.hidden_of(params) == (5, 4)
    assert not params["dense2"]["bias"].any()
