"""What a Keras model computes by the config beside its weights, where that is dense layers one after another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdist.errors import InputError
from jaxdist.storage.torch.modules import OWN_NETWORK

_ACTIVATIONS = {"swish": "silu"} | {
    name: name for name in ("relu", "elu", "gelu", "silu", "softplus", "tanh", "sigmoid")
}
"""Keras's activations that have ours of the same settings; its leaky_relu has another slope."""

_NONE = ("linear", "None")
_SOFTMAX = ("softmax", "log_softmax")
_NOTHING = ("InputLayer", "Flatten", "Dropout")


class Arrays(dict[str, Any]):
    """Mappings of names to arrays, and what the file says beside them."""

    activation: str | None = None
    certain: bool = False
    """Whether their order is that in which the layers are computed."""
    notes: tuple[str, ...] = ()


class _Layer(NamedTuple):
    kind: str
    name: str
    config: Mapping[str, Any]
    before: tuple[str, ...] | None
    """The layers whose values it takes; None in a Sequential, where that is the one before it."""


def ordered(arrays: Mapping[str, Any], model: Any, where: str, *, by_class: bool) -> Arrays:
    """The arrays in the order in which the dense layers are computed, with the activation that the config tells.

    Args:
      arrays: ``<layer>.kernel`` and ``<layer>.bias``.
      model: the config of the whole model.
      where: the file, for messages.
      by_class: arrays lie under names that Keras makes of a layer's class and place, dense, dense_1, ..., not under the
        layer's own.

    Raises:
      InputError: for other layers than dense ones, layers that are no chain, or an activation with other settings.
    """
    every = _layers(model, where)
    for layer in every:
        if layer.kind not in ("Dense", "Activation", "ReLU", "Softmax", *_NOTHING):
            raise InputError(
                f"{where}: layer {layer.name!r} is a {layer.kind}; expected Dense layers, with Flatten and Dropout at "
                f"most; {OWN_NETWORK}"
            )
    layers = _chain(every, where)
    dense = [layer for layer in layers if layer.kind == "Dense"]
    if not dense:
        raise InputError(f"{where}: has no Dense layers; expected those of a perceptron")
    if by_class:
        listing = [layer.name for layer in every if layer.kind == "Dense"]
        groups = {name: f"dense_{k}" if k else "dense" for k, name in enumerate(listing)}
    else:
        groups = {layer.name: layer.name for layer in dense}
    there = {name.rpartition(".")[0] for name in arrays}
    if there != set(groups.values()):
        raise InputError(
            f"{where}: holds arrays of {', '.join(sorted(there))}, but its config has the layers "
            f"{', '.join(groups.values())}; save the model anew"
        )
    result = Arrays(
        {
            name: array
            for layer in dense
            for name, array in arrays.items()
            if name.rpartition(".")[0] == groups[layer.name]
        }
    )
    result.activation, result.notes = _activation(layers, where)
    result.certain = True
    return result


def _layers(model: Any, where: str) -> list[_Layer]:
    config = model.get("config", {}) if isinstance(model, Mapping) else {}
    listed = config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(listed, list):
        raise InputError(
            f"{where}: its model is of a class of its own, {model.get('class_name')!r}, whose code is not in the file; "
            "save its weights with model.save_weights('model.weights.h5')"
        )
    layers = []
    for each in listed:
        kind, own = str(each.get("class_name")), each.get("config", {})
        name, module = str(own.get("name", kind)), str(each.get("module", "keras"))
        if not module.startswith("keras"):
            raise InputError(
                f"{where}: layer {name!r} is of a class of its own, {module}.{kind}, whose code was not executed, so "
                f"what it computes is not known; {OWN_NETWORK}"
            )
        sequential = "input_layers" not in config
        layers.append(_Layer(kind, name, own, None if sequential else tuple(_sources(each.get("inbound_nodes")))))
    if "input_layers" in config and len(_names(config.get("output_layers"))) > 1:
        raise InputError(f"{where}: has several outputs; expected the one of a perceptron; save a model of it alone")
    return layers


def _names(value: Any) -> list[str]:
    """The names of layers in a list such as ["dense", 0, 0] or [["a", 0, 0], ["b", 0, 0]]."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [value[0]]
    return [name for each in value for name in _names(each)] if isinstance(value, list) else []


def _sources(value: Any) -> list[str]:
    """The layers whose values a layer takes, over all its calls, in the forms that Keras 3 and earlier ones write."""
    if isinstance(value, Mapping):
        history = value.get("keras_history")
        if isinstance(history, list) and history:
            return [str(history[0])]
        return [name for each in value.values() for name in _sources(each)]
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            return [value[0]]
        return [name for each in value for name in _sources(each)]
    return []


def _chain(layers: Sequence[_Layer], where: str) -> list[_Layer]:
    """The layers in the order in which they are computed, each of what the one before it gives."""
    if all(layer.before is None for layer in layers):
        return list(layers)
    chain = [layer for layer in layers if not layer.before]
    follows: dict[str, list[_Layer]] = {}
    for layer in layers:
        for name in layer.before or ():
            follows.setdefault(name, []).append(layer)
    while len(chain) == 1 or (chain and len(follows.get(chain[-1].name, ())) == 1):
        after = follows.get(chain[-1].name, [])
        if len(after) != 1 or after[0] in chain:
            break
        chain.append(after[0])
    if len(chain) != len(layers) or any(len(layer.before or ()) > 1 for layer in layers):
        raise InputError(f"{where}: its layers are no chain, each computed once from the one before; {OWN_NETWORK}")
    return chain


def _activation(layers: Sequence[_Layer], where: str) -> tuple[str | None, tuple[str, ...]]:
    """The one activation between the dense layers, and what is to be said of the end."""
    kinds: list[str] = []
    for layer in layers:
        if layer.kind == "Dense":
            kinds.append(_named(layer.config.get("activation")))
        elif layer.kind in ("Activation", "ReLU", "Softmax") and kinds and kinds[-1] in _NONE:
            _refuse_settings(layer, where)
            kinds[-1] = _named(layer.config["activation"]) if layer.kind == "Activation" else layer.kind.lower()
        elif layer.kind not in _NOTHING:
            raise InputError(
                f"{where}: {layer.name!r} ({layer.kind}) follows an activation, or stands before the first layer; "
                f"expected one activation behind each Dense layer; {OWN_NETWORK}"
            )
    notes: tuple[str, ...] = ()
    if kinds[-1] in _SOFTMAX:
        notes = (f"its {kinds[-1]} at the end is left out: logits are what comes before it",)
    elif kinds[-1] not in _NONE:
        raise InputError(f"{where}: has the activation {kinds[-1]!r} behind its last layer; expected none, or softmax")
    acts = {"identity" if kind in _NONE else kind for kind in kinds[:-1]}
    if len(acts) > 1:
        raise InputError(f"{where}: has the activations {', '.join(sorted(acts))}; expected one for all layers")
    act = next(iter(acts), None)
    if act is not None and act != "identity" and act not in _ACTIVATIONS:
        raise InputError(
            f"{where}: its activation {act!r} is not one of those here with Keras's settings: "
            f"{', '.join(sorted(_ACTIVATIONS))}; {OWN_NETWORK}"
        )
    return (_ACTIVATIONS.get(act, act) if act else None), notes


def _refuse_settings(layer: _Layer, where: str) -> None:
    """Raise `InputError` for an activation layer with settings of its own."""
    plain = {"negative_slope": (0, None), "threshold": (0, None), "max_value": (None,), "axis": (-1, 1)}
    for name, expected in plain.items():
        value = layer.config.get(name, expected[0])
        if isinstance(value, dict | list) or value not in expected:
            raise InputError(f"{where}: its {layer.kind} has {name} {value!r}; expected {expected[0]!r}; {OWN_NETWORK}")


def _named(activation: Any) -> str:
    """What an activation is called in a config."""
    if isinstance(activation, Mapping):
        return re.sub(r"\W", "_", str(activation.get("registered_name") or activation.get("class_name")))[:60]
    return str(activation)[:60]
