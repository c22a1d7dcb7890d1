"""Narrow products and what leads to them, computed as their transposes.

In Flax's layout a classifier's last product has as few columns as there are classes, and a CPU's vectors stay half
empty. So such a product is computed with the examples along the rows, and so is all that leads to it from what is known
before, the values at a site, say, which are transposed once for all points: edits, activations, biases and other
products. Only values of two axes are turned, and only where nothing else needs them as they are; what no rule here
knows how to turn stays as the model has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxdist.compute import tuning
from jaxdist.networks.site_programs import CALLS, REMAT, Environment, as_it_is, called, read_atom

NARROW, LEAST_ROWS = 24, 32
"""Columns up to which, and rows from which, a product gains by it on a CPU."""

_NAMES = """
    abs add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy cos cosh div eq erf
    erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow
    pvary reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
ELEMENTWISE = frozenset(_NAMES.split())
"""Primitives that act on each element alone, whose parameters know nothing of shapes."""

_SAME = tuple((precision, precision) for precision in lax.Precision)
"""Precisions that do not tell the two sides of a product apart. Others, as of an algorithm, are left alone."""

Result = TypeVar("Result")


def with_transposed_products(fn: Callable[[Any], Result], like: Any) -> Callable[[Any], Result]:
    """`fn` with its narrow products turned; `like` has the shapes of its argument, a pytree as what it returns.

    What does not depend on the argument is computed once, for all calls of what is returned. `fn` itself comes back
    where nothing can be turned, and where it has effects, which must happen as often as it is called.
    """
    if not tuning.current().turns_products:
        return fn
    traced, returned = jax.make_jaxpr(fn, return_shape=True)(like)
    flat = jax.make_jaxpr(lambda *arguments: _inlined(traced.jaxpr, traced.consts, arguments))(*jax.tree.leaves(like))
    constant, eqns = _split(flat.jaxpr)
    roots, inside = _plan(eqns, flat.jaxpr)
    if not roots or flat.effects:
        return fn
    consts: Environment = dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))
    for eqn in constant:
        consts.update(zip(eqn.outvars, as_it_is(eqn, [read_atom(consts, atom) for atom in eqn.invars]), strict=True))
    used = {atom for k in inside for atom in eqns[k].invars if isinstance(atom, core.Var) and atom in consts}
    const_transposes = {var: jnp.swapaxes(consts[var], 0, 1) for var in used if len(_shape(var)) == 2}

    def run(argument: Any) -> Result:
        values = consts | dict(zip(flat.jaxpr.invars, jax.tree.leaves(argument), strict=True))
        transposes = dict(const_transposes)
        for k, eqn in enumerate(eqns):
            if k not in inside:
                values.update(
                    zip(eqn.outvars, as_it_is(eqn, [read_atom(values, atom) for atom in eqn.invars]), strict=True)
                )
                continue
            (out,) = eqn.outvars
            transposes[out] = _transpose(eqn, values, transposes)
            if k in roots:
                # Without the barrier XLA would turn the product back.
                values[out] = jnp.swapaxes(lax.optimization_barrier(transposes[out]), 0, 1)
        outputs = [read_atom(values, atom) for atom in flat.jaxpr.outvars]
        result: Result = jax.tree.unflatten(jax.tree.structure(returned), outputs)
        return result

    return run


def _inlined(jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """What a traced function returns, its inner calls looked into."""
    values: Environment = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for eqn in jaxpr.eqns:
        operands = [read_atom(values, atom) for atom in eqn.invars]
        if eqn.primitive.name in CALLS - REMAT:
            inner, consts = called(eqn)
            with eqn.ctx.manager:
                results = _inlined(inner, consts, operands)
        else:
            results = as_it_is(eqn, operands)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read_atom(values, atom) for atom in jaxpr.outvars]


def _split(jaxpr: core.Jaxpr) -> tuple[list[core.JaxprEqn], list[core.JaxprEqn]]:
    """The equations that do not depend on the argument and those that do, of those that anything depends on."""
    needed = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}
    live: list[core.JaxprEqn] = []
    for eqn in reversed(jaxpr.eqns):
        if needed.intersection(eqn.outvars):
            live.append(eqn)
            needed.update(atom for atom in eqn.invars if isinstance(atom, core.Var))
    depend = set(jaxpr.invars)
    constant: list[core.JaxprEqn] = []
    changing: list[core.JaxprEqn] = []
    for eqn in reversed(live):
        depends = any(atom in depend for atom in eqn.invars if isinstance(atom, core.Var))
        (changing if depends else constant).append(eqn)
        if depends:
            depend.update(eqn.outvars)
    return constant, changing


def _plan(eqns: Sequence[core.JaxprEqn], jaxpr: core.Jaxpr) -> tuple[set[int], set[int]]:
    """The narrow products to be turned, and all equations that are turned for them, themselves among these."""
    makers = {var: k for k, eqn in enumerate(eqns) for var in eqn.outvars}
    users: dict[Any, set[int]] = {var: set() for var in makers}
    for k, eqn in enumerate(eqns):
        for atom in eqn.invars:
            if isinstance(atom, core.Var) and atom in users:
                users[atom].add(k)
    for atom in jaxpr.outvars:
        if isinstance(atom, core.Var) and atom in users:
            users[atom].add(len(eqns))
    arguments = set(jaxpr.invars)
    cones = {k: cone for k, eqn in enumerate(eqns) if _is_narrow(eqn) and (cone := _cone(k, eqns, makers, arguments))}
    while True:
        inside = set().union(*cones.values())
        spoiled = {k for k in inside - set(cones) if not users[eqns[k].outvars[0]] <= inside}
        unspoiled = {root: cone for root, cone in cones.items() if not cone & spoiled}
        if len(unspoiled) == len(cones):
            return set(cones), inside
        cones = unspoiled


def _is_narrow(eqn: core.JaxprEqn) -> bool:
    if eqn.primitive is not core.primitives.dot_general_p:
        return False
    shape = _shape(eqn.outvars[0])
    return len(shape) == 2 and shape[0] >= LEAST_ROWS and shape[1] <= NARROW


def _cone(
    root: int, eqns: Sequence[core.JaxprEqn], makers: Mapping[core.Var, int], arguments: set[core.Var]
) -> set[int]:
    """The equations that lead to a product and are turned with it; none where one cannot be."""
    cone, waiting = set[int](), [root]
    while waiting:
        k = waiting.pop()
        if k in cone:
            continue
        cone.add(k)
        if not _can_turn(eqns[k], makers, arguments):
            return set()
        waiting.extend(makers[atom] for atom in _sides(eqns[k]) if atom in makers)
    return cone


def _can_turn(eqn: core.JaxprEqn, makers: Mapping[core.Var, int], arguments: set[core.Var]) -> bool:
    """Whether there is a rule for this equation, from values of one row an example to such values."""
    out = _shape(eqn.outvars[0])
    literals = any(isinstance(atom, core.Literal) and _shape(atom) for atom in eqn.invars)
    if len(out) != 2 or literals or any(atom in arguments for atom in _sides(eqn)):
        return False
    ranks = [len(_shape(atom)) for atom in eqn.invars]
    if eqn.primitive is core.primitives.dot_general_p:
        matrix, precision = eqn.invars[1], eqn.params["precision"]
        return (
            eqn.params["dimension_numbers"] == (((1,), (0,)), ((), ()))
            and ranks == [2, 2]
            and isinstance(matrix, core.Var)
            and not (matrix in makers or matrix in arguments)
            and (precision is None or precision in _SAME)
        )
    if eqn.primitive is core.primitives.broadcast_in_dim_p:
        return len(ranks) == 1
    if eqn.primitive.name == "reshape":
        return ranks == [1] and 1 in out
    return eqn.primitive.name in ELEMENTWISE and all(rank in (0, 2) for rank in ranks)


def _sides(eqn: core.JaxprEqn) -> Iterator[Any]:
    """The operands that have to be turned for this equation to be."""
    rows = eqn.invars[:1] if eqn.primitive is core.primitives.dot_general_p else eqn.invars
    return (atom for atom in rows if isinstance(atom, core.Var) and len(_shape(atom)) == 2)


def _transpose(eqn: core.JaxprEqn, values: Environment, transposes: Environment) -> Any:
    """The transpose of what an equation gives, from those of its matrices and of the values that lead to it."""
    operands = [
        transposes[atom] if isinstance(atom, core.Var) and len(_shape(atom)) == 2 else read_atom(values, atom)
        for atom in eqn.invars
    ]
    out = _shape(eqn.outvars[0])[::-1]
    with eqn.ctx.manager:
        if eqn.primitive is core.primitives.dot_general_p:
            return eqn.primitive.bind(*reversed(operands), **eqn.params)
        if eqn.primitive is core.primitives.broadcast_in_dim_p:
            dimensions = eqn.params["broadcast_dimensions"]
            return lax.broadcast_in_dim(
                operands[0], out, dimensions if len(dimensions) == 2 else tuple(1 - k for k in dimensions)
            )
        if eqn.primitive.name == "reshape":
            return lax.reshape(operands[0], out)
    (result,) = as_it_is(eqn, operands)
    return result


def _shape(atom: core.Var | core.Literal) -> tuple[int, ...]:
    shape: tuple[int, ...] = getattr(atom.aval, "shape", ())
    return shape
