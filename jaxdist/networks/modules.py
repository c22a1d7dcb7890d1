"""Modules of Flax, Equinox and Haiku as functions ``apply(params, x)`` whose submodules' outputs are sites.

A site is named by the submodule's path, as "Dense_0" or "blocks/1/attention"; its value is what a call of the submodule
returns, and of a call that returns several arrays each is a site, as "rnn/cell[0]". The module itself is no site.
Values that a Flax module sows or perturbs are sites, too, named by the path of the module and the value's own name. A
module does not go on with what ``sow`` returns, so an edit of a sown value holds for all that is computed of it in
later lines of the same program; values computed of it before that line stay as they are.

The functions compute what the module does, and ignore the tap that older callers give; names are given only while
`jaxdist.networks.site_values.trace` traces them. For Equinox, NNX and values that are sown, methods of the classes are
replaced as long as that takes, for the thread that traces alone, and under a lock. Equal modules with equal options
give equal functions, so a second use compiles nothing; a module that cannot be hashed is equal to itself alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import jax
from flax import linen, nnx
from flax.errors import InvalidRngError, ModifyScopeVariableError
from jax import Array

from jaxdist.errors import InputError
from jaxdist.networks import site_programs
from jaxdist.networks.site_primitives import Kind, tag
from jaxdist.networks.site_values import shape_of, tracing
from jaxdist.types import Params

Function: TypeAlias = Callable[[Params, Any], Any]
"""``apply(params, x[n, ...])``; what it returns is the module's output."""

_LOCK = threading.RLock()
"""Held while classes have other methods than their own."""

_BUSY = threading.local()
"""The instances whose calls are under way, so that a call by ``super()`` is no further one."""


class _Static:
    """Something that compares by its value where it can be hashed, and by identity elsewhere."""

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self.hash: int | None = hash(value)
        except TypeError:
            self.hash = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static):
            return NotImplemented
        if self.value is other.value:
            return True
        if self.hash is None or self.hash != other.hash or type(self.value) is not type(other.value):
            return False
        return bool(self.value == other.value)

    def __hash__(self) -> int:
        return id(self.value) if self.hash is None else self.hash


_Call: TypeAlias = tuple[tuple[str, _Static], ...]


def _call(options: Mapping[str, Any]) -> _Call:
    return tuple((name, _Static(value)) for name, value in sorted(options.items()))


def _options(call: _Call) -> dict[str, Any]:
    return {name: option.value for name, option in call}


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


# Replacing methods.


@contextlib.contextmanager
def _replaced(methods: Iterable[tuple[type, str]], wrap: Callable[[str, Any, Any], Any]) -> Iterator[None]:
    """Replace methods for this thread: ``wrap(name, instance, bound_method)`` gives what is called in their place."""
    thread = threading.get_ident()

    def replacement(cls: type, name: str) -> Any:
        own = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            bound = own.__get__(self, type(self)) if hasattr(own, "__get__") else functools.partial(own, self)
            if threading.get_ident() == thread:
                bound = wrap(name, self, bound)
            return bound(*args, **kwargs)

        return functools.wraps(own)(method) if callable(own) else method

    with _LOCK:
        distinct = dict.fromkeys(methods)
        before = {(cls, name): vars(cls).get(name) for cls, name in distinct}
        replacements = {(cls, name): replacement(cls, name) for cls, name in distinct}
        try:
            for (cls, name), method in replacements.items():
                type.__setattr__(cls, name, method)
            yield
        finally:
            for (cls, name), method in before.items():
                if method is None:
                    type.__delattr__(cls, name)
                else:
                    type.__setattr__(cls, name, method)


def _tagged_call(path: str | None, instance: Any, bound: Callable[..., Any]) -> Callable[..., Any]:
    """A call that names its output, except where one of the same instance is under way."""

    def call(*args: Any, **kwargs: Any) -> Any:
        busy: set[int] = _BUSY.__dict__.setdefault("instances", set())
        if not path or id(instance) in busy:
            return bound(*args, **kwargs)
        busy.add(id(instance))
        try:
            return tag(path, bound(*args, **kwargs), "call")
        finally:
            busy.discard(id(instance))

    return call


def _tagged_sow(path: str, bound: Callable[..., Any]) -> Callable[..., Any]:
    def sow(collection: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        tag(_join(path, name), value, "sown")
        return bound(collection, name, value, *args, **kwargs)

    return sow


def _tagged_perturb(path: str, bound: Callable[..., Any]) -> Callable[..., Any]:
    def perturb(name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        kind: Kind = "named" if isinstance(value, Array) else "call"
        return tag(_join(path, name), bound(name, value, *args, **kwargs), kind)

    return perturb


# Linen.


def from_linen(module: linen.Module, variables: Mapping[str, Any], **call: Any) -> tuple[Function, Params]:
    """Make a function of a Linen module, with its parameters: `variables` as they are, but for what a call sowed.

    Args:
      variables: what ``module.init`` gave, ``{"params": ..., "batch_stats": ...}``; or stacked, with a leading S.
      call: keyword arguments of the module's call, such as ``train=False``. All collections are frozen.

    Raises:
      InputError: if this is no Linen module or these are not its variables.
    """
    if not isinstance(module, linen.Module):
        raise InputError(_not_a_module("from_linen", "flax.linen.Module", module))
    if not isinstance(variables, Mapping) or (variables and "params" not in variables):
        got = (
            f"the keys {', '.join(map(str, variables))}" if isinstance(variables, Mapping) else type(variables).__name__
        )
        raise InputError(
            f"from_linen: expected the variables that module.init returned, with the key 'params', got {got}; if you "
            "have only the parameters, pass {'params': params}"
        )
    if not _RECORDS.isdisjoint(variables):
        variables = {name: collection for name, collection in variables.items() if name not in _RECORDS}
    return _LinenFunction(_Static(module), _call(call)), linen.meta.unbox(variables)


_RECORDS = {"intermediates", "perturbations"}
"""Collections with an entry for each example of an earlier call, which are no parameters."""


@dataclasses.dataclass(frozen=True)
class _LinenFunction:
    module: _Static
    call: _Call

    def __call__(self, params: Params, x: Any, tap: object = None) -> Any:
        module: linen.Module = self.module.value
        try:
            if tracing.value is None:
                return module.apply(params, x, **_options(self.call))
            methods = [(linen.Module, "sow"), (linen.Module, "perturb")]
            with linen.intercept_methods(_linen_call), _replaced(methods, _linen_method):
                return module.apply(params, x, **_options(self.call))
        except (InvalidRngError, ModifyScopeVariableError) as error:
            raise InputError(
                f"from_linen: {type(module).__name__} cannot be called as a frozen network; pass the options of its "
                f"evaluation mode, such as train=False or deterministic=True; Flax says: {error}"
            ) from error


def _linen_call(call: Any, args: Any, kwargs: Any, context: linen.module.InterceptorContext) -> Any:
    output = call(*args, **kwargs)
    path = context.module.path if context.method_name == "__call__" else ()
    return tag("/".join(path), output, "call") if path else output


def _linen_method(name: str, module: Any, bound: Any) -> Any:
    return (_tagged_sow if name == "sow" else _tagged_perturb)("/".join(module.path), bound)


# NNX.

_NNX_PATH = "_jaxdist_site"
"""A static attribute of the copy of a module: its path. It is kept where NNX splits modules and builds them anew."""


def from_nnx(module: nnx.Module, **call: Any) -> tuple[Function, Params]:
    """Make a function of an NNX module, with its parameters: nested dictionaries of arrays.

    It works on a copy in evaluation mode, as ``module.eval()`` sets it; statistics of normalisation are among the
    parameters, random state is not. A shared submodule goes by the first of its paths. Arrays may be stacked, with a
    leading S, as ``nnx.vmap`` makes them.

    Args:
      call: keyword arguments of the module's call, such as ``train=False``.

    Raises:
      InputError: if this is no NNX module.
    """
    if not isinstance(module, nnx.Module):
        raise InputError(_not_a_module("from_nnx", "flax.nnx.Module", module))
    copy = nnx.clone(module)
    copy.eval()  # type: ignore[no-untyped-call]  # flax has no types for it
    nnx.pop(copy, (nnx.Intermediate, nnx.Perturbation))  # of earlier calls
    bridged = False
    methods = {(nnx.Module, "sow"): None, (nnx.Module, "perturb"): None}
    for path, part in list(nnx.iter_modules(copy)):
        if isinstance(part, (nnx.List, nnx.Dict)):
            continue
        if callable(part):
            methods[type(part), "__call__"] = None
        if isinstance(part, nnx.bridge.ToNNX):  # takes every attribute for a variable
            bridged = True
        else:
            object.__setattr__(part, _NNX_PATH, "/".join(map(str, path)))
    graphdef, random, state = nnx.split(copy, nnx.RngState, ...)  # type: ignore[misc]  # typed for two parts
    name = type(module).__name__
    return (
        _NNXFunction(_Static(graphdef), _call(call), name, tuple(methods), bridged, nnx.to_pure_dict(random), {}),
        nnx.to_pure_dict(state),
    )


@dataclasses.dataclass(frozen=True)
class _NNXFunction:
    graphdef: _Static
    call: _Call
    name: str
    methods: tuple[tuple[type, str], ...]
    bridged: bool  # whether there are modules of Linen, whose paths cannot be kept in them
    # Nothing depends on it, which is checked; modules that are equal but for it are equal.
    random: Any = dataclasses.field(compare=False)
    checked: dict[Any, None] = dataclasses.field(compare=False)

    def __call__(self, params: Params, x: Any, tap: object = None) -> Any:
        self._refuse_unless_deterministic(params, x)
        return self._run(self.random, params, x, tagged=tracing.value is not None)

    def _run(self, random: Any, params: Params, x: Any, *, tagged: bool) -> Any:
        module = nnx.merge(self.graphdef.value, random, params)
        if not tagged:
            return module(x, **_options(self.call))
        bridged = {}
        if self.bridged:
            parts = [(path, part) for path, part in nnx.iter_modules(module) if isinstance(part, nnx.bridge.ToNNX)]
            bridged = {id(part): "/".join(map(str, path)) for path, part in parts}

        def wrap(name: str, part: Any, bound: Any) -> Any:
            path = vars(part).get(_NNX_PATH, bridged.get(id(part)))
            if path is None:
                return bound  # made in the course of the call
            if name == "__call__":
                return _tagged_call(path, part, bound)
            return (_tagged_sow if name == "sow" else _tagged_perturb)(path, bound)

        with _replaced(self.methods, wrap):
            return module(x, **_options(self.call))

    def _refuse_unless_deterministic(self, params: Params, x: Any) -> None:
        """Refuse a module whose output depends on its random state; once for each shape."""
        count = len(jax.tree.leaves(self.random))
        if not count:
            return
        shapes = jax.tree.map(shape_of, (self.random, params, x))
        leaves = tuple((shape.shape, str(shape.dtype)) for shape in jax.tree.leaves(shapes))
        if (leaves, jax.tree.structure(shapes)) in self.checked:
            return
        program = jax.make_jaxpr(functools.partial(self._run, tagged=False))(*shapes).jaxpr
        inputs = [k < count for k in range(len(program.invars))]
        if any(site_programs.dependence(program, inputs)):
            raise InputError(
                f"from_nnx: {self.name} draws random numbers in evaluation mode, but a frozen network draws none; "
                "remove the part that ignores module.eval(), or pass the arguments of its call that turn it off"
            )
        self.checked[leaves, jax.tree.structure(shapes)] = None


# Equinox.

_EQUINOX_PATH = "jaxdist site: "
"""Precedes the path of a module in its `__doc__`, one of the fields that Equinox keeps when it builds modules anew."""


def from_equinox(model: Any, *, per_example: bool = True, **call: Any) -> tuple[Function, Params]:
    """Make a function of an Equinox module, with its parameters: the module with its arrays alone.

    It works on a copy in inference mode, as ``equinox.nn.inference_mode`` sets it. Arrays may be stacked, with a
    leading S, as ``equinox.filter_vmap`` makes them.

    Args:
      per_example: whether the module is written for one example, as those of ``equinox.nn`` are; it is then mapped over
        the examples by ``jax.vmap``. The module does not say; where it takes a block of examples, give False.
      call: keyword arguments of the module's call.

    Raises:
      InputError: if this is no Equinox module that can be called.
    """
    try:
        import equinox
    except ImportError as error:
        raise InputError("from_equinox: Equinox is not installed; install it with pip install equinox") from error
    if not isinstance(model, equinox.Module) or not callable(model):
        raise InputError(
            "from_equinox: expected an equinox.Module that can be called and is not yet jitted or mapped, got "
            f"{_described(model)}"
        )
    copy = equinox.nn.inference_mode(jax.tree.map(lambda leaf: leaf, model))
    classes: dict[type, None] = {}
    _mark(copy, "", classes, equinox.Module)
    params, static = equinox.partition(copy, equinox.is_array)
    methods = tuple((cls, "__call__") for cls in classes)
    return _EquinoxFunction(_Static(static), _call(call), per_example, methods), params


def _mark(part: Any, path: str, classes: dict[type, None], module: type) -> None:
    """Write the path of each module into it, and note the classes of those that can be called."""
    if isinstance(part, module):
        if path and callable(part):
            vars(part)["__doc__"] = _EQUINOX_PATH + path
            classes[type(part)] = None
        fields = dataclasses.fields(part)  # type: ignore[arg-type]  # modules are dataclasses
        # Static fields are not copied, so what they hold is the user's.
        children = [(field.name, vars(part).get(field.name)) for field in fields if not field.metadata.get("static")]
    elif isinstance(part, (list, tuple)):
        children = [(str(k), child) for k, child in enumerate(part)]
    elif isinstance(part, dict):
        children = [(str(name), child) for name, child in part.items()]
    else:
        return
    for name, child in children:
        _mark(child, _join(path, name), classes, module)


def _equinox_method(_: str, part: Any, bound: Any) -> Any:
    text = vars(part).get("__doc__")
    marked = isinstance(text, str) and text.startswith(_EQUINOX_PATH)
    return _tagged_call(text[len(_EQUINOX_PATH) :] if marked else None, part, bound)


@dataclasses.dataclass(frozen=True)
class _EquinoxFunction:
    static: _Static
    call: _Call
    per_example: bool
    methods: tuple[tuple[type, str], ...]

    def __call__(self, params: Params, x: Any, tap: object = None) -> Any:
        import equinox

        model = equinox.combine(params, self.static.value)

        def called(x: Any) -> Any:
            return model(x, **_options(self.call))

        run = jax.vmap(called) if self.per_example else called
        if tracing.value is None:
            return run(x)
        with _replaced(self.methods, _equinox_method):
            return run(x)


# Haiku.


def from_haiku(transformed: Any, params: Params, state: Any = None, **call: Any) -> tuple[Function, Params]:
    """Make a function of a transformed Haiku function, with its parameters: `params`, or (params, state).

    A site is named by the module's name, as "mlp/~/linear_0". No random numbers are given to it.

    Args:
      transformed: what ``haiku.transform`` or ``haiku.transform_with_state`` gave.
      params: what its ``init`` gave; or stacked, with a leading S.
      state: the state that ``init`` gave with them, of ``haiku.transform_with_state``; it is frozen.
      call: keyword arguments of the function, such as ``is_training=False``.

    Raises:
      InputError: if this is no transformed function.
    """
    try:
        import haiku
    except ImportError as error:
        raise InputError("from_haiku: Haiku is not installed; install it with pip install dm-haiku") from error
    with_state = isinstance(transformed, haiku.TransformedWithState)
    if not with_state and not isinstance(transformed, haiku.Transformed):
        raise InputError(
            "from_haiku: expected what haiku.transform or haiku.transform_with_state returned, got "
            f"{_described(transformed)}"
        )
    if with_state != (state is not None):
        raise InputError(
            "from_haiku: expected the state that init returned with the parameters, as in from_haiku(transformed, "
            "params, state)"
            if with_state
            else "from_haiku: a function from haiku.transform has no state; pass only transformed and params"
        )
    before = ["params", "state"] if with_state else ["params"]
    names = list(inspect.signature(transformed.apply).parameters)
    takes_rng = names[len(before) : len(before) + 1] == ["rng"]
    function = _HaikuFunction(_Static(transformed.apply), with_state, takes_rng, _call(call))
    return function, (params, state) if with_state else params


def _haiku_call(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    output = call(*args, **kwargs)
    return tag(context.module.module_name, output, "call") if context.method_name == "__call__" else output


@dataclasses.dataclass(frozen=True)
class _HaikuFunction:
    apply: _Static
    with_state: bool
    takes_rng: bool
    call: _Call

    def __call__(self, params: Params, x: Any, tap: object = None) -> Any:
        import haiku

        arguments = [*(params if self.with_state else [params]), *([None] if self.takes_rng else [])]
        interceptor = contextlib.nullcontext() if tracing.value is None else haiku.intercept_methods(_haiku_call)
        with interceptor:
            output = self.apply.value(*arguments, x, **_options(self.call))
        return output[0] if self.with_state else output


def _described(got: object) -> str:
    return f"the class {got.__name__}" if isinstance(got, type) else f"a {type(got).__name__}"


def _not_a_module(function: str, expected: str, got: object) -> str:
    other = {"from_linen": "from_nnx takes flax.nnx", "from_nnx": "from_linen takes flax.linen"}[function]
    return (
        f"{function}: expected an instance of {expected}, not yet jitted or wrapped, got "
        f"{'the class ' + got.__name__ if isinstance(got, type) else type(got).__name__}; {other}"
    )
