"""Reading one network's tensors from a file, whatever wrote it, without executing anything that it contains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxdist.errors import InputError
from jaxdist.storage import manifests
from jaxdist.storage.torch import array_files, contents, pickles
from jaxdist.storage.torch.keras_models import Arrays

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

LEAST_TORCH = (2, 10)
"""The lowest version that the extra `torch` admits."""


def read(path: Path, *, entry: str = "", left_out: Iterable[str] = ()) -> contents.Network:
    """Read the network in a file, or in a folder of Orbax; half precision is widened, which is exact.

    Args:
      path: what PyTorch, safetensors, NumPy, Keras, Flax or Orbax wrote.
      entry: the key under which the network lies, where the file holds several.
      left_out: names of entries that no output depends on, as the user says.

    Raises:
      InputError: for a missing or broken file, one that holds no network, several, or one that is not finite; for a
        run's own file that was changed.
    """
    if path.is_file() and (wrong := _no_checkpoint(path)):
        raise InputError(f"{path}: {wrong}")
    content = _content(path)
    if path.is_file():
        manifests.check_whole(path)  # it may be a run's own
    network = contents.network_in(content, str(path), entry=entry, left_out=left_out)
    if isinstance(content, Arrays):
        network = network._replace(
            activation=content.activation, certain=content.certain, notes=(*content.notes, *network.notes)
        )
    return network


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
            f"{what} needs PyTorch {least} or later, but {torch.__version__} is installed; run pip install -U "
            f"'torch>={least}'"
        )
    return torch


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.exists() and (reader := array_files.reader_of(path)):
        return reader(path)
    return pickles.load(path)


def _safetensors(path: Path) -> Mapping[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no mapping)
            # Of tensors that share their numbers, one is stored, and the others' names are told beside it.
            shared = {name: same for name, same in (opened.metadata() or {}).items() if same in tensors}
            tensors |= {name: tensors[same] for name, same in shared.items() if name not in tensors}
            tensors = {name: tensors[name] for name in sorted(tensors, key=array_files.natural)}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; pass a PyTorch or safetensors file, or a folder of them") from None
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError, MemoryError) as error:
        raise InputError(
            f"{path}: not a safetensors file of float32 tensors ({error}); copy or save it again"
        ) from None
    # NumPy has bfloat16 from the package that JAX has it from.
    odd = [name for name, each in tensors.items() if each.dtype.kind == "V" and each.dtype != jnp.bfloat16]
    if odd:
        raise InputError(f"{path}: tensor {odd[0]!r} is {tensors[odd[0]].dtype}; save model.float().state_dict()")
    return tensors


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
    if start[:2] == b"PK" and any(name.endswith("/archive_format") for name in array_files.members_of(path)):
        return (
            "this is a program saved by torch.export; load it where it is trusted and save its weights, with "
            "torch.save(torch.export.load(FILE).state_dict, NEW_FILE)"
        )
    return None
