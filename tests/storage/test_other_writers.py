"""Networks that others than torch.save wrote, or wrote in unusual ways: read as the library computes them."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import serialization

from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.storage.torch import transfer

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

RELU = {"model.activations": "relu", "data.normalisation": "unit"}


def digits():
    dataset = data.load(DataConfig())
    return np.float32(dataset.test.images.reshape(len(dataset.test.images), -1) / 16)


def logits(imported):
    """What the first imported network computes on digits."""
    ((name, params),) = imported.networks.items()
    first = jax.tree.map(lambda leaf: leaf[0], params)
    return np.asarray(mlp.apply(first, digits(), activation=name)).T, imported


def dense(*widths, seed=0):
    """Layers [inputs, units] with biases, as NumPy has them."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[1]).astype(np.float32))
        for shape in itertools.pairwise(widths)
    ]


def computed(layers, x):
    """What dense layers with ReLUs between them compute, in float64."""
    for k, (weight, bias) in enumerate(layers):
        x = np.float64(x) @ weight + bias
        x = np.maximum(x, 0) if k < len(layers) - 1 else x
    return x


LAYERS = dense(64, 20, 16, 10)


def numbered(turned):
    return {
        f"{kind}{k}": array
        for k, (weight, bias) in enumerate(LAYERS, 1)
        for kind, array in (("w", weight.T if turned else weight), ("b", bias))
    }


WRITTEN = {
    "named.npz": lambda path: np.savez(
        path, **{f"fc{k}.{n}": a for k, (w, b) in enumerate(LAYERS) for n, a in (("weight", w.T), ("bias", b))}
    ),
    "flax.npz": lambda path: np.savez(
        path, **{f"Dense_{k}/{n}": a for k, (w, b) in enumerate(LAYERS) for n, a in (("kernel", w), ("bias", b))}
    ),
    "numbered.npz": lambda path: np.savez(path, **numbered(turned=False)),
    "turned.npz": lambda path: np.savez(path, **numbered(turned=True)),
    "in-order.npz": lambda path: np.savez(path, *[array for pair in LAYERS for array in pair]),
    "arrays.pkl": lambda path: path.write_bytes(pickle.dumps(numbered(turned=True))),
    "protocol5.pkl": lambda path: path.write_bytes(pickle.dumps(numbered(turned=False), protocol=5)),
    "protocol2.pkl": lambda path: path.write_bytes(pickle.dumps(numbered(turned=False), protocol=2)),
    "nested.pkl": lambda path: path.write_bytes(
        pickle.dumps({"params": {f"layer{k}": {"w": w, "b": b} for k, (w, b) in enumerate(LAYERS)}, "step": 7})
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_arrays_of_dense_layers_are_read_as_they_compute(name):
    WRITTEN[name](Path(name))
    values, imported = logits(transfer.read_networks(Path(name), RELU))
    np.testing.assert_allclose(values, computed(LAYERS, digits()), rtol=1e-4, atol=1e-4)
    if name in ("numbered.npz", "turned.npz", "in-order.npz"):
        assert any("as the lengths of their biases tell" in note for note in imported.origin["notes"])


def test_square_weights_whose_axes_nothing_tells_are_refused():
    layers = dense(64, 64, seed=3) + dense(64, 64, seed=4)
    np.savez("square.npz", **{f"w{k}": w for k, (w, _) in enumerate(layers)})
    with pytest.raises(InputError, match="do not tell which axis of a weight is that of the units"):
        transfer.read_networks(Path("square.npz"), RELU)
    np.savez("square.npz", *[array for pair in layers for array in pair])
    with pytest.raises(InputError, match="do not tell which axis"):
        transfer.read_networks(Path("square.npz"), RELU)


class Perceptron(nn.Module):
    """As a user of Flax writes it."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(20)(x))
        return nn.Dense(10)(nn.relu(nn.Dense(16)(x)))


@pytest.fixture
def flax_params():
    return Perceptron().init(jax.random.key(0), digits()[:1])


@pytest.mark.parametrize("writer", ["msgpack", "orbax", "orbax of params"])
def test_parameters_of_flax_are_read_as_they_compute(writer, flax_params):
    path = Path("params.msgpack")
    if writer == "msgpack":
        path.write_bytes(serialization.to_bytes(flax_params))
    else:
        path = Path("checkpoint")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), flax_params["params"] if "params" in writer else flax_params)
    values, imported = logits(transfer.read_networks(path, RELU))
    expected = Perceptron().apply(flax_params, digits())
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    assert len(imported.origin["sha256"]) == 1
    assert any("kernels are read as [inputs, units]" in note for note in imported.origin["notes"])


def test_a_broken_file_of_flax_is_told():
    Path("params.msgpack").write_bytes(b"\xc1\xff")
    with pytest.raises(InputError, match=r"params\.msgpack: not a readable file of flax\.serialization"):
        transfer.read_networks(Path("params.msgpack"), RELU)


KERAS = """
import sys
import numpy as np, keras
from keras import layers
activation, last = sys.argv[1:3]
model = keras.Sequential([
    keras.Input((8, 8)), layers.Flatten(), layers.Dense(64, activation=activation), layers.Dropout(0.5),
    layers.Dense(64, activation=activation, name="hidden"),
    layers.Dense(10, activation=last if last != "none" else None),
])
model.save("model.keras"); model.save("model.h5"); model.save_weights("model.weights.h5")
inner = keras.Model(model.inputs, model.layers[-1].input)
x = np.load("x.npy").reshape(-1, 8, 8)
kernel, bias = model.layers[-1].get_weights()
np.save("y.npy", np.asarray(inner(x, training=False)) @ kernel + bias)
"""


@pytest.fixture
def keras_model():
    """Runs Keras in a process of its own: it must know its backend before it is imported."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is part of an optional extra: pip install 'jaxdist[zoo]'")

    def make(activation="relu", last="none"):
        np.save("x.npy", digits())
        environment = {**os.environ, "KERAS_BACKEND": "jax"}
        subprocess.run(
            [sys.executable, "-c", KERAS, activation, last], check=True, env=environment, capture_output=True
        )
        return np.load("y.npy")

    return make


@pytest.mark.slow
@pytest.mark.parametrize("last", ["none", "softmax"])
def test_models_of_keras_are_read_as_they_compute(last, keras_model):
    expected = keras_model("tanh", last)
    for name in ("model.keras", "model.h5"):
        values, imported = logits(transfer.read_networks(Path(name), {"data.normalisation": "unit"}))
        assert imported.config.model.activations == ("tanh",)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
        left_out = f"{name}: its softmax at the end is left out: logits are what comes before it"
        assert (left_out in imported.origin["notes"]) == (last == "softmax")
    with pytest.raises(InputError, match="more than one order"):  # weights alone do not tell it
        transfer.read_networks(Path("model.weights.h5"), {"model.activations": "tanh"})
    order = {"layers": ("dense", "dense_1", "dense_2")}
    values, _ = logits(transfer.read_networks(Path("model.weights.h5"), {"model.activations": "tanh"}, **order))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_activation_that_keras_has_with_other_settings_is_refused(keras_model):
    keras_model("leaky_relu")
    with pytest.raises(InputError, match="its activation 'leaky_relu' is not one of those here with Keras's settings"):
        transfer.read_networks(Path("model.keras"), RELU)


def test_a_pattern_tells_what_names_do_not(tmp_path):
    for act in ("ReLU", "TanH"):
        for run in (3, 11):
            folder = Path("nets", f"{act}-v2", f"attempt{run}of20")
            folder.mkdir(parents=True)
            for name, seed in (("weights.npz", run + len(act)), ("other.npz", 99)):
                layers = dense(64, 12, 10, seed=seed)
                np.savez(
                    folder / name,
                    **{
                        f"{k}.{n}": a
                        for k, pair in enumerate(layers)
                        for n, a in zip(("kernel", "bias"), pair, strict=True)
                    },
                )
    pattern = "{activation}-v2/attempt{seed}of*/weights.npz"
    imported = transfer.read_networks(Path("nets"), {}, pattern=pattern)
    assert imported.config.model.activations == ("relu", "tanh")
    assert imported.seeds == [3, 11]
    assert imported.origin["files"]["tanh"]["11"] == "TanH-v2/attempt11of20/weights.npz"
    assert sum("not read, since their places are not as the pattern says" in note for note in imported.origin["notes"])
    for wrong, said in (
        ("{activation}/*.npz", "expected {seed} once"),
        ("run{seed}/*.npz", "no file in nets is as 'run{seed}/\\*.npz' says; in it is ReLU-v2"),
        ("{activation}/attempt{seed}of20/weights.npz", "has 'ReLU-v2' for {activation}"),
        ("{activation}-v2/attempt{seed}of20/*.npz", "are both seed 3"),
    ):
        with pytest.raises(InputError, match=f"--pattern: .*{said}"):
            transfer.read_networks(Path("nets"), {}, pattern=wrong)
    with pytest.raises(InputError, match="expected a single folder"):
        transfer.read_networks([Path("nets/ReLU-v2/attempt3of20/weights.npz")], {}, pattern=pattern)


def test_config_of_keras_of_another_kind_is_told(tmp_path):
    import io
    import zipfile

    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, (weight, bias) in zip(("dense", "dense_1"), dense(64, 12, 10), strict=True):
            file[f"layers/{name}/vars/0"], file[f"layers/{name}/vars/1"] = weight, bias
    for layers, said in (
        ([{"class_name": "Conv2D", "config": {"name": "eyes"}}], "layer 'eyes' is a Conv2D"),
        (
            [
                {"class_name": "Dense", "config": {"name": n, "activation": a}}
                for n, a in (("a", "relu"), ("b", "relu"))
            ],
            "has the activation 'relu' behind its last layer",
        ),
    ):
        with zipfile.ZipFile("model.keras", "w") as archive:
            archive.writestr("model.weights.h5", content.getvalue())
            archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
        with pytest.raises(InputError, match=said):
            transfer.read_networks(Path("model.keras"), RELU)


GRAPHS = """
import sys
import numpy as np, keras
from keras import layers

@keras.saving.register_keras_serializable("my")
class Dense(layers.Dense):
    def call(self, x):
        return 2 * super().call(x)

i = keras.Input((64,))
a, b, c = (layers.Dense(64, "relu", name=n) for n in ("dense_1", "dense", "dense_2"))
last = layers.Dense(10, name="last")
h = layers.Dense(64, "relu", name="h")(i)
models = {
    "chain": keras.Model(i, layers.Dense(10, name="end")(c(b(a(i))))),
    "twice": keras.Model(i, last(b(b(h)))),
    "two": keras.Model(i, [layers.Dense(10)(h), layers.Dense(32, "relu")(h)]),
}
for name, inner in {
    "slope": [layers.Dense(64), layers.ReLU(negative_slope=0.3)],
    "limit": [layers.Dense(64), layers.ReLU(max_value=6)],
    "own": [Dense(64, "relu")],
    "scaled": [layers.Rescaling(0.5), layers.Dense(64, "relu")],
}.items():
    models[name] = keras.Sequential([keras.Input((64,)), *inner, layers.Dense(10)])

x = np.load("x.npy")
for name, model in models.items():
    model.save(f"{name}.keras"); model.save(f"{name}.h5")
    if name == "chain":
        np.save("chain.npy", np.asarray(model(x)))
"""


@pytest.mark.slow
def test_graphs_of_keras_are_followed_or_refused(keras_model):
    keras_model()
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", GRAPHS], check=True, env=environment, capture_output=True)
    for end in ("keras", "h5"):
        values, _ = logits(transfer.read_networks(Path(f"chain.{end}"), RELU))
        np.testing.assert_allclose(values, np.load("chain.npy"), rtol=1e-4, atol=1e-4)
        for name, said in (
            ("twice", "are no chain"),
            ("two", "has several outputs"),
            ("slope", "its ReLU has negative_slope 0.3"),
            ("limit", "its ReLU has max_value 6"),
            ("own", "of a class of its own" if end == "keras" else "is a my>Dense"),
            ("scaled", "is a Rescaling"),
        ):
            with pytest.raises(InputError, match=said):
                transfer.read_networks(Path(f"{name}.{end}"), RELU)


def test_a_train_state_of_flax_is_read_by_its_params(flax_params):
    adam = optax.adam(1e-3)
    state = {"params": flax_params["params"], "opt_state": adam.init(flax_params["params"]), "step": 7}
    Path("state.msgpack").write_bytes(serialization.to_bytes(state))
    values, _ = logits(transfer.read_networks(Path("state.msgpack"), RELU))
    np.testing.assert_allclose(values, Perceptron().apply(flax_params, digits()), rtol=1e-4, atol=1e-4)


def test_layers_at_any_depth_are_one_network():
    first, middle, last = (dict(zip(("kernel", "bias"), pair, strict=True)) for pair in LAYERS)
    tree = {"Dense_0": first, "block": {"inner": {"Dense_0": middle}}, "Dense_1": last}
    for content in (tree, {"params": tree}, {"step": 3, "params": {"net": tree}}):
        Path("tree.pkl").write_bytes(pickle.dumps(content))
        values, _ = logits(transfer.read_networks(Path("tree.pkl"), RELU))
        np.testing.assert_allclose(values, computed(LAYERS, digits()), rtol=1e-4, atol=1e-4)


def test_a_pattern_takes_whole_numbers():
    for seed in (10, 11, 12):
        layers = dense(64, 12, 10, seed=seed)
        named = {f"{k}.{n}": a for k, pair in enumerate(layers) for n, a in zip(("kernel", "bias"), pair, strict=True)}
        Path("nets").mkdir(exist_ok=True)
        np.savez(f"nets/a{seed}.npz", **named)
    imported = transfer.read_networks(Path("nets"), RELU, pattern="*{seed}.npz")
    assert imported.seeds == [10, 11, 12]


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"mean": np.ones(64, np.float32)}, "holds 'mean' beside the network"),
        ({"ema_params": None}, "several networks, or parts of one"),
        ({"batch_stats": {"BatchNorm_0": {"mean": np.ones(20, np.float32)}}}, "is a BatchNorm"),
    ],
)
def test_what_stands_beside_params_is_asked_about(beside, said):
    tree = {f"Dense_{k}": {"kernel": w, "bias": b} for k, (w, b) in enumerate(LAYERS)}
    other = {f"Dense_{k}": {"kernel": 2 * w, "bias": b} for k, (w, b) in enumerate(LAYERS)}
    content = {"params": tree, **{name: other if value is None else value for name, value in beside.items()}}
    Path("tree.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=said):
        transfer.read_networks(Path("tree.pkl"), RELU)


def test_two_tensors_for_one_place_are_refused():
    np.savez("two.npz", **(numbered(turned=False) | {"W1": np.ones((64, 20), np.float32)}))
    with pytest.raises(InputError, match="has two tensors for the weight of layer 1"):
        transfer.read_networks(Path("two.npz"), RELU)


@pytest.mark.parametrize("config", ["[]", "null", '{"config": {"layers": ["dense"]}}', '{"config": {"layers": [{}]}}'])
def test_broken_configs_of_keras_get_one_sentence(config):
    import io
    import zipfile

    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers/dense/vars/0"] = np.ones((64, 10))
    with zipfile.ZipFile("model.keras", "w") as archive:
        archive.writestr("model.weights.h5", content.getvalue())
        archive.writestr("config.json", config)
    with pytest.raises(InputError, match=r"model\.keras"):
        transfer.read_networks(Path("model.keras"), RELU)
