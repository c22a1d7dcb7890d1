"""What a user's labels say of examples: which task they are of, and their numbers; what is ambiguous is refused.

A network's outputs for one example have a shape, () or (1,) for a single number, (C,) for logits or (K,) for the values
of a regression, (T, C) for logits of tokens. Together with the labels' shape and type it mostly says what they mean.
"""

from __future__ import annotations

from typing import TypeAlias, get_args

import jax.numpy as jnp
import numpy as np

from jaxdist.config import Task
from jaxdist.data import own_data
from jaxdist.errors import InputError
from jaxdist.formatting import counted

IGNORED = -100
"""The label of a token that counts for nothing, as in other libraries."""

Shape: TypeAlias = tuple[int, ...]

_MOST = np.iinfo(np.int32).max

_GIVE = "pass task='binary' if they are classes, or task='regression' if they are real targets"


def checked(task: object) -> Task | None:
    """The task that is given, if any; raises `InputError` for one that there is not."""
    if task is None or task in get_args(Task):
        return task  # type: ignore[return-value]  # mypy does not narrow by membership
    raise InputError(f"task: expected one of {', '.join(get_args(Task))}, got {task!r}")


def task_of(given: np.ndarray, rows: int, each: Shape, split: str) -> Task:
    """The task that labels are of.

    Args:
      given: labels [N, ...].
      rows: N.
      each: the shape of one example's outputs.
      split: its name, for messages.

    Raises:
      InputError: where shapes and types leave it open.
    """
    y = given[:, 0] if given.shape == (rows, 1) else given
    real = jnp.issubdtype(y.dtype, jnp.floating)
    if each in ((), (1,)):
        return _of_single(y, rows, split, real=real)
    if len(each) > 1 and y.shape == (rows, *each[:-1]):
        return "tokens"
    if len(each) == 1 and y.shape == (rows, *each) and not _is_one_hot(y):
        if not real:
            raise InputError(
                f"{split}: the labels are {y.dtype} of shape {y.shape}, one number for each output of the network, "
                "but not one-hot; pass the class of each example, or task='regression' if they are targets"
            )
        if (y >= 0).all() and np.allclose(y.astype(np.float64).sum(1), 1, atol=1e-3):
            raise InputError(
                f"{split}: the labels are shares of classes, but counting needs one class for each example; pass "
                "labels.argmax(1), or task='regression' if they are targets"
            )
        return "regression"
    return "classes"


def _of_single(y: np.ndarray, rows: int, split: str, *, real: bool) -> Task:
    if y.shape != (rows,):
        raise InputError(
            f"{split}: expected one label for each of {counted(rows, 'input')}, since the network returns one number "
            f"for each, got {y.dtype} of shape {y.shape}"
        )
    two = y.dtype == bool or ((real or y.dtype.kind in "iu") and bool(((y == 0) | (y == 1)).all()))
    if real and two:
        raise InputError(f"{split}: the labels are 0 and 1 as {y.dtype}, which may be classes or targets; {_GIVE}")
    if not (real or two) and y.dtype.kind in "iu":
        raise InputError(
            f"{split}: the labels are integers from {y.min()} to {y.max()}, but the network returns one number for "
            "each example; use labels 0 and 1 for two classes, return logits of all classes, or pass "
            "task='regression' if the labels are targets"
        )
    return "regression" if real else "binary"


def _is_one_hot(y: np.ndarray) -> bool:
    return y.ndim == 2 and y.dtype.kind in "biuf" and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def of_task(task: Task, given: np.ndarray, rows: int, each: Shape, split: str) -> np.ndarray:
    """Labels as numbers of a task: classes int32 [N], of tokens int32 [N, T], targets float32 [N] or [N, K].

    Args:
      task: what the outputs answer.
      given: labels [N, ...]; of classes also one-hot, [N, C].
      rows: N.
      each: the shape of one example's outputs, which the task allows.
      split: its name, for messages.

    Raises:
      InputError: for labels that do not fit.
    """
    if task == "regression":
        return _targets(given, rows, each, split)
    if task == "tokens":
        return _of_tokens(given, rows, each, split)
    classes = 2 if task == "binary" else each[-1]
    if given.shape == (rows, classes) and _is_one_hot(given):
        given = given.argmax(1)
    return own_data.labels(given, rows, classes, split)


def _targets(labels: np.ndarray, rows: int, each: Shape, split: str) -> np.ndarray:
    shape = (rows,) if each in ((), (1,)) else (rows, *each)
    y = labels[:, 0] if labels.shape == (rows, 1) and shape == (rows,) else labels
    if y.shape != shape:
        raise InputError(
            f"{split}: expected targets {list(shape)} for {counted(rows, 'input')}, one for each output of the "
            f"network, got {y.dtype} of shape {labels.shape}"
        )
    if y.dtype.kind not in "biuf" and not jnp.issubdtype(y.dtype, jnp.floating):
        raise InputError(f"{split}: the targets have type {y.dtype}; expected real numbers")
    with np.errstate(over="ignore"):
        targets = y.astype(np.float32)
    if not np.isfinite(targets).all():
        raise InputError(f"{split}: the targets hold numbers that are not finite, or too large for float32")
    return targets


def _of_tokens(labels: np.ndarray, rows: int, each: Shape, split: str) -> np.ndarray:
    shape, classes = (rows, *each[:-1]), each[-1]
    if labels.shape != shape:
        raise InputError(
            f"{split}: expected a label for each token, {list(shape)} for {counted(rows, 'input')}, got {labels.dtype} "
            f"of shape {labels.shape}; if each example has a single label, return the logits of one position, such as "
            "logits[:, -1]"
        )
    flat = labels.reshape(-1)
    ignored = np.asarray(flat == IGNORED) if labels.dtype.kind != "b" else np.zeros(flat.shape, bool)
    numbers = np.full(flat.shape, IGNORED, np.int32)
    if not ignored.all():
        numbers[~ignored] = own_data.labels(flat[~ignored], int((~ignored).sum()), classes, split, what="token")
    return numbers.reshape(shape)


def counted_tokens(y: np.ndarray | int | None, split: str) -> int:
    """How many of the labels [N, ...] count, or their number checked.

    Raises:
      InputError: for none, and for more than an int32 can count.
    """
    count = int(np.count_nonzero(y >= 0)) if isinstance(y, np.ndarray) else int(y or 0)
    if not 0 < count <= _MOST:
        raise InputError(f"{split}: expected 1 to {_MOST:,} tokens with a label that counts, got {count:,}")
    return count
