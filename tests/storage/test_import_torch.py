"""Checkpoints as people have them: read as PyTorch computes them, or refused with a way out that works."""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import jaxdist
from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.errors import InputError
from jaxdist.storage.torch import transfer
from jaxdist.sweep import results
from tests.data.support import put
from tests.storage.torch_support import refused, run, save_file, torch

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

nn = torch.nn
UNIT = ("--data.normalisation", "unit")
RELU = ("--model.activations", "relu", *UNIT)


class Network(nn.Module):
    """Layers by names in the order in which a module makes them, used in another."""

    def __init__(self, made, used, sizes):
        super().__init__()
        widths = dict(zip(used, sizes, strict=True))
        for name in made:
            self.add_module(name, nn.Linear(*widths[name]))
        self.used = used

    def forward(self, x):
        *first, last = self.used
        for name in first:
            x = torch.relu(getattr(self, name)(x))
        return getattr(self, last)(x)


def digits(unit=True):
    dataset = data.load(DataConfig())
    scale = 16.0 if unit else 1.0
    pairs = (dataset.train, dataset.test)
    return [
        (torch.tensor(part.images.reshape(len(part.images), -1) / scale, dtype=torch.float32), part.labels)
        for part in pairs
    ]


def trained(module, steps=40, seed=0, unit=True, keep=()):
    """The module trained on the digits, and its state_dicts after the steps in `keep`."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    (x, y), _ = digits(unit)
    y = torch.tensor(y, dtype=torch.long)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    states = []
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
        if step in keep:
            states.append({name: value.clone() for name, value in module.state_dict().items()})
    return (module.eval(), states) if keep else module.eval()


def right(module, unit=True):
    """How many images of each split PyTorch's own forward pass is right on."""
    with torch.no_grad():
        return [int((module(x).argmax(1).numpy() == y).sum()) for x, y in digits(unit)]


def counts(folder, network="relu"):
    """What an import says of its first seed, by split."""
    unedited = json.loads(jaxdist.load(folder).attrs["origin"])["unedited"]
    return [unedited["correct"][network][split][0] for split in ("train", "test")]


@pytest.fixture(scope="module")
def two():
    return trained(Network(("fc1", "fc2"), ("fc1", "fc2"), ((64, 32), (32, 10))))


@pytest.fixture(scope="module")
def square():
    """A network of the order input, hidden, output, made in another."""
    used = ("input", "hidden", "output")
    return trained(Network(("hidden", "input", "output"), used, ((64, 64), (64, 64), (64, 10))))


def prefixed(prefix, state):
    return collections.OrderedDict((prefix + name, value) for name, value in state.items())


def cuda(path, state):
    """A file whose tensors say that they were on a GPU."""
    torch.save(state, "cpu.pt")
    with zipfile.ZipFile("cpu.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(name, content)


READ = {
    "plain.pt": lambda state: state,
    "plain.tar": lambda state: state,
    "noext": lambda state: state,
    "parallel.pt": lambda state: prefixed("module.", state),
    "compiled.pt": lambda state: prefixed("_orig_mod.module.", state),
    "lightning.ckpt": lambda state: {
        "epoch": 9,
        "global_step": 99,
        "state_dict": prefixed("net.", state),
        "hyper_parameters": argparse.Namespace(lr=0.01, folder=pathlib.PurePosixPath("a/b")),
        "best": np.float64(0.3),
    },
    "net.pt": lambda state: {"net": state, "epoch": 3, "acc": 97.1, "best_acc1": torch.tensor(9.0)},
    "same_ema.pt": lambda state: {"model": state, "ema": dict(state), "epoch": 1},
    "arrays.pt": lambda state: {name: value.numpy() for name, value in state.items()},
    "parameters.pt": lambda state: {name: nn.Parameter(value) for name, value in state.items()},
    "reversed.pt": lambda state: dict(reversed(state.items())),
    "turned.pt": lambda state: {k: v.T.contiguous().T if v.ndim == 2 else v for k, v in state.items()},
}


@pytest.mark.parametrize("name", READ)
def test_what_scripts_save_is_read_as_pytorch_computes_it(name, two, capsys):
    torch.save(READ[name](two.state_dict()), name)
    assert run("import-torch", name, *RELU, "--out", "out") == 0
    assert counts("out") == right(two)
    assert f"relu: right on {right(two)[0]} of 1437 train images" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_safetensors_of_any_narrow_type_are_read(kind, two):
    save_file({name: value.to(getattr(torch, kind)) for name, value in two.state_dict().items()}, "a.safetensors")
    assert run("import-torch", "a.safetensors", *RELU, "--out", "out") == 0
    assert np.abs(np.subtract(counts("out"), right(two))).max() <= (0 if kind == "float32" else 3)


def test_tensors_that_were_on_a_gpu_are_read(two):
    cuda("gpu.pt", two.state_dict())
    assert run("import-torch", "gpu.pt", *RELU, "--out", "out") == 0
    assert counts("out") == right(two)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (nn.ReLU, "relu"),
        (nn.Tanh, "tanh"),
        (nn.GELU, "gelu"),
        (nn.LeakyReLU, "leaky_relu"),
        (nn.SiLU, "silu"),
        (nn.ELU, "elu"),
        (nn.Softplus, "softplus"),
        (nn.Sigmoid, "sigmoid"),
    ],
)
def test_whole_modules_tell_their_activation(make, name):
    module = trained(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 64), make(), nn.Linear(64, 64), make(), nn.Linear(64, 10))
    )
    torch.save(module, "whole.pt")
    assert run("import-torch", "whole.pt", *UNIT, "--out", "out") == 0
    assert np.abs(np.subtract(counts("out", name), right(module))).max() <= 1


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.LeakyReLU(0.2), "its LeakyReLU has negative_slope 0.2; expected 0.01"),
        (nn.GELU(approximate="tanh"), "its GELU has approximate 'tanh'; expected 'none'"),
        (nn.ELU(alpha=2.0), "its ELU has alpha 2.0; expected 1.0"),
        (nn.Softplus(beta=2.0), "its Softplus has beta 2.0"),
    ],
)
def test_activations_with_other_settings_are_not_taken_for_ours(capsys, layer, sentence):
    torch.save(nn.Sequential(nn.Linear(64, 12), layer, nn.Linear(12, 10)), "whole.pt")
    refused(capsys, "import-torch", "whole.pt", "--out", "out", message=sentence)


def not_checkpoints(name, state):
    if name == "optimizer.pt":
        torch.save(torch.optim.Adam([nn.Parameter(torch.zeros(2, 2))]).state_dict(), name)
    elif name == "exported.pt2":
        module = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
        torch.export.save(torch.export.export(module, (torch.zeros(1, 64),)), name)
    elif name == "numbers.pt":
        torch.save([1, 2, 3], name)
    elif name == "mean.pt":
        torch.save({**state, "mean": torch.zeros(64)}, name)
    elif name == "weightnorm.pt":
        module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(64, 12)), nn.ReLU(), nn.Linear(12, 10))
        torch.save(module.state_dict(), name)
    elif name == "transposed.pt":
        torch.save({key: value.T.contiguous() if value.ndim == 2 else value for key, value in state.items()}, name)
    else:
        content = {
            "empty.pt": b"",
            "html.pt": b"<!DOCTYPE html><html>",
            "lfs.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n",
            "broken.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
            "broken.pt": b"PK\x03\x04" + bytes(100),
        }[name]
        Path(name).write_bytes(content)


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*jit.*:FutureWarning")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty.pt", "empty.pt: this file is empty"),
        ("html.pt", "is a web page"),
        ("lfs.safetensors", "git lfs pull"),
        ("broken.h5", "not a readable HDF5 file"),
        ("broken.pt", "not a readable PyTorch file"),
        ("exported.pt2", "this is a program saved by torch.export"),
        ("optimizer.pt", "holds an optimiser's state"),
        ("numbers.pt", "got list"),
        ("mean.pt", "tensor 'mean' is not the weight or bias of a linear layer"),
        ("weightnorm.pt", "remove_parametrizations"),
        ("transposed.pt", "look transposed"),
    ],
)
def test_what_is_no_checkpoint_is_named_with_what_to_do(capsys, name, sentence, two):
    not_checkpoints(name, two.state_dict())
    refused(capsys, "import-torch", name, *RELU, "--out", "out", message=sentence)


@pytest.mark.parametrize("name", ["square.pt", "square.safetensors", "square.ckpt"])
def test_layers_that_could_be_exchanged_are_asked_for_and_then_right(capsys, name, square):
    state = square.state_dict()
    if name.endswith(".safetensors"):
        save_file(state, name)
    else:
        torch.save({"state_dict": prefixed("net.", state)} if name.endswith(".ckpt") else state, name)
    refused(capsys, "import-torch", name, *RELU, "--out", "out", message="--layers NAME,NAME,...")
    layers = ("--layers", "input,hidden,output")
    assert run("import-torch", name, *RELU, *layers, "--out", "out") == 0
    assert counts("out") == right(square)
    assert json.loads(jaxdist.load("out").attrs["origin"])["layers"] == ["input", "hidden", "output"]


def test_the_python_function_takes_what_the_command_takes(square):
    torch.save(square.state_dict(), "square.pt")
    changes = {"model.activations": "relu", "data.normalisation": "unit", "out": "out"}
    with pytest.raises(InputError, match="more than one order"):
        transfer.import_run("square.pt", changes)
    for name, layers in (("tuple", ("input", "hidden", "output")), ("text", "input,hidden,output")):
        transfer.import_run("square.pt", changes | {"out": name}, layers=layers)
        assert counts(name) == right(square)


def test_a_network_at_chance_is_refused_with_what_may_be_wrong_unless_that_is_wanted(capsys, square):
    torch.save(square.state_dict(), "square.pt")
    exchanged = ("import-torch", "square.pt", *RELU, "--layers", "hidden,input,output")
    for sentence in ("is at chance", "--layers", "--model.activations", "--data.normalisation", "--allow-chance true"):
        refused(capsys, *exchanged, "--out", "out", message=sentence)
    assert run(*exchanged, "--out", "control", "--allow-chance", "true") == 0
    assert run(*exchanged, "--allow-chance", "--out", "bare") == 0
    refused(
        capsys, *exchanged, "--out", "out", "--allow-chance", "maybe", message="expected true or false, got 'maybe'"
    )


def constant(state):
    return {name: torch.zeros_like(value) for name, value in state.items()}


def relabelled(state):
    """The last layer's classes in another order."""
    return {name: torch.roll(value, 3, 0) if name.startswith("fc2") else value for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [(constant, "gives all of them the same class"), (relabelled, "is at chance, since the largest class")],
)
def test_other_networks_that_tell_nothing_are_refused(capsys, change, sentence, two):
    torch.save(change(two.state_dict()), "other.pt")
    refused(capsys, "import-torch", "other.pt", *RELU, "--out", "out", message=sentence)


def test_a_scaling_with_which_more_images_are_right_is_named(capsys):
    module = trained(nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)))
    torch.save(module.state_dict(), "mine.pt")
    assert run("import-torch", "mine.pt", "--model.activations", "tanh", "--out", "raw") == 0
    out = capsys.readouterr().out
    assert "with --data.normalisation unit, so check what it was trained with" in out
    assert run("import-torch", "mine.pt", "--model.activations", "tanh", *UNIT, "--out", "unit") == 0
    assert "with --data.normalisation" not in capsys.readouterr().out


def test_an_activation_that_accuracy_does_not_confirm_is_said_to_be_known_from_the_user_alone(capsys, two):
    torch.save(two.state_dict(), "mine.pt")
    Path("relu").mkdir()
    torch.save(two.state_dict(), "relu/0.pt")
    assert run("import-torch", "mine.pt", *RELU, "--out", "by-user") == 0
    assert "known from --model.activations alone, and accuracy does not confirm it" in capsys.readouterr().out
    assert run("import-torch", "relu/..", *UNIT, "--out", "by-place") == 0
    assert "does not confirm" not in capsys.readouterr().out
    torch.save(two.state_dict(), "relu_seed1.pt")
    refused(
        capsys,
        *("import-torch", "relu_seed1.pt", "--model.activations", "abs", *UNIT, "--out", "out"),
        message="its name or folder says 'relu', not 'abs'",
    )


def test_a_missing_bias_is_said(capsys, two):
    torch.save({name: value for name, value in two.state_dict().items() if name != "fc1.bias"}, "mine.pt")
    assert run("import-torch", "mine.pt", *RELU, "--out", "out") == 0
    assert "note: fc1 of mine.pt has no bias, which is read as biases of 0" in capsys.readouterr().out


def test_images_that_do_not_fit_are_refused(capsys):
    torch.save(nn.Sequential(nn.Linear(50, 12), nn.ReLU(), nn.Linear(12, 10)).state_dict(), "inputs.pt")
    refused(capsys, "import-torch", "inputs.pt", *RELU, "--out", "out", message="the networks have 50 inputs")
    torch.save(nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 7)).state_dict(), "classes.pt")
    refused(capsys, "import-torch", "classes.pt", *RELU, "--out", "out", message="64 inputs and 7 classes")


def test_images_that_come_with_the_sweep_are_checked_then(capsys, tmp_path, monkeypatch, square):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    dataset = data.load(DataConfig())
    put(tmp_path / "idx", [*dataset.train, *dataset.test])
    torch.save(square.state_dict(), "square.pt")
    options = ("--model.activations", "relu", "--data.name", "mnist", "--data.normalisation", "unit")
    for name, layers in (("good", "input,hidden,output"), ("bad", "hidden,input,output")):
        assert run("import-torch", "square.pt", *options, "--layers", layers, "--out", name) == 0
        assert "their accuracy without edits is measured then" in capsys.readouterr().out
    sweep = ("--data.dir", tmp_path / "idx", "--sweep.families", "scale", "--sweep.splits", "test", "--quiet")
    assert run("sweep", "bad", *sweep) == 2
    assert "is at chance" in capsys.readouterr().err
    assert "scale" not in jaxdist.load("bad").children
    assert run("sweep", "good", *sweep) == 0
    assert "correct" in json.loads(jaxdist.load("good").attrs["origin"])["unedited"]


@pytest.fixture(scope="module")
def moments():
    """One training's weights at three moments."""
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return trained(module, steps=40, keep=(10, 25, 39))[1]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("epoch_10.pt", "epoch_25.pt", "epoch_39.pt"), "their names differ in when they were saved"),
        (("a.pt", "b.pt", "c.pt"), "their weights begin alike"),
        (("0.pt", "1.pt", "2.pt"), "their weights begin alike"),
        (("checkpoint-10/model.pt", "checkpoint-25/model.pt", "model.pt"), "their names differ"),
    ],
)
def test_moments_of_one_training_are_no_seeds(capsys, names, sentence, moments):
    for name, state in zip(names, moments, strict=True):
        path = Path("folder") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
    refused(capsys, "import-torch", "folder", *RELU, "--out", "out", message=sentence)
    paths = [Path("folder") / name for name in names]
    refused(capsys, "import-torch", *paths, *RELU, "--out", "out", message="--as-seeds true")
    assert run("import-torch", paths[-1], *RELU, "--out", "one") == 0
    assert run("import-torch", "folder", *RELU, "--as-seeds", "true", "--out", "three") == 0
    assert jaxdist.load("three").attrs["seeds"].tolist() == [0, 1, 2]


def test_entries_on_progress_tell_of_one_training(capsys):
    for seed, name in enumerate("ab"):
        module = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
        torch.save({"state_dict": trained(module, seed=seed).state_dict(), "epoch": 3 + seed}, f"{name}.pt")
    refused(capsys, "import-torch", "a.pt", "b.pt", *RELU, "--out", "out", message="by epoch 3 and epoch 4")
    assert run("import-torch", "a.pt", "b.pt", *RELU, "--as-seeds", "true", "--out", "out") == 0


def test_equal_networks_count_once_whatever_is_said(capsys, two):
    Path("run").mkdir()
    for name in ("epoch=9-step=990.ckpt", "last.ckpt"):
        torch.save({"state_dict": prefixed("net.", two.state_dict()), "epoch": 9}, f"run/{name}")
    refused(capsys, "import-torch", "run", *RELU, "--out", "out", message="seem to come from one training")
    options = (*RELU, "--as-seeds", "true")
    refused(capsys, "import-torch", "run", *options, "--out", "out", message="hold the same weights")
    assert run("import-torch", "run/last.ckpt", *RELU, "--out", "out") == 0


def test_a_trainers_folder_is_read_by_its_model(capsys, two):
    Path("trainer").mkdir()
    save_file(two.state_dict(), "trainer/model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": {}, "param_groups": []}, f"trainer/{name}")
    assert run("import-torch", "trainer", *RELU, "--out", "out") == 0
    assert counts("out") == right(two)
    assert "not read, since they hold no network: optimizer.pt" in capsys.readouterr().out


def test_seeds_in_a_folder_are_read_by_activation_and_number():
    for seed in (0, 3):
        for act, layer in (("relu", nn.ReLU), ("tanh", nn.Tanh)):
            module = trained(nn.Sequential(nn.Linear(64, 12), layer(), nn.Linear(12, 10)), seed=seed)
            Path(f"nets/seed{seed}").mkdir(parents=True, exist_ok=True)
            torch.save(module.state_dict(), f"nets/seed{seed}/{act}.pt")
    assert run("import-torch", "nets", *UNIT, "--out", "out") == 0
    result = jaxdist.load("out")
    assert result.attrs["seeds"].tolist() == [0, 3]
    assert results.config_of(result).model.activations == ("relu", "tanh")
    assert counts("out", "tanh")[0] > 1300
