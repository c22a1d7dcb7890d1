"""The order of layers read from files: certain, or asked for, and never guessed."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from jaxdist.errors import InputError
from jaxdist.storage.torch import order, perceptrons

SQUARE = ((6, 6), (6, 6), (6, 3))


def tensors(names, sizes, bias=True):
    """Layers by name with (inputs, units) each, told apart by their values."""
    rng = np.random.default_rng(0)
    by_name = {}
    for name, (inputs, units) in zip(names, sizes, strict=True):
        by_name[f"{name}.weight"] = rng.normal(size=(units, inputs)).astype(np.float32)
        if bias:
            by_name[f"{name}.bias"] = rng.normal(size=units).astype(np.float32)
    return by_name


def read(names, sizes, listed=None, **options):
    """The names in the order in which they are read, from a file that lists them in some order."""
    held = tensors(names, sizes)
    shuffled = {key: held[key] for name in listed or names for key in (f"{name}.weight", f"{name}.bias")}
    params = perceptrons.from_tensors(shuffled, "file.pt", **options)
    return [
        next(name for name in names if np.array_equal(held[f"{name}.weight"], params[f"dense{k}"]["weight"]))
        for k in range(len(names))
    ]


@pytest.mark.parametrize("listed", list(itertools.permutations(("encoder", "middle", "decoder"))))
def test_shapes_that_allow_one_order_alone_give_it_whatever_the_files_is(listed):
    names = ("encoder", "middle", "decoder")
    assert read(names, ((6, 5), (5, 4), (4, 3)), listed) == list(names)


@pytest.mark.parametrize(
    "names",
    [
        ("0", "2", "4"),
        ("0", "1", "2"),
        ("net.0", "net.2", "net.4"),
        ("module.layers.8", "module.layers.9", "module.layers.10"),
        ("0.0", "0.2", "1"),
        ("blocks.0.linear", "blocks.1.linear", "blocks.2.linear"),
        ("features.0", "features.3", "classifier"),
    ],
)
def test_numbers_of_members_of_a_container_are_an_order(names):
    for listed in itertools.permutations(names):
        assert read(names, SQUARE, listed) == list(names)


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("input", "hidden", "output"), SQUARE),
        (("hidden", "input", "output"), SQUARE),
        (("fc1", "fc2", "fc3"), SQUARE),
        (("model.fc1", "model.fc2", "model.fc3"), SQUARE),
        (("dense0", "dense1", "dense2"), SQUARE),
        (("a.0", "b.0", "c.0"), SQUARE),
        (("blocks.0.up", "blocks.0.down", "head"), SQUARE),
        (("first", "second", "third", "fourth"), ((5, 6), (6, 6), (6, 6), (6, 3))),
        (("up", "down"), ((4, 6), (6, 4))),
        (("a", "b", "c", "d"), ((4, 6), (6, 4), (4, 5), (5, 4))),
        (tuple(f"layer{k}" for k in range(60)), ((6, 6),) * 60),
    ],
)
def test_layers_that_could_be_exchanged_are_asked_for_and_read_in_the_order_said(names, sizes):
    with pytest.raises(InputError, match=r"more than one order.*--layers NAME,NAME,\.\.\.$") as error:
        read(names, sizes)
    short = re.search(r"layers \(([^)]+)\)", str(error.value))[1].split(", ")
    assert len(short) == len(names)
    assert read(names, sizes, layers=names) == list(names)
    assert read(names, sizes, layers=short) == list(names)
    if sizes == SQUARE:
        exchanged = (names[1], names[0], names[2])
        assert read(names, sizes, layers=exchanged) == list(exchanged)


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        (("input", "hidden"), "'output' is missing"),
        (("input", "hiden", "output"), "'hiden' is not one of them and 'hidden' is missing"),
        (("input", "hidden", "hidden", "output"), "'hidden' is named 2 times"),
        (("input", "hidden", "output", "more"), "'more' is not one of them"),
        (("", "hidden", "output"), "'' is not one of them and 'input' is missing"),
    ],
)
def test_names_that_are_not_the_layers_get_their_list(layers, problem):
    with pytest.raises(InputError, match=r"\(input, hidden, output\)") as error:
        read(("input", "hidden", "output"), SQUARE, layers=layers)
    assert problem in str(error.value)


def test_an_order_that_does_not_fit_is_refused_where_it_breaks():
    with pytest.raises(InputError, match="layer 'hidden' expects 6 inputs, but 'output' before it gives 3"):
        read(("input", "hidden", "output"), SQUARE, layers=("input", "output", "hidden"))
    with pytest.raises(InputError, match="layer 'b' expects 7 inputs, but 'a' before it gives 6"):
        read(("a", "b"), ((5, 6), (7, 3)))


def test_a_modules_own_order_is_certain_and_not_to_be_contradicted():
    names = ("c", "a", "b")
    assert read(names, SQUARE, certain=True) == list(names)
    assert read(names, SQUARE, certain=True, layers=names) == list(names)
    with pytest.raises(InputError, match="the module computes its layers in the order c, a, b, not a, c, b"):
        read(names, SQUARE, certain=True, layers=("a", "c", "b"))


def test_stacked_layers_that_jaxdist_stored_are_in_the_order_of_their_numbers():
    held = tensors([f"dense{k}" for k in (10, 2, 1, 0)], ((4, 4),) * 4)
    stacked = {name: np.stack([tensor, tensor + 1]) for name, tensor in held.items()}
    params = perceptrons.from_tensors(stacked, "relu.safetensors")
    for k, name in enumerate(("dense0", "dense1", "dense2", "dense10")):
        np.testing.assert_array_equal(params[f"dense{k}"]["weight"], stacked[f"{name}.weight"])


@pytest.mark.parametrize("names", [("0", "1", "3"), ("net.0", "net.2", "net.3"), ("1", "2", "4", "6")])
def test_two_layers_of_a_sequential_with_nothing_between_are_not_taken_for_layers_with_an_activation(names):
    sizes = ((7, 6), (6, 5), (5, 4), (4, 3))[: len(names)]
    with pytest.raises(InputError, match="follow each other with nothing between them"):
        read(names, sizes)
    assert read(names, sizes, layers=names) == list(names)


def test_transposed_weights_are_told_by_their_biases():
    held = tensors(("fc1", "fc2"), ((6, 5), (5, 3)))
    turned = {name: tensor.T if tensor.ndim == 2 else tensor for name, tensor in held.items()}
    with pytest.raises(InputError, match="the weights look transposed"):
        perceptrons.from_tensors(turned, "file.pt")


def test_layers_without_a_bias_are_named_where_others_have_one():
    held = tensors(("fc1", "fc2"), ((6, 5), (5, 3)))
    assert perceptrons.without_bias(held) == []
    assert perceptrons.without_bias(tensors(("fc1", "fc2"), ((6, 5), (5, 3)), bias=False)) == []
    assert perceptrons.without_bias({k: v for k, v in held.items() if k != "fc1.bias"}) == ["fc1"]


def test_a_search_that_would_not_end_asks():
    """Layers whose shapes fit nearly everywhere, and in no order at all."""
    shapes = {f"l{k}": order.Shape(2 + k % 2, 2 + (k // 2) % 2, False) for k in range(30)}
    shapes |= {"odd": order.Shape(9, 9, False)}
    with pytest.raises(InputError, match="more than one order"):
        order.of(shapes, "crafted.pt")
    with pytest.raises(InputError, match="at most 200"):
        order.of({f"l{k}": order.Shape(2, 2, False) for k in range(201)}, "crafted.pt")
