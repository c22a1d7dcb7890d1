"""Files of named arrays that others than PyTorch write: safetensors, NumPy, Keras, Flax and Orbax.

Each is read as mappings of names to arrays, one inside the other; nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdist.errors import DAMAGED, InputError

SUFFIXES = (".safetensors", ".npz", ".h5", ".hdf5", ".keras", ".msgpack")

_KERAS = {"linear": "identity", "swish": "silu", "relu": "relu", "elu": "elu", "gelu": "gelu", "silu": "silu"} | {
    name: name for name in ("softplus", "tanh", "sigmoid")
}
"""Keras's activations that have ours of the same settings; its leaky_relu has another slope."""


class Arrays(dict[str, Any]):
    """Mappings of names to arrays, and what the file says beside them."""

    activation: str | None = None
    certain: bool = False
    """Whether their order is that in which the layers are computed."""
    notes: tuple[str, ...] = ()


def reader_of(path: Path) -> Callable[[Path], Mapping[str, Any]] | None:
    """What reads a file or folder, by its first bytes; None if that is for PyTorch's reader to say."""
    if path.is_dir():
        return _orbax if is_orbax(path) else None
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x89HDF"):
        return _hdf5
    if start.startswith(b"PK"):
        members = members_of(path)
        if "model.weights.h5" in members:
            return _keras
        if any(name.endswith(".npy") for name in members):
            return _numpy
    if path.suffix == ".msgpack":
        return _flax
    return None


def is_orbax(folder: Path) -> bool:
    """Whether a folder is a checkpoint of Orbax."""
    return any((folder / name).is_file() for name in ("_METADATA", "_CHECKPOINT_METADATA"))


def members_of(path: Path) -> list[str]:
    """The names in a zip archive; none if it is damaged, which its loader says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, *DAMAGED, zipfile.BadZipFile):
        return []


@contextlib.contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Say what a file is that cannot be read."""
    try:
        yield
    except InputError:
        raise
    except (OSError, *DAMAGED, zipfile.BadZipFile, MemoryError) as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable {what} ({said}); copy it again") from None


def _numpy(path: Path) -> Mapping[str, Any]:
    with _told(path, "file of NumPy arrays"), np.load(path, allow_pickle=False) as arrays:
        return {name.replace("/", "."): arrays[name] for name in arrays.files}


def _flax(path: Path) -> Mapping[str, Any]:
    from flax import serialization

    with _told(path, "file of flax.serialization"):
        content = serialization.msgpack_restore(path.read_bytes())
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
        return _flat(content)


def _orbax(path: Path) -> Mapping[str, Any]:
    import orbax.checkpoint as ocp

    inner = path / "default"
    with _told(path, "checkpoint of Orbax"), ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        # It remarks that arrays of another machine are placed as they were there; here they are copied at once.
        warnings.simplefilter("ignore", UserWarning)
        content = checkpointer.restore((inner if inner.is_dir() else path).absolute())
        return _flat(content)


def _flat(content: Any) -> dict[str, Any]:
    """Nested mappings of arrays by their paths, without what all of them lie in."""
    flat: dict[str, Any] = {}

    def add(value: Any, names: tuple[str, ...]) -> None:
        if isinstance(value, Mapping):
            for name, each in value.items():
                add(each, (*names, str(name)))
        elif isinstance(value, list | tuple):
            add(dict(enumerate(value)), names)
        elif value is not None:
            flat[".".join(names)] = np.asarray(value) if hasattr(value, "dtype") else value

    add(content, ())
    return flat


def _hdf5(path: Path) -> Mapping[str, Any]:
    with _told(path, "HDF5 file"):
        return _keras_weights(path.read_bytes(), path)


def _keras(path: Path) -> Mapping[str, Any]:
    with _told(path, "file of Keras"):
        with zipfile.ZipFile(path) as archive:
            content, said = archive.read("model.weights.h5"), archive.read("config.json")
        arrays = _keras_weights(content, path)
        layers = json.loads(said).get("config", {}).get("layers", [])
    return _with_activations(arrays, layers, path)


def _keras_weights(content: bytes, path: Path) -> Arrays:
    """The weights of Keras's layers: ``<layer>.kernel`` [inputs, units] and ``<layer>.bias``."""
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        datasets: dict[str, np.ndarray] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                datasets[name] = np.asarray(item)

        file.visititems(visit)
        said = file.attrs.get("model_config")
    arrays = Arrays()
    for name, array in datasets.items():
        *layers, last = name.split("/")
        if layers and layers[0] in ("optimizer", "optimizer_weights"):
            continue
        kind = last.removesuffix(":0")
        if layers[-1:] == ["vars"]:
            layers, kind = layers[:-1], {"0": "kernel" if array.ndim > 1 else "weight", "1": "bias"}.get(last, last)
        # Keras 3 keeps layers under names that are no layer's, and earlier ones repeat a layer's name for its tensors.
        parts = [part for part in layers if part not in ("layers", "_layer_checkpoint_dependencies")]
        if "model_weights" in layers:
            parts = layers[layers.index("model_weights") + 1 :][:1]
        arrays[".".join([*parts, kind])] = array
    if said is not None:
        text = said.decode() if isinstance(said, bytes) else str(said)
        return _with_activations(arrays, json.loads(text).get("config", {}).get("layers", []), path)
    return arrays


def _with_activations(arrays: Mapping[str, Any], layers: Any, path: Path) -> Arrays:
    """The arrays in the order of a Keras model's layers, with the activation that its config tells."""
    dense, notes, kinds = [], [], []
    for layer in layers if isinstance(layers, list) else []:
        kind, config = str(layer.get("class_name")), layer.get("config", {})
        name = str(config.get("name", kind))
        if kind == "Dense":
            dense.append(name)
            kinds.append(str(config.get("activation")))
        elif kind in ("Activation", "ReLU", "Softmax") and kinds and kinds[-1] in ("linear", "None"):
            kinds[-1] = str(config.get("activation", kind.lower()))
        elif kind not in ("InputLayer", "Flatten", "Dropout"):
            raise InputError(
                f"{path}: layer {name!r} is a {kind}; expected Dense layers, with Flatten and Dropout at most; "
                "write the network as a JAX function and measure it with jaxdist.probe"
            )
    there = sorted({name.rpartition(".")[0] for name in arrays}, key=natural)
    # Keras 3 names a layer's group by its class and place, earlier ones by the layer's own name.
    in_order = dense if set(dense) == set(there) else there
    arrays_in_order = Arrays(
        {name: array for layer in in_order for name, array in arrays.items() if name.rpartition(".")[0] == layer}
    )
    if not dense:
        return arrays_in_order
    placed = in_order == dense or all(re.fullmatch(r"dense(_\d+)?", layer) for layer in in_order)
    arrays_in_order.certain = placed and len(in_order) == len(dense)
    if kinds[-1] in ("softmax", "log_softmax"):
        notes.append(f"its {kinds[-1]} at the end is left out: logits are what comes before it")
    elif kinds[-1] not in ("linear", "None"):
        raise InputError(f"{path}: has the activation {kinds[-1]!r} behind its last layer; expected none, or softmax")
    acts = set(kinds[:-1])
    if len(acts) > 1:
        raise InputError(f"{path}: has the activations {', '.join(sorted(acts))}; expected one for all layers")
    act = next(iter(acts), "")
    if act and act not in _KERAS:
        raise InputError(
            f"{path}: its activation {act!r} is not one of those here with Keras's settings: {', '.join(_KERAS)}; "
            "write the network as a JAX function and measure it with jaxdist.probe"
        )
    arrays_in_order.activation = _KERAS.get(act)
    arrays_in_order.notes = tuple(notes)
    return arrays_in_order


def natural(name: str) -> list[tuple[int, str]]:
    """Sort names with numbers by the numbers, seed10 after seed9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
