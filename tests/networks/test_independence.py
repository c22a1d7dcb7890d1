"""Networks whose logits for one example depend on others are refused, and rounding alone never is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.compute import tuning
from jaxdist.errors import InputError
from jaxdist.networks import independence
from jaxdist.networks.model import Model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 16)).astype(np.float32)
PROVED = "the logits of an example depend on .* cumsum works along the batch axis"
REFUSED = "the logits of an example depend on the other examples of its block, as with batch statistics"


def weights(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [(RNG.normal(size=shape) / np.sqrt(shape[-2])).astype(np.float32) for shape in shapes]


DENSE = weights((16, 32), (32, 10))
EXPERTS = weights((16, 32), (32, 4), (4, 32, 32), (32, 10))


def hidden(params, x, tap):
    return jax.nn.relu(tap("h", x.astype(params[0].dtype) @ params[0]))


def plain(params, x, tap):
    return hidden(params, x, tap) @ params[-1]


def experts(capacity):
    """Each example goes to one of four experts, which takes no more than `capacity(n)` of a block's n examples."""

    def apply(params, x, tap):
        _, gate, weight, head = params
        h = hidden(params, x, tap)
        chosen = (h @ gate).argmax(-1)
        place = jnp.cumsum(jax.nn.one_hot(chosen, 4, dtype=jnp.int32), 0)[jnp.arange(len(x)), chosen]
        out = jnp.einsum("nd,ndf->nf", h, weight[chosen])
        return (h + jnp.where((place <= capacity(len(x)))[:, None], out, jnp.zeros_like(out))) @ head

    return apply


def batch_statistics(params, x, tap):
    h = tap("h", x.astype(params[0].dtype) @ params[0])
    return jax.nn.relu((h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True)) @ params[1]


def softmax_over_the_block(params, x, tap):
    return jax.nn.softmax(plain(params, x, tap), 0)


def last_rows(count):
    def apply(params, x, tap):
        logits = plain(params, x, tap)
        late = jnp.arange(len(x)) >= max(len(x) - count, 1)
        return jnp.where(late[:, None], -logits, logits)

    return apply


def one_row_of_many(params, x, tap):
    """Only the example whose first input is the block's largest is changed."""
    logits = plain(params, x, tap)
    return jnp.where((x[:, :1] == x[:, :1].max()) & (len(x) > 1), -logits, logits)


def place_in_the_block(params, x, tap):
    return plain(params, x, tap) * (1 + jnp.arange(len(x), dtype=params[0].dtype)[:, None] / len(x))


def large_logits_with_a_place(params, x, tap):
    return place_in_the_block(params, x, tap) + jnp.asarray(1e6, params[0].dtype)


def comparison(params, x, tap):
    """Similarity to the mean of the block's other examples, beside the logits."""
    logits = plain(params, x, tap)
    return logits + 0.1 * (logits.sum(0, keepdims=True) - logits) / len(x)


def only_under_an_edit(params, x, tap):
    """The block's mean is taken away before the site and given back behind it."""
    h = x.astype(params[0].dtype) @ params[0]
    mean = h.mean(0, keepdims=True)
    return jax.nn.relu(tap("h", h - mean) + mean) @ params[1]


def dropout_by_place(params, x, tap):
    mask = jax.random.bernoulli(jax.random.key(0), 0.9, (len(x), 32))
    return (hidden(params, x, tap) * mask.astype(params[0].dtype)) @ params[-1]


DEPENDENT = {
    "experts of a quarter": (experts(lambda n: n // 4), EXPERTS),
    "experts of a half": (experts(lambda n: n // 2), EXPERTS),
    "experts of all but one": (experts(lambda n: n - 1), EXPERTS),
    "experts of eight": (experts(lambda n: 8), EXPERTS),
    "batch statistics": (batch_statistics, DENSE),
    "softmax over the block": (softmax_over_the_block, DENSE),
    "the last row": (last_rows(1), DENSE),
    "the last three rows": (last_rows(3), DENSE),
    "one row of many": (one_row_of_many, DENSE),
    "place in the block": (place_in_the_block, DENSE),
    "large logits": (large_logits_with_a_place, DENSE),
    "comparison": (comparison, DENSE),
    "only under an edit": (only_under_an_edit, DENSE),
    "dropout": (dropout_by_place, DENSE),
}


def check(apply, params, x, size, *, sites=("h",), dtype=np.float32, **axes):
    independence.check(Model(apply, **axes), [w.astype(dtype) for w in params], x, sites, size)


@pytest.mark.parametrize("size", [150, 64, 1])
@pytest.mark.parametrize("name", DEPENDENT)
def test_a_dependence_is_refused_in_blocks_of_every_size(name, size):
    apply, params = DEPENDENT[name]
    with pytest.raises(InputError, match=REFUSED) as caught:
        check(apply, params, X, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
@pytest.mark.parametrize(
    "name", ["experts of a quarter", "batch statistics", "the last row", "place in the block", "only under an edit"]
)
def test_a_dependence_is_refused_in_half_precision(name, dtype):
    apply, params = DEPENDENT[name]
    with pytest.raises(InputError, match=REFUSED):
        check(apply, params, X, 300, dtype=dtype)


@pytest.mark.parametrize("total", [2, 3, 17, 40, 65])
def test_a_dependence_is_refused_where_there_are_few_examples(total):
    with pytest.raises(InputError, match=REFUSED):
        check(batch_statistics, DENSE, X[:total], total)


def test_a_dependence_is_refused_where_examples_are_sorted_and_values_feature_major():
    def apply(params, x, tap):
        h = tap("h", params[0].T @ x.T)
        return params[1].T @ jax.nn.relu(h - h.mean(1, keepdims=True))

    with pytest.raises(InputError, match=REFUSED):
        check(apply, DENSE, X[np.argsort(X[:, 0])], 128, unit_axis=0, class_axis=0)
    check(lambda p, x, tap: p[1].T @ jax.nn.relu(tap("h", p[0].T @ x.T)), DENSE, X, 128, unit_axis=0, class_axis=0)


def deep(params, x, tap):
    """Many layers, normalised one by one, which double what rounding does."""
    h = tap("h", x.astype(params[0].dtype) @ params[0])
    for _ in range(24):
        h = jax.nn.relu(h @ (params[1] * jnp.asarray(1.5, h.dtype)))
        h = (h - h.mean(-1, keepdims=True)) / (h.std(-1, keepdims=True) + jnp.asarray(1e-3, h.dtype))
    return h @ params[2]


FINE = {
    "plain": (plain, DENSE),
    "deep": (deep, weights((16, 32), (32, 32), (32, 10))),
    "experts with room": (experts(lambda n: n), EXPERTS),
    "large logits": (lambda p, x, tap: 1e4 * plain(p, x, tap), DENSE),
    "logits far from 0": (lambda p, x, tap: plain(p, x, tap) + 1e3, DENSE),
    "logits very far from 0": (lambda p, x, tap: plain(p, x, tap) + 5e4, DENSE),
    "equal logits": (lambda p, x, tap: 0 * plain(p, x, tap), DENSE),
}


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
@pytest.mark.parametrize("name", FINE)
def test_rounding_is_never_refused(name, dtype):
    apply, params = FINE[name]
    for size in (150, 64, 1) if dtype == np.float32 else (300,):
        check(apply, params, X, size, dtype=dtype)


def test_rounding_inside_is_that_of_the_coarsest_type():
    def mixed(params, x, tap):
        """Computes in bfloat16 from float32 weights, and gives float32 logits."""
        half = [w.astype(jnp.bfloat16) for w in params]
        return experts(lambda n: n)(half, x, tap).astype(jnp.float32)

    single, half = 2.0**-23, 2.0**-7
    for apply, params, expected in (
        (mixed, EXPERTS, (half, single)),
        (plain, DENSE, (32 * single, single)),
        (plain, [w.astype(jnp.bfloat16) for w in DENSE], (half, half)),
    ):
        assert independence._rounding(Model(apply), params, X) == expected
    check(mixed, EXPERTS, X, 300)


def test_a_network_without_finite_logits_is_not_refused():
    check(lambda p, x, tap: plain(p, x, tap) * jnp.nan, DENSE, X, 64)
    check(lambda p, x, tap: plain(p, x, tap) / 0.0, DENSE, X, 64)


def test_only_a_pair_of_blocks_is_looked_at_a_time(monkeypatch):
    """However many examples and classes there are, and all of a split with few."""
    looked, rows = [], []
    monkeypatch.setattr(
        independence, "_in_blocks", lambda network, x, size: looked.append(len(x)) or np.zeros((len(x), 2))
    )
    many = np.zeros((100_000, 1), np.float32)
    for size in (1, 16, 64, 384, 4096):
        looked.clear()
        independence.check(
            Model(lambda p, x, tap: tap("h", x * p) @ jnp.ones((1, 2))), jnp.ones(()), many, ("h",), size
        )
        assert max(looked) <= max(2 * size, tuning.current().tile)
        rows = independence._pairs(len(many), size, independence._other(size, len(many)))
        assert sum(map(len, rows)) >= 256
        assert rows[0][0] == 0
        assert rows[-1][-1] == len(many) - 1
    for total in (2, 63, 64, 65, 500):
        (rows,) = independence._pairs(total, total, independence._other(total, total))
        assert list(rows) == list(range(total))
        assert independence._other(total, total) != total


@pytest.mark.parametrize("block", [1024, 1])
def test_a_probe_refuses_experts_of_limited_capacity_in_blocks_of_any_size(block):
    apply, params = DEPENDENT["experts of a quarter"]
    with pytest.raises(InputError, match=PROVED):
        jaxdist.probe(apply, params, train=(X, np.zeros(300, int)), sites=["h"], measured_on="pre", block=block)


def test_a_probe_looks_at_the_test_images_and_at_every_network():
    def apply(params, x, tap):
        """Only where the fifth weight says so, and only of examples with a mark, a neighbour's logits."""
        logits = plain(params[:2], x, tap)
        marked = (x[:, :1] > 50) | (params[2] > 0)
        return jnp.where(marked, logits - jnp.roll(logits, 1, 0), logits)  # of which nothing is proved

    labels, marked = np.zeros(300, int), X + 100
    given = {"train": (X, labels), "sites": ["h"], "measured_on": "pre", "families": ("clip",)}
    fine, last = [*DENSE, np.float32(0)], [*DENSE, np.float32(1)]
    jaxdist.probe(apply, fine, **given)
    with pytest.raises(InputError, match=f"{REFUSED}.* of 'test' differ"):
        jaxdist.probe(apply, fine, test=(marked, labels), **given)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), fine, fine, last)
    with pytest.raises(InputError, match=f"{REFUSED}.* of 'train' differ"):
        jaxdist.probe(apply, stacked, stacked=True, **given)
    for several in ((fine, last, fine), (fine, fine, last, fine), (last, fine, fine, fine, fine)):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
        with pytest.raises(InputError, match=f"{REFUSED}.* of 'train' differ"):
            jaxdist.probe(apply, stacked, stacked=True, **given)
    # A network without finite weights says nothing of it.
    broken = [*DENSE, np.float32(np.nan)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), broken, fine, last, broken)
    with pytest.raises(InputError, match=f"{REFUSED}.* of 'train' differ"):
        jaxdist.probe(apply, stacked, stacked=True, **given)


@pytest.mark.parametrize(("low", "high"), [(20.0, np.inf), (0.0, 0.02)])
def test_examples_that_depend_on_each_other_only_where_values_are_scaled_are_seen(low, high):
    def apply(params, x, tap):
        hidden = tap("h", x @ params[0])
        largest = jnp.abs(hidden).max(1, keepdims=True)
        beyond = (largest > low) & (largest < high)
        late = beyond & (jnp.cumsum(beyond, 0) > 3)
        return jnp.where(late, 0, hidden) @ params[1]

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)).astype(np.float32)
    params = [rng.normal(size=shape).astype(np.float32) for shape in ((8, 6), (6, 3))]
    largest = np.abs(x @ params[0]).max(1)
    assert ((largest > 0.02) & (largest < 20)).all(), "unedited, none is beyond"
    with pytest.raises(InputError, match=f"{REFUSED}.* where site 'h' is edited"):
        independence.check(Model(apply), params, x, ("h",), 64)
    with pytest.raises(InputError, match=PROVED):
        jaxdist.probe(apply, params, train=(x, np.arange(300) % 3), sites=["h"], families=("scale",))
