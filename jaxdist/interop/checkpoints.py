"""Reading tensors from PyTorch and safetensors files without executing anything that they contain.

A PyTorch file is a pickle, and a pickle can name any function to be called. Here only names on a list are looked up:
PyTorch's own rebuilding of tensors, NumPy arrays, and module classes, and for those an inert stand-in is made that
keeps the stored attributes and has no behaviour. Neither the paper's source nor the user's is needed or run.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxdist.errors import InputError

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

_STAND_INS = {
    **{f"torch.nn.modules.{path}": None for path in ("linear.Linear", "linear.Identity", "container.Sequential")},
    **{f"torch.nn.modules.{path}": None for path in ("flatten.Flatten", "dropout.Dropout")},
    "torch.nn.modules.activation.ReLU": "relu",
    # The classes of the paper's code, by the names under which its scripts import them.
    **{
        f"{module}.{name}": activation
        for module in ("models", "src.models", "__main__")
        for name, activation in {
            "Model_PerturbationReLU": None,
            "Model_PerturbationAbs": None,
            "PerturbationLayer": None,
            "Abs": "abs",
        }.items()
    },
}
"""Class names in a whole pickled module that may be there, with the activation that the class computes, if any."""

_NUMPY = ("multiarray._reconstruct", "multiarray.scalar")


class StandIn:
    """What a pickled module becomes: an object that holds its attributes and can do nothing."""

    activation: str | None = None


class Checkpoint(NamedTuple):
    """The tensors of one file by name, in the file's order, and the activations that its modules name."""

    tensors: dict[str, np.ndarray]
    activations: tuple[str, ...]


def read(path: Path) -> Checkpoint:
    """Read a state_dict, a whole pickled module or a safetensors file.

    Raises:
      InputError: for a missing or broken file, one that names anything not on the list, tensors that are not float32
        numbers or finite, or torch not installed where the file needs it.
    """
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _tensors_of(load_torch(path), path)
    for name, tensor in found.tensors.items():
        # A clip of infinity is the paper's way to say that nothing is clipped.
        if not (np.isfinite(tensor) | np.isposinf(tensor) & (name.rsplit(".")[-1] == "clip")).all():
            raise InputError(f"{path}: tensor '{name}' holds values that are not finite; train the network again")
    return found


def load_torch(path: Path) -> Any:
    """Load a PyTorch file with the weights-only loader; raises `InputError` as `read` does."""
    torch = require_torch(f"reading {path}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a PyTorch or safetensors file, or a folder of them")
    allowed = [*_numpy_globals(), *((_stand_in(name, act), name) for name, act in _STAND_INS.items())]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            # PyTorch remarks on the pickle protocol of files that others wrote; here they load or are refused.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever a file of unknown origin makes the loader raise is that file's fault.
        foreign = re.search(r"(?:GLOBAL|Unsupported global: GLOBAL|Unsupported class) ([\w.]+)", str(error))
        if foreign:
            raise InputError(
                f"{path}: names '{foreign[1]}', which is not on the list of what may be loaded, so nothing in it was "
                "executed; save tensors only, with torch.save(model.state_dict(), FILE)"
            ) from None
        said = re.search(r"WeightsUnpickler error:\s*(.+)", str(error)) or re.match(
            r"\s*([^\n]+?)(?:\. |\n|$)", str(error)
        )
        reason = said[1].strip() if said else "no reason given"
        raise InputError(
            f"{path}: not a readable PyTorch file ({type(error).__name__}: {reason}); nothing in it was executed; "
            "copy or save it again"
        ) from None


def require_torch(what: str) -> ModuleType:
    """Import torch, or say how to get it."""
    try:
        import torch
    except ImportError:
        raise InputError(f"{what} needs PyTorch, which is not installed; pip install 'jaxdist[torch]'") from None
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


def _stand_in(name: str, activation: str | None) -> type[StandIn]:
    return type(name.rsplit(".")[-1], (StandIn,), {"activation": activation})


def _tensors_of(content: Any, path: Path) -> Checkpoint:
    """Flatten a loaded object: a state_dict as it is, a stand-in as its state_dict would be."""
    torch = require_torch(f"reading {path}")
    if isinstance(content, StandIn):
        entries, activations = dict(_state_of(content)), tuple(_activations_of(content))
    elif isinstance(content, Mapping):
        entries, activations = dict(content), ()
    else:
        raise InputError(f"{path}: expected a state_dict or a module, got {type(content).__name__}; save a state_dict")
    tensors = {}
    for name, tensor in entries.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"{path}: entry '{name}' is a {type(tensor).__name__}, expected a tensor; save model.state_dict() alone"
            )
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise InputError(f"{path}: tensor '{name}' is {tensor.dtype}, expected float32; save model.float()")
        tensors[str(name)] = tensor.detach().to(torch.float32).contiguous().numpy()
    return Checkpoint(tensors, activations)


def _modules_of(module: StandIn, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, StandIn]]:
    """A stand-in and those within it; a file can nest them without end, a network does not."""
    yield prefix, module
    if depth < 8:
        for name, child in vars(module).get("_modules", {}).items():
            if isinstance(child, StandIn):
                yield from _modules_of(child, f"{prefix}{name}.", depth + 1)


def _state_of(module: StandIn) -> Iterator[tuple[str, Any]]:
    for prefix, one in _modules_of(module):
        for kind in ("_parameters", "_buffers"):
            for name, tensor in vars(one).get(kind, {}).items():
                if tensor is not None:
                    yield prefix + str(name), tensor


def _activations_of(module: StandIn) -> Iterator[str]:
    """The activations by module, each once: the paper's networks hold the same module under two names."""
    seen: list[StandIn] = []
    for _, one in _modules_of(module):
        if one.activation and not any(one is other for other in seen):
            seen.append(one)
            yield one.activation


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys(), key=_natural)}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a PyTorch or safetensors file, or a folder of them") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); copy or save it again") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in (np.float32, np.float16):
            raise InputError(f"{path}: tensor '{name}' is {tensor.dtype}, expected float32; save model.float()")
    return Checkpoint({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, ())


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort dense10 after dense9: safetensors files have no order of their own."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
