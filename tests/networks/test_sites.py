"""Named values of plain JAX functions: listed, read and edited within every transformation, against JAX by hand."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.errors import InputError
from jaxdist.networks.site_primitives import tag
from jaxdist.networks.site_splits import split
from jaxdist.networks.site_values import edit, matches, read, site, sites, trace
from tests.networks.site_support import assert_edits, assert_same, listed

KEYS = jax.random.split(jax.random.key(0), 5)
PARAMS = {
    "square": jax.random.normal(KEYS[0], (16, 16)) / 5,
    "into": jax.random.normal(KEYS[1], (8, 16)) / 3,
    "out": jax.random.normal(KEYS[2], (16, 10)),
}
X = jax.random.normal(KEYS[3], (20, 8))
SEQUENCES = jax.random.normal(KEYS[4], (20, 6, 8))


def same(value, number=None):
    return value


def twice(value, number=None):
    return 2 * value


def perceptron(params, x, change=same):
    return jax.nn.relu(change(site("hidden", x @ params["into"]))) @ params["out"]


def recurrent(params, x, change=same):
    def step(carry, row):
        number, state = carry
        state = change(site("state", jnp.tanh(state @ params["square"] + row @ params["into"])), number)
        return (number + 1, state), 3 * state

    start = (0, jnp.zeros((len(x), 16)))
    (_, last), outputs = jax.lax.scan(step, start, x.swapaxes(0, 1))
    return site("last", last) @ params["out"] + outputs.sum(0) @ params["out"]


def by(network, change):
    return lambda params, x: network(params, x, change)


def only(network):
    return lambda params, x: network(params, x)


def test_a_site_is_listed_with_its_shape_and_what_is_around_it():
    (hidden,) = sites(only(perceptron), PARAMS, X)
    assert (hidden.name, hidden.shape, hidden.dtype, hidden.calls, hidden.loops) == (
        "hidden",
        (20, 16),
        "float32",
        1,
        (),
    )
    assert repr(hidden) == "Site(name='hidden', shape=(20, 16), dtype=float32)"
    state, last = sites(only(recurrent), PARAMS, SEQUENCES)
    assert (state.name, state.loops, state.inside, state.refusal) == ("state", (6,), ("scan",), None)
    assert last.key == "last"


def test_edits_and_reads_of_a_plain_function():
    assert_edits(only(perceptron), PARAMS, X, {"hidden": twice}, by(perceptron, lambda v: 2 * v))
    zeros = np.zeros((20, 16), np.float32)
    assert_edits(only(perceptron), PARAMS, X, {"hidden": zeros}, by(perceptron, jnp.zeros_like))
    output, values = read(only(perceptron), PARAMS, X, ["hidden"])
    assert_same(values["hidden"], X @ PARAMS["into"])
    assert_same(output, perceptron(PARAMS, X))


def test_the_older_form_with_a_tap_has_the_same_sites():
    def older(params, x, tap):
        return jax.nn.relu(tap("hidden", x @ params["into"])) @ params["out"]

    def with_default(params, x, tap=None):
        assert tap is None
        return perceptron(params, x)

    assert listed(older, PARAMS, X) == listed(with_default, PARAMS, X) == ["hidden"]
    assert_edits(older, PARAMS, X, {"hidden": twice}, by(perceptron, twice))


def test_edits_within_a_scan_of_all_iterations_and_of_one():
    split_all = assert_edits(only(recurrent), PARAMS, SEQUENCES, {"state": twice}, by(recurrent, twice))
    assert "scan" in {eqn.primitive.name for eqn in split_all.second}

    def third(value, number):
        return jnp.where(number == 3, 2 * value, value)

    at_three = assert_edits(only(recurrent), PARAMS, SEQUENCES, {"state@3": twice}, by(recurrent, third), 1e-6)
    scans = [
        [eqn.params["length"] for eqn in part if eqn.primitive.name == "scan"]
        for part in (at_three.first, at_three.second)
    ]
    assert scans == [[3], [2]]
    _, values = read(only(recurrent), PARAMS, SEQUENCES, ["state", "state@2", "last"])
    assert values["state"].shape == (6, 20, 16)
    assert_same(values["state"][-1], values["last"])
    assert_same(values["state@2"], values["state"][2])


def test_a_scan_in_reverse_counts_its_iterations_as_its_inputs():
    def network(params, x, change=same):
        def step(state, row):
            state = change(site("state", jnp.tanh(state @ params["square"] + row["x"] @ params["into"])), row["number"])
            return state, None

        rows = {"x": x.swapaxes(0, 1), "number": jnp.arange(x.shape[1])}
        return jax.lax.scan(step, jnp.zeros((len(x), 16)), rows, reverse=True)[0]

    def first(value, number):
        return jnp.where(number == 0, 2 * value, value)

    assert_edits(only(network), PARAMS, SEQUENCES, {"state@0": twice}, by(network, first), 1e-6)
    _, values = read(only(network), PARAMS, SEQUENCES, ["state"])
    assert_same(values["state"][0], network(PARAMS, SEQUENCES), 1e-6)


def test_an_iteration_of_nested_loops():
    def network(params, x, change=same):
        def outer(state, i):
            def inner(state, j):
                return change(site("state", jnp.tanh(state @ params["square"])), (i, j)), None

            return jax.lax.scan(inner, state, jnp.arange(3))[0], None

        return jax.lax.scan(outer, x @ params["into"], jnp.arange(2))[0]

    def at(value, numbers):
        i, j = numbers
        return jnp.where((i == 1) & (j == 2), 2 * value, value)

    assert_edits(only(network), PARAMS, X, {"state@1,2": twice}, by(network, at), 1e-6)
    assert read(only(network), PARAMS, X, ["state"])[1]["state"].shape == (2, 3, 20, 16)


def test_a_function_of_one_example_under_vmap_has_its_examples_in_front():
    def one(params, x, change=same):
        return jax.nn.relu(change(site("hidden", x @ params["into"]))) @ params["out"]

    def network(params, x, change=same):
        return jax.vmap(lambda row: one(params, row, change), in_axes=1, out_axes=1)(x.T)

    (hidden,) = sites(only(network), PARAMS, X)
    assert (hidden.shape, hidden.batched) == ((20, 16), 1)
    assert_edits(only(network), PARAMS, X, {"hidden": twice}, by(network, twice))
    assert_same(read(only(network), PARAMS, X, ["hidden"])[1]["hidden"], X @ PARAMS["into"], 1e-6)


def solved(params, x, change=same):
    def body(carry):
        number, state = carry
        return number + 1, change(site("state", jnp.tanh(state @ params["square"] + x @ params["into"])), number)

    return jax.lax.while_loop(lambda carry: carry[0] < 5, body, (0, jnp.zeros((len(x), 16))))[1]


def test_a_while_loop_can_be_edited_and_not_read():
    assert_edits(only(solved), PARAMS, X, {"state": twice}, by(solved, twice))

    def second(value, number):
        return jnp.where(number == 1, 2 * value, value)

    assert_edits(only(solved), PARAMS, X, {"state@1": twice}, by(solved, second))
    with pytest.raises(InputError, match=r"site 'state': it is inside a while loop, .* no array can hold its values"):
        read(only(solved), PARAMS, X, ["state"])


def test_rows_of_a_while_loop_under_vmap_end_by_themselves():
    def network(params, x, change=same):
        def one(row):
            return jax.lax.while_loop(lambda v: jnp.abs(v).max() > 0.1, lambda v: change(site("v", v * 0.5)), row)

        return jax.vmap(one)(x) + params["out"].sum()

    def change(value, number=None):
        return 0.7 * value

    assert_edits(only(network), PARAMS, X, {"v": change}, by(network, change))


def branching(params, x, change=same, again=same):
    return jax.lax.cond(
        x[0, 0] > params["threshold"],
        lambda x: change(site("b", 2 * x)),
        lambda x: site("c", 3 * x) + again(site("b", x)),
        x,
    )


@pytest.mark.parametrize("threshold", [-100.0, 100.0])
def test_a_branch_that_is_not_taken_reads_as_nan(threshold):
    params = {"threshold": jnp.float32(threshold)}

    def network(params, x):
        return branching(params, x)

    # The second branch of lax.cond comes first in the program.
    keys = ["c", "b#0", "b#1"]
    assert listed(network, params, X) == ["c", "b#0", "b#1"]

    def increased(value):
        return value + 1

    for key, taken in (("b#1", threshold < 0), ("b#0", threshold > 0)):
        expected = jax.jit(lambda p, x: branching(p, x) + 1)(params, X) if taken else branching(params, X)
        assert_same(edit(network, params, X, {key: increased}), expected, 1e-6)
    _, values = read(network, params, X, keys)
    missing = {key: bool(np.isnan(value).all()) for key, value in values.items()}
    assert missing == {"c": threshold < 0, "b#0": threshold < 0, "b#1": threshold > 0}


def test_an_own_derivative_of_the_network_follows_the_edit():
    def energy(params, x, change=same):
        return jnp.sum(jnp.tanh(change(site("potential", x @ params["into"]))) ** 2)

    def force(params, x, change=same):
        return -jax.vmap(jax.grad(lambda row: energy(params, row, change)))(x)

    def wave(value, number=None):
        return jnp.sin(3 * value)

    # Forces change by the derivative of the edit, not by its value alone.
    assert_edits(only(force), PARAMS, X, {"potential": wave}, by(force, wave), 1e-6)

    def forward(params, x, change=same):
        return jax.jvp(lambda x: energy(params, x, change), (x,), (jnp.ones_like(x),))[1]

    assert_edits(only(forward), PARAMS, X, {"potential": wave}, by(forward, wave), 1e-6)


def test_a_second_derivative_of_the_network_is_refused():
    def curvature(params, x):
        def value(t):
            return jnp.tanh(site("z", t * x)).sum()

        return jax.grad(jax.grad(value))(1.0) * x

    (first, *_) = sites(curvature, PARAMS, X)
    assert "takes derivatives through it more than once" in first.refusal
    with pytest.raises(InputError, match="site 'z': the network takes derivatives through it more than once"):
        edit(curvature, PARAMS, X, {"z": twice})


@jax.custom_vjp
def rounded(x):
    return jnp.round(site("q", x))


rounded.defvjp(lambda x: (rounded(x), None), lambda _, cotangent: (cotangent,))


def test_a_site_in_a_custom_rule_is_edited_and_not_differentiated():
    def network(params, x):
        return jax.checkpoint(jax.jit(lambda x: rounded(x) @ params["into"]))(x)

    (q,) = sites(network, PARAMS, X)
    assert q.inside == ("remat2", "jit", "custom_vjp_call")
    assert_same(edit(network, PARAMS, X, {"q": lambda v: 3 * v}), jnp.round(3 * X) @ PARAMS["into"])
    sentence = "site 'q': it is inside a jax.custom_vjp, whose own derivative rule would be lost"
    with pytest.raises(InputError, match=sentence):
        jax.grad(lambda x: edit(network, PARAMS, x, {"q": lambda v: 3 * v}).sum())(X)
    with pytest.raises(InputError, match=sentence):
        jax.grad(lambda a: edit(network, PARAMS, X, {"q": lambda v: a * v}).sum())(3.0)
    with pytest.raises(InputError, match=sentence):
        jax.jit(jax.grad(lambda x: read(network, PARAMS, x, ["q"])[0].sum()))(X)
    # Where no site of it is wanted, the rule is the user's: its derivative is not zero.
    gradient = jax.grad(lambda x: edit(network, PARAMS, x, {}).sum())(X)
    assert_same(gradient, jax.grad(lambda x: network(PARAMS, x).sum())(X))
    assert np.abs(gradient).max() > 0


def test_edits_can_be_mapped_differentiated_and_jitted():
    factors = jnp.arange(3.0)

    def edited(factor):
        return edit(only(perceptron), PARAMS, X, {"hidden": lambda v: factor * v})

    def by_hand(factor):
        return perceptron(PARAMS, X, lambda v: factor * v)

    assert_same(jax.jit(jax.vmap(edited))(factors), jax.jit(jax.vmap(by_hand))(factors))
    slope = jax.grad(lambda factor: edited(factor).sum())(1.5)
    assert_same(slope, jax.grad(lambda factor: by_hand(factor).sum())(1.5), 1e-6)
    assert float(slope) != 0
    per_seed = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), PARAMS)
    over_seeds = jax.vmap(lambda params: edit(only(perceptron), params, X, {"hidden": twice}))(per_seed)
    assert_same(over_seeds[1], perceptron(jax.tree.map(lambda leaf: 2 * leaf, PARAMS), X, twice), 1e-6)


def test_gradients_of_edits_in_a_scan_with_rematerialised_steps():
    def network(params, x, change=same):
        step = jax.checkpoint(lambda state, i: change(site("h", jnp.tanh(state @ params["square"])), i))
        return jax.lax.scan(lambda state, i: (step(state, i), None), x @ params["into"], jnp.arange(4))[0]

    def loss(params, factor):
        return edit(only(network), params, X, {"h@2": lambda v: factor * v}).sum()

    def by_hand(params, factor):
        return network(params, X, lambda v, i: jnp.where(i == 2, factor * v, v)).sum()

    got, expected = (jax.grad(f, argnums=(0, 1))(PARAMS, 2.0) for f in (loss, by_hand))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert_same(one, other, 1e-5)


@pytest.mark.parametrize("check_vma", [False, True])
def test_edits_and_splits_go_through_shard_map(check_vma):
    devices = jax.devices()[:2]
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    data, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    traced = trace(only(recurrent), PARAMS, SEQUENCES[: 20 // len(devices)])
    cut = split(traced, ["state@3"])

    def edited(params, x):
        return edit(only(perceptron), params, x[:, 0], {"hidden": twice})

    def cut_in_two(params, x):
        known = cut.before(params, x)
        return jax.lax.map(lambda factor: cut.after(known, {"state@3": lambda v: factor * v}), jnp.ones(2))[1]

    options = {"mesh": mesh, "in_specs": (whole, data), "out_specs": data, "check_vma": check_vma}
    expected = perceptron(PARAMS, SEQUENCES[:, 0], twice)
    assert_same(jax.jit(jax.shard_map(edited, **options))(PARAMS, SEQUENCES), expected, 1e-6)
    if not check_vma:
        got = jax.jit(jax.shard_map(cut_in_two, **options))(PARAMS, SEQUENCES)
        assert_same(got, recurrent(PARAMS, SEQUENCES), 1e-6)


class Pair(NamedTuple):
    logits: jax.Array
    rest: dict


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Output:
    logits: jax.Array
    nothing: None = None


@dataclasses.dataclass
class Unknown:
    logits: jax.Array


def test_outputs_are_any_pytree_of_arrays():
    def network(kind):
        return lambda params, x: kind(perceptron(params, x))

    edited = edit(network(lambda y: {"logits": y, "count": 3}), PARAMS, X, {"hidden": twice})
    assert set(edited) == {"logits", "count"}
    expected = perceptron(PARAMS, X, twice)
    assert_same(edited["logits"], expected)
    assert_same(edit(network(Output), PARAMS, X, {"hidden": twice}).logits, expected)
    pair = edit(network(lambda y: Pair(y, {"x": (y,)})), PARAMS, X, {"hidden": twice})
    assert isinstance(pair, Pair)
    assert_same(pair.rest["x"][0], expected)
    with pytest.raises(InputError, match=r"expected a pytree of arrays as output, got an Unknown in it; return its"):
        sites(network(Unknown), PARAMS, X)


def test_values_that_are_trees_have_a_site_for_each_array():
    def network(params, x):
        one, (two, _) = site("pair", (x @ params["into"], (2 * x @ params["into"], "label")))
        return (one + two) @ params["out"]

    assert listed(network, PARAMS, X) == ["pair[0]", "pair[1][0]"]
    h = X @ PARAMS["into"]
    assert_same(edit(network, PARAMS, X, {"pair[1][0]": jnp.zeros_like}), h @ PARAMS["out"], 1e-6)


def test_random_keys_integers_and_half_precision_go_through():
    def network(params, x):
        keys = site("keys", jax.random.split(jax.random.key(0), 2))
        noise = jax.random.normal(keys[0], x.shape, jnp.bfloat16)
        index = site("index", jnp.argmax(x, -1))
        return site("half", x.astype(jnp.bfloat16) + noise) * index[:, None].astype(jnp.bfloat16)

    assert listed(network, PARAMS, X) == ["keys", "index", "half"]
    got = edit(network, PARAMS, X, {"index": lambda v: v + 1, "keys": lambda keys: keys[::-1]})
    noise = jax.random.normal(jax.random.split(jax.random.key(0), 2)[1], X.shape, jnp.bfloat16)
    expected = (X.astype(jnp.bfloat16) + noise) * (jnp.argmax(X, -1)[:, None] + 1).astype(jnp.bfloat16)
    assert_same(got, expected)


def test_numbers_given_as_arguments_stay_weakly_typed():
    def network(params, x):
        return site("h", x.astype(jnp.bfloat16) * params)

    assert sites(network, 2.0, X)[0].dtype == jnp.bfloat16
    assert edit(network, 2.0, X, {"h": lambda v: v}).dtype == jnp.bfloat16


def test_a_jit_that_was_called_before_still_shows_its_sites():
    inner = jax.jit(lambda params, x: jax.nn.relu(site("hidden", x @ params["into"])))
    inner(PARAMS, X)

    def network(params, x):
        return inner(params, x) @ params["out"]

    jax.jit(network)(PARAMS, X)
    for _ in range(3):
        assert listed(network, PARAMS, X) == ["hidden"]
    assert_edits(network, PARAMS, X, {"hidden": twice}, by(perceptron, twice))


def shared(params, x, changes=(same, same, same)):
    h = x @ params["into"]
    for change in changes:
        h = change(site("mix", jnp.tanh(h @ params["square"])))
    return h


def test_one_call_of_several():
    assert listed(only(shared), PARAMS, X) == ["mix#0", "mix#1", "mix#2"]
    for call in range(3):
        changes = tuple(twice if k == call else same for k in range(3))
        assert_edits(only(shared), PARAMS, X, {f"mix#{call}": twice}, lambda p, x, c=changes: shared(p, x, c))
    assert_edits(only(shared), PARAMS, X, {"mix": twice}, lambda p, x: shared(p, x, (twice,) * 3))
    _, values = read(only(shared), PARAMS, X, ["mix", "mix#1"])
    assert len(values["mix"]) == 3
    assert_same(values["mix"][1], values["mix#1"])
    # Edits of the same value act one after the other.
    got = edit(only(shared), PARAMS, X, {"mix#2": lambda v: v + 1, "mix": twice})
    assert_same(got, shared(PARAMS, X, (twice, twice, lambda v: 2 * (v + 1))), 1e-6)


def layered(params, x):
    h = x @ params["into"]
    for k in range(3):
        h = site(f"layers/{k}/up", jnp.tanh(h @ params["square"]))
        h = site(f"layers/{k}", h + site(f"layers/{k}/mlp/down", h))
    return site("a*b@1", h) @ params["out"]


def test_keys_with_asterisks_mean_all_names_that_match():
    _, values = read(layered, PARAMS, X, ["layers/*/up", "layers/*", "layers/**/down", "a*b@1"])
    each = [f"layers/{k}" for k in range(3)]
    assert list(values) == [f"{name}/up" for name in each] + each + [f"{name}/mlp/down" for name in each] + ["a*b@1"]
    all_up = edit(layered, PARAMS, X, {"layers/*/up": twice})
    assert_same(all_up, edit(layered, PARAMS, X, {f"layers/{k}/up": twice for k in range(3)}))
    cut = split(trace(layered, PARAMS, X), ["layers/*/up"])
    assert_same(cut.after(cut.before(PARAMS, X), {"layers/*/up": twice}), all_up, 1e-6)
    assert not matches("layers/*", "layers/0/up")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("stat", "site 'stat': the network has no such site; did you mean 'state'.; its sites are state, last"),
        ("x/*", "site 'x/.': the network has no such site; its sites are state, last"),
        ("state#1", "expected a call of 'state' before #1, since it has 1 call"),
        ("state@6", "expected an iteration from 0 to 5 of a loop of length 6, got 6"),
        ("state@1,2", "got 2 iteration numbers, but it is inside 1 loop of the network's program; .* 'state@0'"),
        ("last@1", "got 1 iteration number, but it is inside 0 loops of the network's program; write 'last'"),
    ],
)
def test_a_key_that_means_nothing_is_refused(key, sentence):
    network = only(recurrent)
    for attempt in (
        lambda: edit(network, PARAMS, SEQUENCES, {key: twice}),
        lambda: read(network, PARAMS, SEQUENCES, [key]),
        lambda: split(trace(network, PARAMS, SEQUENCES), [key]),
    ):
        with pytest.raises(InputError, match=sentence) as refused:
            attempt()
        assert "\n" not in str(refused.value)


def test_other_refusals_are_one_sentence():
    with pytest.raises(
        InputError, match=r"site 'hidden': expected its action to keep the shape \(20, 16\) and float32"
    ):
        edit(only(perceptron), PARAMS, X, {"hidden": lambda v: v[:, :3]})
    with pytest.raises(InputError, match=r"^site 'hidden#0': .* got \(20, 1\) .*; return values of that shape$"):
        edit(only(perceptron), PARAMS, X, {"hidden#0": lambda v: v[:, :1]})
    with pytest.raises(InputError, match=r"to keep the shape .* got .* int32; cast the result, for example with"):
        edit(only(perceptron), PARAMS, X, {"hidden": lambda v: jnp.zeros(v.shape, jnp.int32)})
    with pytest.raises(InputError, match=r"read: expected a list of site names, got 'hidden'; pass \['hidden'\]"):
        read(only(perceptron), PARAMS, X, "hidden")
    with pytest.raises(InputError, match=r"expected a site's name, as in site\('hidden', value\), got 3"):
        site(3, X)
    with pytest.raises(InputError, match="site 'a': expected an array or a pytree of arrays, got a function"):
        site("a", same)
    with pytest.raises(
        InputError, match=r"array of shape \(20, 8\) and float32, as the network was traced with, got \(7"
    ):
        trace(only(perceptron), PARAMS, X).evaluate(PARAMS, X[:7], {})
    with pytest.raises(InputError, match="expected params and x as the network was traced with"):
        trace(only(perceptron), PARAMS, X).evaluate({"into": X}, X, {})


def test_a_site_within_a_shard_map_of_the_network_is_refused():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("d",))
    whole = jax.sharding.PartitionSpec()

    def network(params, x):
        return jax.shard_map(lambda x: site("h", x) * 2, mesh=mesh, in_specs=whole, out_specs=whole)(x) + site(
            "after", x
        )

    inside, after = sites(network, PARAMS, X)
    assert inside.refusal.startswith("it is inside a shard_map, which jaxdist does not look into")
    assert after.refusal is None
    for attempt in (lambda: edit(network, PARAMS, X, {"h": twice}), lambda: read(network, PARAMS, X, ["h"])):
        with pytest.raises(InputError, match="site 'h': it is inside a shard_map"):
            attempt()
    assert_same(edit(network, PARAMS, X, {"after": twice}), 4 * X)


def test_debug_prints_happen_as_often_as_their_part(capfd):
    def network(params, x):
        jax.debug.print("before {}", x.sum())
        h = site("h", 2 * x)
        jax.debug.print("after {}", h.sum(), ordered=True)
        return h

    cut = split(trace(network, PARAMS, X), ["h"])
    known = cut.before(PARAMS, X)
    for factor in (2.0, 3.0):
        assert_same(cut.after(known, {"h": lambda v, a=factor: a * v}), factor * 2 * X)
    jax.effects_barrier()
    printed = capfd.readouterr().out
    assert (printed.count("before"), printed.count("after")) == (1, 2)


def test_what_the_network_raises_gets_a_note():
    with pytest.raises(ZeroDivisionError) as raised:
        sites(lambda params, x: 1 / 0, PARAMS, X)
    assert "sites ran apply(params, x) on x of shape (20, 8)" in raised.value.__notes__[-1]


def test_sown_values_are_edited_only_where_the_network_goes_on_with_them():
    def sow(value):
        tag("h", value, "sown")
        return 2 * value

    assert_same(edit(lambda p, x: jax.vmap(sow)(x), PARAMS, X, {"h": lambda v: 3 * v}), 6 * X)
    assert_same(
        edit(lambda p, x: jax.checkpoint(lambda x: sow(jnp.sin(x)))(x), PARAMS, X, {"h": jnp.cos}),
        2 * jnp.cos(jnp.sin(X)),
        1e-6,
    )

    def moved(p, x):
        return jax.vmap(sow, in_axes=1, out_axes=1)(x)

    def given(p, x):
        return jax.jit(sow)(2 * x)

    def differentiated(p, x):
        return jax.grad(lambda x: jnp.sum(sow(jnp.tanh(x))))(x)

    for network in (moved, given, differentiated):
        with pytest.raises(InputError, match="site 'h': its value is sown inside a transformation"):
            edit(network, PARAMS, X, {"h": twice})
    assert_same(read(moved, PARAMS, X, ["h"])[1]["h"], X.T)
    assert_same(read(given, PARAMS, X, ["h"])[1]["h"], 2 * X)
