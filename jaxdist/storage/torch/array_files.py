"""Files of named arrays that others than PyTorch write: safetensors, NumPy, Keras, Flax and Orbax.

Each is read as mappings of names to arrays, one inside the other; nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdist.errors import DAMAGED, InputError
from jaxdist.storage.torch import keras_models
from jaxdist.storage.torch.keras_models import Arrays

SUFFIXES = (".safetensors", ".npz", ".h5", ".hdf5", ".keras", ".msgpack")


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
    return [member.filename for member in _listed(path)]


def _listed(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (OSError, *DAMAGED, zipfile.BadZipFile):
        return []


@contextlib.contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Say what a file is that cannot be read."""
    try:
        yield
    except InputError:
        raise
    except (OSError, *DAMAGED, zipfile.BadZipFile, zlib.error, tokenize.TokenError, MemoryError) as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable {what} ({said}); copy it again") from None


def _numpy(path: Path) -> Mapping[str, Any]:
    refuse_swollen(path)
    with _told(path, "file of NumPy arrays"), np.load(path, allow_pickle=False) as arrays:
        return {name.replace("/", "."): arrays[name] for name in arrays.files}


def _flax(path: Path) -> Mapping[str, Any]:
    from flax import serialization

    with _told(path, "file of flax.serialization"):
        content = serialization.msgpack_restore(path.read_bytes())
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
        return content


def _orbax(path: Path) -> Mapping[str, Any]:
    import orbax.checkpoint as ocp

    inner = path / "default"
    with _told(path, "checkpoint of Orbax"), ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        # It remarks that arrays of another machine are placed as they were there; here they are copied at once.
        warnings.simplefilter("ignore", UserWarning)
        content = checkpointer.restore((inner if inner.is_dir() else path).absolute())
        return _as_numpy(content)


def _as_numpy(value: Any) -> Any:
    """A nest of mappings and lists with NumPy's arrays in place of JAX's."""
    if isinstance(value, Mapping):
        return {str(name): _as_numpy(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_numpy(each) for each in value]
    return np.asarray(value) if hasattr(value, "dtype") else value


def refuse_swollen(path: Path) -> None:
    """Raise `InputError` for a zip archive that would become far larger than numbers do."""
    for member in _listed(path):
        if member.file_size > _LARGE and member.file_size > _SWELLS * max(member.compress_size, 1):
            raise InputError(
                f"{path}: its part {member.filename!r} of {member.compress_size:,} bytes would become "
                f"{member.file_size:,}, as no numbers of a network do; save it uncompressed"
            )


_LARGE, _SWELLS = 2**26, 100
"""Bytes from which on it matters how much larger a part becomes, and how much larger it may."""


def _hdf5(path: Path) -> Mapping[str, Any]:
    with _told(path, "HDF5 file"):
        return _keras_weights(path.read_bytes(), path)


def _keras(path: Path) -> Mapping[str, Any]:
    refuse_swollen(path)
    with _told(path, "file of Keras"):
        with zipfile.ZipFile(path) as archive:
            content, said = archive.read("model.weights.h5"), archive.read("config.json")
        arrays = _keras_weights(content, path)
        return keras_models.ordered(arrays, json.loads(said), str(path), by_class=True)


def _keras_weights(content: bytes, path: Path) -> Arrays:
    """The weights of Keras's layers: ``<layer>.kernel`` [inputs, units] and ``<layer>.bias``."""
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        datasets: dict[str, np.ndarray] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                if item.nbytes > max(_LARGE, _SWELLS * len(content)):
                    raise ValueError(f"{name} would become {item.nbytes:,} bytes")
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
        return keras_models.ordered(arrays, json.loads(text), str(path), by_class=False)
    return arrays


def natural(name: str) -> list[tuple[int, str]]:
    """Sort names with numbers by the numbers, seed10 after seed9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
