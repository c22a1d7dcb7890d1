"""Reading tensors from PyTorch and safetensors files without executing anything that they contain.

A PyTorch file is a pickle, and a pickle can name any function to be called. Here only names on a list are looked up:
PyTorch's own rebuilding of tensors and module classes, and for those an inert stand-in is made that keeps the stored
attributes and has no behaviour. Neither the paper's source nor the user's is needed or run.
"""

from __future__ import annotations

import re
import types
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxdist.errors import DAMAGED, InputError
from jaxdist.storage import manifests
from jaxdist.storage.torch import modules

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

LEAST_TORCH = (2, 10)
"""The weights-only loaders before it could be made to corrupt memory by a crafted file."""

PROGRESS = ("epoch", "epochs", "global_step", "step", "steps", "iteration", "iter")
"""Keys under which training scripts keep how far the training is."""

_BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")

_NUMPY = ("multiarray._reconstruct", "multiarray.scalar")


class Checkpoint(NamedTuple):
    """The tensors of one file by name, and what else it says."""

    tensors: dict[str, np.ndarray]
    activation: str | None = None
    """That its modules name, if any."""
    certain: bool = False
    """Whether the order of the tensors is that in which a module computes its layers."""
    progress: Mapping[str, float] = types.MappingProxyType({})
    """How far the training was, by the names of `PROGRESS`."""


def read(path: Path) -> Checkpoint:
    """Read a state_dict, a whole pickled module or a safetensors file; half precision is widened, which is exact.

    Raises:
      InputError: for a missing or broken file, one that names anything not on the list, tensors that are not float32
        numbers or finite, or torch not installed where the file needs it; for a run's own file that was changed.
    """
    if path.is_file() and (wrong := _no_checkpoint(path)):
        raise InputError(f"{path}: {wrong}")
    checkpoint = _read_safetensors(path) if path.suffix == ".safetensors" else _tensors_of(load_torch(path), path)
    manifests.check_whole(path)  # it may be a run's own
    for name, tensor in checkpoint.tensors.items():
        # A clip of infinity is the paper's way to say that nothing is clipped.
        if not (np.isfinite(tensor) | np.isposinf(tensor) & (name.rsplit(".")[-1] == "clip")).all():
            raise InputError(f"{path}: tensor {name!r} holds values that are not finite; train the network again")
    return checkpoint


def load_torch(path: Path) -> Any:
    """Load a PyTorch file, with what is on the list, by the weights-only loader; raises as `read` does."""
    torch = require_torch(f"reading {path}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; pass a PyTorch or safetensors file, or a folder of them")
    allowed = [*_numpy_globals(), *((stand_in, name) for name, stand_in in modules.STAND_INS.items())]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            # PyTorch remarks on the pickle protocol of files that others wrote; here they load or are refused.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever a file of unknown origin makes the loader raise is that file's fault.
        foreign = re.search(r"(?:GLOBAL|Unsupported global: GLOBAL|Unsupported class) ([\w.]+)", str(error))
        if foreign:
            raise InputError(
                f"{path}: refers to '{foreign[1]}', which is not on the list of what may be loaded, so nothing in it "
                "was executed; save only tensors, with torch.save(model.state_dict(), FILE)"
            ) from None
        said = re.search(r"WeightsUnpickler error:\s*(.+)", str(error)) or re.match(
            r"\s*([^\n]+?)(?:\. |\n|$)", str(error)
        )
        reason = said[1].strip() if said else "no reason given"
        raise InputError(
            f"{path}: not a readable PyTorch file ({type(error).__name__}: {reason}); nothing in it was executed; "
            "copy it again, or save it with torch.save(model.state_dict(), FILE)"
        ) from None


def require_torch(what: str) -> ModuleType:
    """Import torch, or say how to get it."""
    least = ".".join(map(str, LEAST_TORCH))
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{what} needs PyTorch, which is not installed; install it with pip install 'jaxdist[torch]'"
        ) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LEAST_TORCH:
        raise InputError(
            f"{what} needs PyTorch {least} or later, since earlier ones do not read other people's files safely, but "
            f"{torch.__version__} is installed; run pip install -U 'torch>={least}'"
        )
    return torch


def _numpy_globals() -> list[Any]:
    """What a pickled NumPy array of numbers names, as NumPy 1 and NumPy 2 spell it."""
    core = np._core.multiarray
    functions = [
        (getattr(core, name.split(".")[1]), f"{package}.{name}")
        for name in _NUMPY
        for package in ("numpy.core", "numpy._core")
    ]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32)]
    return [*functions, np.ndarray, np.dtype, *kinds]


def _tensors_of(content: Any, path: Path) -> Checkpoint:
    """The tensors of a loaded object, by their names in a state_dict."""
    progress: Mapping[str, float] = {}
    if isinstance(content, Mapping):
        progress = _progress_in(content)
        content = _network_in(content, path)
    activation = None
    if certain := isinstance(content, modules.StandIn):
        entries, activation = modules.layers_of(content, str(path))
    elif isinstance(content, Mapping):
        entries = dict(content)
    else:
        raise InputError(
            f"{path}: expected a state_dict or a module, got {type(content).__name__}; save only the network's "
            "state_dict, with torch.save(model.state_dict(), FILE)"
        )
    _refuse_batch_norm(map(str, entries), path)
    tensors = {str(name): _array(tensor, f"{path}: tensor {name!r}") for name, tensor in entries.items()}
    return Checkpoint(tensors, activation, certain, progress)


def _progress_in(content: Mapping[Any, Any]) -> dict[str, float]:
    """How far the training was that saved a dictionary."""
    numbers = {str(key): value for key, value in content.items() if str(key) in PROGRESS}
    numbers = {key: value.item() if getattr(value, "size", None) == 1 else value for key, value in numbers.items()}
    return {key: float(value) for key, value in numbers.items() if isinstance(value, int | float)}


def _network_in(content: Mapping[Any, Any], path: Path) -> Any:
    """The network in what a training script saved, or the content itself if it is not under a usual key."""
    torch = require_torch(f"reading {path}")

    def is_weight(value: Any) -> bool:
        return isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 1

    def holds_network(value: Any) -> bool:
        weights = isinstance(value, Mapping) and any(map(is_weight, value.values()))
        return weights or isinstance(value, modules.StandIn)

    if "param_groups" in content and "state" in content:
        raise InputError(f"{path}: holds an optimiser's state; pass the file that holds the network's weights")
    networks = [key for key, value in content.items() if holds_network(value)]
    if not networks or any(map(is_weight, content.values())):
        return content
    if not all(_same(content[key], content[networks[0]]) for key in networks):
        raise InputError(
            f"{path}: holds several networks, under {' and '.join(map(repr, networks))}; expected one; save only the "
            "state_dict of the one to import"
        )
    return content[networks[0]]


def _same(first: Any, second: Any) -> bool:
    """Whether two state_dicts hold the same tensors."""
    if first is second:
        return True
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)) or list(first) != list(second):
        return False
    pairs = [(np.asarray(first[key]), np.asarray(second[key])) for key in first]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def _refuse_batch_norm(names: Iterable[str], path: Path) -> None:
    for name in names:
        layer, _, kind = name.rpartition(".")
        if kind in _BATCH_NORM:
            raise InputError(
                f"{path}: layer {layer!r} is a BatchNorm ({kind}); only linear layers can be imported; fold it into "
                "the layer before it, or measure the module with jaxdist.probe"
            )


def _array(tensor: Any, where: str) -> np.ndarray:
    torch = require_torch("reading tensors")
    if isinstance(tensor, np.ndarray) and tensor.dtype.kind in "fiu":
        tensor = torch.from_numpy(np.array(tensor, tensor.dtype.newbyteorder("=")))
    if isinstance(tensor, list):
        raise InputError(f"{where} is a list; if these are the paper's sweep results, pass them to 'jaxdist compare'")
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{where} is a {type(tensor).__name__}; expected a tensor; save only model.state_dict()")
    if not tensor.is_floating_point():
        raise InputError(
            f"{where} is {tensor.dtype}, so it is not the weight or bias of a linear layer; save the layers without it"
        )
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"{where} is {tensor.dtype}, expected float32; save model.float().state_dict()")
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    # A tensor that claims more numbers than its file holds would only fill the memory.
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{where} is not a plain dense array; save model.state_dict() of an ordinary module")
    array: np.ndarray = tensor.detach().to(torch.float32).contiguous().numpy()
    return array


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys(), key=natural)}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; pass a PyTorch or safetensors file, or a folder of them") from None
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError, MemoryError) as error:
        raise InputError(
            f"{path}: not a safetensors file of float32 tensors ({error}); copy or save it again"
        ) from None
    _refuse_batch_norm(tensors, path)
    for name, tensor in tensors.items():
        # NumPy has bfloat16 from the package that JAX has it from.
        if tensor.dtype not in (np.float32, np.float16, jnp.bfloat16):
            raise InputError(
                f"{path}: tensor {name!r} is {tensor.dtype}, expected float32; save model.float().state_dict()"
            )
    return Checkpoint({name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def _no_checkpoint(path: Path) -> str | None:
    """What a file is by its first bytes, with what to do, where no loader can read it; None if one may."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "this file is empty; copy or save the checkpoint again"
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "this is a web page, perhaps an error page; download the checkpoint again"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer; fetch the checkpoint itself with 'git lfs pull'"
    if start.startswith(b"\x89HDF"):
        return (
            "this is an HDF5 file, such as Keras writes; save its weights with safetensors, transposed to [units, "
            "inputs], under names such as fc1.weight and fc1.bias"
        )
    members = _members(path) if start[:2] == b"PK" else []
    if any(name.endswith(".npy") for name in members):
        return "holds NumPy arrays; save them with safetensors.numpy.save_file"
    if any("/code/" in name or name.endswith("/archive_format") for name in members):
        return (
            "this is a program saved by torch.jit or torch.export; load it where it is trusted and save its weights, "
            "with torch.save(module.state_dict(), FILE)"
        )
    return None


def _members(path: Path) -> list[str]:
    """The names in a zip archive; none if it is damaged, which its loader says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, *DAMAGED, zipfile.BadZipFile):
        return []


def natural(name: str) -> list[tuple[int, str]]:
    """Sort names with numbers by the numbers, seed10 after seed9; safetensors files have no order of their own."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
