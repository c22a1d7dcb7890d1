"""Whether each example's outputs are its own, by following the batch axis through a network's traced program.

A value of the program is `Fixed` (it does not depend on x), `ByExample` (each of its entries depends on one example
alone, which its place along one axis tells), or `Single` (in a loop over the examples: it depends on that one alone).
The search ends at the first equation that brings examples together, and names it. Operations unknown to this module
leave it undecided; they are never taken for independent.

Semi-private parts of JAX: ``jax.extend.core``; names and parameters of its primitives are not promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.extend import core

from jaxdist.formatting import counted
from jaxdist.networks import site_values
from jaxdist.networks.row_rules import (
    ELEMENTWISE,
    ByExample,
    Fixed,
    PlaceError,
    Single,
    State,
    StopSearchError,
    all_axes,
    constant,
    fixed_outputs,
    is_numeric,
    join,
    line_of,
    moved_by,
    moved_to,
    reshaped,
    shape_of,
    stacked,
)
from jaxdist.networks.row_rules import Independence as Independence
from jaxdist.networks.site_primitives import site_p
from jaxdist.networks.site_programs import CALLS, Atom, called, closed
from jaxdist.types import Params

NUMBERS = (53, 61)
"""Numbers of examples for which a network is traced: two, to see where it uses the number itself."""


def examine(apply: Callable[..., Any], params: Params, x: Any) -> Independence:
    """Follow the batch axis, the first one of x, through a network; nothing is computed.

    Args:
      apply: as `site_values.trace` takes it.
      params: parameters of one network, or their shapes.
      x: a block of examples [n, ...], or its shape; how many there are does not matter. A pytree's leaves share n.
    """
    programs: list[site_values.Traced] = []
    for number in NUMBERS:
        block = jax.tree.map(lambda leaf, n=number: _with_length(leaf, n), x)
        try:
            programs.append(site_values.trace(apply, params, block))
        except Exception as error:  # whatever a function of somebody else's raises
            reason = f"the network cannot be traced for {counted(number, 'example')} ({type(error).__name__})"
            return Independence(None, reason)
    count = len(jax.tree.leaves(params))
    followed = [_follow(traced, count, number) for traced, number in zip(programs, NUMBERS, strict=True)]
    (verdict, loops, places), (other, other_loops, _) = followed
    if verdict.independent is not True:
        return verdict
    if other[:2] != verdict[:2] or other.axes != verdict.axes:
        return Independence(None, "the program differs with the number of examples")
    use = _use_of_number(*(traced.program for traced in programs))
    if use is None and loops and other_loops:
        use = Independence(False, "scan takes as many steps as there are examples", loops[0])
    if use is None and places:
        use = places[0]._replace(place=True)
    return verdict if use is None else use


def _with_length(leaf: Any, number: int) -> jax.ShapeDtypeStruct:
    shape = site_values.shape_of(leaf)
    return jax.ShapeDtypeStruct((number, *shape.shape[1:]), shape.dtype)


def _follow(traced: site_values.Traced, count: int, number: int) -> tuple[Independence, list[str], list[Independence]]:
    """The verdict for so many examples, the lines of loops of that length that are none over examples, and where an
    example's place comes in, which the verdict leaves out."""
    jaxpr = traced.program.jaxpr
    states: list[State] = [all_axes(var) if k < count else ByExample(0) for k, var in enumerate(jaxpr.invars)]
    search = _Search(number)
    try:
        consts = [constant(value) for value in traced.program.consts]
        search.follow(jaxpr, consts, states, ())
    except StopSearchError as stop:
        return stop.verdict, [], []
    axes = []
    for path in _paths(jaxpr, ()):
        state = search.sites.get(path)
        axes.append(state.axis if isinstance(state, ByExample) and state.inner == 1 else None)
    return Independence(True, axes=tuple(axes)), search.loops, search.places


_Path: TypeAlias = tuple[int, ...]


def _paths(jaxpr: core.Jaxpr, path: _Path) -> Iterator[_Path]:
    """Where the sites are, in the order of `site_programs.marks`."""
    for k, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive is site_p:
            yield (*path, k)
        for which, program in enumerate(core.jaxprs_in_params(eqn.params)):
            yield from _paths(program, (*path, k, which))


class _Search:
    """The search through a program for one number of examples."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sites: dict[_Path, State] = {}
        self.loops: list[str] = []
        self.places: list[Independence] = []

    def follow(self, jaxpr: core.Jaxpr, consts: Sequence[State], states: Sequence[State], path: _Path) -> list[State]:
        """The states of a program's outputs.

        Args:
          jaxpr: the program.
          consts: the states of its constants.
          states: those of its inputs.
          path: where it lies in the whole: the places of equations, and of programs in them, outermost first.

        Raises:
          StopSearchError: where examples come together, or it is not known whether they do.
        """
        of: dict[core.Var, State] = dict(zip(jaxpr.constvars, consts, strict=True))
        of.update(zip(jaxpr.invars, states, strict=True))

        def get(atom: Atom) -> State:
            return all_axes(atom) if isinstance(atom, core.Literal) else of[atom]

        live = _live(jaxpr)
        for k, eqn in enumerate(jaxpr.eqns):
            if eqn.primitive is site_p and (isinstance(eqn.invars[0], core.Literal) or eqn.invars[0] in of):
                self.sites[(*path, k)] = get(eqn.invars[0])  # a sown value is none that the program goes on with
            if k in live:
                outputs = self._outputs(eqn, [get(atom) for atom in eqn.invars], (*path, k))
                of.update(zip(eqn.outvars, outputs, strict=True))
        return [get(atom) for atom in jaxpr.outvars]

    def _outputs(self, eqn: core.JaxprEqn, states: list[State], path: _Path) -> list[State]:
        if any(isinstance(state, Single) for state in states):
            if any(isinstance(state, ByExample) for state in states):
                raise StopSearchError(eqn, "compares one example with a block of examples", undecided=True)
            return [Single()] * len(eqn.outvars)  # whatever it does, it does with one example
        name, static = eqn.primitive.name, eqn.params
        if name in CALLS:
            jaxpr, consts = called(eqn)
            return self.follow(jaxpr, [constant(value) for value in consts], states, (*path, 0))
        if name == "scan":
            return self._scan(eqn, states, path)
        if name == "while":
            return self._while(eqn, states, path)
        if name == "cond":
            if isinstance(states[0], ByExample):
                raise StopSearchError(eqn, "chooses a branch by the examples", undecided=True)
            branches = []
            for which, branch in enumerate(static["branches"]):
                jaxpr, consts = closed(branch)
                branches.append(self.follow(jaxpr, [constant(value) for value in consts], states[1:], (*path, which)))
            return [join(eqn, each) for each in zip(*branches, strict=True)]
        if name == "custom_linear_solve":
            lengths, programs = static["const_lengths"], static["jaxprs"]
            start = lengths.matvec + lengths.vecmat
            consts, operands = states[start : start + lengths.solve], states[sum(lengths) :]
            jaxpr, own = closed(programs.solve)
            own_states = [constant(value) for value in own]
            return _Search(self.number).follow(jaxpr, own_states, [*consts, *operands], ())
        if name in ("optimization_barrier", "device_put"):
            return states
        if name == "reshape" and isinstance(states[0], ByExample):
            return [reshaped(eqn, states[0], self.number)]
        if all(isinstance(state, Fixed) for state in states):
            return fixed_outputs(eqn, states)  # type: ignore[arg-type]  # all are Fixed, as just seen
        try:
            state = moved_by(eqn, states)
        except PlaceError as at:
            if name not in ELEMENTWISE and name != "random_gamma":
                raise
            self.places.append(at.verdict)
            state = at.state
        return [state] * len(eqn.outvars)

    def _scan(self, eqn: core.JaxprEqn, states: list[State], path: _Path) -> list[State]:
        static, (jaxpr, own) = eqn.params, closed(eqn.params["jaxpr"])
        first, last = static["num_consts"], static["num_consts"] + static["num_carry"]
        consts, carry, xs = states[:first], states[first:last], states[last:]
        own_states = [constant(value) for value in own]
        inner = (*path, 0)
        if ByExample(0) in xs:
            return self._loop_over_examples(eqn, states, path)
        if static["length"] == self.number:
            self.loops.append(line_of(eqn) or "a scan")
        slices: list[State] = []
        for state, atom in zip(xs, eqn.invars[last:], strict=True):
            where = {axis: axis - 1 for axis in range(1, len(shape_of(atom)))}
            slices.append(moved_to(eqn, state, where, "runs along the batch axis", undecided=True))
        while True:
            results = self.follow(jaxpr, own_states, [*consts, *carry, *slices], inner)
            wider = [join(eqn, pair) for pair in zip(carry, results[: len(carry)], strict=True)]
            if wider == carry:
                break
            carry = wider
        return [*carry, *(stacked(state) for state in results[len(carry) :])]

    def _loop_over_examples(self, eqn: core.JaxprEqn, states: list[State], path: _Path) -> list[State]:
        """A scan over the batch axis, which is ``jax.lax.map`` where nothing is carried."""
        static, (jaxpr, own) = eqn.params, closed(eqn.params["jaxpr"])
        first, last = static["num_consts"], static["num_consts"] + static["num_carry"]
        slices: list[State] = []
        for state, atom in zip(states[last:], eqn.invars[last:], strict=True):
            if state == ByExample(0):
                slices.append(Single())
            elif isinstance(state, Fixed) and 0 not in state.varies:
                slices.append(moved_to(eqn, state, {axis: axis - 1 for axis in range(1, len(shape_of(atom)))}))
            else:
                raise StopSearchError(eqn, "loops over the examples together with another array", undecided=True)
        own_states = [constant(value) for value in own]
        results = self.follow(jaxpr, own_states, [*states[:last], *slices], (*path, 0))
        if any(isinstance(state, Single) for state in results[: last - first]):
            raise StopSearchError(eqn, "carries values from one example to the next")
        if jaxpr.outvars[: last - first] != jaxpr.invars[first:last]:
            raise StopSearchError(eqn, "loops over the examples and carries a value", undecided=True)
        outputs: list[State] = list(states[first:last])
        for state in results[last - first :]:
            if isinstance(state, Fixed):
                outputs.append(Fixed(frozenset(axis + 1 for axis in state.varies)))
            else:
                outputs.append(ByExample(0) if isinstance(state, Single) else stacked(state))
        return outputs

    def _while(self, eqn: core.JaxprEqn, states: list[State], path: _Path) -> list[State]:
        static = eqn.params
        (cond, cond_own), (body, body_own) = closed(static["cond_jaxpr"]), closed(static["body_jaxpr"])
        first, last = static["cond_nconsts"], static["cond_nconsts"] + static["body_nconsts"]
        cond_states, body_states = ([constant(value) for value in own] for own in (cond_own, body_own))
        carry = states[last:]
        while True:
            try:
                flag = self.follow(cond, cond_states, [*states[:first], *carry], (*path, 0))[0]
            except StopSearchError as stop:
                raise StopSearchError(eqn, "repeats until a condition on all examples holds", undecided=True) from stop
            results = self.follow(body, body_states, [*states[first:last], *carry], (*path, 1))
            # Under vmap each example has a flag, on whose axis its values stay as they are once it is done.
            wider = [
                join(eqn, [before, after, flag] if isinstance(flag, ByExample) else [before, after])
                for before, after in zip(carry, results, strict=True)
            ]
            if wider == carry:
                return carry
            carry = wider


def _live(jaxpr: core.Jaxpr) -> set[int]:
    """The equations on which the outputs depend."""
    needed = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}
    live = set()
    for k, eqn in reversed(list(enumerate(jaxpr.eqns))):
        if not needed.isdisjoint(eqn.outvars):
            live.add(k)
            needed.update(atom for atom in eqn.invars if isinstance(atom, core.Var))
    return live


_SIZES = frozenset({
    "limit_indices", "length", "new_sizes", "padding_config", "shape", "sizes", "slice_sizes", "start_indices",
})  # fmt: skip
"""Parameters that say how large values are, and so differ with the number of examples."""


def _use_of_number(few: core.ClosedJaxpr, many: core.ClosedJaxpr) -> Independence | None:
    """Where a program for one number of examples computes with another number than that for another does."""
    for first, second in zip(few.consts, many.consts, strict=False):
        if _differ(first, second):
            return Independence(False, "a constant of the program depends on the number of examples")
    if len(few.consts) != len(many.consts):
        return _DIFFERENT
    return _use_in(few.jaxpr, many.jaxpr)


_DIFFERENT = Independence(None, "the program differs with the number of examples")


def _differ(first: Any, second: Any) -> bool:
    """Whether two constants differ in more than the number of rows."""
    if any(isinstance(value, jax.core.Tracer) or not is_numeric(value) for value in (first, second)):
        return False
    a, b = np.asarray(first), np.asarray(second)
    if a.ndim != b.ndim:
        return True
    for axis in range(a.ndim):
        if a.shape[axis] != b.shape[axis]:
            a, b = np.take(a, [0], axis), np.take(b, [0], axis)
    return not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _use_in(few: core.Jaxpr, many: core.Jaxpr) -> Independence | None:
    if len(few.eqns) != len(many.eqns):
        return _DIFFERENT
    live = _live(few)
    for k, (first, second) in enumerate(zip(few.eqns, many.eqns, strict=True)):
        if first.primitive is not second.primitive or _arity(first) != _arity(second):
            return _DIFFERENT
        if k not in live:
            continue
        use = _use_by(first, second)
        if use is not None:
            return use
    if len(few.outvars) != len(many.outvars):
        return _DIFFERENT
    for a, b in zip(few.outvars, many.outvars, strict=True):
        if isinstance(a, core.Literal) and isinstance(b, core.Literal) and _differ(a.val, b.val):
            return Independence(False, "an output depends on the number of examples")
    return None


def _arity(eqn: core.JaxprEqn) -> tuple[int, int]:
    return len(eqn.invars), len(eqn.outvars)


def _use_by(first: core.JaxprEqn, second: core.JaxprEqn) -> Independence | None:
    name = first.primitive.name
    reason = f"{name} computes with the number of examples"
    for a, b in zip(first.invars, second.invars, strict=True):
        if isinstance(a, core.Literal) and isinstance(b, core.Literal) and _differ(a.val, b.val):
            return Independence(False, reason, line_of(first))
    programs = [list(core.jaxprs_in_params(eqn.params)) for eqn in (first, second)]
    if len(programs[0]) != len(programs[1]):
        return _DIFFERENT
    for program, other in zip(*programs, strict=True):
        use = _use_in(program, other)
        if use is not None:
            return use
    for one_closed, other_closed in zip(_closed_programs(first), _closed_programs(second), strict=False):
        if any(_differ(a, b) for a, b in zip(one_closed.consts, other_closed.consts, strict=False)):
            return Independence(False, "a constant of the program depends on the number of examples", line_of(first))
    for parameter, value in first.params.items():
        if parameter not in _SIZES and _numbers(value) != _numbers(second.params.get(parameter)):
            return Independence(False, reason, line_of(first))
    if (
        not programs[0]
        and first.outvars
        and _lengths(first.invars, second.invars) > _lengths(first.outvars, second.outvars)
    ):
        return Independence(None, f"{name} works along as many rows as there are examples", line_of(first))
    return None


def _closed_programs(eqn: core.JaxprEqn) -> Iterator[core.ClosedJaxpr]:
    for value in eqn.params.values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each


def _numbers(value: Any) -> Any:
    """The numbers in a parameter, as far as they are plain ones."""
    if isinstance(value, (bool, int, float, str, np.number)):
        return repr(value)  # by which NaN is NaN
    if isinstance(value, (tuple, list)):
        return tuple(_numbers(each) for each in value)
    return None


def _lengths(first: Sequence[Atom], second: Sequence[Atom]) -> int:
    """Of how many axes the lengths differ with the number of examples, at most."""
    return max(
        (
            sum(a != b for a, b in zip(shape_of(atom), shape_of(other), strict=False))
            for atom, other in zip(first, second, strict=True)
        ),
        default=0,
    )
