"""How many examples a block has for a model: as many as are fast, and few enough for memory to stay bounded.

What is fast follows from the values that every point of a sweep reads and writes: at the sites, and the logits. What
bounds memory is the widest value of an example that the model computes anywhere, its inputs included, at a site or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core

from jaxdist.compute import blocks
from jaxdist.networks import model


def of_block(block: int | None, sites: model.Sites) -> int:
    """Examples a block for a model whose sites were listed for one example.

    `block` where it is given, else the default for the widths of the model's values.
    """
    if block is not None:
        return block
    jaxpr = sites.program.jaxpr
    read = max(1, *(math.prod(site.shape) for site in sites), *map(_size, jaxpr.outvars))
    # Weights, which may be cast or turned on the way, are the same for all examples.
    weights = len(jax.tree.leaves(sites.traced.arguments[0]))
    of_examples = [k >= weights for k in range(len(jaxpr.invars))]
    inputs = sum(_size(var) for var, is_input in zip(jaxpr.invars, of_examples, strict=True) if is_input)
    return blocks.default_size(read, max(read, inputs, _widest(jaxpr, of_examples)))


def _widest(jaxpr: core.Jaxpr, inputs: Sequence[bool]) -> int:
    """The most values of one result that depends on those `inputs` for which it is true, inner programs included."""
    depend, most = {var for var, does in zip(jaxpr.invars, inputs, strict=True) if does}, 0
    for equation in jaxpr.eqns:
        dependent = [isinstance(atom, core.Var) and atom in depend for atom in equation.invars]
        if not any(dependent):
            continue
        depend.update(equation.outvars)
        inner = [_widest(program, _inner(equation, program, dependent)) for program in model.programs(equation)]
        most = max(most, *map(_size, equation.outvars), *inner)
    return most


def _inner(equation: core.JaxprEqn, program: core.Jaxpr, dependent: list[bool]) -> list[bool]:
    """Which inputs of an inner program depend, where those of its equation do; so does all that a loop carries on."""
    count, parameters = len(program.invars), equation.params
    # What chooses a branch, or only decides whether a loop goes on, comes first.
    inputs = ([False] * count + dependent)[-count:] if count else []
    carried = range(0)
    if equation.primitive.name == "scan":
        carried = range(parameters["num_consts"], parameters["num_consts"] + parameters["num_carry"])
    elif equation.primitive.name == "while":
        carried = range(count - len(equation.outvars), count)
    return [does or k in carried for k, does in enumerate(inputs)]


def _size(atom: Any) -> int:
    return math.prod(getattr(atom.aval, "shape", ()))
