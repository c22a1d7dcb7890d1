"""Tensors by PyTorch's names as the parameters of a perceptron, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import forms
from jaxdist.storage.torch import modules, order
from jaxdist.types import Params

_ALIASES = {"linear0.": "layers.0.", "perturb_layer.": "layers.1."}
"""The paper's modules are attributes and members of a Sequential at once, so their tensors have two names."""

_PAPER = {"linear0", "perturb_layer", "layers.0", "layers.1", "layers.3"}
"""The layers of a state_dict of the paper's networks."""

_NEUTRAL = {"s": 1.0, "t": 0.0, "clip": np.inf}
"""The paper's edit layer as it is saved: slope, offset and clip that change nothing."""


def from_tensors(
    tensors: Mapping[str, np.ndarray], where: str, *, layers: Sequence[str] = (), certain: bool = False
) -> Params:
    """Build one perceptron's parameters, ``{"dense0": {"weight": [H, D], "bias": [H]}, ...}``, from named tensors.

    The linear layers are taken in the order of `order.of`; a missing bias is 0. The slopes of PReLUs, one for all units
    of a layer, become the `slope` of the layers before them.

    Args:
      tensors: by PyTorch's names; stacked ones, with a leading S, are kept so.
      where: what holds them, for messages.
      layers: the layers' names in their order, where a user says it.
      certain: the tensors' order is that of a module that computes its layers in turn.

    Raises:
      InputError: if anything but linear layers is there, they do not follow one another, in which order is not
        certain, two names of one tensor disagree, or the paper's edit layer holds an edit.
    """
    left = _without_aliases(tensors, where)
    _check_neutral(left, where)
    by_name: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in left.items():
        layer, _, kind = name.rpartition(".")
        if kind in _NEUTRAL:
            continue
        if kind not in ("weight", "bias"):
            raise InputError(
                f"{where}: tensor {name!r} is not the weight or bias of a linear layer; expected only those, with "
                f"names such as fc1.weight [units, inputs] and fc1.bias [units]; {_instead_of(name)}"
            )
        by_name.setdefault(layer, {})[kind] = tensor
    if slopes := {name: layer["weight"] for name, layer in by_name.items() if _is_slope(layer)}:
        by_name = {name: layer for name, layer in by_name.items() if name not in slopes}
    if not by_name:
        raise InputError(f"{where}: holds no weights; expected the linear layers of a perceptron")
    chain = _chain(by_name, where, layers, certain=certain)
    for slope, filled in zip(_slopes_in_order(slopes, list(by_name), where, certain=certain), chain, strict=False):
        filled["slope"] = slopes[slope].reshape(())
    return {f"dense{k}": layer for k, layer in enumerate(chain)}


def to_tensors(params: Params) -> dict[str, np.ndarray]:
    """Name one network's parameters as ``torch.nn.Sequential(Linear, activation, Linear, ...)`` does: 0.weight, ..."""
    tensors = {}
    for k in range(len(params)):
        layer = params[f"dense{k}"]
        for kind in ("weight", "bias"):
            if kind in layer:
                tensors[f"{2 * k}.{kind}"] = np.ascontiguousarray(layer[kind])
        if "slope" in layer:
            tensors[f"{2 * k + 1}.weight"] = np.reshape(layer["slope"], 1)
    return tensors


def refuse_other_layers(network: str, where: str) -> None:
    """Raise `InputError` if a network of that name has parameters that linear layers have not."""
    if further := _other_parameters(network):
        raise InputError(
            f"{where}: network '{network}' has {' and '.join(further)} besides weights and biases, which a "
            "state_dict of linear layers cannot hold; leave this network out"
        )


def names() -> list[str]:
    """The networks that weights and biases of linear layers are enough for."""
    return [name for name in forms.names() if not _other_parameters(name)]


def _other_parameters(network: str) -> list[str]:
    return [
        name
        for layer, act in forms.get(network).layers(2)
        for name in (*layer.parameters, *(name for name, _ in (act.parameters if act else ())))
        if name not in (*forms.LINEAR.parameters, "slope")
    ]


def network_of(
    tensors: Mapping[str, np.ndarray],
    network: str,
    where: str,
    *,
    layers: Sequence[str] = (),
    certain: bool = False,
) -> Params:
    """Build the parameters of a network of that name from named tensors of linear layers.

    Args:
      tensors: as in `from_tensors`.
      network: its name, an activation's or a form's.
      where, layers, certain: as in `from_tensors`.

    Raises:
      InputError: as `from_tensors`, and if the network has other layers, or no last bias where one is not 0.
    """
    refuse_other_layers(network, where)
    params = from_tensors(tensors, where, layers=layers, certain=certain)
    expected = {name for _, act in forms.get(network).layers(len(params)) if act for name, _ in act.parameters}
    for layer in list(params.values())[:-1]:
        if set(layer) - {"weight", "bias"} != expected:
            has, way = (
                ("a slope of a PReLU", "pass --model.activations prelu")
                if "slope" in layer
                else (
                    "no slope of a PReLU",
                    "expected one for each hidden layer; pass the activation that the network was trained with",
                )
            )
            raise InputError(f"{where}: has {has}, unlike a network '{network}'; {way}")
    last = f"dense{len(params) - 1}"
    kinds = forms.get(network).layers(len(params))[-1][0].parameters
    for kind, leaf in params[last].items():
        if kind not in kinds and leaf.any():
            raise InputError(
                f"{where}: its last layer has a {kind}, which a network '{network}' does not have; import it under a "
                "name that has one"
            )
    return params | {last: {kind: params[last][kind] for kind in kinds}}


def stack(networks: list[Params]) -> Params:
    """Stack parameters of equal shapes along a new leading S."""
    return {
        layer: {kind: np.stack([params[layer][kind] for params in networks]) for kind in networks[0][layer]}
        for layer in networks[0]
    }


def hidden_of(params: Params) -> tuple[int, ...]:
    """Units of the hidden layers; the last axis but one of a weight is its layer's units, stacked or not."""
    return tuple(int(params[f"dense{k}"]["weight"].shape[-2]) for k in range(len(params) - 1))


def _without_aliases(tensors: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    left = dict(tensors)
    layers = {name.rpartition(".")[0] for name in tensors}
    if "layers.3" not in layers or not layers <= _PAPER:
        return left  # a network of the user's own may have a layer linear0 beside others
    for alias, original in _ALIASES.items():
        for name in [name for name in left if name.startswith(alias)]:
            same = original + name.removeprefix(alias)
            if same in left and not np.array_equal(left.pop(name), left[same]):
                raise InputError(
                    f"{where}: {name!r} and {same!r} are one tensor in the paper's networks but differ here"
                )
    return left


def _check_neutral(tensors: Mapping[str, np.ndarray], where: str) -> None:
    for name, tensor in tensors.items():
        kind = name.rpartition(".")[2]
        if kind in _NEUTRAL and not (tensor == _NEUTRAL[kind]).all():
            raise InputError(
                f"{where}: {name!r} holds an edit (expected {_NEUTRAL[kind]} everywhere); save the network unedited"
            )


def without_bias(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The layers that have no bias where others have one."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in tensors if name.endswith("weight"))
    layers = {layer: None for layer in layers if tensors[f"{layer}.weight" if layer else "weight"].ndim > 1}
    absent = [layer for layer in layers if (f"{layer}.bias" if layer else "bias") not in tensors]
    return absent if len(absent) < len(layers) else []


_REPARAMETRISED = (
    (("parametrizations.",), "parametrize.remove_parametrizations(layer, 'weight')"),
    (("weight_g", "weight_v"), "remove_weight_norm(layer)"),
    (("weight_u",), "remove_spectral_norm(layer)"),
    (("weight_mask", "weight_orig"), "prune.remove(layer, 'weight')"),
)
"""How weights that PyTorch computes from others are called, and what makes plain ones of them."""


def _is_slope(layer: Mapping[str, np.ndarray]) -> bool:
    return set(layer) == {"weight"} and layer["weight"].shape == (1,)


def _number(name: str) -> int:
    """The place of a member of the one Sequential that a network is; -1 of other names."""
    return int(name) if name.isdecimal() else -1


def _slopes_in_order(slopes: Mapping[str, Any], layers_named: Sequence[str], where: str, *, certain: bool) -> list[str]:
    """The names of PReLUs in the order of the layers before them, where that is certain."""
    names, layers = list(slopes), len(layers_named)
    if not names:
        return []
    if len(names) != layers - 1:
        raise InputError(
            f"{where}: has {counted(len(names), 'slope')} of PReLUs for {counted(layers - 1, 'hidden layer')}; "
            "expected one for each"
        )
    numbers = [sorted(map(_number, each)) for each in (layers_named, names)]
    together = sorted((*numbers[0], *numbers[1]))
    if -1 not in together and (together[::2] != numbers[0] or together[1::2] != numbers[1]):
        raise InputError(
            f"{where}: its PReLUs ({', '.join(names)}) do not stand between its layers ({', '.join(layers_named)}); "
            "expected one behind each layer but the last"
        )
    containers = {name.rpartition(".")[0] for name in names}
    numbered = len(containers) == 1 and all(name.rpartition(".")[2].isdecimal() for name in names)
    if not (certain or numbered or len(names) == 1):
        raise InputError(
            f"{where}: the names of its PReLUs ({', '.join(names)}) do not say behind which layer each is; save the "
            "network as a torch.nn.Sequential"
        )
    return sorted(names, key=lambda name: int(name.rpartition(".")[2])) if numbered and not certain else names


def _instead_of(name: str) -> str:
    """What to do about a tensor that belongs to no linear layer."""
    for ends, remove in _REPARAMETRISED:
        if name.endswith(ends) or ends[0] in name:
            return f"turn it into plain weights first, with torch.nn.utils.{remove}"
    return f"if no output depends on it, pass --leave-out {name}; or else {modules.OWN_NETWORK}"


def _shape(name: str, layer: Mapping[str, np.ndarray], where: str) -> order.Shape:
    """A layer's shape; refused unless it is that of a linear layer."""
    if "weight" not in layer or layer["weight"].ndim not in (2, 3):
        shape = list(layer["weight"].shape) if "weight" in layer else "none"
        raise InputError(
            f"{where}: layer {name!r} has a weight of shape {shape}; expected [units, inputs] of a linear layer; "
            f"{modules.OWN_NETWORK}"
        )
    *seeds, units, inputs = layer["weight"].shape
    bias = layer.get("bias")
    if bias is not None and bias.shape != (*seeds, units):
        turned = bias.shape == (*seeds, inputs)
        raise InputError(
            f"{where}: layer {name!r} has a bias of shape {list(bias.shape)}; expected [{units}], since its weight is "
            f"{[*seeds, units, inputs]}, [units, inputs]"
            + ("; the weights look transposed, [inputs, units] as in Keras and Flax: transpose them" if turned else "")
        )
    return order.Shape(inputs, units, bool(seeds))


def _chain(
    layers: Mapping[str, Mapping[str, np.ndarray]], where: str, asked: Sequence[str], *, certain: bool
) -> list[dict[str, np.ndarray]]:
    """The layers in their order, each with weight and bias; refused unless each fits the one before."""
    chain: list[dict[str, np.ndarray]] = []
    before: Any = None
    shapes = {name: _shape(name, layer, where) for name, layer in layers.items()}
    for name in order.of(shapes, where, asked=asked, certain=certain):
        layer = layers[name]
        weight = layer["weight"]
        *seeds, units, inputs = weight.shape
        bias = layer.get("bias", np.zeros((*seeds, units), np.float32))
        if before is not None and (seeds, inputs) != before[1:]:
            raise InputError(
                f"{where}: layer {name!r} expects {counted(inputs, 'input')}, but {before[0]!r} before it gives "
                f"{before[2]}; expected the linear layers of a perceptron in order"
            )
        before = (name, seeds, units)
        chain.append({"weight": weight, "bias": bias})
    return chain
