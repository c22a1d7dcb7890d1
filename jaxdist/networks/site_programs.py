"""Traced programs evaluated with their named values read and edited.

The interpreter looks into an equation only where a wanted site lies within it: scans, rematerialised parts and custom
rules without one are executed as they are. Names and parameters of JAX's control-flow primitives are not promised by
JAX; what is not known here is refused by name. Semi-private parts of JAX: ``jax.extend.core``, and of an equation
``ctx.manager`` and ``Primitive.get_bind_params``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core

from jaxdist.errors import InputError
from jaxdist.networks.site_primitives import guarded, site_p, tangent_p

Action: TypeAlias = Callable[[Array], Array]
"""Maps the value at a site to one of the same shape and type."""


class Key(NamedTuple):
    """A site's value: of one call of its name, or all (None); in one iteration of the loops around it, or all."""

    name: str
    call: int | None
    iteration: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Placed:
    """An edit that is another one in each call and iteration of what its key means."""

    at: Callable[[int | None, tuple[Any, ...]], Action]
    """The action in a call, None where it is not known which, and in an iteration of each loop around it."""


Atom: TypeAlias = core.Var | core.Literal
Environment: TypeAlias = dict[core.Var, Any]
Values: TypeAlias = dict[tuple[str, int], Any]
"""The values that are read, by name and call; those of a scan are stacked in front, iteration by iteration."""

REMAT = frozenset({"remat2", "checkpoint"})
CUSTOM = {"custom_jvp_call": "jax.custom_jvp", "custom_vjp_call": "jax.custom_vjp"}
CALLS = frozenset({"jit", "pjit", "closed_call", "core_call"}) | REMAT | frozenset(CUSTOM)
LOOPS = frozenset({"scan", "while"})
ENTERED = CALLS | LOOPS | {"cond"}
"""Primitives with programs in them that are looked into."""


def closed(program: Any) -> tuple[core.Jaxpr, Sequence[Any]]:
    """A program and its constants."""
    return (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())


def called(eqn: core.JaxprEqn) -> tuple[core.Jaxpr, Sequence[Any]]:
    """The program of one of the `CALLS`, and its constants."""
    return closed(eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"])


class Mark(NamedTuple):
    """An equation that marks a site, or the tangent at one."""

    eqn: core.JaxprEqn
    inside: tuple[str, ...]  # the primitives around it, outermost first
    loops: tuple[int | None, ...]  # lengths of the loops around it, None for a while loop
    from_outside: bool  # whether the program around it got the value from another one


def marks(jaxpr: core.Jaxpr, inside: tuple[str, ...] = (), loops: tuple[int | None, ...] = ()) -> Iterator[Mark]:
    """All marks of a program, in the order in which the interpreter meets them."""
    arguments = {*jaxpr.invars, *jaxpr.constvars} if inside else set()
    for eqn in jaxpr.eqns:
        atom = eqn.invars[0] if eqn.invars else None
        yield from marks_within(eqn, inside, loops, isinstance(atom, core.Literal) or atom in arguments)


def marks_within(
    eqn: core.JaxprEqn,
    inside: tuple[str, ...] = (),
    loops: tuple[int | None, ...] = (),
    from_outside: bool = False,
) -> Iterator[Mark]:
    """An equation's own mark and those of the programs within it.

    Args:
      eqn: the equation.
      inside: the primitives around it, outermost first.
      loops: the lengths of the loops around it, outermost first; None for a while loop.
      from_outside: whether the program around it got the value that it marks from another one.
    """
    if eqn.primitive is site_p or eqn.primitive is tangent_p:
        yield Mark(eqn, inside, loops, from_outside)
    around = eqn.primitive.name
    more = (eqn.params["length"],) if around == "scan" else (None,) if around == "while" else ()
    for program in core.jaxprs_in_params(eqn.params):
        yield from marks(program, (*inside, around), loops + more)


@dataclasses.dataclass
class Job:
    """The sites whose values are read, and those that are edited, in this order."""

    actions: Sequence[tuple[Key, Action | Placed]] = ()
    reads: Sequence[Key] = ()
    cut: bool = False  # scans are cut at an iteration that is named, which is then in no loop

    def __post_init__(self) -> None:
        self.edited = tuple(key for key, _ in self.actions)
        self.keys = (*self.edited, *self.reads)
        self.names = {key.name for key in self.keys}
        self._calls: dict[int, Counter[str]] = {}  # programs live as long as the one that they are in

    def calls(self, jaxpr: core.Jaxpr) -> Counter[str]:
        """How many calls of each wanted name a program has."""
        if id(jaxpr) not in self._calls:
            names = (mark.eqn.params["name"] for mark in marks(jaxpr))
            self._calls[id(jaxpr)] = Counter(name for name in names if name in self.names)
        return self._calls[id(jaxpr)]

    def sites(self, jaxpr: core.Jaxpr) -> Counter[str]:
        """The same without tangents, which are no calls."""
        of_sites = (mark.eqn.params["name"] for mark in marks(jaxpr) if mark.eqn.primitive is site_p)
        return Counter(name for name in of_sites if name in self.names) if self.calls(jaxpr) else Counter()

    def touches(self, eqn: core.JaxprEqn) -> bool:
        """Whether a wanted site is this equation, or lies within it."""
        if eqn.primitive is site_p or eqn.primitive is tangent_p:
            return eqn.params["name"] in self.names
        return any(self.calls(program) for program in core.jaxprs_in_params(eqn.params))


@dataclasses.dataclass
class _Place:
    """Where the interpreter is: the calls it has met, the iterations of the loops around it, a custom rule if any."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    iterations: tuple[Any, ...] = ()  # numbers, traced or not; None where nobody asks for it
    rule: str | None = None

    def within(self, *iteration: Any, rule: str | None = None) -> _Place:
        """The place inside an equation; JAX may trace that more than once, so its calls are counted from here."""
        return _Place(Counter(self.counts), (*self.iterations, *iteration), rule or self.rule)


def run(jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], job: Job) -> tuple[list[Any], Values]:
    """Evaluate a program with its values edited; returns its outputs and the values read.

    Args:
      jaxpr: the program.
      consts: its constants.
      arguments: its inputs.
      job: which values are edited and read.

    Raises:
      InputError: for an edit that changes the shape or the type, and for values that cannot be edited where they are.
    """
    return _run(jaxpr, consts, arguments, job, _Place())


def run_equations(eqns: Sequence[core.JaxprEqn], environment: Environment, job: Job) -> Values:
    """Evaluate some equations of a program, adding their results to `environment`."""
    return _run_equations(eqns, environment, job, _Place())


def read_atom(environment: Mapping[core.Var, Any], atom: Atom) -> Any:
    """A value of the program."""
    return atom.val if isinstance(atom, core.Literal) else environment[atom]


def aval_of(atom: Atom) -> Any:
    """The shape and type of a value of the program."""
    return atom.aval


def _run(
    jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], job: Job, place: _Place
) -> tuple[list[Any], Values]:
    environment: Environment = dict(zip(jaxpr.constvars, consts, strict=True))
    environment.update(zip(jaxpr.invars, arguments, strict=True))
    values = _run_equations(jaxpr.eqns, environment, job, place)
    return [read_atom(environment, atom) for atom in jaxpr.outvars], values


def _run_equations(eqns: Sequence[core.JaxprEqn], environment: Environment, job: Job, place: _Place) -> Values:
    values: Values = {}
    for eqn in eqns:
        operands = [read_atom(environment, atom) for atom in eqn.invars]
        if not job.touches(eqn):
            results = as_it_is(eqn, operands)
        else:
            rule = _RULES.get(eqn.primitive.name)
            if rule is None:  # `sites` refuses such a site; a program that is given directly gets here
                raise InputError(f"site '{min(job.names)}': {within(eqn.primitive.name)}")
            with eqn.ctx.manager:
                results, more = rule(eqn, operands, job, place)
            values.update(more)
            if eqn.primitive is site_p and eqn.params["kind"] == "sown" and isinstance(eqn.invars[0], core.Var):
                environment[eqn.invars[0]] = results[0]  # the network goes on with the value itself
        environment.update(zip(eqn.outvars, results, strict=True))
    return values


def within(primitive: str) -> str:
    """Why a site in a primitive that is not looked into is refused."""
    return f"it is inside a {primitive}, which jaxdist does not look into; choose a site outside it"


def as_it_is(eqn: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The results of an equation, executed as it was traced."""
    if eqn.primitive is site_p:
        return [operands[0]]
    if eqn.primitive is tangent_p:
        return [operands[1]]
    # The context has what was set when the equation was traced, such as how random bits are made.
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


# Sites.


def act(text: str, action: Action, value: Array) -> Array:
    """The edited value of a key.

    Raises:
      InputError: if the action changes its shape or type.
    """
    edited = jnp.asarray(action(value))
    if (edited.shape, edited.dtype) != (value.shape, value.dtype):
        way_out = "cast the result, for example with .astype(value.dtype)"
        if edited.shape != value.shape:
            way_out = "return values of that shape"
        raise InputError(
            f"site '{text}': expected its action to keep the shape {value.shape} and {value.dtype}, got "
            f"{edited.shape} and {edited.dtype}; {way_out}"
        )
    # A weak type, as that of a Python number, would change the type of a loop's carry.
    return lax.convert_element_type(edited, value.dtype) if getattr(edited, "weak_type", False) else edited


def _edited(value: Array, name: str, call: int | None, job: Job, place: _Place) -> Array:
    """The value after all actions for this call, or for all calls where it is None."""
    for key, entry in job.actions:
        if key.name != name or (call is not None and key.call not in (None, call)):
            continue
        action = entry.at(call if key.call is None else 0, place.iterations) if isinstance(entry, Placed) else entry
        if key.iteration is None:
            value = action(value)
            continue
        same = [at == iteration for at, iteration in zip(place.iterations, key.iteration, strict=True)]
        certain = [flag for flag in same if isinstance(flag, bool)]
        open_ = [flag for flag in same if not isinstance(flag, bool)]
        if not all(certain):
            continue
        edited = action(value)
        for flag in open_:
            edited = jnp.where(flag, edited, value)
        value = edited
    if place.rule is not None and any(key.name == name for key in job.edited):
        value = guarded(value, _undifferentiated(name, place.rule))
    return value


def _undifferentiated(name: str, rule: str) -> str:
    return (
        f"site '{name}': it is inside a {rule}, whose own derivative rule would be lost by looking into it, so no "
        "derivative can be taken through it; choose a site outside it, or take no derivative"
    )


_Results: TypeAlias = tuple[list[Any], Values]


def _site(eqn: core.JaxprEqn, operands: Sequence[Any], job: Job, place: _Place) -> _Results:
    name, (value,) = eqn.params["name"], operands
    call = place.counts[name]
    place.counts[name] += 1
    value = _edited(value, name, call, job, place)
    is_read = any(key.name == name and key.call in (None, call) for key in job.reads)
    return [value], {(name, call): value} if is_read else {}


def _tangent(eqn: core.JaxprEqn, operands: Sequence[Any], job: Job, place: _Place) -> _Results:
    name, (value, tangent) = eqn.params["name"], operands
    keys = [key for key in job.edited if key.name == name]
    if not keys:
        return [tangent], {}
    if eqn.params["order"] > 1:
        raise InputError(
            f"site '{name}': the network takes derivatives through it more than once, so an edit would need "
            "derivatives of a derivative; choose another site"
        )
    if any(key.call is not None for key in keys):
        raise InputError(
            f"site '{name}': the network takes derivatives through it, so one of its calls cannot be edited alone; "
            f"use '{name}' for all of them"
        )

    def edit(value: Array) -> Array:
        return _edited(value, name, None, job, place)

    if eqn.params["transposed"]:
        return list(jax.vjp(edit, value)[1](tangent)), {}
    return [jax.jvp(edit, (value,), (tangent,))[1]], {}


# Calls, loops and branches.


def _call(eqn: core.JaxprEqn, operands: Sequence[Any], job: Job, place: _Place) -> _Results:
    jaxpr, consts = called(eqn)
    if eqn.primitive.name in REMAT:

        def body(*arguments: Any) -> _Results:
            return _run(jaxpr, consts, arguments, job, place.within())

        again = jax.checkpoint(body, policy=eqn.params["policy"], prevent_cse=eqn.params["prevent_cse"])
        results: _Results = again(*operands)
        place.counts.update(job.sites(jaxpr))
        return results
    rule = CUSTOM.get(eqn.primitive.name)
    if rule is not None:
        reason = _undifferentiated(min(job.calls(jaxpr)), rule)
        operands = [
            guarded(value, reason) if jnp.issubdtype(jax.typeof(value).dtype, jnp.inexact) else value
            for value in operands
        ]
    results = _run(jaxpr, consts, operands, job, place.within(rule=rule))
    place.counts.update(job.sites(jaxpr))
    return results


def _asked(job: Job, *programs: core.Jaxpr) -> bool:
    """Whether an action depends on the iteration, so that they must be counted."""
    names = set().union(*(job.calls(program) for program in programs))
    return any(
        (key.iteration is not None or isinstance(action, Placed)) and key.name in names for key, action in job.actions
    )


def _scan(eqn: core.JaxprEqn, operands: Sequence[Any], job: Job, place: _Place) -> _Results:
    static, (jaxpr, own_consts) = eqn.params, closed(eqn.params["jaxpr"])
    length, reverse = static["length"], static["reverse"]
    first, last = static["num_consts"], static["num_consts"] + static["num_carry"]
    consts, carry, xs = operands[:first], list(operands[first:last]), list(operands[last:])
    carried = len(carry)
    cuts = _cuts(job, jaxpr, place) if job.cut else set()
    counted = _asked(job, jaxpr) and not cuts
    uncounted = -1 if cuts else None  # between cuts no iteration is one that is named

    def step(number: Any, carry: Sequence[Any], x: Sequence[Any]) -> tuple[list[Any], tuple[list[Any], Values]]:
        results, values = _run(jaxpr, own_consts, [*consts, *carry, *x], job, place.within(number))
        return results[:carried], (results[carried:], values)

    def numbered_step(state: Any, x: Sequence[Any]) -> Any:
        number, carry = state
        carry, output = step(number, carry, x)
        return (number - 1 if reverse else number + 1, carry), output

    def plain(carry: Sequence[Any], x: Sequence[Any]) -> Any:
        return step(uncounted, carry, x)

    def part(start: int, stop: int, carry: list[Any]) -> tuple[list[Any], Any]:
        some = [lax.slice_in_dim(x, start, stop) for x in xs] if (start, stop) != (0, length) else xs
        options = {"length": stop - start, "reverse": reverse, "unroll": static["unroll"]}
        if not counted:
            return lax.scan(plain, carry, some, **options)
        number = jnp.int32(stop - 1 if reverse else start)
        (_, carry), outputs = lax.scan(numbered_step, (number, carry), some, **options)
        return carry, outputs

    edges = sorted({0, length} | cuts | {cut + 1 for cut in cuts})
    pieces = list(itertools.pairwise(edges)) or [(0, 0)]
    parts = []
    for start, stop in reversed(pieces) if reverse else pieces:
        if start in cuts:
            carry, stacked = step(start, carry, [lax.index_in_dim(x, start, keepdims=False) for x in xs])
            stacked = jax.tree.map(lambda value: value[None], stacked)
        else:
            carry, stacked = part(start, stop, carry)
        parts.append(stacked)
    parts = parts[::-1] if reverse else parts
    ys, values = parts[0] if len(parts) == 1 else jax.tree.map(lambda *some: jnp.concatenate(some), *parts)
    place.counts.update(job.sites(jaxpr))
    return [*carry, *ys], values


def _cuts(job: Job, jaxpr: core.Jaxpr, place: _Place) -> set[int]:
    """The iterations at which a scan is cut: those that are named, unless all are wanted."""
    calls = job.sites(jaxpr)
    keys = []
    for key in job.keys:
        start = place.counts[key.name]
        if key.name in job.calls(jaxpr) and (key.call is None or start <= key.call < start + calls[key.name]):
            keys.append(key)
    if any(key.iteration is None for key in keys):
        return set()
    return {key.iteration[len(place.iterations)] for key in keys if key.iteration is not None}


def _while(eqn: core.JaxprEqn, operands: Sequence[Any], job: Job, place: _Place) -> _Results:
    static = eqn.params
    (cond, cond_own), (body, body_own) = closed(static["cond_jaxpr"]), closed(static["body_jaxpr"])
    first, last = static["cond_nconsts"], static["cond_nconsts"] + static["body_nconsts"]
    cond_consts, body_consts, carry = operands[:first], operands[first:last], list(operands[last:])
    counted = _asked(job, cond, body)
    rows = aval_of(cond.outvars[0]).shape  # of a loop under vmap, whose rows end at different times
    in_body = place.within()
    in_body.counts.update(job.sites(cond))

    def is_on(number: Any, carry: Sequence[Any]) -> Array:
        flag: Array = _run(cond, cond_own, [*cond_consts, *carry], job, place.within(number))[0][0]
        return flag

    def test(state: Any) -> Array:
        return jnp.any(is_on(*state))  # a loop under vmap has a flag for each of its rows

    def step(state: Any) -> Any:
        number, carry = state
        new = _run(body, body_own, [*body_consts, *carry], job, in_body.within(number))[0]
        if rows:
            flag = is_on(number, carry)
            new = [
                jnp.where(lax.expand_dims(flag, range(flag.ndim, value.ndim)), value, before)
                for value, before in zip(new, carry, strict=True)
            ]
        return None if number is None else number + 1, new

    _, results = lax.while_loop(test, step, (jnp.int32(0) if counted else None, carry))
    place.counts.update(job.sites(cond) + job.sites(body))
    return list(results), {}


def _cond(eqn: core.JaxprEqn, operands: Sequence[Any], job: Job, place: _Place) -> _Results:
    index, *rest = operands
    branches: list[Callable[..., _Results]] = []
    ahead = place.within()
    for program in eqn.params["branches"]:
        jaxpr, consts = closed(program)

        branches.append(_branch(jaxpr, consts, job, ahead.within()))
        ahead.counts.update(job.sites(jaxpr))
    shapes: dict[tuple[str, int], Any] = {}
    if job.reads:
        for branch in branches:
            shapes.update(jax.eval_shape(branch, *rest)[1])

    def with_others(branch: Callable[..., _Results]) -> Callable[..., _Results]:
        def call(*arguments: Any) -> _Results:
            results, values = branch(*arguments)
            return results, {key: values.get(key, _missing(shape)) for key, shape in shapes.items()}

        return call

    results: _Results = lax.switch(index, [with_others(branch) for branch in branches], *rest)
    place.counts = ahead.counts
    return results


def _branch(jaxpr: core.Jaxpr, consts: Sequence[Any], job: Job, start: _Place) -> Callable[..., _Results]:
    return lambda *arguments: _run(jaxpr, consts, arguments, job, start.within())


def _missing(shape: Any) -> Array:
    """Stands for the value of a site in a branch that was not taken."""
    return jnp.full(shape.shape, jnp.nan if jnp.issubdtype(shape.dtype, jnp.inexact) else 0, shape.dtype)


_RULES: dict[str, Callable[[core.JaxprEqn, Sequence[Any], Job, _Place], _Results]] = {
    site_p.name: _site,
    tangent_p.name: _tangent,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    **dict.fromkeys(CALLS, _call),
}


# Dependence.


def dependence(jaxpr: core.Jaxpr, inputs: Sequence[bool], of_sites: list[bool] | None = None) -> list[bool]:
    """Which outputs depend on some of the inputs; `of_sites` gets the same for each site, in the order of `marks`."""
    depends: dict[core.Var, bool] = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(atom: Atom) -> bool:
        return isinstance(atom, core.Var) and depends.get(atom, False)

    for eqn in jaxpr.eqns:
        operands = [of(atom) for atom in eqn.invars]
        if eqn.primitive is site_p and of_sites is not None:
            of_sites.append(operands[0])
        depends.update(zip(eqn.outvars, _dependence_of(eqn, operands, of_sites), strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def _dependence_of(eqn: core.JaxprEqn, operands: Sequence[bool], of_sites: list[bool] | None) -> list[bool]:
    name, static = eqn.primitive.name, eqn.params
    if name in CALLS:
        return dependence(called(eqn)[0], operands, of_sites)
    if name == "scan":
        jaxpr, first = closed(static["jaxpr"])[0], static["num_consts"]
        last = first + static["num_carry"]
        carry = list(operands[first:last])
        while True:
            results = dependence(jaxpr, [*operands[:first], *carry, *operands[last:]])
            wider = [before or after for before, after in zip(carry, results, strict=False)]
            if wider == carry:
                break
            carry = wider
        return [*carry, *dependence(jaxpr, [*operands[:first], *carry, *operands[last:]], of_sites)[len(carry) :]]
    if name == "while":
        cond, body, first = closed(static["cond_jaxpr"])[0], closed(static["body_jaxpr"])[0], static["cond_nconsts"]
        last = first + static["body_nconsts"]
        carry = list(operands[last:])
        while True:
            stops = dependence(cond, [*operands[:first], *carry])[0]
            results = dependence(body, [*operands[first:last], *carry])
            wider = [stops or before or after for before, after in zip(carry, results, strict=True)]
            if wider == carry:
                break
            carry = wider
        dependence(cond, [*operands[:first], *carry], of_sites)
        dependence(body, [*operands[first:last], *carry], of_sites)
        return carry
    if name == "cond":
        each = [dependence(closed(branch)[0], operands[1:], of_sites) for branch in static["branches"]]
        return [operands[0] or any(branch) for branch in zip(*each, strict=True)]
    if of_sites is not None:
        for program in core.jaxprs_in_params(static):
            of_sites.extend([any(operands)] * sum(mark.eqn.primitive is site_p for mark in marks(program)))
    return [any(operands)] * len(eqn.outvars)
