"""PyTorch's networks beyond plain state_dicts: whole modules, programs of torch.jit, PReLU, pickles, odd entries."""

from __future__ import annotations

import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.networks import mlp
from jaxdist.storage.torch import transfer
from tests.storage.torch_support import network, refused, run, torch

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

nn = torch.nn


def digits():
    dataset = data.load(DataConfig())
    return np.float32(dataset.test.images.reshape(len(dataset.test.images), -1) / 16)


def same(path, module, changes=None, **options):
    """Import one network; its logits are those of PyTorch's own forward pass."""
    imported = transfer.read_networks(Path(path), changes or {}, **options)
    ((name, params),) = imported.networks.items()
    values = mlp.apply(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), params), digits(), activation=name).T
    with torch.no_grad():
        expected = module(torch.from_numpy(digits())).numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    return imported


class Ours(nn.Module):
    """A network of the user's own class."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 20), nn.ReLU())
        self.head = nn.Linear(20, 10)

    def forward(self, x):
        return self.head(self.body(x))


class Wave(nn.Module):
    """An activation of the user's own class."""

    def forward(self, x):
        return torch.sin(x)


def test_a_module_of_ones_own_class_is_read():
    module = Ours().eval()
    torch.save(module, "ours.pt")
    same("ours.pt", module, {"model.activations": "relu"})
    torch.save({"model": module, "optimizer": torch.optim.Adam(module.parameters())}, "both.pt")
    same("both.pt", module, {"model.activations": "relu"})


def test_an_activation_of_ones_own_class_is_asked_for_and_then_right(capsys):
    module = nn.Sequential(nn.Linear(64, 20), Wave(), nn.Linear(20, 20), Wave(), nn.Linear(20, 10))
    torch.save(module, "wave.pt")
    refused(capsys, "import-torch", "wave.pt", "--out", "out", message="does not say for certain which activation")
    same("wave.pt", module, {"model.activations": "sine"})


@pytest.mark.parametrize("last", [nn.Softmax(dim=1), nn.LogSoftmax(dim=-1), nn.Softmax(dim=-1)])
def test_a_softmax_at_the_end_is_left_out_and_that_is_said(last):
    module = network()
    torch.save(nn.Sequential(*module, last), "soft.pt")
    notes = same("soft.pt", module).origin["notes"]
    assert f"soft.pt: its {type(last).__name__} at the end is left out: logits are what comes before it" in notes


def test_a_softmax_over_examples_is_refused(capsys):
    torch.save(nn.Sequential(*network(), nn.Softmax(dim=0)), "soft.pt")
    refused(capsys, "import-torch", "soft.pt", "--out", "out", message="its Softmax has dim 0; expected 1")


def test_wrapped_modules_are_read():
    module = network()
    torch.save(nn.DataParallel(module), "wrapped.pt")
    assert same("wrapped.pt", module).config.model.activations == ("relu",)


def test_linear_layers_with_nothing_between_them_are_the_identity():
    module = nn.Sequential(nn.Linear(64, 20), nn.Identity(), nn.Linear(20, 10))
    torch.save(module, "linear.pt")
    assert same("linear.pt", module).config.model.activations == ("identity",)


def test_slopes_of_prelus_are_read_and_exported(capsys):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 20), nn.PReLU(), nn.Linear(20, 20), nn.PReLU(init=0.6), nn.Linear(20, 10))
    torch.save(module, "whole.pt")
    torch.save(module.state_dict(), "state.pt")
    same("whole.pt", module)
    same("state.pt", module, {"model.activations": "prelu"})
    refused(
        capsys, "import-torch", "state.pt", "--model.activations", "relu", "--out", "out",
        message="has a slope of a PReLU, unlike a network 'relu'; pass --model.activations prelu",
    )  # fmt: skip
    torch.save(network().state_dict(), "none.pt")
    refused(
        capsys, "import-torch", "none.pt", "--model.activations", "prelu", "--out", "out", message="no slope of a PReLU"
    )
    assert run("import-torch", "whole.pt", "--out", "in", "--allow-chance", "true") == 0
    assert run("export-torch", "in", "--out", "back") == 0
    again = torch.load("back/prelu/0.pt")
    assert {name: value.tolist() for name, value in again.items()} == {
        name: value.tolist() for name, value in module.state_dict().items()
    }


def test_slopes_that_belong_to_no_layer_for_certain_are_refused(capsys):
    units = nn.Sequential(nn.Linear(64, 20), nn.PReLU(20), nn.Linear(20, 10))
    torch.save(units.state_dict(), "units.pt")
    options = ("--model.activations", "prelu", "--out", "out")
    refused(capsys, "import-torch", "units.pt", *options, message="layer '1' has a weight of shape [20]")
    states = {"shared": ("act",), "named": ("first", "second"), "many": ("a", "b", "c")}
    said = (
        "1 slope of PReLUs for 2 hidden layers",
        "do not say behind which layer each is",
        "3 slopes of PReLUs for 2",
    )
    linear = nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 10)).state_dict()
    for (name, acts), sentence in zip(states.items(), said, strict=True):
        torch.save(linear | {f"{act}.weight": torch.tensor([0.1]) for act in acts}, f"{name}.pt")
        refused(capsys, "import-torch", f"{name}.pt", *options, message=sentence)


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*jit.*:FutureWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_tensors_of_programs_of_torch_jit_are_read(how, capsys):
    module = network()
    program = torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.zeros(1, 64))
    program.save("program.pt")
    refused(capsys, "import-torch", "program.pt", "--out", "out", message="does not say for certain which activation")
    same("program.pt", module, {"model.activations": "relu"})


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_state_dicts_that_pickle_wrote_are_read(protocol):
    module = network()
    Path("plain.pkl").write_bytes(pickle.dumps(module.state_dict(), protocol=protocol))
    same("plain.pkl", module, {"model.activations": "relu"})
    Path("module.pkl").write_bytes(pickle.dumps(module, protocol=protocol))
    same("module.pkl", module)


@pytest.mark.parametrize("protocol", [2, 4])
def test_other_protocols_and_the_older_format_of_torch_save(protocol):
    module = network()
    torch.save(module.state_dict(), "new.pt", pickle_protocol=protocol)
    torch.save(module.state_dict(), "old.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    for name in ("new.pt", "old.pt"):
        same(name, module, {"model.activations": "relu"})


def test_views_and_shared_storage_are_read():
    module = network()
    state = module.state_dict()
    flat = torch.cat([value.reshape(-1) for value in state.values()])
    parts, start = {}, 0
    for name, value in state.items():
        parts[name] = flat[start : start + value.numel()].reshape(value.shape)
        start += value.numel()
    turned = {name: value.T.contiguous().T if value.ndim == 2 else value for name, value in state.items()}
    for content in (parts, turned):
        for old in (True, False):
            torch.save(content, "views.pt", _use_new_zipfile_serialization=not old)
            same("views.pt", module, {"model.activations": "relu"})


def test_lists_of_tensors_are_read_where_their_order_is_certain(capsys):
    module = network()
    torch.save([*module.parameters()], "list.pt")
    same("list.pt", module, {"model.activations": "relu"})
    square = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    torch.save([*square.parameters()], "square.pt")
    options = ("--model.activations", "relu", "--out", "out")
    refused(capsys, "import-torch", "square.pt", *options, message="--layers NAME,NAME,...")
    same("square.pt", square, {"model.activations": "relu"}, layers=("tensor0", "tensor2", "tensor4"))


def test_what_no_layer_needs_is_left_aside_and_that_is_said(capsys):
    module = network()
    state = module.state_dict()
    extra = {"version": torch.tensor(2), "train_acc.tp": torch.zeros(10, dtype=torch.long), "epoch": 3}
    torch.save({**state, **extra, "loss.weight": torch.ones(10), "best_acc": torch.tensor(0.9)}, "beside.pt")
    notes = same("beside.pt", module, {"model.activations": "relu"}).origin["notes"]
    aside = "version, train_acc.tp, epoch, loss.weight and best_acc"
    assert f"beside.pt: left aside, since no layer needs it: {aside}" in notes
    # A mean may be taken from the images, and a scale may multiply the logits.
    torch.save({**state, "mean": torch.zeros(64), "scale": torch.tensor(2.0)}, "mean.pt")
    options = ("--model.activations", "relu", "--out", "out")
    refused(capsys, "import-torch", "mean.pt", *options, message="pass --leave-out mean")
    refused(capsys, "import-torch", "mean.pt", *options, "--leave-out", "mean", message="pass --leave-out scale")
    refused(capsys, "import-torch", "mean.pt", *options, "--leave-out", "sd", message="has no entry 'sd'")
    same("mean.pt", module, {"model.activations": "relu"}, leave_out=("mean", "scale"))


def test_one_network_saved_twice_is_one(capsys):
    module = network()
    torch.save({"model": module, "state_dict": module.state_dict(), "ema": None}, "twice.pt")
    assert same("twice.pt", module).config.model.activations == ("relu",)


def test_the_code_that_export_prints_loads_what_it_wrote(capsys):
    options = (
        "--train.steps",
        "30",
        "--train.seeds",
        "2",
        "--train.optimizer",
        "sgd",
        "--train.learning_rate",
        "0.01",
    )
    acts = "relu,abs,prelu,sine,identity,relu2_neg"
    assert run("train", "--model.activations", acts, "--model.hidden", "20,16", *options, "--out", "trained") == 0
    capsys.readouterr()
    assert run("export-torch", "trained", "--out", "for torch") == 0
    head, code = capsys.readouterr().out.split("in PyTorch:\n\n")
    assert head == "24 files in for torch; "
    made = {}
    exec(code, made)
    x = torch.from_numpy(16 * digits())
    for name in acts.split(","):
        params = transfer.read_networks(Path("for torch"), {"model.activations": name}).networks[name]
        values = mlp.apply(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), params), 16 * digits(), activation=name).T
        with torch.no_grad():
            np.testing.assert_allclose(values, made[name](x).numpy(), rtol=1e-3, atol=1e-3)
