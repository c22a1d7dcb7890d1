"""Random programs, edited by the interpreter and by the split, against the same with the edit written into them."""

from __future__ import annotations

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.errors import InputError
from jaxdist.networks import site_values
from jaxdist.networks.site_programs import dependence
from jaxdist.networks.site_splits import split
from jaxdist.networks.site_values import read, site, trace
from tests.networks.site_support import assert_same

WIDTH, ROWS = 4, 3
CONTAINERS = ("scan", "while", "cond", "remat", "jit", "vmap", "custom_vjp", "custom_jvp")
DIFFERENTIABLE = ("scan", "cond", "remat", "jit", "vmap")


def grown(rng, containers, depth=3):
    """A random program: a list of operations, some of which hold programs."""
    program = []
    for _ in range(rng.randint(1, 3)):
        if depth and rng.random() < 0.6:
            kind = rng.choice(containers)
            inner = [grown(rng, containers, depth - 1) for _ in range(2 if kind == "cond" else 1)]
            program.append((kind, rng.randint(1, 3), inner))
        else:
            program.append((rng.choice(["tanh", "product", "shift"]), rng.uniform(0.5, 1.5), []))
        if rng.random() < 0.7:
            program.append(("site", rng.choice("abcd"), []))
    return program


def sites_of(program, loops=(), counts=None):
    """Each site of a program: its name, its call in the order of the program, and the loops around it."""
    counts = {} if counts is None else counts
    for operation in program:
        kind, argument, inner = operation
        if kind == "site":
            yield operation, counts.setdefault(argument, 0), loops
            counts[argument] += 1
        more = (argument if kind == "scan" else None,) if kind in ("scan", "while") else ()
        for part in inner:
            yield from sites_of(part, loops + more, counts)


def evaluated(program, weights, value, change, numbers=()):
    """The value of a program; `change(operation, value, numbers)` is called at each site, with the loops' numbers."""
    for operation in program:
        kind, argument, inner = operation
        run = [functools.partial(_inner, part, change) for part in inner]
        if kind == "site":
            value = change(operation, value, numbers)
        elif kind == "tanh":
            value = jnp.tanh(argument * value)
        elif kind == "product":
            value = argument * value @ weights
        elif kind == "shift":
            value = value + argument
        elif kind == "scan":
            value = scanned(run[0], weights, value, numbers, argument)
        elif kind == "while":
            value = looped(run[0], weights, value, numbers, argument)
        elif kind == "cond":
            # The branch for false comes first in the program.
            value = jax.lax.cond(value.sum() > 0, run[1], run[0], weights, value, numbers)
        elif kind == "remat":
            value = jax.checkpoint(run[0])(weights, value, numbers)
        elif kind == "jit":
            value = jax.jit(run[0])(weights, value, numbers)
        elif kind == "vmap" and value.ndim > 1:
            value = jax.vmap(run[0], in_axes=(None, 0, None))(weights, value, numbers)
        elif kind == "custom_vjp":
            value = with_own_vjp(run[0])(weights, value, numbers)
        elif kind == "custom_jvp":
            value = with_own_jvp(run[0])(weights, value, numbers)
        else:
            value = run[0](weights, value, numbers)
    return value


def scanned(run, weights, value, numbers, length):
    def step(carry, i):
        return run(weights, carry, (*numbers, i)), carry.sum()

    value, sums = jax.lax.scan(step, value, jnp.arange(length), reverse=length == 2)
    return value + jnp.tanh(sums.mean())


def looped(run, weights, value, numbers, length):
    def body(state):
        return state[0] + 1, run(weights, state[1], (*numbers, state[0]))

    return jax.lax.while_loop(lambda state: state[0] < length, body, (0, value))[1]


def with_own_vjp(run):
    ruled = jax.custom_vjp(run)
    ruled.defvjp(lambda *arguments: (ruled(*arguments), arguments), lambda arguments, _: arguments)
    return ruled


def with_own_jvp(run):
    ruled = jax.custom_jvp(run)
    ruled.defjvp(lambda primals, tangents: (ruled(*primals), tangents[1]))
    return ruled


def _inner(program, change, weights, value, numbers):
    return evaluated(program, weights, value, change, numbers)


def named(operation, value, numbers):
    return site(operation[1], value)


def edited_at(key, edit):
    """The hook that writes an edit of a key into a program."""

    def change(operation, value, numbers, calls):
        name, call, iteration = key
        if operation[1] != name or (call is not None and call != calls[id(operation)]):
            return value
        if iteration is None:
            return edit(value)
        wanted = functools.reduce(
            jnp.logical_and, [number == at for number, at in zip(numbers, iteration, strict=True)], True
        )
        return jnp.where(wanted, edit(value), value)

    return change


def cases(seed, containers, depth=3):
    """A random program and some keys of it."""
    rng = random.Random(seed)
    while True:
        program = grown(rng, containers, depth)
        found = list(sites_of(program))
        if found:
            break
    calls = {id(operation): call for operation, call, _ in found}
    keys = set()
    for operation, call, loops in rng.sample(found, min(2, len(found))):
        name = operation[1]
        keys.add((name, None, None))
        keys.add((name, call, None))
        if loops:
            keys.add((name, call, tuple(rng.randrange(length or 2) for length in loops)))
    return program, calls, sorted(keys, key=repr)


def compared(seed, containers, *, differentiated=False, depth=3):
    program, calls, keys = cases(seed, containers, depth)
    weights = jax.random.normal(jax.random.key(seed), (WIDTH, WIDTH)) / 2
    x = jax.random.normal(jax.random.key(seed + 1), (ROWS, WIDTH))

    def network(weights, x):
        return evaluated(program, weights, x, named)

    traced = trace(network, weights, x)
    assert [each.key for each in traced.sites] == [
        site_values.written(
            site_values.Key(operation[1], call if traced_calls(calls, operation, program) else None, None)
        )
        for operation, call, _ in sites_of(program)
    ]
    splits = {}
    for key in keys:
        text = site_values.written(site_values.Key(*key))
        splits[text] = split(traced, [text])

    def both(weights, x, factor):
        def edit(value):
            return factor * value - 0.25

        got = {"": (network(weights, x), traced.evaluate(weights, x, {})[0])}
        for key in keys:
            text = site_values.written(site_values.Key(*key))
            change = functools.partial(edited_at(key, edit), calls=calls)
            by_hand = evaluated(program, weights, x, change)
            got[text] = (by_hand, traced.evaluate(weights, x, {text: edit})[0])
            cut = splits[text]
            got[f"{text} split"] = (by_hand, cut.after(cut.before(weights, x), {text: edit}))
        return got

    got = jax.jit(both)(weights, x, 1.5)
    for text, (by_hand, evaluated_) in got.items():
        assert_same(evaluated_, by_hand, 1e-5 if text else 1e-6)
    if differentiated:
        # Each key's output has a weight of its own in the sum whose gradient is taken.
        def total(which, weights, factor):
            outputs = both(weights, x, factor).values()
            return sum((k + 1.0) * output[which].sum() for k, output in enumerate(outputs))

        gradients = jax.jit(lambda *given: [jax.grad(total, argnums=(1, 2))(which, *given) for which in (0, 1)])
        by_hand, evaluated_ = gradients(weights, 1.5)
        for one, other in zip(evaluated_, by_hand, strict=True):
            assert_same(one, other, 1e-4)
    return program, got


def traced_calls(calls, operation, program):
    """Whether a name is used more than once."""
    return sum(each[1] == operation[1] for each, _, _ in sites_of(program)) > 1


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_are_edited_as_if_rewritten(seed):
    compared(seed, CONTAINERS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_random_programs_are_edited_as_if_rewritten(seed):
    compared(seed, CONTAINERS)


@pytest.mark.parametrize("seed", [0, 2])
def test_derivatives_through_edited_programs(seed):
    compared(seed, DIFFERENTIABLE, differentiated=True, depth=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_derivatives_through_many_edited_programs(seed):
    compared(seed, DIFFERENTIABLE, differentiated=True)


def test_the_random_programs_hold_everything():
    kinds, deep = set(), 0
    for seed in range(12):
        program, _, keys = cases(seed, CONTAINERS)
        pending = list(program)
        while pending:
            kind, _, inner = pending.pop()
            kinds.add(kind)
            for part in inner:
                pending += part
        deep += any(iteration for _, _, iteration in keys)
    assert kinds == {*CONTAINERS, "site", "tanh", "product", "shift"}
    assert deep >= 3


@pytest.mark.parametrize("seed", range(4))
def test_values_read_are_those_that_a_rewritten_program_gives(seed):
    program, _, _ = cases(seed, ("jit", "custom_jvp", "cond"))
    weights = jax.random.normal(jax.random.key(seed), (WIDTH, WIDTH)) / 2
    x = jax.random.normal(jax.random.key(seed + 1), (ROWS, WIDTH))

    def network(weights, x):
        return evaluated(program, weights, x, named)

    keys = [each.key for each in trace(network, weights, x).sites]
    _, values = read(network, weights, x, keys)
    seen = {}

    def noting(operation, value, numbers):
        seen.setdefault(operation[1], []).append(np.asarray(value))
        return value

    with jax.disable_jit():  # in which branches are taken one by one, and values are there to be noted
        evaluated(program, weights, x, noting)
    for name, expected in seen.items():
        taken = [values[key] for key in keys if key.partition("#")[0] == name and not np.isnan(values[key]).all()]
        assert len(taken) == len(expected)
        for got, want in zip(taken, expected, strict=True):
            assert_same(got, want, 1e-5)


# The split.


def layers(params, x):
    h = x
    for k in range(3):
        h = jnp.tanh(site(f"layer{k}", h @ params[k]))
    return h


PARAMS = tuple(jax.random.normal(jax.random.key(k), (WIDTH, WIDTH)) for k in range(3))
X = jax.random.normal(jax.random.key(9), (ROWS, WIDTH))


def products(eqns):
    return sum(eqn.primitive.name == "dot_general" for eqn in eqns)


def test_a_split_computes_each_product_in_one_of_its_parts():
    for k in range(3):
        cut = split(trace(layers, PARAMS, X), [f"layer{k}"])
        assert (products(cut.first), products(cut.second)) == (k + 1, 2 - k)
        known = cut.before(PARAMS, X)
        assert_same(cut.values(known)[f"layer{k}"], read(layers, PARAMS, X, [f"layer{k}"])[1][f"layer{k}"], 1e-6)
    both = split(trace(layers, PARAMS, X), ["layer0", "layer2"])
    assert products(both.second) == 2
    known = both.before(PARAMS, X)
    assert list(both.values(known)) == ["layer0"]  # the other depends on it

    def double(value):
        return 2 * value

    assert_same(both.after(known, {"layer2": double}), site_values.edit(layers, PARAMS, X, {"layer2": double}), 1e-6)


def test_a_split_serves_many_edits_by_map_and_vmap_within_a_jit():
    cut = split(trace(layers, PARAMS, X), ["layer1"])
    factors = jnp.linspace(0.0, 2.0, 5)

    @functools.partial(jax.jit, static_argnames="over")
    def swept(params, x, over):
        known = cut.before(params, x)
        return over(lambda factor: cut.after(known, {"layer1": lambda value: factor * value}))(factors)

    expected = [site_values.edit(layers, PARAMS, X, {"layer1": lambda v, a=a: a * v}) for a in factors]
    for over in (jax.vmap, lambda f: lambda points: jax.lax.map(f, points)):
        assert_same(swept(PARAMS, X, over), np.stack(expected), 1e-6)


def test_splits_are_refused_where_they_mean_nothing():
    def dead(params, x):
        site("aside", x.sum())
        return layers(params, x)

    with pytest.raises(InputError, match="site 'aside': its value does not reach the network's output"):
        split(trace(dead, PARAMS, X), ["layer0", "aside"])
    with pytest.raises(InputError, match="expected the name of at least one site, got none"):
        split(trace(layers, PARAMS, X), [])
    with pytest.raises(InputError, match="site 'layer1': names a value that another key also names"):
        split(trace(layers, PARAMS, X), ["layer*", "layer1"])
    cut = split(trace(layers, PARAMS, X), ["layer0"])
    known = cut.before(PARAMS, X)
    with pytest.raises(InputError, match="site 'layer1': the program is cut only at layer0; cut it at this"):
        cut.after(known, {"layer1": jnp.zeros_like})
    with pytest.raises(InputError, match=r"site 'layer0': expected its action to keep the shape \(3, 4\)"):
        cut.after(known, {"layer0": jnp.sum})
    with pytest.raises(InputError, match=r"expected an array of shape \(3, 4\)"):
        cut.before(PARAMS, X[:2])


def test_dependence_is_followed_through_loops_and_branches():
    def program(a, b):
        # c goes round once more before it depends on a; d never does.
        def step(carry, x):
            first, second, third = carry
            return (a, first, third + x), second

        carry, seconds = jax.lax.scan(step, (b, b, b), jnp.arange(3.0))
        branch = jax.lax.cond(b > 0, lambda a, b: (a, b), lambda a, b: (b, b), a, b)
        looped = jax.lax.while_loop(lambda c: c[0] < a, lambda c: (c[0] + 1, 2 * c[1]), (b, b))
        return (*carry, seconds.sum(), *branch, *looped, jax.jit(lambda x: 2 * x)(b))

    jaxpr = jax.make_jaxpr(program)(1.0, 2.0).jaxpr
    assert dependence(jaxpr, [True, False]) == [True, True, False, True, True, False, True, True, False]
    assert dependence(jaxpr, [False, False]) == [False] * 9
