"""PyTorch's networks beyond plain state_dicts: whole modules, programs of torch.jit, PReLU, pickles, odd entries."""

from __future__ import annotations

import argparse
import collections
import pickle
import zipfile
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


def test_slopes_stand_between_layers(capsys):
    linear = {
        f"{k}.{n}": torch.zeros(s)
        for k, o, i in ((0, 20, 64), (2, 10, 20))
        for n, s in (("weight", (o, i)), ("bias", (o,)))
    }
    torch.save(linear | {"3.weight": torch.tensor([0.1])}, "behind.pt")
    options = ("--model.activations", "prelu", "--out", "out")
    refused(capsys, "import-torch", "behind.pt", *options, message="do not stand between its layers (0, 2)")


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


@pytest.mark.parametrize(
    "act", [nn.ReLU6(), nn.CELU(), nn.Mish(), nn.Hardtanh(), nn.LayerNorm(20, elementwise_affine=False), nn.Softmax(1)]
)
def test_pytorchs_other_layers_are_not_what_a_user_may_name(act, capsys):
    torch.save(nn.Sequential(nn.Linear(64, 20), act, nn.Linear(20, 10)), "other.pt")
    refused(
        capsys, "import-torch", "other.pt", "--model.activations", "relu", "--out", "out",
        message="computes linear, softmax, linear" if isinstance(act, nn.Softmax) else type(act).__name__,
    )  # fmt: skip


def test_hooks_are_refused(capsys):
    module = network()
    module[2].register_forward_hook(hook)
    torch.save(module, "hooked.pt")
    refused(capsys, "import-torch", "hooked.pt", "--out", "out", message="functions that are called with it")
    other = Ours()
    other.body[0].register_forward_pre_hook(hook)
    torch.save(other, "hooked.pt")
    options = ("--model.activations", "relu", "--out", "out")
    refused(capsys, "import-torch", "hooked.pt", *options, message="functions that are called with it")


def hook(module, given, output=None):
    """Changes what a layer computes."""
    return 2 * output if output is not None else given


class Named(nn.Module):
    """Layers by the names that are given, used in their order."""

    def __init__(self, names, attribute=None):
        super().__init__()
        widths = [64, *[20] * (len(names) - 1), 10]
        for k, name in enumerate(names):
            self.add_module(name, nn.Linear(widths[k], widths[k + 1]))
        self.order = names
        if attribute is not None:
            self.named = attribute

    def forward(self, x):
        *first, last = self.order
        for name in first:
            x = torch.relu(getattr(self, name)(x))
        return getattr(self, last)(x)


@pytest.mark.parametrize("prefix", ["", "best_model.", "model_best.", "metric_net.", "step_1.", "epoch_10.", "loss."])
def test_no_layer_loses_its_bias_by_its_name(prefix):
    module = Named(("hidden", "lr"))
    torch.save({prefix + name: value for name, value in module.state_dict().items()}, "named.pt")
    same("named.pt", module, {"model.activations": "relu"})


@pytest.mark.parametrize("attribute", [["a"], {}, "__torch__.x", 3])
def test_attributes_called_named_are_not_a_classs_name(attribute, capsys):
    module = Named(("hidden", "last"), attribute)
    torch.save(module, "named.pt")
    same("named.pt", module, {"model.activations": "relu"})
    torch.save({"settings": argparse.Namespace(named=attribute), "model": module.state_dict()}, "beside.pt")
    same("beside.pt", module, {"model.activations": "relu"})
    torch.save(argparse.Namespace(named=attribute), "alone.pt")
    refused(capsys, "import-torch", "alone.pt", "--out", "out", message="holds an object of 'argparse.Namespace'")


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("kind", ["weight", "bias"])
@pytest.mark.parametrize(
    "form",
    [
        lambda value: value.to_sparse(),
        lambda value: value.to(torch.float8_e4m3fn),
        lambda value: value.to(torch.complex64),
        lambda value: (10 * value).to(torch.int8),
        lambda value: value.to("meta"),
        lambda value: {"nested": 3},
    ],
)
def test_weights_and_biases_of_other_forms_are_not_left_aside(form, kind, capsys):
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    state = module.state_dict()
    state[f"2.{kind}"] = form(state[f"2.{kind}"])
    torch.save(state, "form.pt")
    refused(
        capsys, "import-torch", "form.pt", "--model.activations", "relu", "--allow-chance", "true", "--out", "out",
        message="2.",
    )  # fmt: skip


def test_masks_and_orders_are_asked_about(capsys):
    state = network().state_dict()
    for name, buffer in (("0.mask", torch.ones(12, 64, dtype=torch.bool)), ("perm", torch.arange(64))):
        torch.save({**state, name: buffer}, "mask.pt")
        options = ("--model.activations", "relu", "--out", "out")
        refused(capsys, "import-torch", "mask.pt", *options, message=f"pass --leave-out {name}")
    torch.save({**state, "step_size": torch.tensor([0.5])}, "step.pt")
    refused(capsys, "import-torch", "step.pt", *options, message="pass --leave-out step_size")


def test_what_lies_beside_a_network_is_asked_about(capsys):
    module = network()
    state, options = module.state_dict(), ("--model.activations", "relu", "--out", "out")
    torch.save({"model": state, "mean": torch.zeros(64), "std": torch.ones(64)}, "scaled.pt")
    refused(capsys, "import-torch", "scaled.pt", *options, message="holds 'mean' and 'std' beside the network")
    same("scaled.pt", module, {"model.activations": "relu"}, leave_out=("mean", "std"))
    weights = {name: value for name, value in state.items() if value.ndim > 1}
    torch.save({"decay": weights, "no_decay": {n: v for n, v in state.items() if v.ndim == 1}}, "parts.pt")
    refused(capsys, "import-torch", "parts.pt", *options, message="beside the network")
    for beside in ({"permutation": torch.arange(64)}, {"logit_scale": torch.tensor([2.0])}):
        torch.save({"state_dict": state, **beside}, "beside.pt")
        refused(
            capsys, "import-torch", "beside.pt", *options, message=f"holds '{next(iter(beside))}' beside the network"
        )
    torch.save(
        {
            "model": state,
            "torch_rng_state": torch.get_rng_state(),
            "losses": torch.ones(50),
            "best_acc": torch.tensor(0.9),
        },
        "history.pt",
    )
    same("history.pt", module, {"model.activations": "relu"})
    torch.save({"encoder": {"0.weight": state["0.weight"]}, "head": {"2.weight": state["2.weight"]}}, "parts.pt")
    refused(capsys, "import-torch", "parts.pt", *options, message="or parts of one, under 'encoder' and 'head'")


class Dictionary(dict):
    """As some scripts have one of their own."""


def test_objects_beside_a_network_are_no_obstacle():
    module = network()
    beside = {
        "words": np.array(["a", "b"]),
        "objects": np.array([{}, None], dtype=object),
        "rows": np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        "day": np.datetime64("2026-12-01"),
        "word": np.str_("a"),
        "own": Dictionary(a=1),
    }
    torch.save({"model": module.state_dict(), **beside}, "beside.pt")
    same("beside.pt", module, {"model.activations": "relu"})
    torch.save(Dictionary(model=module.state_dict()), "own.pt")
    same("own.pt", module, {"model.activations": "relu"})


def test_layers_that_share_their_numbers_are_kept_by_safetensors():
    save_model = pytest.importorskip("safetensors.torch").save_model
    shared = nn.Linear(20, 20)
    module = nn.Sequential(nn.Linear(64, 20), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(20, 10))
    save_model(module, "shared.safetensors")
    same("shared.safetensors", module, {"model.activations": "relu"})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda layer: nn.utils.weight_norm(layer), "remove_weight_norm(layer)"),
        (lambda layer: nn.utils.parametrizations.weight_norm(layer), "remove_parametrizations(layer, 'weight')"),
        (lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 5), "prune.remove(layer, 'weight')"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_way_to_plain_weights_works(make, said, capsys):
    from torch.nn.utils import prune

    layer = make(nn.Linear(64, 20))
    module = nn.Sequential(layer, nn.ReLU(), nn.Linear(20, 10))
    torch.save(module.state_dict(), "made.pt")
    refused(capsys, "import-torch", "made.pt", "--model.activations", "relu", "--out", "out", message=said)
    removing = {
        "remove_weight_norm(layer)": lambda: nn.utils.remove_weight_norm(layer),
        "remove_parametrizations(layer, 'weight')": lambda: nn.utils.parametrize.remove_parametrizations(
            layer, "weight"
        ),
        "prune.remove(layer, 'weight')": lambda: prune.remove(layer, "weight"),
    }
    removing[said]()
    torch.save(module.state_dict(), "plain.pt")
    same("plain.pt", module, {"model.activations": "relu"})


class Changed:
    """Pickles to a tensor that is given a state after its making."""

    def __init__(self, state):
        self.state, self.tensor = state, torch.ones(12, 64)

    def __reduce__(self):
        made = (self.tensor._typed_storage(), 0, (12, 64), (64, 1), False, collections.OrderedDict())
        return torch._utils._rebuild_tensor_v2, made, self.state


@pytest.mark.parametrize(
    "state",
    [
        {"stride": (-10_000_000, 1)},
        {"shape": "ab"},
        {"storage": None},
        {"shape": None},
        {"offset": -5},
        (None, {"a": 1}),
    ],
)
def test_a_tensor_is_not_changed_after_its_making(state, capsys):
    torch.save({**network().state_dict(), "0.weight": Changed(state)}, "crafted.pt")
    refused(
        capsys, "import-torch", "crafted.pt", "--model.activations", "relu", "--out", "out",
        message="it changes a tensor after making it",
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",
        b"\x80\x02]r" + (100_000_000).to_bytes(4, "little") + b".",
        b"\x80\x02" + b"ca\nb\n" * 20_000 + b".",
    ],
)
def test_pickles_that_would_exhaust_the_machine_are_refused(content, capsys):
    Path("crafted.pkl").write_bytes(content)
    refused(capsys, "import-torch", "crafted.pkl", "--out", "out", message="not a readable PyTorch file")


def test_arrays_that_would_become_far_larger_are_refused(capsys):
    with zipfile.ZipFile("crafted.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fc1.weight.npy", bytes(2**27))
    refused(capsys, "import-torch", "crafted.npz", "--out", "out", message="save it uncompressed")
