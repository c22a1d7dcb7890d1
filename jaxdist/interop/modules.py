"""Whole pickled modules as inert stand-ins, and the perceptron that their structure describes, if it is one."""

from __future__ import annotations

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


def _stand_in(name: str, role: Role, activation: str | None = None) -> type[StandIn]:
    return type(name.rpartition(".")[2], (StandIn,), {"role": role, "activation": activation})


_ROLES: dict[str, Role] = {
    "container.Sequential": "sequence",
    "linear.Linear": "linear",
    "linear.Identity": "nothing",
    "flatten.Flatten": "nothing",
    "dropout.Dropout": "nothing",
}
_PAPER: dict[str, Role] = {
    "Model_PerturbationReLU": "network",
    "Model_PerturbationAbs": "network",
    "PerturbationLayer": "edit",
}
STAND_INS: dict[str, type[StandIn]] = {
    **{f"torch.nn.modules.{name}": _stand_in(name, role) for name, role in _ROLES.items()},
    "torch.nn.modules.activation.ReLU": _stand_in("ReLU", "activation", "relu"),
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
    found = _attribute(module, "_modules", where)
    if not all(isinstance(child, StandIn) for child in found.values()):
        raise InputError(f"{where}: holds something that is no module where one belongs; save model.state_dict()")
    return {str(name): child for name, child in found.items()}


def _tensors(module: StandIn, prefix: str, where: str) -> Iterator[tuple[str, Any]]:
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _attribute(module, kind, where).items():
            if tensor is not None:
                yield f"{prefix}{name}", tensor


def _attribute(module: StandIn, name: str, where: str) -> Mapping[Any, Any]:
    found = vars(module).get(name, {})
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: a module's {name} is a {type(found).__name__}; save model.state_dict() instead")
    return found
