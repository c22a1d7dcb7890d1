"""Tensors named as Keras, Flax or a script of one's own names them, by the names and axes of PyTorch's layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxdist.errors import InputError

_KERNELS = ("kernel", "kernel.value")
_NUMBERED = re.compile(r"(?P<kind>w|weights?|kernel|b|bias|biases)[_.]?(?P<number>\d+)", re.IGNORECASE)
_LETTERED = re.compile(r"(?P<layer>.+)\.(?P<kind>[wWb])")
_UNNAMED = re.compile(r"(tensor|arr_)(?P<number>\d+)")


class _Pair(NamedTuple):
    """The tensors of one layer."""

    weight: np.ndarray
    bias: np.ndarray | None


def as_pytorch(tensors: Mapping[str, np.ndarray], where: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Tensors as ``<layer>.weight`` [units, inputs] and ``<layer>.bias`` [units], and notes on what was turned.

    Those that are named so already stay as they are. A ``kernel`` is [inputs, units], as in Keras and Flax. Of weights
    named w1, W2 or by their place alone, the biases tell which axis is that of the units.

    Raises:
      InputError: where they do not tell it.
    """
    if any(_is_kernel(name) for name in tensors):
        return _from_kernels(tensors), ["its kernels are read as [inputs, units], as Keras and Flax have them"]
    for pattern, pairs_of in ((_NUMBERED, _numbered), (_LETTERED, _lettered), (_UNNAMED, _unnamed)):
        if tensors and all(pattern.fullmatch(name) for name in tensors):
            return _oriented(pairs_of(tensors, where), where)
    return dict(tensors), []


def _is_kernel(name: str) -> bool:
    return name.endswith(_KERNELS)


def _from_kernels(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for name, tensor in tensors.items():
        plain = name.removesuffix(".value")
        if _is_kernel(name):
            layer = plain.removesuffix("kernel")
            renamed[f"{layer}weight"] = np.ascontiguousarray(tensor.T) if tensor.ndim == 2 else tensor
        else:
            renamed[plain] = tensor
    return renamed


def _numbered(tensors: Mapping[str, np.ndarray], where: str) -> dict[str, _Pair]:
    """Layers of tensors such as w1 and b1, in the order of their numbers."""
    by_number: dict[int, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        match = _NUMBERED.fullmatch(name)
        assert match
        kind = "bias" if match["kind"].lower().startswith("b") else "weight"
        each = by_number.setdefault(int(match["number"]), {})
        if kind in each:
            raise InputError(f"{where}: has two tensors for the {kind} of layer {match['number']}; expected one")
        each[kind] = tensor
    if alone := [number for number, each in by_number.items() if "weight" not in each]:
        raise InputError(f"{where}: has a bias {alone[0]} without a weight {alone[0]}; expected both of each layer")
    return {str(number): _Pair(each["weight"], each.get("bias")) for number, each in sorted(by_number.items())}


def _lettered(tensors: Mapping[str, np.ndarray], where: str) -> dict[str, _Pair]:
    """Layers of tensors such as linear_1.w and linear_1.b."""
    layers = dict.fromkeys(name[:-2] for name in tensors)
    weights = {layer: tensors.get(f"{layer}.w", tensors.get(f"{layer}.W")) for layer in layers}
    if alone := [layer for layer, weight in weights.items() if weight is None]:
        raise InputError(f"{where}: has {alone[0]}.b without {alone[0]}.w; expected both of each layer")
    return {layer: _Pair(weight, tensors.get(f"{layer}.b")) for layer, weight in weights.items() if weight is not None}


def _unnamed(tensors: Mapping[str, np.ndarray], where: str) -> dict[str, _Pair]:
    """Layers of tensors that have only a place: each weight, and the bias that follows it."""

    def place(name: str) -> int:
        match = _UNNAMED.fullmatch(name)
        assert match
        return int(match["number"])

    pairs: dict[str, _Pair] = {}
    before = ""
    for name in sorted(tensors, key=place):
        tensor = tensors[name]
        if tensor.ndim == 2:
            pairs[name] = _Pair(tensor, None)
            before = name
        elif tensor.ndim == 1 and before and pairs[before].bias is None:
            pairs[before] = pairs[before]._replace(bias=tensor)
        else:
            raise InputError(
                f"{where}: tensor {name!r} has shape {list(tensor.shape)}; expected a weight of two axes, or the bias "
                "of the weight before it; save them under names such as fc1.weight and fc1.bias"
            )
    return pairs


def _oriented(pairs: Mapping[str, _Pair], where: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The layers with their units first, as their biases tell."""
    first, last = (
        [
            pair.bias is not None and pair.weight.ndim == 2 and pair.weight.shape[axis] == pair.bias.size
            for pair in pairs.values()
        ]
        for axis in (0, 1)
    )
    units_first, units_last = all(first), all(last)
    if units_first == units_last:
        raise InputError(
            f"{where}: its tensors do not tell which axis of a weight is that of the units, as their biases would; "
            "save them as fc1.weight [units, inputs] and fc1.bias [units], or fc1.kernel [inputs, units]"
        )
    named = {}
    for layer, pair in pairs.items():
        named[f"{layer}.weight"] = pair.weight if units_first else np.ascontiguousarray(pair.weight.T)
        if pair.bias is not None:
            named[f"{layer}.bias"] = pair.bias
    axes = "[units, inputs]" if units_first else "[inputs, units]"
    return named, [f"its weights are read as {axes}, as the lengths of their biases tell"]
