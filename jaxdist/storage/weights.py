"""Stacked parameters in safetensors files: one file a network, tensors named by their path, such as dense0.weight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from jaxdist import files
from jaxdist.errors import InputError
from jaxdist.storage import manifests
from jaxdist.types import Params


def save(params: Params, path: Path) -> None:
    """Write nested dictionaries of arrays; every tensor has a leading S. A run folder's list of files is kept true."""
    flat = {
        jax.tree_util.keystr(key, simple=True, separator="."): np.ascontiguousarray(leaf)
        for key, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    with manifests.renewing(path), files.aside(path) as temporary:
        temporary.write_bytes(to_bytes(flat))


def load(path: Path) -> Params:
    """Read what `save` wrote.

    Raises:
      InputError: for a file that is missing, broken, no longer what was saved, or holds a non-finite weight.
    """
    try:
        flat = load_file(path)
    except FileNotFoundError:
        if Path(path).exists():  # safetensors says so of what it may not read, too
            raise InputError(f"{path}: this user may not read it; fix its permissions") from None
        raise InputError(
            f"{path}: no such weights file; restore it from a copy, or repeat the run in another folder"
        ) from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}); restore it from an intact copy, or train the run again"
        ) from None
    manifests.check_whole(path)
    nested: dict[str, Any] = {}
    for name, tensor in flat.items():
        if not np.isfinite(tensor).all():
            raise InputError(f"{path}: tensor '{name}' holds values that are not finite; train the run again")
        *outer, last = name.split(".")
        branch = nested
        for key in outer:
            branch = branch.setdefault(key, {})
        branch[last] = tensor
    return nested


def check(params: Params, expected: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` unless `params` has the structure, types and shapes of `expected`."""
    shapes, needed = (jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree) for tree in (params, expected))
    if shapes != needed:
        raise InputError(
            f"{path}: expected weights {needed}, got {shapes}; these are not weights for this run's data and layers"
        )
