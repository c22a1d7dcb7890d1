"""Inputs and labels as people hold them in Python: what loses nothing works, the rest is a sentence with a way out."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxdist.data import own_data
from jaxdist.errors import InputError

Y = np.array([2, 0, 3, 1, 1, 0])
X = np.arange(12, dtype=np.float32).reshape(6, 2)


def labels(given, classes=4, rows=6):
    return own_data.labels(own_data.array(given, "train: the labels"), rows, classes, "train")


LOSSLESS = {
    "int8": Y.astype(np.int8),
    "uint64": Y.astype(np.uint64),
    "big-endian": Y.astype(">i4"),
    "a column": Y[:, None],
    "a column of floats": Y[:, None].astype(float),
    "floats": Y.astype(float),
    "float16": Y.astype(np.float16),
    "bfloat16": jnp.asarray(Y, jnp.bfloat16),
    "a list": Y.tolist(),
    "a tuple of NumPy's integers": tuple(Y),
    "objects": Y.astype(object),
    "objects of NumPy's": np.array([*map(np.int16, Y)], object),
    "a JAX array": jnp.asarray(Y),
    "a series": pd.Series(Y),
    "a nullable series": pd.Series(Y, dtype="Int64"),
    "a category of integers": pd.Series(Y).astype("category"),
    "a data frame of one column": pd.DataFrame(Y),
    "a masked array without a mask": np.ma.array(Y),
}


@pytest.mark.parametrize("given", LOSSLESS.values(), ids=LOSSLESS)
def test_labels_of_every_kind_that_loses_nothing_are_the_same(given):
    made = labels(given)
    assert made.dtype == np.int32
    np.testing.assert_array_equal(made, Y)


def test_truth_values_are_two_classes_and_never_more():
    for given in (Y > 1, (Y > 1)[:, None], (Y > 1).tolist()):
        np.testing.assert_array_equal(labels(given, 2), Y > 1)
    with pytest.raises(InputError, match="truth values, which name two classes, but the network has 4; pass the class"):
        labels(Y > 1)


REFUSED = {
    "one-hot": (np.eye(4)[Y], r"if they are one-hot, pass labels\.argmax\(1\)$"),
    "one-hot integers": (np.eye(4, dtype=int)[Y], r"if they are one-hot, pass labels\.argmax\(1\)$"),
    "one-hot truth values": (np.eye(4, dtype=bool)[Y], r"if they are one-hot, pass labels\.argmax\(1\)$"),
    "shares of classes": (
        np.full((6, 4), 0.25),
        "expected one integer label for each of 6 inputs, got float64 of shape",
    ),
    "a label a token": (np.stack([Y] * 3, 1), "a label per token needs logits for each token, and the targets"),
    "targets of a regression": (Y + 0.5, "not all whole numbers; .* with task='regression', a target for each output"),
    "a missing label": (np.where(Y > 2, np.nan, Y), "are float64 and not all whole numbers"),
    "an infinite label": (np.where(Y > 2, np.inf, Y), "are float64 and not all whole numbers"),
    "names": (np.array(list("abcd"))[Y], r"text, such as 'c'; .* np\.unique\(labels, return_inverse=True\)\[1\] if"),
    "names as objects": (np.array(list("abcd"), object)[Y], r"np\.unique\(labels, return_inverse=True\)\[1\] if"),
    "a category of names": (pd.Series(np.array(list("abcd"))[Y]).astype("category"), r"np\.unique\(labels"),
    "digits as text": (
        Y.astype(str),
        r"text, such as '2'; expected integers; pass np\.array\(labels\)\.astype\(int\)$",
    ),
    "complex": (Y + 0j, "expected one integer label for each input, got complex128; pass the class"),
    "dates": (Y.astype("M8[s]"), r"expected one integer label for each input, got datetime64\[s\]; pass the class"),
    "nothing": ([None] * 6, "got object of NoneType; pass the class"),
    "mixed": ([1, "a", None, 2, 3, 0], "got object of NoneType, int, str; pass the class"),
    "from 1": (
        Y + 1,
        "from 0 to 3, one of the network's 4 classes, got 1 to 4; if they start at 1, pass labels - 1$",
    ),
    "below 0": (Y - 1, "expected labels from 0 to 3, one of the network's 4 classes, got -1 to 2$"),
    "too large": (np.full(6, 2**40), "expected labels from 0 to 3, .* got 1099511627776 to 1099511627776$"),
    "beyond int64": (np.full(6, 2**63, np.uint64), "expected labels from 0 to 3, .* got 9223372036854775808 to"),
    "too few": (Y[:5], r"expected one integer label for each of 6 inputs, got int64 of shape \(5,\)$"),
    "a number": (1, r"expected one integer label for each of 6 inputs, got int64 of shape \(\)$"),
    "masked": (np.ma.masked_equal(Y, 1), "the labels contain masked values"),
    "ragged": ([[1], [2, 3]], "the labels cannot be read as an array from list"),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_other_labels_are_refused_in_one_sentence_with_the_way_out(given, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        labels(given)
    assert str(caught.value).startswith("train: ")
    assert "\n" not in str(caught.value)


def test_the_ways_out_that_are_named_work():
    np.testing.assert_array_equal(labels(np.eye(4)[Y].argmax(1)), Y)
    np.testing.assert_array_equal(labels(np.unique(np.array(list("abcd"))[Y], return_inverse=True)[1]), Y)
    np.testing.assert_array_equal(labels(np.array(Y.astype(str).tolist()).astype(int)), Y)
    np.testing.assert_array_equal(labels((Y + 1) - 1), Y)


SAME_INPUTS = {
    "float64": X.astype(np.float64),
    "big-endian": X.astype(">f4"),
    "big-endian float64": X.astype(">f8"),
    "a list": X.tolist(),
    "a tuple of tuples": tuple(map(tuple, X)),
    "a data frame": pd.DataFrame(X),
    "a JAX array": jnp.asarray(X),
    "not contiguous": np.asfortranarray(np.repeat(X, 2, 0))[::2],
}


@pytest.mark.parametrize("given", SAME_INPUTS.values(), ids=SAME_INPUTS)
@pytest.mark.parametrize("kind", [tuple, list])
def test_inputs_of_every_kind_that_loses_nothing_are_the_same(given, kind):
    x, y = own_data.pair(kind((given, Y)), "train")
    assert x.dtype == np.float32
    assert x.dtype.isnative
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.float16, bool])
def test_inputs_keep_a_type_that_jax_has(kind):
    assert own_data.pair((X.astype(kind), Y), "train")[0].dtype == kind
    assert own_data.pair((X.astype(np.int64), Y), "train")[0].dtype == np.int32


REFUSED_INPUTS = {
    "not finite": (np.full((6, 2), np.nan), "the inputs hold values that are not finite; expected finite numbers"),
    "infinite": (np.full((6, 2), np.inf, np.float16), "the inputs hold values that are not finite"),
    "complex and not finite": (np.full((6, 2), np.nan + 1j), "the inputs hold values that are not finite"),
    "too large": (np.full((6, 2), 1e300), r"the inputs hold 1e\+300, which does not fit into float32"),
    "too large integers": (np.full((6, 2), 2**40), "the inputs hold 1099511627776, which does not fit into int32"),
    "extended precision": (X.astype(np.longdouble), "the inputs have type float128|the inputs have type float96"),
    "text": (X.astype(str), "the inputs have type <U32; expected numbers of a type"),
    "objects": (X.astype(object), "the inputs have type object; expected numbers of a type"),
    "a number": (1.0, r"expected inputs \[N, ...\] of numbers, got float64 of shape \(\)"),
    "no examples": (X[:0], r"expected at least one example with at least one value, got inputs of shape \(0, 2\)"),
    "no values": (X[:, :0], r"expected at least one example with at least one value, got inputs of shape \(6, 0\)"),
    "masked": (np.ma.masked_greater(X, 3), "the inputs contain masked values"),
    "ragged": ([[1, 2], [3]], "the inputs cannot be read as an array from list"),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED_INPUTS.values(), ids=REFUSED_INPUTS)
def test_other_inputs_are_refused_in_one_sentence(given, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        own_data.pair((given, Y), "test")
    assert str(caught.value).startswith("test: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [None, X, {"x": X, "y": Y}, (X, Y, Y), [X], (each for each in (X, Y)), "xy"])
def test_what_is_no_pair_is_refused(given):
    with pytest.raises(InputError, match=r"train: expected inputs and labels, as \(train_x, train_y\), got"):
        own_data.pair(given, "train")


def test_tensors_of_pytorch_are_read_or_their_way_out_is_named():
    torch = pytest.importorskip("torch")
    x, y = own_data.pair((torch.tensor(X), torch.tensor(Y)), "train")
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(labels(y), Y)
    for given in (torch.tensor(X, requires_grad=True), torch.tensor(X).bfloat16()):
        with pytest.raises(
            InputError, match=r"pass a NumPy array, such as tensor\.detach\(\)\.cpu\(\)\.float\(\)\.numpy\(\)$"
        ):
            own_data.pair((given, Y), "train")
        np.testing.assert_array_equal(own_data.pair((given.detach().cpu().float().numpy(), Y), "train")[0], X)
