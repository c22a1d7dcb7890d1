"""The network in what a training script saved: a mapping of names to tensors, or a module, wherever it lies."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdist.errors import InputError
from jaxdist.formatting import listed
from jaxdist.storage.torch import layer_names, modules, pickles
from jaxdist.storage.torch.pickles import Tensor

PROGRESS = ("epoch", "epochs", "global_step", "step", "steps", "iteration", "iter")
"""Keys under which training scripts keep how far the training is."""

_LAYER = ("weight", "bias", "kernel", "w", "b", "W")
"""What a layer's own tensors are called."""

_BESIDE = ("opt_state", "optimizer", "optimizer_state", "optimizer_state_dict", "batch_stats")
"""Keys under which trees like a network's lie that are none."""

_MOST = 100_000
"""Values that are looked at; beyond, a file holds something else than a network."""

_DEEPEST = 12

_BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")

_TRAINING = {*PROGRESS, *("loss", "losses", "criterion", "metric", "metrics", "acc", "accuracy", "auroc", "confmat")}
_TRAINING |= {"best", "lr", "rng", "random", "seed"}
"""Words in names of entries that training scripts keep beside a network's, as the weights of classes in a loss."""

_OF_TRAINING = {"train", "training", "val", "valid", "validation", "test", "fn", "function", "history", "acc1"}
_OF_TRAINING |= {"state", "torch", "cuda"}
"""Words that may stand beside those."""

_SAVE = "save only the network's state_dict, with torch.save(model.state_dict(), FILE)"


class Network(NamedTuple):
    """The tensors of one network by name, and what else the content says of it."""

    tensors: dict[str, np.ndarray]
    activation: str | None = None
    """That its modules name, if any."""
    certain: bool = False
    """Whether the order of the tensors is that in which a module computes its layers."""
    progress: Mapping[str, float] = types.MappingProxyType({})
    """How far the training was, by the names of `PROGRESS`."""
    notes: tuple[str, ...] = ()
    """What was left aside, or rounded."""


def network_in(content: Any, where: str, *, entry: str = "", left_out: Iterable[str] = ()) -> Network:
    """The one network in the content of a file.

    Args:
      content: as `pickles.load` gives it, or mappings of arrays.
      where: the file, for messages.
      entry: the key under which it lies, where there are several; parts of a longer one with a dot between.
      left_out: names of entries that no output depends on, as the user says.

    Raises:
      InputError: if there is none, or several, or it holds what is not a float or not finite.
    """
    held = _Search(where)
    held.look(content, "", 0)
    networks = held.networks
    if entry:
        networks = {key: value for key, value in networks.items() if key == entry}
        if not networks:
            keys = [repr(key) for key in held.networks if key]
            lie = f"they lie under {listed(keys)}" if keys else "it is the whole file; leave out --entry"
            raise InputError(f"--entry: {where} holds no network under {entry!r}; {lie}")
    if not networks:
        raise InputError(f"{where}: {_nothing(content, held)}")
    layers = {key: _layers(value, where) for key, value in networks.items()}
    first = next(iter(layers))
    if not all(_same(each.entries, layers[first].entries) for each in layers.values()):
        raise InputError(
            f"{where}: holds several networks, or parts of one, under {listed([repr(key) for key in layers])}; "
            "expected one; name the one to import with --entry, or save parts of one network in one state_dict"
        )
    # A module tells more than a state_dict of the same network.
    chosen = next((each for each in layers.values() if each.certain), layers[first])
    left_out = tuple(left_out)
    beside = [key for key in held.loose if key not in left_out and not _of_training(key)]
    if beside:
        raise InputError(
            f"{where}: holds {listed([repr(key) for key in beside[:6]])} beside the network; if no output depends on "
            f"{'it' if len(beside) == 1 else 'them'}, pass --leave-out {','.join(beside)}; if images were scaled by "
            f"{'it' if len(beside) == 1 else 'them'}, scale the images of the data set instead"
        )
    needed, asides = _needed(chosen.entries, where, left_out, beside=held.loose)
    tensors, rounded = {}, False
    for name, value in needed.items():
        tensors[name], narrowed = _narrow(value, f"{where}: tensor {name!r}")
        rounded = rounded or narrowed
    tensors, turned = layer_names.as_pytorch(tensors, where)
    notes = [*chosen.notes, *turned]
    if asides:
        notes.append(f"left aside, since no layer needs it: {listed(asides)}")
    if rounded:
        notes.append("its float64 numbers are rounded to float32")
    progress = _progress_in(content) if isinstance(content, Mapping) else {}
    return Network(tensors, chosen.activation, chosen.certain, progress, tuple(notes))


class _Search:
    """A walk through what a file holds, for the networks in it."""

    def __init__(self, where: str) -> None:
        self.where, self.networks, self.optimizers, self.count = where, dict[str, Any](), 0, 0
        self.loose: dict[str, Any] = {}
        """Tensors that lie beside the networks, by their keys."""
        self._seen: dict[int, Any] = {}

    def look(self, value: Any, key: str, depth: int) -> None:
        """Note the networks in a value, which lies under a key."""
        self.count += 1
        if self.count > _MOST or depth > _DEEPEST:
            raise InputError(f"{self.where}: holds more, or is nested deeper, than what training scripts save; {_SAVE}")
        # A network under two keys is noted under both, for whoever names one.
        if id(value) in self._seen and id(value) not in map(id, self.networks.values()):
            return
        if isinstance(value, Mapping | list | tuple | modules.Foreign):
            self._seen[id(value)] = value  # kept, so that no other gets its place
        if modules.is_module(value) or _is_network(value):
            self.networks[key] = value
            if _params_in(value) is None:
                return
            if value.get("batch_stats"):
                raise modules.batch_norm(self.where, "'params'", "batch_stats")
            value = {name: child for name, child in value.items() if name != "params"}
        tensor = _tensor(value)
        if tensor is not None and (tensor.dtype.kind in "fV" or tensor.size > 1):
            self.loose[key] = tensor
        for name, child in _children(value):
            self.look(child, f"{key}.{name}" if key else str(name), depth + 1)
        if _is_optimizer(value):
            self.optimizers += 1


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    """What lies in a value, by its keys; nothing of an optimiser's state, whose tensors are shaped like weights."""
    if _is_optimizer(value):
        return
    if isinstance(value, Mapping):
        yield from ((name, child) for name, child in value.items() if name not in _BESIDE)
    elif isinstance(value, list | tuple):
        if not all(isinstance(each, int | float | str | bytes | None) for each in value):
            yield from enumerate(value)
    elif isinstance(value, modules.Foreign):
        # What a script's objects hold of its own, such as what it measured, is none of the network's.
        held = ((name, child) for name, child in vars(value).items() if _tensor(child) is None)
        yield from (("", child) if name == modules.ITEMS else (name, child) for name, child in held)


def _is_optimizer(value: Any) -> bool:
    held = vars(value) if isinstance(value, modules.Foreign) else value
    return isinstance(held, Mapping) and "param_groups" in held and "state" in held


def _tensor(value: Any) -> Tensor | np.ndarray | None:
    return value if isinstance(value, np.ndarray) else pickles.array_of(value)


def _is_weight(value: Any) -> bool:
    tensor = _tensor(value)
    return tensor is not None and tensor.ndim > 1 and tensor.dtype.kind in "fV"


def _is_layer(value: Any) -> bool:
    """Whether a mapping is one layer, its tensors named only by what they are."""
    return isinstance(value, Mapping) and any(_is_weight(each) for each in value.values()) and set(value) <= set(_LAYER)


def _is_network(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_weight, value)) and all(_tensor(each) is not None for each in value)
    if not isinstance(value, Mapping) or _is_optimizer(value):
        return False
    if any(_is_weight(each) for each in value.values()):
        return True
    # A tree of layers, as Flax has them; the layers of all its branches are one network's.
    return any(map(_is_layer, value.values())) or _is_tree(_params_in(value), 0)


def _params_in(value: Any) -> Mapping[Any, Any] | None:
    """The tree of parameters that Flax keeps under this key, beside what else a model has; None without one."""
    if not isinstance(value, Mapping) or any(map(_is_weight, value.values())):
        return None
    params = value.get("params")
    return params if isinstance(params, Mapping) else None


def _is_tree(value: Any, depth: int) -> bool:
    """Whether layers lie in a nest of mappings."""
    if depth > _DEEPEST or not isinstance(value, Mapping):
        return False
    return any(_is_layer(each) or _is_tree(each, depth + 1) for each in value.values())


def _layers(value: Any, where: str) -> modules.Layers:
    if modules.is_module(value):
        return modules.layers_of(value, where)
    if isinstance(value, list | tuple):
        return modules.Layers({f"tensor{k}": each for k, each in enumerate(value)})
    tree = _params_in(value)
    entries: dict[str, Any] = {}

    def add(held: Mapping[Any, Any], names: tuple[str, ...]) -> None:
        if len(names) > _DEEPEST:
            raise InputError(f"{where}: is nested deeper than what training scripts save; {_SAVE}")
        for name, each in held.items():
            if isinstance(each, Mapping) and set(each) == {"value"}:  # as Flax's modules keep a parameter
                each = each["value"]
            if isinstance(each, Mapping) and str(name).rpartition(".")[2] not in _LAYER:
                add(each, (*names, str(name)))
            else:
                entries[".".join((*names, str(name)))] = each

    add(value if tree is None else tree, ())
    return modules.Layers(entries)


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two networks hold the same tensors, by whatever names."""
    pairs = [
        [tensor for each in entries.values() if (tensor := _tensor(each)) is not None] for entries in (first, second)
    ]
    if len(pairs[0]) != len(pairs[1]):
        return False
    return all(
        a is b or (a.dtype == b.dtype and a.shape == b.shape and np.array_equal(np.asarray(a), np.asarray(b)))
        for a, b in zip(*pairs, strict=True)
    )


def _of_training(name: str) -> bool:
    """Whether a name is that of what a script measures or counts, by the words of its first part."""
    words = [word for word in name.partition(".")[0].lower().split("_") if word]
    return bool(_TRAINING & set(words)) and set(words) <= _TRAINING | _OF_TRAINING


def _needed(
    entries: Mapping[str, Any], where: str, left_out: tuple[str, ...], beside: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The float tensors of a network's layers, and the names of what stands beside them without being part of any."""
    if absent := [name for name in left_out if name not in entries and name not in beside]:
        raise InputError(f"--leave-out: {where} has no entry {absent[0]!r}; its entries: {listed(list(entries))}")
    layers = {name.rpartition(".")[0] for name, value in entries.items() if _is_weight(value)}
    needed, asides = {}, []
    for name, value in entries.items():
        layer, _, kind = name.rpartition(".")
        if kind in _BATCH_NORM:
            raise modules.batch_norm(where, repr(layer), kind)
        tensor = _tensor(value)
        own = kind in _LAYER and (layer in layers or not _of_training(name))
        if isinstance(value, list):
            raise InputError(
                f"{where}: tensor {name!r} is a list; if these are the paper's sweep results, pass them to 'jaxdist "
                "compare'"
            )
        plain = tensor is not None and tensor.dtype.kind in "fV"
        if name in left_out:
            asides.append(name)
        elif own and value is not None and not plain:
            what = tensor.dtype if tensor is not None else "not a plain dense array"
            raise InputError(
                f"{where}: tensor {name!r} is {what}; expected floats; save model.float().state_dict() of an ordinary "
                "module on the CPU"
            )
        elif tensor is None or (not plain and tensor.ndim == 0) or (not own and _of_training(name)):
            asides.append(name)
        elif not plain:
            raise InputError(
                f"{where}: tensor {name!r} of shape {list(tensor.shape)} is {tensor.dtype}, no weight or bias; if no "
                f"output depends on it, as on a mask or an order of inputs, pass --leave-out {name}"
            )
        else:
            needed[name] = tensor
    return needed, asides


def _narrow(tensor: Tensor | np.ndarray, where: str) -> tuple[np.ndarray, bool]:
    """A tensor in float32, and whether numbers were rounded for it."""
    try:
        array = np.asarray(tensor)
    except (pickles.DamagedError, ValueError, LookupError, OSError, RuntimeError) as error:
        raise InputError(f"{where} cannot be read ({error}); save model.state_dict() of an ordinary module") from None
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    rounded = bool((narrow.astype(array.dtype) != array).any() & np.isfinite(array.astype(np.float64)).all())
    # A clip of infinity is the paper's way to say that nothing is clipped.
    clip = where.rstrip("'").endswith("clip")
    if not (np.isfinite(narrow) | np.isposinf(narrow) & clip).all():
        raise InputError(f"{where} holds values that are not finite; train the network again")
    return narrow, rounded


def _progress_in(content: Mapping[Any, Any]) -> dict[str, float]:
    """How far the training was that saved a dictionary."""
    numbers = {str(key): value for key, value in content.items() if str(key) in PROGRESS}
    for key, value in numbers.items():
        if (tensor := _tensor(value)) is not None and tensor.size == 1:
            with contextlib.suppress(pickles.DamagedError):
                numbers[key] = np.asarray(tensor).item()
    return {key: float(value) for key, value in numbers.items() if isinstance(value, int | float)}


def _nothing(content: Any, held: _Search) -> str:
    """Why there is no network in a content, with what to do."""
    if held.optimizers:
        return "holds an optimiser's state; pass the file that holds the network's weights"
    if isinstance(content, modules.Foreign):
        return (
            f"holds an object of {type(content).named or 'an unknown class'!r}, which is not on the list of what may "
            f"be loaded, so nothing in it was executed; {_SAVE}"
        )
    if isinstance(content, Mapping):
        types = {str(key): tensor.dtype for key, value in content.items() if (tensor := _tensor(value)) is not None}
        keys = [f"{key!r}{f' ({types[str(key)]})' if str(key) in types else ''}" for key in map(str, list(content)[:6])]
        said = listed(keys) if keys else "nothing"
        return f"holds {said}, but no weights of a linear layer; nothing in it was executed; {_SAVE}"
    return f"expected a state_dict or a module, got {type(content).__name__}; nothing in it was executed; {_SAVE}"
