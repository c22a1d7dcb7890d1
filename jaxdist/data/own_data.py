"""A user's inputs and labels, as people hold them in Python, made into arrays; what they mean is never guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxdist.errors import InputError
from jaxdist.formatting import counted

Labelled: TypeAlias = Sequence[Any]
"""Two arrays, or what NumPy makes arrays of: inputs [N, ...] and labels [N]."""

Given: TypeAlias = Labelled | Iterable[Any] | Callable[[], Iterable[Any]]
"""Two arrays, or batches of them that can be iterated again, or a function that makes an iterator of batches."""

_TOO_LONG = "gG"
"""NumPy's extended precision, which JAX does not have."""


def pair(given: Labelled, split: str) -> tuple[Any, np.ndarray]:
    """Inputs [N, ...] of the type JAX gives them, and labels as they are, to be checked by `labels`.

    A dictionary of inputs, such as tokens and their mask, stays one.

    Raises:
      InputError: for what is no pair of arrays, no input at all, and inputs that are not finite numbers.
    """
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        count = f" of {len(given)}" if isinstance(given, (tuple, list, Mapping)) else ""
        raise InputError(
            f"{split}: expected inputs and labels, as ({split}_x, {split}_y), got {type(given).__name__}{count}"
        )
    x, y = given
    if not isinstance(x, Mapping):
        return _inputs(x, split, "the inputs"), array(y, f"{split}: the labels")
    inputs = {name: _inputs(part, split, f"the inputs {name!r}") for name, part in x.items()}
    sizes = {name: len(part) for name, part in inputs.items()}
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{size} of {name!r}" for name, size in sizes.items()) or "none"
        raise InputError(f"{split}: expected the same number of examples of each input, got {listed}")
    return inputs, array(y, f"{split}: the labels")


def sources(given: Any, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Other inputs that go with those of each split [N, ...]: one for each example, or [1, ...], which stands for all.

    Raises:
      InputError: for inputs of another shape, type or structure, and where a split has none.
    """
    of_splits = isinstance(given, Mapping) and {*given} <= {"train", "test"}
    by_split: Mapping[str, Any] = given if of_splits else dict.fromkeys(splits, given)
    missing = [split for split in splits if split not in by_split]
    if missing:
        raise InputError(f"source: expected inputs for {' and '.join(splits)}, got none for {missing[0]}")
    inputs: dict[str, Any] = {}
    for split, x in splits.items():
        where, other = f"source['{split}']" if of_splits else "source", by_split[split]
        if not isinstance(x, Mapping):
            inputs[split] = _like(other, x, where, split)
            continue
        if not isinstance(other, Mapping) or {*other} != {*x}:
            got = ", ".join(map(str, other)) if isinstance(other, Mapping) else type(other).__name__
            raise InputError(
                f"{where}: expected inputs with the same names as those of {split}, {', '.join(x)}, got {got}"
            )
        inputs[split] = {name: _like(other[name], part, where, split) for name, part in x.items()}
    return inputs


def _like(value: Any, x: np.ndarray, where: str, split: str) -> np.ndarray:
    other = _inputs(value, where, "the inputs")
    if other.shape[1:] != x.shape[1:] or len(other) not in (1, len(x)) or other.dtype != x.dtype:
        raise InputError(
            f"{where}: expected inputs like those of {split}, {x.dtype} of shape {x.shape}, or 1 example instead of "
            f"{len(x)}, got {other.dtype} of shape {other.shape}"
            + ("; if the splits differ, pass source={'train': ..., 'test': ...}" if where == "source" else "")
        )
    return np.broadcast_to(other, x.shape)


def _inputs(value: Any, split: str, what: str) -> np.ndarray:
    x = array(value, f"{split}: {what}")
    if not x.ndim:
        raise InputError(f"{split}: expected inputs [N, ...] of numbers, got {x.dtype} of shape {x.shape}")
    x = numbers(x, f"{split}: {what}", finite=True)
    if not x.size:
        raise InputError(
            f"{split}: expected at least one example with at least one value, got inputs of shape {x.shape}"
        )
    return x


def array(value: Any, where: str) -> np.ndarray:
    """A NumPy array of the machine's byte order, without changing a value.

    Raises:
      InputError: starting with `where`; for what NumPy cannot read, and for masked values.
    """
    try:
        values = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise InputError(
            f"{where} cannot be read as an array from {type(value).__name__} ({reason}); pass a NumPy array"
            + (", such as tensor.detach().cpu().float().numpy()" if hasattr(value, "detach") else "")
        ) from None
    if np.ma.is_masked(value):
        raise InputError(f"{where} contain masked values; pass only examples without them")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def numbers(values: np.ndarray, where: str, *, finite: bool) -> np.ndarray:
    """Numbers of the type that JAX gives them, as float32 for float64 unless it has 64 bits.

    Raises:
      InputError: starting with `where`; for what is no number, does not fit that type, or is not `finite` where wanted.
    """
    try:
        dtype = None if values.dtype.char in _TOO_LONG else jax.dtypes.canonicalize_dtype(values.dtype)
    except TypeError:
        dtype = None
    if dtype is None or not (jnp.issubdtype(dtype, jnp.number) or dtype.kind == "b"):
        raise InputError(f"{where} have type {values.dtype}; expected numbers of a type that JAX has, such as float32")
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    if finite and inexact and not np.isfinite(values).all():
        raise InputError(f"{where} hold values that are not finite; expected finite numbers")
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if cast.dtype != values.dtype:
        lost = np.isinf(cast) & np.isfinite(values) if inexact else cast != values
        if lost.any():
            raise InputError(
                f"{where} hold {values[lost].ravel()[0]}, which does not fit into {cast.dtype}; pass smaller numbers, "
                "or enable 64 bits in JAX (jax_enable_x64)"
            )
    return cast


def labels(given: np.ndarray, rows: int, classes: int, split: str, what: str = "input") -> np.ndarray:
    """The classes of examples, int32 [N].

    Args:
      given: labels [N] or [N, 1]: whole numbers of any type, or truth values of two classes.
      rows: N.
      classes: C.
      split: its name, for messages.
      what: what has a label each, for messages.

    Raises:
      InputError: for everything else, with the way to class numbers.
    """
    y = given[:, 0] if given.shape == (rows, 1) else given
    if y.shape != (rows,):
        raise InputError(
            f"{split}: expected one integer label for each of {counted(rows, what)}, got {given.dtype} of shape "
            f"{given.shape}{_way_out(given, rows)}"
        )
    y = _as_integers(y, classes, split)
    if y.min() < 0 or y.max() >= classes:
        hint = "; if they start at 1, pass labels - 1" if y.min() == 1 and y.max() == classes else ""
        raise InputError(
            f"{split}: expected labels from 0 to {classes - 1}, one of the network's "
            f"{counted(classes, 'class', 'classes')}, got {y.min()} to {y.max()}{hint}"
        )
    return y.astype(np.int32)


def _way_out(y: np.ndarray, rows: int) -> str:
    if y.ndim != 2 or len(y) != rows:
        return ""
    if y.dtype.kind in "biuf" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        return "; if they are one-hot, pass labels.argmax(1)"
    return "; a label per token needs logits for each token, and the targets of a regression need task='regression'"


def _as_integers(y: np.ndarray, classes: int, split: str) -> np.ndarray:
    """Labels [N] as integers."""
    kinds = {type(label) for label in y.tolist()} if y.dtype.kind == "O" else set()
    if y.dtype.kind in "iu":
        return y
    if y.dtype == bool:
        if classes == 2:
            return y.astype(np.int32)
        raise InputError(
            f"{split}: the labels are truth values, which name two classes, but the network has {classes}; pass the "
            "class of each example as an integer"
        )
    if jnp.issubdtype(y.dtype, jnp.floating):
        wide = y.astype(np.float64)
        if (np.isfinite(wide) & (wide == np.round(wide)) & (np.abs(wide) < 2**53)).all():
            return wide.astype(np.int64)
        raise InputError(
            f"{split}: the labels are {y.dtype} and not all whole numbers; expected one integer label for each input, "
            "or, with task='regression', a target for each output of the network"
        )
    if kinds and all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds):
        return np.array([int(label) for label in y.tolist()], object)
    if y.dtype.kind in "US" or kinds == {str}:
        integers = "np.array(labels).astype(int)"
        try:
            y.astype(int)
        except (ValueError, OverflowError):
            integers = "np.unique(labels, return_inverse=True)[1] if the network's classes are in sorted order"
        raise InputError(f"{split}: the labels are text, such as {str(y[0])!r}; expected integers; pass {integers}")
    of = " of " + ", ".join(sorted(kind.__name__ for kind in kinds)) if kinds else ""
    raise InputError(
        f"{split}: expected one integer label for each input, got {y.dtype}{of}; pass the class of each example"
    )
