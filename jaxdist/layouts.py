"""Products that a model's own layout makes slow, computed in a shape that a CPU multiplies faster.

In Flax's layout a classifier's last product has as few columns as there are classes, and XLA's CPU products of 8 to 15
columns take half as long again as those of 16, whose rows are whole vectors. So such products get columns of zeros,
which are cut off again: the same sums. Only what is not inside an inner jit or loop of the model is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

VECTOR = 16
"""Float32 numbers of the widest vectors that CPUs have."""

Values = dict[core.Var, Any]
Result = TypeVar("Result")


def filled(fn: Callable[[Any], Result], like: Any) -> Callable[[Any], Result]:
    """`fn` with its narrow products filled up; `like` has the shapes of its argument, a pytree as what it returns.

    What does not depend on the argument is computed once, for all calls of what is returned: XLA itself would fill a
    matrix up again at every step of a loop, since it moves nothing out of loops that makes arrays larger.
    """
    if jax.default_backend() != "cpu":
        return fn
    closed, returned = jax.make_jaxpr(fn, return_shape=True)(like)
    jaxpr = closed.jaxpr
    if not any(_narrow(eqn) for eqn in jaxpr.eqns):
        return fn
    depend, changing, constant = set(jaxpr.invars), [], []
    for eqn in jaxpr.eqns:
        if any(var in depend for var in eqn.invars if isinstance(var, core.Var)):
            changing.append(eqn)
            depend.update(eqn.outvars)
        else:
            constant.append(eqn)
    known: Values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    _evaluate(constant, known)
    # Matrices that several products share are filled up once.
    wide = {eqn.invars[1]: _widened(_read(eqn.invars[1], known)) for eqn in changing if _narrow(eqn, known)}

    def run(argument: Any) -> Result:
        values = known | dict(zip(jaxpr.invars, jax.tree.leaves(argument), strict=True))
        _evaluate(changing, values, wide)
        found = [_read(atom, values) for atom in jaxpr.outvars]
        result: Result = jax.tree.unflatten(jax.tree.structure(returned), found)
        return result

    return run


def _narrow(eqn: core.JaxprEqn, known: Values | None = None) -> bool:
    """Whether this is a product of rows with a matrix, among those known, of a few columns less than a vector's."""
    if eqn.primitive is not core.primitives.dot_general_p:
        return False
    (left, right), (batch, _) = eqn.params["dimension_numbers"]
    rows, matrix = (jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars)  # type: ignore[attr-defined]
    return (
        not batch
        and (left, right) == ((rows.ndim - 1,), (0,))
        and matrix.ndim == 2
        and VECTOR // 2 <= matrix.shape[1] < VECTOR
        and rows.size // rows.shape[-1] >= VECTOR
        and (known is None or isinstance(eqn.invars[1], core.Literal) or eqn.invars[1] in known)
    )


def _widened(matrix: Array) -> Array:
    return jnp.pad(matrix, ((0, 0), (0, VECTOR - matrix.shape[1])))


def _read(atom: core.Var | core.Literal, values: Values) -> Any:
    return atom.val if isinstance(atom, core.Literal) else values[atom]


def _evaluate(eqns: Iterable[core.JaxprEqn], values: Values, wide: Values | None = None) -> None:
    """Compute traced equations one after the other; products with the `wide` matrices at their width."""
    for eqn in eqns:
        operands = [_read(atom, values) for atom in eqn.invars]
        if wide and len(eqn.invars) == 2 and eqn.invars[1] in wide and _narrow(eqn):
            whole = eqn.primitive.bind(operands[0], wide[eqn.invars[1]], **eqn.params)
            results = [whole[..., : operands[1].shape[1]]]
        else:
            found = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
            results = found if eqn.primitive.multiple_results else [found]
        values.update(zip(eqn.outvars, results, strict=True))
