"""Whole pickled modules as inert stand-ins, and the perceptron that their structure describes, if it is one."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jaxdist.errors import InputError

Role = Literal["sequence", "linear", "activation", "nothing", "edit", "network"]

_MOST = 200
"""Modules in one file; a perceptron has a few, and a crafted file can nest or repeat them without end."""


class StandIn:
    """What a pickled module becomes: an object that holds its attributes and can do nothing."""

    role: Role
    activation: str | None = None
    settings: Mapping[str, Any] = types.MappingProxyType({})
    """Attributes with the values that make it the activation of that name."""


def _stand_in(name: str, role: Role, activation: str | None = None, **settings: Any) -> type[StandIn]:
    attributes = {"role": role, "activation": activation, "settings": settings}
    return type(name.rpartition(".")[2], (StandIn,), attributes)


class Inert:
    """What else training scripts save becomes: an object that can do nothing."""

    def __init__(self, *parts: Any) -> None:
        """Take what the pickled object was made of, and leave it."""


_ROLES: dict[str, Role] = {
    "container.Sequential": "sequence",
    "linear.Linear": "linear",
    "linear.Identity": "nothing",
    "flatten.Flatten": "nothing",
    "dropout.Dropout": "nothing",
}
_ACTIVATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ReLU", "relu", {}),
    ("LeakyReLU", "leaky_relu", {"negative_slope": 0.01}),
    ("ELU", "elu", {"alpha": 1.0}),
    ("GELU", "gelu", {"approximate": "none"}),
    ("SiLU", "silu", {}),
    ("Softplus", "softplus", {"beta": 1.0, "threshold": 20.0}),
    ("Tanh", "tanh", {}),
    ("Sigmoid", "sigmoid", {}),
)
"""PyTorch's activations without learned numbers: their classes, our names, and the settings with which they agree."""

_PAPER: dict[str, Role] = {
    "Model_PerturbationReLU": "network",
    "Model_PerturbationAbs": "network",
    "PerturbationLayer": "edit",
}
STAND_INS: dict[str, type[StandIn | Inert]] = {
    **{
        name: type(name.rpartition(".")[2], (Inert,), {})
        for name in (
            "argparse.Namespace",
            *(
                f"pathlib{part}.{kind}"
                for part in ("", "._local")
                for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
            ),
        )
    },
    **{f"torch.nn.modules.{name}": _stand_in(name, role) for name, role in _ROLES.items()},
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


def layers_of(module: StandIn, where: str) -> tuple[dict[str, Any], str]:
    """The tensors of a pickled perceptron by name, and the one activation between its layers.

    Raises:
      InputError: unless the module is linear layers with the same activation after each but the last.
    """
    prefix = ""
    if type(module).role == "network":
        # The paper's networks compute their Sequential; the other attributes are further names of its members.
        module, prefix = _members(module, where).get("layers", module), "layers."
    leaves = [leaf for leaf in _leaves(module, prefix, where, ()) if type(leaf[1]).role != "nothing"]
    if len(leaves) > _MOST:
        raise InputError(f"{where}: holds more than {_MOST} modules; expected a perceptron")
    computed = [leaf for _, leaf in leaves if type(leaf).role != "edit"]
    for leaf in computed:
        for key, expected in type(leaf).settings.items():
            if (value := vars(leaf).get(key, expected)) != expected:
                raise InputError(
                    f"{where}: its {type(leaf).__name__} has {key} {value!r}; expected {expected!r}, as "
                    f"'{type(leaf).activation}' has here; measure the network as a JAX function with jaxdist.probe"
                )
    kinds = [type(leaf).activation or type(leaf).role for leaf in computed]
    acts = set(kinds[1::2])
    if len(kinds) < 3 or len(kinds) % 2 == 0 or set(kinds[::2]) != {"linear"} or len(acts) != 1 or "linear" in acts:
        raise InputError(
            f"{where}: computes {', '.join(kinds) or 'nothing'}; expected linear layers with one activation after each "
            "but the last"
        )
    tensors = {name: tensor for prefix, leaf in leaves for name, tensor in _tensors(leaf, prefix, where)}
    return tensors, acts.pop()


def _leaves(module: StandIn, prefix: str, where: str, path: tuple[int, ...]) -> Iterator[tuple[str, StandIn]]:
    """The modules that a nest of Sequentials calls, in order."""
    if type(module).role != "sequence":
        yield prefix, module
        return
    if id(module) in path or len(path) > _MOST:
        raise InputError(f"{where}: a module contains itself; expected a perceptron")
    count = 0
    for name, child in _members(module, where).items():
        for leaf in _leaves(child, f"{prefix}{name}.", where, (*path, id(module))):
            yield leaf
            count += 1
            if count > _MOST:
                raise InputError(f"{where}: holds more than {_MOST} modules; expected a perceptron")


def _members(module: StandIn, where: str) -> dict[str, StandIn]:
    children = _attribute(module, "_modules", where)
    if not all(isinstance(child, StandIn) for child in children.values()):
        raise InputError(
            f"{where}: holds something that is not a module where one belongs; save model.state_dict() instead"
        )
    return {str(name): child for name, child in children.items()}


def _tensors(module: StandIn, prefix: str, where: str) -> Iterator[tuple[str, Any]]:
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _attribute(module, kind, where).items():
            if tensor is not None:
                yield f"{prefix}{name}", tensor


def _attribute(module: StandIn, name: str, where: str) -> Mapping[Any, Any]:
    attribute = vars(module).get(name, {})
    if not isinstance(attribute, Mapping):
        raise InputError(f"{where}: a module's {name} is a {type(attribute).__name__}; save model.state_dict() instead")
    return attribute
