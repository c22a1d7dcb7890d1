"""Some eighty checkpoints as people have them, made by a script beside the checkout: each is read, or says what to do.

The first kind computes what the network computes that was saved; of the second, the sentence is given.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.storage.torch import transfer
from tests.storage.torch_support import torch

SCRIPTS = Path(__file__).parents[3] / "shared" / "cases" / "files"

pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="the scripts that make files of many kinds are not here")

PLAIN = (
    "plain.pt", "plain.pth", "plain.bin", "plain.pkl", "plain.tar", "noext", "dataparallel.pt", "compiled.pt",
    "ddp_compiled.pt", "lightning.ckpt", "lightning_net.ckpt", "lightning_ns.ckpt", "lightning_path.ckpt",
    "lightning_np.ckpt", "lightning_metric.ckpt", "wrap_net.pt", "wrap_weights.pt", "wrap_params.pt",
    "wrap_model_sd.pt", "wrap_ema.pt", "wrap_tuple.pt", "wrap_list.pt", "wrap_dp.pt", "f64.pt", "grad.pt",
    "params_list.pt", "oldformat.pt", "whole_custom.pt", "seq_sd.pt", "whole_seq.pt", "whole_dp.pt", "script.pt",
    "trace.pt", "plain.safetensors", "f64.safetensors", "alpha.safetensors", "cuda.pt", "flat.pt", "transposed.pt",
    "noncontig.pt", "extra_buf.pt", "wrong_order.pt", "w.npz", "hf", "hfst", "npdict.pkl", "npdict.pt",
)  # fmt: skip
"""Files of one network."""

OTHERS = {"three.pt": "three", "nobias.pt": "nobias"}
"""Files of others, by their names in ref.pt."""

NARROW = ("half.pt", "bf16.pt", "bf16.safetensors")

UNTRAINED = {
    "whole_seq_flat.pt": "relu",
    "whole_seq_logsoftmax.pt": "relu",
    "whole_seq_tanh.pt": "tanh",
    "whole_seq_gelu.pt": "gelu",
    "whole_seq_leaky.pt": "leaky_relu",
}
"""Modules that tell their activation."""

REFUSED = {
    "exported.pt2": "torch.save(torch.export.load(FILE).state_dict, NEW_FILE)",
    "keras.weights.h5": "at least one hidden layer",
    "bn.pt": "fold it into the layer before it",
    "bn_whole.pt": "fold it into the layer before it",
    "ln.pt": "layer '1' has a weight of shape [32]",
    "weightnorm.pt": "remove_parametrizations",
    "conv.pt": "jaxdist.probe(",
    "transposed_w.pt": "the weights look transposed",
    "extra.pt": "pass --leave-out mean",
    "nan.pt": "holds values that are not finite",
    "empty.pt": "this file is empty",
    "html.pt": "this is a web page",
    "lfs.pt": "git lfs pull",
    "trunc.pt": "its zip archive ends too early",
    "f_multi": "holds relu/last.pt next to numbered files",
}

FOLDERS = ("f_actnum", "f_seedact", "f_actseed", "f_flat", "f_upper", "f_run", "f_ckpt")

ONE_TRAINING = ("f_epochs", "f_lightning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for script in ("mkckpt.py", "try_ckpt2.py"):
        subprocess.run([sys.executable, SCRIPTS / script], cwd=folder, check=True, capture_output=True)
    return folder


def digits():
    dataset = data.load(DataConfig())
    return np.float32(dataset.test.images.reshape(len(dataset.test.images), -1) / 16)


def logits(path, **options):
    changes = {} if options.pop("told", False) else {"model.activations": "relu"}
    imported = transfer.read_networks(path, changes, **options)
    ((name, params),) = imported.networks.items()
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), params)
    return name, np.asarray(mlp.apply(first, digits(), activation=name).T)


def reference(state):
    """What layers of a state_dict compute with ReLUs between them, in float64."""
    tensors = [value.double().numpy() for value in state.values()]
    x = np.float64(digits())
    weights = [k for k, tensor in enumerate(tensors) if tensor.ndim == 2]
    for k in weights:
        x = x @ tensors[k].T
        if k + 1 < len(tensors) and tensors[k + 1].ndim == 1:
            x = x + tensors[k + 1]
        x = x if k == weights[-1] else np.maximum(x, 0)
    return x


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS, *NARROW])
def test_files_of_a_network_are_read_as_it_computes(name, made):
    state = torch.load(made / "ref.pt")[OTHERS.get(name, "plain")]
    tolerance = 0.2 if name in NARROW else 1e-4
    told = name.startswith(("whole_seq", "whole_dp"))
    np.testing.assert_allclose(
        logits(made / "ck" / name, told=told)[1], reference(state), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("name", UNTRAINED)
def test_whole_modules_tell_their_activation(name, made):
    assert logits(made / "ck" / name, told=True)[0] == UNTRAINED[name]


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_say_what_to_do(name, made):
    with pytest.raises(InputError) as refusal:
        transfer.read_networks(made / "ck" / name, {"model.activations": "relu"})
    assert REFUSED[name] in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_tell_activation_and_seed(name, made):
    imported = transfer.read_networks(made / "ck" / name, {})
    assert imported.config.model.activations == ("relu", "abs")
    assert imported.seeds == [0, 1, 2, 3]
    assert all(str(seed) in place for files in imported.origin["files"].values() for seed, place in files.items())
    assert all(act in place.lower() for act, files in imported.origin["files"].items() for place in files.values())


def test_a_way_out_works_where_one_is_named(made):
    folder = made / "ck"
    plain = reference(torch.load(made / "ref.pt")["plain"])
    np.testing.assert_allclose(logits(folder / "extra.pt", leave_out=("mean", "sd"))[1], plain, rtol=1e-4, atol=1e-4)
    assert logits(folder / "f_multi" / "relu" / "last.pt")[0] == "relu"


@pytest.mark.parametrize("name", ["sq.pt", "sq2.pt", "sq.safetensors", "sq2.safetensors"])
def test_square_layers_are_never_put_in_another_order(name, made):
    path = made / "ck2" / name
    with pytest.raises(InputError, match="--layers NAME,NAME"):
        logits(path)
    state = torch.load(made / "ck2" / f"{Path(name).stem}.pt")
    ordered = {
        f"{layer}.{kind}": state[f"{layer}.{kind}"]
        for layer in ("input", "hidden", "output")
        for kind in ("weight", "bias")
    }
    values = logits(path, layers=("input", "hidden", "output"))[1]
    np.testing.assert_allclose(values, reference(ordered), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ONE_TRAINING)
def test_moments_of_one_training_are_no_seeds(name, made):
    with pytest.raises(InputError, match="seem to come from one training"):
        transfer.read_networks(made / "ck2" / name, {"model.activations": "relu"})


def test_a_trainers_folder_is_its_model(made):
    imported = transfer.read_networks(
        made / "ck2" / "f_hftrainer", {"model.activations": "relu"}, layers=("input", "hidden", "output")
    )
    assert list(imported.origin["files"]["relu"].values()) == ["model.safetensors"]


def test_all_that_the_scripts_make_is_in_a_table(made):
    told = {*PLAIN, *OTHERS, *NARROW, *UNTRAINED, *REFUSED, *FOLDERS, "missing_bias.pt"}
    assert {path.name for path in (made / "ck").iterdir()} - told == set()
