"""Reading checkpoints that others wrote: nothing is executed, and what is no perceptron is refused."""

from __future__ import annotations

import argparse
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

    def __init__(self, other=None):
        super().__init__()
        self.hidden = torch.nn.Linear(64, 12)
        self.last = torch.nn.Linear(12, 10)
        if other is not None:
            self.other = other


class Scaled(torch.nn.Linear):
    """A layer of its own, which computes something else than a linear one."""

    def forward(self, x):
        return 2 * super().forward(x)


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


def test_an_unknown_class_is_read_as_its_state_dict_and_tells_nothing_else(capsys):
    module = Foreign()
    torch.save(module, "foreign.pt")
    refused(capsys, "import-torch", "foreign.pt", "--out", "out", message="does not say for certain which activation")
    read = transfer.read_networks(Path("foreign.pt"), {"model.activations": "relu"}).networks["relu"]
    np.testing.assert_array_equal(read["dense0"]["weight"][0], module.hidden.weight.detach().numpy())
    np.testing.assert_array_equal(read["dense1"]["bias"][0], module.last.bias.detach().numpy())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (torch.nn.LayerNorm(12), "layer 'other' is a torch.nn.modules.normalization.LayerNorm"),
        (torch.nn.Embedding(12, 12), "layer 'other' is a torch.nn.modules.sparse.Embedding"),
        (torch.nn.Conv2d(1, 1, 3), "layer 'other' is a torch.nn.modules.conv.Conv2d"),
        (torch.nn.BatchNorm1d(12), "layer 'other' is a BatchNorm"),
        (Scaled(12, 12), "Scaled, whose code was not executed, so what it computes is not known"),
    ],
)
def test_layers_that_are_not_linear_are_told_by_their_classes(capsys, other, said):
    torch.save(Foreign(other), "foreign.pt")
    refused(capsys, "import-torch", "foreign.pt", "--model.activations", "relu", "--out", "out", message=said)
    torch.save(torch.nn.Sequential(torch.nn.Linear(64, 12), other, torch.nn.Linear(12, 10)), "sequence.pt")
    refused(
        capsys, "import-torch", "sequence.pt", "--model.activations", "relu", "--out", "out",
        message=said.replace("'other'", "'1'"),
    )  # fmt: skip


def test_an_object_of_an_unknown_class_that_holds_no_network(capsys):
    torch.save(argparse.Namespace(lr=0.1), "arguments.pt")
    refused(capsys, "import-torch", "arguments.pt", "--out", "out", message="'argparse.Namespace', which is not on the")


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
    torch.save({"0.scale": torch.zeros(3)}, "scale.pt")
    refused(capsys, "import-torch", "scale.pt", *options, message="but no weights of a linear layer")
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
        refused(capsys, "import-torch", path, *options, message="measure it by jaxdist.probe(")


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


def test_a_state_dict_deeper_in_a_file_is_read():
    module = network()
    torch.save({"trainer": {"models": [{"net": module.state_dict()}]}, "epoch": 3}, "nested.pt")
    read = transfer.read_networks(Path("nested.pt"), {"model.activations": "relu"})
    np.testing.assert_array_equal(read.networks["relu"]["dense0"]["weight"][0], module[0].weight.detach().numpy())


def test_double_precision_is_rounded_and_that_is_said():
    module = network().double()
    torch.save(module.state_dict(), "double.pt")
    read = transfer.read_networks(Path("double.pt"), {"model.activations": "relu"})
    weight = read.networks["relu"]["dense0"]["weight"][0]
    np.testing.assert_array_equal(weight, module[0].weight.detach().numpy().astype(np.float32))
    assert "double.pt: its float64 numbers are rounded to float32" not in read.origin["notes"]  # they were float32 ones
    with torch.no_grad():
        module[0].weight /= 3
    torch.save(module.state_dict(), "double.pt")
    read = transfer.read_networks(Path("double.pt"), {"model.activations": "relu"})
    assert "double.pt: its float64 numbers are rounded to float32" in read.origin["notes"]


def test_of_two_state_dicts_in_one_file_none_is_chosen(capsys):
    torch.save({"model": network().state_dict(), "ema": network(seed=1).state_dict()}, "two.pt")
    options = ("--model.activations", "relu", "--out", "out")
    refused(
        capsys, "import-torch", "two.pt", *options, message="several networks, or parts of one, under 'model' and 'ema'"
    )
    refused(capsys, "import-torch", "two.pt", *options, "--entry", "swa", message="they lie under 'model' and 'ema'")
    read = transfer.read_networks(Path("two.pt"), {"model.activations": "relu"}, entry="ema").networks["relu"]
    np.testing.assert_array_equal(read["dense0"]["weight"][0], network(seed=1)[0].weight.detach().numpy())


def test_files_of_pytorch_are_read_without_it(monkeypatch):
    module = network()
    torch.save(module, "good.pt")
    weight = module[0].weight.detach().numpy()
    monkeypatch.setitem(sys.modules, "torch", None)
    read = transfer.read_networks(Path("good.pt"), {}).networks["relu"]
    np.testing.assert_array_equal(read["dense0"]["weight"][0], weight)


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
