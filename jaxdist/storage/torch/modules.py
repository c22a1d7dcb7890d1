"""Modules of a pickle as inert stand-ins: what they hold, and the perceptron that their structure describes, if any."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from jaxdist.errors import InputError

Role = Literal["sequence", "wrapper", "linear", "activation", "slopes", "nothing", "softmax", "edit", "network"]

MOST = 200
"""Modules in one file; a perceptron has a few, and a crafted file can nest or repeat them without end."""

OWN_NETWORK = (
    "write the network as a JAX function apply(params, x) that names what to edit with jaxdist.site(name, value), and "
    "measure it by jaxdist.probe(apply, params, train=(x, y), test=(x, y), sites=[name])"
)
"""What to do with a network that is no perceptron."""


ITEMS = " items"
"""The attribute under which an object keeps its entries; no name of Python's is like it."""


class Foreign:
    """An object of a class that is not on the list: it holds what was stored in it and can do nothing."""

    named = ""
    """The name under which the class is pickled."""

    def __new__(cls, *parts: Any, **named: Any) -> Any:  # noqa: ARG004  (whatever the object was made of)
        """Leave what it was made of."""
        return super().__new__(cls)

    def __init__(self, *parts: Any, **named: Any) -> None:
        """Leave what it was made of."""

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes that were stored."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.__dict__.update({str(name): value for name, value in part.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep an entry, as that of a dictionary of another kind."""
        self.__dict__.setdefault(ITEMS, {})[key] = value

    def __call__(self, *parts: Any, **named: Any) -> Foreign:
        """Stand for what a call would have given."""
        return Foreign()

    def append(self, item: Any) -> None:
        """Leave an item out."""

    extend = add = append


class StandIn(Foreign):
    """A module of a known class."""

    role: Role
    activation: str | None = None
    settings: Mapping[str, tuple[Any, ...]] = types.MappingProxyType({})
    """Attributes with the values that make it what its role says."""


def _stand_in(name: str, role: Role, activation: str | None = None, **settings: tuple[Any, ...]) -> type[StandIn]:
    attributes = {"role": role, "activation": activation, "settings": settings, "named": name}
    return type(name.rpartition(".")[2], (StandIn,), attributes)


_ROLES: tuple[tuple[str, Role, dict[str, tuple[Any, ...]]], ...] = (
    ("modules.container.Sequential", "sequence", {}),
    ("parallel.data_parallel.DataParallel", "wrapper", {}),
    ("parallel.distributed.DistributedDataParallel", "wrapper", {}),
    ("modules.linear.Linear", "linear", {}),
    ("modules.linear.Identity", "nothing", {}),
    ("modules.flatten.Flatten", "nothing", {}),
    ("modules.dropout.Dropout", "nothing", {}),
    ("modules.activation.Softmax", "softmax", {"dim": (1, -1, None)}),
    ("modules.activation.LogSoftmax", "softmax", {"dim": (1, -1, None)}),
    ("modules.activation.PReLU", "slopes", {}),
)
_ACTIVATIONS: tuple[tuple[str, str, dict[str, tuple[Any, ...]]], ...] = (
    ("ReLU", "relu", {}),
    ("LeakyReLU", "leaky_relu", {"negative_slope": (0.01,)}),
    ("ELU", "elu", {"alpha": (1.0,)}),
    ("GELU", "gelu", {"approximate": ("none",)}),
    ("SiLU", "silu", {}),
    ("Softplus", "softplus", {"beta": (1.0,), "threshold": (20.0,)}),
    ("Tanh", "tanh", {}),
    ("Sigmoid", "sigmoid", {}),
)
"""PyTorch's activations without learned numbers: their classes, our names, and the settings with which they agree."""

_PAPER: dict[str, Role] = {
    "Model_PerturbationReLU": "network",
    "Model_PerturbationAbs": "network",
    "PerturbationLayer": "edit",
}
STAND_INS: dict[str, type[StandIn]] = {
    **{f"torch.nn.{name}": _stand_in(f"torch.nn.{name}", role, None, **settings) for name, role, settings in _ROLES},
    **{
        f"torch.nn.modules.activation.{name}": _stand_in(name, "activation", activation, **settings)
        for name, activation, settings in _ACTIVATIONS
    },
    # The classes of the paper's code, by the names under which its scripts import them.
    **{
        f"{module}.{name}": stand_in
        for module in ("models", "src.models", "__main__")
        for name, stand_in in {
            **{name: _stand_in(name, role) for name, role in _PAPER.items()},
            "Abs": _stand_in("Abs", "activation", "abs"),
        }.items()
    },
}
"""Every class that may stand in a pickled module, by the name under which it is pickled."""


class Layers(NamedTuple):
    """What a pickled module holds, by its tensors' names in a state_dict."""

    entries: dict[str, Any]
    activation: str | None = None
    """The one between its layers, where its modules tell it."""
    certain: bool = False
    """Whether the order of the entries is that in which the module computes its layers."""
    notes: tuple[str, ...] = ()


def is_module(value: Any) -> bool:
    """Whether an object of a pickle is a module, or one of a program of torch.jit."""
    if not isinstance(value, Foreign):
        return False
    return "_modules" in vars(value) or "_parameters" in vars(value) or _of_jit(value)


def _of_jit(value: Foreign) -> bool:
    return type(value).named.startswith("__torch__.")


def layers_of(module: Foreign, where: str) -> Layers:
    """The tensors of a pickled module by name, and what its structure tells.

    The order is certain where it is a Sequential of linear layers with the same activation after each but the last.
    That of a class of the user's own is not: what it computes is in its code.

    Raises:
      InputError: for other layers than linear ones, other settings than ours, or a Sequential of another kind.
    """
    prefix = ""
    _refuse_hooks(module, where)
    while isinstance(module, StandIn) and type(module).role == "wrapper":
        members = _members(module, where)
        if len(members) != 1 or len(prefix) > MOST:
            raise InputError(f"{where}: its {type(module).__name__} holds no module; save model.state_dict() instead")
        ((name, module),) = members.items()
        _refuse_hooks(module, where)
        prefix = f"{prefix}{name}."
    if isinstance(module, StandIn) and type(module).role == "network":
        # The paper's networks compute their Sequential; the other attributes are further names of its members.
        module, prefix = _members(module, where).get("layers", module), f"{prefix}layers."
    if not (isinstance(module, StandIn) and type(module).role == "sequence"):
        return Layers(dict(_entries(module, prefix, where, ())))
    leaves = list(_leaves(module, prefix, where, ()))
    if any(not isinstance(leaf, StandIn) and _members(leaf, where) for _, leaf in leaves):
        return Layers(dict(_entries(module, prefix, where, ())))
    return _sequence(leaves, where)


def _sequence(leaves: list[tuple[str, Foreign]], where: str) -> Layers:
    """What the leaves of a Sequential are as a perceptron."""
    for name, leaf in leaves:
        _refuse_hooks(leaf, where)
        _refuse_other_settings(name, leaf, where)
    notes = []
    if leaves and _kind(leaves[-1][1]) == "softmax":
        notes.append(f"its {type(leaves.pop()[1]).__name__} at the end is left out: logits are what comes before it")
    leaves = [leaf for leaf in leaves if _kind(leaf[1]) != "nothing"]
    computed = [leaf for _, leaf in leaves if _kind(leaf) != "edit"]
    kinds = [_kind(leaf) for leaf in computed]
    entries = {name: tensor for prefix, leaf in leaves for name, tensor in _tensors(leaf, prefix, where)}
    if len(kinds) > 1 and set(kinds) == {"linear"}:
        return Layers(entries, "identity", certain=True, notes=tuple(notes))
    acts = set(kinds[1::2])
    plain = set(kinds[::2]) == {"linear"} and len(acts) == 1 and not acts & {"linear", "softmax"}
    if len(kinds) < 3 or len(kinds) % 2 == 0 or not plain:
        raise InputError(
            f"{where}: computes {', '.join(kinds) or 'nothing'}; expected linear layers with one activation after each "
            "but the last"
        )
    # An activation of the user's own is one of which only they know what it computes.
    told = isinstance(computed[1], StandIn)
    return Layers(entries, acts.pop() if told else None, certain=True, notes=tuple(notes))


def _kind(leaf: Foreign) -> str:
    if not isinstance(leaf, StandIn):
        return type(leaf).__name__
    return "prelu" if type(leaf).role == "slopes" else type(leaf).activation or type(leaf).role


def _refuse_hooks(module: Foreign, where: str) -> None:
    for kind in ("_forward_hooks", "_forward_pre_hooks"):
        if vars(module).get(kind):
            raise InputError(
                f"{where}: its {type(module).__name__} has functions that are called with it ({kind}), and may change "
                "what it computes; remove them, or save model.state_dict() if they do not"
            )


def _refuse_other_settings(name: str, leaf: Foreign, where: str) -> None:
    if not isinstance(leaf, StandIn):
        # Only of a class of the user's own may they say what it computes.
        if _class_of(leaf).startswith("torch.") or any(True for _ in _tensors(leaf, "", where)):
            raise _other_layer(name, leaf, where)
        return
    for key, expected in type(leaf).settings.items():
        value = vars(leaf).get(key, expected[0])
        if not (isinstance(value, int | float | str | None) and value in expected):
            ours = f", as '{type(leaf).activation}' has here" if type(leaf).activation else ""
            raise InputError(
                f"{where}: its {type(leaf).__name__} has {key} {value!r}; expected {expected[0]!r}{ours}; {OWN_NETWORK}"
            )


def _other_layer(name: str, leaf: Foreign, where: str) -> InputError:
    kind = _class_of(leaf)
    layer = name.rstrip(".") or "its only one"
    if "BatchNorm" in kind:
        return batch_norm(where, repr(layer), kind)
    if kind.startswith("torch."):
        return InputError(
            f"{where}: layer {layer!r} is a {kind}; expected linear layers, and between them one of "
            f"{', '.join(sorted((*(each[0] for each in _ACTIVATIONS), 'PReLU')))}; {OWN_NETWORK}"
        )
    return InputError(
        f"{where}: layer {layer!r} is a {kind}, whose code was not executed, so what it computes is not known; if that "
        "is what torch.nn.Linear computes, save model.state_dict() instead"
    )


def batch_norm(where: str, layer: str, told_by: str) -> InputError:
    """The refusal of a BatchNorm, and by what it is told."""
    return InputError(
        f"{where}: layer {layer} is a BatchNorm ({told_by}); only linear layers can be imported; fold it into the "
        f"layer before it, or {OWN_NETWORK}"
    )


def _class_of(module: Foreign) -> str:
    """The name of a module's class; those of torch.jit's programs have more around it."""
    return re.sub(r"___torch_mangle_\d+\.", "", type(module).named.removeprefix("__torch__."))


def _entries(module: Foreign, prefix: str, where: str, path: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """The tensors of a module and of all inside it, as in its state_dict."""
    if id(module) in path or len(path) > MOST:
        raise InputError(f"{where}: a module contains itself; expected a perceptron")
    _refuse_hooks(module, where)
    own, members = list(_tensors(module, prefix, where)), _members(module, where)
    kind = _class_of(module)
    if own and kind.startswith("torch.nn.") and kind.rpartition(".")[2] not in ("Linear", "PReLU"):
        raise _other_layer(prefix, module, where)
    if own and not members and {name.rpartition(".")[2] for name, _ in own} & {"weight"} and "torch.nn." not in kind:
        raise _other_layer(prefix, module, where)
    yield from own
    count = 0
    for name, child in members.items():
        for entry in _entries(child, f"{prefix}{name}.", where, (*path, id(module))):
            yield entry
            count += 1
            if count > 4 * MOST:
                raise InputError(f"{where}: holds more than {MOST} modules; expected a perceptron")


def _leaves(module: Foreign, prefix: str, where: str, path: tuple[int, ...]) -> Iterator[tuple[str, Foreign]]:
    """The modules that a nest of Sequentials calls, in order."""
    if not (isinstance(module, StandIn) and type(module).role == "sequence"):
        yield prefix, module
        return
    if id(module) in path or len(path) > MOST:
        raise InputError(f"{where}: a module contains itself; expected a perceptron")
    count = 0
    for name, child in _members(module, where).items():
        for leaf in _leaves(child, f"{prefix}{name}.", where, (*path, id(module))):
            yield leaf
            count += 1
            if count > MOST:
                raise InputError(f"{where}: holds more than {MOST} modules; expected a perceptron")


def _members(module: Foreign, where: str) -> dict[str, Foreign]:
    if _of_jit(module):
        return {name: value for name, value in vars(module).items() if isinstance(value, Foreign)}
    children = {name: child for name, child in _attribute(module, "_modules", where).items() if child is not None}
    if not all(isinstance(child, Foreign) for child in children.values()):
        raise InputError(
            f"{where}: holds something that is not a module where one belongs; save model.state_dict() instead"
        )
    return {str(name): child for name, child in children.items()}


def _tensors(module: Foreign, prefix: str, where: str) -> Iterator[tuple[str, Any]]:
    if _of_jit(module):
        held = {name: value for name, value in vars(module).items() if hasattr(value, "ndim")}
        yield from ((f"{prefix}{name}", value) for name, value in held.items())
        return
    passing = vars(module).get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _attribute(module, kind, where).items():
            if tensor is not None and not (isinstance(passing, set | list | tuple) and name in passing):
                yield f"{prefix}{name}", tensor


def _attribute(module: Foreign, name: str, where: str) -> Mapping[Any, Any]:
    attribute = vars(module).get(name, {})
    if not isinstance(attribute, Mapping):
        raise InputError(f"{where}: a module's {name} is a {type(attribute).__name__}; save model.state_dict() instead")
    return attribute
